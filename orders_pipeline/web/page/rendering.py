"""Rendering: templates and the browser's own files, and in which language somebody reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from urllib.parse import quote

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from orders_pipeline.clients.api_tokens import Caller
from orders_pipeline.clients.users import USER_HEADER
from orders_pipeline.records.rejections import Language
from orders_pipeline.system.composition import System
from orders_pipeline.web.authentication import VISITOR
from orders_pipeline.web.page.texts import Words
from orders_pipeline.web.problems import Problem, language_of

PACKAGE = "orders_pipeline.web.page"
LANGUAGE_COOKIE = "lang"
LANGUAGES: Mapping[str, Language] = MappingProxyType({"ja": "ja", "en": "en"})
MEDIA_TYPES: Mapping[str, str] = MappingProxyType({"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"})
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        "Vary": "Cookie, Accept-Language",
    }
)
KEPT = {"Cache-Control": "private, max-age=31536000, immutable"}  # its address changes with its content


def _static() -> dict[str, bytes]:
    folder = resources.files(PACKAGE) / "static"
    return {each.name: each.read_bytes() for each in sorted(folder.iterdir(), key=lambda each: each.name)}


STATIC: Mapping[str, bytes] = MappingProxyType(_static())
_VERSION = hashlib.sha256(b"".join(STATIC.values())).hexdigest()[:10]
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader(PACKAGE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["segment"] = lambda text: quote(str(text), safe="")
_ENVIRONMENT.globals["static"] = lambda name: f"/static/{_VERSION}/{name}"


@dataclass(frozen=True)
class Visit:
    """One request of a person's browser; `caller` is None for who has not signed in."""

    system: System
    request: Request
    caller: Caller | None

    @property
    def language(self) -> Language:
        """Return the language that was chosen, or that the browser wants."""
        return language_for(self.request)

    @property
    def who(self) -> Caller:
        """Return who has signed in."""
        if self.caller is None:
            raise Problem("unauthorized")
        return self.caller

    def render(self, template: str, status: int = 200, **values: object) -> Response:
        """Return a page, or a part of one."""
        return HTMLResponse(_rendered(self.request, self.caller, template, values), status, HEADERS)


def language_for(request: Request) -> Language:
    """Return the language for a request: the one that was chosen, or that the browser wants."""
    chosen = LANGUAGES.get(request.cookies.get(LANGUAGE_COOKIE, ""))
    return chosen or language_of(request.headers.get("accept-language", ""))


def explain(problem: Problem, request: Request, request_id: str) -> Response:
    """Return the page that says what is wrong with a request; who has to sign in is led there."""
    if problem.slug == "unauthorized" and USER_HEADER in request.headers:  # the proxy knows them, and we do not
        title = Words(language_for(request))("unknown_user")
        return HTMLResponse(_rendered(request, None, "error.html", {"title": title, "request_id": request_id}), 403, HEADERS)
    if problem.slug == "unauthorized":
        return RedirectResponse(f"/sign-in?next={quote(request.url.path, safe='')}", 303, HEADERS)
    values = {"title": problem.kind.title(language_for(request)), "request_id": request_id}
    return HTMLResponse(_rendered(request, request.scope.get(VISITOR), "error.html", values), problem.kind.status, HEADERS)


def _rendered(request: Request, caller: Caller | None, template: str, values: Mapping[str, object]) -> str:
    words = Words(language_for(request))
    own = {"t": words, "lang": words.language, "caller": caller, "path": request.url.path}
    return _ENVIRONMENT.get_template(template).render(own | dict(values))


def show_static(request: Request) -> Response:
    """Answer with one of the browser's own files."""
    name = str(request.path_params["file"])
    if name not in STATIC or request.path_params["version"] != _VERSION:
        raise Problem("not-found")
    return Response(STATIC[name], headers=KEPT, media_type=MEDIA_TYPES[name.rpartition(".")[2]])


def choose_language(request: Request) -> Response:
    """Remember a language and go back to where it was chosen."""
    language = str(request.path_params["language"])
    if language not in LANGUAGES:
        raise Problem("not-found")
    response = RedirectResponse(own_path(request.query_params.get("next")), 303, HEADERS)
    response.set_cookie(LANGUAGE_COOKIE, language, max_age=365 * 86_400, httponly=True, samesite="lax")
    return response


def own_path(given: str | None) -> str:
    """Return a path of ours that was asked for, or the first page for any other address."""
    is_ours = given is not None and given.startswith("/") and given.isascii() and given.isprintable()
    return given if given is not None and is_ours and "//" not in given and "\\" not in given else "/"

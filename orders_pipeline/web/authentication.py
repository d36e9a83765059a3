"""Authentication: who asks, and whether they may: by a bearer token, a browser's cookie, or the word of our own proxy.

An unknown token, a wrong, an expired and a revoked one get the same answer. What tokens and sessions are is in
`clients/api_tokens.py` and `clients/api_sessions.py`, and users in `clients/users.py`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from orders_pipeline.batches.batches import BATCH_ID
from orders_pipeline.clients import api_sessions, api_tokens
from orders_pipeline.clients.api_tokens import Caller
from orders_pipeline.clients.users import SECRET_HEADER, USER_HEADER, is_our_proxy
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.system.composition import System
from orders_pipeline.web.problems import Problem

CLIENT_PARAMETER = "client"  # which client an operator's request is about
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
READING_METHODS = ("GET", "HEAD")
VISITOR = "visitor"  # in the scope of a request for a page, whose answer may be a problem: who asks


def authenticate(system: System, request: Request, scope: str) -> Caller:
    """Return who asks, for the client that it is about; raise a Problem where nobody that we know does, or one may not."""
    caller = require(system, request, scope)
    return replace(caller, client_code=_client_of(system, request)) if caller.is_operator else caller


def require(system: System, request: Request, scope: str) -> Caller:
    """Return who asks for what is about no client, or about which is not said yet; raise a Problem as above."""
    caller = found(system, request)
    if caller is None:
        raise Problem("unauthorized", headers={"WWW-Authenticate": "Bearer"})
    if scope not in caller.scopes:
        raise Problem("missing-scope", scope=scope)
    return caller


def visitor(system: System, request: Request, scope: str) -> Caller:
    """Return whose browser asks for a page, an operator's for the client whose batch it shows; raise a Problem."""
    caller = found(system, request)
    if caller is None:
        raise Problem("unauthorized")
    request.scope[VISITOR] = caller
    if scope not in caller.scopes:
        raise Problem("missing-scope", scope=scope)
    if caller.is_operator and "batch_id" in request.path_params:
        return replace(caller, client_code=_client_of(system, request))
    return caller


def found(system: System, request: Request) -> Caller | None:
    """Return who asks, if it is somebody that we know; raise a Problem where another site's page asks in their name."""
    if USER_HEADER in request.headers:
        caller = _user(system, request)
        require_own_page(request)
    elif "authorization" in request.headers:
        scheme, _, token = request.headers["authorization"].partition(" ")
        caller = api_tokens.caller(system.database, token.strip()) if scheme.lower() == "bearer" else None
    else:
        secret = request.cookies.get(cookie_name(system))
        caller = api_sessions.caller(system.database, secret, is_use=_is_use(request)) if secret else None
        if caller is not None:
            require_own_page(request)
    return caller if caller is None or is_of_client(system, caller) else None


def is_of_client(system: System, caller: Caller) -> bool:
    """Return whether there is the client that somebody works for; operators work for none."""
    return not caller.client_code or _is_client(system, caller.client_code)


def _user(system: System, request: Request) -> Caller | None:
    """Return which user the proxy says it is, if it is our proxy that says so."""
    is_proxy = is_our_proxy(request.headers.get(SECRET_HEADER), system.settings.proxy_secret)
    return system.users.caller(request.headers[USER_HEADER]) if is_proxy else None


def require_own_page(request: Request) -> None:
    """Demand that what changes something is asked for by a page of ours: browsers send the cookie for others, too."""
    if request.method in READING_METHODS:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin", "").partition("://")[2]
    if site != "same-origin" and (site is not None or origin != request.headers.get("host")):
        raise Problem("foreign-page")


def _is_use(request: Request) -> bool:
    """Return whether a person asks, and not a page that is open by itself: that keeps no session alive."""
    return request.method not in READING_METHODS or request.headers.get("sec-fetch-mode", "navigate") == "navigate"


def cookie_name(system: System) -> str:
    """Return the name of the cookie; where there is TLS in front, browsers hold it to that by its name."""
    return "__Host-orders" if system.settings.is_production else "orders"


def keep_session(system: System, response: Response, secret: str) -> None:
    """Have a browser keep a session."""
    response.set_cookie(
        cookie_name(system),
        secret,
        max_age=api_sessions.LONGEST_H * 3600,
        secure=system.settings.is_production,
        httponly=True,
        samesite="lax",
    )


def forget_session(system: System, request: Request, response: Response) -> None:
    """End the session of a browser and have it forget the cookie."""
    name = cookie_name(system)
    if secret := request.cookies.get(name):
        api_sessions.end(system.database, secret)
    response.delete_cookie(name, secure=system.settings.is_production, httponly=True, samesite="lax")


def _client_of(system: System, request: Request) -> str:
    """Return the client of an operator's request: whose batch or refund it names, or else the one that it says."""
    for name, kind in (("batch_id", BATCH_ID), ("refund_id", UUID)):
        if name not in request.path_params:
            continue
        place = str(request.path_params[name])
        if not kind.fullmatch(place):
            raise Problem("not-found")
        with system.database.begin() as transaction:
            return str(transaction.scalar("api_client_of", **{"batch_id": None, "refund_id": None} | {name: place}) or "")
    client_code = request.query_params.get(CLIENT_PARAMETER, "")
    if not _is_client(system, client_code):
        raise Problem("malformed-request")
    return client_code


def _is_client(system: System, client_code: str) -> bool:
    try:
        system.clients.profile(client_code)
    except FileRejected:
        return False
    return True

"""The sandbox's routes: the two services below /v1, and what people and tests may see and change.

Only /v1 asks for the bearer token; the rest is for whoever runs the sandbox, on loopback.
"""

from __future__ import annotations

import hmac
import html
from collections.abc import Awaitable, Callable

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from orders_pipeline.sandbox import notifications, payments
from orders_pipeline.sandbox.contract import Problem, read_json
from orders_pipeline.sandbox.options import changed
from orders_pipeline.sandbox.service import Service, read_body, respond

Handler = Callable[[Service, Request], Awaitable[Response]]
_API: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/v1/payments", payments.create),
    ("GET", "/v1/payments", payments.find),
    ("GET", "/v1/payments/{payment_id}", payments.show),
    ("POST", "/v1/payments/{payment_id}/refunds", payments.refund),
    ("POST", "/v1/notifications", notifications.create),
    ("GET", "/v1/notifications", notifications.find),
    ("POST", "/v1/notifications/batches", notifications.create_many),
)
_PAGE = """<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="2"><title>Sandbox</title>
<style>body{{font:16px sans-serif;max-width:40em;margin:2em auto}}td{{padding:.1em 1.5em .1em 0}}</style>
<h1>Payment and Notification sandbox</h1>
<p>Stands in for the order platform's services. No money moves and nobody is written to.</p>
{tables}
<p><a href="/sandbox/ledger">ledger</a> (<code>?batch_id=</code>), <a href="/sandbox/faults">options and faults</a>
(POST to change), <a href="/health">health</a></p>"""


def build_app(service: Service, token: str | None = None) -> Starlette:
    """Return the ASGI application over `service`; /v1 asks for `token` where there is one."""

    def endpoint(handler: Handler, *, guarded: bool) -> Callable[[Request], Awaitable[Response]]:
        async def run(request: Request) -> Response:
            if guarded:
                _authorise(request, token)
            return await handler(service, request)

        async def answer(request: Request) -> Response:
            return await respond(request, run)

        return answer

    routes = [Route(path, endpoint(handler, guarded=True), methods=[method]) for method, path, handler in _API]
    routes += [Route(path, endpoint(handler, guarded=False), methods=[method]) for method, path, handler in _CONTROL]
    return Starlette(routes=routes, exception_handlers={HTTPException: _failed, Exception: _failed})


def _authorise(request: Request, token: str | None) -> None:
    if token is None:
        return
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(sent.encode(), token.encode()):
        raise Problem("unauthorized")


async def _failed(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    slug = {404: "not-found", 405: "method-not-allowed", 500: "internal"}.get(status, "malformed")

    async def run(_request: Request) -> Response:
        raise Problem(slug)

    return await respond(request, run)


async def _health(_service: Service, _request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _ledger(service: Service, request: Request) -> Response:
    return JSONResponse(service.ledger.summary(request.query_params.get("batch_id")))


async def _clear(service: Service, _request: Request) -> Response:
    service.clear()
    return Response(status_code=204)


async def _options(service: Service, _request: Request) -> Response:
    return JSONResponse(service.options.model_dump(mode="json"))


async def _change(service: Service, request: Request) -> Response:
    changes = read_json(await read_body(request))
    try:
        service.options = changed(service.options, changes)
    except ValidationError as error:
        codes = sorted({str(detail["type"]) for detail in error.errors(include_input=False, include_url=False)})
        raise Problem("validation", errors=[{"pointer": "", "code": code} for code in codes]) from None
    return await _options(service, request)


async def _page(service: Service, _request: Request) -> Response:
    tables = ""
    for title, counts in service.ledger.summary().items():
        rows = "".join(f"<tr><td>{html.escape(name)}<td>{count:,}" for name, count in counts.items())
        tables += f"<h2>{html.escape(title)}</h2><table>{rows}</table>"
    return HTMLResponse(_PAGE.format(tables=tables))


_CONTROL: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/", _page),
    ("GET", "/health", _health),
    ("GET", "/sandbox/ledger", _ledger),
    ("DELETE", "/sandbox/ledger", _clear),
    ("GET", "/sandbox/faults", _options),
    ("POST", "/sandbox/faults", _change),
)

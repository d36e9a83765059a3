"""The boundary: whatever goes wrong in a request leaves as a problem, and every request is one line of the access log.

A line has the method, the route's template, the status, the time and the request's id: never a path, a query or a name.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Collection
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orders_pipeline.infrastructure.database_errors import DatabaseUnavailable
from orders_pipeline.infrastructure.storage import ObjectDenied, StorageUnavailable
from orders_pipeline.records.rejections import FileRejected, Language
from orders_pipeline.system import errors
from orders_pipeline.system.composition import System
from orders_pipeline.web.authentication import READING_METHODS
from orders_pipeline.web.page import rendering as page
from orders_pipeline.web.problems import Problem, language_of

MOST_HEAD_BYTES = 16 << 10
TEMPLATE = "orders_pipeline.template"  # in the scope of a request
HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
OPERATORS = ("/metrics", "/readyz", "/healthz")  # asked by monitoring, whose people read English
FORM = "application/x-www-form-urlencoded"
log = logging.getLogger("orders_pipeline.web")


class Boundary:
    """Stands around the application."""

    def __init__(self, app: ASGIApp, system: System) -> None:
        self._app = app
        self._system = system

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, answer in the place of who fails, and log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, request_id, status, reference = time.monotonic(), _new_id(), 0, ""

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _completed(message["headers"], request_id)
            await send(message)

        try:
            try:
                _check_head(scope)
                await self._app(scope, receive, sending)
            except ClientDisconnect:
                return
            except Exception as error:
                if status:  # an answer is under way: it is broken off
                    raise
                problem, reference = await run_in_threadpool(self._problem, error)
                await _explained(problem, Request(scope), request_id)(scope, receive, sending)
        finally:
            _log(_method(scope), scope.get(TEMPLATE, "-"), status, time.monotonic() - started, request_id, reference)

    def _problem(self, error: Exception) -> tuple[Problem, str]:
        """Return which problem an error is, and under which reference it is kept if it was not foreseen."""
        if isinstance(error, Problem):
            return error, ""
        for kind, found in FORESEEN:
            if isinstance(error, kind):
                return found(error), ""
        return Problem("internal"), errors.report(error, self._system.settings, self._system.storage, listed=True).reference


def _check_head(scope: Scope) -> None:
    """Demand that the head is not too large: the server looks at those only that do not come in one piece."""
    size = len(scope["raw_path"]) + len(scope["query_string"])
    if size + sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEAD_BYTES:
        raise Problem("malformed-request", limit=MOST_HEAD_BYTES)


def refusal(problem: Problem) -> Response:
    """Return the answer to what never became a request, which is logged here."""
    request_id = _new_id()
    response = problem.response(request_id, language_of(""))
    response.raw_headers = _completed(response.raw_headers, request_id)
    _log("-", "-", response.status_code, 0, request_id)
    return response


def _new_id() -> str:
    return secrets.token_hex(8)


def _completed(headers: Collection[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer with those that every answer has."""
    known = {name for name, _ in headers}
    return [*headers, (b"request-id", request_id.encode()), *(each for each in HEADERS if each[0] not in known)]


def _log(method: str, template: str, status: int, seconds: float, request_id: str, reference: str = "") -> None:
    log.info("%s %s %d %.0fms %s %s", method, template, status, seconds * 1000, request_id, reference)


def _explained(problem: Problem, request: Request, request_id: str) -> Response:
    """Return a problem as a page for who looks at one, and for programs as they know it."""
    is_seen = request.method in READING_METHODS or request.headers.get("content-type", "").startswith(FORM)
    if is_seen and not request.url.path.startswith("/v1/") and "text/html" in request.headers.get("accept", ""):
        return page.explain(problem, request, request_id)
    unasked: Language = "en" if request.url.path in OPERATORS else "ja"
    return problem.response(request_id, language_of(request.headers.get("accept-language", ""), unasked))


def _of_http(error: Any) -> Problem:  # noqa: ANN401 - one of the errors below
    slug = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "malformed-request")
    return Problem(slug, headers=error.headers or {})


def _of_file(error: Any) -> Problem:  # noqa: ANN401 - as above
    """Return the problem that a file is which becomes no batch."""
    if error.code == "F_DUPLICATE_FILE":
        batch_id = error.detail["batch_id"]
        location = {"Location": f"/v1/batches/{batch_id}"}
        return Problem("duplicate-file", code=error.code, headers=location, batch_id=batch_id)
    if error.code in ("F_TOO_LARGE", "F_TOO_MANY_ROWS"):
        return Problem(
            "too-large" if error.code == "F_TOO_LARGE" else "too-many-rows",
            code=error.code,
            limit=int(error.detail["limit"]),
        )
    row = error.detail.get("row")
    place = {} if row is None else {"pointer": f"#/orders/{int(row) - 1}", "row": int(row)}
    return Problem("malformed-json", code=error.code, errors=[place | {"code": error.code}])


FORESEEN: tuple[tuple[type[Exception], Callable[[Any], Problem]], ...] = (
    (HTTPException, _of_http),
    (FileRejected, _of_file),
    (DatabaseUnavailable, lambda _: Problem("database-unavailable")),
    (StorageUnavailable, lambda _: Problem("storage-unavailable")),
    (ObjectDenied, lambda _: Problem("storage-unavailable")),
)
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in METHODS else "other"

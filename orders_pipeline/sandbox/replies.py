"""Answers that a server should never give: cut, garbled, endless, or none at all.

Each is an ASGI response; ending a connection needs the transport, which `server.py` puts into the scope. Which call
gets which is decided by `faults.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

END_CONNECTION = "sandbox.end_connection"  # in scope["extensions"]: a function (reset: bool) -> None
HUGE_BYTES = 8 * 1024 * 1024
_CHUNK = 64 * 1024


class NoReply(Response):
    """The connection is reset instead of answered."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI calls it
        """Reset the connection."""
        await _end_connection(scope, receive, reset=True)


class Truncated(Response):
    """The connection is closed when half of the body has been sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send half of the body and close."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": bytes(self.body)[: len(self.body) // 2], "more_body": True})
        await _end_connection(scope, receive, reset=False)


class Dribbled(Response):
    """The body comes a byte a second, for at most `lasts_s`; then the connection is closed."""

    def __init__(self, content: str, status: int, *, lasts_s: float, stopping: asyncio.Event) -> None:
        super().__init__(content, status, media_type="application/json")
        self.lasts_s = lasts_s
        self.stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send byte by byte."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for index in range(min(int(self.lasts_s), len(self.body) - 1)):
            await send({"type": "http.response.body", "body": bytes(self.body)[index : index + 1], "more_body": True})
            if await passed(self.stopping, 1.0):
                break
        await _end_connection(scope, receive, reset=False)


class Huge(Response):
    """The body is followed by megabytes of spaces, in chunks without a length."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI calls it
        """Send until all is out or the caller has had enough."""
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        for left in range(HUGE_BYTES // _CHUNK, 0, -1):
            await send({"type": "http.response.body", "body": b" " * _CHUNK, "more_body": left > 1})


async def _end_connection(scope: Scope, receive: Receive, *, reset: bool) -> None:
    """End the connection and wait until it has gone."""
    end: Callable[[bool], None] = scope["extensions"][END_CONNECTION]
    end(reset)
    while (await receive())["type"] != "http.disconnect":
        continue


async def passed(event: asyncio.Event, seconds: float) -> bool:
    """Wait until `event` is set or `seconds` have gone by; return whether it is set."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _cut(text: str) -> str:
    return text[: len(text) * 2 // 3]


def _as_json(status: int, body: Mapping[str, Any], kind: type[Response] = Response) -> Response:
    return kind(json.dumps(body), status, media_type="application/json")


GARBLED: Mapping[str, Callable[[int, Mapping[str, Any]], Response]] = {
    "malformed": lambda status, body: Response(_cut(json.dumps(body)), status, media_type="application/json"),
    "truncated": lambda status, body: _as_json(status, body, Truncated),
    "empty": lambda status, _: Response(b"", status),
    "html": lambda *_: Response("<html><body>Please wait</body></html>", 200, media_type="text/html"),
    "wrong_body": lambda status, body: _as_json(status, {**body, "reference": "of-another-payment", "amount": 1}),
    "wrong_types": lambda status, body: _as_json(status, {**body, "amount": str(body.get("amount")), "id": 1}),
    "huge": lambda status, body: _as_json(status, body, Huge),
}

"""The protocol: HTTP as it comes in over a connection. What is none leaves as a problem, and nobody is waited for for ever.

What is done with a request belongs in `app.py`, what goes wrong in one in `boundary.py`.
"""

from __future__ import annotations

import asyncio

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from orders_pipeline.web.boundary import refusal
from orders_pipeline.web.problems import Problem

MOST_CONNECTIONS = 512
PATIENCE_S = 30.0  # for the rest of a head, and of a body that is answered already
LINGER_S = 2.0  # an answer is lost where the connection is closed while its request still comes in


class Protocol(H11Protocol):
    """One connection."""

    _patience: asyncio.TimerHandle | None = None
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; one connection too many is told so, and one on which nothing is asked ends."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self.app = _busy
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._unset_patience()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come, unless it is refused already."""
        if not self._is_refused:
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        """Go on to the next request."""
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - of the library
        """Answer what is no HTTP, or has too large a head."""
        self._refuse(Problem("malformed-request"))

    def _watch(self) -> None:
        """See to it that a head, or a body that is answered already, comes to its end some time."""
        if self._is_refused:
            return
        is_in_head = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        is_answered = self.conn.their_state is h11.SEND_BODY and self.conn.our_state in (h11.DONE, h11.MUST_CLOSE)
        if not (is_in_head or is_answered):
            self._unset_patience()
        elif self._patience is None:
            self._patience = self.loop.call_later(PATIENCE_S, self._refuse, Problem("too-slow"))

    def _unset_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _refuse(self, problem: Problem) -> None:
        """End the connection, with an answer where none has begun."""
        self._unset_patience()
        self._is_refused = True
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = refusal(problem)
            headers = [*response.raw_headers, (b"connection", b"close")]
            for event in (
                h11.Response(status_code=response.status_code, headers=headers),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._patience = self.loop.call_later(LINGER_S, self.transport.close)


async def _busy(scope: Scope, receive: Receive, send: Send) -> None:
    await refusal(Problem("busy"))(scope, receive, send)

"""The sandbox as a server: in a thread of this process.

Listens on loopback unless another host is named. It adds three things to uvicorn: when a request arrived, a way to end its
connection, and answers that leave in one piece.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from orders_pipeline.sandbox.app import build_app
from orders_pipeline.sandbox.ledger import Ledger
from orders_pipeline.sandbox.options import Options, changed
from orders_pipeline.sandbox.replies import END_CONNECTION
from orders_pipeline.sandbox.service import ARRIVED, Service

START_TIMEOUT_S = 10.0
_BACKLOG = 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class SandboxError(Exception):
    """The sandbox did not start."""

    code = "E_SANDBOX"


class _OnePiece:
    """A transport that holds a write back until the next one or the loop's next turn: head and body leave together."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a transport has
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._held:
            self._send(data)
        else:
            self._held = data
            self._loop.call_soon(self._send)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self, data: bytes = b"") -> None:
        held, self._held = self._held, b""
        if held:
            self._transport.write(held + data)


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol with what the sandbox adds to it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = _OnePiece(transport, self.loop)  # type: ignore[assignment]

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {ARRIVED: time.monotonic(), END_CONNECTION: self._end_connection}  # type: ignore[dict-item]

    def _end_connection(self, reset: bool) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if not reset:
            self.transport.close()
            return
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()


class SandboxServer:
    """Payment and Notification services on one port, with a ledger of their own (in memory without a path).

    With `tls`, a certificate and its key, they speak https. `options` are those of `Options`, by name; `faults` may be text
    like `decline=0.02,reset_after=0.05,seed=7`. Wrong ones raise pydantic's ValidationError.
    """

    def __init__(
        self,
        ledger_path: Path | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        tls: tuple[Path, Path] | None = None,
        **options: object,
    ) -> None:
        self._host = host
        self._tls = tls
        self._wanted_port = port
        self._token = token
        self._options = changed(Options(), options)
        self._ledger_path = ledger_path
        self._thread: threading.Thread | None = None
        self.url = ""

    def __enter__(self) -> Self:
        return self.start() if self._thread is None else self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start in a thread of its own and return when requests are answered."""
        self._open()
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise SandboxError("the sandbox did not start")
            time.sleep(0.005)
        return self

    def _open(self) -> None:
        try:
            self._socket = socket.create_server((self._host, self._wanted_port), backlog=_BACKLOG)
        except OSError:
            raise SandboxError("the sandbox cannot listen on this port") from None
        self.port = int(self._socket.getsockname()[1])
        self.url = f"{'http' if self._tls is None else 'https'}://{self._host}:{self.port}"
        self.service = Service(Ledger(self._ledger_path), self._options)
        app = build_app(self.service, self._token)
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="critical",  # broken answers are its trade
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
            ssl_certfile=None if self._tls is None else self._tls[0],
            ssl_keyfile=None if self._tls is None else self._tls[1],
        )
        self._server = uvicorn.Server(config)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
                self._loop = runner.get_loop()
                runner.run(self._server.serve(sockets=[self._socket]))
        finally:
            self.service.ledger.close()

    def stop(self) -> None:
        """Stop, ending calls that hang; a ledger with a path is kept, and `start` may follow on the same port."""
        if self._thread is None:
            return
        self._server.should_exit = True
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self.service.stopping.set)
        self._thread.join(START_TIMEOUT_S)
        self._thread = None
        self._wanted_port = self.port
        self._options = self.service.options

    def ledger(self, batch_id: str | None = None) -> dict[str, dict[str, int]]:
        """Return the counts and yen of the ledger, of one batch where it is given."""
        return self.service.ledger.summary(batch_id)

    def change(self, **options: object) -> None:
        """Change options by name while it runs."""
        self.service.options = changed(self.service.options, options)

"""A proxy before a PostgreSQL server on which things go wrong on purpose: answers are lost, or nothing comes through.

It passes bytes on between clients and the server's socket, and knows of the protocol only how a statement looks.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field

from sqlalchemy import make_url

BLOCK = 65_536


@dataclass(eq=False)
class _Wire:
    """One client's connection and ours to the server for it."""

    client: socket.socket
    server: socket.socket
    in_vain: bool  # begun while everything is swallowed
    seen: bytes = b""  # statements since the last commit
    is_mute: threading.Event = field(default_factory=threading.Event)  # the server's answers are lost

    def cut(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
                end.close()


class DatabaseProxy:
    """Listens on a port of its own and passes on to the server whose URL it was given."""

    def __init__(self, server_url: str) -> None:
        parsed = make_url(server_url)
        host, port = str(parsed.query["host"]), parsed.port or 5432
        self._target = f"{host}/.s.PGSQL.{port}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = parsed.set(host="127.0.0.1", port=self._listener.getsockname()[1], query={}).render_as_string(False)
        self.sent = 0  # times a client has sent something, which is at most once a statement
        self._swallows = threading.Event()
        self._refuses = threading.Event()
        self._trouble: tuple[bytes, bool] | None = None
        self._one_at_a_time = threading.Lock()
        self._wires: set[_Wire] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self) -> None:
        """Pass on nothing more and say nothing, on connections that are open and on new ones: a black hole."""
        self._swallows.set()

    def refuse(self) -> None:
        """Cut all connections and take no new ones."""
        self._refuses.set()
        self.cut()

    def heal(self) -> None:
        """Take and pass on everything again; a connection of which something was swallowed stays as it is."""
        self._swallows.clear()
        self._refuses.clear()
        for wire in [wire for wire in self._wires if wire.in_vain]:
            wire.cut()

    def cut(self) -> None:
        """Close every connection."""
        for wire in list(self._wires):
            wire.cut()

    def lose_commit_of(self, statement: bytes) -> None:
        """Cut the connection before the next COMMIT of a transaction with this statement reaches the server."""
        self._trouble = (statement, False)

    def lose_commit_reply_of(self, statement: bytes) -> None:
        """Cut the connection once the server has carried out the next COMMIT of a transaction with this statement."""
        self._trouble = (statement, True)

    @property
    def is_well(self) -> bool:
        """Return whether the trouble that was asked for has happened."""
        return self._trouble is None

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._refuses.is_set():
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                with contextlib.suppress(OSError):
                    server.connect(self._target)
                wire = _Wire(client, server, in_vain=self._swallows.is_set())
                self._wires.add(wire)
                threading.Thread(target=self._pass_on, args=(wire,), daemon=True).start()
                threading.Thread(target=self._pass_back, args=(wire,), daemon=True).start()

    def _pass_on(self, wire: _Wire) -> None:
        with contextlib.suppress(OSError):
            while data := wire.client.recv(BLOCK):
                self.sent += 1
                if self._swallows.is_set():
                    continue
                if self._troubles(wire, data):
                    break
                wire.server.sendall(data)
        wire.cut()
        self._wires.discard(wire)

    def _troubles(self, wire: _Wire, data: bytes) -> bool:
        """Act out the trouble that was asked for when its COMMIT comes; return whether the connection is to be cut."""
        wire.seen += data
        if b"COMMIT\0" not in data:
            return False
        seen, wire.seen = wire.seen, b""
        with self._one_at_a_time:
            if self._trouble is None or self._trouble[0] not in seen:
                return False
            (_, is_carried_out), self._trouble = self._trouble, None
        if is_carried_out:
            wire.is_mute.set()
            wire.server.sendall(data)
            deadline = time.monotonic() + 10
            while wire.is_mute.is_set() and time.monotonic() < deadline:
                time.sleep(0.001)
        return True

    def _pass_back(self, wire: _Wire) -> None:
        with contextlib.suppress(OSError):
            while data := wire.server.recv(BLOCK):
                if wire.is_mute.is_set():
                    wire.is_mute.clear()  # the server has answered the COMMIT
                    return
                if not self._swallows.is_set():
                    wire.client.sendall(data)
        wire.cut()

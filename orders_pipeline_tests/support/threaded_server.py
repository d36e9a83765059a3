"""A standard library server that answers in a thread of this process until it is no longer needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseServer

POLL_S = 0.02  # how soon it notices that it is to stop


@contextmanager
def answering(server: BaseServer) -> Iterator[None]:
    """Let a server answer; at the end it is stopped and closed."""
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

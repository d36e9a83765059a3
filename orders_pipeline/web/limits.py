"""Limits: how often a client may ask and how much may be received at once, each for this process alone.

What several processes let through together is that much more; a limit for all of them is the proxy's.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from orders_pipeline.web.problems import Problem

WINDOW_S = 60
READS, SUBMISSIONS = ("reads", 1200), ("submissions", 60)  # a window and client
MOST_CLIENTS = 10_000  # whose rates are remembered
UPLOADS, UPLOADS_OF_CLIENT = 8, 2
MOST_UPLOAD_BYTES = 200 << 20  # scratch is memory, some times the file


@dataclass
class Rates:
    """How many requests each client has left in this window."""

    _used: OrderedDict[tuple[str, str], tuple[float, int]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, policy: tuple[str, int], client_code: str) -> dict[str, str]:
        """Count a request and return the headers that say what is left; raise a Problem where nothing was."""
        name, most = policy
        now = time.monotonic()
        with self._lock:
            began, used = self._used.pop((name, client_code), (now, 0))
            if now - began >= WINDOW_S:
                began, used = now, 0
            self._used[name, client_code] = began, used + 1
            if len(self._used) > MOST_CLIENTS:
                self._used.popitem(last=False)
        reset = max(1, round(began + WINDOW_S - now))
        headers = {
            "RateLimit-Policy": f'"{name}";q={most};w={WINDOW_S}',
            "RateLimit": f'"{name}";r={max(most - used - 1, 0)};t={reset}',
        }
        if used >= most:
            raise Problem("rate-limited", headers=headers | {"Retry-After": str(reset)})
        return headers


@dataclass
class Uploads:
    """Which uploads are being received or worked on."""

    _of_clients: dict[str, int] = field(default_factory=dict)
    _bytes: int = 0

    @contextmanager
    def admitted(self, client_code: str, most_bytes: int) -> Iterator[None]:
        """Let one more in, or raise a Problem: nothing was registered then."""
        own = self._of_clients.get(client_code, 0)
        is_full = sum(self._of_clients.values()) >= UPLOADS or (self._bytes and self._bytes + most_bytes > MOST_UPLOAD_BYTES)
        if is_full or own >= UPLOADS_OF_CLIENT:
            raise Problem("busy")
        self._of_clients[client_code] = own + 1
        self._bytes += most_bytes
        try:
            yield
        finally:
            self._bytes -= most_bytes
            self._of_clients[client_code] -= 1
            if not self._of_clients[client_code]:
                del self._of_clients[client_code]

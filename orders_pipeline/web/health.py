"""Health: whether the process is up, and whether what it needs is there and Dagster's daemon is alive."""

from __future__ import annotations

import contextlib
import threading
import time

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from orders_pipeline.infrastructure.database_errors import DatabaseError
from orders_pipeline.infrastructure.storage import StorageError
from orders_pipeline.system.composition import System
from orders_pipeline.web.calls import answer

REMEMBERED_S = 2.0


def show_alive(_: Request) -> Response:
    """Answer that the process is up."""
    return PlainTextResponse("ok\n")


class Readiness:
    """Whether files can be taken and go on, looked up at most every other second however many ask."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._lock = threading.Lock()
        self._found: dict[str, bool] = {}
        self._at = 0.0

    def show(self, _: Request) -> Response:
        """Answer with what is ready: 200 if all is, else 503."""
        with self._lock:
            if not self._found or time.monotonic() - self._at > REMEMBERED_S:
                self._found = {"database": self._database(), "storage": self._storage(), "daemon": self._daemon()}
                self._at = time.monotonic()
            found = dict(self._found)
        is_ready = all(found.values())
        return answer({"ready": is_ready, "checks": found}, 200 if is_ready else 503)

    def _database(self) -> bool:
        with contextlib.suppress(DatabaseError), self._system.database.begin() as transaction:
            return transaction.scalar("moment") is not None
        return False

    def _storage(self) -> bool:
        with contextlib.suppress(StorageError, OSError):
            self._system.storage.head("readiness")
            return True
        return False

    def _daemon(self) -> bool:
        with contextlib.suppress(DatabaseError):
            return self._system.turns.is_daemon_alive()
        return False

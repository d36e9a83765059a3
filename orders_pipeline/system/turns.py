"""Turns: which batches have a run that waits to begin, and whether Dagster's daemon is there, which begins it.

Both are read from Dagster's own records in the database, as who logs in: its tables are none of the application's.
"""

from __future__ import annotations

import contextlib
import threading
import time

from pydantic import SecretStr

from orders_pipeline.infrastructure.database import Database
from orders_pipeline.system.daemon import SILENT_S

REMEMBERED_S = 2.0
LATELY_S = 30.0  # a run has begun for Dagster before it has opened the system and locked its batch, which takes a moment


class Turns:
    """What Dagster's records say, looked up at most every other second however many ask."""

    def __init__(self, database_url: SecretStr) -> None:
        self._database_url = database_url
        self._lock = threading.Lock()
        self._found: tuple[frozenset[str], bool] = frozenset(), False
        self._until = 0.0

    def waiting(self) -> frozenset[str]:
        """Return which batches have a run that has not begun, or only just."""
        return self._looked_up()[0]

    def is_daemon_alive(self) -> bool:
        """Return whether the daemon has lately said that it lives; False where it never ran here."""
        return self._looked_up()[1]

    def _looked_up(self) -> tuple[frozenset[str], bool]:
        with self._lock:
            if time.monotonic() >= self._until:
                self._found = self._look_up()
                self._until = time.monotonic() + REMEMBERED_S
            return self._found

    def _look_up(self) -> tuple[frozenset[str], bool]:
        with contextlib.closing(Database(self._database_url, pool_size=1)) as login, login.begin() as transaction:
            has_runs = transaction.scalar("dagster_runs_exist")
            queued = transaction.rows("queued_batches", lately_s=LATELY_S) if has_runs else ()
            has_heartbeats = transaction.scalar("dagster_heartbeats_exist")
            is_alive = bool(has_heartbeats and transaction.scalar("daemon_is_alive", seconds=SILENT_S))
            return frozenset(row.batch_id for row in queued), is_alive

"""Shared calls: how many a service is sent at once, over all processes, refunds and payments of every batch together.

Each worker that drains has a row with how many calls it wants and how many it holds; what all hold is never more than the
service may be sent. Who has more than a fair share lowers its own limit first, and returns calls as they end.
A process whose session broke may have calls under way: what it holds is nobody else's until it had time to come back.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from orders_pipeline.batches import heartbeat
from orders_pipeline.batches.workers import WORKER_LOCK_CLASS, Worker
from orders_pipeline.infrastructure.database import Database

ASK_S = 0.05  # no more often is the database asked
RECONNECT_S = 1.0  # one heartbeat fails, and the next opens another session


def fair_shares(most: int, wanted: Sequence[int], turn: int) -> list[int]:
    """Return what each gets of `most`: all the same unless it wants less; whose the rest is goes round with `turn`."""
    shares, left = [0] * len(wanted), most
    order = [(at + turn) % len(wanted) for at in range(len(wanted))]
    while left and (hungry := [at for at in order if shares[at] < wanted[at]]):
        part = max(left // len(hungry), 1)
        for at in hungry[:left]:
            more = min(part, wanted[at] - shares[at])
            shares[at] += more
            left -= more
    return shares


class SharedCalls:
    """A worker's share of the calls that a service may be sent at once, `most` of them in all."""

    def __init__(self, database: Database, service: str, worker: Worker, most: int) -> None:
        self._database = database
        self._service = service
        self._worker = worker
        self._most = most
        self._limit = 0
        self._asked = 0.0

    def allow(self, held: int, wanted: int) -> int:
        """Return how many calls this worker may have under way; `held` are, or could be before this is heeded.

        Raises LeaseLost.
        """
        self._worker.require()
        if self._limit and wanted and time.monotonic() < self._asked + ASK_S:
            return self._limit
        mine = {"service": self._service, "worker_id": self._worker.worker_id}
        with self._database.begin() as transaction:
            transaction.rows("lock_shares", service=self._service)
            transaction.execute("set_share", wanted=wanted, held=held, **mine)
            transaction.execute("note_unseen", lock_class=WORKER_LOCK_CLASS, **mine)
            unseen_s = 2 * heartbeat.HEARTBEAT_S + RECONNECT_S
            transaction.execute("drop_unseen_shares", service=self._service, unseen_s=unseen_s)
            rows = transaction.rows("shares", service=self._service)
            ids = [row.worker_id for row in rows]
            self._limit = 0
            if self._worker.worker_id in ids:
                shares = fair_shares(self._most, [row.wanted for row in rows], rows[0].turn)
                free = self._most - sum(row.held for row in rows)
                self._limit = min(shares[ids.index(self._worker.worker_id)], held + max(free, 0))
            if self._limit > held:
                transaction.execute("set_share", wanted=wanted, held=self._limit, **mine)
        self._asked = time.monotonic()
        return self._limit

    def leave(self) -> None:
        """Return the share: nothing is under way any more."""
        with self._database.begin() as transaction:
            transaction.execute("drop_share", worker_id=self._worker.worker_id)

"""Workers: the processes at work on a batch, and how the others notice that one is gone.

A worker is a row with a lease, renewed by a heartbeat, and an advisory lock in a session of its own: a killed process
loses the lock at once, a host that vanished loses its lease. What is claimed under a worker's number belongs in
`payments/` and `notifications.py`; giving such claims up belongs there too.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from orders_pipeline.database import Database, DatabaseError, Transaction
from orders_pipeline.outcomes import Outcome

LEASE_S = 30.0  # with the sweep and the start of a run, others have taken over within a minute
HEARTBEAT_S = 5.0
WORKER_LOCK_CLASS = 4_711_002
BATCH_LOCK_CLASS = 4_711_003
NOT_OURS = Outcome("not_sent", "lease-lost")  # what a claim comes to whose worker may be given up by now


class BatchBusy(Exception):
    """Another process stages, validates or loads this batch at this moment."""

    code = "E_BATCH_BUSY"


class Worker:
    """This process at work on a batch, under a number that is never used again, with a lease from `leased_at` on."""

    def __init__(self, worker_id: int, batch_id: str, leased_at: float) -> None:
        self.worker_id = worker_id
        self.batch_id = batch_id
        self.given_up = threading.Event()  # set when others may take over: claim and write no more
        self.leased_at = leased_at  # by `now`, when the lease was last asked for

    def may_send(self) -> bool:
        """Tell whether what was claimed is still ours for certain; not so in a process that slept past its lease."""
        return not self.given_up.is_set() and now() < self.leased_at + LEASE_S


def now() -> float:
    """Return this host's seconds since it was started, those it slept among them: a lease runs on meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@contextlib.contextmanager
def working_on(database: Database, batch_id: str, run_id: str | None) -> Iterator[Worker]:
    """Be a worker on a batch; others see it alive until the block ends or the process does."""
    asked = now()
    with database.begin() as transaction:
        worker_id = transaction.scalar("start_worker", batch_id=batch_id, run_id=run_id, lease_s=LEASE_S)
    worker = Worker(worker_id, batch_id, asked)
    leaving = threading.Event()
    heartbeat = threading.Thread(target=_renew, args=(database, worker, leaving), name="heartbeat", daemon=True)
    with database.session() as session:
        session.rows("lock_worker", lock_class=WORKER_LOCK_CLASS, worker_id=worker_id)
        heartbeat.start()
        try:
            yield worker
        finally:
            leaving.set()
            heartbeat.join()
            with database.begin() as transaction:
                transaction.execute("end_worker", worker_id=worker_id)


@contextlib.contextmanager
def alone_on(database: Database, batch_id: str) -> Iterator[None]:
    """Be the only process that stages, validates or loads a batch; raise BatchBusy when there is another."""
    with database.session() as session:
        if not session.scalar("try_lock_batch", lock_class=BATCH_LOCK_CLASS, batch_id=batch_id):
            raise BatchBusy(f"{BatchBusy.code}: another process works on batch {batch_id}")
        try:
            yield
        finally:
            # not left to the closing session, which the server notices later than our next step begins
            with contextlib.suppress(DatabaseError):
                session.scalar("unlock_batch", lock_class=BATCH_LOCK_CLASS, batch_id=batch_id)


def end_lost_workers(transaction: Transaction, batch_id: str) -> list[int]:
    """Give up the batch's workers that are gone and return their numbers; whoever calls takes over what they claimed."""
    lost = transaction.rows("end_lost_workers", batch_id=batch_id, lock_class=WORKER_LOCK_CLASS)
    return [row.worker_id for row in lost]


def _renew(database: Database, worker: Worker, leaving: threading.Event) -> None:
    while not leaving.wait(HEARTBEAT_S):
        asked = now()
        # an unreachable database is not a reason to stop: the lease decides, in the database's own time
        with contextlib.suppress(DatabaseError):
            with database.begin() as transaction:
                renewed = transaction.execute("renew_lease", worker_id=worker.worker_id, lease_s=LEASE_S)
            if not renewed:
                worker.given_up.set()
                return
            worker.leased_at = asked

"""Workers: the processes that settle a batch, and how the others notice that one is gone.

A worker is a row with a lease, renewed by a heartbeat, and an advisory lock in a session of its own. A killed process
loses the lock at once, a host that vanished loses its lease. What is claimed under a worker's number, and taken over when
it is lost, belongs in `settlement/ledger.py`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from orders_pipeline.batches.heartbeat import kept_alive
from orders_pipeline.batches.run_processes import lock_as_processing
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.database_errors import DatabaseUnavailable, retry_while_unavailable

LEASE_S = 30.0  # with the sweep and the start of a run, others have taken over within a minute
WORKER_LOCK_CLASS = 4_711_002


class LeaseLost(Exception):
    """This process was given up as lost: another may have taken over what it was doing."""

    code = "E_LEASE_LOST"


class Worker:
    """A process that settles a batch, under a number that is never used again, with a lease from `leased_at` on."""

    def __init__(self, worker_id: int, batch_id: str, leased_at: float) -> None:
        self.worker_id = worker_id
        self.batch_id = batch_id
        self.given_up = threading.Event()  # set when others may take over: claim and write no more
        self.halted = threading.Event()  # set when a person has stopped or cancelled the batch: send nothing more
        self.leased_at = leased_at  # by `now`, when the lease was last asked for

    def require(self) -> None:
        """Raise LeaseLost when this worker was given up: there is nothing left for it to do."""
        if self.given_up.is_set():
            raise LeaseLost(f"{LeaseLost.code}: this process was taken for lost, and another may resume the batch")

    def is_halted(self, transaction: Transaction) -> bool:
        """Return whether a person has stopped or cancelled the batch; if not, nobody does before the transaction ends."""
        if transaction.scalar("lock_halted", batch_id=self.batch_id):
            self.halted.set()
        return self.halted.is_set()

    def may_send(self) -> bool:
        """Return whether what was claimed is ours for certain, and wanted; not so in a process that slept past its lease."""
        return not (self.given_up.is_set() or self.halted.is_set()) and now() < self.leased_at + LEASE_S


def now() -> float:
    """Return this host's seconds since it was started, those it slept among them: a lease runs on meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@contextlib.contextmanager
def worker_session(database: Database, batch_id: str, run_id: str | None) -> Iterator[Worker]:
    """Be a worker on a batch; others see it alive until the block ends or the process does."""
    with contextlib.ExitStack() as sessions:
        asked = now()
        session = sessions.enter_context(database.session())
        worker_id = session.scalar(
            "start_worker", batch_id=batch_id, run_id=run_id, lease_s=LEASE_S, lock_class=WORKER_LOCK_CLASS
        )
        worker = Worker(worker_id, batch_id, asked)
        lock_as_processing(session, batch_id)

        def lock(session: Transaction) -> None:
            session.rows("lock_worker", lock_class=WORKER_LOCK_CLASS, worker_id=worker_id)
            lock_as_processing(session, batch_id)

        def renew(session: Transaction) -> bool:
            asked = now()
            if session.scalar("renew_lease", worker_id=worker_id, lease_s=LEASE_S):
                worker.leased_at = asked
            else:
                worker.given_up.set()
            return True  # also who was given up is seen while its last calls are under way

        def leave() -> None:
            with database.begin() as transaction:
                transaction.execute("drop_share", worker_id=worker_id)
                transaction.execute("end_worker", worker_id=worker_id)

        with kept_alive(database, sessions, session, lock, renew):
            try:
                yield worker
            except BaseException:
                with contextlib.suppress(DatabaseUnavailable):  # the lease runs out by itself
                    leave()
                raise
            retry_while_unavailable(leave)


def end_lost_workers(
    transaction: Transaction, batch_id: str, caller: Worker | None = None, *, only_by_lease: bool = False
) -> list[int]:
    """Give up the batch's workers that are gone and return their numbers; whoever calls takes over what they claimed.

    Who asks again and again asks `only_by_lease`: a session that broke is there again after a moment.
    """
    lost = transaction.rows(
        "end_lost_workers",
        batch_id=batch_id,
        lock_class=WORKER_LOCK_CLASS,
        caller_id=None if caller is None else caller.worker_id,
        only_by_lease=only_by_lease,
    )
    return [row.worker_id for row in lost]

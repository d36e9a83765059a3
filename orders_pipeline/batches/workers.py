"""Workers: the processes at work on a batch, and those behind Dagster's runs; how the others notice that one is gone.

A worker is a row with a lease, renewed by a heartbeat, and an advisory lock in a session of its own: a killed process
loses the lock at once, a host that vanished loses its lease. A run's process has such a lock too. What is claimed under a
worker's number belongs in `settlement/payments/` and `settlement/notifications.py`; giving such claims up belongs there too.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator

from orders_pipeline.infrastructure.database import Database, DatabaseError, DatabaseUnavailable, Transaction, persist

LEASE_S = 30.0  # with the sweep and the start of a run, others have taken over within a minute
HEARTBEAT_S = 2.0  # also how long a lock may be missing after its session broke
WORKER_LOCK_CLASS = 4_711_002
BATCH_LOCK_CLASS = 4_711_003
RUN_LOCK_CLASS = 4_711_004
IN_HAND_LOCK_CLASS = 4_711_005


class BatchBusy(Exception):
    """Another process stages, validates or loads this batch at this moment."""

    code = "E_BATCH_BUSY"


class LeaseLost(Exception):
    """This process was given up as lost: another may have taken over what it was doing."""

    code = "E_LEASE_LOST"


class Worker:
    """This process at work on a batch, under a number that is never used again, with a lease from `leased_at` on."""

    def __init__(self, worker_id: int, batch_id: str, leased_at: float) -> None:
        self.worker_id = worker_id
        self.batch_id = batch_id
        self.given_up = threading.Event()  # set when others may take over: claim and write no more
        self.halted = threading.Event()  # set when a person has stopped or cancelled the batch: send nothing more
        self.leased_at = leased_at  # by `now`, when the lease was last asked for

    def require(self) -> None:
        """Raise LeaseLost when this worker was given up: there is nothing left for it to do."""
        if self.given_up.is_set():
            raise LeaseLost(f"{LeaseLost.code}: this process was taken for lost, and another may go on with the batch")

    def is_halted(self, transaction: Transaction) -> bool:
        """Tell whether a person has stopped or cancelled the batch; if not, nobody does before the transaction ends."""
        if transaction.scalar("lock_halted", batch_id=self.batch_id):
            self.halted.set()
        return self.halted.is_set()

    def may_send(self) -> bool:
        """Tell whether what was claimed is ours for certain, and wanted; not so in a process that slept past its lease."""
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
        _take_in_hand(session, batch_id)

        def lock(session: Transaction) -> None:
            session.rows("lock_worker", lock_class=WORKER_LOCK_CLASS, worker_id=worker_id)
            _take_in_hand(session, batch_id)

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

        with _kept_alive(database, sessions, session, lock, renew):
            try:
                yield worker
            except BaseException:
                with contextlib.suppress(DatabaseUnavailable):  # the lease runs out by itself
                    leave()
                raise
            persist(leave)


@contextlib.contextmanager
def behind_run(database: Database, run_id: str, batch_id: str | None = None) -> Iterator[None]:
    """Be the process of one of Dagster's runs; `runs_without_process` tells of it while the block runs.

    If the run is a batch's, `in_hand` tells of that.
    """

    def lock(session: Transaction) -> None:
        session.rows("lock_run", lock_class=RUN_LOCK_CLASS, run_id=run_id)
        if batch_id is not None:
            _take_in_hand(session, batch_id)

    with contextlib.ExitStack() as sessions:
        session = sessions.enter_context(database.session())
        lock(session)
        with _kept_alive(database, sessions, session, lock, lambda session: bool(session.scalar("is_there"))):
            yield


def _take_in_hand(session: Transaction, batch_id: str) -> None:
    session.rows("take_in_hand", lock_class=IN_HAND_LOCK_CLASS, batch_id=batch_id)


def in_hand(transaction: Transaction, batch_ids: Collection[str]) -> set[str]:
    """Return those of some batches that somebody is at work on: the process of a run, between its steps too, or a worker."""
    rows = transaction.rows("batches_in_hand", batch_ids=list(batch_ids), lock_class=IN_HAND_LOCK_CLASS)
    return {row.batch_id for row in rows}


def runs_without_process(database: Database, run_ids: Collection[str]) -> set[str]:
    """Return those of the runs whose process is gone, or was not there for a moment because its session broke."""
    with database.begin() as transaction:
        rows = transaction.rows("runs_with_process", run_ids=list(run_ids), lock_class=RUN_LOCK_CLASS)
    return set(run_ids) - {row.run_id for row in rows}


@contextlib.contextmanager
def _kept_alive(
    database: Database,
    sessions: contextlib.ExitStack,
    session: Transaction,
    lock: Callable[[Transaction], None],
    beat: Callable[[Transaction], bool],
) -> Iterator[None]:
    """Let a session that holds a lock beat until it says no; lock again in another session when it breaks."""
    leaving = threading.Event()

    def keep(session: Transaction) -> None:
        is_broken = False
        while not leaving.wait(HEARTBEAT_S):
            # an unreachable database is not a reason to stop: the lease decides, in the database's own time
            with contextlib.suppress(DatabaseError):
                if is_broken:
                    sessions.close()
                    session = sessions.enter_context(database.session())
                    lock(session)
                is_broken = True
                if not beat(session):
                    return
                is_broken = False

    heart = threading.Thread(target=keep, args=(session,), name="heartbeat", daemon=True)
    heart.start()
    try:
        yield
    finally:
        leaving.set()
        heart.join()


@contextlib.contextmanager
def batch_lock(database: Database, batch_id: str) -> Iterator[Database]:
    """Be the only process that stages, validates or loads a batch; raise BatchBusy when there is another.

    The database given back begins no transaction any more, but raises BatchBusy, once another process has taken over: it may
    where our session breaks, whether or not we notice.
    """
    with contextlib.ExitStack() as sessions:
        session = sessions.enter_context(database.session())
        if not session.scalar("try_lock_batch", lock_class=BATCH_LOCK_CLASS, batch_id=batch_id):
            raise BatchBusy(f"{BatchBusy.code}: another process works on batch {batch_id}")
        held = {"batch_id": batch_id, "lock_no": session.scalar("take_batch", batch_id=batch_id)}
        newest = [session]

        def lock(session: Transaction) -> None:
            newest[0] = session
            session.scalar("try_lock_batch", lock_class=BATCH_LOCK_CLASS, batch_id=batch_id)

        def require(transaction: Transaction) -> None:
            if transaction.row("hold_batch", **held) is None:
                raise BatchBusy(f"{BatchBusy.code}: another process has taken over batch {batch_id}")

        try:
            with _kept_alive(database, sessions, session, lock, lambda session: session.scalar("is_batch_held", **held)):
                yield database.guarded(require)
        finally:
            # not left to the closing session, which the server notices later than our next step begins
            session = newest[0]
            with contextlib.suppress(DatabaseError):
                session.scalar("unlock_batch", lock_class=BATCH_LOCK_CLASS, batch_id=batch_id)


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

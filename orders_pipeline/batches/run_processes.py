"""The processes behind Dagster's runs, which batches have one, and for how many there is room: known by locks.

Each process holds an advisory lock of its run, and shares one of its batch with the batch's workers. What starts such
processes on other hosts than the daemon's holds one that says how many at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator

from orders_pipeline.batches.heartbeat import kept_alive
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.database_errors import DatabaseError

RUN_LOCK_CLASS = 4_711_004
PROCESSING_LOCK_CLASS = 4_711_005
SLOTS_LOCK_CLASS = 4_711_006


def run_process(database: Database, run_id: str, batch_id: str | None = None) -> contextlib.AbstractContextManager[None]:
    """Be the process of one of Dagster's runs, which processes its batch if it has one, while the block runs."""

    def lock(session: Transaction) -> None:
        session.rows("lock_run", lock_class=RUN_LOCK_CLASS, run_id=run_id)
        if batch_id is not None:
            lock_as_processing(session, batch_id)

    return _holding(database, lock)


@contextlib.contextmanager
def _holding(database: Database, lock: Callable[[Transaction], None]) -> Iterator[None]:
    """Hold what `lock` takes in a session while the block runs, in another one too where the first one breaks."""
    held: list[Transaction] = []

    def hold(session: Transaction) -> None:
        lock(session)
        held[:] = [session]

    with contextlib.ExitStack() as sessions:
        hold(sessions.enter_context(database.session()))
        with kept_alive(database, sessions, held[0], hold, lambda session: bool(session.scalar("is_there"))):
            yield
        session = held[0]
        with contextlib.suppress(DatabaseError):  # the server notices the session's end moments later
            session.rows("let_go")


def runs_without_process(database: Database, run_ids: Collection[str]) -> set[str]:
    """Return those of the runs whose process is gone, or is missing for a moment because its session broke."""
    with database.begin() as transaction:
        rows = transaction.rows("runs_with_process", run_ids=list(run_ids), lock_class=RUN_LOCK_CLASS)
    return set(run_ids) - {row.run_id for row in rows}


def lock_as_processing(session: Transaction, batch_id: str) -> None:
    """Mark a batch as being processed, by this session among others, for as long as the session lives."""
    session.rows("lock_as_processing", lock_class=PROCESSING_LOCK_CLASS, batch_id=batch_id)


def batches_being_processed(transaction: Transaction, batch_ids: Collection[str]) -> set[str]:
    """Return those of some batches that are being processed: by a run's process, between its steps too, or by a worker."""
    rows = transaction.rows("batches_being_processed", batch_ids=list(batch_ids), lock_class=PROCESSING_LOCK_CLASS)
    return {row.batch_id for row in rows}


def offering_slots(database: Database, slots: int) -> contextlib.AbstractContextManager[None]:
    """Say while the block runs that this process runs so many at once."""

    def lock(session: Transaction) -> None:
        session.rows("offer_slots", lock_class=SLOTS_LOCK_CLASS, slots=slots)

    return _holding(database, lock)


def offered_slots(database: Database) -> list[int]:
    """Return how many runs at once each process offers that offers any, the most first."""
    with database.begin() as transaction:
        return [row.slots for row in transaction.rows("offered_slots", lock_class=SLOTS_LOCK_CLASS)]

"""The batch lock: one process at a time stages, validates or loads a batch.

Paying and notifying need no such lock: there, many workers (`workers.py`) share one batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from orders_pipeline.batches.heartbeat import kept_alive
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.database_errors import DatabaseError

BATCH_LOCK_CLASS = 4_711_003


class BatchBusy(Exception):
    """Another process stages, validates or loads this batch at this moment."""

    code = "E_BATCH_BUSY"


@contextlib.contextmanager
def batch_lock(database: Database, batch_id: str) -> Iterator[Database]:
    """Be the only process that stages, validates or loads a batch; raise BatchBusy when there is another.

    Another process may take over once our session breaks, whether or not we notice. From then on the database that is
    yielded begins no transaction, but raises BatchBusy.
    """
    with contextlib.ExitStack() as sessions:
        session = sessions.enter_context(database.session())
        if not session.scalar("try_lock_batch", lock_class=BATCH_LOCK_CLASS, batch_id=batch_id):
            raise BatchBusy(f"{BatchBusy.code}: another process is processing batch {batch_id}")
        held = {"batch_id": batch_id, "lock_no": session.scalar("take_batch", batch_id=batch_id)}
        newest = [session]

        def lock(session: Transaction) -> None:
            newest[0] = session
            session.scalar("try_lock_batch", lock_class=BATCH_LOCK_CLASS, batch_id=batch_id)

        def require(transaction: Transaction) -> None:
            if transaction.row("hold_batch", **held) is None:
                raise BatchBusy(f"{BatchBusy.code}: another process has taken over batch {batch_id}")

        try:
            with kept_alive(database, sessions, session, lock, lambda session: session.scalar("is_batch_held", **held)):
                yield database.guarded(require)
        finally:
            # not left to the closing session, which the server notices later than our next step begins
            session = newest[0]
            with contextlib.suppress(DatabaseError):
                session.scalar("unlock_batch", lock_class=BATCH_LOCK_CLASS, batch_id=batch_id)

"""The heartbeat of a session that holds locks: it keeps them, in another session too where the first one breaks.

What is locked, and what a beat says, is the matter of who asks for it.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator

from orders_pipeline.infrastructure.background import beside
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.database_errors import DatabaseError

HEARTBEAT_S = 2.0  # also how long a lock may be missing after its session broke


@contextlib.contextmanager
def kept_alive(
    database: Database,
    sessions: contextlib.ExitStack,
    session: Transaction,
    lock: Callable[[Transaction], None],
    beat: Callable[[Transaction], bool],
) -> Iterator[None]:
    """Call `beat` every HEARTBEAT_S while the block runs, until it returns False.

    Where the session breaks, another one is opened in `sessions`, and `lock` takes in it what the first one held.
    """

    def keep(session: Transaction, leaving: threading.Event) -> None:
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

    with beside(functools.partial(keep, session), "heartbeat"):
        yield

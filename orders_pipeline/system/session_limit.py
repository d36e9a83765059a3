"""Sessions: how many the processes that may run at once need of the database, and whether it lets in so many.

A process has a pool that does not grow, and few sessions of its own beside it: those hold the locks of `batches/workers.py`.
"""

from __future__ import annotations

from orders_pipeline.infrastructure.database import POOL_SIZE, Database
from orders_pipeline.system.settings import PREFIX, SettingsError

RUN_POOL_SIZE = POOL_SIZE
LOCK_SESSIONS = 3  # of a run's process, of its batch's worker or its job, and of whoever drops old records
DAGSTER_POOL_SIZE = 3  # of the stores of Dagster's records, together
RUN_SESSIONS = RUN_POOL_SIZE + LOCK_SESSIONS + DAGSTER_POOL_SIZE
WORKER_SESSIONS = 3  # of Celery, without its runs
TICK_POOL_SIZE = 3
TICKS = 2  # sensors at once
WEB_POOL_SIZE = 4  # of each of the three stores that Dagster's web server reads
DAEMON_POOL_SIZE = 8  # four of its threads request runs, and as many look after them
DAEMON_SESSIONS = DAEMON_POOL_SIZE + TICKS + 1  # its code server opens one for each sensor, and one holds its lock
DAGSTER_SESSIONS = 3 * WEB_POOL_SIZE + DAEMON_SESSIONS
# a command, which may run a batch itself; what serves the reports; the sensors, with a lock each
OTHER_SESSIONS = RUN_SESSIONS + POOL_SIZE + TICKS * (TICK_POOL_SIZE + 1) + DAGSTER_SESSIONS


class SharedSessions(SettingsError):
    """Something between us and the server gives every transaction another session: what a session holds is lost."""

    code = "E_DATABASE_POOLED"


class TooFewSessions(SettingsError):
    """The database lets in fewer sessions than the processes that may run at once need."""

    code = "E_DATABASE_SESSIONS"


def require_own(database: Database) -> None:
    """Raise SharedSessions where two statements of a session may be answered by different processes of the server."""
    with database.session() as session:
        own = session.scalar("server_process")
        with database.begin() as other:  # which takes what is free meanwhile
            is_shared = own == other.scalar("server_process") or own != session.scalar("server_process")
    if is_shared:
        raise SharedSessions(
            "the database is reached through a pool by transaction, such as pgbouncer's, where locks and who works over a "
            "session are lost; let it pool by session, or leave it out"
        )


def needed(max_concurrent_runs: int, workers: int = 0) -> int:
    """Return how many sessions there may be at once."""
    return max_concurrent_runs * RUN_SESSIONS + workers * WORKER_SESSIONS + OTHER_SESSIONS


def require(database: Database, max_concurrent_runs: int, workers: int = 0) -> str:
    """Return how many sessions are needed and let in; raise TooFewSessions."""
    with database.begin() as transaction:
        limit = transaction.scalar("session_limit")
    need = needed(max_concurrent_runs, workers)
    if need > limit:
        raise TooFewSessions(
            f"{PREFIX}MAX_CONCURRENT_RUNS {max_concurrent_runs} may need {need} sessions, and the database lets in {limit}; "
            "lower the setting, or raise max_connections or the CONNECTION LIMIT of the login or the database"
        )
    with_workers = f", {workers * WORKER_SESSIONS} of them by workers" if workers else ""
    return f"{need} needed at most{with_workers}, {limit} let in"

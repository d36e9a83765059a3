"""Dagster's daemon: of all processes that could be it one works, known by a lock, and the others wait for its end.

Two that worked would request and start runs twice. What the daemon does is in `orchestration/`.
"""

from __future__ import annotations

import logging
import threading
import time

from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.database_errors import DatabaseError, DatabaseUnavailable

DAEMON_LOCK_CLASS = 4_711_011
# a daemon that has said nothing for so long does not work: it says so every half minute, and another takes over in a minute
SILENT_S = 120.0
BEAT_S = 2.0
# after it last held the lock for certain, a process works no longer than this; the server keeps the lock of a host that
# vanished for longer (`watch_client`), and who takes over waits as long
TRUSTED_S = 10.0
PATIENCE_S = 10.0  # how long what is to be done waits for the lock before it fails
LOOK_S = 0.1
NOTHING_BEGINS = "nothing begins until the daemon has its lock again"
WAITS = "another daemon works on this database; this one waits, and takes over when that one has ended"

log = logging.getLogger("orders_pipeline.daemon")


class DaemonWaits(DatabaseUnavailable):
    """Another daemon works, as it was the first to take the lock that this one had lost."""

    code = "E_DAEMON_WAITS"
    text = WAITS


class DaemonLock:
    """The lock of the daemon that works: taken, held, and taken again where it was lost with its session."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._trusted_until = 0.0
        self._lacks = ""
        self._waits = False  # for the end of another daemon
        self._over = threading.Event()

    def take(self) -> None:
        """Return once the lock is ours; it stays so until its `release` or the end of the process."""
        threading.Thread(target=self._hold, name="daemon lock", daemon=True).start()
        while not self._is_held():
            time.sleep(LOOK_S)

    def require(self) -> None:
        """Return where the lock is ours; where it is not any more, wait a little, and raise DatabaseUnavailable.

        Raises DaemonWaits where that is because another daemon works.
        """
        given_up = time.monotonic() + PATIENCE_S
        while not self._is_held():
            if time.monotonic() > given_up:
                raise DaemonWaits(None) if self._waits else DatabaseUnavailable(None, self._lacks or NOTHING_BEGINS)
            time.sleep(LOOK_S)

    def release(self) -> None:
        """Let another daemon take over; nothing may be under way any more."""
        self._over.set()

    def _is_held(self) -> bool:
        return not self._over.is_set() and _now() < self._trusted_until

    def _hold(self) -> None:
        while not self._over.is_set():
            try:
                with self._database.session() as session:
                    self._lock(session)
                    while not self._over.is_set():
                        asked = _now()
                        session.scalar("is_there")
                        self._trusted_until = asked + TRUSTED_S
                        if self._lacks:
                            self._lacks = ""
                            log.warning("the daemon has its lock again")
                        self._over.wait(BEAT_S)
            except DatabaseError as error:
                self._trusted_until, self._waits = 0.0, False
                self._lacks = f"{str(error).removeprefix(f'{error.code}: ')}; {NOTHING_BEGINS}"
                log.warning("%s: %s", error.code, self._lacks)
                self._over.wait(BEAT_S)

    def _lock(self, session: Transaction) -> None:
        """Take the lock; wait for the end of who has it, and then as long as that one may still count on it."""
        session.rows("note_daemon", lock_class=DAEMON_LOCK_CLASS)
        if session.scalar("try_lock_daemon", lock_class=DAEMON_LOCK_CLASS):
            return
        self._waits = True
        log.warning(WAITS)
        while not (self._over.wait(BEAT_S) or session.scalar("try_lock_daemon", lock_class=DAEMON_LOCK_CLASS)):
            pass
        if not self._over.wait(TRUSTED_S):
            self._waits = False
            log.warning("the other daemon has ended, and this one takes over")


def daemons(database: Database) -> int:
    """Return how many daemons there are: one works, and the others wait."""
    with database.begin() as transaction:
        return int(transaction.scalar("daemons", lock_class=DAEMON_LOCK_CLASS))


def _now() -> float:
    """Return this host's seconds since it was started, those it slept among them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)

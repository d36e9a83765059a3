"""Settlement: a loaded batch is paid while its customers are notified.

Two drains over two ledgers, so that one customer is notified while others are still being paid. Each ledger's rules are
in its `ledger.py`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from orders_pipeline.batches import batches
from orders_pipeline.batches.workers import Worker, worker_session
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.background import beside
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_errors import ConstraintViolated, DatabaseError
from orders_pipeline.security.encryption import DecryptionError
from orders_pipeline.settlement.notifications.ledger import NOTIFICATION_BREAKER, CorrectionLedger, ResultLedger
from orders_pipeline.settlement.notifications.notify import notify_batch
from orders_pipeline.settlement.notifications.plan import make_ready, plan_notifications
from orders_pipeline.settlement.payments import settle
from orders_pipeline.settlement.payments.ledger import PAYMENT_BREAKER, PaymentLedger
from orders_pipeline.system.composition import System

SETTLED_FROM = ("loaded", "paying", "paused")  # the states of a batch in which there may be something to settle
HALT_POLL_S = 0.2  # for so long may be sent what was claimed before a person stopped or cancelled the batch


@contextlib.contextmanager
def settling(system: System, batch_id: str, run_id: str | None) -> Iterator[Settlement | None]:
    """Plan a batch's payments and notifications and return their settlement.

    There is none when the batch is past it, or as long as somebody must approve it.
    """
    with system.database.begin() as transaction:
        batch = batches.get(transaction, batch_id)
    if batch.status not in SETTLED_FROM or not batch.is_approved:
        yield None
        return
    profile = system.clients.profile_of_batch(batch.client_code)
    is_whole = system.restore_guard.is_whole()  # ids follow from the installation, and from what a lost database has charged
    if not is_whole and system.restore_guard.is_another_in_use():
        yield None
        return
    with _trouble_noted(system.database, batch_id), worker_session(system.database, batch_id, run_id) as worker:
        with system.database.begin() as transaction:
            is_halted = not batches.set_status(transaction, batch_id, "paying")  # by a person, meanwhile
        if is_halted:
            yield None
            return
        if is_whole:
            settle.plan_batch(system.database, system.cipher, batch_id, profile)
        plan_notifications(system.database, system.cipher, batch_id, profile)
        settlement = Settlement(system, worker, profile)
        with _halting(system.database, worker, settlement):
            try:
                yield settlement
            finally:
                settlement.close()


@contextlib.contextmanager
def _trouble_noted(database: Database, batch_id: str) -> Iterator[None]:
    """Note with a batch that its orders are not what they were: no service says so, and trying again helps nobody."""
    try:
        yield
    except (DecryptionError, ConstraintViolated) as error:
        with contextlib.suppress(DatabaseError), database.begin() as transaction:
            transaction.execute("note_trouble", batch_id=batch_id, code=error.code)
        raise


@contextlib.contextmanager
def _halting(database: Database, worker: Worker, settlement: Settlement) -> Iterator[None]:
    """Notice when a person stops or cancels the batch: nothing is sent then of what is claimed already."""

    def watch(over: threading.Event) -> None:
        while not over.wait(HALT_POLL_S):
            with contextlib.suppress(DatabaseError), database.begin() as transaction:
                if transaction.scalar("is_halted", batch_id=worker.batch_id):
                    worker.halted.set()
            if worker.halted.is_set():
                settlement.stop()
                return

    with beside(watch, "halt"):
        yield


def probe_now(system: System) -> None:
    """Let services whose breaker is open be probed at once: somebody asks for it."""
    with system.database.begin() as transaction:
        for service in (PAYMENT_BREAKER, NOTIFICATION_BREAKER):
            service.probe_now(transaction)


class Settlement:
    """One process's share in settling a batch; others may drain the same ledgers at the same time."""

    def __init__(self, system: System, worker: Worker, profile: Profile) -> None:
        self._system = system
        self._worker = worker
        self._profile = profile
        self._stop_paying = threading.Event()
        self._stop_notifying = threading.Event()
        self._paid = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="notify")
        self._notifying: Future[None] | None = None

    @property
    def has_paid(self) -> bool:
        """Return whether there is nothing more to pay now."""
        return self._paid.is_set()

    def start_notifying(self) -> Future[None]:
        """Begin to send what is final, beside the payments."""
        self._notifying = self._pool.submit(self._notify)
        return self._notifying

    def pay(self) -> None:
        """Drain the payments; what became of each is in the ledger.

        Nothing is paid while our ledger is not whole, or the service has charges that it does not know.
        """
        system = self._system
        if not system.restore_guard.advance():
            self._paid.set()
            return
        ledger = PaymentLedger(
            system.database,
            system.cipher,
            self._worker,
            system.payments.capabilities,
            make_ready,
            concurrency=system.settings.payment_concurrency,
            retry_declined_orders=self._profile.declined_payments == "retry_orders",
            look_again=system.restore_guard.advance,
        )
        try:
            with _timed(system.database, self._worker.batch_id, "pay"):
                settle.settle_batch(ledger, system.payments, self._stop_paying)
            system.restore_guard.note_settled()
        finally:
            self._paid.set()

    def finish_notifying(self) -> None:
        """Wait until no notification is left to try now and none is to come; raise what went wrong there."""
        self._paid.set()
        (self._notifying or self.start_notifying()).result()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stop_paying.set()
        self._stop_notifying.set()

    def close(self) -> None:
        """Stop the drains; what is in flight is recorded first."""
        self.stop()
        self._paid.set()
        self._pool.shutdown(wait=True)

    def _notify(self) -> None:
        system = self._system
        results = ResultLedger(system.database, system.cipher, self._worker, self._profile)
        corrections = CorrectionLedger(system.database, system.cipher, self._worker)
        with _timed(system.database, self._worker.batch_id, "notify"):
            notify_batch(
                [results, corrections],
                system.notifications,
                system.notification_limiter,
                concurrency=system.settings.notification_rate_per_s,
                stop=self._stop_notifying,
                more_to_come=lambda: not self._paid.is_set(),
            )


@contextlib.contextmanager
def _timed(database: Database, batch_id: str, stage: str) -> Iterator[None]:
    started = time.monotonic()
    try:
        yield
    finally:
        with database.begin() as transaction:
            transaction.execute("add_stage_seconds", batch_id=batch_id, stage=stage, seconds=time.monotonic() - started)

"""Cancelling a batch for good: nothing more is sent, what is in flight is recorded, and the rest is called off.

It is begun in one statement, which whoever claims sees; it is ended by whoever comes first, the command or a run, once
no other process works on the batch and nothing is in doubt. What may have been charged is looked up and never sent again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from orders_pipeline.batches import batches
from orders_pipeline.batches.batch_lock import BatchBusy, batch_lock
from orders_pipeline.batches.batches import Progress
from orders_pipeline.batches.workers import Worker, end_lost_workers, worker_session
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure import interrupts
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.intake import steps
from orders_pipeline.reports import finishing
from orders_pipeline.security.encryption import DecryptionError
from orders_pipeline.settlement.drain import drain, one_by_one
from orders_pipeline.settlement.notifications.ledger import ResultLedger
from orders_pipeline.settlement.notifications.notify import look_up_results
from orders_pipeline.settlement.notifications.plan import make_ready
from orders_pipeline.settlement.payments import settle
from orders_pipeline.settlement.payments.ledger import DoubtLedger
from orders_pipeline.settlement.payments.settle import find_out
from orders_pipeline.system.composition import System

POLL_S = 0.2
NO_REASON = "no reason given"  # what is kept and shown where a program cancels without one


def require_unfinished(batch: Progress) -> None:
    """Raise BatchEnded for a batch that has ended, but for one that was cancelled."""
    if batch.finished_at is not None and batch.status != "cancelled":
        refund = f"; what was paid can be refunded: orders-pipeline refund {batch.batch_id} --why TEXT"
        how = f"the batch has ended ({batch.status}){refund if batch.orders_paid else ''}"
        raise batches.BatchEnded(f"{batches.BatchEnded.code}: {how}")


def begin(transaction: Transaction, batch_id: str, *, cancelled_by: str, why: str) -> None:
    """Let nothing of a batch be sent any more; raise UnknownBatch, or BatchEnded where it has ended.

    A batch that is being cancelled, or was, stays as it is.
    """
    transaction.execute("begin_cancelling", batch_id=batch_id, cancelled_by=cancelled_by, cancelled_why=why)
    require_unfinished(batches.progress(transaction, batch_id))


def finish(system: System, batch_id: str, waiting: Callable[[], None] = lambda: None) -> None:
    """Bring a batch that is being cancelled to its end, and write its reports; does nothing when it is there.

    Waits for other workers of the batch, calling `waiting` once, and for look-ups. Where only a person can find out about
    a payment, or the service has charges that our ledger does not know, the batch stays `cancelling`.
    """
    with system.database.begin() as transaction:
        if batches.get(transaction, batch_id).status != "cancelling":
            return
    with _only_worker(system.database, batch_id, waiting) as worker:
        system.restore_guard.watch()
        _look_up(system, worker, declined_are_planned_singly=_plan_what_may_be_charged(system, batch_id))
        is_whole = system.restore_guard.is_whole()
        with system.database.begin() as transaction:
            transaction.row("lock_batch", batch_id=batch_id)
            batch = batches.progress(transaction, batch_id)
            if batch.status != "cancelling" or not is_whole or batch.ledgers_differ:
                return
            if transaction.scalar("is_in_doubt", batch_id=batch_id):
                return
            transaction.execute("cancel_payments", batch_id=batch_id)
            transaction.execute("retire_cancelled", batch_id=batch_id)
            transaction.execute("cancel_orders", batch_id=batch_id)
            transaction.execute("cancel_notifications", batch_id=batch_id)
        steps.give_up_loading(system.storage, system.database, batch_id)
    finishing.finish_batch(system.storage, system.database, batch_id)


@contextlib.contextmanager
def _only_worker(database: Database, batch_id: str, waiting: Callable[[], None]) -> Iterator[Worker]:
    """Be the batch's only worker, with its lock: live ones end soon, and lost ones are given up."""
    said = False

    def wait() -> None:
        nonlocal said
        if not said:
            said = True
            waiting()
        if interrupts.requested.is_set():
            raise KeyboardInterrupt
        time.sleep(POLL_S)

    with contextlib.ExitStack() as stack:
        while True:
            with contextlib.suppress(BatchBusy):
                stack.enter_context(batch_lock(database, batch_id))
                break
            wait()
        worker = stack.enter_context(worker_session(database, batch_id, None))
        while _others(database, worker):
            wait()
        yield worker


def _others(database: Database, worker: Worker) -> list[int]:
    with database.begin() as transaction:
        end_lost_workers(transaction, worker.batch_id, worker)
        live = transaction.rows("live_workers", batch_id=worker.batch_id)
    return [each.worker_id for each in live if each.worker_id != worker.worker_id]


def _plan_what_may_be_charged(system: System, batch_id: str) -> bool:
    """Plan what no payment covers, where another database may have paid it: only a planned payment can be looked up.

    Return whether it would have planned the orders of a declined payment one by one.
    """
    with system.database.begin() as transaction:
        batch = batches.get(transaction, batch_id)
        is_unlisted = transaction.rows("standing", batch_id=batch_id)[0].unlisted_since is not None
    if not is_unlisted or not system.payments.capabilities.can_look_up:
        return False
    profile = system.clients.profile_of_batch(batch.client_code)
    with contextlib.suppress(DecryptionError):  # the other could not read it either
        settle.plan_batch(system.database, system.cipher, batch_id, profile)
    return profile.declined_payments == "retry_orders"


def _look_up(system: System, worker: Worker, *, declined_are_planned_singly: bool) -> None:
    """Look up payments that may have been charged and customers that may have been notified; nothing is sent."""
    ledger = DoubtLedger(
        system.database,
        system.cipher,
        worker,
        system.payments.capabilities,
        make_ready,
        concurrency=system.settings.payment_concurrency,
        retry_declined_orders=declined_are_planned_singly,
    )
    ledger.begin()
    drain(
        ledger,
        one_by_one(lambda claim: find_out(system.payments, claim)),
        concurrency=ledger.concurrency,
        stop=threading.Event(),
    )
    notices = ResultLedger(system.database, system.cipher, worker, Profile())  # the client may have none any more
    look_up_results(notices, system.notifications, system.notification_limiter, interrupts.requested)

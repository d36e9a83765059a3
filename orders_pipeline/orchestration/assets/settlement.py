"""Payments and notifications: one step that drains both ledgers side by side, so that notifying need not wait for paying.

A step that is run again, after a failure or a crash, resumes what is open in the ledgers and sends nothing twice.
"""

import contextlib
import threading
import time
from collections.abc import Collection, Iterator

import dagster as dg

from orders_pipeline.batches import batches
from orders_pipeline.infrastructure.background import beside
from orders_pipeline.infrastructure.database_errors import DatabaseError
from orders_pipeline.orchestration import checks
from orders_pipeline.orchestration.assets.boundary import (
    BATCH,
    FINANCE,
    OPERATIONS,
    about,
    batch_step,
    pause,
    read_batch,
    seconds_of,
)
from orders_pipeline.orchestration.partitions import batch_partitions
from orders_pipeline.orchestration.places import giving_way
from orders_pipeline.orchestration.run_labels import label_status
from orders_pipeline.reports import finishing
from orders_pipeline.settlement.batch_settlement import Settlement, settling
from orders_pipeline.settlement.refunds import refunding
from orders_pipeline.system.composition import System

PAYMENTS = dg.AssetKey("payments")
NOTIFICATIONS = dg.AssetKey("notifications")
PROGRESS_S = 10.0
REST = 50  # times as long as a count took are waited until the next


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            PAYMENTS,
            deps=["orders"],
            skippable=True,
            group_name=BATCH,
            owners=FINANCE,
            tags={"money": "charged"},
            kinds={"rest", "postgres"},
            metadata={"dagster/table_name": "payments"},
            description="Orders paid: one transaction per customer and method, at most 1,000,000 yen each.\n\n"
            "Each payment is a row of the ledger before it is sent. What is paid is what the ledger says, and to run this "
            "again pays nothing twice.",
        ),
        dg.AssetSpec(
            NOTIFICATIONS,
            deps=[PAYMENTS],
            skippable=True,
            group_name=BATCH,
            owners=OPERATIONS,
            kinds={"rest", "postgres"},
            metadata={"dagster/table_name": "notifications"},
            description="Customers notified, once their payments are final, within the service's rate.\n\n"
            "This goes on beside the payments. To run it again notifies nobody twice.",
        ),
    ],
    can_subset=True,
    partitions_def=batch_partitions,
    check_specs=checks.PAYMENT_CHECKS,
)
def settlement(context: dg.AssetExecutionContext, system: dg.ResourceParam[System]) -> Iterator[dg.MaterializeResult]:
    """Drain the payment and the notification ledger of a batch."""
    batch_id, selected = context.partition_key, context.selected_asset_keys
    with batch_step(context, system):
        refunding.resume(system, batch_id)
    with (
        batch_step(context, system),
        _settling(context, system, batch_id) as work,
        _progress_in_log(context, system, batch_id),
        giving_way(context, system, work) as gave_way,
    ):
        yield from _drained(system, batch_id, selected, work)
    with batch_step(context, system):
        batch = read_batch(system, batch_id)
        if gave_way.is_set() and batches.open_notifications(batch):  # what it would wait for anyway another run waits for
            with system.database.begin() as transaction:
                transaction.execute("offer_batch", batch_id=batch_id)
            context.log.info("all is paid, and a file that has just arrived needs the place: notifying goes on by itself")
        elif batches.open_orders(batch) or (batches.open_notifications(batch) and NOTIFICATIONS in selected):
            result = finishing.finish_batch(system.storage, system.database, batch_id)
            if result["status"] != batches.AWAITING_APPROVAL:  # its run ends well, and approval asks for another
                raise pause(context, system)


def _drained(
    system: System, batch_id: str, selected: Collection[dg.AssetKey], work: Settlement | None
) -> Iterator[dg.MaterializeResult]:
    """Pay and notify; an asset is there only when nothing of it is open: a retry picks up what is not there."""
    if work is not None and NOTIFICATIONS in selected:
        work.start_notifying()
    if PAYMENTS in selected:
        if work is not None:
            work.pay()
        if not batches.open_orders(read_batch(system, batch_id)):
            yield _payments(system, batch_id)
    if NOTIFICATIONS in selected:
        if work is not None:
            work.finish_notifying()
        if not batches.open_notifications(read_batch(system, batch_id)):
            yield _notifications(system, batch_id)


@contextlib.contextmanager
def _settling(context: dg.AssetExecutionContext, system: System, batch_id: str) -> Iterator[Settlement | None]:
    """Settle a batch, if there is something to settle; its run says so all the while."""
    with settling(system, batch_id, context.run.run_id) as work:
        if work is not None:
            label_status(context.instance, context.run.run_id, "paying")
        yield work


@contextlib.contextmanager
def _progress_in_log(context: dg.AssetExecutionContext, system: System, batch_id: str) -> Iterator[None]:
    """Log every few seconds how far the batch is, for who watches the run."""

    def watch(done: threading.Event) -> None:
        took_s = 0.0
        while not done.wait(max(PROGRESS_S, REST * took_s)):
            started = time.monotonic()
            with contextlib.suppress(DatabaseError):
                batch = read_batch(system, batch_id)
                final = batch.orders_paid + batch.orders_declined
                notified = batch.notifications_sent + batch.notifications_failed
                context.log.info(
                    f"{final:,} of {batches.orders_accepted(batch):,} orders final, "
                    f"{notified:,} of {batch.notifications_planned:,} notifications done"
                )
            took_s = time.monotonic() - started

    with beside(watch, "progress"):
        yield


def _payments(system: System, batch_id: str) -> dg.MaterializeResult:
    batch = read_batch(system, batch_id)
    with system.database.begin() as transaction:
        results = checks.payment_checks(transaction, batch_id)
    return dg.MaterializeResult(
        asset_key=PAYMENTS,
        metadata={
            **about(batch),
            "checks": checks.in_words(results),
            "payments": batch.payments_planned,
            "succeeded": batch.payments_succeeded,
            "declined": batch.payments_declined,
            "unknown": batch.payments_unknown,
            "paid (yen)": int(batch.amount_paid),
            "declined (yen)": int(batch.amount_declined),
            "seconds": seconds_of(system, batch_id, "pay"),
        },
        check_results=results,
    )


def _notifications(system: System, batch_id: str) -> dg.MaterializeResult:
    batch = read_batch(system, batch_id)
    return dg.MaterializeResult(
        asset_key=NOTIFICATIONS,
        metadata={
            **about(batch),
            "notifications": batch.notifications_planned,
            "sent": batch.notifications_sent,
            "failed": batch.notifications_failed,
            "seconds": seconds_of(system, batch_id, "notify"),
        },
    )

"""Payments and notifications: one step that drains both ledgers side by side, so that telling need not wait for paying.

A step that is run again, after a failure or a crash, goes on with what is open in the ledgers and sends nothing twice.
"""

from collections.abc import Iterator

import dagster as dg

from orders_pipeline import batches, checks, reports
from orders_pipeline.assets.boundary import GROUP, read_batch, safe_errors, seconds_of
from orders_pipeline.partitions import batch_partitions
from orders_pipeline.settlement import settling
from orders_pipeline.system import System

PAYMENTS = dg.AssetKey("payments")
NOTIFICATIONS = dg.AssetKey("notifications")


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            PAYMENTS,
            deps=["orders"],
            skippable=True,
            group_name=GROUP,
            kinds={"rest"},
            description="Orders paid: one transaction per customer and method, at most 1,000,000 yen each.",
        ),
        dg.AssetSpec(
            NOTIFICATIONS,
            deps=[PAYMENTS],
            skippable=True,
            group_name=GROUP,
            kinds={"rest"},
            description="Customers told, once their payments are final, within the service's rate.",
        ),
    ],
    can_subset=True,
    partitions_def=batch_partitions,
    check_specs=checks.PAYMENT_CHECKS,
)
def settlement(context: dg.AssetExecutionContext, system: dg.ResourceParam[System]) -> Iterator[dg.MaterializeResult]:
    """Drain the payment and the notification ledger of a batch."""
    batch_id, selected = context.partition_key, context.selected_asset_keys
    with safe_errors(system), settling(system, batch_id, context.run.run_id) as work:
        if work is not None and NOTIFICATIONS in selected:
            work.start_notifying()
        if PAYMENTS in selected:
            if work is not None:
                work.pay()
            yield _payments(system, batch_id)
        if NOTIFICATIONS in selected:
            if work is not None:
                work.finish_notifying()
            yield _notifications(system, batch_id)
    with safe_errors(system):
        _fail_when_open(system, batch_id)


def _payments(system: System, batch_id: str) -> dg.MaterializeResult:
    batch = read_batch(system, batch_id)
    return dg.MaterializeResult(
        asset_key=PAYMENTS,
        metadata={
            "payments": batch.payments_planned,
            "succeeded": batch.payments_succeeded,
            "declined": batch.payments_declined,
            "unknown": batch.payments_unknown,
            "paid (yen)": int(batch.amount_paid),
            "declined (yen)": int(batch.amount_declined),
            "seconds": seconds_of(system, batch_id, "pay"),
        },
        check_results=checks.payment_checks(system, batch_id),
    )


def _notifications(system: System, batch_id: str) -> dg.MaterializeResult:
    batch = read_batch(system, batch_id)
    return dg.MaterializeResult(
        asset_key=NOTIFICATIONS,
        metadata={
            "notifications": batch.notifications_planned,
            "sent": batch.notifications_sent,
            "failed": batch.notifications_failed,
            "seconds": seconds_of(system, batch_id, "notify"),
        },
    )


def _fail_when_open(system: System, batch_id: str) -> None:
    """Show a batch that could not be finished as a failed step: running it again resumes it."""
    batch = read_batch(system, batch_id)
    status, code = batches.final_status(batch)
    if status != "paused":
        return
    reports.finish_batch(system, batch_id)
    open_orders = batch.orders_pending + batch.orders_paying + batch.orders_unknown
    raise dg.Failure(
        description=f"{code}: the batch is paused and goes on when this step is run again",
        metadata={
            "open orders": open_orders,
            "open notifications": batch.notifications_planned - batch.notifications_sent - batch.notifications_failed,
        },
    )

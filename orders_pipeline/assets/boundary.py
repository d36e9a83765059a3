"""What all assets share: the boundary where an exception becomes a code, and what they read and say of a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import dagster as dg
from sqlalchemy import Row

from orders_pipeline import batches, errors
from orders_pipeline.audit import recording
from orders_pipeline.system import System

GROUP = "batch"  # one group: the lineage page then shows every asset


@contextlib.contextmanager
def safe_errors(system: System) -> Iterator[None]:
    """Let only a code and our own sentence into Dagster's event log."""
    try:
        yield
    except (dg.Failure, dg.DagsterExecutionInterruptedError):
        raise
    except Exception as error:  # noqa: BLE001 - the boundary
        description = errors.describe(error, system.settings, system)
        recording.failed(system.database, error)
        raise dg.Failure(description=description) from None


def read_batch(system: System, batch_id: str) -> Row[Any]:
    """Return the batch with its counts."""
    with system.database.begin() as transaction:
        return batches.get(transaction, batch_id)


def seconds_of(system: System, batch_id: str, stage: str) -> float:
    """Return the seconds a stage has taken."""
    with system.database.begin() as transaction:
        rows = transaction.rows("stage_seconds", batch_id=batch_id)
    return round(next((row.seconds for row in rows if row.stage == stage), 0.0), 3)


def pause(context: dg.AssetExecutionContext, system: System) -> dg.Failure:
    """Return the failure that pauses the batch of a run, which Dagster does not try again: it is too early."""
    context.instance.add_run_tags(context.run.run_id, {"dagster/max_retries": "0"})
    return paused(system, context.partition_key)


def paused(system: System, batch_id: str) -> dg.Failure:
    """Return the failure that shows a paused batch as a failed step: running it again resumes the batch.

    It names the services that are left alone, why, and when each is tried next.
    """
    with system.database.begin() as transaction:
        batch = batches.get(transaction, batch_id)
        left_alone = transaction.rows("open_breakers")
        payments = transaction.rows("unknown_payments", batch_id=batch_id)
        refunds = transaction.rows("unsettled_refunds", batch_id=batch_id)
        refused = transaction.rows("held_refusals", batch_id=batch_id)
        needs_a_person = any(row.needs_a_person for row in (*payments, *refunds))
    if batch.ledgers_differ:
        how = "goes on once the charges that our ledger does not know are gone or accepted: see reconcile"
    elif needs_a_person:
        how = "ends when a person has decided about what nobody else can find out about: status names it"
    elif refused:
        how = "goes on by itself when the service takes such requests again; re-execute from failure to try it now"
    else:
        how = "goes on by itself once the service is back; re-execute from failure to go on now"
    return dg.Failure(
        description=f"{batch.status_code}: the batch is paused, and {how}"
        if batch.finished_at is None
        else f"E_REFUNDS_OPEN: not all was given back, or not all customers are corrected; it {how}",
        metadata={
            "open orders": batches.open_orders(batch),
            "open notifications": batches.open_notifications(batch),
            **{
                f"{row.service} service left alone": f"{row.reason}, next try {row.probe_at.isoformat(timespec='seconds')}"
                for row in left_alone
            },
            **{
                f"refused ({each.service})": f"{each.items} x {each.code}, next try {each.next_try:%FT%T%z}"
                for each in refused
            },
        },
    )

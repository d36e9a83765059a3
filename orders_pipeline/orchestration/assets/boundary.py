"""What all assets share: the boundary where an exception becomes a code, and what they read and say of a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import dagster as dg
from sqlalchemy import Row

from orders_pipeline.audit import recording
from orders_pipeline.audit.recording import os_user
from orders_pipeline.batches import batches
from orders_pipeline.batches.run_tags import shown_name
from orders_pipeline.infrastructure import interrupts
from orders_pipeline.orchestration.dagster_errors import SafeFailure
from orders_pipeline.orchestration.partitions import batch_partitions
from orders_pipeline.orchestration.run_labels import label_status
from orders_pipeline.orchestration.terminated_runs import UI, is_terminated
from orders_pipeline.settlement.refunds import refunding
from orders_pipeline.system import errors, payment_stop
from orders_pipeline.system.composition import System
from orders_pipeline.upkeep import cancelling

Context: TypeAlias = dg.AssetExecutionContext | dg.OpExecutionContext
# to materialize all of a group processes batches, compares money or looks after the installation, and nothing else
BATCH, MONEY, UPKEEP = "batch", "money", "upkeep"
OPERATIONS, FINANCE = ["team:operations"], ["team:finance"]
PERSONAL = {"personal-data": "encrypted"}  # of assets


@contextlib.contextmanager
def safe_errors(system: System, *, of_tick: bool = False) -> Iterator[None]:
    """Let only a code and our own sentence into Dagster's event log.

    An error that comes with every tick of a sensor is recorded in the audit once an hour.
    """
    try:
        yield
    except (dg.Failure, dg.DagsterExecutionInterruptedError):
        raise
    except Exception as error:  # noqa: BLE001 - the boundary
        report = errors.report(error, system.settings, system.storage, listed=True)
        if report.is_new or not of_tick:
            recording.failed(system.database, error)
        raise SafeFailure(report) from None


@contextlib.contextmanager
def batch_step(context: dg.AssetExecutionContext, system: System) -> Iterator[None]:
    """Do a part of a batch's work, unless a person has stopped or cancelled it; what fails is a code and a sentence."""
    with safe_errors(system):
        was = _require_wanted(context, system)
        try:
            yield
        except dg.DagsterExecutionInterruptedError:
            who = UI if is_terminated(context.instance, context.run.run_id) else os_user()
            if who == UI or interrupts.is_requested():  # else the whole system ends
                with system.database.begin() as transaction:
                    batches.stop(transaction, context.partition_key, who)
            _require_wanted(context, system, was)
            raise
        if (status := _require_wanted(context, system, was)) != was:
            label_status(context.instance, context.run.run_id, status)


def _require_wanted(context: dg.AssetExecutionContext, system: System, was: str = "") -> str:
    """Return the batch's state, or raise the failure that shows that there is none, or that a person has halted it.

    A cancellation is ended; while that waits for a person, refunds that were asked for resume. A cancelled batch of which
    something was paid may have refunds to finish, and nothing else is done for it. Its run is canceled, not failed: that is
    what somebody wanted.
    """
    batch = require_batch(context, system)
    if batch.status == "cancelling":
        cancelling.finish(system, batch.batch_id)
        refunding.resume(system, batch.batch_id)
        batch = read_batch(system, batch.batch_id)
    before = batch.status == was or (not was and batch.status == "cancelled" and batch.orders_paid + batch.orders_refunded)
    if batch.status in batches.HALTED and not before:
        how = (
            f"resume it with: orders-pipeline resume {batch.batch_id}, or re-execute the run"
            if batch.status == "stopped"
            else "nothing of it is sent any more"
        )
        if batch.status != "stopped":
            context.instance.report_run_canceling(context.run)
        raise _not_again(context, dg.Failure(description=f"E_STOPPED: {batches.halted_words(batch)}; {how}"))
    return str(batch.status)


def require_batch(context: Context, system: System) -> Row[Any]:
    """Return the batch of a run with its counts; what is no batch was typed by hand, and is taken away again.

    Its run is canceled, not failed: none of the checks that it was to make has failed.
    """
    try:
        return read_batch(system, context.partition_key)
    except batches.UnknownBatch as error:
        context.instance.delete_dynamic_partition(str(batch_partitions.name), context.partition_key)
        context.instance.report_run_canceling(context.run)
        raise dg.Failure(description=f"{error}; the partition that was made by hand is removed") from None


def _not_again(context: Context, failure: dg.Failure) -> dg.Failure:
    """Let Dagster not try a run again that fails so: only a person may, or it is too early."""
    context.instance.add_run_tags(context.run.run_id, {"dagster/max_retries": "0"})
    return failure


def read_batch(system: System, batch_id: str) -> Row[Any]:
    """Return the batch with its counts."""
    with system.database.begin() as transaction:
        return batches.progress(transaction, batch_id)


def about(batch: Row[Any]) -> dict[str, str]:
    """Return by what a person recognises a batch, for the metadata of each of its assets."""
    return {"client": batch.client_code, "file": shown_name(batch.csv_source), "batch status": batch.status}


def seconds_of(system: System, batch_id: str, stage: str) -> float:
    """Return the seconds a stage has taken."""
    with system.database.begin() as transaction:
        rows = transaction.rows("stage_seconds", batch_id=batch_id)
    return round(next((row.seconds for row in rows if row.stage == stage), 0.0), 3)


def pause(context: Context, system: System) -> dg.Failure:
    """Return the failure that pauses the batch of a run, which Dagster does not try again: it is too early."""
    return _not_again(context, paused(system, context.partition_key))


def paused(system: System, batch_id: str) -> dg.Failure:
    """Return the failure that shows a paused batch as a failed step: running it again resumes the batch.

    It names the services whose breaker is open, why, and when each is probed next.
    """
    with system.database.begin() as transaction:
        batch = batches.progress(transaction, batch_id)
        open_breakers = transaction.rows("open_breakers")
        payments = transaction.rows("unknown_payments", batch_id=batch_id)
        refunds = transaction.rows("unsettled_refunds", batch_id=batch_id)
        refused = transaction.rows("held_refusals", batch_id=batch_id)
        needs_a_person = any(row.needs_a_person for row in (*payments, *refunds))
        stop = payment_stop.current(transaction)
    if stop is not None:
        how = f"paying is stopped, since {batches.in_japan(stop.since)}: {stop.code}: {stop.message}"
    elif batch.ledgers_differ:
        how = "resumes once reconcile has compared the ledgers, and charges that ours does not know are gone or accepted"
    elif needs_a_person:
        how = "ends when a person has decided about what nobody else can find out about: status names it"
    elif refused:
        how = "resumes by itself when the service takes such requests again; re-execute from failure to try it now"
    else:
        how = "resumes by itself once the service is back; re-execute from failure to resume now"
    return dg.Failure(
        description=f"{batch.status_code}: the batch is paused, and {how}"
        if batch.finished_at is None
        else f"E_REFUNDS_OPEN: not all was refunded, or not all customers are corrected; it {how}",
        metadata={
            "open orders": batches.open_orders(batch),
            "open notifications": batches.open_notifications(batch),
            **{
                f"{row.service} service not called": f"{row.reason}, next try {batches.in_japan(row.probe_at)}"
                for row in open_breakers
            },
            **{
                f"refused ({each.service})": f"{each.items} x {each.code}, next try {batches.in_japan(each.next_try)}"
                for each in refused
            },
        },
    )

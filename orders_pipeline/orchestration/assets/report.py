"""The report of a batch: what goes back to the client and what the batch came to, in words, numbers and charts."""

import contextlib
from collections.abc import Mapping
from typing import Any

import dagster as dg
from sqlalchemy import Row

from orders_pipeline.batches import batches
from orders_pipeline.orchestration import charts
from orders_pipeline.orchestration.assets.boundary import BATCH, OPERATIONS, about, batch_step, pause, read_batch
from orders_pipeline.orchestration.assets.settlement import NOTIFICATIONS
from orders_pipeline.orchestration.partitions import batch_partitions
from orders_pipeline.orchestration.table_schemas import table
from orders_pipeline.records.rejections import message
from orders_pipeline.reports import finishing, report_files, summaries
from orders_pipeline.services.payment_gateway import ListFailed
from orders_pipeline.settlement.reconciliation.reconcile import reconcile
from orders_pipeline.system.composition import System

COMMANDS = {"rejected": "rejected", "errors": "errors", "result": "status --json"}
STEPS = {
    "stage": "staging",
    "validate": "validating",
    "load": "loading",
    "pay": "paying",
    "notify": "notifying",
    "report": "reporting",
}


@dg.asset(
    deps=[NOTIFICATIONS],
    partitions_def=batch_partitions,
    group_name=BATCH,
    owners=OPERATIONS,
    kinds={"csv", "json"},
)
def batch_report(context: dg.AssetExecutionContext, system: dg.ResourceParam[System]) -> dg.MaterializeResult:
    """What a batch came to: rejected.csv to send back, errors.csv to read, result.json with all counts and sums.

    *Plots* shows rows, yen and seconds of batch after batch; `client_day` those of each client day by day.
    """
    with batch_step(context, system):
        result = finishing.finish_batch(system.storage, system.database, context.partition_key)
        if result["status"] == "paused":
            raise pause(context, system)
        if system.payments.capabilities.can_list:
            with contextlib.suppress(ListFailed):  # the nightly comparison closes the batch then
                reconcile(system, context.partition_key, None, None)
        if summaries.is_refunding(result):
            raise pause(context, system)
        batch = read_batch(system, context.partition_key)
        return dg.MaterializeResult(
            metadata={
                **about(batch),
                **_times(batch),
                "summary": dg.MetadataValue.md(_summary(result)),
                **_charts(result),
                **_rejections(result["rejections"]),
                **_links(result, system.settings.reports_url),
                **_numbers(result),
            }
        )


def _times(batch: Row[Any]) -> dict[str, str]:
    finished = batch.finished_at and batches.in_japan(batch.finished_at)
    return {"received": batches.in_japan(batch.received_at), "finished": finished or "not yet"}


def _charts(result: Mapping[str, Any]) -> dict[str, dg.MetadataValue[Any]]:
    """Return the yen by state and the rejected rows by code, where there are any."""
    yen = {state: amount for state, amount in result["amount_jpy"].items() if state != "accepted" and amount}
    made = {"chart of yen": ("Yen by state", yen), "chart of rejections": ("Rejected rows by code", result["rejections"])}
    return {name: charts.bars(title, values) for name, (title, values) in made.items() if values}


def _numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """Return what Dagster plots of batch after batch."""
    rows, yen, seconds = result["rows"], result["amount_jpy"], result["seconds"]
    return {
        "rows": rows["total"] or 0,
        "rows rejected": rows["rejected"] or 0,
        "yen paid": yen["paid"],
        "yen declined": yen["declined"],
        "yen unknown": yen["unknown"],
        "seconds in all": seconds["total"],
        **{f"seconds {word}": took for word, took in _steps(seconds).items()},
    }


def _steps(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return how long each step took, and for how long nothing was done: the batch waited for its turn or for a service."""
    waiting = round(max(seconds["total"] - batches.worked(seconds), 0.0), 3)
    return {word: seconds[step] for step, word in STEPS.items()} | {"waiting": waiting}


def _links(result: Mapping[str, Any], reports_url: str | None) -> dict[str, dg.MetadataValue[Any]]:
    """Return a link to each report where a server for them is known, and the command that gives it otherwise."""
    batch_id = result["batch_id"]
    if reports_url is None:
        return {
            f"{name} report": dg.MetadataValue.text(f"orders-pipeline {COMMANDS[name]} {batch_id}")
            for name in result["artifacts"]
        }
    base = reports_url.rstrip("/")
    return {
        f"{name} report": dg.MetadataValue.url(base + report_files.report_path(batch_id, name))
        for name in result["artifacts"]
    }


def _summary(result: Mapping[str, Any]) -> str:
    rows, yen, paid, notified = (result[name] for name in ("rows", "amount_jpy", "payments", "notifications"))
    seconds = result["seconds"]
    lines = [
        (
            "rows",
            rows["total"],
            f"{_n(rows['accepted'])} accepted, {_n(rows['rejected'])} rejected, {_n(rows['blank'])} blank, "
            f"{_n(rows['skipped'])} skipped",
        ),
        (
            "yen",
            yen["accepted"],
            f"{_n(yen['paid'])} paid, {_n(yen['declined'])} declined, {_n(yen['unknown'])} unknown"
            + (f", {_n(yen['refunded'])} refunded" if yen["refunded"] else ""),
        ),
        ("to correct", result["corrections"]["rows_open"], "rows of this import and its corrections"),
        ("payments", paid["planned"], f"{_n(paid['succeeded'])} succeeded, {_n(paid['declined'])} declined"),
        ("notifications", notified["planned"], f"{_n(notified['sent'])} sent, {_n(notified['failed'])} failed"),
        (
            "seconds",
            seconds["total"],
            ", ".join(f"{word} {took:,.1f}" for word, took in _steps(seconds).items()),
        ),
    ]
    return "\n".join(["| | | |", "|---|---:|---|", *(f"| {name} | {_n(total)} | {rest} |" for name, total, rest in lines)])


def _rejections(codes: Mapping[str, int]) -> dict[str, dg.MetadataValue[Any]]:
    rows = [{"rows": f"{count:,}", "code": code, "meaning": message(code, "en")} for code, count in codes.items()]
    return {"rejections": table(rows)} if rows else {}


def _n(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"

"""The report of a batch: what goes back to the client and what the batch came to."""

import contextlib
from collections.abc import Mapping
from typing import Any

import dagster as dg

from orders_pipeline.orchestration.assets.boundary import GROUP, batch_step, pause
from orders_pipeline.orchestration.assets.settlement import NOTIFICATIONS
from orders_pipeline.orchestration.partitions import batch_partitions
from orders_pipeline.records.rejections import message
from orders_pipeline.reports import finishing, report_files, summaries
from orders_pipeline.services.payment_gateway import ListFailed
from orders_pipeline.settlement.reconciliation.reconcile import reconcile
from orders_pipeline.system.composition import System


@dg.asset(deps=[NOTIFICATIONS], partitions_def=batch_partitions, group_name=GROUP, kinds={"csv", "json"})
def batch_report(context: dg.AssetExecutionContext, system: dg.ResourceParam[System]) -> dg.MaterializeResult:
    """rejected.csv to send back, errors.csv to read, result.json with all counts and sums."""
    with batch_step(context, system):
        result = finishing.finish_batch(system.storage, system.database, context.partition_key)
        if result["status"] == "paused":
            raise pause(context, system)
        if system.payments.capabilities.can_list:
            with contextlib.suppress(ListFailed):  # the nightly comparison closes the batch then
                reconcile(system, context.partition_key, None, None)
        if summaries.is_refunding(result):
            raise pause(context, system)
        return dg.MaterializeResult(
            metadata={
                "batch status": result["status"],
                "summary": dg.MetadataValue.md(_summary(result)),
                "rejections": dg.MetadataValue.md(_rejections(result["rejections"])),
                **_links(result, system.settings.reports_url),
            }
        )


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


COMMANDS = {"rejected": "rejected", "errors": "errors", "result": "status --json"}


def _summary(result: Mapping[str, Any]) -> str:
    rows, yen, paid, notified = (result[name] for name in ("rows", "amount_jpy", "payments", "notifications"))
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
            result["seconds"]["total"],
            ", ".join(f"{k} {v:.1f}" for k, v in result["seconds"].items() if k != "total"),
        ),
    ]
    return "\n".join(["| | | |", "|---|---:|---|", *(f"| {name} | {_n(total)} | {rest} |" for name, total, rest in lines)])


def _rejections(codes: Mapping[str, int]) -> str:
    if not codes:
        return "none"
    lines = [f"| {count:,} | {code} | {message(code, 'en')} |" for code, count in codes.items()]
    return "\n".join(["| rows | code | |", "|---:|---|---|", *lines])


def _n(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"

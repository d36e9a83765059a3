"""What `status` shows of many batches: what stands still and why, open refunds, and below it the newest ones.

Values in, text out. What is shown of one batch is in `console.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from orders_pipeline.cli.console import counted, describe_code, plain, stands_still, status_words

UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
ENOUGH = 2  # of a unit: 90 minutes are better said in minutes


def show_standing_still(console: Console, summaries: Sequence[Mapping[str, Any]]) -> None:
    """Print the batches that go on only when somebody, or a service, does something; nothing where there is none."""
    if not summaries:
        return
    console.print("[bold]stands still[/bold]")
    for each in summaries:
        console.print(f"  {each['batch_id']}  {each['client_code']}  {plain(each['csv_source'])}  {_age(each)}")
        console.print(f"    {_why(each)}")
    console.print()


def show_open_refunds(console: Console, batches: Sequence[Mapping[str, Any]]) -> None:
    """Print of which batches refunds are not settled, and on which a person has to decide; nothing where there is none."""
    if not batches:
        return
    console.print("[bold]refunds open[/bold]")
    for each in batches:
        what = f"{counted(each['refunds'], 'refund')} of {each['amount_jpy']:,} yen"
        console.print(f"  {each['batch_id']}  {each['client_code']}  {plain(each['csv_source'])}  {what}")
        if undecided := each["need_a_person"]:
            console.print(f"    A person has to decide on {undecided:,} of them: orders-pipeline status {each['batch_id']}")
    console.print()


def _why(summary: Mapping[str, Any]) -> str:
    """Return why a batch stands still, and what is to be done."""
    if summary["status"] != "paused":
        return status_words(summary)
    needs_a_person = [each for each in (*summary["unknown_payments"], *summary["open_refunds"]) if each["needs_a_person"]]
    why = describe_code(summary["status_code"] or "paused", summary["details"].get(summary["status_code"], {}))
    if needs_a_person:
        return f"{why} A person has to decide: orders-pipeline status {summary['batch_id']}"
    return f"{why} Next try {summary['next_try']}" if summary["next_try"] else why


def show_batches(console: Console, summaries: Sequence[Mapping[str, Any]], *, try_demo: bool) -> None:
    """Print batches as a table, the newest first; where there is none, name the demonstration if `try_demo`."""
    if not summaries:
        console.print("no batches" + (" yet; try `orders-pipeline demo`" if try_demo else ""))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("batch", "age", "client", "file", "status"):
        table.add_column(heading, no_wrap=heading != "file", justify="right" if heading == "age" else "left")
    for heading in ("rows", "rejected", "paid (yen)", "notified"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in summaries:
        rows, notified = each["rows"], each["notifications"]
        table.add_row(
            each["batch_id"],
            _age(each),
            each["client_code"],
            plain(each["csv_source"]),
            f"{each['status']}, {'queued' if each['queued'] else 'not being processed'}"
            if stands_still(each)
            else each["status"],
            _number(rows["total"]),
            _number(rows["rejected"]),
            _number(each["amount_jpy"]["paid"]),
            f"{notified['sent']:,}/{notified['planned']:,}",
        )
    console.print(table)


def _age(summary: Mapping[str, Any]) -> str:
    """Return how long ago a batch came, in the largest unit that says enough."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(summary["received_at"])).total_seconds()
    unit, size = next((each for each in UNITS if seconds >= ENOUGH * each[1]), UNITS[-1])
    return f"{max(seconds, 0) / size:.0f} {unit}"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"

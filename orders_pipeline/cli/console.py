"""What commands show: summaries in words, tables. Values in, text out; progress is in `progress_bars.py`.

What happened is found out elsewhere; nothing here reads a database or a setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape

from orders_pipeline.batches.batches import FINISHED, HALTED, PAUSES, UNDER_WAY
from orders_pipeline.records.rejections import SETTINGS, message

SHOWN_ERRORS = 20  # of a dry run
SHOWN_CODES = 10  # why rows were rejected
STATUS_WORDS = {
    "received": "received, not started",
    "staged": "staged, not validated yet",
    "validated": "validated, not loaded yet",
    "loaded": "loaded, not paid yet",
    "awaiting_approval": "waits until somebody else than who sent it approves it",
    "paying": "being paid and notified",
    "paused": "paused: some orders are open",
    "stopped": "stopped",
    "cancelling": "being cancelled: nothing more is sent",
    "completed": "completed",
    "completed_with_errors": "completed; some rows or payments did not go through",
    "rejected": "returned to the client",
    "cancelled": "cancelled",
}
STAGE_WORDS = {
    "stage": "staged",
    "validate": "validated",
    "load": "loaded",
    "pay": "paid",
    "notify": "notified",
    "report": "reported",
}


def show_summary(console: Console, summary: Mapping[str, Any]) -> None:
    """Print how a batch stands, what it waits for and why; then what it came to."""
    console.print(f"[bold]{summary['batch_id']}[/bold]  {status_words(summary)}")
    if summary["cancelled"]:
        console.print(f"  why            {plain(summary['cancelled']['why'])}")
    _show_approval(console, summary["approval"])
    if summary.get("status_code"):
        why = describe_code(summary["status_code"], summary["details"].get(summary["status_code"], {}))
        console.print(f"  why            {why}")
    show_stop(console, summary["paying_rests"])
    if summary["next_try"]:
        console.print(f"  next try       {summary['next_try']}; see orders-pipeline doctor")
    _show_troubles(console, summary)
    _show_open_refunds(console, summary)
    show_counts(console, summary)
    _show_corrections(console, summary)
    _show_settlement(console, summary)
    _show_refunds(console, summary)
    seconds = summary["seconds"]
    spent = ", ".join(f"{STAGE_WORDS[stage]} {seconds[stage]:.1f}" for stage in STAGE_WORDS if seconds.get(stage))
    console.print(f"  seconds        {spent or 'none yet'}; {seconds['total']:.1f} in all")
    is_clean = summary["status"] == "completed" and not summary["warnings"]
    for name in summary["artifacts"]:
        if name == "errors" and is_clean:  # nothing but its header
            continue
        command = {"result": "status --json"}.get(name, name)
        console.print(f"  {name:<14} orders-pipeline {command} {summary['batch_id']}")


def _show_troubles(console: Console, summary: Mapping[str, Any]) -> None:
    """Print which services are not called now, what they refuse, and which payments are unknown or not answered."""
    for each in summary["services_left_alone"]:
        console.print(f"  not called     the {each['service']} service ({each['code']}), next try {each['next_try']}")
    for each in summary["refused"]:
        console.print(
            f"  refused        {counted(each['count'], each['service'])} ({each['code']}) since {each['since']}; no other "
            f"is taken; next try {each['next_try']}, or now with: orders-pipeline resume {summary['batch_id']}; "
            + _way_out(summary, each["service"])
        )
    for each in summary["unknown_payments"]:
        how = (
            f"decide with: orders-pipeline resolve {each['payment_id']} (--paid ID | --not-paid) --why TEXT"
            if each["needs_a_person"]
            else f"is looked up {each['payment_id']}"
        )
        what = f"  unknown        {each['amount_jpy']:,} yen since {each['since']} ({each['code']})"
        console.print(f"{what}; {how}")
    if summary["orders"]["paying"] and not summary["at_work"]:
        sent = counted(summary["orders"]["paying"], "order")
        console.print(f"  not answered   {sent} may be paid: that is found out when the batch is resumed or cancelled")


def _way_out(summary: Mapping[str, Any], service: str) -> str:
    """Return how a person can end that items are refused: a refund, or a batch that has ended, is never given up."""
    if service == "refund" or summary["status"] in FINISHED | HALTED:
        return "it ends when the service takes them: ask those who run it why it does not"
    return f"give it up with: orders-pipeline cancel {summary['batch_id']} --why TEXT"


def show_stop(console: Console, stop: Mapping[str, str] | None) -> None:
    """Print why nothing at all is paid or refunded now, if that is so."""
    if stop is not None:
        since = _time(stop["since"])
        console.print(f"[red]paying is stopped[/red], since {since}: {stop['code']}: {stop['message']}")


def status_words(summary: Mapping[str, Any]) -> str:
    """Return how a batch stands, who stopped or cancelled it, and how it is resumed where it does not resume by itself."""
    status, batch_id = str(summary["status"]), summary["batch_id"]
    if status == "stopped":
        stopped = summary["stopped"]
        return f"stopped at {_time(stopped['at'])} by {plain(stopped['by'])}; resume with: orders-pipeline resume {batch_id}"
    words = STATUS_WORDS.get(status, status)
    if summary["cancelled"]:
        words += f", at {_time(summary['cancelled']['at'])} by {plain(summary['cancelled']['by'])}"
    if status == "awaiting_approval":
        return f"{words}: orders-pipeline approve {batch_id}, or orders-pipeline refuse {batch_id} --why TEXT"
    if status == "cancelling" and not summary["at_work"]:
        return f"{words}; end it, after `orders-pipeline reconcile` if paying is stopped: orders-pipeline cancel {batch_id}"
    if stands_still(summary):
        why = "its run waits for its turn" if summary["queued"] else "it is not being processed"
        why += f" ({summary['status_code']})" if summary["status_code"] else ""
        words += f"; {why}: resumes under `up` or `daemon`, or with: orders-pipeline resume {batch_id}"
    return words


def stands_still(summary: Mapping[str, Any]) -> bool:
    """Return whether a batch is neither at its end nor waits for anything, and no process is processing it."""
    return summary["status"] in UNDER_WAY and not summary["at_work"]


def _show_approval(console: Console, approval: Mapping[str, Any] | None) -> None:
    """Print since when a batch waits for somebody's word, or what was said and by whom."""
    if approval is None:
        return
    why = {"always": "for every file of the client", "amount": "because of its yen"}.get(approval["needed_because"])
    if approval["decision"] is None:
        said = f"asked for, {why}, at {_time(approval['requested_at'])}"
    else:
        said = f"{approval['decision']} at {_time(approval['decided_at'])} by {plain(approval['decided_by'])}"
    console.print(f"  approval       {said}")


def _time(moment: str) -> str:
    """Return a time as the clock here shows it, with its date and zone."""
    return datetime.fromisoformat(moment).astimezone().isoformat(" ", "seconds")


def _show_refunds(console: Console, summary: Mapping[str, Any]) -> None:
    """Print how many refunds of a batch there are, and corrections of its customers."""
    refunds, notified = summary["refunds"], summary["refunds"]["corrections"]
    if refunds["planned"]:
        rest = "".join(f", {refunds[state]:,} {state}" for state in ("declined", "open") if refunds[state])
        console.print(f"  refunds        {refunds['planned']:,} planned: {refunds['succeeded']:,} succeeded{rest}")
    if notified["planned"]:
        rest = "".join(f", {notified[state]:,} {state}" for state in ("failed", "open") if notified[state])
        console.print(f"    corrections  {notified['planned']:,} planned: {notified['sent']:,} sent{rest}")


def _show_open_refunds(console: Console, summary: Mapping[str, Any]) -> None:
    """Print which refunds are open, and how to resume these."""
    for each in summary["open_refunds"]:
        what = f"  refund open    {each['amount_jpy']:,} yen since {each['since']} ({refund_words(each)})"
        how = (
            f"decide with: orders-pipeline resolve {each['refund_id']} (--refunded ID | --not-refunded) --why TEXT"
            if each["needs_a_person"]
            else f"resumes by itself; at once with: orders-pipeline resume {summary['batch_id']}"
        )
        console.print(f"{what}; {how}")


def refund_words(refund: Mapping[str, Any]) -> str:
    """Return why a refund is not settled: its code, or what its state says; one that was sent may have been made."""
    if refund["code"] == "made-already":
        return "made-already: the service has refunded more of its payment than our ledger knows, under an ID of its books"
    return refund["code"] or ("not tried yet" if refund["status"] == "planned" else "sent, not answered yet")


def _show_corrections(console: Console, summary: Mapping[str, Any]) -> None:
    """Print what still waits for a correction, where anything ever did."""
    corrections = summary["corrections"]
    if corrections["rows_open"]:
        where = "in rejected.csv of " + ", ".join(corrections["open_in"])
        if "W_ROWS_GONE" in summary["warnings"]:
            where = "to be sent as a new file: errors.csv has their numbers"
        console.print(f"  to correct     {counted(corrections['rows_open'], 'row')}, {where}")
    repeated = (summary["rows"]["rejected"] or 0) - corrections["rows_open"]
    if corrections["batches"] == 1 and repeated > 0 and not (summary.get("status_code") or "").startswith("F_"):
        console.print(f"  no correction  {counted(repeated, 'rejected row')}: received before, or no order")
    if not corrections["rows_open"] and corrections["batches"] > 1:
        console.print(f"  to correct     nothing: {corrections['batches']} files of this import complete each other")


def show_counts(console: Console, summary: Mapping[str, Any]) -> None:
    """Print the rows of a file and why rows were rejected."""
    source = plain(summary["csv_source"])
    console.print(f"  file           {source} from {summary['client_code']}, {summary['encoding'] or 'not read'}")
    rows = summary["rows"]
    if rows["total"] is not None:
        accepted = (
            ""
            if rows["accepted"] is None
            else f": {rows['accepted']:,} accepted, {rows['rejected']:,} rejected, {rows['blank']:,} blank"
        )
        accepted += f", {rows['skipped']:,} skipped" if rows["skipped"] else ""
        console.print(f"  rows           {rows['total']:,}{accepted}")
    orders = sum(summary.get("orders", {}).values())
    if orders not in (0, rows["accepted"]):  # several rows are one
        console.print(f"  orders         {orders:,}")
    details = summary.get("details", {})
    rejections = list(summary["rejections"].items())
    for code, count in rejections[:SHOWN_CODES]:
        console.print(f"    {count:>7,} x {describe_code(code, details.get(code, {}))}")
        if code in SETTINGS and 2 * count >= (rows["total"] or 0):  # the file is like that, not a few of its rows
            console.print(f"              in the client's profile, {SETTINGS[code]}", markup=False, highlight=False)
    if others := [count for _, count in rejections[SHOWN_CODES:]]:
        console.print(f"    {sum(others):>7,} x {counted(len(others), 'other code')}: errors.csv has them all")
    for code in summary.get("warnings", ()):
        console.print(f"  warning        {describe_code(code, details.get(code, {}))}")


def _show_settlement(console: Console, summary: Mapping[str, Any]) -> None:
    yen, payments, notified = summary["amount_jpy"], summary["payments"], summary["notifications"]
    if yen["accepted"] is None:
        return
    more = ("declined", "unknown", "refunded", "cancelled")
    rest = "".join(f", {yen[state]:,} {state}" for state in (*more, "open") if yen[state])
    refunded = summary["orders"]["refunded"]
    rest += f"; {counted(refunded, 'order')} refunded" if refunded else ""
    console.print(f"  yen            {yen['accepted']:,} accepted: {yen['paid']:,} paid{rest}")
    rest = "".join(f", {payments[state]:,} {state}" for state in more if payments[state])
    console.print(f"  payments       {payments['planned']:,} planned: {payments['succeeded']:,} succeeded{rest}")
    rest = "".join(f", {notified[state]:,} {state}" for state in ("failed", "cancelled") if notified[state])
    console.print(f"  notifications  {notified['planned']:,} planned: {notified['sent']:,} sent{rest}")
    going_back = summary["open_refunds"]
    paid = summary["orders"]["paid"] - sum(len(each["orders"]) for each in going_back)
    if summary["status"] == "cancelled" and paid:
        stays = f"{counted(paid, 'order')}, {yen['paid'] - sum(each['amount_jpy'] for each in going_back):,} yen"
        console.print(f"  stays paid     {stays}; refund it with: orders-pipeline refund {summary['batch_id']} --why TEXT")


def counted(count: int, noun: str) -> str:
    """Return a number and what it counts: `1 order`, `1,200 orders`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def plain(text: str) -> str:
    """Return text that came from outside as a terminal may show it: no markup in it, and nothing that moves the cursor."""
    return escape("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def describe_code(code: str, detail: Mapping[str, str]) -> str:
    """Return a code with its sentence."""
    sentence = PAUSES.get(code) or message(code, "en", detail)
    return code if sentence == code else f"{code}: {plain(sentence)}"


def show_preview(console: Console, preview: Mapping[str, Any]) -> None:
    """Print what importing a file would do."""
    console.print("[bold]dry run[/bold]  nothing was changed")
    show_counts(console, preview)
    notified = preview["notifications"]
    console.print(f"  yen            {preview['amount_jpy']['accepted']:,}")
    console.print(f"  payments       {preview['payments']['planned']:,}")
    takes = f", at least {notified['seconds']:,.1f} seconds" if notified["planned"] else ""
    console.print(f"  notifications  {notified['planned']:,}{takes}")
    if preview["status"] == "awaiting_approval":
        console.print("  approval       needed: nothing is paid until somebody else approves it")
    errors = preview["errors"]
    for each in errors[:SHOWN_ERRORS]:
        where = [f"{name} {each[name]}" for name in ("row", "line") if each[name] is not None]
        column = plain(each["header"] or each["column"] or "")
        place = ", ".join([*where, column] if column else where) or "the file"
        console.print(f"  {place}: {each['code']}: {each['message']}", markup=False)
    if len(errors) > SHOWN_ERRORS:
        console.print(f"  and {len(errors) - SHOWN_ERRORS:,} more: -o FILE and --json give all")


def show_findings(console: Console, result: Mapping[str, Any]) -> None:
    """Print what the doctor found."""
    for each in result["checks"]:
        well = "[yellow]warn[/yellow]" if each["warning"] else "[green]ok[/green]  "
        mark = {True: well, False: "[red]FAIL[/red]", None: "-   "}[each["ok"]]
        console.print(f"{mark}  {each['name']:<21} {escape(each['says'])}")

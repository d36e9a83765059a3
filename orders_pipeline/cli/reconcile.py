"""The command that compares our ledger of payments with the Payment service's own list."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import click
from rich.console import Console

from orders_pipeline.cli.command import STOPPED, answer, answers, main, opened

DAYS = 2
SHOWN_BATCHES = 3  # by name; --json has all
SHOWN_FINDINGS = 20


@main.command()
@click.argument("batch_id", metavar="[BATCH]", required=False)
@click.option("--days", type=click.IntRange(1, 3660), help=f"Look so many days back; without a batch {DAYS} by default.")
@click.option("--accept", "finding_id", type=int, metavar="FINDING", help="Answer for a finding, so that paying resumes.")
@click.option("--why", help="Why it is accepted; kept with the finding.")
@click.option("--who", default=getpass.getuser, show_default="you", help="Who accepts it.")
@click.option(
    "--by-hand",
    is_flag=True,
    help="Pay again: somebody has compared what no list can, or the other database that had this storage is gone.",
)
@answers
def reconcile(
    batch_id: str | None,
    days: int | None,
    finding_id: int | None,
    why: str | None,
    who: str,
    *,
    by_hand: bool,
) -> None:
    """Compare the payments of a batch, or of the last days, with the Payment service's list.

    A payment that is unknown here and final there is settled; nothing else is changed. Exit status 1: differences are open.
    Charges that are not in our ledger, or twice at the service, hold up payments until they are gone or accepted; what is
    accepted is accepted as it is, and open again when it has become something else. Payments of other callers are counted.
    """
    from orders_pipeline.settlement.reconciliation.reconcile import reconcile as compare

    if finding_id is not None:
        _accept(finding_id, *_answered_for(why, who, "say why the finding is accepted, with --why"))
        return
    if by_hand:
        _resume_by_hand(*_answered_for(why, who, "say how that was found out, with --why"))
        return
    now = datetime.now(UTC)
    days = DAYS if days is None and batch_id is None else days
    created_from = None if days is None else now - timedelta(days=days)
    with opened() as system:
        result = compare(system, batch_id, created_from, None if days is None else now).as_dict()
    _finish(result)


def _answered_for(why: str | None, who: str, lacking: str) -> tuple[str, str]:
    """Return who answers for something, and why; raise UsageError, which says what is lacking, without either."""
    who, why = who.strip(), (why or "").strip()
    if not (why and who):
        raise click.UsageError(lacking)
    return who, why


def _accept(finding_id: int, who: str, why: str) -> None:
    from orders_pipeline.settlement.reconciliation.findings import accept

    with opened() as system:
        accept(system.database, finding_id, accepted_by=who, why=why)
    accepted = {"finding_id": finding_id, "accepted": {"by": who, "why": why}}
    answer(accepted, lambda console, _: console.print(f"finding {finding_id} is accepted"))


def _resume_by_hand(who: str, why: str) -> None:
    """Let paying resume because somebody answers for it; the ledgers are compared where the service has a list."""
    from orders_pipeline.settlement.reconciliation.reconcile import reconcile as compare

    with opened() as system:
        if system.restore_guard.can_compare():
            system.restore_guard.require_in_use()
            compared = compare(system, None, None, None, by_hand=(who, why)).as_dict()
        else:
            compared = None
            system.restore_guard.resume_by_hand(who, why)
    if compared is not None:
        _finish(compared)
    resumed = {"paying_resumed": {"by": who, "why": why}}
    answer(resumed, lambda console, _: console.print("paying resumes"))


def _finish(result: dict[str, Any]) -> NoReturn:
    answer(result, _show)
    sys.exit(STOPPED if result["findings"]["open"] or result["paying_stopped"] else 0)


def _show(console: Console, result: Mapping[str, Any]) -> None:
    from orders_pipeline.cli.console import counted

    payments, findings = result["payments"], result["findings"]
    console.print(
        f"compared  {counted(payments['here'], 'payment')} here with {payments['there']:,} at the service, "
        f"from {result['from']} to {result['to']}"
    )
    if payments["foreign"]:
        unreadable = f", {payments['foreign_unreadable']:,} unreadable" if payments["foreign_unreadable"] else ""
        console.print(f"  of others      {counted(payments['foreign'], 'payment')}{unreadable}")
    if payments["too_young"]:
        console.print(f"  too young      {counted(payments['too_young'], 'difference')} that may still be on the way")
    if findings["healed"]:
        console.print(f"  healed         {counted(findings['healed'], 'payment')} unknown here until now")
    if findings["gone"]:
        console.print(f"  gone           {counted(findings['gone'], 'difference')} of before")
    if result["batches_closed"]:
        closed = result["batches_closed"]
        which = ", ".join(closed) if len(closed) <= SHOWN_BATCHES else f"{len(closed):,} batches"
        console.print(f"  closed         {which}: what they came to in both ledgers is recorded")
    if result["paying_resumed"]:
        console.print("  resumed        paying was stopped and resumes, but for what open findings hold up")
    _show_verdict(console, result)
    _show_list(console, result)


def _show_verdict(console: Console, result: Mapping[str, Any]) -> None:
    from orders_pipeline.cli.console import counted
    from orders_pipeline.settlement.reconciliation.findings import FINDINGS

    findings = result["findings"]
    total = sum(findings["open"].values())
    for code, count in findings["open"].items():
        console.print(f"  {count:>7,} x {code}: {FINDINGS[code]}")
    if total:
        console.print(
            f"[red]the ledgers do not agree[/red]: {total:,} {'finding is' if total == 1 else 'findings are'} open"
        )
    elif result["payments"]["too_young"] or result["paying_stopped"]:
        console.print("nothing is open so far")
    else:
        accepted = f"; {counted(findings['accepted'], 'difference')} accepted" if findings["accepted"] else ""
        console.print(f"the ledgers agree: nothing is open{accepted}")
    if result["paying_stopped"]:
        console.print(
            "[red]paying is stopped[/red]: run `orders-pipeline reconcile` without a batch, in two minutes or later"
        )


def _show_list(console: Console, result: Mapping[str, Any]) -> None:
    """Print the first findings, of which the answer has those first that nobody has answered for."""
    there_are = sum(result["findings"]["open"].values()) + result["findings"]["accepted"]
    shown = result["open_findings"][:SHOWN_FINDINGS]
    for finding in shown:
        _show_finding(console, finding)
    if there_are > len(shown):
        console.print(f"  and {there_are - len(shown):,} more: see --json")


def _show_finding(console: Console, finding: Mapping[str, Any]) -> None:
    from orders_pipeline.cli.console import plain

    which = finding["payment_id"] or "no payment of ours"
    there = plain(finding["service_payment_id"] or "no payment there")
    console.print(
        f"  {finding['finding_id']:>6}  {finding['code']:<16} {which} ({_side(finding['ours'])} here), "
        f"{there} ({_side(finding['theirs'])} there), since {timedelta(seconds=finding['age_s'])}, "
        f"batch {finding['batch_id'] or 'unknown'}{', accepted' if finding['accepted'] else ''}"
    )


def _side(side: Mapping[str, Any] | None) -> str:
    if side is None:
        return "nothing"
    yen = "" if side["amount"] is None else f", {side['amount']:,} yen"
    refunded = f", {side['refunded']:,} of them refunded" if "refunded" in side else ""
    return f"{side['status']}{yen}{refunded}"

"""The command that refunds: it shows its plan, asks, and does exactly that."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from orders_pipeline.cli.command import (
    EXIT_STATUS,
    STOPPED,
    agreed,
    answer,
    answers,
    complaints,
    decline,
    main,
    opened,
    stoppable,
    wants_json,
    words,
)

if TYPE_CHECKING:
    from orders_pipeline.infrastructure.interrupts import Interrupts

MAX_REASON_CHARS = 500  # the Payment service takes no more
LISTED = 20  # refunds that did not go through; --json has all


@main.command()
@click.argument("batch_id", metavar="BATCH")
@click.option("--order", "refs", metavar="REF", multiple=True, help="Only the order with this reference; may be repeated.")
@click.option("--plan", "plan_only", is_flag=True, help="Show what would be refunded, and change nothing.")
@click.option("--why", default="", help="The reason: needed, kept with each refund and sent with it.")
@click.option("--who", default=getpass.getuser, show_default="you", help="Who asks for it.")
@click.option("--yes", is_flag=True, help="Do not ask; needed without a terminal.")
@answers
@stoppable
def refund(
    batch_id: str,
    refs: tuple[str, ...],
    why: str,
    who: str,
    *,
    plan_only: bool,
    yes: bool,
    heard: Interrupts,  # noqa: ARG001 - the drain asks whether somebody interrupts
) -> None:
    """Refund what was paid for a batch, or for some of its orders.

    What is left open resumes by itself, or at once when this is run again. Exit status 1: something is open; 3: a refund was
    declined or a customer could not be notified.
    """
    why, who = why.strip(), who.strip()
    from orders_pipeline.reports import finishing
    from orders_pipeline.settlement.refunds.plan import read_plan
    from orders_pipeline.settlement.refunds.refunding import carry_out

    with opened() as system:
        plan = read_plan(system.database, batch_id, refs)
        shown = {"batch_id": batch_id, "plan": plan.as_dict()}
        if plan_only:
            answer(shown, _show_plan)
            return
        _check(why, who, asks=not yes)
        _show_plan(complaints if wants_json() else words, shown)
        if not (yes or plan.is_empty or agreed("refund this?")):
            decline()
        result = carry_out(system, plan, requested_by=who, reason=why)
        finishing.renew_result(system, batch_id)
    answer(result, _show)
    sys.exit(_exit_status(result, plan.not_final))


def _check(why: str, who: str, *, asks: bool) -> None:
    if not (why and who) or len(why) > MAX_REASON_CHARS:
        raise click.UsageError(f"say --why in 1 to {MAX_REASON_CHARS} characters, or look first with --plan")
    if asks and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at: look with --plan, then say --yes")


def _exit_status(result: Mapping[str, Any], not_final: int) -> int:
    refunds, notified = result["refunds"], result["corrections"]
    if not_final or refunds["planned"] > refunds["succeeded"] + refunds["declined"]:
        return STOPPED
    if notified["planned"] > notified["sent"] + notified["failed"]:
        return STOPPED
    return EXIT_STATUS["completed_with_errors" if refunds["declined"] or notified["failed"] else "completed"]


def _show_plan(console: Console, shown: Mapping[str, Any]) -> None:
    from orders_pipeline.cli.console import counted

    plan = shown["plan"]
    orders, yen = plan["orders"], plan["amount_jpy"]
    those = {name: f"{counted(orders[name], 'order')}, {yen[name]:,} yen" for name in yen}
    console.print(f"[bold]refund of {shown['batch_id']}[/bold]  {counted(orders['chosen'], 'order')} chosen")
    console.print(f"  to refund      {those['refundable']}, in {counted(plan['refunds'], 'refund')}")
    if orders["under_way"]:
        console.print(f"  under way      {those['under_way']}: begun before, resumed")
    if orders["refunded"]:
        console.print(f"  refunded       {those['refunded']}: before")
    if orders["not_paid"]:
        states = ", ".join(f"{count:,} {state}" for state, count in plan["not_paid"].items() if count)
        console.print(f"  not paid       {those['not_paid']}: {states}")
    if orders["notified"]:
        console.print(f"  corrections    for {counted(orders['notified'], 'order')} whose customers were notified")


def _show(console: Console, result: Mapping[str, Any]) -> None:
    from orders_pipeline.cli.console import counted, refund_words

    refunds, yen, notified = result["refunds"], result["amount_jpy"], result["corrections"]
    rest = "".join(f", {refunds[state]:,} {state}" for state in ("declined", "unknown") if refunds[state])
    console.print(
        f"  refunds        {refunds['planned']:,} planned: {refunds['succeeded']:,} succeeded{rest}; "
        f"{yen['succeeded']:,} yen refunded in all"
    )
    failed = f", {notified['failed']:,} failed" if notified["failed"] else ""
    console.print(f"  corrections    {notified['planned']:,} planned: {notified['sent']:,} sent{failed}")
    for each in result["not_refunded"][:LISTED]:
        which = counted(len(each["orders"]), "order") if len(each["orders"]) > 3 else ", ".join(each["orders"])
        decision = f"orders-pipeline resolve {each['refund_id']} (--refunded ID | --not-refunded) --why TEXT"
        how = f"; decide with: {decision}" if each["needs_a_person"] else ""
        console.print(
            f"  {each['status']:<14} {each['amount_jpy']:,} yen of {which} ({refund_words(each)}){how}",
        )

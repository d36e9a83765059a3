"""The command with which a person decides about a payment or refund that nobody else can find out about."""

from __future__ import annotations

import getpass

import click

from orders_pipeline.cli.command import answer, answers, main, opened


@main.command()
@click.argument("resolved_id", metavar="PAYMENT|REFUND")
@click.option("--paid", metavar="ID", help="The payment was charged: its id at the Payment service.")
@click.option("--not-paid", is_flag=True, help="It is certain that nothing was charged: it is sent again.")
@click.option("--refunded", metavar="ID", help="The refund was made: its id at the Payment service.")
@click.option("--not-refunded", is_flag=True, help="It is certain that nothing was refunded: it is sent again.")
@click.option("--why", required=True, help="How that was found out; kept with the decision.")
@click.option("--who", default=getpass.getuser, show_default="you", help="Who decides.")
@answers
def resolve(
    resolved_id: str,
    paid: str | None,
    refunded: str | None,
    why: str,
    who: str,
    *,
    not_paid: bool,
    not_refunded: bool,
) -> None:
    """Decide about a payment or refund whose result nobody else can find out; `status` of its batch lists those."""
    from orders_pipeline.batches import batches
    from orders_pipeline.reports import finishing
    from orders_pipeline.settlement.resolve import Decision, resolve_payment, resolve_refund

    said = {"paid": paid is not None, "not_paid": not_paid, "refunded": refunded is not None, "not_refunded": not_refunded}
    words = [word for word, is_said in said.items() if is_said]
    if len(words) != 1 or "" in (paid, refunded) or not (why.strip() and who.strip()):
        raise click.UsageError("say one of --paid ID, --not-paid, --refunded ID and --not-refunded, and why")
    decision = Decision(paid or refunded, who.strip(), why.strip())
    with opened() as system:
        if words[0] in ("paid", "not_paid"):
            kind, batch_id = "payment_id", resolve_payment(system.database, resolved_id, decision)
        else:
            kind, batch_id = "refund_id", resolve_refund(system.database, resolved_id, decision)
        with system.database.begin() as transaction:
            status = batches.get(transaction, batch_id).status
        finishing.renew_result(system, batch_id)
    # a batch that is being cancelled is never resumed; refunds are resumed of a cancelled one as well
    command = "cancel" if status == "cancelling" else "resume"
    result = {kind: resolved_id, "batch_id": batch_id, "decision": words[0]}
    answer(result, lambda console, _: console.print(f"written down; resume with: orders-pipeline {command} {batch_id}"))

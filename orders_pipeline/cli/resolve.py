"""The command with which a person decides about a payment that nobody else can find out about."""

from __future__ import annotations

import getpass

import click

from orders_pipeline.cli.answering import answer, answers, main, opened


@main.command()
@click.argument("payment_id", metavar="PAYMENT")
@click.option("--paid", "service_payment_id", metavar="ID", help="It was charged: its id at the Payment service.")
@click.option("--not-paid", is_flag=True, help="It is certain that nothing was charged: it is sent again.")
@click.option("--why", required=True, help="How that was found out; kept with the decision.")
@click.option("--who", default=getpass.getuser, show_default="you", help="Who decides.")
@answers
def resolve(payment_id: str, service_payment_id: str | None, why: str, who: str, *, not_paid: bool, as_json: bool) -> None:
    """Decide about a payment whose result nobody else can find out; `status` of its batch lists those."""
    from orders_pipeline.resolve import Decision
    from orders_pipeline.resolve import resolve as decide

    if (service_payment_id is None) is not_paid or not (why.strip() and who.strip()):
        raise click.UsageError("say either --paid ID or --not-paid, and why")
    with opened() as system:
        batch_id = decide(system.database, payment_id, Decision(service_payment_id, who.strip(), why.strip()))
    result = {"payment_id": payment_id, "batch_id": batch_id, "decision": "not_paid" if not_paid else "paid"}
    answer(
        result,
        lambda console, _: console.print(f"written down; go on with: orders-pipeline resume {batch_id}"),
        as_json=as_json,
    )

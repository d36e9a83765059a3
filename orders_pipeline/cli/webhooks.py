"""The commands about webhooks: which were sent or wait, and sending again what did not arrive."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console

from orders_pipeline.cli.command import STOPPED, ClientCode, answer, answers, main, opened


@main.group()
def webhooks() -> None:
    """What clients' own servers are told of batches and refunds; `up` and `serve` send it."""


@webhooks.command("list")
@click.option("--client", "client_code", type=ClientCode(), help="Only of this client.")
@click.option("--open", "is_open", is_flag=True, help="Only what was not delivered.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1_000))
@answers
def list_(client_code: str | None, limit: int, *, is_open: bool) -> None:
    """List the newest deliveries of the last 30 days."""
    from orders_pipeline.upkeep.webhooks import overview

    with opened() as system:
        found = overview.listed(system.database, client_code=client_code, is_open=is_open, limit=limit)
        with system.database.begin() as transaction:
            troubles = overview.troubles(transaction)
    answer({"webhooks": found, "troubles": troubles}, _show)


@webhooks.command()
@click.argument("delivery_id", metavar="[ID]", required=False)
@click.option("--client", "client_code", type=ClientCode(), help="All that did not arrive at this client's server.")
@answers
def retry(delivery_id: str | None, client_code: str | None) -> None:
    """Send now what did not arrive, also where the server wanted no more. Exit status 1: something still does not."""
    from orders_pipeline.upkeep.webhooks import overview

    if bool(delivery_id) == bool(client_code):
        raise click.UsageError("name one delivery, or say --client")
    with opened() as system:
        found = overview.retry(system, delivery_id, client_code)
    answer({"webhooks": found, "troubles": []}, _show)
    sys.exit(STOPPED if any(each["status"] != "delivered" for each in found) else 0)


def _show(console: Console, found: Mapping[str, Any]) -> None:
    from orders_pipeline.upkeep.webhooks.overview import in_words

    for each in found["webhooks"]:
        how = each["status"] + (f" ({each['code']})" if each["code"] else "")
        when = f", next try {each['next_attempt_at']}" if each["next_attempt_at"] else ""
        about = f"{each['type']} {each['batch_id']}"
        console.print(
            f"{each['delivery_id']}  {each['client_code']}  {about}  {how}, try {each['attempts']}{when}", markup=False
        )
    for each in found["troubles"]:
        console.print(in_words(each), markup=False)

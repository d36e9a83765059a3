"""The command that shows how batches stand: one in full, or which stand still and the newest ones.

How it looks belongs in `console.py` and `batch_list.py`.
"""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from orders_pipeline.batches.batches import JAPAN
from orders_pipeline.cli.command import ClientCode, answer, answers, main, opened
from orders_pipeline.cli.console import STATUS_WORDS

if TYPE_CHECKING:
    from rich.console import Console

_AGE = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


class Since(click.ParamType[datetime]):
    """A moment: so many minutes, hours or days ago, or the beginning of a day in Japan."""

    name = "age|day"

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the moment; what is none is a usage error."""
        if isinstance(value, datetime):
            return value
        try:
            if ago := _AGE.fullmatch(value):
                return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
            return datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=JAPAN)
        except (ValueError, OverflowError):
            self.fail("say how long ago, as 30m, 2h or 3d, or a day in Japan, as 2026-11-30", param, ctx)


@main.command()
@click.argument("batch_id", metavar="[BATCH]", required=False)
@click.option("--client", "client_code", type=ClientCode(), help="Only batches of this client.")
@click.option("--status", "statuses", multiple=True, type=click.Choice(list(STATUS_WORDS)), help="May be repeated.")
@click.option("--since", type=Since(), help="Only what came since: 30m, 2h, 3d, or a day in Japan as 2026-11-30.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="How many batches to list.")
@answers
def status(
    batch_id: str | None,
    client_code: str | None,
    statuses: tuple[str, ...],
    since: datetime | None,
    limit: int,
) -> None:
    """Show one batch in full, or which stand still and why, and the newest ones.

    \b
    Examples:
      orders-pipeline status
      orders-pipeline status --client shop --status rejected --status completed_with_errors --since 7d
      orders-pipeline status 20261130-5a326236d154
    """  # noqa: D301 - click's mark of lines that stay as they are
    from orders_pipeline.cli import batch_list, console
    from orders_pipeline.infrastructure.storage import StorageError
    from orders_pipeline.intake.landing import left_alone
    from orders_pipeline.reports import summaries
    from orders_pipeline.system import payment_stop
    from orders_pipeline.upkeep.audit_shipping import shipping
    from orders_pipeline.upkeep.webhooks import overview

    is_narrowed = bool(client_code or statuses or since)
    if batch_id is not None and is_narrowed:
        raise click.UsageError("--client, --status and --since are for the list, not for one BATCH")
    with opened() as system:
        with contextlib.suppress(StorageError):  # else said as far as it is known
            system.restore_guard.is_behind()
        if batch_id is not None:
            answer(summaries.summarise(system, batch_id), console.show_summary)
            return
        with system.database.begin() as transaction:
            left, stop = left_alone.recorded(transaction), payment_stop.shown(transaction)
            webhooks = overview.troubles(transaction)
        unshipped = shipping.unshipped(system.database)
        found: dict[str, Any] = {
            "standing_still": [] if statuses or since else summaries.standing_still(system, limit, client_code),
            "open_refunds": [] if statuses or since else summaries.open_refunds(system, limit, client_code),
            "batches": summaries.recent(system, limit, client_code=client_code, statuses=statuses, since=since),
            "landing": {name: some.as_dict() for name, some in left.items()},
            "paying_rests": stop,
            "webhooks": webhooks,
            "audit_shipping": None if unshipped is None else unshipped.as_dict(),
        }
        try_demo = not (system.settings.is_production or is_narrowed)

    def show(console_: Console, shown: dict[str, Any]) -> None:
        console.show_stop(console_, shown["paying_rests"])
        batch_list.show_standing_still(console_, shown["standing_still"])
        batch_list.show_open_refunds(console_, shown["open_refunds"])
        batch_list.show_batches(console_, shown["batches"], try_demo=try_demo)
        if not is_narrowed:
            for line in left_alone.in_words(left):
                console_.print(f"in the landing: {line}", markup=False)
            for each in shown["webhooks"]:
                console_.print(overview.in_words(each), markup=False)
            if unshipped is not None and unshipped.is_late:
                console_.print(f"{unshipped}; `audit ship` says why", markup=False)

    answer(found, show)

"""The commands of the audit: whether it is intact, its records for other systems, how long they stay, and legal holds."""

from __future__ import annotations

import contextlib
import getpass
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from orders_pipeline.cli.command import (
    STOPPED,
    answer,
    answer_in_pieces,
    answering_to,
    answers,
    complaints,
    main,
    opened,
    wants_json,
)
from orders_pipeline.cli.output_files import FOR_OWNER, output, written
from orders_pipeline.infrastructure.scratch import Packed

CATEGORIES = ("authentication", "phi_access", "phi_modification", "administrative", "security")
DAYS = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@main.group()
def audit() -> None:
    """The audit: who changed or read what, and when."""


@audit.command()
@answers
def verify() -> None:
    """Verify that records are as they were sealed, and rows as they were recorded; exit status 1 otherwise."""
    from orders_pipeline.audit.recording import record
    from orders_pipeline.audit.verifying import verify as look

    with opened() as system:
        found = look(system.database, system.storage)
        with system.database.begin() as transaction:
            if found.broken:
                record(transaction, "security", "failure", "audit", detail=found.as_dict())
            else:
                record(transaction, "administrative", "verify", "audit", detail=found.as_dict())
    answer(found.as_dict(), _show)
    sys.exit(STOPPED if found.broken else 0)


def _show(console: Console, result: Mapping[str, Any]) -> None:
    console.print(
        f"looked at  {result['records']:,} records in {result['blocks']:,} blocks, with {result['heads']:,} heads kept in "
        f"the storage, and at {result['rows']:,} rows; {result['unsealed']:,} records wait to be sealed"
        + (f", since {result['unsealed_since']}" if result["unsealed_since"] else "")
    )
    broken = result["broken"]
    if broken is None:
        console.print("the audit is intact")
        return
    where = [f"{name} {broken[key]}" for name, key in (("record", "event_id"), ("block", "block_no")) if broken[key]]
    console.print(f"[red]{broken['what']}[/red]: {', '.join([*where, broken['row'] or '']).removesuffix(', ')}")
    for table, rows in result["altered"].items():
        console.print(f"[red]{table}[/red]: {rows:,} rows are not as they were written last")


@audit.command()
@answers
def seal() -> None:
    """Seal the records there are and keep the newest head in the storage; the daemon does so by itself."""
    from orders_pipeline.audit import sealing

    with opened() as system:
        result = {"blocks": sealing.seal(system.database), "anchored": sealing.anchor(system.database, system.storage)}
    answer(result, lambda console, sealed: console.print(f"{sealed['blocks']:,} blocks made"))


@audit.command()
@click.option("--again", is_flag=True, help="Send all that is in the database once more, as to a new place.")
@answers
def ship(*, again: bool) -> None:
    """Send sealed records to ORDERS_AUDIT_SHIP_URL, where they were not sent yet; the daemon does so by itself."""
    from orders_pipeline.upkeep.audit_shipping import shipping

    with opened() as system:
        sink = shipping.wanted_sink(system.settings)
        result = {"documents": 0, "records": 0, "waiting": 0}
        while True:
            shipped = shipping.ship(system.database, sink, again=again)
            again = False
            result["documents"] += shipped.documents
            result["records"] += shipped.records
            if shipped.is_all or shipped.is_busy:
                break
        waiting = shipping.unshipped(system.database)
    result["waiting"] = 0 if waiting is None else waiting.records
    sent = f"{result['documents']:,} documents of {result['records']:,} records sent"
    answer(result, lambda console, _: console.print(f"{sent}; {result['waiting']:,} sealed records wait"))


@audit.command()
@click.option("--from", "since", type=DAYS, help="Only records from then on (UTC).")
@click.option("--to", "until", type=DAYS, help="Only records before then (UTC).")
@click.option("--category", "categories", multiple=True, type=click.Choice(CATEGORIES), help="May be repeated; else all.")
@output("Write to this file instead of the terminal.")
@answers
def export(
    since: datetime | None,
    until: datetime | None,
    categories: tuple[str, ...],
    output: Path | None,
    *,
    force: bool,
) -> None:
    """Export records as lines of JSON (Elastic Common Schema), one event for each row that was changed.

    With --json and without -o they are the list `records` of one object.
    """
    from orders_pipeline.audit.exporting import export as lines
    from orders_pipeline.audit.recording import record
    from orders_pipeline.audit.records import CATEGORIES as ALL

    wanted = [each for each in ALL if each in categories or not categories]
    begin, end = (each and each.replace(tzinfo=UTC) for each in (since, until))
    with contextlib.ExitStack() as stack:
        path = None if output is None else stack.enter_context(written(output, force=force, mode=FOR_OWNER))
        system = stack.enter_context(opened())
        with system.database.begin() as transaction:
            detail = {"categories": wanted, "from": begin and begin.isoformat(), "to": end and end.isoformat()}
            record(transaction, "administrative", "export", "audit", detail=detail)
        events = lines(system.database, system.storage, begin, end, wanted)
        count = 0
        if path is None and wants_json():
            packed = Packed()
            for count, line in enumerate(events, 1):
                packed.write(f"{', ' if count > 1 else ''}{line}".encode())
            answer_in_pieces(chain([b'{"records": ['], packed.read(), [f'], "events": {count}}}\n'.encode()]))
            return
        with answering_to() if path is None else path.open("wb") as target:
            for count, line in enumerate(events, 1):  # noqa: B007 - counted
                target.write(f"{line}\n".encode())
    if output is not None:
        result = {"events": count, "output": str(output)}
        answer(result, lambda _, said: complaints.print(f"{said['events']:,} events written", markup=False))


@audit.command()
@answers
def retention() -> None:
    """Show how long records stay where, how many are where, and what is held."""
    from orders_pipeline.upkeep.retention import state

    with opened() as system:
        answer(state(system.database), _show_retention)


def _show_retention(console: Console, result: Mapping[str, Any]) -> None:
    for each in result["limits"]:
        console.print(
            f"{each['category']:<17} in the database {each['hot_until']}, warm until {each['warm_until']}, "
            f"cold until {each['gone_after']}"
        )
    for each in result["places"]:
        console.print(f"{each['category']:<17} {each['place']:<5} {each['records']:,} records in {each['blocks']:,} blocks")
    for each in result["holds"]:
        about = {name: each[name] for name in ("batch_id", "category", "from_day", "to_day") if each[name] is not None}
        what = ", ".join(f"{name} {value}" for name, value in about.items()) or "everything"
        console.print(f"hold {each['hold_id']}  {what}, by {each['placed_by']}: {each['reason']}", markup=False)


@audit.command()
@click.option("--batch", "batch_id", metavar="BATCH", help="Only what has records of this batch.")
@click.option("--category", type=click.Choice(CATEGORIES), help="Only this category.")
@click.option("--from", "from_day", type=click.DateTime(["%Y-%m-%d"]), help="Only days from this one on (UTC).")
@click.option("--to", "to_day", type=click.DateTime(["%Y-%m-%d"]), help="Only days up to this one (UTC).")
@click.option("--why", required=True, help="The reason; kept with the hold.")
@click.option("--who", default=getpass.getuser, show_default="you", help="Who asks for it.")
@answers
def hold(
    batch_id: str | None,
    category: str | None,
    from_day: datetime | None,
    to_day: datetime | None,
    why: str,
    who: str,
) -> None:
    """Keep audit records from moving or going, whatever their age, until the hold is released."""
    from orders_pipeline.batches import batches
    from orders_pipeline.upkeep.retention import Hold, covered, place_hold

    _check(why, who)
    if from_day and to_day and to_day < from_day:
        raise click.UsageError("--to is before --from")
    about = Hold(batch_id, category, from_day and from_day.date(), to_day and to_day.date())
    with opened() as system:
        if batch_id is not None:
            with system.database.begin() as transaction:
                batches.get(transaction, batch_id)  # a hold on nothing would seem to protect something
        hold_id = place_hold(system.database, about, who.strip(), why.strip())
        covers = covered(system.database, hold_id)
    answer({"hold_id": hold_id, "covers": covers}, _show_hold)


def _show_hold(console: Console, placed: Mapping[str, Any]) -> None:
    covers = placed["covers"]
    console.print(
        f"hold {placed['hold_id']} is placed: it covers {covers['records']:,} records in {covers['blocks']:,} blocks, "
        f"{covers['unsealed']:,} records that wait to be sealed, and what is recorded later"
    )


@audit.command()
@click.argument("hold_id", metavar="HOLD", type=int)
@click.option("--why", required=True, help="The reason; kept with the hold.")
@click.option("--who", default=getpass.getuser, show_default="you", help="Who releases it.")
@answers
def release(hold_id: int, why: str, who: str) -> None:
    """Release a hold: what is past its time moves or goes with the next retention run."""
    from orders_pipeline.upkeep.retention import release_hold

    _check(why, who)
    with opened() as system:
        release_hold(system.database, hold_id, who.strip(), why.strip())
    answer({"hold_id": hold_id}, lambda console, _: console.print(f"hold {hold_id} is released"))


def _check(why: str, who: str) -> None:
    if not (why.strip() and who.strip()):
        raise click.UsageError("say --why")

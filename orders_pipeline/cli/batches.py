"""The commands about batches: import one, resume it, look at it, and read what was rejected.

What a command does belongs in the use cases; how it looks belongs in `console.py`.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from orders_pipeline.cli.batch_run import finish, import_and_run, run
from orders_pipeline.cli.command import (
    EXIT_STATUS,
    STOPPED,
    ClientCode,
    agreed,
    answer,
    answer_in_pieces,
    answering_to,
    answers,
    complaints,
    decline,
    main,
    opened,
    stoppable,
    wants_json,
    words,
)
from orders_pipeline.cli.output_files import FOR_OWNER, output, written
from orders_pipeline.infrastructure.scratch import Packed

if TYPE_CHECKING:
    from sqlalchemy import Row

    from orders_pipeline.infrastructure.interrupts import Interrupts
    from orders_pipeline.system.composition import System

MAX_REASON_CHARS = 500


@main.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--client", "client_code", required=True, type=ClientCode(), help="The client whose file it is.")
@click.option("--dry-run", is_flag=True, help="Say what would happen and change nothing; the exit status is the same.")
@click.option("--again", is_flag=True, help="Take the same bytes once more, as another batch.")
@output("With --dry-run: write the errors.csv that importing would give, readable by you only.")
@answers
@stoppable
def import_(
    file: Path,
    client_code: str,
    output: Path | None,
    *,
    dry_run: bool,
    again: bool,
    force: bool,
    heard: Interrupts,
) -> None:
    """Import one file now: stage, validate, load, pay, notify, report.

    Ctrl-C stops the batch where it is until you resume or cancel it; a second one ends at once.

    \b
    Examples:
      orders-pipeline import orders.csv --client shop --dry-run -o errors.csv
      orders-pipeline import orders.csv --client shop
    """  # noqa: D301 - click's mark of lines that stay as they are
    if output is not None and not dry_run:
        raise click.UsageError("-o is for --dry-run; of a batch, `errors BATCH -o FILE` gives it")
    made: list[str] = []
    try:
        if dry_run:
            _dry_run(file, client_code, output, again=again, force=force)
        with opened() as system:
            summary = import_and_run(system, file, client_code, heard, made, again=again)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"see orders-pipeline status {made[0]}" if made else "nothing was made") from None
    finish(summary)


def _dry_run(file: Path, client_code: str, output: Path | None, *, again: bool, force: bool) -> NoReturn:
    from orders_pipeline.cli import console
    from orders_pipeline.reports import preview

    with contextlib.ExitStack() as stack:
        errors = None if output is None else stack.enter_context(written(output, force=force, mode=FOR_OWNER))
        system = stack.enter_context(opened())
        found = preview.preview(system, file, client_code, again=again, errors=errors)
    answer(found, console.show_preview)
    if "error" in found and not wants_json():
        complaints.print(f"[red]{found['error']['code']}[/red]: {found['error']['message']}")
    sys.exit(EXIT_STATUS.get(found["status"], STOPPED))


@main.command()
@click.argument("batch_id", metavar="BATCH")
@answers
@stoppable
def resume(batch_id: str, *, heard: Interrupts) -> None:
    """Resume a batch where it stopped; nothing is sent twice. Of one that was cancelled only refunds resume."""
    with opened() as system:
        summary, refunds_only = _resumed(system, batch_id, heard)
    finish(summary, was_cancelled=refunds_only)


def _resumed(system: System, batch_id: str, heard: Interrupts) -> tuple[dict[str, Any], bool]:
    """Resume a batch; return its summary, and whether only its refunds could resume; raise BatchEnded."""
    from orders_pipeline.batches import batches
    from orders_pipeline.reports import summaries
    from orders_pipeline.settlement import batch_settlement

    summary = summaries.summarise(system, batch_id)
    refunds_only = summary["status"] == "cancelled" and summaries.is_refunding(summary)
    if not refunds_only:
        with system.database.begin() as transaction:
            batches.require_not_cancelled(batches.get(transaction, batch_id))
    if summary["status"] not in EXIT_STATUS or summaries.is_refunding(summary):
        batch_settlement.probe_now(system)
        summary = run(system, batch_id, heard, restart=True)
    return summary, refunds_only


WHO = click.option("--who", default="", show_default="you", help="Who says so. Who sent the batch cannot, by any name.")


@main.command()
@click.argument("batch_id", metavar="BATCH")
@WHO
@answers
@stoppable
def approve(batch_id: str, who: str, *, heard: Interrupts) -> None:
    """Approve a batch that waits for it, and resume it. Who has sent it cannot; one from the landing anybody can."""
    from orders_pipeline.upkeep import approval

    with opened() as system:
        with system.database.begin() as transaction:
            approval.approve(transaction, batch_id, *_names(who))
            transaction.execute("count_run_request", batch_id=batch_id)  # as below: no sensor asks for another
        summary, _ = _resumed(system, batch_id, heard)
    finish(summary)


@main.command()
@click.argument("batch_id", metavar="BATCH")
@click.option("--why", required=True, help="The reason: kept with the batch.")
@WHO
@answers
@stoppable
def refuse(batch_id: str, why: str, who: str, *, heard: Interrupts) -> None:
    """Refuse a batch that waits for approval: it is cancelled, nothing is sent, and its references may be used again.

    Exit status 0: it is cancelled, or was before; 1: run it again; 2: it does not wait, or you have sent it.
    """
    from orders_pipeline.upkeep import approval

    why = _reason(why)
    with opened() as system:
        with system.database.begin() as transaction:
            approval.refuse(transaction, batch_id, *_names(who), why=why)
        _end_cancelled(system, batch_id, heard)


def _names(who: str) -> tuple[str, ...]:
    """Return who gives the command, as they say and as the operating system does."""
    from orders_pipeline.audit.recording import os_user

    return (who.strip() or os_user(), os_user())


def _reason(why: str) -> str:
    """Return a reason without what is around it; raise UsageError where there is none, or too much."""
    why = why.strip()
    if not why or len(why) > MAX_REASON_CHARS:
        raise click.UsageError(f"say --why in 1 to {MAX_REASON_CHARS} characters")
    return why


@main.command()
@click.argument("batch_id", metavar="BATCH")
@click.option("--why", default="", help="The reason: kept with the batch. Needed unless it is being cancelled already.")
@click.option("--who", default=getpass.getuser, show_default="you", help="Who cancels it.")
@click.option("--yes", is_flag=True, help="Do not ask; needed without a terminal.")
@answers
@stoppable
def cancel(batch_id: str, why: str, who: str, *, yes: bool, heard: Interrupts) -> None:
    """Cancel a batch that has not ended: nothing more is sent, neither payments nor notifications.

    What is in flight is finished and recorded, and what may have been charged is looked up; that takes minutes after a
    crash. Orders that were not sent are cancelled, and their references may be used again, as may the file (by `import
    --again` where some of it was paid). What is paid stays paid: see `refund`. Exit status 0: it is cancelled, or was
    before; 1: something is not known yet, run it again; 2: it has ended otherwise.
    """
    from orders_pipeline.batches import batches
    from orders_pipeline.settlement import batch_settlement
    from orders_pipeline.upkeep import cancelling

    why, who = why.strip(), who.strip()
    with opened() as system:
        with system.database.begin() as transaction:
            batch = batches.progress(transaction, batch_id)
            cancelling.require_unfinished(batch)
        if batch.cancelled_at is None and not _agreed(batch, why, who, yes=yes):
            decline()
        batch_settlement.probe_now(system)
        with system.database.begin() as transaction:
            cancelling.begin(transaction, batch_id, cancelled_by=who, why=why)
        _end_cancelled(system, batch_id, heard)


def _end_cancelled(system: System, batch_id: str, heard: Interrupts) -> NoReturn:
    """Bring a batch that is being cancelled to its end, show it, and exit as that went."""
    from orders_pipeline.cli import console
    from orders_pipeline.reports import summaries
    from orders_pipeline.upkeep import cancelling

    heard.then(lambda: complaints.print(f"\nnothing more is sent; to end it: orders-pipeline cancel {batch_id}"))
    cancelling.finish(system, batch_id, lambda: complaints.print("waiting for what is in flight"))
    summary = summaries.summarise(system, batch_id)
    answer(summary, console.show_summary)
    sys.exit(0 if summary["status"] == "cancelled" else STOPPED)


def _agreed(batch: Row[Any], why: str, who: str, *, yes: bool) -> bool:
    """Ask whether a batch is to be cancelled, unless that was said; raise UsageError without a reason or a terminal."""
    from orders_pipeline.batches import batches

    _reason(why if who else "")
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at: say --yes")
    words.print(f"{batch.batch_id}: {batch.orders_paid:,} orders are paid so far and stay paid; the others are never sent")
    if unsent := batches.open_notifications(batch):
        words.print(f"at most {unsent:,} notifications are never sent, also of orders that are paid")
    return agreed("cancel it?")


def _give_report(batch_id: str, name: str, target: Path | None, *, force: bool) -> None:
    from orders_pipeline.audit import recording
    from orders_pipeline.reports import report_files

    with opened() as system, report_files.report(system.storage, system.database, batch_id, name) as path:
        if path is None:
            raise report_files.NoReport(
                f"{report_files.NoReport.code}: batch {batch_id} has no such report: nothing was rejected"
            )
        recording.read_report(system.database, batch_id, report_files.REPORTS[name], "command")
        if target is not None:
            with written(target, force=force, mode=FOR_OWNER) as copy:
                shutil.copyfile(path, copy)
            said = {"batch_id": batch_id, "output": str(target)}
            answer(said, lambda *_: complaints.print(f"written to {target}", markup=False))
        elif wants_json():
            content = base64.b64encode(path.read_bytes()).decode()  # the client's own bytes, which need not be text
            answer({"batch_id": batch_id, "content_base64": content}, lambda *_: None)
        else:
            with path.open("rb") as source, answering_to() as terminal:
                shutil.copyfileobj(source, terminal)
        left = report_files.rows_open(system.database, batch_id) if name == "rejected" and not wants_json() else None
    if left is not None and left[0] < left[1]:
        complaints.print(
            f"{left[0]:,} of these {left[1]:,} rows still wait for a correction; the others need none or were sent again "
            "since: if they come once more, nothing is paid twice"
        )


report_output = output("Write to this file instead of the terminal, readable by you only.")


@main.command("errors")
@click.argument("batch_id", metavar="BATCH")
@report_output
@answers
def errors_(batch_id: str, output: Path | None, *, force: bool) -> None:
    """Print what is wrong with a batch's rows, for people: CSV, or with --json and without -o one object."""
    if not wants_json() or output is not None:
        _give_report(batch_id, "errors", output, force=force)
        return
    from orders_pipeline.reports import errors_csv

    packed = Packed()  # there may be several of each row
    packed.write(f'{{"batch_id": {json.dumps(batch_id)}, "errors": ['.encode())
    with opened() as system:
        for number, each in enumerate(errors_csv.errors_of(system.database, batch_id)):
            packed.write(f"{', ' if number else ''}{json.dumps(each, ensure_ascii=False)}".encode())
    packed.write(b"]}\n")
    answer_in_pieces(packed.read())


@main.command()
@click.argument("batch_id", metavar="BATCH")
@report_output
@answers
def rejected(batch_id: str, output: Path | None, *, force: bool) -> None:
    """Print the rejected rows as they were sent, ready to be corrected and imported again."""
    _give_report(batch_id, "rejected", output, force=force)

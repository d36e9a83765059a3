"""The commands about batches: import one, resume it, look at it, and get back what was rejected.

What a command does belongs in the use cases; how it looks belongs in `console.py`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orders_pipeline.cli.answering import EXIT_STATUS, STOPPED, answer, answers, complaints, main, opened, words

if TYPE_CHECKING:
    from orders_pipeline.system import System


def run(system: System, batch_id: str, *, as_json: bool) -> dict[str, Any]:
    """Run a batch's job in this process, with progress, and return the batch's summary."""
    from orders_pipeline import console, reports, runs
    from orders_pipeline.orphaned_runs import end_runs, orphaned_runs
    from orders_pipeline.partitions import PARTITION_TAG

    runs.prepare_dagster_home(system)
    with runs.dagster_instance(system.settings) as instance:
        end_runs(instance, orphaned_runs(system, instance, {PARTITION_TAG: batch_id}))
        bars = contextlib.nullcontext() if as_json else console.progress(words, lambda: reports.progress(system, batch_id))
        with bars:
            failure = runs.run_batch(system, instance, batch_id)
    summary = reports.summarise(system, batch_id)
    if failure is not None and summary["status"] not in ("paused", *EXIT_STATUS):
        complaints.print(f"[red]stopped[/red]: {failure}")
    return summary


def finish(summary: dict[str, Any], *, as_json: bool) -> None:
    """Show what a batch came to, and exit as it went."""
    from orders_pipeline import console, reports

    answer(summary, console.show_summary, as_json=as_json)
    status = STOPPED if reports.is_giving_back(summary) else EXIT_STATUS.get(summary["status"], STOPPED)
    if status == STOPPED and not as_json:
        words.print(f"go on with: orders-pipeline resume {summary['batch_id']}")
    sys.exit(status)


@main.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--client", "client_code", required=True, help="The client whose file it is.")
@click.option("--dry-run", is_flag=True, help="Say what would happen and change nothing.")
@click.option("--again", is_flag=True, help="Take the same bytes once more, as another batch.")
@answers
def import_(file: Path, client_code: str, *, dry_run: bool, again: bool, as_json: bool) -> None:
    """Import one file now: stage, validate, load, pay, notify, report."""
    from orders_pipeline import console, intake, preview

    with opened() as system:
        if dry_run:
            answer(preview.preview(system, file, client_code, again=again), console.show_preview, as_json=as_json)
            return
        batch_id = intake.import_file(system, file, client_code, again=again)
        summary = run(system, batch_id, as_json=as_json)
    finish(summary, as_json=as_json)


@main.command()
@click.argument("batch_id", metavar="BATCH")
@answers
def resume(batch_id: str, *, as_json: bool) -> None:
    """Go on with a batch where it stopped; nothing is sent twice."""
    from orders_pipeline import reports, settlement

    with opened() as system:
        summary = reports.summarise(system, batch_id)
        if summary["status"] not in EXIT_STATUS or reports.is_giving_back(summary):
            settlement.hurry(system)
            summary = run(system, batch_id, as_json=as_json)
    finish(summary, as_json=as_json)


@main.command()
@click.argument("batch_id", metavar="[BATCH]", required=False)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="How many batches to list.")
@answers
def status(batch_id: str | None, limit: int, *, as_json: bool) -> None:
    """Show one batch, or the newest ones."""
    from orders_pipeline import console, landing, reports

    with opened() as system:
        if batch_id is not None:
            answer(reports.summarise(system, batch_id), console.show_summary, as_json=as_json)
            return
        with system.database.begin() as transaction:
            left = landing.left_alone(transaction)
        recent = {"batches": reports.recent(system, limit), "landing": {name: some.as_dict() for name, some in left.items()}}
    answer(recent, lambda console_, found: console.show_batches(console_, found["batches"]), as_json=as_json)
    if not as_json:
        for line in landing.in_words(left):
            words.print(f"in the landing: {line}", markup=False)


def _copy_report(batch_id: str, name: str, target: Path | None) -> None:
    from orders_pipeline import reports
    from orders_pipeline.audit import recording

    with opened() as system, reports.report(system, batch_id, name) as path:
        if path is None:
            complaints.print(f"batch {batch_id} has no such report: nothing was given back")
            return
        recording.read_report(system.database, batch_id, reports.REPORTS[name], "command")
        if target is None:
            with path.open("rb") as source:
                shutil.copyfileobj(source, sys.stdout.buffer)
        else:
            shutil.copyfile(path, target)
            complaints.print(f"written to {target}", markup=False)


report_output = click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to this file instead of the terminal.",
)


@main.command("errors")
@click.argument("batch_id", metavar="BATCH")
@report_output
@answers
def errors_(batch_id: str, output: Path | None, *, as_json: bool) -> None:
    """Give the list of what is wrong with a batch's rows, for people (CSV, or JSON with --json)."""
    if not as_json:
        _copy_report(batch_id, "errors", output)
        return
    from orders_pipeline import reports

    with opened() as system:
        click.echo(json.dumps({"batch_id": batch_id, "errors": reports.errors_of(system, batch_id)}, ensure_ascii=False))


@main.command()
@click.argument("batch_id", metavar="BATCH")
@report_output
@answers
def rejected(batch_id: str, output: Path | None, *, as_json: bool) -> None:  # noqa: ARG001
    """Give the rejected rows as they were sent, ready to be corrected and imported again."""
    _copy_report(batch_id, "rejected", output)

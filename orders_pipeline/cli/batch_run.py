"""A batch that is run in the process of a command, with progress on the terminal; Ctrl-C stops it."""

from __future__ import annotations

import contextlib
import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orders_pipeline.cli.command import EXIT_STATUS, STOPPED, answer, complaints, wants_json, words
from orders_pipeline.infrastructure import interrupts
from orders_pipeline.infrastructure.database import Database

if TYPE_CHECKING:
    from orders_pipeline.infrastructure.interrupts import Interrupts
    from orders_pipeline.system.composition import System


def run(system: System, batch_id: str, heard: Interrupts, *, restart: bool = False) -> dict[str, Any]:
    """Run a batch's job in this process, with progress, and return the batch's summary; Ctrl-C stops the batch.

    With `restart` it resumes if a person has stopped it.
    """
    failure = None
    try:
        _import_undisturbed()
        failure = _run(system, batch_id, heard, restart=restart)
    except KeyboardInterrupt:  # maybe before it was heard
        return _stopped(system, batch_id)
    return _stopped(system, batch_id) if interrupts.requested.is_set() else _summarised(system, batch_id, failure)


def import_and_run(
    system: System, file: Path, client_code: str, heard: Interrupts, batch_ids: list[str], *, again: bool
) -> dict[str, Any]:
    """Make a batch of a file, append its id to `batch_ids`, and run it; from then on Ctrl-C stops it, whenever it comes."""
    try:
        _import_undisturbed()
        from orders_pipeline.intake import file_import

        heard.check()
        file_import.import_file(system, file, client_code, again=again, note=batch_ids.append)
        return run(system, batch_ids[0], heard)
    except KeyboardInterrupt:
        if not batch_ids:
            raise
        return _stopped(system, batch_ids[0])


def _import_undisturbed() -> None:
    """Import what a run and its end need: a library that was broken off half imported may never be imported again."""
    with interrupts.deferred():
        for name in (
            "audit.recording",
            "batches.run_tags",
            "batches.batches",
            "cli.console",
            "cli.progress_bars",
            "intake.file_import",
            "orchestration.orphaned_runs",
            "orchestration.runs",
            "reports.summaries",
            "system.whereabouts",
        ):
            importlib.import_module(f"orders_pipeline.{name}")


def _stop(database: Database, batch_id: str) -> None:
    """Stop the batch, whichever process is processing it."""
    from orders_pipeline.audit.recording import os_user
    from orders_pipeline.batches import batches
    from orders_pipeline.infrastructure.database_errors import DatabaseError

    with contextlib.suppress(DatabaseError), database.begin() as transaction:
        batches.stop(transaction, batch_id, os_user())


def _stopped(system: System, batch_id: str) -> dict[str, Any]:
    _stop(system.database, batch_id)
    return _summarised(system, batch_id, None)


def _summarised(system: System, batch_id: str, failure: str | None) -> dict[str, Any]:
    from orders_pipeline.batches import batches
    from orders_pipeline.reports import summaries

    summary = summaries.summarise(system, batch_id)
    if failure is not None and summary["status"] not in ("paused", *batches.HALTED, *EXIT_STATUS):
        complaints.print(f"[red]stopped[/red]: {failure}")
    return summary


def _run(system: System, batch_id: str, heard: Interrupts, *, restart: bool) -> str | None:
    from orders_pipeline.batches import batches
    from orders_pipeline.batches.run_tags import PARTITION_TAG
    from orders_pipeline.cli import progress_bars
    from orders_pipeline.orchestration import dagster_home, dagster_records, runs
    from orders_pipeline.orchestration.orphaned_runs import end_runs, orphaned_runs
    from orders_pipeline.reports import summaries
    from orders_pipeline.system import whereabouts

    def stop_aloud() -> None:
        _stop(system.database, batch_id)
        complaints.print("\nstopping, once what is in flight is recorded; Ctrl-C again ends at once")

    heard.then(stop_aloud)
    heard.check()
    if restart:
        with system.database.begin() as transaction:
            batches.restart(transaction, batch_id)
            transaction.execute("count_run_request", batch_id=batch_id)  # it is this one: no sensor asks for another
    dagster_home.prepare_dagster_home(system)
    with dagster_records.dagster_instance(system.settings) as instance:
        end_runs(instance, orphaned_runs(system.database, instance, {PARTITION_TAG: batch_id}))
        bars = (
            contextlib.nullcontext()
            if wants_json()
            else progress_bars.progress(words, lambda: summaries.progress(system.database, batch_id))
        )
        with bars:
            heard.check()
            from orders_pipeline.definitions import defs  # takes seconds

            settings = system.settings.model_copy(update={"reports_url": whereabouts.reports(system.settings)})
            return runs.run_batch(replace(system, settings=settings), instance, defs, batch_id)


def finish(summary: dict[str, Any], *, was_cancelled: bool = False) -> None:
    """Show what a batch came to, and exit as it went; of one that was cancelled before, only refunds could be open."""
    from orders_pipeline.batches.batches import AWAITING_APPROVAL, HALTED
    from orders_pipeline.cli import console
    from orders_pipeline.reports import summaries

    answer(summary, console.show_summary)
    status = EXIT_STATUS["completed"] if was_cancelled else EXIT_STATUS.get(summary["status"], STOPPED)
    status = STOPPED if summaries.is_refunding(summary) else status
    if status == STOPPED and summary["status"] not in HALTED | {AWAITING_APPROVAL} and not wants_json():
        words.print(f"resume with: orders-pipeline resume {summary['batch_id']}")
    sys.exit(status)

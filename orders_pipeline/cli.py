"""The command line: parse, call a use case, answer in words or JSON, and say by the exit status how it went.

Exit status: 0 completed, 1 stopped (can be resumed) or not possible now, 2 usage or settings, 3 completed with errors,
4 file given back. What a command does belongs in the use cases; how it looks belongs in `console.py`. Use cases are
imported where they are called, so that `--help` does not wait for pandas and Dagster.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click
from rich.console import Console

from orders_pipeline import errors
from orders_pipeline.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from orders_pipeline.system import System

EXIT_STATUS = {"completed": 0, "completed_with_errors": 3, "rejected": 4}
STOPPED, USAGE, GIVEN_BACK = 1, 2, 4
PIPED_WIDTH = 160

P = ParamSpec("P")
words = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPED_WIDTH)
complaints = Console(stderr=True, highlight=False, soft_wrap=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="orders-pipeline")
def main() -> None:
    """Takes clients' order files to a platform that knows one order at a time."""
    logging.basicConfig(level=logging.ERROR)


def answers(command: Callable[P, None]) -> Callable[P, None]:
    """Add `--json` to a command, and turn what goes wrong in it into a code, a sentence and an exit status."""

    @click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object.")
    @functools.wraps(command)
    def answering(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except KeyboardInterrupt:
            complaints.print("\nstopped; `orders-pipeline status` shows what can be resumed")
            sys.exit(STOPPED)
        except Exception as error:  # noqa: BLE001 - the boundary
            _complain(error, as_json=bool(kwargs.get("as_json")))

    return answering


def _complain(error: Exception, *, as_json: bool) -> None:
    from orders_pipeline.clients import ClientsError
    from orders_pipeline.encryption import EncryptionKeysError
    from orders_pipeline.rejections import FileRejected

    home = Path(".orders-pipeline")
    with contextlib.suppress(SettingsError):
        home = load_settings().home
    text = errors.describe(error, home)
    code, _, sentence = text.partition(": ")
    if as_json:
        detail = error.detail if isinstance(error, FileRejected) else {}
        click.echo(json.dumps({"error": {"code": code, "message": sentence, "detail": detail}}, ensure_ascii=False))
    else:
        complaints.print(f"[red]{code}[/red]: {sentence}")
    is_usage = isinstance(error, SettingsError | ClientsError | EncryptionKeysError)
    sys.exit(GIVEN_BACK if isinstance(error, FileRejected) else USAGE if is_usage else STOPPED)


@contextlib.contextmanager
def opened(settings: Settings | None = None) -> Iterator[System]:
    """Open the system for one command."""
    from orders_pipeline.system import join_endpoints, open_system

    settings = settings or load_settings()
    with join_endpoints(settings) as endpoints, open_system(settings, endpoints) as system:
        yield system


def _answer(result: dict[str, Any], show: Callable[[Console, dict[str, Any]], None], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False, default=str))
    else:
        show(words, result)


def _run(system: System, batch_id: str, *, as_json: bool) -> dict[str, Any]:
    """Run a batch's job in this process, with progress, and return the batch's summary."""
    from orders_pipeline import console, reports, runs

    runs.prepare_dagster_home(system)
    with runs.dagster_instance(system.settings) as instance:
        runs.end_orphaned_runs(system, instance, batch_id)
        bars = contextlib.nullcontext() if as_json else console.progress(words, lambda: reports.summarise(system, batch_id))
        with bars:
            failure = runs.run_batch(system, instance, batch_id)
    summary = reports.summarise(system, batch_id)
    if failure is not None and summary["status"] not in ("paused", *EXIT_STATUS):
        complaints.print(f"[red]stopped[/red]: {failure}")
    return summary


def _finish(summary: dict[str, Any], *, as_json: bool) -> None:
    from orders_pipeline import console

    _answer(summary, console.show_summary, as_json=as_json)
    status = EXIT_STATUS.get(summary["status"], STOPPED)
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
            _answer(preview.preview(system, file, client_code, again=again), console.show_preview, as_json=as_json)
            return
        batch_id = intake.import_file(system, file, client_code, again=again)
        summary = _run(system, batch_id, as_json=as_json)
    _finish(summary, as_json=as_json)


@main.command()
@click.argument("batch_id", metavar="BATCH")
@answers
def resume(batch_id: str, *, as_json: bool) -> None:
    """Go on with a batch where it stopped; nothing is sent twice."""
    from orders_pipeline import reports

    with opened() as system:
        summary = reports.summarise(system, batch_id)
        if summary["status"] not in EXIT_STATUS:
            summary = _run(system, batch_id, as_json=as_json)
    _finish(summary, as_json=as_json)


@main.command()
@click.argument("batch_id", metavar="[BATCH]", required=False)
@click.option("--limit", default=20, show_default=True, help="How many batches to list.")
@answers
def status(batch_id: str | None, limit: int, *, as_json: bool) -> None:
    """Show one batch, or the newest ones."""
    from orders_pipeline import console, reports

    with opened() as system:
        if batch_id is not None:
            _answer(reports.summarise(system, batch_id), console.show_summary, as_json=as_json)
            return
        recent = {"batches": reports.recent(system, limit)}
    _answer(recent, lambda console_, found: console.show_batches(console_, found["batches"]), as_json=as_json)


def _copy_report(batch_id: str, name: str, target: Path | None) -> None:
    from orders_pipeline import reports

    with opened() as system, reports.report(system, batch_id, name) as path:
        if path is None:
            complaints.print(f"batch {batch_id} has no such report: nothing was given back")
        elif target is None:
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


@main.command()
@click.option("--rows", default=1000, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same file.")
@click.option("--bad", default=0.01, show_default=True, type=click.FloatRange(0, 1), help="Share of bad rows.")
@click.option("--encoding", default="utf-8", show_default=True, type=click.Choice(["utf-8", "utf-8-sig", "cp932", "utf-16"]))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
@answers
def sample(rows: int, seed: int, bad: float, encoding: str, output: Path, *, as_json: bool) -> None:
    """Write a made-up order file to try the system with."""
    from orders_pipeline.synthetic import write_sample

    made = write_sample(output, rows=rows, seed=seed, bad=bad, encoding=encoding)
    result = {"file": str(output), "rows": made.rows, "bad": dict(made.bad), "amount_jpy": made.amount}
    _answer(
        result,
        lambda console, _: console.print(
            f"{output}: {made.rows:,} rows, {made.rows_bad:,} of them bad on purpose, {made.amount:,} yen in the good ones",
            markup=False,
        ),
        as_json=as_json,
    )


@main.command()
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
@answers
def template(output: Path, *, as_json: bool) -> None:
    """Write an empty order file with every column and one example row."""
    from orders_pipeline.synthetic import write_template

    write_template(output)
    _answer({"file": str(output)}, lambda console, _: console.print(f"{output} written", markup=False), as_json=as_json)


@main.group()
def db() -> None:
    """The database: its schema and its URL."""


@db.command()
@answers
def migrate(*, as_json: bool) -> None:
    """Bring the schema up to date; does nothing when it is."""
    from orders_pipeline import migrations
    from orders_pipeline.database import Database
    from orders_pipeline.system import join_endpoints

    with join_endpoints(load_settings()) as endpoints, contextlib.closing(Database(endpoints.database_url)) as database:
        applied = migrations.migrate(database)
    result = {"applied": applied}
    _answer(result, lambda console, _: console.print("\n".join(applied) or "the schema is up to date"), as_json=as_json)


@db.command()
@answers
def url(*, as_json: bool) -> None:
    """Print the database's URL as psql reads it; an embedded one lives while something uses it."""
    from orders_pipeline.database import libpq_url
    from orders_pipeline.system import join_endpoints

    with join_endpoints(load_settings()) as endpoints:
        found = {"url": libpq_url(endpoints.database_url)}
    _answer(found, lambda _, each: click.echo(each["url"]), as_json=as_json)


@main.command()
@answers
def doctor(*, as_json: bool) -> None:
    """Check everything the system needs, and say what to do about what is missing."""
    from orders_pipeline import console
    from orders_pipeline.doctor import examine

    findings = examine()
    result = {"ok": all(each.ok for each in findings), "checks": [each.as_dict() for each in findings]}
    _answer(result, console.show_findings, as_json=as_json)
    sys.exit(0 if result["ok"] else STOPPED)


@main.command()
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535))
@click.option("--ledger", type=click.Path(dir_okay=False, path_type=Path), help="Keep the ledger in this file.")
@click.option("--token", help="Demand this bearer token.")
@click.option("--latency-ms", default=0.0, show_default=True, help="How long each call takes.")
@click.option("--faults", default="", help="What goes wrong, like decline=0.02,reset_after=0.05,seed=7.")
@answers
def sandbox(port: int, ledger: Path | None, token: str | None, latency_ms: float, faults: str, *, as_json: bool) -> None:
    """Run the Payment and Notification services to build and test against."""
    from orders_pipeline.sandbox import SandboxServer

    server = SandboxServer(ledger, port=port, token=token, latency_ms=latency_ms, faults=faults)
    server.start()
    _answer({"url": server.url}, lambda console, each: console.print(f"{each['url']}  (Ctrl-C stops)"), as_json=as_json)
    _wait_for_the_end()
    server.stop()


@main.command()
@click.option("--rows", default=1000, show_default=True, type=click.IntRange(1, 10_000))
@answers
def demo(rows: int, *, as_json: bool) -> None:
    """Try everything at once: a sample file is imported, paid, notified and reported, all on this machine."""
    from orders_pipeline import console
    from orders_pipeline.demo import CLIENT, demo_settings, write_demo_file

    settings = demo_settings(load_settings())
    with opened(settings) as system:
        from orders_pipeline import intake

        path = write_demo_file(system, rows)
        if not as_json:
            words.print(f"{rows:,} made-up orders in {path.name} (CP932, some rows bad on purpose)")
        batch_id = intake.import_file(system, path, CLIENT, again=False)
        summary = _run(system, batch_id, as_json=as_json)
    _answer(summary, console.show_summary, as_json=as_json)
    if not as_json:
        words.print(f"\nnext: orders-pipeline errors {batch_id}    what is wrong with the rejected rows")
        words.print("      orders-pipeline up                      the same in the browser")
    sys.exit(0 if summary["status"] in EXIT_STATUS else STOPPED)


@main.command()
@click.option(
    "--port",
    default=3000,
    show_default=True,
    type=click.IntRange(1, 65534),
    help="Port of the UI; reports are at the next one.",
)
@answers
def up(port: int, *, as_json: bool) -> None:
    """Run the whole system for the browser; Ctrl-C stops all of it."""
    from orders_pipeline.up import running

    with running(load_settings(), port) as places:
        _answer(
            places.as_dict(),
            lambda console, each: console.print(
                "\n".join(f"{name:<10} {place}" for name, place in each.items()) + "\nCtrl-C stops everything."
            ),
            as_json=as_json,
        )
        places.wait()


def _wait_for_the_end() -> None:
    import signal

    with contextlib.suppress(KeyboardInterrupt):
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.default_int_handler)
        signal.pause()

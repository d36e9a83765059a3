"""The commands around the pipeline: files to try it with, its database, its services, a demonstration, all at once."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orders_pipeline.cli.answering import (
    EXIT_STATUS,
    STOPPED,
    USAGE,
    ClientCode,
    answer,
    answers,
    complaints,
    main,
    opened,
    stoppable,
    words,
)
from orders_pipeline.cli.batches import import_and_run
from orders_pipeline.cli.writing import NewFile, output, written
from orders_pipeline.system.settings import Settings, SettingsError, load_settings, read_settings

if TYPE_CHECKING:
    from rich.console import Console

    from orders_pipeline.infrastructure.interrupts import Interrupts

ENCODINGS = ["utf-8", "utf-8-sig", "cp932", "utf-16", "euc_jp"]


def _rate(written: str) -> tuple[str, float]:
    """Read a code and its share; what is not written like R_EMAIL=0.01 is a ValueError."""
    code, _, rate = written.partition("=")
    return code, float(rate)


@main.command()
@click.option("--rows", default=1000, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same file.")
@click.option(
    "--bad", type=click.FloatRange(0, 1), help="Share of bad rows, of every kind.  [default: 0.01, or 0 with --reject]"
)
@click.option("--reject", multiple=True, type=_rate, metavar="CODE=RATE", help="Share of rows that get this code.")
@click.option("--excel", default=0.0, show_default=True, type=click.FloatRange(0, 1), help="Share of rows Excel spoilt.")
@click.option("--encoding", default="utf-8", show_default=True, type=click.Choice(ENCODINGS))
@output("The file to write.", required=True)
@answers
def sample(
    rows: int,
    seed: int,
    bad: float | None,
    reject: tuple[tuple[str, float], ...],
    excel: float,
    encoding: str,
    output: Path,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Write a made-up order file to try the system with."""
    from orders_pipeline.samples.synthetic import RatesError, write_sample

    share = bad if bad is not None else 0.0 if reject else 0.01
    damage: dict[str, Any] = {"bad": share, "reject": dict(reject), "excel": excel}
    try:
        with written(output, force=force) as path:
            made = write_sample(path, rows=rows, seed=seed, encoding=encoding, **damage)
    except RatesError as error:
        raise click.UsageError(str(error)) from None
    result = {"file": str(output), "rows": made.rows, "bad": dict(made.bad), "excel": dict(made.excel)}
    answer(result | {"amount_jpy": made.amount}, _show_sample, as_json=as_json)


def _show_sample(console: Console, made: dict[str, Any]) -> None:
    rows, bad, amount = made["rows"], sum(made["bad"].values()), made["amount_jpy"]
    console.print(
        f"{made['file']}: {rows:,} rows, {bad:,} of them bad on purpose, {amount:,} yen in the good ones",
        markup=False,
    )
    for name, rows in sorted([*made["bad"].items(), *made["excel"].items()]):
        console.print(f"  {rows:>9,} x {name}", markup=False)


@main.command()
@output("The file to write.", required=True)
@answers
def template(output: Path, *, force: bool, as_json: bool) -> None:
    """Write an empty order file with every column and one example row, which is given back if it is sent as it is."""
    from orders_pipeline.samples.synthetic import write_template

    with written(output, force=force) as path:
        write_template(path)
    answer({"file": str(output)}, lambda console, _: console.print(f"{output} written", markup=False), as_json=as_json)


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@output("The file to write.", required=True)
@click.option("--client", "client_code", type=ClientCode(), help="The client whose columns and words the file has.")
@answers
def mask(file: Path, output: Path, client_code: str | None, *, force: bool, as_json: bool) -> None:
    """Turn a real file into one to share: same shape, duplicates and errors, no value kept."""
    from orders_pipeline.clients.profiles import Profile, read_clients
    from orders_pipeline.samples.mask import mask_file

    if output.exists() and output.samefile(file):
        raise click.UsageError("the masked file cannot be the file itself")
    clients = read_clients(load_settings().clients_file)
    with written(output, force=force) as path:
        masked = mask_file(file, path, profile=clients.profile(client_code) if client_code else Profile())
    result = {"file": str(output), "encoding": masked.encoding, "rows": masked.rows, "cells": masked.cells}
    answer(
        result,
        lambda console, _: console.print(f"{output}: {masked.rows:,} rows, {masked.cells:,} cells made up", markup=False),
        as_json=as_json,
    )


@main.group()
def db() -> None:
    """The database: its schema and its URL."""


@db.command()
@answers
def migrate(*, as_json: bool) -> None:
    """Bring the schema up to date; does nothing when it is."""
    from orders_pipeline.audit.recording import os_user, record
    from orders_pipeline.infrastructure import migrations
    from orders_pipeline.infrastructure.database import Database
    from orders_pipeline.system.composition import join_endpoints

    with join_endpoints(load_settings()) as endpoints, contextlib.closing(Database(endpoints.database_url)) as database:
        applied = migrations.migrate(database)
        if applied:
            with database.begin() as transaction:
                record(transaction, "administrative", "migrate", "schema", detail={"applied": applied, "by": os_user()})
    result = {"applied": applied}
    answer(result, lambda console, _: console.print("\n".join(applied) or "the schema is up to date"), as_json=as_json)


@db.command()
@answers
def url(*, as_json: bool) -> None:
    """Print the database's URL as psql reads it; an embedded one lives while something uses it."""
    from orders_pipeline.infrastructure.database_url import libpq_url
    from orders_pipeline.system.composition import join_endpoints

    with join_endpoints(load_settings()) as endpoints:
        found = {"url": libpq_url(endpoints.database_url)}
    answer(found, lambda _, each: click.echo(each["url"]), as_json=as_json)


@db.command()
@answers
def dagster(*, as_json: bool) -> None:
    """Make Dagster's folder and schema ready, and print the variables that its own programs need, for a supervisor."""
    from orders_pipeline.orchestration.runs import prepare_dagster_home

    with opened() as system:
        variables = prepare_dagster_home(system)
    answer(variables, _show_variables, as_json=as_json)


def _show_variables(_: Console, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        click.echo(f"{name}={shlex.quote(value)}")


@main.command()
@answers
def doctor(*, as_json: bool) -> None:
    """Check everything the system needs, and say what to do about what is missing."""
    from orders_pipeline.cli import console
    from orders_pipeline.cli.doctor import examine

    findings = examine()
    result = {"ok": all(each.ok for each in findings), "checks": [each.as_dict() for each in findings]}
    answer(result, console.show_findings, as_json=as_json)
    sys.exit(0 if result["ok"] else USAGE if any(each.is_settings for each in findings) else STOPPED)


@main.command()
@click.argument("reference", metavar="REFERENCE")
@answers
def explain(reference: str, *, as_json: bool) -> None:
    """Show what is known of an error by its reference, or by an error id of Dagster's; it may hold personal values.

    Without the database too: then the reading is recorded in the audit by the next command that reaches it.
    """
    from orders_pipeline.system import errors
    from orders_pipeline.system.composition import open_batches, open_cipher

    settings = read_settings()
    known = errors.explain(reference, settings, lambda: open_batches(settings, open_cipher(settings)))
    is_audited = known.details is None or _audited(settings, reference)
    found = {"reference": reference, "listed": known.listed, "details": known.details, "audited": is_audited}
    answer(found, _show_explained, as_json=as_json)


def _audited(settings: Settings, reference: str) -> bool:
    """Record that details are given out: now, or in HOME until the database is back. Raises OSError if neither can be."""
    from orders_pipeline.audit import recording
    from orders_pipeline.system import errors

    try:
        with opened() as system:
            recording.read_error(system.database, reference)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the database may be what is to be explained
        recording.read_error_meanwhile(settings.home, reference)
        says = errors.describe(error, settings)
        complaints.print(f"{says}\nthat this is read goes into the audit with the next command that can", markup=False)
        return False
    return True


def _show_explained(console: Console, found: dict[str, Any]) -> None:
    for line in found["listed"]:
        console.print(line, markup=False)
    if found["details"]:
        console.print(found["details"], markup=False)


def _refuse_in_production(settings: Settings, what: str) -> None:
    if settings.is_production:
        raise SettingsError(f"ORDERS_ENV is production, where nothing is made up; {what} are")


@main.command()
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535))
@click.option("--ledger", type=NewFile(), help="Keep the ledger in this file.")
@click.option("--token", help="Demand this bearer token.")
@click.option("--latency-ms", default=0.0, show_default=True, type=click.FloatRange(min=0), help="How long each call takes.")
@click.option("--bulk", is_flag=True, help="Take up to 100 notifications in one call.")
@click.option("--faults", default="", help="What goes wrong, like decline=0.02,reset_after=0.05,seed=7.")
@answers
def sandbox(
    port: int, ledger: Path | None, token: str | None, latency_ms: float, faults: str, *, bulk: bool, as_json: bool
) -> None:
    """Run the Payment and Notification services to build and test against."""
    from pydantic import ValidationError

    from orders_pipeline.sandbox import SandboxServer
    from orders_pipeline.sandbox.faults import Faults

    _refuse_in_production(load_settings(), "the sandbox's services")
    try:
        server = SandboxServer(ledger, port=port, token=token, latency_ms=latency_ms, faults=faults, bulk=bulk)
    except ValidationError:
        names = ", ".join(Faults.model_fields)
        raise click.UsageError(f"--faults is name=value,name=value with rates of 1 in all at most, of: {names}") from None
    server.start()
    answer({"url": server.url}, lambda console, each: console.print(f"{each['url']}  (Ctrl-C stops)"), as_json=as_json)
    _wait_for_the_end()
    server.stop()


@main.command()
@click.option("--rows", default=1000, show_default=True, type=click.IntRange(1, 10_000))
@answers
@stoppable
def demo(rows: int, *, as_json: bool, heard: Interrupts) -> None:
    """Try everything at once: a sample file is imported, paid, notified and reported, all on this machine."""
    from orders_pipeline.cli import console
    from orders_pipeline.cli.demo import CLIENT, demo_settings, write_demo_file

    settings = load_settings()
    _refuse_in_production(settings, "the demonstration's orders")
    settings = demo_settings(settings)
    with opened(settings) as system:
        path = write_demo_file(system, rows)
        if not as_json:
            words.print(f"{rows:,} made-up orders in {path.name} (CP932, some rows bad on purpose)")
        summary = import_and_run(system, path, CLIENT, heard, [], again=False, as_json=as_json)
    batch_id = summary["batch_id"]
    answer(summary, console.show_summary, as_json=as_json)
    if not as_json:
        words.print(f"\nnext: orders-pipeline errors {batch_id}    what is wrong with the rejected rows")
        words.print("      orders-pipeline up                      the same in the browser")
    sys.exit(EXIT_STATUS.get(summary["status"], STOPPED))


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
    from orders_pipeline.cli.up import running

    def say(line: str) -> None:
        if not as_json:
            words.print(line)

    with running(load_settings(), port, say) as places:
        answer(
            places.as_dict(),
            lambda console, each: console.print(
                "\n".join(f"{name:<10} {place}" for name, place in each.items()) + "\nCtrl-C stops everything."
            ),
            as_json=as_json,
        )
        places.wait()
        say("\nstopping everything, which takes some seconds")
    say("stopped; batches that are under way go on at the next start")


def _wait_for_the_end() -> None:
    import signal

    with contextlib.suppress(KeyboardInterrupt):
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.default_int_handler)
        signal.pause()

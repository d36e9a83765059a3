"""The commands of the whole system: doctor, explain, the sandbox's services, a demonstration, and all of it at once."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orders_pipeline.cli.batch_run import import_and_run
from orders_pipeline.cli.command import (
    EXIT_STATUS,
    STOPPED,
    USAGE,
    answer,
    answers,
    complaints,
    main,
    opened,
    stoppable,
    wants_json,
    words,
)
from orders_pipeline.cli.output_files import NewFile
from orders_pipeline.system.settings import Settings, SettingsError, load_settings, read_settings

if TYPE_CHECKING:
    from rich.console import Console

    from orders_pipeline.infrastructure.interrupts import Interrupts


@main.command()
@answers
def doctor() -> None:
    """Check everything the system needs, and say what to do about what is missing."""
    from orders_pipeline.cli import console
    from orders_pipeline.cli.doctor import examine

    findings = examine()
    result = {"ok": all(each.ok for each in findings), "checks": [asdict(each) for each in findings]}
    answer(result, console.show_findings)
    sys.exit(0 if result["ok"] else USAGE if any(each.is_settings for each in findings) else STOPPED)


@main.command()
@click.argument("reference", metavar="REFERENCE")
@answers
def explain(reference: str) -> None:
    """Show what is known of an error by its reference, or by an error id of Dagster's; it may hold personal values.

    Without the database too: then the reading is recorded in the audit by the next command that reaches it.
    """
    from orders_pipeline.system import errors
    from orders_pipeline.system.composition import open_batches, open_cipher

    settings = read_settings()
    known = errors.explain(reference, settings, lambda: open_batches(settings, open_cipher(settings)))
    is_audited = known.details is None or _audited(settings, reference)
    found = {"reference": reference, "listed": known.listed, "details": known.details, "audited": is_audited}
    answer(found, _show_explained)


def _audited(settings: Settings, reference: str) -> bool:
    """Record that details are shown: now, or in HOME until the database is back; raise OSError where neither can be done."""
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


def _show_explained(console: Console, result: dict[str, Any]) -> None:
    for line in result["listed"]:
        console.print(line, markup=False)
    if result["details"]:
        console.print(result["details"], markup=False)


def _refuse_in_production(settings: Settings, what: str) -> None:
    if settings.is_production:
        raise SettingsError(f"ORDERS_ENV is production, where nothing is synthetic; {what} are")


@main.command()
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535))
@click.option("--ledger", type=NewFile(), help="Keep the ledger in this file.")
@click.option("--token", help="Demand this bearer token.")
@click.option("--latency-ms", default=0.0, show_default=True, type=click.FloatRange(min=0), help="How long each call takes.")
@click.option("--bulk", is_flag=True, help="Take up to 100 notifications in one call.")
@click.option("--faults", default="", help="What goes wrong, like decline=0.02,reset_after=0.05,seed=7.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Speak https with this, PEM.")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The certificate's key, PEM.")
@answers
def sandbox(
    port: int,
    ledger: Path | None,
    token: str | None,
    latency_ms: float,
    faults: str,
    host: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    *,
    bulk: bool,
) -> None:
    """Run the Payment and Notification services to build and test against."""
    from pydantic import ValidationError

    from orders_pipeline.sandbox import SandboxServer
    from orders_pipeline.sandbox.faults import Faults

    _refuse_in_production(load_settings(), "the sandbox's services")
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key are given together, or neither")
    tls = None if tls_cert is None or tls_key is None else (tls_cert, tls_key)
    options = {"latency_ms": latency_ms, "faults": faults, "bulk": bulk}
    try:
        server = SandboxServer(ledger, host=host, port=port, token=token, tls=tls, **options)
    except ValidationError:
        names = ", ".join(Faults.model_fields)
        raise click.UsageError(f"--faults is name=value,name=value with rates of 1 in all at most, of: {names}") from None
    server.start()
    answer({"url": server.url}, lambda console, _: console.print(f"{server.url}  (Ctrl-C stops)"))
    _wait_for_the_end()
    server.stop()


@main.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="rehearsal")
@click.option(
    "--port",
    default=8443,
    show_default=True,
    type=click.IntRange(1, 65534),
    help="Port of the services; the database is at the next one.",
)
@answers
def rehearse(folder: Path, port: int) -> None:
    """Run what production needs, PostgreSQL and both services over TLS, with settings to rehearse with; Ctrl-C stops."""
    from orders_pipeline.cli.rehearse import rehearsing

    _refuse_in_production(read_settings(), "the rehearsal's services")
    with rehearsing(folder, port) as places:
        answer(places, _show_rehearsal)
        _wait_for_the_end()


def _show_rehearsal(console: Console, places: dict[str, str]) -> None:
    for name, place in places.items():
        console.print(f"{name:<10} {place}", markup=False)
    console.print(f"In another terminal: set -a; . '{places['settings']}'; set +a", markup=False)
    console.print("Then: orders-pipeline db migrate; orders-pipeline doctor; orders-pipeline up    (Ctrl-C stops all here)")


@main.command()
@click.option("--rows", default=1000, show_default=True, type=click.IntRange(1, 10_000))
@answers
@stoppable
def demo(rows: int, *, heard: Interrupts) -> None:
    """Try everything at once: a sample file is imported, paid, notified and reported, all on this machine."""
    from orders_pipeline.cli import console
    from orders_pipeline.cli.demo import CLIENT, demo_settings, write_demo_file

    settings = load_settings()
    _refuse_in_production(settings, "the demonstration's orders")
    settings = demo_settings(settings)
    with opened(settings) as system:
        path = write_demo_file(system, rows)
        if not wants_json():
            words.print(f"{rows:,} synthetic orders in {path.name} (CP932, some rows bad on purpose)")
        summary = import_and_run(system, path, CLIENT, heard, [], again=False)
    batch_id = summary["batch_id"]
    answer(summary, console.show_summary)
    if not wants_json():
        words.print(f"\nnext: orders-pipeline errors {batch_id}    what is wrong with the rejected rows")
        words.print("      orders-pipeline up                      the same in the browser")
    sys.exit(EXIT_STATUS.get(summary["status"], STOPPED))


@main.command()
@click.option(
    "--port",
    default=3000,
    show_default=True,
    type=click.IntRange(1, 65534),
    help="Port of the UI; the API and reports are at the next one.",
)
@answers
def up(port: int) -> None:
    """Run the whole system for the browser; Ctrl-C stops all of it."""
    from orders_pipeline.cli.up import running

    def say(line: str) -> None:
        if not wants_json():
            words.print(line)

    with running(load_settings(), port, say) as places:
        answer(
            places.as_dict(),
            lambda console, by_name: console.print(
                "\n".join(f"{name:<10} {place}" for name, place in by_name.items()) + "\nCtrl-C stops everything."
            ),
        )
        places.wait()
        say("\nstopping everything, which takes some seconds")
    say("stopped; batches that are under way resume at the next start")


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=3001, show_default=True, type=click.IntRange(1, 65535))
@answers
def serve(host: str, port: int) -> None:
    """Serve the page and the batch API and send webhooks, without Dagster; any number may, on one port too. Ctrl-C stops."""
    import logging
    import signal

    from orders_pipeline.cli.up import PortTaken
    from orders_pipeline.system.composition import following_files
    from orders_pipeline.upkeep.webhooks.sending import sending
    from orders_pipeline.web import access_log, server

    for name in ("orders_pipeline.web", "orders_pipeline.webhooks"):
        logging.getLogger(name).setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with opened() as opened_system, contextlib.suppress(KeyboardInterrupt):
        system = following_files(opened_system)
        try:
            listening = server.listen(host, port)
        except OSError:
            raise PortTaken(f"port {port} of {host} cannot be used or is in use; choose another with --port") from None
        with listening:
            place = f"[{host}]" if ":" in host else host
            address = f"http://{place}:{port}"
            result = {"api": f"{address}/v1", "page": f"{address}/"}
            answer(result, lambda console, each: console.print(f"{each['api']}  page: {each['page']}  (Ctrl-C stops)"))
            with access_log.written_beside(), sending(system):
                server.new_server(system, with_reports=False).run([listening])


def _wait_for_the_end() -> None:
    import signal

    with contextlib.suppress(KeyboardInterrupt):
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.default_int_handler)
        signal.pause()

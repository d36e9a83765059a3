"""What a supervisor starts one by one, on one host or many: Dagster's daemon, its web server, and workers of Celery.

Each makes ready what it needs and is then the program itself, so that signals reach it. `serve` is in `system.py`, and all
of it at once for one person in `up.py`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from orders_pipeline.cli.command import answers, main, opened
from orders_pipeline.system.settings import PREFIX, Settings, SettingsError, export_environment, load_settings

if TYPE_CHECKING:
    from orders_pipeline.system.composition import System

EMBEDDED = ("database_url", "payment_url", "notification_url")


@main.command()
@answers  # of what goes wrong: all else are the daemon's own words
def daemon() -> None:
    """Be Dagster's daemon, which finds files and starts runs; of several one works, and the others wait."""
    _be("dagster._daemon", "run")


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
@answers  # of what goes wrong: all else are the web server's own words
def web(host: str, port: int) -> None:
    """Be Dagster's web server, which has no login of its own; any number may be."""
    from orders_pipeline.system.session_limit import WEB_POOL_SIZE

    overflow = ["--db-pool-max-overflow", str(WEB_POOL_SIZE - 1)]
    _be("dagster_webserver", "--host", host, "--port", str(port), *overflow)


@main.command()
@click.option("--slots", default=2, show_default=True, type=click.IntRange(1, 512), help="How many runs at once.")
@answers  # of what goes wrong: all else are Celery's own words
def worker(slots: int) -> None:
    """Be a worker of Celery, which runs what the daemon starts; on SIGTERM it waits for the runs under way."""
    from orders_pipeline.batches.run_processes import offering_slots
    from orders_pipeline.orchestration.dagster_home import prepare_dagster_home

    settings = load_settings()
    if settings.run_launcher != "celery":
        raise SettingsError(f"{PREFIX}RUN_LAUNCHER is {settings.run_launcher}, and workers are of celery")
    from orders_pipeline.orchestration.celery_launcher import require_broker
    from orders_pipeline.orchestration.celery_worker import serve_runs

    require_broker(settings)  # Celery itself would try for ever
    with opened(settings, _require_keys) as system:
        prepare_dagster_home(system)
        export_environment(PYTHONSAFEPATH="1")
        with offering_slots(system.database, slots):
            status = serve_runs(settings, slots)
    sys.exit(status)


def _require_keys(system: System) -> None:
    """Raise EncryptionKeysError where a worker has other keys: what it encrypts with these no other host could open."""
    from orders_pipeline.upkeep.key_rotation import require_all, require_same

    require_all(system.database, system.cipher)
    require_same(system.database, system.cipher)


def _be(program: str, *arguments: str) -> None:
    """Make ready what one of Dagster's programs needs, and be it from here on."""
    from orders_pipeline.orchestration.dagster_home import prepare_dagster_home

    settings = load_settings()
    _refuse_embedded(settings)
    with opened(settings) as system:
        prepare_dagster_home(system)
    export_environment(PYTHONSAFEPATH="1")  # no module is taken from the folder that we were started in
    # from this folder Dagster would import, else from where we were started
    target = ["-m", "orders_pipeline.definitions", "--working-directory", str(settings.dagster_home)]
    os.execv(sys.executable, [sys.executable, "-P", "-m", program, *arguments, *target])  # noqa: S606 - our own interpreter


def _refuse_embedded(settings: Settings) -> None:
    lacking = [f"{PREFIX}{name.upper()}" for name in EMBEDDED if getattr(settings, name) is None]
    if lacking:
        raise SettingsError(f"what is embedded ends with `up`; for a program by itself set {', '.join(lacking)}")

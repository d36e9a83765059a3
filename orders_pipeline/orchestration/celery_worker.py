"""A worker of Celery: runs whose ids are in the broker, each in a process of its own, and nothing else.

Whoever can write into the broker can have a run of Dagster's records started that has not begun, and no code of theirs: the
one task there is takes an id. What is done with it is in `run_process.py`.
"""

from __future__ import annotations

import importlib
import logging
import socket
from functools import partial

import dagster as dg
from celery import Celery
from celery.signals import worker_ready, worker_shutting_down

from orders_pipeline.orchestration.celery_launcher import QUEUE, RUN_TASK, CeleryLauncher, connection, place_of_broker
from orders_pipeline.orchestration.run_process import LIBRARIES, execute
from orders_pipeline.system.settings import Settings

log = logging.getLogger("orders_pipeline.worker")


def serve_runs(settings: Settings, slots: int) -> int:
    """Run what is in the queue, `slots` at once, until SIGTERM or Ctrl-C; runs under way are waited for.

    Returns the exit status.
    """
    for name in LIBRARIES:
        importlib.import_module(name)
    log.setLevel(logging.INFO)
    worker_ready.connect(partial(_say_ready, slots, place_of_broker(settings)), weak=False)
    worker_shutting_down.connect(_say_stopping)
    worker = new_app(settings).Worker(
        hostname=f"run@{socket.gethostname()}",
        queues=[QUEUE],
        concurrency=slots,
        loglevel="WARNING",
        quiet=True,
        max_tasks_per_child=1,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    log.info("stopped")
    return int(worker.exitcode or 0)


def _say_ready(slots: int, place: str, **_: object) -> None:
    log.info("ready: %s slots for runs in the queue %s of the broker%s", slots, QUEUE, place)


def _say_stopping(**_: object) -> None:
    log.info("stopping: no more runs are taken, and those under way are waited for")


def new_app(settings: Settings) -> Celery:
    """Return the application of a worker, which knows one task: Celery's own are taken out."""
    app = CeleryLauncher(default_queue=QUEUE, **connection(settings)).celery
    app.finalize()
    app.tasks.clear()

    @app.task(name=RUN_TASK)  # type: ignore[untyped-decorator]
    def run(run_id: str) -> None:
        execute(dg.DagsterInstance.get, run_id)

    return app

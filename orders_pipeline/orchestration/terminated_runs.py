"""Runs that a person has terminated in Dagster's UI, and runs that a person has asked for: they stop and resume a batch.

A run that ends with the whole system was terminated by nobody, and one that a sensor or Dagster itself asks for resumes
nothing that a person has stopped.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import dagster as dg
from dagster import DagsterRunStatus

from orders_pipeline.batches import batches
from orders_pipeline.batches.run_tags import VIA_TAG
from orders_pipeline.infrastructure.background import beside
from orders_pipeline.infrastructure.database import Database

TERMINATED = (DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED)  # the second at once when forced
UI = "Dagster UI"
POLL_S = 1.0
# who asks for these runs; a backfill is of many batches, and no word about one of them; the API says itself what it resumes
BY_ITSELF = {"dagster/sensor_name", "dagster/schedule_name", "dagster/backfill", VIA_TAG}


def is_terminated(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether a person has terminated a run."""
    run = instance.get_run_by_id(run_id)
    return run is not None and run.status in TERMINATED


def is_asked_for(run: dg.DagsterRun) -> bool:
    """Return whether a person has asked for this very run: by executing it again, or by materializing one batch."""
    if "dagster/retry_number" in run.tags:  # Dagster's own second try
        return False
    return run.parent_run_id is not None or not BY_ITSELF & run.tags.keys()


@contextlib.contextmanager
def stopping_when_terminated(database: Database, instance: dg.DagsterInstance, run_id: str, batch_id: str) -> Iterator[None]:
    """Stop the batch of a run as soon as a person terminates the run, whether or not its process is interrupted."""

    def stop_if_terminated() -> bool:
        with contextlib.suppress(Exception):  # records that cannot be reached now are asked again
            if is_terminated(instance, run_id):
                with database.begin() as transaction:
                    batches.stop(transaction, batch_id, UI)
                return True
        return False

    def watch(over: threading.Event) -> None:
        while not over.wait(POLL_S):
            if stop_if_terminated():
                return

    try:
        with beside(watch, "terminated"):
            yield
    finally:
        stop_if_terminated()

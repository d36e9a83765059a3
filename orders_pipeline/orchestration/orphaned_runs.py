"""Runs whose process is gone: Dagster shows them as started, and keeps a place for them, until somebody says otherwise.

Whether a run's process is there is known from `batches/workers.py`; resuming a batch is requested in `sensors.py` and
by commands.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from orders_pipeline.batches.run_processes import runs_without_process
from orders_pipeline.infrastructure.database import Database

BEGINNING_S = 20.0  # a run may take this long from its start until its process says that it is there


def orphaned_runs(database: Database, instance: dg.DagsterInstance, tags: Mapping[str, str]) -> Sequence[dg.DagsterRun]:
    """Return the runs with these tags, of whichever job, that are started and have no process, at this moment at least."""
    records = instance.get_run_records(RunsFilter(tags=dict(tags), statuses=[DagsterRunStatus.STARTED]))
    begun = [each.dagster_run for each in records if (each.start_time or 0.0) < time.time() - BEGINNING_S]
    gone = runs_without_process(database, [run.run_id for run in begun])
    return [run for run in begun if run.run_id in gone]


def end_runs(instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun]) -> None:
    """Mark runs as failed whose process is gone; as their tags say, Dagster tries them again by itself."""
    for run in runs:
        instance.report_run_failed(run, "the process of this run is gone")

"""Runs whose process is gone: Dagster shows them as started until somebody says otherwise.

Who works on a batch is known from `workers.py`; going on with the batch is asked for in `sensors.py` and commands.
"""

from __future__ import annotations

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from orders_pipeline.partitions import PARTITION_TAG
from orders_pipeline.system import System
from orders_pipeline.workers import end_lost_workers


def end_orphaned_runs(system: System, instance: dg.DagsterInstance, batch_id: str) -> int:
    """Mark runs of a batch as failed whose process is gone, and return how many of them Dagster tries again by itself."""
    with system.database.begin() as transaction:
        end_lost_workers(transaction, batch_id)
        alive = {row.run_id for row in transaction.rows("live_workers", batch_id=batch_id)}
    started = RunsFilter(tags={PARTITION_TAG: batch_id}, statuses=[DagsterRunStatus.STARTED])
    orphans = [run for run in instance.get_runs(started) if run.run_id not in alive]
    for run in orphans:
        instance.report_run_failed(run, "the process of this run is gone; the batch was resumed")
    return sum(run.tags.get("dagster/max_retries", "0") != "0" for run in orphans)

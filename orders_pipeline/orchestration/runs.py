"""A batch's run in this process: what commands need of Dagster without its daemon.

The job itself is defined in `jobs.py`, Dagster's records are opened in `dagster_records.py`.
"""

from __future__ import annotations

import uuid

import dagster as dg

from orders_pipeline.batches import batches
from orders_pipeline.batches.run_processes import run_process
from orders_pipeline.batches.run_tags import batch_tags
from orders_pipeline.orchestration.partitions import batch_partitions
from orders_pipeline.orchestration.run_labels import labelled
from orders_pipeline.orchestration.terminated_runs import stopping_when_terminated
from orders_pipeline.system.composition import System

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_batch(system: System, instance: dg.DagsterInstance, defs: dg.Definitions, batch_id: str) -> str | None:
    """Run the job for a batch in this process, seen in Dagster like any other run; return why it failed, if it did."""
    from orders_pipeline.orchestration.assets.intake import uploaded  # noqa: PLC0415 - takes seconds; only runs need it

    with system.database.begin() as transaction:
        batch = batches.get(transaction, batch_id)
    if not instance.has_dynamic_partition(str(batch_partitions.name), batch_id):
        instance.add_dynamic_partitions(str(batch_partitions.name), [batch_id])
        instance.report_runless_asset_event(uploaded(batch_id, batch.client_code, batch.csv_source))
    run_id = str(uuid.uuid4())
    with (
        run_process(system.database, run_id, batch_id),
        stopping_when_terminated(system.database, instance, run_id, batch_id),
        labelled(system.database, instance, run_id, batch_id),
    ):
        result = defs.resolve_job_def("process_batch").execute_in_process(
            instance=instance,
            partition_key=batch_id,
            resources={"system": system},
            run_config=QUIET,
            raise_on_error=False,
            run_id=run_id,
            tags=batch_tags(batch.client_code, batch.csv_source),
        )
    if result.success:
        return None
    reasons = [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure]
    described = (reason.description for reason in reasons if reason and reason.description)
    return next(described, "E_STOPPED: the run was stopped before its end")

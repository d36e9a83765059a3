"""The landing sensor: files that have arrived become batches, and batches without a run get one.

Which files are new is decided in `landing.py`; here a batch becomes a partition and a run request. A batch is offered
until somebody works on it, so a lost tick or a run that never started loses nothing.
"""

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from orders_pipeline import landing
from orders_pipeline.assets.boundary import safe_errors
from orders_pipeline.assets.intake import uploaded
from orders_pipeline.jobs import process_batch
from orders_pipeline.partitions import batch_partitions
from orders_pipeline.system import System

INTERVAL_S = 5
PATIENCE_S = 60.0  # a requested run may take this long to begin before it is looked for
UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


@dg.sensor(
    job=process_batch,
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks for new order files in the landing (folder or S3) and starts a run for each.",
)
def landing_sensor(context: dg.SensorEvaluationContext, system: dg.ResourceParam[System]) -> dg.SensorResult:
    """Register what has arrived and request the runs that are missing."""
    with safe_errors(system):
        landing.look(system.database, system.landing)
        requests = _requests(context.instance, system)
    if not requests:
        return dg.SensorResult(skip_reason="no new order file in the landing")
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[
            batch_partitions.build_add_request([request.partition_key for request in requests if request.partition_key])
        ],
        asset_events=[uploaded(request.partition_key) for request in requests if request.partition_key],
    )


def _requests(instance: dg.DagsterInstance, system: System) -> list[dg.RunRequest]:
    with system.database.begin() as transaction:
        waiting = transaction.rows("batches_without_run", patience_s=PATIENCE_S, limit=landing.MAX_NEW)
        return [
            dg.RunRequest(
                run_key=f"{row.batch_id}#{transaction.scalar('count_run_request', batch_id=row.batch_id)}",
                partition_key=row.batch_id,
                tags={"orders/client": row.client_code},
            )
            for row in waiting
            if row.run_requests == 0 or not _has_run(instance, row.batch_id)
        ]


def _has_run(instance: dg.DagsterInstance, batch_id: str) -> bool:
    unfinished = RunsFilter(tags={"dagster/partition": batch_id}, statuses=UNFINISHED)
    return instance.get_runs_count(unfinished) > 0

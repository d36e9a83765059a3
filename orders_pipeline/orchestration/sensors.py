"""The sensors: files that have arrived become batches, batches without a run get one, stalled ones another.

Others seal the audit, send it outside, and tell of runs that failed.

Which files are new is decided in `intake/landing/`, which batches stand still in `settlement/sweep.py`; here a batch
becomes a partition and a run request. A batch is offered until it has a worker, so a lost tick or a run that never
started loses nothing.
"""

import json
import re
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus, RunRecord, RunsFilter
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from sqlalchemy import Row

from orders_pipeline.audit import sealing
from orders_pipeline.batches import batches
from orders_pipeline.batches.run_tags import (
    CLIENT_TAG,
    FILE_TAG,
    PARTITION_TAG,
    PROCESS,
    REFUND,
    RESUMES,
    RETRIED_AS_TAG,
    WILL_RETRY_TAG,
    batch_tags,
    tags_of,
)
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.intake.landing import arrivals, left_alone
from orders_pipeline.orchestration.assets.boundary import safe_errors
from orders_pipeline.orchestration.assets.intake import uploaded
from orders_pipeline.orchestration.jobs import process_batch
from orders_pipeline.orchestration.orphaned_runs import end_runs, orphaned_runs
from orders_pipeline.orchestration.partitions import batch_partitions
from orders_pipeline.orchestration.refund_job import refund_batch
from orders_pipeline.orchestration.terminated_runs import UI
from orders_pipeline.settlement import sweep
from orders_pipeline.system.composition import System
from orders_pipeline.upkeep.alerting import FailedRun, alert
from orders_pipeline.upkeep.audit_shipping import shipping

# Dagster looks for due sensors every 5 seconds: one that is due just then would miss every other look
INTERVAL_S = 4
SWEEP_INTERVAL_S = 9
SEAL_INTERVAL_S = 59
ALERT_INTERVAL_S = 29
PATIENCE_S = 60.0  # the first run that is requested may take this long to begin before another is; later ones longer
RETRY_S = 60.0  # a failed run that Dagster tries again by itself is asked for by then; its daemon looks every 5 seconds


@dg.sensor(
    job=process_batch,
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks for new order files in the landing (folder or S3) and starts a run for each.",
)
def landing_sensor(context: dg.SensorEvaluationContext, system: dg.ResourceParam[System]) -> dg.SensorResult:
    """Register what has arrived and request the runs that are missing."""
    with safe_errors(system, of_tick=True):
        arrivals.register_arrivals(system.database, system.landing, system.clients)
        requests = _requests(context.instance, system)
        with system.database.begin() as transaction:
            left = left_alone.recorded(transaction)
    if not requests:
        return dg.SensorResult(skip_reason="; ".join(["no new order file in the landing", *left_alone.in_words(left)]))
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[batch_partitions.build_add_request(_batch_ids(requests))],
        asset_events=[
            uploaded(request.partition_key, request.tags[CLIENT_TAG], request.tags[FILE_TAG])
            for request in requests
            if request.partition_key
        ],
    )


@dg.sensor(
    jobs=[process_batch, refund_batch],
    minimum_interval_seconds=SWEEP_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Resumes batches that a lost process left behind, or that waited for a service, and open refunds.",
)
def stalled_sensor(context: dg.SensorEvaluationContext, system: dg.ResourceParam[System]) -> dg.SensorResult:
    """Request runs for unfinished batches without a worker that could resume; end runs whose process is lost."""
    with safe_errors(system, of_tick=True):
        system.restore_guard.watch()
        # gone at two looks: a session that breaks, as when the database starts anew, comes back in between
        missed = set(json.loads(context.cursor or "[]"))
        gone = orphaned_runs(system.database, context.instance, {})
        end_runs(context.instance, [run for run in gone if run.run_id in missed])
        cursor = json.dumps([run.run_id for run in gone if run.run_id not in missed])
        requests = _resumptions(context.instance, system)
    if not requests:
        return dg.SensorResult(skip_reason="no batch stands still that could resume", cursor=cursor)
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[batch_partitions.build_add_request(_batch_ids(requests))],
        cursor=cursor,
    )


@dg.sensor(
    minimum_interval_seconds=SEAL_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Seals new audit records in blocks every minute, keeps the newest block's hash in the storage, and sends "
    "what is sealed to ORDERS_AUDIT_SHIP_URL.",
)
def audit_sensor(context: dg.SensorEvaluationContext, system: dg.ResourceParam[System]) -> dg.SkipReason:
    """Seal what is new, keep the newest head and send what is sealed.

    The cursor is the hour in which a head was last kept for long.
    """
    with safe_errors(system, of_tick=True):
        blocks = sealing.seal(system.database)
        hour = f"{datetime.now(UTC):%Y-%m-%dT%H}"
        sealing.anchor(system.database, system.storage, briefly=context.cursor == hour)
        context.update_cursor(hour)
        waiting = sealing.unsealed(system.database)
    return dg.SkipReason("; ".join([f"{blocks} new blocks of audit records", str(waiting), *_sent(system)]))


def _sent(system: System) -> list[str]:
    """Send sealed audit records, if that is wanted, and return what came of it: sealing is done either way."""
    sink = shipping.open_sink(system.settings)
    if sink is None:
        return []
    try:
        with safe_errors(system, of_tick=True):
            shipped = shipping.ship(system.database, sink)
    except dg.Failure as failure:
        return [failure.description or ""]
    return [f"{shipped.documents} documents of {shipped.records} audit records sent"]


@dg.run_failure_sensor(
    minimum_interval_seconds=ALERT_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells ORDERS_ALERT_URL of runs that failed and that Dagster does not try again by itself.",
)
def alert_sensor(context: dg.RunFailureSensorContext, system: dg.ResourceParam[System]) -> dg.SkipReason | None:
    """Tell of a run that failed for good, once; one that a person has stopped is no failure."""
    run, url = context.dagster_run, system.settings.alert_url
    code = _code_of(context)
    if url is None or run.tags.get(WILL_RETRY_TAG) == "true" or code == "E_STOPPED":
        return dg.SkipReason("ORDERS_ALERT_URL is not set" if url is None else "nothing that anybody must know")
    failed = FailedRun(run.run_id, run.job_name, run.tags.get(PARTITION_TAG), code, _ended(context))
    if trouble := alert(system.settings, url, failed):
        context.log.warning(f"nobody was told of the failed run {run.run_id}: {trouble}")
    return None


def _code_of(context: dg.RunFailureSensorContext) -> str | None:
    """Return the code that the first failed step begins its words with; what has none may be anybody's words."""
    for event in context.get_step_failure_events():
        reason = event.step_failure_data.user_failure_data
        if found := re.match(r"[EF]_[A-Z0-9_]+", (reason and reason.description) or ""):
            return found[0]
    return None


def _ended(context: dg.RunFailureSensorContext) -> str:
    record = context.instance.get_run_record_by_id(context.dagster_run.run_id)
    ended = None if record is None else record.end_time
    return (datetime.now(UTC) if ended is None else datetime.fromtimestamp(ended, UTC)).isoformat(timespec="seconds")


def _resumptions(instance: dg.DagsterInstance, system: System) -> list[dg.RunRequest]:
    database = system.database
    stalled = sweep.stalled_batches(database)
    busy = _busy(instance, database, [row.batch_id for row in stalled])
    with database.begin() as transaction:
        return [
            _resumption(row, transaction.scalar("count_run_request", batch_id=row.batch_id), system.settings.run_launcher)
            for row in stalled
            if row.batch_id not in busy
        ]


def _run_key(batch_id: str, number: int) -> str:
    """Return a key that no request of the batch had before: the numbers may begin again."""
    return f"{batch_id}#{number}@{time.time_ns()}"


def _resumption(row: Row[Any], number: int, run_launcher: str) -> dg.RunRequest:
    job = REFUND if row.is_refunding else PROCESS
    tags = _tags(row, run_launcher) | RESUMES
    return dg.RunRequest(run_key=_run_key(row.batch_id, number), job_name=job, partition_key=row.batch_id, tags=tags)


def _tags(row: Row[Any], run_launcher: str) -> dict[str, str]:
    return batch_tags(row.client_code, row.csv_source) | tags_of(row.client_code, row.source_bytes, run_launcher)


def _batch_ids(requests: Sequence[dg.RunRequest]) -> list[str]:
    return [request.partition_key for request in requests if request.partition_key]


def _requests(instance: dg.DagsterInstance, system: System) -> list[dg.RunRequest]:
    database = system.database
    with database.begin() as transaction:
        waiting = transaction.rows(
            "batches_without_run",
            patience_s=PATIENCE_S / 2,
            api_patience_s=sweep.API_PATIENCE_S / 2,
            longest_s=sweep.LONGEST_S,
            limit=arrivals.MAX_NEW,
        )
    busy = _busy(instance, database, [row.batch_id for row in waiting if row.run_requests])
    with database.begin() as transaction:
        return [
            dg.RunRequest(
                run_key=_run_key(row.batch_id, transaction.scalar("count_run_request", batch_id=row.batch_id)),
                partition_key=row.batch_id,
                tags=_tags(row, system.settings.run_launcher) | (RESUMES if row.run_requests else {}),
            )
            for row in waiting
            if row.batch_id not in busy
        ]


def _busy(instance: dg.DagsterInstance, database: Database, batch_ids: Collection[str]) -> set[str]:
    """Return which of the batches have a run that is queued, under way or tried again by Dagster, or are stopped here.

    These are the ones whose newest run a person has terminated, as when it never began or its process was lost, and that
    nobody has resumed since. What has ended or is being cancelled cannot be stopped: refunds that were asked for resume.
    """
    if not batch_ids:
        return set()
    filters = RunsFilter(tags={PARTITION_TAG: list(batch_ids)}, statuses=[*NOT_FINISHED_STATUSES, DagsterRunStatus.CANCELED])
    found = [(run.tags[PARTITION_TAG], run.is_finished) for run in instance.get_runs(filters)]  # of all of them at once
    canceled = {batch_id for batch_id, is_finished in found if is_finished}
    busy = {batch_id for batch_id, is_finished in found if not is_finished} | _retried(instance, batch_ids)
    newest = {batch_id: _newest(instance, batch_id) for batch_id in canceled - busy}
    with database.begin() as transaction:
        return busy | {
            batch_id
            for batch_id, record in newest.items()
            if record.dagster_run.status is DagsterRunStatus.CANCELED
            and batches.stop(transaction, batch_id, UI, record.create_timestamp)
        }


def _retried(instance: dg.DagsterInstance, batch_ids: Collection[str]) -> set[str]:
    """Return which of the batches have a failed run that Dagster is about to try again by itself.

    That it will is noted just after the failure.
    """
    lately = datetime.now(UTC) - timedelta(seconds=RETRY_S)
    filters = RunsFilter(tags={PARTITION_TAG: list(batch_ids)}, statuses=[DagsterRunStatus.FAILURE], updated_after=lately)
    failed = instance.get_runs(filters)
    return {
        run.tags[PARTITION_TAG]
        for run in failed
        if run.tags.get(WILL_RETRY_TAG, "true") == "true" and RETRIED_AS_TAG not in run.tags
    }


def _newest(instance: dg.DagsterInstance, batch_id: str) -> RunRecord:
    (newest,) = instance.get_run_records(RunsFilter(tags={PARTITION_TAG: batch_id}), limit=1)
    return newest

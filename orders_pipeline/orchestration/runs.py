"""Dagster's records, and a batch's run in this process: what commands need of Dagster without its daemon.

The instance's configuration is in DAGSTER_HOME and follows our settings until somebody edits it; its records are in
PostgreSQL, in a schema beside ours. The job itself is defined in `jobs.py`.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster_postgres.utils import DagsterPostgresException

from orders_pipeline.batches import batches
from orders_pipeline.batches.run_processes import run_process
from orders_pipeline.batches.run_tags import LARGE, SIZE_TAG, batch_tags
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_errors import DatabaseUnavailable, failures_as_unavailable
from orders_pipeline.infrastructure.database_url import dagster_url
from orders_pipeline.orchestration.partitions import batch_partitions
from orders_pipeline.orchestration.run_labels import labelled
from orders_pipeline.orchestration.terminated_runs import stopping_when_terminated
from orders_pipeline.system.composition import System
from orders_pipeline.system.session_limit import DAGSTER_POOL_SIZE
from orders_pipeline.system.settings import Settings, export_environment

SCHEMA = "dagster"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
CONFIG = """\
# Follows the settings of orders-pipeline until you change it; then it is yours. Secrets stay in the environment.
storage:
  postgres:
    postgres_url: {{env: DAGSTER_PG_URL}}
run_coordinator:
  module: dagster
  class: QueuedRunCoordinator
  config: {{dequeue_interval_seconds: 1}}
run_launcher:
  module: orders_pipeline.orchestration.run_launcher
  class: ForkingRunLauncher
concurrency:
  runs:
    max_concurrent_runs: {max_concurrent_runs}
    # one place is left for small files, so that they do not wait for large ones
    tag_concurrency_limits: [{{key: {size_tag}, value: {large}, limit: {most_large}}}]
run_monitoring: {{enabled: true, poll_interval_seconds: 10, start_timeout_seconds: 120, free_slots_after_run_end_seconds: 5}}
run_retries: {{enabled: true, max_retries: 0}}
sensors: {{use_threads: true, num_workers: 2}}
retention:
  sensor: {{purge_after_days: {{skipped: 1, success: 30, failure: 30}}}}
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
telemetry: {{enabled: false}}
nux: {{enabled: false}}
"""


def prepare_dagster_home(system: System) -> dict[str, str]:
    """Write dagster.yaml unless it is somebody's, make Dagster's schema, and put what both need into the environment.

    Returns these variables, of which one has the database's password.
    """
    settings = system.settings
    home = settings.dagster_home
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists() or _is_ours(config.read_text()):
        config.write_text(_config(settings.max_concurrent_runs))
    # as whoever logs in: Dagster's tables are none of the application's
    with contextlib.closing(Database(system.endpoints.database_url)) as database, database.begin() as transaction:
        transaction.execute("create_dagster_schema")
    variables = {
        "DAGSTER_HOME": str(home),
        "DAGSTER_PG_URL": dagster_url(system.endpoints.database_url, SCHEMA).get_secret_value(),
        "DAGSTER_REDACT_USER_CODE_ERRORS": "1",
    }
    export_environment(**variables)
    return variables


def _config(places: int) -> str:
    return CONFIG.format(max_concurrent_runs=places, size_tag=SIZE_TAG, large=LARGE, most_large=max(places - 1, 1))


def _is_ours(config: str) -> bool:
    places = re.search(r"max_concurrent_runs: (\d+)", config)
    return places is not None and config == _config(int(places[1]))


@contextmanager
def dagster_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Open Dagster's records, after `prepare_dagster_home`; raise DatabaseUnavailable where they do not answer any more."""
    with _no_words_of_others(), dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        keep_connections(instance)
        yield instance


def keep_connections(instance: dg.DagsterInstance) -> None:
    """Keep connections to Dagster's records open, as its web server does.

    Opening one for each of a run's hundreds of statements is half of the run's time.
    """
    instance.optimize_for_webserver(statement_timeout=60_000, pool_recycle=3_600, max_overflow=DAGSTER_POOL_SIZE - 1)
    instance.handle_new_event = _no_words_of_others()(instance.handle_new_event)  # type: ignore[method-assign]


@contextmanager
def _no_words_of_others() -> Iterator[None]:
    """Raise our own error where Dagster's records do not answer: Dagster's has the statement and its values."""
    try:
        with failures_as_unavailable():
            yield
    except DagsterPostgresException:
        raise DatabaseUnavailable(None, "Dagster's records do not answer") from None


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

"""DAGSTER_HOME: dagster.yaml as the settings have it until somebody edits it, and what Dagster's programs need beside it.

Secrets stay in the environment. Dagster's records are opened in `dagster_records.py`, runs started in the launchers.
"""

from __future__ import annotations

import contextlib
import hashlib
import re

from orders_pipeline.batches.run_tags import LARGE, SIZE_TAG
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.orchestration import kubernetes_jobs
from orders_pipeline.orchestration.dagster_records import make_schema, records_url
from orders_pipeline.system.composition import System
from orders_pipeline.system.settings import Settings, export_environment

HEADER = (
    "# Follows the settings of orders-pipeline until you change it; then it is yours. Secrets stay in the environment.\n"
)
DIGEST = re.compile(r"# As it was written: ([0-9a-f]{16})\n")
CONFIG = """\
storage:
{records}
defs_state_storage:
  module: orders_pipeline.orchestration.dagster_records
  class: NoStates
run_coordinator:
  module: orders_pipeline.orchestration.run_queue
  class: RunQueue
  config: {{dequeue_interval_seconds: 1}}
run_launcher:
{launcher}
concurrency:
  runs:
    max_concurrent_runs: {max_concurrent_runs}
    # one place is left for small files, so that they do not wait for large ones
    tag_concurrency_limits: [{{key: {size_tag}, value: {large}, limit: {most_large}}}]
run_monitoring: {{enabled: true, poll_interval_seconds: 10, start_timeout_seconds: {start_timeout_s}, \
free_slots_after_run_end_seconds: 5}}
run_retries: {{enabled: true, max_retries: 0}}
sensors: {{use_threads: true, num_workers: 2, num_submit_workers: 4}}
retention:
  sensor: {{purge_after_days: {{skipped: 1, success: 30, failure: 30}}}}
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
telemetry: {{enabled: false}}
nux: {{enabled: false}}
"""
RECORDS_BY_VARIABLE = """\
  postgres:
    postgres_url: {env: DAGSTER_PG_URL}
    should_autocreate_tables: false"""
RECORDS_BY_SETTINGS = """\
  custom:
    module: orders_pipeline.orchestration.dagster_records
    class: RecordsBySettings"""
FORK = """\
  module: orders_pipeline.orchestration.run_launcher
  class: ForkingRunLauncher"""
CELERY = """\
  module: orders_pipeline.orchestration.celery_launcher
  class: CeleryLauncher"""
START_TIMEOUT_S = 120
FAR_START_TIMEOUT_S = 600  # a run waits in the broker for a worker, or for an image and a node


def prepare_dagster_home(system: System) -> dict[str, str]:
    """Write dagster.yaml unless it is somebody's, make Dagster's schema, and put what both need into the environment.

    Returns these variables, of which one has the database's password.
    """
    settings = system.settings
    home = settings.dagster_home
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists() or _is_ours(config.read_text()):
        config.write_text(new_config(settings))
    # as whoever logs in: Dagster's tables are none of the application's
    with contextlib.closing(Database(system.endpoints.database_url)) as database:
        make_schema(database)
    variables = {
        "DAGSTER_HOME": str(home),
        "DAGSTER_PG_URL": records_url(system.endpoints.database_url),
        "DAGSTER_REDACT_USER_CODE_ERRORS": "1",
    }
    export_environment(**variables)
    return variables


def new_config(settings: Settings) -> str:
    """Return dagster.yaml for these settings."""
    body = _body(settings)
    return f"{HEADER}# As it was written: {_digest(body)}\n{body}"


def _body(settings: Settings) -> str:
    launchers = {"fork": FORK, "celery": CELERY, "kubernetes": kubernetes_jobs.launcher_config(settings)}
    places = settings.max_concurrent_runs
    return CONFIG.format(
        records=RECORDS_BY_SETTINGS if settings.has_many_hosts else RECORDS_BY_VARIABLE,
        launcher=launchers[settings.run_launcher],
        max_concurrent_runs=places,
        size_tag=SIZE_TAG,
        large=LARGE,
        most_large=max(places - 1, 1),
        start_timeout_s=FAR_START_TIMEOUT_S if settings.has_many_hosts else START_TIMEOUT_S,
    )


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def _is_ours(config: str) -> bool:
    """Return whether a dagster.yaml is as we wrote it, by its digest."""
    body = config.removeprefix(HEADER)
    written = DIGEST.match(body)
    return written is not None and _digest(body.removeprefix(written[0])) == written[1]

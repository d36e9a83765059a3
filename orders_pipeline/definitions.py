"""What Dagster loads: assets, jobs, sensors, schedules and the resource, put together and nothing else."""

import logging
import warnings

import dagster as dg

from orders_pipeline.orchestration.assets import ASSETS
from orders_pipeline.orchestration.dagster_errors import ListMasked
from orders_pipeline.orchestration.jobs import process_batch, rotate_keys
from orders_pipeline.orchestration.refund_job import refund_batch
from orders_pipeline.orchestration.resources import SystemResource
from orders_pipeline.orchestration.schedules import (
    daily_client_days,
    daily_reconciliation,
    daily_retention,
    weekly_verification,
)
from orders_pipeline.orchestration.sensors import alert_sensor, audit_sensor, landing_sensor, stalled_sensor
from orders_pipeline.system.settings import export_environment

# What an asset fails with was made safe at its boundary; Dagster's own copy of the exception would name files and more:
# it shows an id instead.
export_environment(DAGSTER_REDACT_USER_CODE_ERRORS="1")
_redacted = logging.getLogger("dagster.redacted_errors")
_redacted.addHandler(ListMasked())
_redacted.propagate = False

# Dagster warns of what it passes itself when it copies a sensor for several jobs
warnings.filterwarnings("ignore", "Parameter `owners`", dg.BetaWarning)

defs = dg.Definitions(
    assets=ASSETS,
    jobs=[process_batch, refund_batch, rotate_keys],
    schedules=[daily_client_days, daily_reconciliation, daily_retention, weekly_verification],  # with their jobs
    sensors=[landing_sensor, stalled_sensor, audit_sensor, alert_sensor],
    resources={"system": SystemResource.of_settings()},
    executor=dg.in_process_executor,
)

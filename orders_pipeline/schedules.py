"""What happens by the clock: the ledgers are compared every night.

What a schedule starts belongs in `assets/`; batches are started by what arrives, in `sensors.py`.
"""

import dagster as dg

reconcile = dg.define_asset_job(
    "reconcile",
    selection=dg.AssetSelection.assets("reconciliation"),
    executor_def=dg.in_process_executor,
    tags={"dagster/max_retries": "2"},
    description="Compares our payments with the Payment service's own list, both ways. Running it again does no harm.",
)
daily_reconciliation = dg.ScheduleDefinition(
    name="daily_reconciliation",
    job=reconcile,
    cron_schedule="0 3 * * *",
    execution_timezone="Asia/Tokyo",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at three in Japan, the ledgers are compared.",
)

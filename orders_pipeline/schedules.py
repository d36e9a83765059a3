"""What happens by the clock: every night the ledgers are compared, and then what is past its time moves on.

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

retain = dg.define_asset_job(
    "retain",
    selection=dg.AssetSelection.assets("retention"),
    executor_def=dg.in_process_executor,
    tags={"dagster/max_retries": "2"},
    description="Moves what is past its time in the audit and in Dagster's events. Running it again does no harm.",
)
daily_retention = dg.ScheduleDefinition(
    name="daily_retention",
    job=retain,
    cron_schedule="0 4 * * *",
    execution_timezone="Asia/Tokyo",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at four in Japan, audit records move on by their limits.",
)

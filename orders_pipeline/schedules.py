"""What happens by the clock: ledgers compared, what is past its time moved on, every night; the audit verified once a week.

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

verify_audit = dg.define_asset_job(
    "verify_audit",
    selection=dg.AssetSelection.assets("verification"),
    executor_def=dg.in_process_executor,
    tags={"dagster/max_retries": "2"},
    description="Verifies the whole audit, also what is in the storage, and holds every row against it.",
)
weekly_verification = dg.ScheduleDefinition(
    name="weekly_verification",
    job=verify_audit,
    cron_schedule="0 5 * * 0",
    execution_timezone="Asia/Tokyo",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="On Sundays at five in Japan, the whole audit is verified.",
)

"""What happens by the clock: ledgers compared, what is past its time moved on, every night; the audit verified once a week.

What a schedule starts belongs in `assets/`; batches are started by what arrives, in `sensors.py`.
"""

from collections.abc import Callable
from datetime import timedelta

import dagster as dg

JAPAN = "Asia/Tokyo"


def _by_the_clock(
    name: str, cron: str, when: str, *, job: str, asset: str, what: str, asks: Callable[..., dg.RunRequest] | None = None
) -> dg.ScheduleDefinition:
    """Return a schedule, by the clock of Japan, and with it the job that makes one asset; `asks` says of which day."""
    return dg.ScheduleDefinition(
        name=name,
        job=dg.define_asset_job(
            job,
            selection=dg.AssetSelection.assets(asset),
            executor_def=dg.in_process_executor,
            tags={"dagster/max_retries": "2"},
            description=what,
        ),
        cron_schedule=cron,
        execution_timezone=JAPAN,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        execution_fn=asks,
        description=when,
    )


def _day_before(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Ask for the day that has just ended."""
    day = context.scheduled_execution_time - timedelta(days=1)
    return dg.RunRequest(partition_key=f"{day:%Y-%m-%d}")


daily_client_days = _by_the_clock(
    "daily_client_days",
    "30 0 * * *",
    "Every night at half past midnight in Japan, the day before is counted by client.",
    job="count_client_days",
    asset="client_day",
    what="Counts what each client's files of a day came to. Running it again does no harm.",
    asks=_day_before,
)
daily_reconciliation = _by_the_clock(
    "daily_reconciliation",
    "0 3 * * *",
    "Every night at three in Japan, the ledgers are compared.",
    job="reconcile",
    asset="reconciliation",
    what="Compares our payments with the Payment service's own list, both ways. Running it again does no harm.",
)
daily_retention = _by_the_clock(
    "daily_retention",
    "0 4 * * *",
    "Every night at four in Japan, audit records move on by their limits.",
    job="retain",
    asset="retention",
    what="Moves what is past its time in the audit and in Dagster's events. Running it again does no harm.",
)
weekly_verification = _by_the_clock(
    "weekly_verification",
    "0 5 * * 0",
    "On Sundays at five in Japan, the whole audit is verified.",
    job="verify_audit",
    asset="verification",
    what="Verifies the whole audit, also what is in the storage, and holds every row against it.",
)

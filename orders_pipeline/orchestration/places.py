"""Places: a run that only waits for the rate of notifications makes room for a file that nobody has read yet.

How many runs there may be at once is said in `dagster_home.py`. The rest of such a batch is resumed by `stalled_sensor`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from orders_pipeline.batches import batches
from orders_pipeline.batches.run_tags import LARGE, PROCESS, RESUMES, SIZE_TAG, VIA_TAG, WAITS_FOR_RATE
from orders_pipeline.infrastructure.background import beside
from orders_pipeline.settlement.batch_settlement import Settlement
from orders_pipeline.system.composition import System

POLL_S = 2.0
WORTHWHILE_S = 20.0  # a run that takes less than this to notify the others ends sooner than another begins
DAEMON_S = 60.0  # who has not said anything for so long starts no run


@contextlib.contextmanager
def giving_way(context: dg.AssetExecutionContext, system: System, work: Settlement | None) -> Iterator[threading.Event]:
    """Stop a settlement that has paid all once others need its place; the event that is returned says so then.

    Of runs that somebody started himself none is stopped: they have no place that a queue gave them.
    """
    gave_way = threading.Event()

    def watch(over: threading.Event) -> None:
        waits, queued = False, set[str]()
        while work is not None and not over.wait(POLL_S):
            with contextlib.suppress(Exception):  # records or a database that cannot be reached now are asked again
                if not work.has_paid:
                    continue
                if not waits:
                    if not _waits_long(system, context.partition_key):
                        return  # it will not be more
                    context.instance.add_run_tags(context.run.run_id, WAITS_FOR_RATE)
                    waits = True
                needed = _newcomers(context.instance, context.run)
                is_needed = queued & needed and _is_first(context.instance, context.run, len(needed))
                if is_needed and _waits_long(system, context.partition_key):
                    gave_way.set()
                    work.stop()
                    return
                queued = needed

    if not {"dagster/sensor_name", VIA_TAG} & context.run.tags.keys():
        yield gave_way
        return
    with beside(watch, "place"):
        yield gave_way


def _waits_long(system: System, batch_id: str) -> bool:
    """Return whether nothing but notifications is left of a batch, and many."""
    with system.database.begin() as transaction:
        batch = batches.progress(transaction, batch_id)
    many = WORTHWHILE_S * system.settings.notification_rate_per_s
    return not batches.open_orders(batch) and batches.open_notifications(batch) > many


def _newcomers(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[str]:
    """Return the runs of files nobody has begun with that a run's place would help, if anything gives it to them."""
    heard = instance.get_daemon_heartbeats().get("QUEUED_RUN_COORDINATOR")
    if heard is None or heard.timestamp < time.time() - DAEMON_S:
        return set()
    queued = instance.get_runs(RunsFilter(job_name=PROCESS, statuses=[DagsterRunStatus.QUEUED]))
    return {each.run_id for each in queued if not _is_large(each, than=run) and not RESUMES.items() <= each.tags.items()}


def _is_first(instance: dg.DagsterInstance, run: dg.DagsterRun, needed: int) -> bool:
    """Return whether a run is among as many of those that only wait as places are needed: not all make room for one."""
    waiting = instance.get_runs(RunsFilter(job_name=PROCESS, statuses=[DagsterRunStatus.STARTED], tags=WAITS_FOR_RATE))
    return run.run_id in sorted(each.run_id for each in waiting if not _is_large(run, than=each))[:needed]


def _is_large(run: dg.DagsterRun, *, than: dg.DagsterRun) -> bool:
    """Return whether a run needs a place for large files, and another one's is none."""
    return run.tags.get(SIZE_TAG) == LARGE and than.tags.get(SIZE_TAG) != LARGE

"""Places: a run that only waits for the rate of notifications makes room for a file that nobody has read yet.

How many runs there may be at once is said in `dagster_home.py`. The rest of such a batch is resumed by `stalled_sensor`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.run_coordinator.queued_run_coordinator import RunQueueConfig
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from orders_pipeline.batches import batches
from orders_pipeline.batches.run_tags import LARGE, PROCESS, RESUMES, SIZE_TAG, VIA_TAG, WAITS_FOR_RATE
from orders_pipeline.infrastructure.background import beside
from orders_pipeline.settlement.batch_settlement import Settlement
from orders_pipeline.system.composition import System
from orders_pipeline.system.daemon import SILENT_S

POLL_S = 2.0
WORTHWHILE_S = 20.0  # a run that takes less than this to notify the others ends sooner than another begins
TURN_S = 60.0  # a run that goes on with such a batch keeps its place at least so long, whoever waits
MOST_QUEUED = 100  # are looked at, the first in the queue: every run that waits looks again and again


@contextlib.contextmanager
def giving_way(context: dg.AssetExecutionContext, system: System, work: Settlement | None) -> Iterator[threading.Event]:
    """Stop a settlement that has paid all once others need its place; the event that is returned says so then.

    Of runs that somebody started himself none is stopped: they have no place that a queue gave them.
    """
    gave_way = threading.Event()

    def watch(over: threading.Event) -> None:
        waits, queued = False, set[str]()
        if RESUMES.items() <= context.run.tags.items() and over.wait(TURN_S):
            return
        while work is not None and not over.wait(POLL_S):
            with contextlib.suppress(Exception):  # records or a database that cannot be reached now are asked again
                if not work.has_paid:
                    continue
                if not waits:
                    if not _waits_long(system, context.partition_key):
                        return  # it will not be more
                    context.instance.add_run_tags(context.run.run_id, WAITS_FOR_RATE)
                    waits = True
                newcomers = _newcomers(context.instance)
                still = [each for each in newcomers if each.run_id in queued]
                is_needed = still and context.run.run_id in _leaving(*_under_way(context.instance), still)
                if is_needed and _waits_long(system, context.partition_key):
                    gave_way.set()
                    work.stop()
                    return
                queued = {each.run_id for each in newcomers}

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


def _newcomers(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Return the runs in the queue for files that nobody has begun with, if there is a daemon that would begin."""
    heard = instance.get_daemon_heartbeats().get("QUEUED_RUN_COORDINATOR")
    if heard is None or heard.timestamp < time.time() - SILENT_S:
        return []
    in_queue = RunsFilter(job_name=PROCESS, statuses=[DagsterRunStatus.QUEUED])
    queued = instance.get_runs(in_queue, limit=MOST_QUEUED, ascending=True)
    return [each for each in queued if not RESUMES.items() <= each.tags.items()]


def _under_way(instance: dg.DagsterInstance) -> tuple[RunQueueConfig, Sequence[dg.DagsterRun]]:
    """Return how many runs there may be, and those that there are."""
    limits = instance.get_concurrency_config().run_queue_config
    if limits is None:
        raise AssertionError("runs come from a queue")
    return limits, instance.get_runs(RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES))


def _leaving(limits: RunQueueConfig, under_way: Sequence[dg.DagsterRun], newcomers: Sequence[dg.DagsterRun]) -> set[str]:
    """Return which runs make room for newcomers: one for each that no free place helps, the same whoever asks."""
    free = max(limits.max_concurrent_runs - len(under_way), 0)
    of_tags = limits.tag_concurrency_limits  # which whoever has changed dagster.yaml may have others of, without a value
    bounds = [each["limit"] for each in of_tags if (each["key"], each.get("value")) == (SIZE_TAG, LARGE)]
    free_for_large = min([free, *(max(bound - _large(under_way), 0) for bound in bounds)])
    large = max(_large(newcomers) - free_for_large, 0)
    small = max(len(newcomers) - _large(newcomers) - free, 0)
    leaving = set()
    for run in sorted(filter(_waits, under_way), key=lambda each: each.run_id):
        if large and _large([run]):
            large -= 1
        elif small:
            small -= 1
        else:
            continue
        leaving.add(run.run_id)
    return leaving


def _waits(run: dg.DagsterRun) -> bool:
    return run.status is DagsterRunStatus.STARTED and WAITS_FOR_RATE.items() <= run.tags.items()


def _large(runs: Sequence[dg.DagsterRun]) -> int:
    """Return how many of some runs take a place for large files."""
    return sum(run.tags.get(SIZE_TAG) == LARGE for run in runs)

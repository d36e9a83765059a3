"""The queue of runs that dagster.yaml names: Dagster's own, which notes who asks, and whose daemon works alone.

Who asks is known in `attribution.py`, how runs are forked in `run_launcher.py`, which daemon works in `system/daemon.py`.
"""

from __future__ import annotations

import dagster as dg
from dagster import QueuedRunCoordinator
from dagster._core.run_coordinator import SubmitRunContext
from dagster._utils.interrupts import raise_interrupts_as

from orders_pipeline.batches.run_tags import TRIED_AGAIN
from orders_pipeline.orchestration.attribution import note_who_asks
from orders_pipeline.orchestration.daemon_log import keep_short
from orders_pipeline.orchestration.dagster_records import keep_connections, records_database
from orders_pipeline.orchestration.run_launcher import ForkingRunLauncher
from orders_pipeline.system.daemon import DaemonLock
from orders_pipeline.system.session_limit import DAEMON_POOL_SIZE


class RunQueue(QueuedRunCoordinator):
    """Dagster's queue."""

    _lock: DaemonLock | None = None  # of Dagster's daemon alone

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Queue a run; one that is tried again is first: payments that its process was lost with are unclear till then."""
        note_who_asks(self._instance, context)
        if context.dagster_run.parent_run_id is not None:
            self._instance.add_run_tags(context.dagster_run.run_id, TRIED_AGAIN)
        return super().submit_run(context)

    @property
    def dequeue_interval_seconds(self) -> int:
        """Return how often Dagster's daemon looks; it alone asks, before it begins with anything.

        So here it waits until it may work, and is made ready for its first runs.
        """
        keep_short()
        database = records_database(self._instance)
        if database is not None:
            self._lock = DaemonLock(database)
            with raise_interrupts_as(KeyboardInterrupt):  # Dagster itself would look for one only when it has begun
                self._lock.take()
            keep_connections(self._instance, DAEMON_POOL_SIZE, self._lock.require)
        launcher = self._instance.run_launcher
        if isinstance(launcher, ForkingRunLauncher):
            launcher.make_ready()
        return super().dequeue_interval_seconds

    def dispose(self) -> None:
        """Let another daemon take over, at the end of this one."""
        if self._lock is not None:
            self._lock.release()
        super().dispose()

"""How the daemon starts runs: forks of one process that has the libraries, not the product, imported already.

Dagster's own launcher starts an interpreter for each run, which imports Dagster, pandas and Pandera before it does
anything: seconds of a core for every small file. `dagster.yaml` in DAGSTER_HOME names this launcher or another; what
their processes do is in `run_process.py`.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.process
import multiprocessing.resource_tracker
from functools import partial

import dagster as dg
from dagster._core.launcher import LaunchRunContext, RunLauncher
from dagster._serdes import ConfigurableClassData

from orders_pipeline.orchestration.run_process import LIBRARIES, cancel, execute
from orders_pipeline.orchestration.without_settings import WithoutSettings


class ForkingRunLauncher(WithoutSettings, RunLauncher[dg.DagsterInstance]):
    """Starts runs as processes of the daemon's host, which run on without the daemon and end when they are canceled.

    Under `up` they end with it.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(LIBRARIES)
        super().__init__(inst_data)

    def make_ready(self) -> None:
        """Start the process that runs are forked of, unless it is there; it imports its libraries while nobody waits."""
        multiprocessing.forkserver.ensure_running()

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run's process. Raise OSError if there can be none."""
        open_instance = partial(dg.DagsterInstance.from_ref, self._instance.get_ref())
        process = self._processes.Process(target=execute, args=(open_instance, context.dagster_run.run_id))
        process.start()
        # whose ends we would wait for at ours; the tracker, from Python 3.13 on, ends when the last run does
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
        multiprocessing.resource_tracker._resource_tracker._pid = None  # type: ignore[attr-defined]

    def terminate(self, run_id: str) -> bool:
        """Ask a run to end, wherever its process is; return whether it had not ended yet."""
        return cancel(self._instance, run_id)

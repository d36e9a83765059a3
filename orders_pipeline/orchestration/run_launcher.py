"""How the daemon starts runs: forks of one process that has the libraries, not the product, imported already.

Dagster's own launcher starts an interpreter for each run, which imports Dagster, pandas and Pandera before it does
anything: seconds of a core for every small file. `dagster.yaml` in DAGSTER_HOME names this launcher or another; what a
run does is in `jobs.py`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.process
import multiprocessing.resource_tracker
import os
import signal
import threading
import time
from collections.abc import Mapping
from typing import Any, Self

import dagster as dg
from dagster._config import UserConfigSchema
from dagster._core.events import EngineEventData
from dagster._core.instance import InstanceRef
from dagster._core.launcher import LaunchRunContext, RunLauncher
from dagster._grpc.impl import core_execute_run
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster._utils.hosted_user_process import recon_job_from_origin
from dagster._utils.interrupts import capture_interrupts, setup_interrupt_handlers

from orders_pipeline.orchestration.runs import keep_connections
from orders_pipeline.orchestration.terminated_runs import is_terminated
from orders_pipeline.system.settings import ends_with_up

# libraries only: a module of ours would be as old as the daemon
LIBRARIES = ["dagster._cli", "dagster_postgres", "pandera.pandas", "pyarrow", "psycopg", "pydantic_settings", "requests"]
CANCEL_POLL_S = 1.0


class ForkingRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Starts runs as processes of the daemon's host, which run on without the daemon and end when they are canceled.

    Under `up` they end with it.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(LIBRARIES)
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """Return how dagster.yaml names this launcher."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return the settings that dagster.yaml may give: none."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:  # noqa: ARG003
        """Make the launcher that dagster.yaml names."""
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run's process; the first of a daemon waits for the libraries. Raise OSError if there can be none."""
        process = self._processes.Process(target=_execute, args=(self._instance.get_ref(), context.dagster_run.run_id))
        process.start()
        # whose ends we would wait for at ours; the tracker, from Python 3.13 on, ends when the last run does
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
        multiprocessing.resource_tracker._resource_tracker._pid = None  # type: ignore[attr-defined]

    def terminate(self, run_id: str) -> bool:
        """Ask a run to end, wherever its process is; return whether it had not ended yet."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        return True


def _execute(instance_ref: InstanceRef, run_id: str) -> None:
    if not ends_with_up():
        os.setsid()  # no signal to the daemon's group or terminal is meant for a run
    setup_interrupt_handlers()
    with dg.DagsterInstance.from_ref(instance_ref) as instance, capture_interrupts():
        keep_connections(instance)
        run = instance.get_run_by_id(run_id)
        if run is None or run.job_code_origin is None:
            return
        pid = os.getpid()
        instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
        threading.Thread(target=_interrupt_when_canceled, args=(instance, run_id), daemon=True).start()
        job = recon_job_from_origin(run.job_code_origin)
        with contextlib.suppress(BaseException):  # the run's events say what it was
            for _ in core_execute_run(job, run, instance, inject_env_vars=True):
                pass
        instance.report_engine_event(f"Process for run exited (pid: {pid}).", run)


def _interrupt_when_canceled(instance: dg.DagsterInstance, run_id: str) -> None:
    while True:
        time.sleep(CANCEL_POLL_S)
        with contextlib.suppress(Exception):  # records that cannot be reached now are asked again
            if is_terminated(instance, run_id):
                os.kill(os.getpid(), signal.SIGINT)
                return

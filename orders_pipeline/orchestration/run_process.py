"""What the process of a run does, whichever launcher started it: libraries, records kept open, an ear for its end.

A process that a launcher of ours starts calls `execute`. In one of Dagster's own, as on Kubernetes, a signal says that the
run was canceled, and `resources.py` keeps the records open. What a run does is in `jobs.py`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import dagster as dg
from dagster import DagsterRunStatus
from dagster._core.events import EngineEventData
from dagster._grpc.impl import core_execute_run
from dagster._utils.hosted_user_process import recon_job_from_origin
from dagster._utils.interrupts import capture_interrupts, setup_interrupt_handlers

from orders_pipeline.infrastructure.database_errors import DatabaseUnavailable
from orders_pipeline.orchestration.daemon_log import keep_single
from orders_pipeline.orchestration.dagster_records import keep_connections
from orders_pipeline.orchestration.terminated_runs import is_terminated
from orders_pipeline.system.settings import ends_with_up

# of which runs are forked; libraries only: a module of ours would be as old as the daemon
LIBRARIES = [
    *("dagster._cli", "dagster_postgres", "pyarrow.pandas_compat", "psycopg", "pydantic_settings", "requests"),
    # with what Pandera imports when it first validates
    *("pandera.pandas", "pandera.backends.pandas.container", "pandera.strategies.pandas_strategies"),
]
CANCEL_POLL_S = 1.0
NOT_BEGUN = (DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.CANCELING)


def execute(open_instance: Callable[[], AbstractContextManager[dg.DagsterInstance]], run_id: str) -> None:
    """Be the process of a run from its start to its end; one that has begun already, in another process, is left alone."""
    gc.freeze()  # a collection that goes through all that the run was forked with takes tenths of a second
    if not ends_with_up():
        os.setsid()  # no signal to the launcher's group or terminal is meant for a run
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where our parent ignores it
    setup_interrupt_handlers()
    keep_single()
    with capture_interrupts(), open_instance() as instance:
        keep_connections(instance)
        run = instance.get_run_by_id(run_id)
        if run is None or run.job_code_origin is None or run.status not in NOT_BEGUN:
            return
        pid = os.getpid()
        instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
        threading.Thread(target=_interrupt_when_canceled, args=(instance, run_id), daemon=True).start()
        job = recon_job_from_origin(run.job_code_origin)
        with contextlib.suppress(BaseException):  # the run's events say what it was
            for _ in core_execute_run(job, run, instance, inject_env_vars=True):
                pass
        with contextlib.suppress(DatabaseUnavailable):
            instance.report_engine_event(f"Process for run exited (pid: {pid}).", run)


def cancel(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Ask a run to end, wherever its process is; return whether it had not ended yet."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return False
    instance.report_run_canceling(run)
    return True


def _interrupt_when_canceled(instance: dg.DagsterInstance, run_id: str) -> None:
    while True:
        time.sleep(CANCEL_POLL_S)
        with contextlib.suppress(Exception):  # records that cannot be reached now are asked again
            if is_terminated(instance, run_id):
                os.kill(os.getpid(), signal.SIGINT)
                return

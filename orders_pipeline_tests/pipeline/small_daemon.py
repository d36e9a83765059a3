"""A daemon in small: launches one run of each job named as the configured launcher does, and ends when its input does."""

from __future__ import annotations

import sys
import time
from typing import Any, cast

import dagster as dg


@dg.job(executor_def=dg.in_process_executor)
def short_job() -> None:
    """End at once."""

    @dg.op
    def nothing() -> None:
        pass

    nothing()


@dg.job(executor_def=dg.in_process_executor)
def endless_job() -> None:
    """End when it is canceled."""

    @dg.op
    def wait() -> None:
        while True:
            time.sleep(0.01)

    wait()


def main() -> None:
    """Launch, say each run's id, and wait."""
    with dg.DagsterInstance.get() as instance:
        for name in sys.argv[1:]:
            job = dg.reconstructable(getattr(sys.modules["orders_pipeline_tests.pipeline.small_daemon"], name))
            run = instance.create_run_for_job(job.get_definition(), job_code_origin=job.get_python_origin())
            instance.launch_run(run.run_id, cast(Any, None))
            sys.stdout.write(f"{run.run_id}\n")
            sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    from orders_pipeline_tests.pipeline import small_daemon

    small_daemon.main()

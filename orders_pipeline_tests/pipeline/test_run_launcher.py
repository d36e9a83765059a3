"""Runs as the daemon starts them: forks that end by themselves, outlive the daemon, and are canceled from elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from dagster import DagsterRunStatus

from orders_pipeline.orchestration.dagster_home import prepare_dagster_home
from orders_pipeline.orchestration.run_launcher import ForkingRunLauncher
from orders_pipeline.orchestration.run_process import LIBRARIES
from orders_pipeline_tests.support.commands import processes_of, wait_for
from orders_pipeline_tests.support.installation import Installation
from orders_pipeline_tests.support.soak import first_of

SMALL_DAEMON = "orders_pipeline_tests.pipeline.small_daemon"


@pytest.mark.parametrize("in_order", first_of([False, True]))
def test_runs_end_by_themselves_outlive_the_daemon_and_are_canceled_from_elsewhere(
    installation: Installation, *, in_order: bool
) -> None:
    launcher = installation.instance.run_launcher
    assert isinstance(launcher, ForkingRunLauncher)
    command = [sys.executable, "-m", SMALL_DAEMON, "short_job", "endless_job", "endless_job"]
    mark = str(uuid.uuid4())
    environment = os.environ | {"STARTED_BY": mark}
    daemon = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    short, endless, forced = (daemon.stdout.readline().strip() for _ in range(3))

    def status(run_id: str) -> DagsterRunStatus:
        run = installation.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    wait_for(lambda: status(short) is DagsterRunStatus.SUCCESS, "the short run's end")
    assert not launcher.terminate(short)
    assert not launcher.terminate("no-such-run")

    started = DagsterRunStatus.STARTED
    wait_for(lambda: status(endless) is started and status(forced) is started, "the endless runs' start")
    if in_order:
        daemon.stdin.close()
    else:  # as a supervisor does who ends all that is in its group
        os.killpg(daemon.pid, signal.SIGKILL)
    daemon.wait(20)
    assert status(endless) is status(forced) is started
    assert launcher.terminate(endless)
    assert status(endless) is DagsterRunStatus.CANCELING
    wait_for(lambda: status(endless) is DagsterRunStatus.CANCELED, "the endless run's end")
    run = installation.instance.get_run_by_id(forced)
    assert run is not None
    installation.instance.report_run_canceled(run)
    wait_for(lambda: not processes_of(mark), "every process that was started to be gone")


def test_dagsters_configuration_follows_the_settings_until_somebody_changes_it(
    installation: Installation, tmp_path: Path
) -> None:
    def written(places: int) -> str:
        changes = {"home": tmp_path, "max_concurrent_runs": places}
        prepare_dagster_home(replace(installation.system, settings=installation.system.settings.model_copy(update=changes)))
        return config.read_text()

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
        config = tmp_path / "dagster" / "dagster.yaml"
        assert "max_concurrent_runs: 3\n" in written(3)
        assert "max_concurrent_runs: 5\n" in written(5)
        changed = config.read_text().replace("ForkingRunLauncher", "AnotherLauncher")
        config.write_text(changed)
        assert written(7) == changed


def test_the_process_that_is_forked_has_nothing_of_the_product_imported() -> None:
    assert not [name for name in LIBRARIES if name.partition(".")[0].startswith("orders_pipeline")]

"""N03 and N04: what the Notification service receives in any second, from many processes, and how long it all takes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from orders_pipeline_tests.support.commands import call, end, start, wait_for
from orders_pipeline_tests.support.installation import CALLS_A_SECOND, Installation, check_finished
from orders_pipeline_tests.support.scenario import Scenario

PROCESSES = 8
LATENCY_MS = 5


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """Keep the processors busy with something else."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for each in busy:
            each.kill()
            each.wait()


@pytest.mark.soak
def test_n03_no_second_sees_an_eleventh_call_from_eight_processes_of_which_some_are_stopped_and_killed(
    installation: Installation,
) -> None:
    scenario = Scenario(installation, installation.system, "n03")
    installation.sandbox.change(notification_latency_ms=LATENCY_MS)
    batch_id = scenario.receive(300)
    scenario.prepare(batch_id)
    environment = installation.environment(ORDERS_NOTIFICATION_TIMEOUT_S="2")

    def told() -> int:
        return installation.sandbox.ledger()["notifications"]["sent"]

    with hogs(2):
        processes = [start(environment, "resume", batch_id) for _ in range(PROCESSES)]
        wait_for(lambda: told() >= 50, "some notifications")
        processes[0].send_signal(signal.SIGSTOP)
        for each in processes[1:4]:
            each.kill()
        wait_for(lambda: told() >= 100, "more notifications")
        processes[0].send_signal(signal.SIGCONT)
        for each in processes:
            end(each)
    call(environment, "resume", batch_id)
    assert check_finished(installation, batch_id)["notifications"]["sent"] == 300
    assert installation.sandbox.ledger()["notifications"]["worst_window"] <= CALLS_A_SECOND


@pytest.mark.soak
def test_n04_notifications_take_hardly_longer_than_the_service_lets_them(installation: Installation) -> None:
    count = 500  # of 10,000, which may take 1,050 s
    scenario = Scenario(installation, installation.system, "n04")
    installation.sandbox.change(notification_latency_ms=LATENCY_MS)
    summary = scenario.finish(scenario.receive(count))
    assert summary["seconds"]["notify"] <= 1050 * count / 10_000 + 3

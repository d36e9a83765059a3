"""C12 to C19: an import that is killed while it pays and notifies, and goes on where it stopped; services that misbehave.

Whatever happens, the services' own ledger says in the end that every order was charged once, every customer told once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.settlement import sweep
from orders_pipeline_tests.support.commands import PATIENCE_S, answer, call, end, start, wait_for
from orders_pipeline_tests.support.installation import Installation, check_books, check_finished

CLIENT = "acme"


def sample(installation: Installation, rows: int, seed: int = 1, bad: float = 0.0) -> Path:
    path = installation.home / f"orders-{seed}.csv"
    write_sample(path, rows=rows, seed=seed, bad=bad)
    return path


@contextlib.contextmanager
def at_work(installation: Installation, *arguments: str | Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command and be sure that it and all its threads are gone afterwards."""
    # what a killed process held of the rate is free after this time-out
    process = start(installation.environment(ORDERS_NOTIFICATION_TIMEOUT_S="2", **settings), *arguments)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)


def booked(installation: Installation) -> int:
    return installation.sandbox.ledger()["payments"]["count"]


def told(installation: Installation) -> int:
    return installation.sandbox.ledger()["notifications"]["sent"]


def batches_of(installation: Installation) -> list[str]:
    return [batch_id for (batch_id,) in installation.rows("SELECT batch_id FROM batches ORDER BY received_at")]


def kill_when(installation: Installation, process: subprocess.Popen[str], payments: int) -> None:
    """Kill the command as soon as the service has booked so many payments."""
    wait_for(lambda: booked(installation) >= payments or process.poll() is not None, f"{payments} payments")
    process.kill()


def payments_planned(installation: Installation) -> int:
    return installation.rows("SELECT count(*) FROM payments")[0][0]


@pytest.mark.soak
def test_c14_a_batch_killed_five_times_while_paying_charges_and_notifies_everybody_once(installation: Installation) -> None:
    path = sample(installation, 200)
    # a service that charges an order again when it is asked with another key
    installation.sandbox.change(latency_ms=120, notification_latency_ms=20, guard_orders=False)
    with at_work(installation, "import", path, "--client", CLIENT, ORDERS_PAYMENT_CONCURRENCY="4") as process:
        kill_when(installation, process, 1)
    (batch_id,) = batches_of(installation)
    planned = payments_planned(installation)
    assert 0 < booked(installation) < planned
    for share in (0.2, 0.4, 0.6, 0.8):
        with at_work(installation, "resume", batch_id, ORDERS_PAYMENT_CONCURRENCY="4") as process:
            kill_when(installation, process, round(share * planned))
        assert booked(installation) < planned
    ended = call(installation.environment(), "resume", batch_id)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    summary = check_finished(installation, batch_id)
    assert summary["orders"]["paid"] == 200
    assert payments_planned(installation) == planned


@pytest.mark.soak
def test_c14_five_files_in_a_row_each_killed_once_are_all_paid_and_notified_once(installation: Installation) -> None:
    installation.sandbox.change(latency_ms=40, notification_latency_ms=20)
    for seed in range(1, 6):
        known = booked(installation)
        with at_work(installation, "import", sample(installation, 120, seed), "--client", CLIENT) as process:
            kill_when(installation, process, known + 2 * seed)
        batch_id = batches_of(installation)[-1]
        assert call(installation.environment(), "resume", batch_id).returncode == 0
        check_finished(installation, batch_id)
    assert len(batches_of(installation)) == 5


@pytest.mark.soak
def test_c18_a_batch_killed_while_customers_are_notified_of_declines_notifies_nobody_twice(
    installation: Installation,
) -> None:
    installation.sandbox.change(
        notification_latency_ms=100, honour_keys=False, faults="decline=0.2,seed=3", notification_faults={}
    )
    with at_work(installation, "import", sample(installation, 120), "--client", CLIENT) as process:
        wait_for(lambda: told(installation) >= 8 or process.poll() is not None, "some notifications")
        process.kill()
    (batch_id,) = batches_of(installation)
    before = installation.summary(batch_id)
    assert 0 < told(installation) < before["notifications"]["planned"]
    assert call(installation.environment(), "resume", batch_id).returncode == 3
    after = check_finished(installation, batch_id, "completed_with_errors")
    theirs = installation.sandbox.ledger(batch_id)
    assert 0 < after["payments"]["declined"] == theirs["payments"]["declined"]
    assert after["payments"]["planned"] == before["payments"]["planned"]
    assert installation.run(batch_id) is None
    assert installation.sandbox.ledger(batch_id) == theirs


@pytest.mark.parametrize(
    ("command", "signal_number"),
    [
        pytest.param("import", signal.SIGINT, marks=pytest.mark.soak),
        ("import", signal.SIGTERM),
        pytest.param("resume", signal.SIGINT, marks=pytest.mark.soak),
        pytest.param("resume", signal.SIGTERM, marks=pytest.mark.soak),
    ],
)
def test_c26_a_stop_in_the_middle_says_how_to_resume_and_leaves_nothing_in_doubt(
    installation: Installation, command: str, signal_number: signal.Signals
) -> None:
    installation.sandbox.change(latency_ms=400)
    path = sample(installation, 20)
    given = ["import", path, "--client", CLIENT] if command == "import" else ["resume", installation.receive(path, CLIENT)]
    with at_work(installation, *given, ORDERS_PAYMENT_CONCURRENCY="2") as process:
        wait_for(lambda: booked(installation) >= 2 or process.poll() is not None, "two payments")
        process.send_signal(signal_number)
        ended = end(process)
    (batch_id,) = batches_of(installation)
    assert installation.summary(batch_id)["status"] == "stopped"  # by whoever sent the signal: nobody else resumes it
    assert sweep.stalled_batches(installation.system.database) == []
    assert ended.returncode == 1, ended.stderr
    assert "resume" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    summary = check_books(installation, batch_id)  # what was in flight was waited for and written down
    assert summary["orders"]["paid"] < 20
    assert summary["orders"]["unknown"] == summary["orders"]["paying"] == 0
    installation.sandbox.change(latency_ms=0)
    assert call(installation.environment(), "resume", batch_id).returncode == 0
    check_finished(installation, batch_id)


def everything(installation: Installation) -> list[tuple[str, list[tuple[object, ...]]]]:
    """Return what our tables say of orders, payments and notifications."""
    return [
        (table, installation.rows(f"SELECT * FROM {table} ORDER BY {key}"))
        for table, key in (("orders", "order_id"), ("payments", "payment_id"), ("notifications", "notification_id"))
    ]


@pytest.mark.soak
def test_c27_a_worker_that_sleeps_for_longer_than_its_lease_wakes_up_and_writes_nothing(installation: Installation) -> None:
    installation.sandbox.change(latency_ms=300)
    with at_work(
        installation, "import", sample(installation, 90), "--client", CLIENT, ORDERS_PAYMENT_CONCURRENCY="2"
    ) as process:
        wait_for(lambda: booked(installation) >= 2 or process.poll() is not None, "two payments")
        process.send_signal(signal.SIGSTOP)
        (batch_id,) = batches_of(installation)
        installation.rows("UPDATE workers SET lease_until = now() - interval '1 second'")
        assert call(installation.environment(), "resume", batch_id).returncode == 0
        before = everything(installation)
        process.send_signal(signal.SIGCONT)
        ended = end(process)
    assert "Traceback" not in ended.stdout + ended.stderr
    assert everything(installation) == before
    assert check_finished(installation, batch_id)["orders"]["paid"] == 90


@pytest.mark.soak
def test_y22_a_service_that_fails_in_every_way_still_charges_every_order_once(installation: Installation) -> None:
    kinds = ("error_before", "error_after", "timeout_after", "reset_before", "reset_after", "malformed", "rate_limited")
    faults = ",".join(f"{kind}=0.06" for kind in kinds)
    installation.sandbox.change(faults=f"{faults},seed=11,hang_s=3,retry_after=0,max_per_key=3", guard_orders=False)
    environment = installation.environment(ORDERS_PAYMENT_TIMEOUT_S="1", ORDERS_NOTIFICATION_TIMEOUT_S="1")
    summary = answer(environment, "import", sample(installation, 200), "--client", CLIENT)
    while summary["status"] == "paused":  # a drain gives up after some tries; a later one goes on
        summary = answer(environment, "resume", summary["batch_id"])
    check_finished(installation, summary["batch_id"])
    assert summary["orders"]["paid"] == 200

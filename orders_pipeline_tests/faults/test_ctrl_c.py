"""Ctrl-C at any moment of an import stops it: nothing is paid afterwards, and the batch stands still until it is resumed."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from orders_pipeline.cli import batch_run
from orders_pipeline.infrastructure import interrupts
from orders_pipeline.intake import declarations
from orders_pipeline.orchestration import dagster_home, dagster_records, orphaned_runs, runs
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline_tests.support.commands import call, end, free_port, start, wait_for
from orders_pipeline_tests.support.installation import Installation, check_books, check_finished

CLIENT = "acme"
TRIALS = 300
CALLS_S = 0.3
IN_FLIGHT = 2
NO_LONGER_THAN_S = 30.0  # on a busy machine; most take about a second


def booked(installation: Installation) -> int:
    return installation.sandbox.ledger()["payments"]["count"]


def new_batches(installation: Installation, name: str) -> list[tuple[str, str]]:
    return installation.rows("SELECT batch_id, status FROM batches WHERE csv_source = %s", name)


def interrupted(installation: Installation, path: Path, after_s: float) -> tuple[str, float]:
    """Interrupt an import after some time, see that it did stop, and return how the batch stands and how long it took."""
    process = start(installation.environment(ORDERS_PAYMENT_CONCURRENCY=str(IN_FLIGHT)), "import", path, "--client", CLIENT)
    time.sleep(after_s)  # the moment is what is tried
    before = booked(installation)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    ended = end(process)
    took_s = time.monotonic() - sent
    at_its_end = booked(installation)
    assert at_its_end <= before + 2 * IN_FLIGHT, "paid on and on"
    time.sleep(2 * CALLS_S)  # what somebody went on with would be booked by now
    assert booked(installation) == at_its_end
    found = new_batches(installation, path.name)
    status = found[0][1] if found else "not registered"
    assert took_s < NO_LONGER_THAN_S, f"{status} after {took_s:.0f} s"
    assert "Traceback" not in ended.stdout or status == "not registered"
    if status == "not registered":
        assert ended.returncode != 0
    elif status == "stopped":
        assert ended.returncode == 1, ended.stderr
        assert f"resume with: orders-pipeline resume {found[0][0]}" in ended.stdout
        if sum(installation.summary(found[0][0])["orders"].values()):  # it was loaded
            check_books(installation, found[0][0])
        else:
            assert installation.sandbox.ledger(found[0][0])["payments"]["count"] == 0
    else:
        assert status == "completed", status
    return status, took_s


@pytest.mark.soak
def test_no_ctrl_c_is_lost_at_whatever_moment_of_an_import_it_comes(
    installation: Installation, pytestconfig: pytest.Config
) -> None:
    kept_trials = Path(pytestconfig.cache.mkdir("ctrl-c") / "trials.jsonl")
    installation.sandbox.change(latency_ms=1000 * CALLS_S)
    path = installation.home / "undisturbed.csv"
    write_sample(path, rows=60, seed=1, bad=0)
    began = time.monotonic()
    assert (
        end(
            start(installation.environment(ORDERS_PAYMENT_CONCURRENCY=str(IN_FLIGHT)), "import", path, "--client", CLIENT)
        ).returncode
        == 0
    )
    whole_s = time.monotonic() - began
    chance = random.Random(7)
    for trial in range(TRIALS):
        path = installation.home / f"orders-{trial}.csv"
        write_sample(path, rows=60, seed=1000 + trial, bad=0)
        after_s = chance.uniform(0.0, whole_s)
        status, took_s = interrupted(installation, path, after_s)
        with kept_trials.open("a") as kept:
            kept.write(f'{{"ctrl_c_after": {after_s:.3f}, "status": "{status}", "took": {took_s:.2f}}}\n')


def test_ctrl_c_while_a_file_becomes_a_batch_stops_it(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    path = installation.home / "orders.csv"
    write_sample(path, rows=1, seed=1, bad=0)
    note = declarations.note

    def interrupted_note(*arguments: Any) -> None:
        note(*arguments)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(declarations, "note", interrupted_note)
    made: list[str] = []
    with interrupts.listening() as heard:
        batch_run.import_and_run(installation.system, path, CLIENT, heard, made, again=False)
    interrupts.requested.clear()  # else nothing more is begun in this process
    assert new_batches(installation, path.name) == [(made[0], "stopped")]


def test_ctrl_c_at_any_line_of_the_command_stops_the_batch_that_was_made(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, replaced in (
        (dagster_home, "prepare_dagster_home", None),
        (dagster_records, "dagster_instance", contextlib.nullcontext()),
        (runs, "run_batch", None),
    ):
        monkeypatch.setattr(module, name, lambda *_, replaced=replaced: replaced)
    monkeypatch.setattr(orphaned_runs, "orphaned_runs", lambda *_: [])
    path = installation.home / "orders.csv"
    lines_left = stopped = 0

    def interrupting(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines_left
        if frame.f_code.co_filename != batch_run.__file__:
            return None
        lines_left -= event == "line"
        if lines_left == 0 and event == "line":
            raise KeyboardInterrupt
        return interrupting

    for lines in itertools.count(1):
        write_sample(path, rows=1, seed=lines, bad=0)
        made: list[str] = []
        lines_left = lines
        with interrupts.listening() as heard, contextlib.suppress(KeyboardInterrupt):
            sys.settrace(interrupting)
            try:
                batch_run.import_and_run(installation.system, path, CLIENT, heard, made, again=False)
            finally:
                sys.settrace(None)
        if lines_left > 0:
            break
        if made:
            assert installation.summary(made[0])["status"] == "stopped", lines
            stopped += 1
    assert stopped > 20


def test_ctrl_c_while_paying_stops_the_batch_and_resume_pays_the_rest(installation: Installation, tmp_path: Path) -> None:
    installation.sandbox.change(latency_ms=1000 * CALLS_S)
    path = tmp_path / "orders.csv"
    write_sample(path, rows=40, seed=5, bad=0)
    process = start(installation.environment(ORDERS_PAYMENT_CONCURRENCY=str(IN_FLIGHT)), "import", path, "--client", CLIENT)
    wait_for(lambda: booked(installation) >= 2 or process.poll() is not None, "two payments")
    process.send_signal(signal.SIGINT)
    ended = end(process)
    assert ended.returncode == 1, ended.stderr
    ((batch_id, status),) = new_batches(installation, path.name)
    assert status == "stopped"
    summary = check_books(installation, batch_id)
    assert 0 < summary["orders"]["paid"] < 40
    assert summary["orders"]["paying"] == summary["orders"]["unknown"] == 0
    installation.sandbox.change(latency_ms=0)
    resumed = call(installation.environment(), "resume", batch_id)
    assert resumed.returncode == 0, resumed.stdout
    check_finished(installation, batch_id)


@pytest.mark.soak
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_c26_a_system_that_is_ended_stops_no_batch_and_goes_on_with_it_at_its_next_start(
    installation: Installation, signal_number: signal.Signals
) -> None:
    installation.sandbox.change(latency_ms=1000 * CALLS_S)
    settings = installation.environment(ORDERS_PAYMENT_CONCURRENCY=str(IN_FLIGHT))
    path = Path(installation.system.settings.landing_location) / CLIENT / "orders.csv"
    path.parent.mkdir(parents=True)
    write_sample(path, rows=200, seed=6, bad=0)
    process = start(settings, "up", "--port", str(free_port()), "--json")
    wait_for(lambda: booked(installation) >= 2 or process.poll() is not None, "two payments", timeout_s=120)
    process.send_signal(signal_number)
    assert end(process).returncode == 0
    ((batch_id, status),) = new_batches(installation, path.name)
    assert status == "paying"
    at_its_end = booked(installation)
    assert at_its_end < installation.summary(batch_id)["payments"]["planned"]
    assert installation.summary(batch_id)["orders"]["unknown"] == 0
    installation.sandbox.change(latency_ms=0)
    again = start(settings, "up", "--port", str(free_port()), "--json")
    try:
        wait_for(lambda: installation.summary(batch_id)["status"] == "completed", "the batch to be completed", timeout_s=180)
    finally:
        again.send_signal(signal_number)
        end(again)
    check_finished(installation, batch_id)

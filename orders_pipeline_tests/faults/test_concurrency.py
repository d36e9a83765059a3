"""Q01 to Q09: the same work begun by several at once, or begun again, is done once; work of several goes on side by side."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

import pytest

from orders_pipeline.batches import heartbeat
from orders_pipeline.batches.batch_lock import BatchBusy
from orders_pipeline.batches.workers import worker_session
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.definitions import defs
from orders_pipeline.intake import file_import, steps
from orders_pipeline.intake.landing import arrivals
from orders_pipeline.orchestration import runs
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.reports import finishing
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.settlement.batch_settlement import settling
from orders_pipeline.settlement.notifications.plan import make_ready, plan_notifications
from orders_pipeline.settlement.payments import settle
from orders_pipeline.settlement.payments.ledger import PaymentLedger
from orders_pipeline.system.composition import System, open_system
from orders_pipeline_tests.support.commands import end, free_port, start, wait_for
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation, check_finished, open_installation
from orders_pipeline_tests.support.order_file import OrderFile
from orders_pipeline_tests.support.scenario import Scenario

pytestmark = pytest.mark.usefixtures("hasty_landing")

CLIENT = "acme"
EVERYBODY = 8
UNENDED = "SELECT count(*) FROM dagster.runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')"
Done = TypeVar("Done")


@pytest.fixture(scope="module")
def installation(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with open_installation(server_url, template, tmp_path_factory.mktemp("installation")) as opened:
        yield opened


@pytest.fixture
def client(request: pytest.FixtureRequest) -> str:
    """A client of the test's own."""
    return str(request.node.name).removeprefix("test_")[:32]


def at_once(installation: Installation, tasks: Sequence[Callable[[System], Done]]) -> list[Done]:
    """Do all tasks at the same moment, each with a system of its own, as processes would."""
    together = Barrier(len(tasks))

    def do(task: Callable[[System], Done]) -> Done:
        with open_system(installation.system.settings, installation.system.endpoints) as system:
            together.wait(timeout=60)
            return task(system)

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(do, tasks))


def drop(installation: Installation, client: str, name: str, content: bytes) -> None:
    path = Path(installation.system.settings.landing_location) / client / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def arrived(installation: Installation) -> list[str]:
    """Return the batches that the landing's files become."""
    arrivals.register_arrivals(installation.system.database, installation.system.landing)
    return arrivals.register_arrivals(installation.system.database, installation.system.landing)


def orders(*references: str) -> bytes:
    file = OrderFile("utf-8")
    for reference in references:
        file.add(order_row(client_order_ref=reference))
    return file.text.encode()


def books(installation: Installation, batch_id: str) -> list[list[tuple[Any, ...]]]:
    """Return all that our tables say of a batch's orders, payments and notifications."""
    return [
        installation.rows(f"SELECT * FROM {table} WHERE batch_id = %s ORDER BY {key}", batch_id)
        for table, key in (("orders", "order_id"), ("payments", "payment_id"), ("notifications", "notification_id"))
    ]


def test_q01_one_file_imported_by_eight_at_once_is_one_batch_and_seven_are_told_which(
    installation: Installation, client: str, tmp_path: Path
) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(orders("Q01-1", "Q01-2"))

    def receive(system: System) -> tuple[str, str]:
        try:
            return "taken", file_import.import_file(system, path, client, again=False)
        except FileRejected as refusal:
            return refusal.code, refusal.detail["batch_id"]

    said = at_once(installation, [receive] * EVERYBODY)
    assert sorted(word for word, _ in said) == ["F_DUPLICATE_FILE"] * (EVERYBODY - 1) + ["taken"]
    assert len({batch_id for _, batch_id in said}) == 1
    assert installation.rows("SELECT count(*) FROM batches WHERE client_code = %s", client) == [(1,)]


def test_q01_one_file_landed_under_eight_names_and_read_at_once_is_one_batch_and_seven_name_it(
    installation: Installation,
) -> None:
    for number in range(EVERYBODY):
        drop(installation, "q01names", f"{number}.csv", orders("Q01-names"))
    batch_ids = arrived(installation)

    def stage(batch_id: str) -> Callable[[System], None]:
        return lambda system: steps.stage_batch(system, batch_id)

    at_once(installation, [stage(batch_id) for batch_id in batch_ids])
    found = installation.rows("SELECT batch_id, status, duplicate_of FROM batches WHERE client_code = 'q01names'")
    (taken,) = [batch_id for batch_id, status, _ in found if status == "staged"]
    others = [(status, duplicate_of) for batch_id, status, duplicate_of in found if batch_id != taken]
    assert others == [("rejected", taken)] * (EVERYBODY - 1)


def test_q01_eight_hosts_that_look_at_the_landing_at_once_make_one_batch_of_a_file(
    installation: Installation, client: str
) -> None:
    for number in range(5):
        drop(installation, client, f"{number}.csv", orders(f"Q01-{number}"))
    arrivals.register_arrivals(installation.system.database, installation.system.landing)
    at_once(installation, [lambda system: arrivals.register_arrivals(system.database, system.landing)] * EVERYBODY)
    assert installation.rows("SELECT count(*) FROM batches WHERE client_code = %s", client) == [(5,)]


@pytest.mark.soak
def test_q01_one_file_imported_by_eight_processes_at_once_is_paid_once(installation: Installation, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    write_sample(path, rows=20, seed=1, bad=0)
    processes = [
        start(installation.environment(), "import", path, "--client", "q01soak", "--json") for _ in range(EVERYBODY)
    ]
    ended = [end(process) for process in processes]
    assert sorted(each.returncode for each in ended) == [0] + [4] * (EVERYBODY - 1)
    ((batch_id,),) = installation.rows("SELECT batch_id FROM batches WHERE client_code = 'q01soak'")
    assert all(batch_id in each.stdout + each.stderr for each in ended)
    assert check_finished(installation, batch_id)["orders"]["paid"] == 20


def test_q02_what_a_worker_that_was_given_up_still_writes_changes_nothing(
    installation: Installation, client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 3600.0)  # it was stopped, and so was its heartbeat
    system, path = installation.system, tmp_path / "orders.csv"
    write_sample(path, rows=20, seed=2, bad=0)
    batch_id = installation.receive(path, client)
    for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
        step(system, batch_id)
    settle.plan_batch(system.database, system.cipher, batch_id, Profile())
    plan_notifications(system.database, system.cipher, batch_id, Profile())
    with worker_session(system.database, batch_id, None) as slow:
        able = system.payments.capabilities
        ledger = PaymentLedger(system.database, system.cipher, slow, able, make_ready, concurrency=4)
        claims = ledger.claim(3)
        assert len(claims) == 3
        outcomes = [settle.settle_one(system.payments, claim, slow.may_send) for claim in claims]  # sent, and booked there
        installation.rows("UPDATE workers SET lease_until = now() - interval '1 s' WHERE worker_id = %s", slow.worker_id)
        installation.work_off(batch_id)
        before = books(installation, batch_id)
        ledger.record(list(zip(claims, outcomes, strict=True)))
        assert books(installation, batch_id) == before
        assert ledger.claim(10) == []
    assert check_finished(installation, batch_id)["orders"]["paid"] == 20


def test_q03_an_order_in_two_files_at_once_is_taken_from_one_and_rejected_from_the_other(
    installation: Installation, client: str, tmp_path: Path
) -> None:
    batch_ids = []
    for number in range(2):
        path = tmp_path / f"{number}.csv"
        path.write_bytes(orders("Q03-both", f"Q03-{number}"))
        batch_ids.append(installation.receive(path, client))
        steps.stage_batch(installation.system, batch_ids[-1])
        steps.validate_batch(installation.system, batch_ids[-1])  # neither has orders yet

    def load(batch_id: str) -> Callable[[System], None]:
        return lambda system: steps.load_batch(system, batch_id)

    at_once(installation, [load(batch_id) for batch_id in batch_ids])
    for batch_id in batch_ids:
        installation.work_off(batch_id)
    summaries = sorted((installation.summary(batch_id) for batch_id in batch_ids), key=lambda each: each["rows"]["rejected"])
    assert [each["rejections"] for each in summaries] == [{}, {"R_REF_EXISTS": 1}]
    check_finished(installation, summaries[0]["batch_id"])
    check_finished(installation, summaries[1]["batch_id"], "completed_with_errors")
    references = installation.rows("SELECT client_order_ref FROM orders WHERE client_code = %s ORDER BY 1", client)
    assert references == [("Q03-0",), ("Q03-1",), ("Q03-both",)]


def test_q04_a_finished_partition_that_is_run_again_sends_nothing(
    installation: Installation, client: str, tmp_path: Path
) -> None:
    path = tmp_path / "orders.csv"
    write_sample(path, rows=15, seed=4, bad=0.2)
    batch_id = installation.take(path, client)["batch_id"]
    before, summary = books(installation, batch_id), installation.summary(batch_id)
    nobody = "http://127.0.0.1:9"  # whoever calls a service now fails
    endpoints = replace(installation.system.endpoints, payment_url=nobody, notification_url=nobody)
    with open_system(installation.system.settings, endpoints) as system:
        assert runs.run_batch(system, installation.instance, defs, batch_id) is None
    assert books(installation, batch_id) == before
    after = installation.summary(batch_id)
    assert {**after, "seconds": None} == {**summary, "seconds": None}


def work_off(system: System, batch_id: str) -> None:
    """Do all steps of a batch, but those somebody else is at."""
    for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
        with contextlib.suppress(BatchBusy):
            step(system, batch_id)
    with settling(system, batch_id, None) as settlement:
        if settlement is not None:
            settlement.start_notifying()
            settlement.pay()
            settlement.finish_notifying()


@pytest.mark.soak
def test_q05_batches_worked_off_by_several_at_once_in_any_order_are_each_paid_once(installation: Installation) -> None:
    for number in range(12):
        drop(installation, "q05", f"{number}.csv", orders(*(f"Q05-{number}-{each}" for each in range(4))))
    batch_ids = arrived(installation)

    def all_of(which: Sequence[str]) -> Callable[[System], None]:
        def do(system: System) -> None:
            for batch_id in which:
                work_off(system, batch_id)

        return do

    at_once(installation, [all_of(batch_ids), all_of(batch_ids[::-1]), all_of(batch_ids)])
    assert arrived(installation) == []
    for batch_id in batch_ids:
        finishing.finish_batch(installation.system.storage, installation.system.database, batch_id)
        assert check_finished(installation, batch_id)["orders"]["paid"] == 4


def test_q09_a_small_batch_that_comes_after_a_big_one_is_finished_before_it(installation: Installation) -> None:
    installation.sandbox.change(latency_ms=300)

    def received(client: str, orders: int) -> str:
        return Scenario(installation, installation.system, client).receive(orders, notify_channel="none")

    big, small = received("q09big", 200), received("q09small", 3)
    try:
        at_once(installation, [lambda system: work_off(system, big), lambda system: work_off(system, small)])
    finally:
        installation.sandbox.change(latency_ms=0)
    last = "SELECT max(settled_at) FROM payments WHERE batch_id = %s"
    assert installation.rows(last, small) < installation.rows(last, big)
    for batch_id in (big, small):
        finishing.finish_batch(installation.system.storage, installation.system.database, batch_id)
        check_finished(installation, batch_id)


def test_q09_a_file_is_paid_at_once_though_the_only_place_is_one_that_waits_for_the_rate(installation: Installation) -> None:
    many = OrderFile("utf-8")
    for number in range(500):  # 50 seconds of notifications
        many.add(order_row(client_order_ref=f"Q09-{number}", customer_code=f"Q09-{number}", notify_channel="email"))
    settings = installation.environment(ORDERS_MAX_CONCURRENT_RUNS="1")
    system = start(settings, "up", "--port", str(free_port()), "--json")

    def status(name: str) -> list[tuple[str]]:
        return installation.rows("SELECT status FROM batches WHERE csv_source = %s", name)

    try:
        assert system.stdout is not None
        assert "browser" in system.stdout.readline()
        drop(installation, "q09wait", "many.csv", many.text.encode())
        paid = "SELECT count(*) FROM orders WHERE csv_source = 'many.csv' AND status = 'paid'"
        wait_for(lambda: installation.rows(paid) == [(500,)], "all to be paid", timeout_s=120)
        drop(installation, "q09wait", "few.csv", orders("Q09few-1", "Q09few-2"))
        wait_for(lambda: status("few.csv") == [("completed",)], "the second file", timeout_s=120)
        assert status("many.csv") == [("paying",)]
        wait_for(lambda: status("many.csv") == [("completed",)], "the first file", timeout_s=300)
        wait_for(lambda: installation.rows(UNENDED) == [(0,)], "all runs to end")
    finally:
        system.send_signal(signal.SIGINT)
        end(system)
    runs_made = installation.rows(
        "SELECT runs.status FROM dagster.runs JOIN batches ON partition = batch_id WHERE csv_source = 'many.csv' ORDER BY id"
    )
    assert runs_made == [("SUCCESS",), ("SUCCESS",)]
    for name in ("many.csv", "few.csv"):
        ((batch_id,),) = installation.rows("SELECT batch_id FROM batches WHERE csv_source = %s", name)
        check_finished(installation, batch_id)


def most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    """Return how many of the spans (begin, end) overlap at most."""
    return max(sum(1 for begin, end in spans if begin <= moment < end) for moment, _ in spans)


@pytest.mark.soak
def test_q05_a_backfill_of_all_batches_beside_the_sensor_keeps_to_the_configured_runs(installation: Installation) -> None:
    for number in range(5):
        drop(installation, "q05soak", f"{number}.csv", orders(*(f"Q05-soak-{number}-{each}" for each in range(4))))
    settings = installation.environment(ORDERS_MAX_CONCURRENT_RUNS="2")
    counted = "SELECT count(*) FROM batches WHERE client_code = 'q05soak' AND {}"
    system = start(settings, "up", "--port", str(free_port()), "--json")
    try:
        assert system.stdout is not None
        assert "browser" in system.stdout.readline()
        requested = "run_requests > 0 AND batch_id IN (SELECT partition FROM dagster.dynamic_partitions)"
        wait_for(lambda: installation.rows(counted.format(requested)) == [(5,)], "all batches to be partitions")
        batch_ids = [
            batch_id for (batch_id,) in installation.rows("SELECT batch_id FROM batches WHERE client_code = 'q05soak'")
        ]
        command = ["-m", "dagster", "job", "backfill", "-m", "orders_pipeline.definitions", "-j", "process_batch"]
        subprocess.run(
            [sys.executable, *command, "--partitions", ",".join(batch_ids), "--noprompt"],
            env=os.environ | settings | {"DAGSTER_HOME": str(installation.system.settings.dagster_home)},
            check=True,
            capture_output=True,
            timeout=120,
        )
        open_batches = counted.format("finished_at IS NULL")
        wait_for(
            lambda: installation.rows(open_batches) == installation.rows(UNENDED) == [(0,)], "all runs to end", timeout_s=900
        )
    finally:
        system.send_signal(signal.SIGINT)
        end(system)
    runs_made = installation.rows("SELECT start_time, end_time FROM dagster.runs WHERE start_time IS NOT NULL")
    assert len(runs_made) >= 10
    assert most_at_once(runs_made) <= 2
    for batch_id in batch_ids:
        assert check_finished(installation, batch_id)["orders"]["paid"] == 4

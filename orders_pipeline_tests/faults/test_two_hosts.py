"""C29: two hosts with workers of Celery, of which one is lost, and a broker that is started anew."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from dagster import DagsterRunStatus

from orders_pipeline.batches.run_processes import offered_slots
from orders_pipeline.orchestration.run_process import cancel
from orders_pipeline_tests.support.commands import call, wait_for
from orders_pipeline_tests.support.hosts import Broker, Hosts, open_broker, open_hosts
from orders_pipeline_tests.support.installation import check_books, check_finished

WORKERS = ["first", "second"]
PATIENCE_S = 120.0
QUIET_S = 4.0  # in which a run that goes on would have sent something


@dataclass(frozen=True)
class Cluster:
    """A daemon and two workers, each on a host of its own, and their broker."""

    hosts: Hosts
    broker: Broker


@pytest.fixture(scope="module")
def cluster(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(open_broker(folder / "broker"))
        told = {"ORDERS_RUN_LAUNCHER": "celery", "ORDERS_CELERY_BROKER": broker.url, "ORDERS_MAX_CONCURRENT_RUNS": "2"}
        hosts = stack.enter_context(open_hosts(server_url, template, folder, **told))
        for name in WORKERS:
            stack.enter_context(hosts.running(name, "worker", "--slots", "2"))
        stack.enter_context(hosts.running("daemon", "daemon"))
        wait_for(lambda: offered_slots(hosts.installation.system.database) == [2, 2], "both workers", PATIENCE_S)
        yield Cluster(hosts, broker)


def test_c29_a_run_that_is_canceled_ends_on_its_host_and_nothing_is_sent_any_more(cluster: Cluster) -> None:
    hosts = cluster.hosts
    hosts.installation.sandbox.change(latency_ms=400)
    batch_id = hosts.drop("canceled", 80)
    wait_for(lambda: hosts.paid(batch_id) >= 2, "payments", PATIENCE_S)
    ((run_id, _),) = hosts.runs(batch_id)
    assert hosts.host_of(run_id, WORKERS) in WORKERS
    assert cancel(hosts.installation.instance, run_id)  # what the launcher does when a person terminates it
    wait_for(lambda: hosts.runs(batch_id) == [(run_id, DagsterRunStatus.CANCELED.value)], "the run's end", 30)
    known = hosts.installation.sandbox.ledger(batch_id)
    time.sleep(QUIET_S)
    assert hosts.installation.sandbox.ledger(batch_id) == known
    assert hosts.runs(batch_id) == [(run_id, DagsterRunStatus.CANCELED.value)]
    assert check_books(hosts.installation, batch_id)["status"] == "stopped"


def test_a_worker_says_when_it_is_ready_for_what_and_when_it_stops(cluster: Cluster) -> None:
    hosts, port = cluster.hosts, cluster.broker.port
    ready = f"ready: 1 slots for runs in the queue dagster of the broker (host 127.0.0.1, port {port})"
    with hosts.running("third", "worker", "--slots", "1") as worker:
        wait_for(lambda: ready in hosts.log("third"), "the worker", PATIENCE_S)
        worker.terminate()
        assert worker.wait(PATIENCE_S) == 0
    said = hosts.log("third")
    assert 0 < said.index(ready) < said.index("stopping: ") < said.index("stopped")


def test_c29_a_run_waits_in_the_queue_while_the_broker_is_away(cluster: Cluster) -> None:
    hosts = cluster.hosts
    cluster.broker.stop()
    try:
        batch_id = hosts.drop("waiting", 1)
        wait_for(lambda: "E_BROKER: " in hosts.log("daemon"), "the daemon's word", PATIENCE_S)
        wait_for(lambda: hosts.log("daemon").count("Priority sorting") >= 3, "another try", PATIENCE_S)
    finally:
        cluster.broker.start()
    wait_for(lambda: hosts.status(batch_id) == "completed", "the batch's end", PATIENCE_S)
    assert len(hosts.runs(batch_id)) == 1
    assert hosts.log("daemon").count("E_BROKER: ") == 1
    assert "Traceback" not in hosts.log("daemon")


def test_c29_a_lost_host_and_a_broker_that_is_started_anew_cost_a_batch_a_minute_and_nobody_a_second_charge(
    cluster: Cluster,
) -> None:
    hosts, sandbox = cluster.hosts, cluster.hosts.installation.sandbox
    sandbox.change(latency_ms=400)
    batch_id = hosts.drop("lost", 100)
    wait_for(lambda: hosts.paid(batch_id) >= 2, "payments", PATIENCE_S)
    cluster.broker.stop()
    cluster.broker.start()
    ((first_run, _),) = hosts.runs(batch_id)
    lost = hosts.host_of(first_run, WORKERS)
    (other,) = set(WORKERS) - {lost}
    known = hosts.paid(batch_id)
    assert known < 100
    hosts.lose(lost)
    wait_for(lambda: len(hosts.runs(batch_id)) == 2, "another run", PATIENCE_S)
    sandbox.change(latency_ms=0)
    second_run = hosts.runs(batch_id)[1][0]
    wait_for(lambda: hosts.runs(batch_id)[1][1] == "STARTED", "the other run's start", PATIENCE_S)
    assert hosts.host_of(second_run, WORKERS) == other
    wait_for(lambda: hosts.status(batch_id) == "completed", "the batch's end", PATIENCE_S)
    assert check_finished(hosts.installation, batch_id)["orders"]["paid"] == 100
    assert [status for _, status in hosts.runs(batch_id)][:1] == ["FAILURE"]
    well = call(hosts.environment("daemon"), "doctor", "--json")
    assert "2 slots of 1 worker for 2 runs at once; when the largest is lost, 2 of them wait for it" in well.stdout

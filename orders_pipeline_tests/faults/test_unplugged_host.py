"""C31: a host whose cable is pulled in mid payment and put back: it lives on, but nothing reaches it or leaves it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from orders_pipeline.batches.run_processes import offered_slots
from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline.sandbox import SandboxServer
from orders_pipeline_tests.support.cables import (
    ADDRESS,
    Cable,
    host_at_a_cable,
    needs_networks,
    own_network,
    postgres_at_address,
)
from orders_pipeline_tests.support.commands import wait_for
from orders_pipeline_tests.support.databases import make_template
from orders_pipeline_tests.support.hosts import Hosts, open_broker, open_hosts
from orders_pipeline_tests.support.installation import check_finished

pytestmark = pytest.mark.soak

WORKERS = ["first", "second"]
TEMPLATE = "orders_template"
PATIENCE_S = 180.0
QUIET_S = 30.0  # in which what is still to come from a host would have come
GONE_WITHIN_S = 60  # a session of a host that is away
ADDRESS_UNKNOWN_S = 4  # for so long a packet that has left its connection waits for the address of who shall have it
ORDERS = 240
# as many notifications in flight as may be, and what is sent may take as long as in production
PACE = {"ORDERS_PAYMENT_CONCURRENCY": "8", "ORDERS_NOTIFICATION_TIMEOUT_S": "10", "ORDERS_PAYMENT_TIMEOUT_S": "30"}


@contextlib.contextmanager
def program(cable: Cable, source: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program on a host; it says a line when it has come to where it waits for one of ours."""
    command = [*cable.on_the_host, sys.executable, "-c", source, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


HOLDS_A_LOCK = """
import sys
from pydantic import SecretStr
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline.sandbox import SandboxServer

with Database(SecretStr(sys.argv[1])).session() as session:
    session._connection.exec_driver_sql("SELECT pg_advisory_lock(31)")
    print("locked", flush=True)
    session._connection.exec_driver_sql("SELECT pg_sleep(2)")
"""


def test_c31_a_session_whose_answer_is_lost_leaves_its_locks_within_a_minute() -> None:
    needs_networks()
    with (
        own_network(),
        postgres_at_address() as url,
        host_at_a_cable(1) as cable,
        program(cable, HOLDS_A_LOCK, url) as process,
        psycopg.connect(libpq_url(SecretStr(url))) as outside,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        cable.pull()
        outside.execute(f"SET lock_timeout = '{GONE_WITHIN_S}s'".encode())
        outside.execute("SELECT pg_advisory_lock(31)")


CALLS_TWICE = """
import sys
from orders_pipeline.services.answers import NoAnswer
from orders_pipeline.services.http_client import ServiceClient

client = ServiceClient(sys.argv[1], None, 4.0)
for _ in range(2):
    try:
        client.call("POST", "/v1/notifications", body={})
        print("answered", flush=True)
    except NoAnswer:
        print("no answer", flush=True)
    sys.stdin.readline()
"""


def test_c31_a_call_that_was_given_up_does_not_reach_the_service_later() -> None:
    needs_networks()
    with (
        own_network(),
        SandboxServer(host=ADDRESS) as sandbox,
        host_at_a_cable(1) as cable,
        program(cable, CALLS_TWICE, sandbox.url) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "answered\n"
        cable.pull()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "no answer\n"
        time.sleep(ADDRESS_UNKNOWN_S)
        cable.plug_in()
        time.sleep(QUIET_S)
        assert sandbox.ledger()["notifications"]["calls"] == 1


@dataclass(frozen=True)
class Cluster:
    """A daemon beside database, broker, bucket and services, and two workers, each on a host at a cable of its own."""

    hosts: Hosts
    cables: dict[str, Cable]
    trials: Path

    def begin_to_pay(self, name: str) -> tuple[str, str]:
        """Drop a file; return its batch and the host that pays it, once many calls are under way."""
        self.hosts.installation.sandbox.change(latency_ms=1000)
        batch_id = self.hosts.drop(name, ORDERS, notify_channel="email")
        wait_for(lambda: self.hosts.paid(batch_id) >= ORDERS // 6, "payments", PATIENCE_S)
        ((run_id, _),) = self.hosts.runs(batch_id)
        return batch_id, self.hosts.host_of(run_id, WORKERS)

    def finish(self, batch_id: str, figures: dict[str, float]) -> None:
        """Let a batch come to its end; check it and keep the figures."""
        wait_for(lambda: self.hosts.status(batch_id) == "completed", "the batch's end", PATIENCE_S)
        figures["finished_s"] = time.monotonic() - figures.pop("pulled")
        sandbox = self.hosts.installation.sandbox
        figures |= sandbox.ledger(batch_id)["notifications"] | sandbox.ledger(batch_id)["orders"]
        line = json.dumps({"orders": ORDERS, **{name: round(figure, 1) for name, figure in figures.items()}})
        print(line)  # noqa: T201 - figures to keep
        with self.trials.open("a") as kept:
            kept.write(line + "\n")
        assert check_finished(self.hosts.installation, batch_id)["orders"]["paid"] == ORDERS

    def statuses(self, batch_id: str) -> list[str]:
        return [status for _, status in self.hosts.runs(batch_id)]

    def is_quiet_for(self, batch_id: str, seconds: float) -> bool:
        known = self.hosts.installation.sandbox.ledger(batch_id)
        time.sleep(seconds)
        return self.hosts.installation.sandbox.ledger(batch_id) == known


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Cluster]:
    needs_networks()
    folder = tmp_path_factory.mktemp("cluster")
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_network())
        server_url = stack.enter_context(postgres_at_address())
        make_template(server_url, TEMPLATE)
        broker = stack.enter_context(open_broker(folder / "broker", ADDRESS))
        told = {"ORDERS_RUN_LAUNCHER": "celery", "ORDERS_CELERY_BROKER": broker.url, "ORDERS_MAX_CONCURRENT_RUNS": "2"}
        hosts = stack.enter_context(open_hosts(server_url, TEMPLATE, folder, address=ADDRESS, **told, **PACE))
        cables = {}
        for number, name in enumerate(WORKERS, start=1):
            cables[name] = stack.enter_context(host_at_a_cable(number))
            stack.enter_context(hosts.running(name, "worker", "--slots", "2", within=cables[name].on_the_host))
        stack.enter_context(hosts.running("daemon", "daemon"))
        wait_for(lambda: offered_slots(hosts.installation.system.database) == [2, 2], "both workers", PATIENCE_S)
        yield Cluster(hosts, cables, Path(pytestconfig.cache.mkdir("unplugged")) / "trials.jsonl")


@pytest.mark.parametrize("comes_back", ["while the other host pays", "after the end"])
def test_c31_another_host_goes_on_for_one_whose_cable_is_pulled_and_what_comes_back_sends_nothing_more(
    cluster: Cluster, comes_back: str
) -> None:
    hosts, sandbox = cluster.hosts, cluster.hosts.installation.sandbox
    batch_id, unplugged = cluster.begin_to_pay(comes_back.split(maxsplit=1)[0])
    figures = {"pulled": time.monotonic()}
    (other,) = set(WORKERS) - {unplugged}
    cluster.cables[unplugged].pull()
    lost = set(hosts.processes(unplugged))

    def since() -> float:
        return time.monotonic() - figures["pulled"]

    time.sleep(2)  # what had reached the services is booked
    known = hosts.paid(batch_id)
    assert known < ORDERS
    wait_for(lambda: hosts.runs(batch_id)[0][1] == "FAILURE", "that it is noticed", PATIENCE_S)
    figures["noticed_s"] = since()
    wait_for(lambda: hosts.paid(batch_id) > known, "payments of the other host", PATIENCE_S)
    figures["resumed_s"] = since()
    assert hosts.host_of(hosts.runs(batch_id)[1][0], WORKERS) == other
    sandbox.change(latency_ms=200)
    if comes_back == "after the end":
        wait_for(lambda: hosts.status(batch_id) == "completed", "the batch's end", PATIENCE_S)
        known_calls = sandbox.ledger(batch_id)
    cluster.cables[unplugged].plug_in()
    figures["back_s"] = since()
    cluster.finish(batch_id, figures)
    if comes_back == "after the end":
        assert cluster.is_quiet_for(batch_id, QUIET_S)
        assert sandbox.ledger(batch_id) == known_calls
    wait_for(lambda: cluster.statuses(batch_id) == ["FAILURE", "SUCCESS"], "the run's end")
    # the process of the run has ended, and the worker offers its slots again
    wait_for(lambda: offered_slots(hosts.installation.system.database) == [2, 2], "both workers", PATIENCE_S)
    assert len(set(hosts.processes(unplugged)) & lost) < len(lost)


def test_c31_a_host_that_is_away_for_a_moment_goes_on_itself(cluster: Cluster) -> None:
    batch_id, unplugged = cluster.begin_to_pay("moment")
    figures = {"pulled": time.monotonic()}
    cluster.cables[unplugged].pull()
    time.sleep(8)
    cluster.cables[unplugged].plug_in()
    figures["back_s"] = time.monotonic() - figures["pulled"]
    cluster.finish(batch_id, figures)
    wait_for(lambda: cluster.statuses(batch_id) == ["SUCCESS"], "the run's end")

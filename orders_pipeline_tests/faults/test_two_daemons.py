"""C28: several daemons on one database, of which one works at a time, and another takes over when its host is gone."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from sqlalchemy import make_url

from orders_pipeline.system.daemon import daemons
from orders_pipeline_tests.support.commands import free_port, wait_for
from orders_pipeline_tests.support.database_proxy import DatabaseProxy
from orders_pipeline_tests.support.hosts import Hosts, open_hosts

WAITS = "another daemon works on this database"
FILES = [f"file-{number}" for number in range(6)]
TAKEN_OVER_WITHIN_S = 60.0
AWAY_S = 20.0  # in which what Dagster does is tried again several times


@pytest.fixture
def hosts(server_url: str, template: str, tmp_path: Path):
    with open_hosts(server_url, template, tmp_path) as opened:
        yield opened


def test_c28_of_several_daemons_one_works_and_another_takes_over_when_its_host_is_gone(hosts: Hosts) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(hosts.running("first", "daemon"))
        hosts.drop("before", 1)
        with hosts.running("second", "daemon") as second:
            wait_for(lambda: WAITS in hosts.log("second"), "the second one to wait", TAKEN_OVER_WITHIN_S)
            second.terminate()
            assert second.wait(TAKEN_OVER_WITHIN_S) == 0
        stack.enter_context(hosts.running("third", "up", "--port", str(free_port())))
        wait_for(lambda: WAITS in hosts.log("third"), "the third one to wait", TAKEN_OVER_WITHIN_S)
        wait_for(lambda: daemons(hosts.installation.system.database) == 2, "both daemons", TAKEN_OVER_WITHIN_S)
        batch_ids = [hosts.drop(name, 1) for name in FILES]
        hosts.lose("first")
        batch_ids.append(hosts.drop("after", 1))
        wait_for(lambda: all(hosts.status(each) == "completed" for each in batch_ids), "all batches", TAKEN_OVER_WITHIN_S)
        assert [len(hosts.runs(each)) for each in batch_ids] == [1] * len(batch_ids)
        assert daemons(hosts.installation.system.database) == 1


def test_a_daemon_whose_database_is_away_says_so_in_a_line_without_a_trace_and_goes_on(
    hosts: Hosts, server_url: str
) -> None:
    with contextlib.closing(DatabaseProxy(server_url)) as proxy:
        database = make_url(hosts.installation.database_url).database
        hosts.shared["ORDERS_DATABASE_URL"] = make_url(proxy.url).set(database=database).render_as_string(False)
        with hosts.running("first", "daemon"):
            before = hosts.drop("before", 1)
            wait_for(lambda: [run[1] for run in hosts.runs(before)] == ["SUCCESS"], "a run", TAKEN_OVER_WITHIN_S)
            proxy.refuse()
            wait_for(lambda: "nothing begins until" in hosts.log("first"), "the daemon's word", TAKEN_OVER_WITHIN_S)
            time.sleep(AWAY_S)
            proxy.heal()
            after = hosts.drop("after", 1)
            wait_for(lambda: hosts.status(after) == "completed", "the next batch", TAKEN_OVER_WITHIN_S)
            assert len(hosts.runs(after)) == 1
            lines = hosts.log("first").splitlines()
    assert not [line for line in lines if "Traceback" in line or line.startswith("  File")]
    said = [line for line in lines if "nothing begins until" in line]
    assert 1 <= len(said) <= 3  # the lock is lost, and why it cannot be had again
    assert sum("Launching run for landing_sensor" in line for line in lines) == 2

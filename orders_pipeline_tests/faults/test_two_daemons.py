"""C28: several daemons on one database, of which one works at a time, and another takes over when its host is gone."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from orders_pipeline.system.daemon import daemons
from orders_pipeline_tests.support.commands import free_port, wait_for
from orders_pipeline_tests.support.hosts import Hosts, open_hosts

WAITS = "another daemon works on this database"
FILES = [f"file-{number}" for number in range(6)]
TAKEN_OVER_WITHIN_S = 60.0


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

"""Dagster's records: all stores share a pool that stays small, and use no connection that the server has closed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from dagster._core.test_utils import instance_for_test

from orders_pipeline.orchestration.dagster_records import keep_connections
from orders_pipeline.system.session_limit import DAGSTER_POOL_SIZE

OF_DAGSTER = """
    FROM pg_stat_activity WHERE datname = current_database() AND application_name = '' AND pid <> pg_backend_pid()
"""


def test_however_many_threads_there_are_dagsters_stores_have_few_sessions_and_survive_the_servers_end(installation):
    def look(number: int) -> None:
        installation.instance.add_dynamic_partitions("batch_id", [str(number)])
        installation.instance.get_runs(limit=1)
        installation.instance.all_instigator_state()

    before = installation.rows(f"SELECT count(*) {OF_DAGSTER}")
    assert before == [(0,)]
    for _ in range(2):
        with ThreadPoolExecutor(4 * DAGSTER_POOL_SIZE) as threads:
            list(threads.map(look, range(10 * DAGSTER_POOL_SIZE)))
        assert installation.rows(f"SELECT count(*) {OF_DAGSTER}") == [(DAGSTER_POOL_SIZE,)]
        installation.rows(f"SELECT pg_terminate_backend(pid, 5000) {OF_DAGSTER}")


def test_records_that_somebody_else_has_chosen_are_left_as_dagster_opens_them():
    with instance_for_test() as instance:
        keep_connections(instance)
        assert instance.get_runs() == []

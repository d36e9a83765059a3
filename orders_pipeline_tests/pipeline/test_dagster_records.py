"""Dagster's records: all stores share a pool that stays small and uses no closed connection, and doctor reads them."""

from __future__ import annotations

import contextlib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType
from dagster._core.events import DagsterEvent, EngineEventData, RunFailureReason
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.test_utils import create_run_for_test, instance_for_test
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster_postgres import PostgresRunStorage
from dagster_postgres.utils import DagsterPostgresException

from orders_pipeline.cli import doctor
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_errors import DatabaseUnavailable
from orders_pipeline.orchestration.dagster_home import prepare_dagster_home
from orders_pipeline.orchestration.dagster_records import RecordsBySettings, dagster_instance, keep_connections
from orders_pipeline.system.daemon import DaemonLock, daemons
from orders_pipeline.system.session_limit import DAGSTER_POOL_SIZE
from orders_pipeline.system.settings import Settings
from orders_pipeline_tests.support.commands import wait_for

AWAY = "postgresql://orders@127.0.0.1:1/orders"
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


def test_the_first_event_of_an_asset_takes_no_second_connection_beside_its_own(installation, monkeypatch):
    with dagster_instance(installation.system.settings) as instance:
        monkeypatch.setattr(SqlEventLogStorage, "has_secondary_index", lambda *_: pytest.fail("it is asked for late"))
        instance.report_runless_asset_event(dg.AssetMaterialization("an_asset"))


def test_records_that_are_closed_keep_no_session(installation):
    before = installation.rows(f"SELECT count(*) {OF_DAGSTER}")
    with dagster_instance(installation.system.settings) as instance:
        assert instance.get_runs_count() == 0
        assert installation.rows(f"SELECT count(*) {OF_DAGSTER}") > before
    wait_for(lambda: installation.rows(f"SELECT count(*) {OF_DAGSTER}") == before, "the session's end")
    assert instance.get_ref()  # it is not collected yet


def test_records_that_somebody_else_has_chosen_are_left_as_dagster_opens_them():
    with instance_for_test() as instance:
        keep_connections(instance)
        assert instance.get_runs() == []


def test_a_program_of_dagsters_begins_while_the_database_is_away(installation, monkeypatch):
    monkeypatch.setenv("DAGSTER_PG_URL", AWAY)
    monkeypatch.setenv("ORDERS_DATABASE_URL", AWAY)
    with dg.DagsterInstance.from_config(str(installation.system.settings.dagster_home)) as instance:
        assert isinstance(instance.run_storage, PostgresRunStorage)
        with pytest.raises(DagsterPostgresException):
            instance.get_runs()
        DefinitionsLoadContext(DefinitionsLoadType.INITIALIZATION)  # in which our code is loaded
    assert "@127.0.0.1:1/orders" in RecordsBySettings.from_config_value(None, {}).postgres_url


def test_what_is_missing_of_the_records_is_made_before_a_program_begins(installation):
    installation.rows("DROP TABLE dagster.instance_info")
    prepare_dagster_home(installation.system)
    assert installation.rows("SELECT to_regclass('dagster.instance_info') IS NOT NULL") == [(True,)]


def test_what_a_run_failed_with_outside_its_steps_is_kept_without_the_trace(installation):
    with dagster_instance(installation.system.settings) as instance:
        run = create_run_for_test(instance)
        try:
            raise DatabaseUnavailable(None, "Dagster's records do not answer") from ValueError("behind it")
        except DatabaseUnavailable:
            error = serializable_error_info_from_exc_info(sys.exc_info())
        assert "test_dagster_records.py" in str(error)
        instance.report_dagster_event(
            DagsterEvent.job_failure("a_job", "It ended.", RunFailureReason.UNKNOWN, error), run.run_id
        )
        instance.report_engine_event("It ended.", run, EngineEventData.engine_error(error))
        events = instance.all_logs(run.run_id)
        instance.delete_run(run.run_id)
    assert len(events) == 2
    for event in events:
        assert "E_DATABASE_UNAVAILABLE: Dagster's records do not answer" in str(event.dagster_event)
        assert "test_dagster_records.py" not in str(event)


def test_a_daemon_that_has_lost_its_lock_asks_nothing_of_the_records(installation):
    is_lost = threading.Event()

    def require():
        if is_lost.is_set():
            raise DatabaseUnavailable(None, "the lock is lost")

    with dg.DagsterInstance.from_config(str(installation.system.settings.dagster_home)) as instance:
        keep_connections(instance, may_work=require)
        is_lost.set()
        for look in (instance.get_runs, instance.all_instigator_state, instance.get_daemon_heartbeats):
            with pytest.raises(DatabaseUnavailable, match="the lock is lost"):
                look()


def test_doctor_says_how_many_daemons_would_take_over(installation):
    with contextlib.closing(Database(installation.system.database.url)) as login, contextlib.ExitStack() as ends:
        patient = SimpleNamespace(login=login, settings=Settings.model_construct())
        for number in range(3):
            lock = DaemonLock(login)
            threading.Thread(target=lock.take, daemon=True).start()
            ends.callback(lock.release)
            wait_for(lambda number=number: daemons(login) == number + 1, "the daemon to be there")
        assert doctor._daemon(patient).endswith("; 2 more would take over")
        ends.close()
        wait_for(lambda: daemons(login) == 0, "their ends")
        assert "more" not in doctor._daemon(patient)


def test_doctor_misses_the_part_of_the_daemon_that_looks_at_files_whatever_other_parts_say(installation):
    patient = SimpleNamespace(
        login=Database(installation.system.database.url),
        settings=Settings.model_construct(run_launcher="celery"),
    )
    assert installation.instance.get_runs_count() == 0  # its tables are there
    insert = "INSERT INTO dagster.daemon_heartbeats (daemon_type, timestamp) VALUES (%s, now() AT TIME ZONE 'UTC' - %s)"
    installation.rows(insert, "SCHEDULER", timedelta(0))
    with contextlib.closing(patient.login):
        for age_s, is_missed in ((150, True), (100, False)):
            installation.rows("DELETE FROM dagster.daemon_heartbeats WHERE daemon_type = 'SENSOR'")
            installation.rows(insert, "SENSOR", timedelta(seconds=age_s))
            assert isinstance(doctor._daemon(patient), doctor.Concern) == is_missed
    installation.rows("DELETE FROM dagster.daemon_heartbeats")

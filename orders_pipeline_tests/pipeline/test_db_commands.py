"""The `db` commands: the schema brought up to date, the database's URL, and the variables of Dagster's own programs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster_postgres.run_storage import PostgresRunStorage
from sqlalchemy import make_url

from orders_pipeline.orchestration.run_launcher import ForkingRunLauncher
from orders_pipeline_tests.support.commands import Cli, error_of
from orders_pipeline_tests.support.installation import Installation


def test_migrating_brings_an_empty_database_up_to_date_once(
    installation: Installation, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.rows("CREATE DATABASE empty_for_migrating")
    try:
        empty = make_url(installation.database_url).set(database="empty_for_migrating")
        monkeypatch.setenv("ORDERS_DATABASE_URL", empty.render_as_string(hide_password=False))
        assert (cli("status").exit_code, error_of(cli("status"))) == (2, "E_MIGRATION")
        first, second = cli("db", "migrate", "--json"), cli("db", "migrate", "--json")
        assert [len(json.loads(each.stdout)["applied"]) > 0 for each in (first, second)] == [True, False]
        assert "up to date" in cli("db", "migrate").stdout
        with psycopg.connect(empty.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
            asked = "SELECT to_regclass('dagster.runs'), has_table_privilege('orders_app', 'dagster.event_logs', 'INSERT')"
            assert connection.execute(asked).fetchone() == ("dagster.runs", True)
        assert cli("status").exit_code == 0
    finally:
        installation.rows("DROP DATABASE empty_for_migrating WITH (FORCE)")


def test_the_url_of_the_database_is_one_that_psql_reads(cli: Cli) -> None:
    result = cli("db", "url")
    assert result.exit_code == 0
    with psycopg.connect(result.stdout.strip()) as connection:
        assert connection.execute("SELECT count(*) FROM batches").fetchone() is not None
    assert json.loads(cli("db", "url", "--json").stdout) == {"url": result.stdout.strip()}


def test_dagsters_own_programs_find_our_records_by_the_variables_that_are_printed(
    installation: Installation, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "never there"))
    printed = dict(line.split("=", 1) for line in shlex.split(cli("db", "dagster").stdout))
    assert json.loads(cli("db", "dagster", "--json").stdout) == printed
    for name, value in printed.items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.run_launcher, ForkingRunLauncher)
        assert isinstance(instance.run_storage, PostgresRunStorage)
        assert instance.get_runs_count() == installation.instance.get_runs_count()

"""Databases of the tests' server: clones of the migrated template, and statements from outside of what is tested."""

from __future__ import annotations

import contextlib
import select
import uuid
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import psycopg
from pydantic import SecretStr
from sqlalchemy import make_url

from orders_pipeline.infrastructure import migrations
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_url import libpq_url

_idle: dict[str, list[psycopg.Connection[Any]]] = defaultdict(list)


@contextlib.contextmanager
def kept_connection(url: SecretStr) -> Iterator[psycopg.Connection[Any]]:
    """Lend a connection, kept for the next statement: a new one costs the server ten times what most statements do."""
    idle = _idle[libpq_url(url)]
    while idle:
        connection = idle.pop()
        if not select.select([connection], [], [], 0)[0]:
            break
        connection.close()  # what it has to say is that a test ended its session
    else:
        # tests change tables, and a prepared statement would be of the old one
        connection = psycopg.connect(libpq_url(url), autocommit=True, prepare_threshold=None)
    try:
        yield connection
    finally:
        if not connection.closed:
            idle.append(connection)


def run_on(url: SecretStr, *statements: str) -> None:
    """Run statements over a connection of their own: tests may break those that are open."""
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def answers(url: SecretStr) -> bool:
    """Return whether a server takes statements."""
    with contextlib.suppress(psycopg.OperationalError):
        run_on(url, "SELECT 1")
        return True
    return False


def named(server_url: str, name: str) -> SecretStr:
    """Return the URL of a database of the server."""
    return SecretStr(make_url(server_url).set(database=name).render_as_string(hide_password=False))


def make_template(server_url: str, name: str) -> None:
    """Make a database that tests clone: migrated, and with Dagster's tables."""
    from dagster_postgres import DagsterPostgresStorage

    from orders_pipeline.orchestration.dagster_records import records_url

    run_on(SecretStr(server_url), f"CREATE DATABASE {name}")
    url = named(server_url, name)
    with contextlib.closing(Database(url)) as database:
        migrations.migrate(database)
        with database.begin() as transaction:
            transaction.execute("create_dagster_schema")
    DagsterPostgresStorage(records_url(url), should_autocreate_tables=True)


@contextlib.contextmanager
def cloned_database(server_url: str, template: str) -> Iterator[SecretStr]:
    """Lend the URL of a database as the template is, which is dropped at the end."""
    server, name = SecretStr(server_url), f"test_{uuid.uuid4().hex}"
    # its files are copied, in memory: half the work of writing them to the log
    run_on(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    url = named(server_url, name)
    yield url
    for connection in _idle.pop(libpq_url(url), ()):
        connection.close()
    run_on(server, f"DROP DATABASE {name} WITH (FORCE)")

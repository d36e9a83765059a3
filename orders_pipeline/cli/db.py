"""The commands of the database: its schema, its URL, and Dagster's part of it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from orders_pipeline.cli.command import answer, answers, main, opened
from orders_pipeline.system.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console


@main.group()
def db() -> None:
    """The database: its schema and its URL."""


@db.command()
@answers
def migrate() -> None:
    """Bring the schema up to date, and make Dagster's; does nothing when both are there."""
    from orders_pipeline.audit.recording import os_user, record
    from orders_pipeline.infrastructure import migrations
    from orders_pipeline.infrastructure.database import Database
    from orders_pipeline.orchestration.dagster_records import make_records
    from orders_pipeline.system.composition import join_endpoints

    with join_endpoints(load_settings()) as endpoints, contextlib.closing(Database(endpoints.database_url)) as database:
        applied = migrations.migrate(database)
        if applied:
            with database.begin() as transaction:
                record(transaction, "administrative", "migrate", "schema", detail={"applied": applied, "by": os_user()})
        make_records(database)
    result = {"applied": applied}
    answer(result, lambda console, _: console.print("\n".join(applied) or "the schema is up to date"))


@db.command()
@answers
def url() -> None:
    """Print the database's URL as psql reads it; an embedded one lives while something uses it."""
    from orders_pipeline.infrastructure.database_url import libpq_url
    from orders_pipeline.system.composition import join_endpoints

    with join_endpoints(load_settings()) as endpoints:
        found = {"url": libpq_url(endpoints.database_url)}
    answer(found, lambda _, printed: click.echo(printed["url"]))


@db.command()
@answers
def dagster() -> None:
    """Make Dagster's folder and schema ready, and print the variables that its own programs need, for a supervisor."""
    from orders_pipeline.orchestration.dagster_home import prepare_dagster_home

    with opened() as system:
        variables = prepare_dagster_home(system)
    answer(variables, _show_variables)


def _show_variables(_: Console, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        click.echo(f"{name}={shlex.quote(value)}")

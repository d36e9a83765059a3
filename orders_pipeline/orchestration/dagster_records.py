"""Dagster's records: in the database beside ours, in a schema of their own, made and opened here.

Whoever logs in has them; they are none of the application's. Which configuration names them is in `dagster_home.py`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster._config import UserConfigSchema
from dagster._core.events import EngineEventData, JobFailureData
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.defs_state.base import DefsStateStorage
from dagster._core.storage.event_log.migration import ASSET_KEY_INDEX_COLS
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import DagsterPostgresException, create_pg_engine
from dagster_shared.error import SerializableErrorInfo
from pydantic import SecretStr

from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_errors import DatabaseUnavailable, failures_as_unavailable
from orders_pipeline.infrastructure.database_url import dagster_url
from orders_pipeline.orchestration.without_settings import WithoutSettings
from orders_pipeline.system.composition import given_database
from orders_pipeline.system.session_limit import DAGSTER_POOL_SIZE
from orders_pipeline.system.settings import PREFIX, Settings, SettingsError, load_settings

SCHEMA = "dagster"
LONGEST_STATEMENT_MS = 60_000
_kept: weakref.WeakSet[dg.DagsterInstance] = weakref.WeakSet()


class RecordsBySettings(DagsterPostgresStorage):
    """Dagster's storage as our settings name it: a run's process on another host has them, and needs no other secret."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return the settings that dagster.yaml may give: none."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:  # noqa: ARG003
        """Open the records in the database that is set."""
        database_url = given_database(load_settings())
        if database_url is None:
            raise SettingsError(f"{PREFIX}DATABASE_URL is not set, and dagster.yaml is for many hosts")
        return cls(records_url(database_url), should_autocreate_tables=False, inst_data=inst_data)


class NoStates(WithoutSettings, DefsStateStorage[dg.DagsterInstance]):
    """The states of definitions, of which ours have none: else Dagster would need the database to load our code."""

    def get_latest_defs_state_info(self) -> None:
        """Return that there are none."""

    def download_state_to_path(self, key: str, version: str, path: Path) -> None:
        """Refuse."""
        raise NotImplementedError

    def upload_state_from_path(self, key: str, version: str, path: Path) -> None:
        """Refuse."""
        raise NotImplementedError

    def set_latest_version(self, key: str, version: str | None) -> None:
        """Refuse."""
        raise NotImplementedError


def records_url(database_url: SecretStr) -> str:
    """Return where Dagster has its records in a database, password and all."""
    return dagster_url(database_url, SCHEMA).get_secret_value()


def make_records(database: Database) -> None:
    """Make Dagster's schema and tables as whoever migrates, and let the application's login use them.

    Where another login owns them already, they stay as they are.
    """
    with database.begin() as transaction:
        if not transaction.scalar("may_make_dagster_schema"):
            return
        transaction.execute("create_dagster_schema")
    DagsterPostgresStorage(records_url(database.url))  # makes what is missing
    with database.begin() as transaction:
        transaction.execute("grant_dagster_schema")


def make_schema(database: Database) -> None:
    """Make what is missing of Dagster's schema and tables: its own programs make none, and so begin without the database."""
    with database.begin() as transaction:
        if not transaction.scalar("dagster_schema_exists"):
            transaction.execute("create_dagster_schema")
    with no_words_of_others():
        DagsterPostgresStorage(records_url(database.url))


@contextmanager
def dagster_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Open Dagster's records, after `prepare_dagster_home`; raise DatabaseUnavailable where they do not answer any more."""
    with no_words_of_others(), dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        keep_connections(instance)
        try:
            yield instance
        finally:
            for store in _stores(instance) if records_database(instance) is not None else []:
                store._engine.dispose()  # which Dagster leaves to when it is collected


def records_database(instance: dg.DagsterInstance) -> Database | None:
    """Return the database with Dagster's records, or None where somebody has other records than ours."""
    urls = {getattr(store, "postgres_url", None) for store in _stores(instance)}
    return Database(SecretStr(url), pool_size=1) if len(urls) == 1 and (url := urls.pop()) is not None else None


def _stores(instance: dg.DagsterInstance) -> list[Any]:
    return [instance.run_storage, instance.event_log_storage, instance.schedule_storage]


def keep_connections(
    instance: dg.DagsterInstance, pool_size: int = DAGSTER_POOL_SIZE, may_work: Callable[[], None] = lambda: None
) -> None:
    """Keep at most so many connections to Dagster's records open, for all its stores; once, however often that is asked for.

    Opening one for each of a run's hundreds of statements is half of the run's time. As it does for its web server, Dagster
    would keep one for each store, and use it after the server has gone. Nothing is asked of the records unless `may_work`
    returns.
    """
    if instance in _kept:
        return
    _kept.add(instance)
    keep = no_words_of_others()(instance.handle_new_event)

    def keep_without_trace(event: EventLogEntry, **named: Any) -> None:  # noqa: ANN401 - as Dagster has it
        keep(_without_trace(event), **named)

    instance.handle_new_event = keep_without_trace  # type: ignore[method-assign]
    stores = _, events, _ = _stores(instance)
    if records_database(instance) is None:
        return
    options = stores[0]._engine.url.query.get("options", "")
    engine = create_pg_engine(
        stores[0].postgres_url,
        stores[0]._token_provider,
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        pool_recycle=3_600,
        connect_args={"options": f"{options} -cstatement_timeout={LONGEST_STATEMENT_MS}"},
    )
    connect = engine.connect

    def connect_if_allowed() -> Any:  # noqa: ANN401 - a connection of SQLAlchemy, which lives elsewhere
        may_work()
        return connect()

    engine.connect = connect_if_allowed  # type: ignore[method-assign]
    for store in stores:
        store._engine = engine
    with no_words_of_others():  # else it is asked for with the first event, beside whose connection none may be free
        events.has_secondary_index(ASSET_KEY_INDEX_COLS)


def _without_trace(event: EventLogEntry) -> EventLogEntry:
    """Return an event without the trace of what a run failed with outside its steps, which names files."""
    happened = event.dagster_event
    data = None if happened is None else happened.event_specific_data
    if happened is None or not isinstance(data, JobFailureData | EngineEventData) or data.error is None:
        return event
    told = data._replace(error=SerializableErrorInfo(data.error.message, [], data.error.cls_name))
    return event._replace(dagster_event=happened._replace(event_specific_data=told))


@contextmanager
def no_words_of_others() -> Iterator[None]:
    """Raise our own error where Dagster's records do not answer: Dagster's has the statement and its values."""
    try:
        with failures_as_unavailable():
            yield
    except DagsterPostgresException:
        raise DatabaseUnavailable(None, "Dagster's records do not answer") from None

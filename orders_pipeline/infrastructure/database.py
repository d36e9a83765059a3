"""PostgreSQL: connections, transactions, the named statements of `sql/queries`, and COPY.

Statements live in `sql/`, each with a name and a comment; Python has no SQL text. What a statement means to a use case
belongs in that use case's module, errors in `database_errors.py`, URLs in `database_url.py`, the schema in `migrations.py`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Self

import psycopg
from psycopg.abc import RV, PQGen
from pydantic import SecretStr
from sqlalchemy import Connection, CursorResult, Engine, Row, TextClause, create_engine, event, text

from orders_pipeline.infrastructure.database_errors import (
    DENIED,
    READ_ONLY,
    DatabaseError,
    DatabaseTooOld,
    RoleMissing,
    translated_errors,
)
from orders_pipeline.infrastructure.database_url import normalise_url

SQL = resources.files("orders_pipeline.sql")
OLDEST = 16  # version of PostgreSQL
CONNECT_TIMEOUT_S = 10
POOL_SIZE = 8  # transactions of a process at once, however many threads it has; more of them wait
POOL_WAIT_S = 30.0
STREAMED_ROWS = 2_000
SILENCE_S = 120.0  # an answer that takes longer will not come: a line can swallow everything and stay open


def parse_queries(source: str) -> dict[str, str]:
    """Split a query file into its statements by their `-- name:` lines.

    One with {braces} in its name is made for each of the file's `-- for:` lines, which say in JSON what they stand for.
    """
    places = [json.loads(line) for line in re.findall(r"^-- for: (.*)$", source, flags=re.MULTILINE)]
    blocks = re.split(r"^-- name: *([\w{}]+) *$", source, flags=re.MULTILINE)[1:]
    named: dict[str, str] = {}
    for name, body in zip(blocks[::2], blocks[1::2], strict=True):
        for words in places if "{" in name else [{}]:
            named[_filled(name, words)] = _filled(body.strip(), words)
    return named


def _filled(text: str, words: Mapping[str, str]) -> str:
    for place, word in words.items():
        text = text.replace(f"{{{place}}}", word)
    return text


@functools.cache
def queries() -> Mapping[str, TextClause]:
    """Return every named statement of `sql/queries`; a name used twice is an error."""
    found: dict[str, TextClause] = {}
    for file in sorted((SQL / "queries").iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".sql"):
            for name, body in parse_queries(file.read_text("utf-8")).items():
                if name in found:
                    raise ValueError(f"two statements are named {name}")
                found[name] = text(body)
    return found


class _Connection(psycopg.Connection[Any]):
    """A connection that is closed when the server says nothing for too long."""

    patient = False  # whether an answer may take as long as it wants

    @classmethod
    def open(cls, *arguments: Any, **named: Any) -> Self:  # noqa: ANN401 - psycopg's own signature
        """Connect to a server that takes writes, and let it notice when we vanish: it holds our locks until then.

        Raises DatabaseTooOld.
        """
        connection = cls.connect(*arguments, **named)
        if connection.info.server_version < OLDEST * 10_000:
            version = connection.info.parameter_status("server_version") or "older"
            connection.close()
            raise DatabaseTooOld(version, OLDEST)
        connection.autocommit = True
        connection.execute(queries()["watch_client"].text.encode())
        connection.autocommit = False
        return connection

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for the server as psycopg does, but not for ever."""
        if self.patient:
            return super().wait(gen, interval, timeout)
        deadline = time.monotonic() + (timeout or SILENCE_S)
        try:
            return super().wait(gen, interval, timeout or SILENCE_S)
        except psycopg.OperationalError:
            if time.monotonic() >= deadline:
                self.close()
            raise


class Transaction:
    """One open transaction; statements are called by their name in `sql/queries`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def login(self) -> str:
        """Return who has logged in, whichever role the statements run as."""
        return _driver(self._connection).info.user

    def execute(self, name: str, **parameters: object) -> int:
        """Run a statement and return the number of rows it touched."""
        return self._run(name, parameters).rowcount

    def rows(self, name: str, **parameters: object) -> Sequence[Row[Any]]:
        """Run a statement and return its rows."""
        return self._run(name, parameters).all()

    def stream(self, name: str, **parameters: object) -> Iterator[Row[Any]]:
        """Run a statement and yield its rows, of which only some are in memory at a time."""
        with translated_errors():
            yield from self._connection.execute(queries()[name], parameters, execution_options={"yield_per": STREAMED_ROWS})

    def row(self, name: str, **parameters: object) -> Row[Any] | None:
        """Run a statement and return its only row, or None."""
        return self._run(name, parameters).one_or_none()

    def scalar(self, name: str, **parameters: object) -> Any:  # noqa: ANN401 - whatever the column is
        """Run a statement and return its only value, or None."""
        return self._run(name, parameters).scalar_one_or_none()

    def by_index(self) -> None:
        """Let what follows be planned by indexes alone: statistics that lag behind make reading a whole table look cheap."""
        self.execute("plan_by_index")

    def script(self, sql: str) -> None:
        """Run a migration: several statements without parameters."""
        with translated_errors():
            self._cursor().execute(sql.encode())

    def execute_with_columns(self, name: str, columns: Sequence[str]) -> int:
        """Run a statement whose `{columns}` are the catalogue's and return the number of rows it touched."""
        with translated_errors():
            return self._cursor().execute(_with_columns(name, columns)).rowcount

    def copy(self, name: str, data: Iterable[bytes], columns: Sequence[str] = ()) -> None:
        """Run a COPY ... FROM STDIN statement with `data` in the statement's format."""
        with translated_errors(), self._cursor().copy(_with_columns(name, columns)) as copy:
            for block in data:
                copy.write(block)

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo only what happens inside when it fails."""
        with self._connection.begin_nested():
            yield

    def _run(self, name: str, parameters: Mapping[str, object]) -> CursorResult[Any]:
        with translated_errors():
            return self._connection.execute(queries()[name], parameters)

    def _cursor(self) -> psycopg.Cursor[Any]:
        return _driver(self._connection).cursor()


def _driver(connection: Connection) -> _Connection:
    driver_connection: Any = connection.connection.dbapi_connection  # also of one that was detached
    if not isinstance(driver_connection, _Connection):
        raise TypeError("the database URL must name the psycopg driver")
    return driver_connection


def _with_columns(name: str, columns: Sequence[str]) -> bytes:
    if not all(re.fullmatch("[a-z_]+", column) for column in columns):
        raise ValueError("a column's name is lower case letters and _")
    return queries()[name].text.replace("{columns}", ", ".join(columns)).encode()


@dataclass(frozen=True)
class SessionIdentity:
    """Who works over a connection, for the audit; with it, a connection has the application's rights and no others."""

    actor: str
    origin: str  # the command or the run


class Database:
    """A pool of connections to one PostgreSQL database, never more than its size, beside `session`s.

    Without an identity it has all rights of its login.
    """

    def __init__(self, url: SecretStr, *, pool_size: int = POOL_SIZE, identity: SessionIdentity | None = None) -> None:
        self.url = url
        self._identity = identity
        self._guard: Callable[[Transaction], None] | None = None
        self._engine: Engine = create_engine(
            normalise_url(url.get_secret_value()),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_WAIT_S,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "application_name": "orders-pipeline",
                "target_session_attrs": "read-write",
            },
        )
        event.listen(self._engine, "do_connect", lambda _dialect, _record, args, kwargs: _Connection.open(*args, **kwargs))

    @contextlib.contextmanager
    def begin(self, *, patient: bool = False) -> Iterator[Transaction]:
        """Open a transaction, committed at the end of the block and rolled back by an error in it.

        A statement that is not answered within SILENCE_S ends its connection, unless the transaction is `patient`.
        """
        try:
            with translated_errors(), self._engine.begin() as connection:
                _driver(connection).patient = patient
                transaction = self._identified(connection)
                if self._guard is not None:
                    self._guard(transaction)
                yield transaction
                connection.info["identified"] = True  # not after a rollback: that takes it back
        except DatabaseError as error:
            if error.sqlstate == READ_ONLY:  # every connection we keep leads there
                self._engine.dispose()
            raise

    def guarded(self, guard: Callable[[Transaction], None]) -> Database:
        """Return this database over the same connections; each transaction begins with `guard`, which may end it."""
        database = copy.copy(self)
        database._guard = guard
        return database

    @contextlib.contextmanager
    def session(self, *, patient: bool = False) -> Iterator[Transaction]:
        """Open a connection of its own, each statement committed at once, for what ends with it: locks, temporary tables."""
        with translated_errors(), self._engine.connect() as connection:
            _driver(connection).patient = patient
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()  # closed at the end instead of going back to the pool with its locks
            yield self._identified(connection)

    def _identified(self, connection: Connection) -> Transaction:
        transaction = Transaction(connection)
        if self._identity is not None and not connection.info.get("identified"):
            try:
                transaction.execute("identify_session", actor=self._identity.actor, origin=self._identity.origin)
            except DatabaseError as error:
                if error.sqlstate == DENIED:
                    raise RoleMissing(transaction.login) from None
                raise
        return transaction

    def close(self) -> None:
        """Close every connection of the pool."""
        self._engine.dispose()


def array_of(numbers: Iterable[int]) -> str:
    """Return numbers as the text of a PostgreSQL array: arrays of different lengths go into a statement as texts only."""
    return f"{{{','.join(map(str, numbers))}}}"

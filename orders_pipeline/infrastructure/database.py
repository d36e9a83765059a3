"""PostgreSQL: connections, transactions, the named statements of `sql/queries`, COPY, and errors that say nothing personal.

Statements live in `sql/`, one comment line and one name each; Python has no SQL text. What a statement means to a use
case belongs in that use case's module; changing the schema belongs in `migrations.py`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import unquote

import psycopg
from psycopg import sql
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr
from sqlalchemy import URL, Connection, CursorResult, Engine, Row, TextClause, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoneFree

SQL = resources.files("orders_pipeline.sql")
DRIVER = "postgresql+psycopg"
TRANSIENT_CLASSES = ("08", "40", "53", "57")  # connection, conflict, resources, intervention
DENIED = "42501"
OLDEST = 16  # version of PostgreSQL
READ_ONLY = "25006"  # what was our server takes no more writes: another one may
TRANSIENT = ("55P03", READ_ONLY)  # not of those classes, and may pass
CONNECT_TIMEOUT_S = 10
POOL_SIZE = 8  # transactions of a process at once, however many threads it has; more of them wait
POOL_WAIT_S = 30.0
# libpq would encrypt by GSSAPI instead where there is a Kerberos ticket, whatever else is asked for
PRIVATE = {"sslmode": "verify-full", "ssl_min_protocol_version": "TLSv1.3", "gssencmode": "disable"}
# a failure to connect has no SQLSTATE; these are the words of libpq, OpenSSL and the server for what does not pass by itself
_NOT_PRIVATE = re.compile(r"certificate|does not support SSL|protocol version|unsupported protocol|no protocols available")
_NOT_REACHED = re.compile(
    r"connection refused|timeout expired|timed out|no route to host|network is unreachable|reset by peer"
    r"|could not translate host name|(name or service|host) not known|failed to resolve host|no such file or directory",
    re.IGNORECASE,
)
_SERVER = re.compile(
    r'server at "([^"]+)"(?: \([^)]*\))?, port (\d+)|(?:translate host name|resolve host) ["\']([^"\']+)["\']'
)
_NOT_NAMED = re.compile(r"invalid (\w+ value|port|integer|connection option|URI)")
_NO_LOGIN = re.compile(
    r"authentication failed|no password supplied|no pg_hba.conf entry|(role|database) \".*\" does not exist"
)
STREAMED_ROWS = 2_000
PATIENCE_S = 60.0
SILENCE_S = 120.0  # an answer that takes longer will not come: a line can swallow everything and stay open

Value = TypeVar("Value")


class DatabaseError(Exception):
    """The database refused or was not reachable; carries the SQLSTATE, never a statement or a value."""

    code = "E_DATABASE"
    text = ""
    is_transient = False

    def __init__(self, sqlstate: str | None, found: str = "") -> None:
        self.sqlstate = sqlstate
        self.condition = _condition(sqlstate) if sqlstate else ""
        text = self.text or found or f"the database answered {self.condition or 'nothing'}"
        super().__init__(f"{self.code}: {text}{f' ({found})' if found and self.text else ''}")


class DatabaseNotNamed(DatabaseError):
    """The URL names no database, or asks for what there is not."""

    code = "E_DATABASE_URL"
    text = "ORDERS_DATABASE_URL is not the URL of a PostgreSQL database, or has an option or value that libpq does not know"


class DatabaseUnavailable(DatabaseError):
    """The same work may succeed later."""

    code = "E_DATABASE_UNAVAILABLE"
    is_transient = True


class DatabaseNotPrivate(DatabaseError):
    """The connection would not be private: no TLS, too old a version, or a certificate that does not prove the server."""

    code = "E_DATABASE_TLS"
    text = "the database offers no TLS that is asked for, or its certificate is not one for this host that we trust"


class DatabaseLoginRefused(DatabaseError):
    """The server does not let us in."""

    code = "E_DATABASE_LOGIN"
    text = "the server refuses the user, the password or the database's name"


class RoleMissing(DatabaseError):
    """The login may not take on the application's role."""

    code = "E_DATABASE_ROLE"

    def __init__(self, login: str) -> None:
        granted = sql.Identifier(login).as_string()
        super().__init__(DENIED, f"the login {login} lacks the role orders_app: GRANT orders_app TO {granted}")


class DatabaseTooOld(DatabaseError):
    """The server's version lacks what our statements use."""

    code = "E_DATABASE_VERSION"

    def __init__(self, version: str) -> None:
        super().__init__(None, f"PostgreSQL {OLDEST} or later is needed, and this server is {version}")


class ConstraintViolated(DatabaseError):
    """A rule of the schema said no; `constraint` is its name."""

    code = "E_CONSTRAINT"

    def __init__(self, sqlstate: str, constraint: str) -> None:
        super().__init__(sqlstate)
        self.constraint = constraint
        self.args = (f"{self.code}: {constraint}",)


def parse_queries(source: str) -> dict[str, str]:
    """Split a query file into its statements by their `-- name:` lines."""
    blocks = re.split(r"^-- name: *(\w+) *$", source, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(blocks[::2], blocks[1::2], strict=True)}


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
            raise DatabaseTooOld(version)
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
        with _translated():
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
        with _translated():
            self._cursor().execute(sql.encode())

    def execute_with_columns(self, name: str, columns: Sequence[str]) -> int:
        """Run a statement whose `{columns}` are the catalogue's and return the number of rows it touched."""
        with _translated():
            return self._cursor().execute(_with_columns(name, columns)).rowcount

    def copy(self, name: str, data: Iterable[bytes], columns: Sequence[str] = ()) -> None:
        """Run a COPY ... FROM STDIN statement with `data` in the statement's format."""
        with _translated(), self._cursor().copy(_with_columns(name, columns)) as copy:
            for block in data:
                copy.write(block)

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo only what happens inside when it fails."""
        with self._connection.begin_nested():
            yield

    def _run(self, name: str, parameters: Mapping[str, object]) -> CursorResult[Any]:
        with _translated():
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
        event.listen(self._engine, "do_connect", lambda _dialect, _record, given, named: _Connection.open(*given, **named))

    @contextlib.contextmanager
    def begin(self, *, patient: bool = False) -> Iterator[Transaction]:
        """Open a transaction, committed at the end of the block and rolled back by an error in it.

        A statement that is not answered within SILENCE_S ends its connection, unless the transaction is `patient`.
        """
        try:
            with _translated(), self._engine.begin() as connection:
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
        with _translated(), self._engine.connect() as connection:
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


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise _translate(error.orig) from None
    except psycopg.Error as error:
        raise _translate(error) from None
    except (NoneFree, PendingRollbackError):  # the latter of a connection that was found lost before
        raise DatabaseUnavailable(None) from None


@contextlib.contextmanager
def told_by_code() -> Iterator[None]:
    """Raise DatabaseUnavailable for what fails of statements that are not ours."""
    try:
        yield
    except SQLAlchemyError:
        raise DatabaseUnavailable(None) from None


def _translate(error: BaseException | None) -> DatabaseError:
    sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
    if isinstance(error, psycopg.Error) and sqlstate and sqlstate.startswith("23"):
        return ConstraintViolated(sqlstate, error.diag.constraint_name or "unnamed")
    if isinstance(error, psycopg.OperationalError) and sqlstate is None:
        said = str(error)
        for words, kind in (
            (_NOT_PRIVATE, DatabaseNotPrivate),
            (_NO_LOGIN, DatabaseLoginRefused),
            (_NOT_NAMED, DatabaseNotNamed),
        ):
            if words.search(said):
                return kind(None, _server(said))
        why = _NOT_REACHED.search(said)
        if why is not None:
            return DatabaseUnavailable(None, f"no connection: {why[0].lower()}; {_server(said)}".removesuffix("; "))
    if sqlstate is None or sqlstate.startswith(TRANSIENT_CLASSES) or sqlstate in TRANSIENT:
        return DatabaseUnavailable(sqlstate)
    return DatabaseError(sqlstate)


def _condition(sqlstate: str) -> str:
    """Return an SQLSTATE and PostgreSQL's name for it: `42501 insufficient_privilege`."""
    try:
        name = psycopg.errors.lookup(sqlstate).__name__
    except KeyError:
        return sqlstate
    return f"{sqlstate} {re.sub('(?<=[a-z])(?=[A-Z])', '_', name).lower()}"


def _server(said: str) -> str:
    """Return which server libpq's words are about, as the setting has it."""
    found = _SERVER.search(said)
    if found is None:
        return ""
    host, port, name = found.groups()
    return f"host {host}, port {port}" if host else f"host {name}"


def persist(work: Callable[[], Value]) -> Value:
    """Do a piece of database work, again while the database is away, for up to a minute."""
    deadline = time.monotonic() + PATIENCE_S
    pause_s = 0.1
    while True:
        try:
            return work()
        except DatabaseUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - spreads out, hides nothing
            pause_s = min(2 * pause_s, 5.0)


def array_of(numbers: Iterable[int]) -> str:
    """Return numbers as the text of a PostgreSQL array: arrays of different lengths go into a statement as texts only."""
    return f"{{{','.join(map(str, numbers))}}}"


def _parsed(url: str) -> URL:
    """Return a URL of PostgreSQL, whichever of its schemes it came with; raise DatabaseNotNamed where it is none."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() in ("postgresql", "postgres"):
            conninfo_to_dict(_libpq(parsed))
            return parsed
    except (ArgumentError, ValueError, psycopg.ProgrammingError):
        pass
    raise DatabaseNotNamed(None)


def _libpq(parsed: URL) -> str:
    return parsed.set(drivername="postgresql").render_as_string(hide_password=False)


def normalise_url(url: str) -> str:
    """Return `url` with our driver named; raise DatabaseNotNamed."""
    return _parsed(url).set(drivername=DRIVER).render_as_string(hide_password=False)


def private_url(url: SecretStr, ca_file: Path | None) -> SecretStr:
    """Return `url` with TLS 1.3 to a server that proves its name, by `ca_file` unless it names another authority.

    Raises ValueError where the URL asks for less, or for a socket of this machine, which knows no TLS.
    """
    try:
        parsed = make_url(url.get_secret_value())
    except ArgumentError:
        raise ValueError("this is not the URL of a database") from None
    asked = parsed.query.get("host", ())
    hosts = [*([parsed.host] if parsed.host else []), *([asked] if isinstance(asked, str) else asked)]
    names = [unquote(name) for host in hosts for name in host.split(",")]
    if not names or any(name.startswith(("/", "@")) or not name for name in names):
        raise ValueError("a socket has no TLS")
    if any(parsed.query.get(name, value) != value for name, value in PRIVATE.items()):
        raise ValueError("the URL asks for less than TLS 1.3 with verify-full")
    authority = {"sslrootcert": str(ca_file.resolve())} if ca_file is not None and "sslrootcert" not in parsed.query else {}
    return SecretStr(parsed.update_query_dict(PRIVATE | authority).render_as_string(hide_password=False))


def libpq_url(url: SecretStr) -> str:
    """Return the connection URL as libpq and psql read it; raise DatabaseNotNamed."""
    return _libpq(_parsed(url.get_secret_value()))


def dagster_url(url: SecretStr, schema: str) -> SecretStr:
    """Return the URL of Dagster's own records: the same database, its own schema, and the driver dagster-postgres needs."""
    parsed = make_url(url.get_secret_value()).set(drivername="postgresql+psycopg2")
    parsed = parsed.update_query_dict({"options": f"-csearch_path={schema}"})
    return SecretStr(parsed.render_as_string(hide_password=False))

"""Errors of the database as ours: a code and an SQLSTATE, never a statement, a value or the server's words.

Which of them pass by themselves is decided here, and work that meets such a one is tried again here. Connecting and running
statements belongs in `database.py`.
"""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import psycopg
from psycopg import sql
from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolExhausted

DENIED = "42501"
READ_ONLY = "25006"  # what was our server takes no more writes: another one may
TRANSIENT_CLASSES = ("08", "40", "53", "57")  # connection, conflict, resources, intervention
LOCK_TIMEOUT = "55P03"
TRANSIENT = (LOCK_TIMEOUT, READ_ONLY)  # not of those classes, and may pass
PATIENCE_S = 60.0
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

Value = TypeVar("Value")


class DatabaseError(Exception):
    """The database refused or was not reachable; carries the SQLSTATE, never a statement or a value."""

    code = "E_DATABASE"
    text = ""
    is_transient = False

    def __init__(self, sqlstate: str | None, detail: str = "") -> None:
        self.sqlstate = sqlstate
        self.condition = _condition(sqlstate) if sqlstate else ""
        text = self.text or detail or f"the database answered {self.condition or 'nothing'}"
        super().__init__(f"{self.code}: {text}{f' ({detail})' if detail and self.text else ''}")


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

    def __init__(self, version: str, oldest: int) -> None:
        super().__init__(None, f"PostgreSQL {oldest} or later is needed, and this server is {version}")


class ConstraintViolated(DatabaseError):
    """A rule of the schema said no; `constraint` is its name."""

    code = "E_CONSTRAINT"

    def __init__(self, sqlstate: str, constraint: str) -> None:
        super().__init__(sqlstate)
        self.constraint = constraint
        self.args = (f"{self.code}: {constraint}",)


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Raise ours in place of what psycopg and SQLAlchemy raise."""
    try:
        yield
    except DBAPIError as error:
        raise _translate(error.orig) from None
    except psycopg.Error as error:
        raise _translate(error) from None
    except (PoolExhausted, PendingRollbackError):  # the latter of a connection that was found lost before
        raise DatabaseUnavailable(None) from None


@contextlib.contextmanager
def failures_as_unavailable() -> Iterator[None]:
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


def retry_while_unavailable(work: Callable[[], Value]) -> Value:
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

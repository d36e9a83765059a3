"""Errors of the database as ours: a code and an SQLSTATE, never a statement, a value or the server's words.

Which of them pass by themselves is decided here, and work that meets such a one is tried again here. Connecting and running
statements belongs in `database.py`.
"""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import psycopg
from psycopg import sql
from sqlalchemy.exc import DBAPIError, PendingRollbackError, ResourceClosedError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolExhausted

DENIED = "42501"
READ_ONLY = "25006"  # what was our server takes no more writes: another one may
TRANSIENT_CLASSES = ("08", "40", "53", "57")  # connection, conflict, resources, intervention
LOCK_TIMEOUT = "55P03"
TRANSIENT = (LOCK_TIMEOUT, READ_ONLY)  # not of those classes, and may pass
PATIENCE_S = 60.0
_NAMES = re.compile(r"\"[^\"]*\"|(?<=host )'[^']*'")
_SERVER = re.compile(
    r'server at "([^"]+)"(?: \([^)]*\))?, port (\d+)|(?:translate host name|resolve host) ["\']([^"\']+)["\']'
)

Value = TypeVar("Value")


class DatabaseError(Exception):
    """The database refused or was not reachable; carries the SQLSTATE, never a statement or a value."""

    code = "E_DATABASE"
    text = ""
    is_transient = False

    def __init__(self, sqlstate: str | None, says: str = "") -> None:
        self.sqlstate = sqlstate
        self.condition = _condition(sqlstate) if sqlstate else ""
        answered = f"the database answered {self.condition or 'nothing'}"
        super().__init__(f"{self.code}: {says or self.text or answered}")


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


class DatabaseLoginRefused(DatabaseError):
    """The server does not let us in."""

    code = "E_DATABASE_LOGIN"


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


LOST = "the connection was lost"
_OWN = "sslcert and sslkey of ORDERS_DATABASE_URL"
# A failure to connect has no SQLSTATE: these are the words of libpq, OpenSSL and the server, what they are for us, and what
# we say of them, or else the words that were found. The first that is found counts.
_CAUSES: Sequence[tuple[re.Pattern[str], type[DatabaseError], str]] = [
    (re.compile(words, re.IGNORECASE), kind, says)
    for words, kind, says in (
        (
            r"requires a valid client certificate|certificate authentication failed"
            r"|alert (\w+ certificate|certificate \w+|unknown ca|access denied)",
            DatabaseLoginRefused,
            f"the server wants a certificate of this user that it trusts and that has not expired: {_OWN} name ours",
        ),
        (
            r"pg_hba\.conf .*, (ssl|gss) encryption",  # with TLS, whether or not it was tried without TLS then
            DatabaseLoginRefused,
            "the server's pg_hba.conf does not let this user into this database from here",
        ),
        (
            r"pg_hba\.conf .*, no encryption",
            DatabaseLoginRefused,
            "the server's pg_hba.conf does not let this user into this database from here without TLS",
        ),
        (
            r"authentication failed|no password supplied|not permitted to log in|permission denied for database"
            r"|(role|database) \".*\" does not exist|no such (user|database)",
            DatabaseLoginRefused,
            "the server refuses the user, the password or the database's name",
        ),
        (
            r"(?<!root )certificate file|certificate present|private (ssl )?key",
            DatabaseNotNamed,
            f"{_OWN} are not files with a certificate and its key, which its owner alone may read",
        ),
        (
            r"root certificate",
            DatabaseNotPrivate,
            "nothing says which authorities to trust: set ORDERS_CA_FILE, or sslrootcert of ORDERS_DATABASE_URL",
        ),
        (
            r"certificate|does not support SSL|protocol version|unsupported protocol|no protocols available",
            DatabaseNotPrivate,
            "the database offers no TLS that is asked for, or its certificate is not one for this host that we trust",
        ),
        (
            r"invalid (\w+ value|port|integer|connection option|URI)|unrecognized configuration parameter",
            DatabaseNotNamed,
            DatabaseNotNamed.text,
        ),
        (
            r"received invalid response|expected authentication request",
            DatabaseNotNamed,
            "what listens there is no PostgreSQL server",
        ),
        (
            r"too many (clients|connections)|connection slots are reserved",
            DatabaseUnavailable,
            "no connection: the server has no session left for this login",
        ),
        (
            r"starting up|shutting down|recovery|accepting connections",
            DatabaseUnavailable,
            "no connection: the server is starting or stopping",
        ),
        (r"read-only|hot standby", DatabaseUnavailable, "no connection: the server takes no writes"),
        (
            r"connection refused|timeout expired|timed out|no route to host|network is unreachable|reset by peer"
            r"|could not translate host name|(name or service|host) not known|failed to resolve host"
            r"|no such file or directory",
            DatabaseUnavailable,
            "",
        ),
        (
            r"connection .*failed: (.|\n)*(closed|EOF)",
            DatabaseUnavailable,
            f"no connection: the server hung up without a word; it may be starting, or want the certificate of {_OWN}",
        ),
        (
            r"connection .*failed: ",
            DatabaseUnavailable,
            "no connection, for a reason that the server or the driver says in words that we do not know",
        ),
    )
]


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Raise ours in place of what psycopg and SQLAlchemy raise."""
    try:
        yield
    except DBAPIError as error:
        raise _translate(error.orig) from None
    except psycopg.Error as error:
        raise _translate(error) from None
    except PoolExhausted:
        raise DatabaseUnavailable(None, "every session that this process may have was busy for long") from None
    except (PendingRollbackError, ResourceClosedError):  # of a connection that was found lost before, and may be closed
        raise DatabaseUnavailable(None, LOST) from None


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
        return _disconnected(str(error))
    if sqlstate is None or sqlstate.startswith(TRANSIENT_CLASSES) or sqlstate in TRANSIENT:
        return DatabaseUnavailable(sqlstate)
    return DatabaseError(sqlstate)


def _disconnected(said: str) -> DatabaseError:
    """Return what words without an SQLSTATE mean: there is no connection, or none any more."""
    unnamed, server = _NAMES.sub('""', said), _server(said)  # a host or a database may be called anything
    for words, kind, says in _CAUSES:
        if found := words.search(unnamed):
            why = says or f"no connection: {found[0].lower()}"
            return kind(None, f"{why} ({server})" if server else why)
    return DatabaseUnavailable(None, LOST)


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

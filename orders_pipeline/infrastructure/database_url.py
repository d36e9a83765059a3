"""URLs of the database: checked, made private, and written as each driver reads them.

Connecting belongs in `database.py`.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from orders_pipeline.infrastructure.database_errors import DatabaseNotNamed

DRIVER = "postgresql+psycopg"
# as `watch_client` says for our own sessions: the server drops those of a host that vanished, which took their places
WATCHED = {"tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 4, "tcp_user_timeout": 30_000}
# libpq would encrypt by GSSAPI instead where there is a Kerberos ticket, whatever else is asked for
PRIVATE = {"sslmode": "verify-full", "ssl_min_protocol_version": "TLSv1.3", "gssencmode": "disable"}


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


def place_of(url: SecretStr) -> str:
    """Return which database a URL names, and on which host, for people; raise DatabaseNotNamed."""
    parsed = _parsed(url.get_secret_value())
    port = f":{parsed.port}" if parsed.port else ""
    return f"{parsed.database} on {parsed.host}{port}" if parsed.host else f"{parsed.database} on this host"


def libpq_url(url: SecretStr) -> str:
    """Return the connection URL as libpq and psql read it; raise DatabaseNotNamed."""
    return _libpq(_parsed(url.get_secret_value()))


def dagster_url(url: SecretStr, schema: str) -> SecretStr:
    """Return the URL of Dagster's own records: the same database, its own schema, and the driver dagster-postgres needs."""
    parsed = make_url(url.get_secret_value()).set(drivername="postgresql+psycopg2")
    options = " ".join(f"-c{name}={value}" for name, value in {"search_path": schema, **WATCHED}.items())
    written = parsed.update_query_dict({"options": options}).render_as_string(hide_password=False)
    return SecretStr(written.replace("+-c", "%20-c"))  # libpq, which reads it too, takes a plus for a plus

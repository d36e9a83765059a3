"""Which database, services and storage the settings name, in words that anybody may read: hosts and names, and no secret.

And where `up` serves reports, which HOME remembers for commands beside it.

Opening them belongs in `composition.py`.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import urlsplit

from orders_pipeline.infrastructure.database_errors import DatabaseError
from orders_pipeline.infrastructure.database_url import place_of
from orders_pipeline.system.settings import Settings

SANDBOX = "the sandbox, started by itself"
FOLDER = "a folder on this host"
_REPORTS = "reports_url"  # in HOME


def whereabouts(settings: Settings) -> dict[str, str]:
    """Return by name where each part is."""
    return {
        "environment": settings.env,
        "database": _database(settings),
        "payment_service": _host(settings.payment_url) or SANDBOX,
        "notification_service": _host(settings.notification_url) or SANDBOX,
        "storage": _storage(settings.storage_location),
        "landing": _storage(settings.landing_location),
    }


def note_reports(home: Path, url: str) -> None:
    """Remember where `up` serves reports."""
    (home / _REPORTS).write_text(url)


def reports(settings: Settings) -> str | None:
    """Return where reports are served: as is set, or where `up` of this HOME served them last; None where it never did."""
    with contextlib.suppress(OSError):
        return settings.reports_url or (settings.home / _REPORTS).read_text()
    return None


def _database(settings: Settings) -> str:
    if settings.database_url is None:
        return "PostgreSQL of ORDERS_HOME, started by itself"
    try:
        return place_of(settings.database_url)
    except DatabaseError:
        return "ORDERS_DATABASE_URL names none"


def _host(url: str | None) -> str:
    """Return the host of a URL, and its port where that is said; nothing else of it."""
    parts = urlsplit(url or "")
    return f"{parts.hostname or ''}:{parts.port}" if parts.port else parts.hostname or ""


def _storage(location: str) -> str:
    return f"bucket {urlsplit(location).hostname}" if "://" in location else FOLDER

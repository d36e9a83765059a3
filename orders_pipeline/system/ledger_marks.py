"""Ledger marks: how far a database's ledger was, kept in the storage, where restoring the database does not reach it.

A mark is an object whose name says it, so that no two say something else under one key. Its content says when the
installation began and which running database wrote it. What follows from marks is decided in `restore_guard.py`.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row

from orders_pipeline.infrastructure.storage import KeyRefused, Storage, StorageError, StorageUnavailable
from orders_pipeline.security.encryption import DecryptionError, EncryptionKeysError

MARKS = "installation/"
MARK_KEY = re.compile(MARKS + r"(?P<installation>[0-9a-f]{32})-(?P<generation>[0-9]{6})-(?P<mark>[0-9]{18})[.]json")
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
RENEWED_AFTER = timedelta(minutes=1)  # a database in use renews its mark as often
FRESH = timedelta(minutes=3)  # for so long nobody else takes over what its mark is about


class LedgerMark(NamedTuple):
    """How far an installation's ledger was: marks grow within a generation, and generations with each restored database."""

    generation: int
    mark: int
    installation_id: uuid.UUID

    @property
    def key(self) -> str:
        """Return the key under which it is kept."""
        return f"{MARKS}{self.installation_id.hex}-{self.generation:06d}-{self.mark:018d}.json"


class KeptMark(NamedTuple):
    """A mark that the storage has, and when it was last kept or renewed."""

    mark: LedgerMark
    at: datetime


def mark_of(state: Row[Any]) -> LedgerMark:
    """Return the mark that is committed in the database."""
    return LedgerMark(state.generation, state.mark, state.installation_id)


def kept_marks(storage: Storage) -> Iterator[KeptMark]:
    """Return the marks in the storage; raise StorageUnavailable where one may be among what could not be looked at."""
    left_out: dict[str, str] = {}
    for stored in storage.list(MARKS, left_out):
        match = MARK_KEY.fullmatch(stored.key)
        if match is not None:
            mark = LedgerMark(int(match["generation"]), int(match["mark"]), uuid.UUID(match["installation"]))
            yield KeptMark(mark, stored.modified)
    if {*left_out.values()} - {KeyRefused.code}:
        raise StorageUnavailable


def keep_mark(storage: Storage, state: Row[Any]) -> None:
    """Keep the mark that is committed, and remove those that it is beyond."""
    now = mark_of(state)
    content = {"since": state.created_at, "at": state.asked_at, "database": state.running}
    storage.put(now.key, json.dumps(content, default=datetime.isoformat).encode())
    for mark, _ in kept_marks(storage):
        if mark.installation_id != now.installation_id or mark < now:
            storage.delete(mark.key)


def writer_of(storage: Storage, mark: LedgerMark) -> str | None:
    """Return which running database wrote a mark; None where that cannot be read."""
    writer = _content(storage, mark).get("database")
    return writer if isinstance(writer, str) else None


def installed_at(storage: Storage, mark: LedgerMark) -> datetime:
    """Return when a mark's installation began; long ago, where that cannot be read."""
    try:
        return datetime.fromisoformat(_content(storage, mark)["since"])
    except (ValueError, KeyError, TypeError):
        return LONG_AGO


def _content(storage: Storage, mark: LedgerMark) -> dict[str, Any]:
    """Return what a mark says; nothing, where that cannot be read: gone, damaged, or under a key we do not have."""
    try:
        with storage.local(mark.key) as path:
            content = json.loads(path.read_bytes())
    except (StorageError, DecryptionError, EncryptionKeysError, OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

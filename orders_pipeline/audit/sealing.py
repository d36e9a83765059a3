"""Sealing: records become blocks whose heads are one chain; the newest head is kept where the database's owner has no say.

A block is made of what can change no more: a record's transaction may end after one with a higher number, so sealing
waits for all that were under way; how far that is, is the database's word. What cannot be sealed now is sealed next time.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain

from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.storage import ObjectDenied, Storage

AUDIT = "audit/"
HEADS = f"{AUDIT}heads/"
NEWEST = f"{AUDIT}newest/"
HEAD_KEY = re.compile(f"(?:{HEADS}|{NEWEST})" + r"(?P<block_no>[0-9]{12,18})-(?P<head>[0-9a-f]{64})[.]json")
KEEP_HEADS = timedelta(days=8 * 366)  # as long as the longest-lived records
KEEP_NEWEST = timedelta(days=7)  # in which all is verified several times
PATIENCE_S = 10.0
POLL_S = 0.05
MOST_HELD = timedelta(minutes=10)


def seal(database: Database) -> int:
    """Seal the records there are and return the number of blocks made.

    Where transactions under way last longer than PATIENCE_S, what was recorded since is left for next time.
    """
    if not unsealed(database).records:
        return 0
    with database.begin() as transaction:
        mark = transaction.scalar("audit_mark")
    deadline = time.monotonic() + PATIENCE_S
    while not _are_over(database, mark) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    with database.begin() as transaction:
        transaction.execute("lock_audit_blocks")
        return int(transaction.scalar("audit_seal"))


@dataclass(frozen=True)
class Unsealed:
    """What waits to be sealed: how many records, since when the oldest does, and since when open transactions hold it up."""

    records: int
    since: datetime | None
    held_since: datetime | None

    @property
    def is_held_up(self) -> bool:
        """Return whether sealing has been held up for so long that somebody should look at open transactions."""
        return self.held_since is not None and datetime.now(UTC) - self.held_since > MOST_HELD

    def __str__(self) -> str:
        """Return it in words."""
        if self.since is None:
            return "all audit records are sealed"
        waiting = f"{self.records:,} audit records wait to be sealed, since {self.since.isoformat(timespec='seconds')}"
        return f"{waiting}: a transaction that is open in the database holds them up" if self.is_held_up else waiting


class SealingHeldUp(Exception):
    """A transaction has been open for so long that what was recorded since cannot be sealed."""

    code = "E_AUDIT_HELD_UP"


def unsealed(database: Database) -> Unsealed:
    """Return how far sealing lags."""
    with database.begin() as transaction:
        (row,) = transaction.rows("unsealed")
    return Unsealed(**row._asdict())


def _are_over(database: Database, own: str) -> bool:
    with database.begin() as transaction:
        return bool(transaction.scalar("transactions_before_are_over", transaction=own))


def anchor(database: Database, storage: Storage, *, briefly: bool = False) -> bool:
    """Keep the newest head in the storage, locked where it can be, and return whether it was not there yet.

    Number and head are the object's name, so that no other content and no later version of it can say anything else. One
    that is kept `briefly` serves until another is kept for long and all is verified.
    """
    with database.begin() as transaction:
        newest = transaction.row("last_seal")
    if newest is None:
        return False
    key = head_key(newest.block_no, newest.head, NEWEST if briefly else HEADS)
    if key in storage.kept(key):
        return False
    content = {"block_no": newest.block_no, "head": newest.head, "sealed_at": newest.sealed_at.isoformat()}
    until = datetime.now(UTC) + (KEEP_NEWEST if briefly else KEEP_HEADS)
    storage.keep(key, json.dumps(content).encode(), until)
    return True


def head_key(block_no: int, head: str, prefix: str = HEADS) -> str:
    """Return the key under which a block's head is kept."""
    return f"{prefix}{block_no:012d}-{head}.json"


def forget_brief_heads(storage: Storage) -> int:
    """Remove those that were kept briefly and have served; return how many."""
    old = [stored.key for stored in storage.list(NEWEST) if stored.modified < datetime.now(UTC) - KEEP_NEWEST]
    for key in old:
        with contextlib.suppress(ObjectDenied):  # the lock is a little younger than the object
            storage.forget(key)
    return len(old)


def anchored_heads(storage: Storage) -> dict[int, set[str]]:
    """Return all heads that were ever kept, by their blocks; a block with two was made twice."""
    heads: dict[int, set[str]] = {}
    for match in map(HEAD_KEY.fullmatch, chain(storage.kept(HEADS), storage.kept(NEWEST))):
        if match is not None:
            heads.setdefault(int(match["block_no"]), set()).add(match["head"])
    return heads

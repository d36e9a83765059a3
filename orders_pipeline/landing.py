"""The landing: which of the files that clients put there are new.

`new_files` decides over a stretch of a listing and the landing ledger, without a clock: every version of a file is one
batch, however listings are ordered, repeated or late. One look goes through the landing for a moment and the next goes on
there, so that a look is short whatever lies in it. Listing belongs in `storage/`, asking for runs in `sensors.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from orders_pipeline import batches
from orders_pipeline.clients import CLIENT_CODE
from orders_pipeline.database import Database, Transaction
from orders_pipeline.storage import ObjectDenied, ObjectGone, Page, Storage, StoredObject

Version = tuple[str, str]  # key, version
MAX_NEW = 100  # batches registered in one look
PAGES_AT_LEAST = 5  # a look at a landing of usual size sees all of it, however slow the store
LOOK_S = 0.4  # beyond that, for so long
READ_TRIES = 3
READ_PAUSE_S = 1.0

Read = TypeVar("Read")


@dataclass(frozen=True)
class Decision:
    """What a stretch of the landing comes to."""

    ready: tuple[StoredObject, ...]  # complete and not yet a batch
    remember: tuple[StoredObject, ...]  # seen for the first time, maybe still growing: decided at the next look
    forget: tuple[Version, ...]  # replaced or removed before they became a batch


def is_order_file(stored: StoredObject) -> bool:
    """Say whether an object is `<client_code>/<name>` and not one of our manifests."""
    client_code, _, name = stored.key.partition("/")
    return bool(CLIENT_CODE.fullmatch(client_code)) and bool(name) and not name.endswith(".manifest.json")


def new_files(
    listing: Iterable[StoredObject],
    known: Mapping[Version, str | None],
    waiting: Collection[Version],
) -> Decision:
    """Decide which objects of a stretch of the listing may become batches now.

    `known` maps versions in the ledger to their batch ids (None: seen only), `waiting` are those of the same stretch
    without a batch. An object that may still grow is ready when two looks in a row show the same version.
    """
    ready: list[StoredObject] = []
    remember: list[StoredObject] = []
    listed: set[Version] = set()
    for stored in filter(is_order_file, listing):
        version = (stored.key, stored.version)
        listed.add(version)
        if known.get(version) is not None:
            continue
        if stored.settled or version in known:
            ready.append(stored)
        else:
            remember.append(stored)
    gone = tuple(sorted(version for version in waiting if version not in listed))
    return Decision(tuple(ready), tuple(remember), gone)


def in_turn(ready: Iterable[StoredObject], limit: int) -> list[StoredObject]:
    """Return at most `limit` files: the oldest of every client first, then the next of every client, and so on."""
    by_client = groupby(sorted(ready, key=lambda each: (_client(each), each.modified, each.key)), key=_client)
    turns = [(turn, stored) for _, files in by_client for turn, stored in enumerate(files)]
    turns.sort(key=lambda each: (each[0], each[1].modified, each[1].key))
    return [stored for _, stored in turns[:limit]]


def _client(stored: StoredObject) -> str:
    return stored.key.partition("/")[0]


def look(database: Database, landing: Storage, limit: int = MAX_NEW, look_s: float = LOOK_S) -> list[str]:
    """Go on through the landing for a moment, register what has arrived and return the batches' ids.

    Where a look stopped is only a position in the listing: forgetting it means to start again, never to miss a file.
    """
    with database.begin() as transaction:
        start = str(transaction.scalar("landing_position") or "")
    position = start
    ready: list[StoredObject] = []
    deadline = time.monotonic() + look_s
    for number, page in enumerate(landing.pages(start), 1):
        ready += _note(database, position, page)
        position = page.upto or ""
        if number >= PAGES_AT_LEAST and time.monotonic() >= deadline:
            break
    with database.begin() as transaction:
        registered = [_register(transaction, stored) for stored in in_turn(ready, limit)]
        if position != start:
            transaction.execute("set_landing_position", after_key=position)
    return registered


def _note(database: Database, after: str, page: Page) -> tuple[StoredObject, ...]:
    """Bring the ledger up to date with a page of the listing, and return which of its files are ready."""
    listing = [stored for stored in page.objects if is_order_file(stored)]
    keys, versions = [stored.key for stored in listing], [stored.version for stored in listing]
    with database.begin() as transaction:
        known = {
            (row.key, row.version): row.batch_id
            for row in transaction.rows("known_landing_files", keys=keys, versions=versions)
        }
        rows = transaction.rows("waiting_landing_files", after_key=after, upto_key=page.upto)
        decision = new_files(listing, known, [(row.key, row.version) for row in rows])
        if decision.remember:
            transaction.execute(
                "see_landing_files",
                keys=[stored.key for stored in decision.remember],
                versions=[stored.version for stored in decision.remember],
                sizes=[stored.size for stored in decision.remember],
            )
        if decision.forget:
            transaction.execute(
                "forget_landing_files", keys=[key for key, _ in decision.forget], versions=[v for _, v in decision.forget]
            )
    return decision.ready


def _register(transaction: Transaction, stored: StoredObject) -> str:
    name = stored.key.rpartition("/")[2]
    source = batches.Source(name, stored.key, stored.version, size=stored.size)
    batch_id = batches.register_landed(transaction, _client(stored), source)
    transaction.execute("register_landing_file", key=stored.key, version=stored.version, size=stored.size, batch_id=batch_id)
    return batch_id


def patiently(read: Callable[[], Read]) -> Read:
    """Return what `read` gives; what was listed and is not there or denied is tried READ_TRIES times, as both may pass."""
    for _ in range(READ_TRIES - 1):
        try:
            return read()
        except (ObjectGone, ObjectDenied):
            time.sleep(READ_PAUSE_S)
    return read()

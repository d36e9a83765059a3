"""The landing: which of the files that clients put there are new.

`new_files` decides over a listing and the landing ledger, without a clock: every version of a file is one batch, however
listings are ordered, repeated or late. Listing objects belongs in `storage.py`, asking for runs in `sensors.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from orders_pipeline import batches
from orders_pipeline.clients import CLIENT_CODE
from orders_pipeline.database import Database
from orders_pipeline.storage import Storage, StoredObject

Version = tuple[str, str]  # key, version
MAX_NEW = 100  # batches registered in one look


@dataclass(frozen=True)
class Decision:
    """What one look at the landing comes to."""

    register: tuple[StoredObject, ...]  # complete and not yet a batch
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
    limit: int = MAX_NEW,
) -> Decision:
    """Decide which listed objects become batches now.

    `known` maps the versions in the ledger to their batch ids (None: seen only), `waiting` are those without a batch.
    An object that may still grow becomes a batch when two looks in a row show the same version.
    """
    register: list[StoredObject] = []
    remember: list[StoredObject] = []
    listed: set[Version] = set()
    for stored in sorted(filter(is_order_file, listing), key=lambda each: (each.modified, each.key)):
        version = (stored.key, stored.version)
        listed.add(version)
        if known.get(version) is not None:
            continue
        if stored.settled or version in known:
            register.append(stored)
        else:
            remember.append(stored)
    gone = tuple(sorted(version for version in waiting if version not in listed))
    return Decision(tuple(register[:limit]), tuple(remember), gone)


def look(database: Database, landing: Storage, limit: int = MAX_NEW) -> list[str]:
    """Register the batches that have arrived and return their ids."""
    listing = [stored for stored in landing.list() if is_order_file(stored)]
    with database.begin() as transaction:
        keys, versions = [stored.key for stored in listing], [stored.version for stored in listing]
        known = {
            (row.key, row.version): row.batch_id
            for row in transaction.rows("known_landing_files", keys=keys, versions=versions)
        }
        waiting = [(row.key, row.version) for row in transaction.rows("unregistered_landing_files")]
        decision = new_files(listing, known, waiting, limit)
        for stored in (*decision.remember, *decision.register):
            transaction.execute("see_landing_file", key=stored.key, version=stored.version, size=stored.size)
        transaction.execute(
            "forget_landing_files", keys=[key for key, _ in decision.forget], versions=[v for _, v in decision.forget]
        )
        registered = []
        for stored in decision.register:
            client_code, _, name = stored.key.partition("/")
            source = batches.Source(name.rpartition("/")[2], stored.key, stored.version, size=stored.size)
            batch_id = batches.register_landed(transaction, client_code, source)
            transaction.execute("register_landing_file", key=stored.key, version=stored.version, batch_id=batch_id)
            registered.append(batch_id)
    return registered

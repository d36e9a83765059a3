"""Rotation: everything that is sealed is sealed anew with the current key, until no other key is needed.

Runs beside everything else, for whatever is read is opened with any key. It may be stopped or killed at any moment and
is gone on with by running it again: what is left to do is told by the key ids in the envelopes themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from sqlalchemy import Row

from orders_pipeline import personal
from orders_pipeline.artifacts import ACCEPTED, BATCHES, artifact
from orders_pipeline.audit.sealing import AUDIT
from orders_pipeline.drain import persist
from orders_pipeline.encryption import DecryptionError, EncryptionKeysError
from orders_pipeline.errors import DETAILS
from orders_pipeline.storage import ObjectGone
from orders_pipeline.system import System
from orders_pipeline.workers import BatchBusy, alone_on

SEALED_FILES = (BATCHES, AUDIT, DETAILS)
CHUNK_ROWS = 2_000
SHOWN_DAMAGED = 10

Progress = Callable[[int, int], None]  # orders done, and orders there are to do


@dataclass
class Rotated:
    """What a rotation came to; `orders` are those sealed with each key now, `busy` the batches that could not be had."""

    current: str
    resealed: int = 0
    files: int = 0  # sealed anew
    damaged: list[int] = field(default_factory=list)  # order ids
    damaged_files: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    orders: dict[str, int] = field(default_factory=dict)
    removable: list[str] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Say whether nothing is sealed with another key than the current one any more."""
        return not self.busy and not self.damaged_files and set(self.orders) <= {self.current}

    def as_dict(self) -> dict[str, Any]:
        """Return the result as it goes into JSON."""
        return {
            "current": self.current,
            "resealed": self.resealed,
            "files": self.files,
            "orders": self.orders,
            "busy_batches": self.busy,
            "damaged": {"orders": len(self.damaged), "first": self.damaged[:SHOWN_DAMAGED], "files": self.damaged_files},
            "removable": self.removable,
            "done": self.is_done,
        }


def keys_in_use(system: System) -> dict[str, int]:
    """Return how many orders are sealed with each key."""
    with system.database.begin() as transaction:
        return {row.key_id: row.orders for row in transaction.rows("orders_by_key")}


def rotate(system: System, progress: Progress) -> Rotated:
    """Seal everything with the current key; raise EncryptionKeysError when the setting lacks a key that is in use."""
    before = keys_in_use(system)
    result = Rotated(system.cipher.current)
    missing = sorted(set(before) - set(system.cipher.key_ids))
    if missing:
        raise EncryptionKeysError(f"orders are sealed with keys that are not among those set: {', '.join(missing)}")
    _reseal_files(system, result)
    to_do = sum(before.values()) - before.get(result.current, 0)
    progress(0, to_do)
    after = 0
    while rows := persist(partial(_orders_to_reseal, system, after)):
        after = rows[-1].order_id
        result.resealed += persist(partial(_reseal_orders, system, rows, result))
        progress(result.resealed, max(to_do, result.resealed))
    result.orders = keys_in_use(system)
    if result.is_done:
        result.removable = [key_id for key_id in system.cipher.key_ids if key_id != result.current]
    return result


def _orders_to_reseal(system: System, after: int) -> Sequence[Row[Any]]:
    with system.database.begin() as transaction:
        return transaction.rows("orders_to_reseal", after=after, prefix=system.cipher.prefix, limit=CHUNK_ROWS)


def _reseal_orders(system: System, rows: Sequence[Row[Any]], result: Rotated) -> int:
    resealed = personal.reseal(system.cipher, ((row.batch_id, row.import_row_number, row.personal) for row in rows))
    whole = [(row.order_id, bytes(row.personal), new) for row, new in zip(rows, resealed, strict=True) if new is not None]
    with system.database.begin() as transaction:
        order_ids, old, new = (list(each) for each in zip(*whole, strict=True)) if whole else ([], [], [])
        done = transaction.execute("reseal_orders", order_ids=order_ids, old=old, new=new)
    result.damaged += [row.order_id for row, new in zip(rows, resealed, strict=True) if new is None]
    return done


def _reseal_files(system: System, result: Rotated) -> None:
    """Seal every file anew, but for accepted rows that are not loaded: they are removed, and validated again."""
    for stored in chain.from_iterable(map(system.storage.list, SEALED_FILES)):
        batch_id = stored.key.removeprefix(BATCHES).partition("/")[0]
        if stored.key == artifact(batch_id, ACCEPTED):
            try:
                with alone_on(system.database, batch_id):
                    system.storage.delete(stored.key)
            except BatchBusy:
                result.busy.append(batch_id)
            continue
        with contextlib.suppress(ObjectGone):
            try:
                result.files += system.storage.reseal(stored.key)
            except DecryptionError:
                result.damaged_files.append(stored.key)

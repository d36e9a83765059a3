"""Key rotation: everything that is encrypted is encrypted anew with the current key, until no other key is needed.

It runs beside everything else, as whatever is read is decrypted with any key. It may be stopped or killed at any moment, and
run again: what is left to do is known by the key ids in the envelopes themselves. A key may be removed once everything was
listed and looked at, and nothing needs it. What could not be looked at is named.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Row

from orders_pipeline.audit.sealing import AUDIT
from orders_pipeline.batches.artifacts import ACCEPTED, BATCHES, artifact, digest
from orders_pipeline.batches.batch_lock import BatchBusy, batch_lock
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_errors import retry_while_unavailable
from orders_pipeline.infrastructure.storage import ObjectChanged, ObjectGone, Storage, StorageError
from orders_pipeline.security import personal_data
from orders_pipeline.security.encryption import Cipher, DecryptionError, EncryptionKeysError
from orders_pipeline.system.errors import DETAILS
from orders_pipeline.system.ledger_marks import MARKS

ENCRYPTED_FILES = (BATCHES, AUDIT, DETAILS, MARKS)
CHUNK_ROWS = 2_000
FILE_TRIES = 3  # of a file into whose place another one comes meanwhile
SHOWN_DAMAGED = 10

Progress = Callable[[int, int], None]  # orders done, and orders there are to do


@dataclass
class Rotated:
    """What a rotation came to; `orders` and `files_by_key` are those encrypted with each key now.

    `busy` are the batches that were being processed; `left` is what else could not be encrypted anew or looked at, with why.
    """

    current: str
    resealed: int = 0  # orders encrypted anew
    files: int = 0  # encrypted anew
    damaged: list[int] = field(default_factory=list)  # order ids
    left: dict[str, str] = field(default_factory=dict)  # file or folder: code
    busy: list[str] = field(default_factory=list)
    orders: dict[str, int] = field(default_factory=dict)
    files_by_key: Counter[str] = field(default_factory=Counter)
    removable: list[str] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Return whether nothing is encrypted with another key than the current one any more."""
        return not self.busy and not self.left and {*self.orders, *self.files_by_key} <= {self.current}

    def as_dict(self) -> dict[str, Any]:
        """Return the result as it goes into JSON."""
        return {
            "current": self.current,
            "resealed": self.resealed,
            "files": self.files,
            "orders": self.orders,
            "files_by_key": dict(self.files_by_key),
            "busy_batches": self.busy,
            "damaged": {"orders": len(self.damaged), "first": self.damaged[:SHOWN_DAMAGED]},
            "left": self.left,
            "removable": self.removable,
            "done": self.is_done,
        }


def keys_in_use(database: Database) -> dict[str, int]:
    """Return how many orders are encrypted with each key."""
    with database.begin() as transaction:
        return {row.key_id: row.orders for row in transaction.rows("orders_by_key")}


def require_all(database: Database, cipher: Cipher) -> int:
    """Return how many keys orders are encrypted with; raise EncryptionKeysError where some of these are not set."""
    in_use = keys_in_use(database)
    missing = {key_id: orders for key_id, orders in in_use.items() if key_id not in cipher.key_ids}
    if missing:
        lacking = ", ".join(f"{orders:,} orders with {key_id}" for key_id, orders in sorted(missing.items()))
        raise EncryptionKeysError(f"ORDERS_ENCRYPTION_KEYS lacks what is in use: {lacking}")
    return len(in_use)


def require_same(database: Database, cipher: Cipher) -> None:
    """Raise EncryptionKeysError where the key is not set that whoever began last encrypts with."""
    with database.begin() as transaction:
        known = transaction.rows("known_keys")
    for row in known:
        if row.is_current and cipher.fingerprints.get(row.key_id) != row.fingerprint:
            raise EncryptionKeysError(
                f"ORDERS_ENCRYPTION_KEYS lacks {row.key_id} as the others have it, which they encrypt with: all hosts have "
                "the same keys; where these are to replace the others', start the daemon with them first"
            )


def look(database: Database, storage: Storage, cipher: Cipher) -> Rotated:
    """Return what each key is needed for, and change nothing."""
    result = Rotated(cipher.current)
    _count(database, storage, cipher, result)
    return result


def rotate(database: Database, storage: Storage, cipher: Cipher, progress: Progress) -> Rotated:
    """Encrypt everything with the current key; raise EncryptionKeysError when the setting lacks a key that is in use."""
    before = keys_in_use(database)
    result = Rotated(cipher.current)
    require_all(database, cipher)
    _reencrypt_files(database, storage, result)
    to_do = sum(before.values()) - before.get(result.current, 0)
    progress(0, to_do)
    after = 0
    while rows := retry_while_unavailable(partial(_orders_to_reencrypt, database, cipher, after)):
        after = rows[-1].order_id
        result.resealed += retry_while_unavailable(partial(_reencrypt_orders, database, cipher, rows, result))
        progress(result.resealed, max(to_do, result.resealed))
    _count(database, storage, cipher, result)
    return result


def _orders_to_reencrypt(database: Database, cipher: Cipher, after: int) -> Sequence[Row[Any]]:
    with database.begin() as transaction:
        return transaction.rows("orders_to_reencrypt", after=after, prefix=cipher.prefix, limit=CHUNK_ROWS)


def _reencrypt_orders(database: Database, cipher: Cipher, rows: Sequence[Row[Any]], result: Rotated) -> int:
    encrypted = personal_data.reencrypt(cipher, ((row.batch_id, row.import_row_number, row.personal) for row in rows))
    whole = [(row.order_id, bytes(row.personal), new) for row, new in zip(rows, encrypted, strict=True) if new is not None]
    with database.begin() as transaction:
        order_ids, old, new = (list(column) for column in zip(*whole, strict=True)) if whole else ([], [], [])
        done = transaction.execute("reencrypt_orders", order_ids=order_ids, old=old, new=new)
    result.damaged += [row.order_id for row, new in zip(rows, encrypted, strict=True) if new is None]
    return done


def _reencrypt_files(database: Database, storage: Storage, result: Rotated) -> None:
    """Encrypt every file anew, but for accepted rows that are not loaded: they are removed, and validated again."""
    for key in _listed(storage, result):
        batch_id, _, name = key.removeprefix(BATCHES).partition("/")
        if key == artifact(batch_id, ACCEPTED):
            try:
                with batch_lock(database, batch_id):
                    storage.delete(key)
            except BatchBusy:
                result.busy.append(batch_id)
            continue
        with _noting(result, key):
            if storage.encrypted_with(key) not in (None, result.current):
                _reencrypt_file(storage, key, digest(database, batch_id, name) if key == artifact(batch_id, name) else None)
                result.files += 1


def _reencrypt_file(storage: Storage, key: str, sha256: str | None) -> None:
    for tries_left in reversed(range(FILE_TRIES)):
        try:
            storage.reencrypt(key, sha256)
        except ObjectChanged:
            if not tries_left:
                raise
        else:
            return


def _count(database: Database, storage: Storage, cipher: Cipher, result: Rotated) -> None:
    for key in _listed(storage, result):
        with _noting(result, key):
            key_id = storage.encrypted_with(key)
            if key_id is not None:
                result.files_by_key[key_id] += 1
    result.orders = keys_in_use(database)
    if result.is_done:
        result.removable = [key_id for key_id in cipher.key_ids if key_id != result.current]


def _listed(storage: Storage, result: Rotated) -> Iterator[str]:
    """Return the keys of all files that may be encrypted, and note what does not let itself be listed."""
    for prefix in ENCRYPTED_FILES:
        try:
            yield from (stored.key for stored in storage.list(prefix, result.left))
        except StorageError as error:
            result.left[prefix] = error.code


@contextlib.contextmanager
def _noting(result: Rotated, key: str) -> Iterator[None]:
    """Note why a file or folder could not be seen to, unless it is gone."""
    try:
        yield
    except ObjectGone:
        return
    except (StorageError, DecryptionError) as error:
        result.left[key] = error.code

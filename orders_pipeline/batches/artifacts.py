"""The files of a batch: their names, where they lie in the storage, and that each is still the one that was left there.

What they hold belongs to who writes them. Reports are no part of it: they can be made again, and nothing is made of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.storage import Storage

BATCHES = "batches/"
ORIGINAL = "original"
CONVERTED = "converted.csv"  # the text of an original that is none: a workbook, or JSON
MANIFEST = "manifest.json"
STAGED = "staged.parquet"
ACCEPTED = "accepted.parquet"
REJECTIONS = "rejections.parquet"
ANSWERS = "answers.json"  # of a correcting file: which rows its own ones answer


def artifact(batch_id: str, name: str) -> str:
    """Return the storage key of one of a batch's files."""
    return f"{BATCHES}{batch_id}/{name}"


def keep(storage: Storage, batch_id: str, files: Mapping[str, Path]) -> dict[str, str]:
    """Put files of a batch into the storage and return the SHA-256 of each in hex, for the batch's row."""
    digests = {}
    for name, path in files.items():
        with path.open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
        storage.put(artifact(batch_id, name), path)
    return digests


@contextmanager
def lent(storage: Storage, database: Database, batch_id: str, name: str) -> Iterator[Path]:
    """Lend one of a batch's files; raise ObjectReplaced where it is not the one that the batch's row has recorded."""
    with storage.local(artifact(batch_id, name), digest(database, batch_id, name) or "unknown") as path:
        yield path


def digest(database: Database, batch_id: str, name: str) -> str | None:
    """Return the SHA-256 in hex that one of a batch's files has, or None where none was left."""
    with database.begin() as transaction:
        sha256: str | None = transaction.scalar("file_sha256", batch_id=batch_id, file=name)
    return sha256

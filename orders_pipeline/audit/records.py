"""What an audit record is outside the database: one line of text, whose bytes are what its block has sealed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow.parquet as pq

Category = Literal["authentication", "phi_access", "phi_modification", "administrative", "security"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
RECORDS_AT_ONCE = 200  # of which one may have half a megabyte
ENTRY_BYTES = 40  # of a block's digests: 8 of the record's number, 32 of its SHA-256


@dataclass(frozen=True)
class Record:
    """One record; `changes` are of rows: {"key": {...}, "fields": {name: [before, after]}}."""

    event_id: int
    at: str
    category: Category
    action: str
    actor: str
    origin: str
    login: str
    transaction: str
    entity: str | None
    batch_id: str | None
    rows: int | None
    detail: Mapping[str, Any]
    changes: Sequence[Mapping[str, Any]] | None
    digests: str | None  # hex


def read_parquet(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of each record of a block that has left the database."""
    with pq.ParquetFile(path) as file:
        for chunk in file.iter_batches(RECORDS_AT_ONCE):
            yield from zip(chunk.column("event_id").to_pylist(), chunk.column("record").to_pylist(), strict=True)


def read_record(text: str) -> Record:
    """Return the record that a line of text is."""
    return Record(*json.loads(text))


@dataclass(frozen=True)
class Block:
    """A sealed block: records of one category and day, listed with their digests, and the head of the chain so far."""

    block_no: int
    category: Category
    day: date
    first_id: int
    last_id: int
    records: int
    through_id: int
    digests: bytes
    head: bytes
    place: str  # hot, warm, cold or gone
    key: str | None  # of the object in the storage
    wrong: str | None  # with the place it is said to be in, where that is looked at
    head_before: bytes = b""  # where it is asked for

    @property
    def listed(self) -> dict[int, bytes]:
        """Return the SHA-256 of each record by its number."""
        starts = range(0, len(self.digests), ENTRY_BYTES)
        return {
            int.from_bytes(self.digests[start : start + 8], "big"): self.digests[start + 8 : start + ENTRY_BYTES]
            for start in starts
        }

    @property
    def heading(self) -> str:
        """Return what the head is over beside the digests, as PostgreSQL writes it."""
        facts = [self.block_no, self.category, self.day.isoformat(), self.first_id, self.last_id, self.records]
        return json.dumps([*facts, self.through_id])

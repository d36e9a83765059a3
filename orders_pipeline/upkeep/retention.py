"""Retention: audit blocks go from the database to warm and then to cold storage, and in the end for good.

How long they stay where is in `retention_limits`, what is held in `legal_holds`; whether a move is due is the database's
word, which also refuses one that is not. Every step may be repeated: what a crash leaves half done is done next time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import SecretStr
from sqlalchemy import Row

from orders_pipeline.audit.records import RECORDS_AT_ONCE, Block, read_record
from orders_pipeline.audit.sealing import AUDIT
from orders_pipeline.audit.verifying import (
    AuditBroken,
    Broken,
    RowImages,
    Rows,
    check_place,
    check_records,
    in_groups,
    read_blocks,
    read_hot,
    read_object,
)
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.parquet_file import new_parquet
from orders_pipeline.infrastructure.scratch import scratch_files
from orders_pipeline.infrastructure.storage import ObjectDenied, Storage
from orders_pipeline.system.errors import DETAILS, NotThere

EVENTS_AT_ONCE = 5_000
SCHEMA = pa.schema([pa.field("event_id", pa.int64()), pa.field("record", pa.string())])


@dataclass
class Retained:
    """What one run did: records moved to each place, blocks that are held, objects that a lock has kept from removal."""

    moved: Counter[str] = field(default_factory=Counter)
    held: int = 0
    locked: int = 0


def retain(database: Database, storage: Storage) -> Retained:
    """Move every block that is due, one place at a time in each pass over them all, until none is."""
    done = Retained()
    with database.session() as session:
        session.execute("hold_audit_places")
        _clear(database, storage, done)
        while _move_due(database, storage, done):
            pass
        done.held = session.scalar("count_held_blocks")
    return done


def _move_due(database: Database, storage: Storage, done: Retained) -> bool:
    with database.begin() as transaction:
        transaction.by_index()
        objects = transaction.rows("objects_due")
    going = [due for due in objects if due.next_place == "gone"]
    if going:
        _carry(database, storage, going)
    for due in objects:
        for blocks in in_groups(_blocks_due(database, due)):
            done.moved[due.next_place] += _move(database, storage, due, blocks)
    _clear(database, storage, done)
    return bool(objects)


def _carry(database: Database, storage: Storage, going: Sequence[Row[Any]]) -> None:
    """Record anew what rows were when they were written last, where the record of that goes."""
    with database.session(patient=True) as session:
        images = RowImages(session)
        for due in going:
            for blocks in in_groups(_blocks_due(database, due)):
                for _, text in check_records(blocks, read_object(storage, due.key, blocks[0].block_no)):
                    images.add(read_record(text))
        images.flush()
        for entity, widths in images.widths.items():
            for width in widths:
                session.scalar("audit_carry", entity=entity, width=width)


def _blocks_due(database: Database, due: Row[Any]) -> Iterator[Block]:
    of = {"category": due.category, "day": due.day, "place": due.place, "key": due.key}

    def read_next(transaction: Transaction, page: Mapping[str, int]) -> Rows:
        transaction.by_index()
        return transaction.rows("blocks_due", **page, **of)

    for block in read_blocks(database, read_next):
        check_place(block)
        yield block


def _move(database: Database, storage: Storage, due: Row[Any], blocks: Sequence[Block]) -> int:
    key = None
    if due.next_place != "gone":
        key = f"{AUDIT}{due.next_place}/{due.category}/{due.day}/{blocks[0].block_no:012d}.parquet"
        until = due.cold_from if due.next_place == "warm" else due.kept_until
        with _as_file(database, storage, due, blocks) as source:
            storage.keep(key, source, datetime.combine(until, time(), UTC), seldom_read=due.next_place == "cold")
            with storage.local(key) as kept:  # before the original goes
                if _sha256(kept) != _sha256(source):
                    raise AuditBroken(Broken("block not the same in the storage", blocks[0].block_no))
    with database.begin() as transaction:
        transaction.execute("lock_audit_blocks")
        numbers = [block.block_no for block in blocks]
        return int(transaction.scalar("audit_move", block_nos=numbers, place=due.next_place, key=key))


@contextmanager
def _as_file(database: Database, storage: Storage, due: Row[Any], blocks: Sequence[Block]) -> Iterator[Path]:
    """Lend the blocks as one file of their records, each held against its block's seal wherever it was before.

    What was altered is not moved: it stays where it is looked into.
    """
    records = read_hot(database, blocks) if due.place == "hot" else read_object(storage, due.key, blocks[0].block_no)
    with scratch_files() as folder:
        path = folder / "blocks.parquet"
        with new_parquet(path, SCHEMA, compression="zstd") as file:
            checked = check_records(blocks, records)
            while some := list(islice(checked, RECORDS_AT_ONCE)):
                file.write_table(pa.table(list(zip(*some, strict=True)), schema=SCHEMA))
        yield path


def _clear(database: Database, storage: Storage, done: Retained) -> None:
    """Remove the objects that all blocks have left; one that a lock still keeps is tried again next time."""
    with database.begin() as transaction:
        leftovers = transaction.rows("audit_leftovers")
    done.locked = 0
    for each in leftovers:
        try:
            storage.forget(each.key)
        except ObjectDenied:
            done.locked += 1
            continue
        with database.begin() as transaction:
            transaction.scalar("audit_cleared", key=each.key)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def purge_dagster_history(url: SecretStr) -> int:
    """Remove what Dagster keeps of old runs beside their states and what they made; return how many events went."""
    removed = 0
    # as whoever logs in: Dagster's tables are none of the application's
    with closing(Database(url, pool_size=1)) as login:
        while True:
            with login.begin() as transaction:
                if not transaction.scalar("dagster_events_exist"):
                    return 0
                count = transaction.execute("purge_dagster_events", limit=EVENTS_AT_ONCE)
            removed += count
            if count < EVENTS_AT_ONCE:
                return removed


def purge_rows(database: Database) -> dict[str, int]:
    """Remove rows that nobody needs any more, by what is said of them, and return how many of each."""
    with database.begin() as transaction:
        refusals = transaction.execute("purge_refusals") + transaction.execute("purge_acceptances")
        return {
            "refusals of old batches removed": refusals,
            "idempotency keys forgotten": transaction.execute("purge_api_requests"),
            "sessions of the page forgotten": transaction.execute("purge_api_sessions"),
            "webhooks forgotten": transaction.execute("purge_webhooks"),
        }


def purge_error_details(database: Database, storage: Storage) -> int:
    """Remove what is kept of errors that are older than Dagster's events may be; return of how many."""
    with database.begin() as transaction:
        since = transaction.scalar("dagster_events_since")
    old = [stored.key for stored in storage.list(DETAILS) if stored.modified < since]
    for key in old:
        storage.delete(key)
    return len(old)


class HoldRefused(NotThere):
    """There is no such hold to release."""

    code = "E_LEGAL_HOLD"


@dataclass(frozen=True)
class Hold:
    """The records to hold: of a batch, of a category, of days; None covers all."""

    batch_id: str | None
    category: str | None
    from_day: date | None
    to_day: date | None


def place_hold(database: Database, hold: Hold, who: str, why: str) -> int:
    """Hold the records that it covers in their place, whatever their age, and return the hold's number."""
    with database.begin() as transaction:
        return int(transaction.scalar("place_hold", **asdict(hold), who=who, why=why))


def covered(database: Database, hold_id: int) -> dict[str, int]:
    """Return how many sealed blocks and records a hold covers, and how many records that are not sealed yet."""
    with database.begin() as transaction:
        found = transaction.rows("hold_covers", hold_id=hold_id)[0]
    return {"blocks": found.blocks, "records": int(found.records), "unsealed": found.unsealed}


def release_hold(database: Database, hold_id: int, who: str, why: str) -> None:
    """End a hold; raise HoldRefused where there is none with this number."""
    with database.begin() as transaction:
        if not transaction.execute("release_hold", hold_id=hold_id, who=who, why=why):
            raise HoldRefused(f"there is no hold {hold_id}, or it was released before")


def state(database: Database) -> dict[str, Any]:
    """Return the limits, how many blocks and records are where, and the holds."""
    with database.begin() as transaction:
        return {
            "limits": [row._asdict() for row in transaction.rows("retention_limits")],
            "places": [row._asdict() for row in transaction.rows("retention_places")],
            "holds": [row._asdict() for row in transaction.rows("legal_holds")],
        }

"""Verifying: every record is as its block has sealed it, and blocks are one chain up to every head that was kept.

Rows that were inserted in bulk are as their records say, too. What is wrong first is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from orders_pipeline.audit.records import CATEGORIES, RECORDS_AT_ONCE, Block, Record, read_parquet, read_record
from orders_pipeline.audit.sealing import anchored_heads
from orders_pipeline.database import Database
from orders_pipeline.storage import ObjectGone, Storage

BLOCKS_AT_ONCE = 100


@dataclass(frozen=True)
class Broken:
    """The first thing that is not as it was sealed."""

    what: str
    block_no: int | None = None
    event_id: int | None = None
    row: str | None = None


@dataclass
class Verified:
    """What was looked at and what was found."""

    blocks: int = 0
    records: int = 0
    hot: int = 0
    unsealed: int = 0
    heads: int = 0
    broken: Broken | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the result as it goes into JSON."""
        return asdict(self) | {"intact": self.broken is None}


class AuditBroken(Exception):
    """The audit is not as it was sealed; the text says what is wrong first."""

    code = "E_AUDIT_BROKEN"

    def __init__(self, broken: Broken) -> None:
        super().__init__(f"{broken.what}, block {broken.block_no}, record {broken.event_id}")
        self.broken = broken


@dataclass
class _Rows:
    """Rows that are not as their insert was recorded, until a later record says why."""

    suspects: dict[tuple[str, int], tuple[Broken, str | None]] = field(default_factory=dict)

    def look(self, database: Database, block: Block, record: Record) -> None:
        """Compare the rows that a record is about, or take its word for those that did not compare."""
        if record.digests is None:
            self.clear(record)
            return
        with database.begin() as transaction:
            altered = transaction.rows(
                "audit_altered",
                entity=record.entity,
                key_name=record.detail["key"],
                columns=record.detail["columns"],
                digests=bytes.fromhex(record.digests),
            )
        for row in altered:
            broken = Broken("row altered", block.block_no, record.event_id, f"{record.entity} {row.key}")
            self.suspects[str(record.entity), row.key] = broken, None if row.digest is None else row.digest.hex()

    def clear(self, record: Record) -> None:
        """Take back what a record says was changed or deleted before everybody's eyes."""
        for change in (record.changes or ()) if self.suspects else ():
            row = (str(record.entity), next(iter(change["key"].values())))
            _, digest = self.suspects.get(row, (None, ""))
            if digest == change.get("digest") and (digest is not None or record.action == "delete"):
                del self.suspects[row]


def verify(database: Database, storage: Storage, *, moved: bool = True) -> Verified:
    """Look at everything that is sealed; without `moved`, at the records in the database only, and at the whole chain."""
    found = Verified()
    with database.session() as session:
        session.execute("share_audit_places")  # or a block would be on its way while it is looked for
        try:
            _verify(database, storage, found, moved=moved)
        except AuditBroken as stop:
            found.broken = stop.broken
    return found


def _verify(database: Database, storage: Storage, found: Verified, *, moved: bool) -> None:
    rows = _Rows()
    heads = anchored_heads(storage)
    found.heads = len(heads)
    last: Block | None = None
    for block in _blocks(database):
        _check_head(block, last, heads.pop(block.block_no, set()))
        if block.place == "hot" or (moved and block.place != "gone"):
            for _, text in check_records(block, read_block(database, storage, block)):
                rows.look(database, block, read_record(text))
                found.records += 1
                found.hot += block.place == "hot"
        found.blocks += 1
        last = block
    if heads:
        raise AuditBroken(Broken("blocks missing at the end", min(heads)))
    through = 0 if last is None else last.through_id
    _check_strangers(database, found, through)
    _check_rows(database, rows, through)


def _check_rows(database: Database, rows: _Rows, through: int) -> None:
    after = through
    while rows.suspects:  # a record that is not sealed yet may say why a row is not what it was
        with database.begin() as transaction:
            unsealed = transaction.rows(
                "audit_records", after=after, since=None, until=None, categories=list(CATEGORIES), limit=RECORDS_AT_ONCE
            )
        for row in unsealed:
            rows.clear(read_record(row.record))
        if len(unsealed) < RECORDS_AT_ONCE:
            break
        after = unsealed[-1].event_id
    if rows.suspects:
        raise AuditBroken(min((broken for broken, _ in rows.suspects.values()), key=lambda each: each.event_id or 0))


def _blocks(database: Database) -> Iterator[Block]:
    after = 0
    while True:
        with database.begin() as transaction:
            rows = transaction.rows("audit_blocks", after=after, limit=BLOCKS_AT_ONCE)
        yield from (Block(**row._asdict()) for row in rows)
        if len(rows) < BLOCKS_AT_ONCE:
            return
        after = rows[-1].block_no


def _check_head(block: Block, last: Block | None, anchored: set[str]) -> None:
    number, head, through = (0, b"", 0) if last is None else (last.block_no, last.head, last.through_id)
    if block.block_no != number + 1:
        raise AuditBroken(Broken("block missing", number + 1))
    expected = hashlib.sha256(head + hashlib.sha256(block.digests).digest() + block.heading.encode()).digest()
    if expected != block.head or anchored - {block.head.hex()} or block.through_id < through:
        raise AuditBroken(Broken("block altered", block.block_no))
    if block.gone_too_early:
        raise AuditBroken(Broken("block gone too early", block.block_no))


def read_block(database: Database, storage: Storage, block: Block) -> Iterator[tuple[int, str]]:
    """Yield number and text of the records in the block's place, a few of other blocks among them."""
    if block.key is not None:
        try:
            with storage.local(block.key) as path:
                yield from read_parquet(path)
        except (ObjectGone, pa.ArrowException):
            raise AuditBroken(Broken("block unreadable", block.block_no)) from None
        return
    after = block.first_id - 1
    while True:
        with database.begin() as transaction:
            rows = transaction.rows(
                "audit_records_of_block",
                category=block.category,
                day=block.day,
                after=after,
                last_id=block.last_id,
                limit=RECORDS_AT_ONCE,
            )
        yield from ((row.event_id, row.record) for row in rows)
        if len(rows) < RECORDS_AT_ONCE:
            return
        after = rows[-1].event_id


def check_records(block: Block, records: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield those records that are in the block; raise AuditBroken at the first that is not as it was sealed."""
    listed = block.listed
    for event_id, text in records:
        digest = listed.pop(event_id, None)
        if digest is None:
            continue  # of another block, or of none: that is looked at in the end
        if hashlib.sha256(text.encode()).digest() != digest:
            raise AuditBroken(Broken("record altered", block.block_no, event_id))
        yield event_id, text
    if listed:
        raise AuditBroken(Broken("record missing", block.block_no, min(listed)))


def _check_strangers(database: Database, found: Verified, through: int) -> None:
    with database.begin() as transaction:
        counted = transaction.rows("count_audit_records", through_id=through)[0]
        found.unsealed = counted.unsealed
        if counted.sealed == found.hot:
            return
        numbers = {row.event_id for row in transaction.rows("audit_numbers", through_id=through)}
    for block in _blocks(database):
        if block.place == "hot":
            numbers.difference_update(block.listed)
    raise AuditBroken(Broken("record inserted", None, min(numbers, default=None)))

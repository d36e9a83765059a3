"""Verifying: every record is as its block has sealed it, and blocks are one chain up to every head that was kept.

Rows that were inserted in bulk are as their records say, too. What is wrong first is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from orders_pipeline.audit.records import Block, Record, read_record
from orders_pipeline.audit.sealing import anchored_heads
from orders_pipeline.database import Database, Transaction
from orders_pipeline.storage import Storage

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
    unsealed: int = 0
    heads: int = 0
    broken: Broken | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the result as it goes into JSON."""
        return asdict(self) | {"intact": self.broken is None}


class AuditBroken(Exception):
    """The audit is not as it was sealed; the text names the first record."""

    code = "E_AUDIT_BROKEN"


class _Found(Exception):
    def __init__(self, broken: Broken) -> None:
        super().__init__()
        self.broken = broken


@dataclass
class _Rows:
    """Rows that are not as their insert was recorded, until a later record says why."""

    suspects: dict[tuple[str, int], tuple[Broken, str | None]] = field(default_factory=dict)

    def look(self, transaction: Transaction, block: Block, record: Record) -> None:
        if record.action == "insert" and record.digests is not None and record.entity is not None:
            for row in transaction.rows(
                "audit_altered",
                entity=record.entity,
                key_name=record.detail["key"],
                columns=record.detail["columns"],
                digests=bytes.fromhex(record.digests),
            ):
                broken = Broken("row altered", block.block_no, record.event_id, f"{record.entity} {row.key}")
                self.suspects[record.entity, row.key] = broken, None if row.digest is None else row.digest.hex()
        elif record.entity is not None and self.suspects:
            for change in record.changes or ():
                self._clear(record, change)

    def _clear(self, record: Record, change: Any) -> None:  # noqa: ANN401 - JSON
        row = (str(record.entity), next(iter(change["key"].values())))
        if row in self.suspects:
            _, digest = self.suspects[row]
            if digest == change.get("digest") and (digest is not None or record.action == "delete"):
                del self.suspects[row]


def verify(database: Database, storage: Storage) -> Verified:
    """Look at everything that is sealed."""
    found = Verified()
    rows = _Rows()
    heads = anchored_heads(storage)
    found.heads = len(heads)
    last: Block | None = None
    try:
        for block in _blocks(database):
            _check_head(block, last, heads.pop(block.block_no, set()))
            with database.begin() as transaction:
                for record in _checked_records(transaction, block):
                    rows.look(transaction, block, record)
                    found.records += 1
            found.blocks += 1
            last = block
        if heads:
            raise _Found(Broken("blocks missing at the end", min(heads)))
        _check_strangers(database, found, last)
        if rows.suspects:
            raise _Found(min((broken for broken, _ in rows.suspects.values()), key=lambda each: each.event_id or 0))
    except _Found as stop:
        found.broken = stop.broken
    return found


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
        raise _Found(Broken("block missing", number + 1))
    expected = hashlib.sha256(head + hashlib.sha256(block.digests).digest() + block.heading.encode()).digest()
    if expected != block.head or anchored - {block.head.hex()} or block.through_id < through:
        raise _Found(Broken("block altered", block.block_no))


def _checked_records(transaction: Transaction, block: Block) -> Iterator[Record]:
    listed = block.listed
    for row in transaction.rows(
        "audit_records_of_block",
        category=block.category,
        day=block.day,
        first_id=block.first_id,
        last_id=block.last_id,
    ):
        digest = listed.pop(row.event_id, None)
        if digest is None:
            continue  # of another block, or of none: that is looked at in the end
        if hashlib.sha256(row.record.encode()).digest() != digest:
            raise _Found(Broken("record altered", block.block_no, row.event_id))
        yield read_record(row.record)
    if listed:
        raise _Found(Broken("record missing", block.block_no, min(listed)))


def _check_strangers(database: Database, found: Verified, last: Block | None) -> None:
    through = 0 if last is None else last.through_id
    with database.begin() as transaction:
        counted = transaction.rows("count_audit_records", through_id=through)[0]
        found.unsealed = counted.unsealed
        if counted.sealed == found.records:
            return
        numbers = {row.event_id for row in transaction.rows("audit_numbers", through_id=through)}
    for block in _blocks(database):
        numbers.difference_update(block.listed)
    raise _Found(Broken("record inserted", None, min(numbers, default=None)))

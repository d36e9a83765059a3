"""Verifying: every record is as its block has sealed it, and blocks are one chain up to every head that was kept.

And every row of the audited tables is as the records have it, none is missing and none was never recorded: what they say
of rows is gathered in a temporary table, and compared with the rows by the database. What is wrong first is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from sqlalchemy import Row

from orders_pipeline.audit.records import RECORDS_AT_ONCE, Block, Record, read_parquet, read_record
from orders_pipeline.audit.sealing import anchored_heads
from orders_pipeline.infrastructure.binary_copy import END, START, in_full
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.storage import ObjectGone, Storage
from orders_pipeline.security.encryption import DecryptionError

BLOCKS_AT_ONCE = 100
Rows: TypeAlias = Sequence[Row[Any]]
RECORDS_OF_BLOCK = 10_000  # at most
BYTES_AT_ONCE = 8 * 2**20
DIGEST_BYTES = 16  # of a row's image, behind its key


@dataclass(frozen=True)
class Broken:
    """The first thing that was altered since it was sealed."""

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
    unsealed_since: str | None = None
    heads: int = 0
    rows: int = 0  # of the audited tables
    altered: dict[str, int] = field(default_factory=dict)  # rows of each table that are not as they were written last
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


class RowImages:
    """The row images of verified records, each as it was written, in a temporary table of a session."""

    def __init__(self, session: Transaction) -> None:
        self._session = session
        self._waiting: list[bytes] = []
        self._bytes = 0
        self.widths: dict[str, set[int]] = {}  # of each table, images of how many columns
        self.emptied: dict[str, int] = {}
        session.execute("create_audit_told")

    def add(self, record: Record) -> None:
        """Add a record's images; one from before there were images has none."""
        if record.action == "truncate":
            self.emptied[str(record.entity)] = record.event_id
        width = record.detail.get("columns")
        if record.digests is None or record.rows is None or not isinstance(width, int):
            return
        self.widths.setdefault(str(record.entity), set()).add(width)
        self._waiting.append(_images(record, width))
        self._bytes += len(self._waiting[-1])
        if self._bytes > BYTES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Put what was noted into the table: in a statement of its own, as sealing waits for each to end."""
        session = self._session
        session.copy("copy_audit_told", (START, *self._waiting, END))
        self._waiting.clear()
        self._bytes = 0


def _images(record: Record, width: int) -> bytes:
    """Return a record's images as rows of a binary COPY, all of one length: entity, key, record, columns, digest."""
    images = np.frombuffer(bytes.fromhex(record.digests or ""), np.uint8).reshape(record.rows or 0, -1)
    keys = images.shape[1] - DIGEST_BYTES
    before = b"\0\5" + in_full(str(record.entity).encode()) + keys.to_bytes(4, "big")
    behind = (
        in_full(record.event_id.to_bytes(8, "big")) + in_full(width.to_bytes(4, "big")) + DIGEST_BYTES.to_bytes(4, "big")
    )
    same = [np.broadcast_to(np.frombuffer(each, np.uint8), (len(images), len(each))) for each in (before, behind)]
    return np.hstack([same[0], images[:, :keys], same[1], images[:, keys:]]).tobytes()


def verify(database: Database, storage: Storage, *, moved: bool = True) -> Verified:
    """Verify everything that is sealed, and the rows that were recorded.

    Without `moved`: the whole chain, but only the records in the database and the rows that these recorded.
    """
    verified = Verified()
    with database.session(patient=True) as session:
        session.execute("share_audit_places")  # or a block would be on its way while it is looked for
        try:
            _verify(database, storage, session, verified, moved=moved)
        except AuditBroken as stop:
            verified.broken = stop.broken
    return verified


def _verify(database: Database, storage: Storage, session: Transaction, verified: Verified, *, moved: bool) -> None:
    images = RowImages(session)
    chain = _Chain(database, storage, verified, moved=moved)
    for blocks in in_groups(chain.hot_blocks()):
        for _, text in check_records(blocks, read_hot(database, blocks)):
            images.add(read_record(text))
            verified.hot += 1
    verified.records = verified.hot
    for key, first in chain.objects.items():
        with database.begin() as transaction:
            blocks = [Block(**row._asdict()) for row in transaction.rows("audit_blocks_of_object", key=key)]
        for _, text in check_records(blocks, read_object(storage, key, first)):
            images.add(read_record(text))
            verified.records += 1
    _check_strangers(database, verified, chain.through)
    images.flush()
    _check_rows(database, session, verified, images, chain)


class _Chain:
    """The blocks, each in its place behind the one before, up to every head that was kept."""

    def __init__(self, database: Database, storage: Storage, verified: Verified, *, moved: bool) -> None:
        self.through = 0
        self.objects: dict[str, int] = {}  # each that is to be looked at, and the first block in it
        # the newest record that is not looked at: it may have later images than older ones
        self.unseen: dict[str, int] = {}
        self._database = database
        self._heads = anchored_heads(storage)
        self._verified = verified
        self._moved = moved
        verified.heads = len(self._heads)

    def hot_blocks(self) -> Iterator[Block]:
        """Yield the blocks in the database, and note where the others are."""
        last: Block | None = None
        for block in _all_blocks(self._database):
            _check_place_in_chain(block, last, self._heads.pop(block.block_no, set()))
            if block.place == "hot":
                yield block
            elif not self._moved:
                self.unseen[block.category] = block.last_id
            elif block.key is not None:  # the last images of one that is gone were recorded anew
                self.objects.setdefault(block.key, block.block_no)
            self._verified.blocks += 1
            self.through = block.through_id
            last = block
        if self._heads:
            raise AuditBroken(Broken("blocks missing at the end", min(self._heads)))


def _check_rows(database: Database, session: Transaction, verified: Verified, images: RowImages, chain: _Chain) -> None:
    watched = {row.entity: row.category for row in session.rows("audited_tables")}
    for entity in sorted(images.widths.keys() - watched.keys()):
        raise AuditBroken(Broken("table not audited any more", row=entity))
    broken = []
    for entity, category in watched.items():
        compared = session.row(
            "compare_audited",
            entity=entity,
            widths=sorted(images.widths.get(entity, {0})),
            through=chain.through,
            after=max(images.emptied.get(entity, 0), chain.unseen.get(category, 0)),
            all_read=category not in chain.unseen,
        )
        if compared is None:
            raise AssertionError("an aggregate always has a row")
        verified.rows += compared.rows
        if compared.altered:
            verified.altered[entity] = compared.altered
            broken.append(_named(database, entity, compared))
    if broken:
        raise AuditBroken(min(broken, key=lambda altered: altered.event_id or chain.through))


def _named(database: Database, entity: str, compared: Row[Any]) -> Broken:
    """Return which row is not as it was written last; a missing one is named by its record, if that is in the database."""
    if compared.event_id is None:
        return Broken("row inserted", row=f"{entity} {compared.name}")
    if compared.name is not None:
        return Broken("row altered", None, compared.event_id, f"{entity} {compared.name}")
    name = str(int.from_bytes(compared.key, "big")) if len(compared.key) == 8 else compared.key.hex()
    with database.begin() as transaction:
        text = transaction.scalar("audit_record_of", event_id=compared.event_id)
    record = None if text is None else read_record(text)
    if record is not None and record.changes and record.digests:
        width = len(record.digests) // len(record.changes)
        place = record.digests.index(compared.key.hex()) // width
        name = " ".join(map(str, record.changes[place]["key"].values()))
    return Broken("row missing", None, compared.event_id, f"{entity} {name}")


def read_blocks(
    database: Database, read_next: Callable[[Transaction, Mapping[str, int]], Rows], after: int = 0
) -> Iterator[Block]:
    """Yield the blocks behind the one with number `after`; `read_next` returns those of a page (`limit` behind `after`)."""
    while True:
        with database.begin() as transaction:
            rows = read_next(transaction, {"after": after, "limit": BLOCKS_AT_ONCE})
        yield from (Block(**row._asdict()) for row in rows)
        if len(rows) < BLOCKS_AT_ONCE:
            return
        after = rows[-1].block_no


def _all_blocks(database: Database) -> Iterator[Block]:
    return read_blocks(database, lambda transaction, page: transaction.rows("audit_blocks", **page))


def _check_place_in_chain(block: Block, last: Block | None, anchored: set[str]) -> None:
    number, head, through = (0, b"", 0) if last is None else (last.block_no, last.head, last.through_id)
    if block.block_no != number + 1:
        raise AuditBroken(Broken("block missing", number + 1))
    check_head(block, head)
    if anchored - {block.head.hex()} or block.through_id < through:
        raise AuditBroken(Broken("block altered", block.block_no))
    check_place(block)


def check_place(block: Block) -> None:
    """Raise AuditBroken where a block is said to be in a place that is none of its, or gone before its time."""
    if block.wrong is not None:
        raise AuditBroken(Broken(block.wrong, block.block_no))


def check_head(block: Block, head_before: bytes) -> None:
    """Raise AuditBroken unless the block's head is over what it says, and over the head before."""
    expected = hashlib.sha256(head_before + hashlib.sha256(block.digests).digest() + block.heading.encode()).digest()
    if expected != block.head:
        raise AuditBroken(Broken("block altered", block.block_no))


def read_object(storage: Storage, key: str, block_no: int) -> Iterator[tuple[int, str]]:
    """Yield number and text of all records in an object; raise AuditBroken, with the first of its blocks, if it is none."""
    try:
        with storage.local(key) as path:
            yield from read_parquet(path)
    except (ObjectGone, DecryptionError, pa.ArrowException):
        raise AuditBroken(Broken("block unreadable", block_no)) from None


def in_groups(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Yield blocks some at a time: as many as have no more records together than one may have."""
    group: list[Block] = []
    records = 0
    for block in blocks:
        if group and records + block.records > RECORDS_OF_BLOCK:
            yield group
            group, records = [], 0
        group.append(block)
        records += block.records
    if group:
        yield group


def read_hot(database: Database, blocks: Sequence[Block]) -> Iterator[tuple[int, str]]:
    """Yield number and text of the blocks' records in the database, and of others between them."""
    after, last = min(block.first_id for block in blocks) - 1, max(block.last_id for block in blocks)
    categories = list({block.category for block in blocks})
    while True:
        with database.begin() as transaction:
            rows = transaction.rows(
                "audit_records_of_blocks", categories=categories, after=after, last_id=last, limit=RECORDS_AT_ONCE
            )
        yield from ((row.event_id, row.record) for row in rows)
        if len(rows) < RECORDS_AT_ONCE:
            return
        after = rows[-1].event_id


def check_records(blocks: Sequence[Block], records: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield those records that are in the blocks; raise AuditBroken at the first that is not as it was sealed."""
    listed = {event_id: (digest, block) for block in blocks for event_id, digest in block.listed.items()}
    for event_id, text in records:
        digest, block = listed.pop(event_id, (None, None))
        if block is None:
            continue  # of another block, or of none: that is looked at in the end
        if hashlib.sha256(text.encode()).digest() != digest:
            raise AuditBroken(Broken("record altered", block.block_no, event_id))
        yield event_id, text
    if listed:
        event_id = min(listed)
        raise AuditBroken(Broken("record missing", listed[event_id][1].block_no, event_id))


def _check_strangers(database: Database, verified: Verified, through: int) -> None:
    with database.begin() as transaction:
        counted = transaction.rows("count_audit_records", through_id=through)[0]
        verified.unsealed = counted.unsealed
        verified.unsealed_since = counted.unsealed_since and counted.unsealed_since.isoformat(timespec="seconds")
        if counted.sealed == verified.hot:
            return
        numbers = {row.event_id for row in transaction.rows("audit_numbers", through_id=through)}
    for block in _all_blocks(database):
        if block.place == "hot":
            numbers.difference_update(block.listed)
    raise AuditBroken(Broken("record inserted", None, min(numbers, default=None)))

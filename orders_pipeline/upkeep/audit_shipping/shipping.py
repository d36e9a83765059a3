"""Shipping: sealed audit records are sent in their order, each at least once, and where that stands is kept.

Only what is as it was sealed is sent: a block that is not stops everything, which is what somebody has to know. What was not
sent stays in the database. No transaction is open while the system outside is called, and nothing waits for it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from orders_pipeline.audit.verifying import AuditBroken, Broken, check_head, check_records, read_blocks, read_hot
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.database_errors import DatabaseError
from orders_pipeline.system.composition import System
from orders_pipeline.system.settings import PREFIX, Settings, SettingsError
from orders_pipeline.upkeep.audit_shipping.bulk_index import BulkIndex
from orders_pipeline.upkeep.audit_shipping.cloudwatch import CloudWatch
from orders_pipeline.upkeep.audit_shipping.documents import Document, documents
from orders_pipeline.upkeep.audit_shipping.sink import NotShipped, Sink

MOST_DOCUMENTS, MOST_BYTES = 1_000, 900_000  # of a request; CloudWatch takes 1 MiB, with 26 bytes more a document
ROUND_S = 20.0
LATE = timedelta(minutes=15)


@dataclass(frozen=True)
class EndOfBlock:
    """All records of a block were read, and none was missing."""

    block_no: int


@dataclass
class Shipped:
    """What was sent; `is_all`: nothing that is sealed is left. `is_busy`: another process was sending."""

    documents: int = 0
    records: int = 0
    is_all: bool = True
    is_busy: bool = False


@dataclass(frozen=True)
class Unshipped:
    """How many sealed records wait to be sent, and since when the oldest is sealed."""

    records: int
    since: datetime | None

    @property
    def is_late(self) -> bool:
        """Return whether somebody should look at it."""
        return self.since is not None and datetime.now(UTC) - self.since > LATE

    def as_dict(self) -> dict[str, Any]:
        """Return it as it goes into JSON."""
        since = None if self.since is None else self.since.isoformat(timespec="seconds")
        return {"records": self.records, "since": since, "late": self.is_late}

    def __str__(self) -> str:
        """Return it in words."""
        if self.since is None:
            return "all sealed audit records are sent"
        return f"{self.records:,} audit records wait to be sent, since {self.since.isoformat(timespec='seconds')}"


def open_sink(settings: Settings) -> Sink | None:
    """Return where audit records are sent, if they are to be."""
    url = settings.audit_ship_url
    if url is None:
        return None
    if urlsplit(url).scheme == "cloudwatch":
        group, _, stream = url.removeprefix("cloudwatch://").rpartition("/")
        return CloudWatch(group, stream, settings.audit_ship_endpoint_url, settings.ca_file)
    return BulkIndex(url, settings.audit_ship_token, settings.ca_file)


def wanted_sink(settings: Settings) -> Sink:
    """Return where audit records are sent; raise SettingsError where they are not to be."""
    sink = open_sink(settings)
    if sink is None:
        raise SettingsError(f"{PREFIX}AUDIT_SHIP_URL is not set: audit records are sent nowhere")
    return sink


def note_whether_wanted(system: System) -> None:
    """Let nothing stay in the database for a system outside that the settings do not name any more."""
    if system.settings.audit_ship_url is None:
        with system.database.begin() as transaction:
            transaction.execute("unwant_audit_shipping")


def ship(database: Database, sink: Sink, *, again: bool = False) -> Shipped:
    """Send what is sealed and was not sent, for ROUND_S at most; with `again` all that is in the database.

    Raises NotShipped, and AuditBroken at what is not as it was sealed; what was sent until then is not sent again.
    """
    with _alone(database) as session:
        if session is None:
            return Shipped(is_all=False, is_busy=True)
        if again:
            session.execute("ship_audit_again")
        session.execute("want_audit_shipping")
        return _ship(database, session, sink, time.monotonic() + ROUND_S)


@contextlib.contextmanager
def _alone(database: Database) -> Iterator[Transaction | None]:
    """Lend a session with which nobody else sends; None where somebody does."""
    with database.session() as session:
        if not session.scalar("try_ship_audit"):
            yield None
            return
        try:
            yield session
        finally:
            with contextlib.suppress(DatabaseError):
                session.scalar("end_shipping_audit")


def _ship(database: Database, session: Transaction, sink: Sink, deadline: float) -> Shipped:
    shipped, place = Shipped(), _place(session)
    for group in _groups(sink, _items(database, place), place):
        if group.written:
            sink.send(group.written)
        session.execute("audit_shipped", block_no=group.block_no, event_id=group.event_id)
        shipped.documents += len(group.written)
        shipped.records += group.records
        if time.monotonic() >= deadline and group.ends_with_a_record:
            shipped.is_all = False
            break
    return shipped


@dataclass(frozen=True)
class _Place:
    """How far everything is sent: a block, and a record of the next one; and of which installation."""

    block_no: int
    event_id: int
    installation: str


@dataclass
class _Group:
    """Documents of one request, and how far everything is sent with them: a block, and a record of the next one."""

    block_no: int
    event_id: int
    written: list[tuple[Document, bytes]]
    size: int = 0
    records: int = 0

    @property
    def ends_with_a_record(self) -> bool:
        """Return whether the next one begins with another record: else the same would be sent again, maybe for ever."""
        return not self.written or self.written[-1][0].is_last

    def has_room(self, line: bytes) -> bool:
        return len(self.written) < MOST_DOCUMENTS and self.size + len(line) <= MOST_BYTES

    def add(self, document: Document, line: bytes) -> None:
        self.written.append((document, line))
        self.size += len(line)
        if document.is_last:
            self.event_id = document.event_id
            self.records += 1


def _groups(sink: Sink, items: Iterator[Document | EndOfBlock], place: _Place) -> Iterator[_Group]:
    group = _Group(place.block_no, place.event_id, [])
    for item in items:
        if isinstance(item, EndOfBlock):
            group.block_no, group.event_id = item.block_no, 0
            continue
        line = sink.written(item)
        if not group.has_room(line):
            yield group
            group = _Group(group.block_no, group.event_id, [])
        group.add(item, line)
    if group.written or group.block_no > place.block_no:
        yield group


def _place(session: Transaction) -> _Place:
    """Return how far everything is sent; raise AuditBroken where the chain up to there is another one now."""
    found = session.row("audit_shipping")
    if found is None:
        raise AssertionError("that sending is wanted was said before")
    if bytes(found.head) != bytes(found.head_now):
        raise AuditBroken(Broken("block altered", found.block_no))
    return _Place(found.block_no, found.event_id, str(session.rows("installation")[0].installation_id))


def _items(database: Database, place: _Place) -> Iterator[Document | EndOfBlock]:
    """Yield the documents of all blocks that were not sent, and where each block ends."""
    unsent = read_blocks(database, lambda transaction, page: transaction.rows("blocks_to_ship", **page), place.block_no)
    for block in unsent:
        check_head(block, block.head_before)
        sent = place.event_id if block.block_no == place.block_no + 1 else 0
        for event_id, text in check_records([block], read_hot(database, [block])):
            if event_id > sent:
                yield from documents(text, block.block_no, place.installation)
        yield EndOfBlock(block.block_no)


def unshipped(database: Database) -> Unshipped | None:
    """Return how far sending lags; None where it is not wanted."""
    with database.begin() as transaction:
        row = transaction.row("audit_unshipped")
    return None if row is None else Unshipped(int(row.records), row.since)


def kept_to_ship(database: Database) -> int:
    """Return how many blocks would have left the database long ago and wait to be sent."""
    with database.begin() as transaction:
        return int(transaction.scalar("count_blocks_kept_to_ship"))


def examine(system: System) -> str:
    """Return how far sending is; raise NotShipped where it lags."""
    found = unshipped(system.database)
    if found is not None and found.is_late:
        raise NotShipped(f"{NotShipped.code}: {found}; `audit ship` says why")
    return "not asked for" if found is None else str(found)

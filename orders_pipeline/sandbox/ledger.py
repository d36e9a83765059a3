"""What the services believe happened: payments, refunds, notifications and every call's arrival.

A SQLite file (or memory) of its own, which shares nothing with the pipeline's database: the two can be compared. No names,
addresses or tokens are kept. Whether something may happen is decided in `payments.py` and `notifications.py`, but for one
rule that must hold inside the transaction: an order that is paid is not paid again.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

SECOND_US = 1_000_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS payments (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, status TEXT NOT NULL, amount INTEGER NOT NULL,
    refunded INTEGER NOT NULL DEFAULT 0, reference TEXT NOT NULL, idempotency_key TEXT, batch_id TEXT,
    failure_code TEXT, failure_retryable INTEGER, created_us INTEGER NOT NULL, settles_us INTEGER);
CREATE INDEX IF NOT EXISTS payments_by_key ON payments (idempotency_key);
CREATE INDEX IF NOT EXISTS payments_by_reference ON payments (reference);
CREATE INDEX IF NOT EXISTS payments_processing ON payments (settles_us) WHERE status = 'processing';
CREATE TABLE IF NOT EXISTS allocations (
    order_id TEXT NOT NULL, payment_id TEXT NOT NULL, amount INTEGER NOT NULL,
    PRIMARY KEY (order_id, payment_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refunds (
    id TEXT PRIMARY KEY, payment_id TEXT NOT NULL, amount INTEGER NOT NULL, created_us INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notifications (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL, dedupe_key TEXT NOT NULL, template_id TEXT NOT NULL,
    channel TEXT NOT NULL, customer_code TEXT NOT NULL, batch_id TEXT, created_us INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS notifications_by_dedupe_key ON notifications (dedupe_key);
CREATE INDEX IF NOT EXISTS notifications_by_batch ON notifications (batch_id);
CREATE TABLE IF NOT EXISTS calls (arrived_us INTEGER NOT NULL, batch_id TEXT, refused INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    scope TEXT NOT NULL, key TEXT NOT NULL, fingerprint BLOB NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL,
    location TEXT, PRIMARY KEY (scope, key)) WITHOUT ROWID;
"""
_TABLES = ("payments", "allocations", "refunds", "notifications", "calls", "answers")


@dataclass(frozen=True)
class Payment:
    """A payment as the service knows it, in yen and microseconds since 1970; its fields are the table's columns."""

    id: str
    status: str
    amount: int
    reference: str
    created_us: int
    refunded: int = 0
    idempotency_key: str | None = None
    batch_id: str | None = None
    failure_code: str | None = None
    failure_retryable: bool | None = None
    settles_us: int | None = None

    def as_json(self) -> dict[str, object]:
        """Return the payment as the contract shows it."""
        failure = self.failure_code and {"code": self.failure_code, "retryable": bool(self.failure_retryable)}
        return {
            "id": self.id,
            "status": self.status,
            "amount": self.amount,
            "refunded_amount": self.refunded,
            "currency": "JPY",
            "reference": self.reference,
            "idempotency_key": self.idempotency_key,
            "failure": failure,
            "created_at": iso_time(self.created_us),
        }


@dataclass(frozen=True)
class Notification:
    """A notification that was sent, without its address and text; its fields are the table's columns, in their order."""

    id: str
    dedupe_key: str
    template_id: str
    channel: str
    customer_code: str
    batch_id: str | None
    created_us: int


_LIVE_PAYMENT_OF = """
SELECT p.id FROM allocations a JOIN payments p ON p.id = a.payment_id
WHERE a.order_id IN (SELECT value FROM json_each(?)) AND p.status IN ('succeeded', 'processing') LIMIT 1"""
_PAYMENT_NAMES = tuple(column.name for column in fields(Payment))
_ADD_PAYMENT = f"INSERT INTO payments ({', '.join(_PAYMENT_NAMES)}) VALUES (:{', :'.join(_PAYMENT_NAMES)})"  # noqa: S608
_PAYMENT = f"SELECT seq, {', '.join(_PAYMENT_NAMES)} FROM payments WHERE "  # noqa: S608 - the names above
_PAGE = " AND seq > :after AND created_us <= :visible_us ORDER BY seq LIMIT :limit"
_OF_ORDER = "id IN (SELECT payment_id FROM allocations WHERE order_id = :value)"
PAYMENT_FILTERS: Mapping[str, str] = {
    "id": _PAYMENT + "id = :value" + _PAGE,
    "idempotency_key": _PAYMENT + "idempotency_key = :value" + _PAGE,
    "reference": _PAYMENT + "reference = :value" + _PAGE,
    "order_id": _PAYMENT + _OF_ORDER + _PAGE,
    "created": _PAYMENT + "created_us >= :from_us AND created_us < :to_us" + _PAGE,
}
_NOTIFICATION = "SELECT seq, id, dedupe_key, batch_id, created_us FROM notifications WHERE "
NOTIFICATION_FILTERS: Mapping[str, str] = {
    "dedupe_key": _NOTIFICATION + "dedupe_key = :value" + _PAGE,
    "batch_id": _NOTIFICATION + "batch_id = :value" + _PAGE,
}
_COUNT_PAYMENTS = """
SELECT count(*), coalesce(sum(status = 'succeeded'), 0), coalesce(sum(status = 'processing'), 0),
    coalesce(sum(status = 'failed'), 0), coalesce(sum(status = 'refunded'), 0),
    coalesce(sum(amount) FILTER (WHERE status IN ('succeeded', 'refunded')), 0), coalesce(sum(refunded), 0)
FROM payments WHERE :batch IS NULL OR batch_id = :batch"""
_COUNT_ORDERS = """
SELECT count(*), coalesce(sum(charges > 1), 0) FROM (
    SELECT count(*) AS charges FROM allocations a JOIN payments p ON p.id = a.payment_id
    WHERE p.status IN ('succeeded', 'processing') AND (:batch IS NULL OR p.batch_id = :batch) GROUP BY a.order_id)"""
_COUNT_NOTIFICATIONS = """
SELECT count(*), count(*) - count(DISTINCT dedupe_key) FROM notifications WHERE :batch IS NULL OR batch_id = :batch"""
_CALLS = "SELECT arrived_us, refused FROM calls WHERE :batch IS NULL OR batch_id = :batch ORDER BY arrived_us"


@dataclass(frozen=True)
class Answer:
    """An answer given, kept for replays of its key."""

    status: int
    body: Mapping[str, Any]
    location: str | None = None

    @cached_property
    def text(self) -> str:
        """The body as it is sent, and kept."""
        return json.dumps(self.body)


@dataclass(frozen=True)
class KeyedAnswer:
    """The answer to the request that `key` in `scope` stood for; without a key it is not kept."""

    scope: str
    key: str | None
    fingerprint: bytes
    answer: Answer


class Ledger:
    """The services' own ledger; safe to use from several threads."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")  # survives the process, and that is what is tried here
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def clear(self) -> None:
        """Forget everything."""
        with self._transaction():
            for table in _TABLES:
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - a name from the list above

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _select(self, statement: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        with self._lock:
            self._settle_due()
            return self._db.execute(statement, parameters).fetchall()

    def _settle_due(self) -> None:
        self._db.execute(
            "UPDATE payments SET status = 'succeeded' WHERE status = 'processing' AND settles_us <= ?", (now_us(),)
        )

    def answer(self, scope: str, key: str) -> tuple[bytes, Answer] | None:
        """Return the fingerprint and answer kept for `key`, or None."""
        statement = "SELECT fingerprint, status, body, location FROM answers WHERE scope = :scope AND key = :key"
        with self._lock:
            row = self._db.execute(statement, {"scope": scope, "key": key}).fetchone()
        return row and (row[0], Answer(row[1], json.loads(row[2]), row[3]))

    def _keep(self, keyed: KeyedAnswer) -> None:
        if keyed.key is not None:
            answer = keyed.answer
            row = (keyed.scope, keyed.key, keyed.fingerprint, answer.status, answer.text, answer.location)
            self._db.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", row)

    def book_payment(
        self, payment: Payment, allocations: Sequence[tuple[str, int]], keyed: KeyedAnswer, *, guard_orders: bool
    ) -> str | None:
        """Book a payment with its (order, yen) shares, or return the id of a live payment that has one of its orders."""
        with self._transaction():
            if guard_orders and payment.status != "failed":
                orders = json.dumps([order for order, _ in allocations])
                live = self._db.execute(_LIVE_PAYMENT_OF, (orders,)).fetchone()
                if live is not None:
                    return str(live[0])
            self._db.execute(_ADD_PAYMENT, asdict(payment))
            shares = [(order, payment.id, amount) for order, amount in allocations]
            self._db.executemany("INSERT INTO allocations VALUES (?, ?, ?)", shares)
            self._keep(keyed)
        return None

    def payments(self, filter_name: str, parameters: Mapping[str, object]) -> list[tuple[int, Payment]]:
        """Return (sequence number, payment) pairs of one of PAYMENT_FILTERS, oldest first."""
        rows = self._select(PAYMENT_FILTERS[filter_name], parameters)
        return [(row[0], Payment(*row[1:])) for row in rows]

    def payment(self, payment_id: str, visible_us: int | None = None) -> Payment | None:
        """Return one payment, or None."""
        pairs = self.payments("id", page_parameters(limit=1, visible_us=visible_us) | {"value": payment_id})
        return pairs[0][1] if pairs else None

    def refund(self, refund_id: str, payment_id: str, amount: int, keyed: KeyedAnswer) -> bool:
        """Refund `amount` yen of a succeeded payment; return False where less than that is left."""
        with self._transaction():
            self._settle_due()
            changed = self._db.execute(
                "UPDATE payments SET refunded = refunded + :yen, "
                "status = CASE WHEN refunded + :yen = amount THEN 'refunded' ELSE status END "
                "WHERE id = :id AND status = 'succeeded' AND refunded + :yen <= amount",
                {"id": payment_id, "yen": amount},
            ).rowcount
            if changed:
                row = (refund_id, payment_id, amount, now_us())
                self._db.execute("INSERT INTO refunds VALUES (?, ?, ?, ?)", row)
                self._keep(keyed)
        return bool(changed)

    def book_notification(self, notification: Notification, keyed: KeyedAnswer) -> None:
        """Book a notification as sent."""
        with self._transaction():
            self._db.execute("INSERT INTO notifications VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", astuple(notification))
            self._keep(keyed)

    def notifications(self, filter_name: str, parameters: Mapping[str, object]) -> list[tuple[int, dict[str, object]]]:
        """Return (sequence number, notification as the contract shows it) pairs, oldest first."""
        rows = self._select(NOTIFICATION_FILTERS[filter_name], parameters)
        names = ("id", "dedupe_key", "batch_id")
        return [
            (row[0], dict(zip(names, row[1:4], strict=True)) | {"status": "queued", "created_at": iso_time(row[4])})
            for row in rows
        ]

    def record_call(self, arrived_us: int, batch_id: str | None, *, refused: bool) -> None:
        """Record that a notification call arrived, and whether the limit refused it."""
        with self._lock:
            self._db.execute("INSERT INTO calls VALUES (?, ?, ?)", (arrived_us, batch_id, refused))

    def summary(self, batch_id: str | None = None) -> dict[str, dict[str, int]]:
        """Return the counts and yen of everything, or of one batch."""
        batch = {"batch": batch_id}
        payments = self._select(_COUNT_PAYMENTS, batch)[0]
        names = ("count", "succeeded", "processing", "declined", "refunded", "amount_jpy", "refunded_jpy")
        paid, paid_more_than_once = self._select(_COUNT_ORDERS, batch)[0]
        sent, duplicates = self._select(_COUNT_NOTIFICATIONS, batch)[0]
        calls = self._select(_CALLS, batch)
        return {
            "payments": dict(zip(names, payments, strict=True)),
            "orders": {"paid": paid, "paid_more_than_once": paid_more_than_once},
            "notifications": {
                "sent": sent,
                "duplicates": duplicates,
                "calls": len(calls),
                "worst_window": worst_window([arrived for arrived, _ in calls]),
                "refused": sum(refused for _, refused in calls),
            },
        }


def page_parameters(*, limit: int, after: int = 0, visible_us: int | None = None) -> dict[str, object]:
    """Return what every filter's page needs: at most `limit` rows behind `after`, none younger than `visible_us`."""
    return {"after": after, "limit": limit, "visible_us": now_us() if visible_us is None else visible_us}


def worst_window(arrivals_us: Sequence[int]) -> int:
    """Return the largest number of sorted arrivals that lie less than a second apart."""
    worst = first = 0
    for last, arrived in enumerate(arrivals_us):
        while arrived - arrivals_us[first] >= SECOND_US:
            first += 1
        worst = max(worst, last - first + 1)
    return worst


def now_us() -> int:
    """Return the time in microseconds since 1970."""
    return time.time_ns() // 1000


def iso_time(microseconds: int) -> str:
    """Return a time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(microseconds / SECOND_US, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

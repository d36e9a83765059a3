"""A harness over a test's database: batches and orders put there by hand, workers, and what the tables say afterwards."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pyarrow as pa
from psycopg.rows import dict_row

from orders_pipeline.batches.workers import WORKER_LOCK_CLASS, Worker, worker_session
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline.security import personal_data
from orders_pipeline.security.encryption import Cipher
from orders_pipeline.services.payment_gateway import Capabilities
from orders_pipeline.settlement.notifications.ledger import ResultLedger
from orders_pipeline.settlement.notifications.plan import make_ready, plan_notifications
from orders_pipeline.settlement.payments import settle
from orders_pipeline.settlement.payments.ledger import PaymentLedger
from orders_pipeline_tests.support.databases import kept_connection

CIPHER = Cipher({"test": b"k" * 32}, "test")
ABLE = Capabilities(honours_keys=True, can_look_up=True)
Order = dict[str, Any]


def order(number: int = 1, **changes: object) -> Order:
    """Return the columns of an order that the schema takes."""
    return {
        "import_row_number": number,
        "client_order_ref": f"ORD-{number:04}",
        "customer_code": "C-1",
        "amount": 1000,
        "payment_method": "invoice",
        "notify_channel": "email",
        "personal": {"customer_name": "見本商店", "email": "planted@example.com"},
    } | changes


class Harness:
    """Plain SQL for arranging and looking; the package's own code for everything a test is about."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.batch_id = ""

    @contextlib.contextmanager
    def connect(self) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        with psycopg.connect(libpq_url(self.database.url), row_factory=dict_row) as connection:
            yield connection

    def run(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        """Run one statement in a transaction of its own and return its rows, if it has any."""
        with kept_connection(self.database.url) as connection:
            cursor = connection.cursor(row_factory=dict_row).execute(sql.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def tamper(self, *statements: str) -> None:
        """Run statements as somebody who may switch the triggers off."""
        with self.connect() as connection:
            for statement in ("SET session_replication_role = replica", *statements):
                connection.execute(statement.encode())

    def value(self, sql: str, *parameters: object) -> Any:
        (row,) = self.run(sql, *parameters)
        (value,) = row.values()
        return value

    def batch(self, batch_id: str = "20260701-000000000001", *, status: str = "loaded", client: str = "acme") -> str:
        """Insert a batch; it is the harness's from here on."""
        self.run(
            "INSERT INTO batches (batch_id, client_code, csv_source, bulk_import_group, status) VALUES (%s, %s, %s, %s, %s)",
            batch_id,
            client,
            "orders.csv",
            batch_id,
            status,
        )
        self.batch_id = batch_id
        return batch_id

    def orders(self, *orders: Order, batch_id: str | None = None) -> list[int]:
        """Insert orders into a batch (a new one if the harness has none) and return their ids."""
        batch_id = batch_id or self.batch_id or self.batch()
        client = self.value("SELECT client_code FROM batches WHERE batch_id = %s", batch_id)
        ids = []
        for each in orders:
            personal = pa.RecordBatch.from_pylist([{"import_row_number": each["import_row_number"]} | each["personal"]])
            (encrypted,) = personal_data.encrypter(CIPHER, batch_id)(personal).to_pylist()
            row = {
                "batch_id": batch_id,
                "csv_source": "orders.csv",
                "bulk_import_group": batch_id,
                "client_code": client,
                **each,
                "personal": encrypted,
            }
            places = ", ".join(["%s"] * len(row))
            insert = f"INSERT INTO orders ({', '.join(row)}) VALUES ({places}) RETURNING order_id"
            ids.append(self.value(insert, *row.values()))
        return ids

    def plan(self, profile: Profile | None = None) -> None:
        """Plan the batch's payments and notifications."""
        settle.plan_batch(self.database, CIPHER, self.batch_id, profile or Profile())
        plan_notifications(self.database, CIPHER, self.batch_id, profile or Profile())

    def statuses(self, table: str) -> list[str]:
        key = {"orders": "order_id", "payments": "created_at, payment_id", "notifications": "customer_code"}[table]
        rows = self.run(f"SELECT status FROM {table} WHERE batch_id = %s ORDER BY {key}", self.batch_id)
        return [row["status"] for row in rows]

    def working(self) -> contextlib.AbstractContextManager[Worker]:
        return worker_session(self.database, self.batch_id, None)

    def ledger(self, worker: Worker, able: Capabilities = ABLE, *, retry_declined_orders: bool = False) -> PaymentLedger:
        return PaymentLedger(
            self.database,
            CIPHER,
            worker,
            able,
            make_ready,
            concurrency=32,
            retry_declined_orders=retry_declined_orders,
        )

    def notices(self, worker: Worker, profile: Profile | None = None) -> ResultLedger:
        return ResultLedger(self.database, CIPHER, worker, profile or Profile())

    def due_now(self, table: str) -> None:
        """Let time pass for everything that waits for its next try."""
        self.run(f"UPDATE {table} SET next_attempt_at = now() - interval '1 hour' WHERE batch_id = %s", self.batch_id)

    def give_up(self, worker: Worker) -> None:
        """Let the worker's lease run out."""
        self.run("UPDATE workers SET lease_until = now() - interval '1 second' WHERE worker_id = %s", worker.worker_id)

    def break_session(self, worker: Worker) -> None:
        """End the session that holds the worker's lock, as a firewall may."""
        held = "locktype = 'advisory' AND classid = %s AND objid = %s"
        self.run(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE {held}", WORKER_LOCK_CLASS, worker.worker_id)

    def locks(self, worker_id: int) -> int:
        return int(
            self.value(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s AND objid = %s",
                WORKER_LOCK_CLASS,
                worker_id,
            )
        )

    def payment(self, order_ids: Sequence[int], amount: int, **changes: object) -> str:
        """Insert a payment over orders with its allocations, in one transaction, and return its id."""
        payment_id = str(changes.get("payment_id", uuid.uuid4()))
        row = {
            "payment_id": payment_id,
            "batch_id": self.batch_id,
            "customer_code": "C-1",
            "payment_method": "invoice",
            "amount": amount,
        } | changes
        with self.connect() as connection:
            places = ", ".join(["%s"] * len(row))
            connection.execute(f"INSERT INTO payments ({', '.join(row)}) VALUES ({places})".encode(), list(row.values()))
            connection.execute(
                b"INSERT INTO payment_orders (payment_id, order_id, amount)"
                b" SELECT %s, order_id, amount FROM orders WHERE order_id = ANY(%s)",
                [payment_id, list(order_ids)],
            )
        return payment_id


def wait_for_a_blocked_session(harness: Harness) -> None:
    """Wait until a session waits for a lock that another holds."""
    pause = threading.Event()
    for _ in range(500):
        if harness.value("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            return
        pause.wait(0.01)
    raise AssertionError("nobody waits for a lock")

"""Two ledgers side by side: ours in a test's database and the service's own, with what makes them differ."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

from orders_pipeline.sandbox import SandboxServer
from orders_pipeline.settlement.payments.settle import settle_batch
from orders_pipeline.settlement.reconciliation.reconcile import Reconciled, reconcile
from orders_pipeline.system.composition import System
from orders_pipeline_tests.support.ledgers import Harness, order

HOUR_US = 3_600_000_000
DAY = timedelta(days=1)
TIMES = ("created_at", "sent_at", "settled_at", "next_attempt_at")


@dataclass
class Books:
    """Our ledger at the harness and the service's own, side by side."""

    harness: Harness
    system: System
    sandbox: SandboxServer
    path: Path

    def pay(self, *amounts: int, finish: bool = True) -> list[str]:
        """Have a batch with one payment of a customer for each amount, paid at the service; return the payments' ids."""
        self.harness.batch()
        rows = [
            order(n, customer_code=f"C-{n}", notify_channel="none", amount=yen) for n, yen in enumerate(amounts, start=1)
        ]
        self.harness.orders(*rows)
        self.harness.plan()
        self.settle()
        if finish:
            self.finish(sum(amounts))
        return [str(row["payment_id"]) for row in self.harness.run("SELECT payment_id FROM payments ORDER BY customer_code")]

    def reference(self, payment_id: str) -> str:
        """Return a payment's reference at the service."""
        return str(self.harness.value("SELECT reference_of(CAST(%s AS uuid))", payment_id))

    def order_names(self) -> list[str]:
        """Return what the orders are called at the service."""
        rows = self.harness.run("SELECT order_reference(batch_id, import_row_number) AS name FROM orders ORDER BY order_id")
        return [row["name"] for row in rows]

    def settle(self) -> None:
        with self.harness.working() as worker:
            settle_batch(self.harness.ledger(worker), self.system.payments, threading.Event())

    def finish(self, yen: int) -> None:
        count = self.harness.value("SELECT count(*) FROM orders")
        self.harness.run(
            "UPDATE batches SET rows_total = %s, rows_accepted = %s, rows_rejected = 0, rows_blank = 0,"
            " amount_accepted = %s, source_sha256 = 'abc', status = 'completed', finished_at = now()",
            count,
            count,
            yen,
        )

    def let_time_pass(self, hours: int = 1) -> None:
        """Make everything on both sides older."""
        with contextlib.closing(sqlite3.connect(self.path)) as books, books:
            books.execute("UPDATE payments SET created_us = created_us - ?", (hours * HOUR_US,))
        older = f"- interval '{hours} hours'"
        self.harness.run(f"UPDATE payments SET {', '.join(f'{name} = {name} {older}' for name in TIMES)}")
        self.harness.run(f"UPDATE batches SET received_at = received_at {older}, finished_at = finished_at {older}")
        self.harness.run(
            f"UPDATE reconciliation_findings SET compared_from = compared_from {older}, compared_to = compared_to {older},"
            f" first_seen_at = first_seen_at {older}, last_seen_at = last_seen_at {older}"
        )

    def at_service(self, statement: str, *parameters: object) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as books, books:
            assert books.execute(statement, parameters).rowcount == 1

    def charge(self, reference: str, amount: int, *, orders: Sequence[str] = ("somebody-1",), key: str | None = None) -> str:
        """Pay at the service without our pipeline and return the charge's id there."""
        body = {
            "amount": amount,
            "currency": "JPY",
            "customer_code": "C-1",
            "reference": reference,
            "payment_method": {"type": "invoice"},
            "allocations": [{"order_id": name, "amount": amount // len(orders)} for name in orders],
            "metadata": {"batch_id": "somebody"},
        }
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        answer = requests.post(f"{self.sandbox.url}/v1/payments", json=body, headers=headers, timeout=10)
        assert answer.status_code == 201
        return str(answer.json()["id"])

    def refund(self, service_payment_id: str, amount: int) -> None:
        answer = requests.post(
            f"{self.sandbox.url}/v1/payments/{service_payment_id}/refunds",
            json={"amount": amount, "reason": "refunded"},
            headers={"Idempotency-Key": uuid.uuid4().hex},
            timeout=10,
        )
        assert answer.status_code == 201

    def lose(self, payment_id: str) -> None:
        """Take a payment out of our ledger, as a restored backup would."""
        with self.harness.connect() as connection:
            connection.execute("SET LOCAL session_replication_role = replica")
            connection.execute("DELETE FROM payment_orders WHERE payment_id = %s", [payment_id])
            connection.execute("DELETE FROM payments WHERE payment_id = %s", [payment_id])

    def charge_id(self, payment_id: str) -> str:
        return str(self.harness.value("SELECT service_payment_id FROM payments WHERE payment_id = %s", payment_id))

    def compare(self, batch_id: str | None = None, *, days: int = 1) -> Reconciled:
        if batch_id is not None:
            return reconcile(self.system, batch_id, None, None)
        now = datetime.now(UTC)
        return reconcile(self.system, None, now - days * DAY, now)

    def findings(self) -> list[dict[str, Any]]:
        return self.harness.run("SELECT * FROM reconciliation_findings ORDER BY finding_id")

    def closings(self) -> list[dict[str, Any]]:
        return self.harness.run("SELECT * FROM batch_closings ORDER BY closing_id")


def found(result: Reconciled) -> list[tuple[Any, ...]]:
    """Return the open findings as (code, our payment, theirs, our side, their side)."""
    return [
        (each["code"], each["payment_id"], each["service_payment_id"], _side(each["ours"]), _side(each["theirs"]))
        for each in result.findings
    ]


def _side(side: dict[str, Any] | None) -> tuple[str, int] | None:
    return None if side is None else (side["status"], side["amount"])

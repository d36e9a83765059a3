"""Claims of payments, notifications and refunds: each reads what it takes, however large the batch, old the statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.security.encryption import Cipher
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.services.payment_gateway import Capabilities
from orders_pipeline.settlement.notifications.ledger import ResultLedger
from orders_pipeline.settlement.payments.ledger import ABSENT_ONCE, DoubtLedger
from orders_pipeline.settlement.refunds.ledger import RefundLedger
from orders_pipeline_tests.support.databases import cloned_database, run_on
from orders_pipeline_tests.support.ledgers import Harness, order
from orders_pipeline_tests.support.soak import first_of

MANY = 10_000
TABLES = ("orders", "payments", "payment_orders", "notifications", "notification_orders", "refunds", "refund_orders")
KINDS = ("payments", "notifications", "refunds")
MODES = ("auto", "force_generic_plan", "force_custom_plan")
DONE = {kind: Outcome("succeeded", None, f"{kind}-1") for kind in KINDS}
ABLE = Capabilities(honours_keys=True, can_look_up=True)
FAILED = Outcome("not_sent", "E_SERVICE_UNREACHABLE")
READ = f"""
SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::integer FROM pg_stat_xact_user_tables
WHERE relname IN {TABLES}"""
# two batches: one to be paid and notified, and one that is paid and has its refunds planned
FILL = f"""
SET session_replication_role = replica;
CREATE TEMPORARY TABLE many AS
SELECT batch_id, n, gen_random_uuid() AS id FROM batches, generate_series(2, {MANY}) AS n;
INSERT INTO orders (batch_id, csv_source, bulk_import_group, client_code, customer_code, amount, payment_method,
                    notify_channel, personal, import_row_number, client_order_ref, status)
SELECT batch_id, csv_source, bulk_import_group, client_code, customer_code, amount, payment_method,
       notify_channel, personal, n, client_order_ref || '-' || n, status
FROM orders JOIN many USING (batch_id) WHERE import_row_number = 1;
INSERT INTO payments (payment_id, batch_id, customer_code, payment_method, amount, status, settled_at, service_payment_id)
SELECT id, batch_id, customer_code, payment_method, amount, status, settled_at, service_payment_id
FROM payments JOIN many USING (batch_id);
INSERT INTO payment_orders (payment_id, order_id, amount)
SELECT id, order_id, amount FROM orders JOIN many ON (many.batch_id, n) = (orders.batch_id, import_row_number);
INSERT INTO notifications (notification_id, batch_id, customer_code, channel, status)
SELECT id, batch_id, customer_code, channel, status FROM notifications JOIN many USING (batch_id);
INSERT INTO notification_orders SELECT payment_id, order_id FROM payment_orders JOIN many ON id = payment_id;
INSERT INTO refunds (refund_id, payment_id, batch_id, amount, requested_by, reason)
SELECT id, id, batch_id, amount, requested_by, reason FROM refunds JOIN many USING (batch_id);
INSERT INTO refund_orders (refund_id, order_id, amount)
SELECT id, order_id, payment_orders.amount FROM payment_orders JOIN many ON id = payment_id JOIN refunds ON refund_id = id;
"""


class AnyRow(Cipher):
    """A cipher that takes every order's personal columns for those of the first row, of which they are copies."""

    def decrypt(self, sealed: bytes, aad: bytes) -> bytes:
        return super().decrypt(sealed, aad.rpartition(b"|")[0] + b"|1")


ANY_ROW = AnyRow({"test": b"k" * 32}, "test")


class Claims:
    """Claims of each kind over one connection, and how many rows each transaction reads."""

    def __init__(self, database: Database, batch_ids: dict[str, str]) -> None:
        self.harness = Harness(database)
        self._batch_ids = batch_ids

    def settle_in(self) -> None:
        """Claim until the driver has prepared the statements and the server keeps its plans."""
        for kind in KINDS:
            with self._ledger(kind) as ledger:
                for _ in range(12):
                    ledger.record([(claim, FAILED) for claim in ledger.claim(1)])
                    self.harness.run(f"UPDATE {kind} SET attempts = 0, next_attempt_at = now() WHERE claimed_by IS NULL")

    def most_read(self, kind: str, outcome: Outcome, times: int) -> int:
        """Claim and record thirty a few times and return how many rows the hungriest of the transactions read."""
        with self._ledger(kind) as ledger, read_by(self.harness.database) as read:
            for _ in range(times):
                claims = ledger.claim(30)
                ledger.record([(claim, outcome) for claim in claims])
        return max(read)

    @contextlib.contextmanager
    def _ledger(self, kind: str) -> Iterator[Any]:
        harness = self.harness
        harness.batch_id = self._batch_ids[kind]
        with harness.working() as worker:
            ledgers = {
                "payments": lambda: harness.ledger(worker),
                "notifications": lambda: ResultLedger(harness.database, ANY_ROW, worker, Profile()),
                "refunds": lambda: RefundLedger(harness.database, worker),
                "doubts": lambda: DoubtLedger(harness.database, ANY_ROW, worker, ABLE, lambda *_: None, concurrency=4),
            }
            yield ledgers[kind]()


@contextlib.contextmanager
def read_by(database: Database) -> Iterator[list[int]]:
    """Note how many rows of the ledgers' tables each transaction reads."""
    read: list[int] = []
    begin = database.begin

    @contextlib.contextmanager
    def counted() -> Iterator[Transaction]:
        with begin() as transaction:
            before = transaction._connection.exec_driver_sql(READ).scalar_one()  # of transactions that are not counted yet
            yield transaction
            read.append(transaction._connection.exec_driver_sql(READ).scalar_one() - before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "begin", counted)
        yield read


def small_batches(harness: Harness) -> dict[str, str]:
    """Have a batch with one payment and notification that are due, and one with a refund, each of one order."""
    due = harness.batch("20260701-000000000001")
    harness.orders(order(1))
    harness.plan()
    harness.run("UPDATE notifications SET status = 'ready'")
    refunding = harness.batch("20260701-000000000002")
    (order_id,) = harness.orders(order(1, client_order_ref="REF", notify_channel="none", status="paid"))
    payment_id = harness.payment([order_id], 1000, status="succeeded", settled_at="now", service_payment_id="pay-0")
    with harness.connect() as connection:
        connection.execute(
            b"INSERT INTO refunds (refund_id, payment_id, batch_id, amount, requested_by, reason)"
            b" VALUES (%(id)s, %(id)s, %(batch)s, 1000, 'operator', 'returned')",
            {"id": payment_id, "batch": refunding},
        )
        connection.execute(
            b"INSERT INTO refund_orders (refund_id, order_id, amount) VALUES (%s, %s, 1000)", [payment_id, order_id]
        )
    return {"payments": due, "notifications": due, "refunds": refunding, "doubts": due}


@pytest.fixture(scope="module")
def every_mode(request: pytest.FixtureRequest, server_url: str, template: str) -> Iterator[dict[str, Claims]]:
    """Connections that claimed while there was hardly anything; meanwhile there are batches of many thousands."""
    wanted = [mode for mode in MODES if any(f"[{mode}" in item.name for item in request.session.items)]
    with contextlib.ExitStack() as stack:
        whole = stack.enter_context(cloned_database(server_url, template))
        batch_ids = small_batches(Harness(stack.enter_context(contextlib.closing(Database(whole)))))
        run_on(whole, *(f"ALTER TABLE {table} SET (autovacuum_enabled = false)" for table in TABLES), "ANALYZE")
        modes = {}
        for mode in wanted:
            own = make_url(whole.get_secret_value()).update_query_dict({"options": f"-cplan_cache_mode={mode}"})
            database = Database(SecretStr(own.render_as_string(hide_password=False)), pool_size=1)
            modes[mode] = Claims(stack.enter_context(contextlib.closing(database)), batch_ids)
            modes[mode].settle_in()
        run_on(whole, FILL)
        yield modes


@pytest.mark.parametrize("statistics", ["of an empty batch", "of today"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", first_of(MODES, 2))
def test_a_claim_reads_what_it_takes(every_mode, mode, kind, statistics):
    claims = every_mode[mode]
    if statistics == "of today":
        run_on(claims.harness.database.url, "ANALYZE")
    assert claims.most_read(kind, DONE[kind], 8) < 1000


def test_a_claim_of_first_tries_reads_none_of_those_that_failed(every_mode):
    claims = every_mode["force_generic_plan"]
    claims.harness.run(
        "UPDATE payments SET attempts = 1, next_attempt_at = now() WHERE claimed_by IS NULL AND status = 'planned'"
    )
    claims.harness.run("UPDATE service_breakers SET retries_left = -100, retries_at = now()")
    assert claims.most_read("payments", DONE["payments"], 1) < 1000


@pytest.mark.parametrize("mode", first_of(MODES, 2))
def test_a_claim_of_what_may_have_been_charged_reads_none_of_what_was_not_sent_or_waits(every_mode, mode):
    claims = every_mode[mode]
    claims.harness.run(
        "UPDATE payments SET status = 'unknown', sent_at = now(), attempts = 0, next_attempt_at = now()"
        " WHERE payment_id IN (SELECT payment_id FROM payments WHERE claimed_by IS NULL AND status = 'planned' LIMIT 5000)"
    )
    assert claims.most_read("doubts", Outcome("unknown", ABSENT_ONCE, retry_after_s=60.0), 12) < 1000

"""Ids follow from what they are for: a database that is put back to before them makes the same ones."""

from __future__ import annotations

import uuid

from orders_pipeline.batches import batches
from orders_pipeline.settlement.refunds.ledger import RefundLedger
from orders_pipeline.system import installation
from orders_pipeline_tests.support.ledgers import Harness, order

OTHER_DAY = "20260702-000000000001"


def forget(harness: Harness) -> None:
    """Put the ledger back to before anything was planned."""
    harness.tamper(
        *(f"DELETE FROM {table}" for table in ("payment_orders", "payments", "notification_orders", "notifications")),
    )


def ids(harness: Harness, table: str) -> set[uuid.UUID]:
    return {row["id"] for row in harness.run(f"SELECT {table.removesuffix('s')}_id AS id FROM {table}")}


def test_what_is_planned_again_after_a_restore_has_the_same_ids_whatever_the_batch_is_called(harness):
    harness.batch()
    harness.run("UPDATE batches SET source_sha256 = 'abc'")
    harness.orders(*(order(number, customer_code=f"C-{number % 2}") for number in range(1, 6)))
    harness.plan()
    before = ids(harness, "payments"), ids(harness, "notifications")
    forget(harness)
    harness.tamper("DELETE FROM orders", f"UPDATE batches SET batch_id = '{OTHER_DAY}'")
    harness.batch_id = OTHER_DAY
    harness.orders(*(order(number, customer_code=f"C-{number % 2}") for number in range(1, 6)))
    harness.plan()
    assert (ids(harness, "payments"), ids(harness, "notifications")) == before
    assert [len(each) for each in before] == [2, 2]


def test_another_try_other_rows_other_bytes_and_another_installation_have_other_ids(harness):
    harness.batch()
    (order_id,) = harness.orders(order(1))
    seen = {harness.value("SELECT next_payment_id(batch_identity(%s), '{1}', 1000)", harness.batch_id)}
    (first,) = seen
    harness.payment([order_id], 1000, payment_id=first, status="declined", settled_at="2026-07-01")
    for change, rows in (
        ("SELECT 'another try'", [1]),
        ("SELECT 'other rows'", [1, 2]),
        ("UPDATE batches SET source_sha256 = 'def'", [1]),
        ("UPDATE batches SET again_no = 1", [1]),
        ("UPDATE batches SET client_code = 'other'", [1]),
        ("UPDATE installation SET installation_id = gen_random_uuid()", [1]),
    ):
        harness.run(change)
        next_id = harness.value("SELECT next_payment_id(batch_identity(%s), %s, 1000)", harness.batch_id, rows)
        assert next_id not in seen
        seen.add(next_id)


def test_a_lost_charge_is_taken_over_by_rows_that_come_to_the_same_yen_and_its_id_by_no_others(harness):
    harness.batch()

    def next_id(yen: int) -> uuid.UUID:
        found: uuid.UUID = harness.value("SELECT next_payment_id(batch_identity(%s), '{1}', %s)", harness.batch_id, yen)
        return found

    lost = next_id(1000)
    assert next_id(1100) == lost
    harness.run(
        "INSERT INTO reconciliation_findings (code, payment_id, detail, compared_from, compared_to, first_seen_at,"
        " last_seen_at) SELECT 'C_MISSING_HERE', %s, jsonb_build_object('ours', NULL, 'theirs', jsonb_build_object('amount',"
        " 1000)), now, now, now, now FROM now() AS now",
        lost,
    )
    assert next_id(1000) == lost
    assert next_id(1100) != lost
    harness.run("UPDATE batches SET again_no = 1")  # an earlier repeat was cancelled before, or was not
    assert next_id(1000) == lost
    assert next_id(1100) != lost


def test_only_references_of_this_installation_are_ours(harness):
    harness.orders(order(1))
    harness.plan()
    (payment_id,) = map(str, ids(harness, "payments"))
    with harness.database.begin() as transaction:
        ours = installation.read(transaction)
    reference = harness.value("SELECT reference_of(payment_id) FROM payments")
    assert reference == f"{ours.prefix}{payment_id}"
    assert ours.payment_id_of(reference) == payment_id
    for other in (payment_id, f"{'0' * 12}-{payment_id}", f"{reference}1", f"{ours.prefix}web-17", ours.prefix):
        assert not ours.is_ours(other)


def stop(harness: Harness) -> None:
    harness.run("UPDATE installation SET stopped_at = now(), stopped_by = 'service'")


def test_nothing_is_claimed_any_more_once_paying_is_stopped(harness):
    harness.orders(order(1), order(2, customer_code="C-2"))
    harness.plan()
    with harness.working() as worker:
        ledger, refunds = harness.ledger(worker), RefundLedger(harness.database, worker)
        assert len(ledger.claim(1)) == 1
        assert ledger.wait_s() is not None
        stop(harness)
        assert (ledger.claim(1), ledger.wait_s()) == ([], None)
        assert (refunds.claim(1), refunds.wait_s()) == ([], None)
    with harness.database.begin() as transaction:
        assert batches.progress(transaction, harness.batch_id).ledgers_differ


def test_nothing_is_claimed_in_a_database_that_was_not_looked_at(harness):
    harness.orders(order(1))
    harness.plan()
    with harness.working() as worker:
        harness.run("UPDATE installation SET seen_as = running_database()")
        assert len(harness.ledger(worker).claim(1)) == 1
        for change in (
            "UPDATE installation SET seen_as = 'another'",
            "UPDATE installation SET seen_as = running_database()",
        ):
            harness.run(change)
            harness.run("UPDATE payments SET status = 'planned', claimed_by = NULL, attempts = 0")
            if "running" in change:  # as a dump that is read back has it: written by a transaction that is not the row's
                harness.tamper("UPDATE installation SET written_by = '1'")
            assert harness.ledger(worker).claim(1) == []

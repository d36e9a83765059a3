"""The schema's rules of approval: by somebody else, of exactly what was shown, and nothing is paid before."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orders_pipeline.infrastructure.database_errors import ConstraintViolated
from orders_pipeline_tests.support.ledgers import Harness, order
from orders_pipeline_tests.support.schema_rules import breaks, insert_batch, refused_by


def wait_for_approval(harness: Harness) -> None:
    """Have a batch of two orders that needs approval, and waits for it."""
    harness.batch("b")
    harness.orders(order(1, customer_code="C-1"), order(2, customer_code="C-2"))
    harness.run(
        "UPDATE batches SET rows_total = 2, rows_accepted = 2, rows_rejected = 0, rows_blank = 0, amount_accepted = 2000,"
        " approval_above = 1999, submitted_by = 'sender', approval_requested_at = now(), status = 'awaiting_approval'"
    )


DECIDE = (
    "UPDATE batches SET status = 'loaded', approval_decision = %s, approval_decided_by = %s, approval_decided_at = now()"
    " WHERE batch_id = 'b'"
)


@breaks(
    "batches_approval_above_some_yen",
    "batches_approval_decision_known",
    "batches_approval_decided_by_somebody",
    "batches_approval_by_another",
    "batches_approval_awaited",
)
def test_a_batch_is_approved_or_refused_by_somebody_else_than_who_sent_it_once_it_waits(harness):
    with refused_by("batches_approval_above_some_yen"):
        insert_batch(harness, approval_above=-1)
    for asked in ({}, {"approval_requested_at": datetime.now(UTC)}):
        with refused_by("batches_approval_awaited"):
            insert_batch(harness, status="awaiting_approval", **asked)
    with refused_by("batches_approval_decided_by_somebody"):
        insert_batch(harness, approval_decision="approved", approval_decided_by="x", approval_decided_at=datetime.now(UTC))
    wait_for_approval(harness)
    for decision, by, name in [
        ("perhaps", "approver", "batches_approval_decision_known"),
        ("approved", "", "batches_approval_decided_by_somebody"),
        ("approved", "sender", "batches_approval_by_another"),
        ("refused", "sender", "batches_approval_by_another"),
    ]:
        with refused_by(name):
            harness.run(DECIDE, decision, by)
    harness.run(DECIDE, "approved", "approver")


@breaks("batches_settled_once_approved")
@pytest.mark.parametrize("status", ["paying", "paused", "completed", "completed_with_errors"])
def test_a_batch_that_nobody_has_approved_is_not_settled(harness, status):
    wait_for_approval(harness)
    harness.run("UPDATE orders SET status = 'paid'")
    with refused_by("batches_settled_once_approved"):
        harness.run("UPDATE batches SET status = %s", status)
    harness.run(DECIDE, "refused", "approver")
    with refused_by("batches_settled_once_approved"):
        harness.run("UPDATE batches SET status = %s", status)


@breaks("batches_approval_is_bound")
def test_what_waits_for_approval_and_what_was_said_of_it_never_change(harness):
    wait_for_approval(harness)
    changes = [
        "rows_accepted = 1, rows_rejected = 1",
        "rows_continuing = 1",
        "amount_accepted = 1",
        "approval_above = NULL",
        "approval_requested_at = NULL",
        "submitted_by = NULL",
    ]
    for change in changes:
        with refused_by("batches_approval_is_bound"):
            harness.run(f"UPDATE batches SET {change}, status = 'loaded'")
    harness.run(DECIDE, "refused", "approver")
    for change in (*changes, "approval_decision = 'approved'", "approval_decided_by = 'another'"):
        with refused_by("batches_approval_is_bound"):
            harness.run(f"UPDATE batches SET {change}")


@breaks("payments_claimed_are_approved")
def test_nothing_is_claimed_of_a_batch_that_nobody_has_approved_but_what_may_have_been_charged_once_it_is_cancelled(harness):
    wait_for_approval(harness)
    harness.plan()  # as after a restore, to find what was charged before
    with harness.working() as worker:
        harness.run("UPDATE payments SET status = 'unknown', sent_at = now() WHERE customer_code = 'C-2'")
        for status in ("awaiting_approval", "loaded", "cancelling"):
            harness.run("UPDATE batches SET status = %s", status)
            with refused_by("payments_claimed_are_approved"):
                harness.run("UPDATE payments SET status = 'sending', claimed_by = %s", worker.worker_id)
            if status != "cancelling":
                with refused_by("payments_claimed_are_approved"):
                    harness.run("UPDATE payments SET claimed_by = %s WHERE status = 'unknown'", worker.worker_id)
                with pytest.raises(ConstraintViolated, match="payments_claimed_are_approved"):
                    harness.ledger(worker).claim(1)
        harness.run("UPDATE payments SET claimed_by = %s WHERE status = 'unknown'", worker.worker_id)
        harness.run("UPDATE payments SET claimed_by = NULL")
        harness.run(DECIDE, "approved", "approver")
        assert len(harness.ledger(worker).claim(9)) == 2


@breaks("payments_are_of_what_was_approved")
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE orders SET amount = 999 WHERE import_row_number = 1",
        "DELETE FROM orders WHERE import_row_number = 1",
        "UPDATE orders SET batch_id = 'b2' WHERE import_row_number = 1",
    ],
)
def test_other_orders_than_were_approved_are_not_planned(harness, change):
    harness.batch("b2")
    wait_for_approval(harness)
    harness.run(DECIDE, "approved", "approver")
    harness.run(change)
    with pytest.raises(ConstraintViolated, match="payments_are_of_what_was_approved"):
        harness.plan()

"""The schema's rules of reconciliation: findings, closing records and what a person resolved."""

from __future__ import annotations

import uuid

import pytest

from orders_pipeline_tests.support.ledgers import order
from orders_pipeline_tests.support.schema_rules import breaks, refused_by

FINDING = (
    "INSERT INTO reconciliation_findings (code, service_payment_id, batch_id, closed_at, closed_how,"
    " detail, compared_from, compared_to, first_seen_at, last_seen_at)"
    " VALUES (%s, %s, %s, %s, %s, '{}', now(), now(), now(), now())"
)


FINDINGS_THAT_BREAK_A_RULE = [
    ("reconciliation_findings_code_known", ("C_STRANGE", "p", None, None, None)),
    ("reconciliation_findings_about_a_payment", ("C_MISSING_HERE", None, None, None, None)),
    ("reconciliation_findings_batch_id_fkey", ("C_MISSING_HERE", "p", "nowhere", None, None)),
    ("reconciliation_findings_closed_how_known", ("C_MISSING_HERE", "p", None, "2026-07-01", "forgotten")),
    ("reconciliation_findings_closed_somehow", ("C_MISSING_HERE", "p", None, "2026-07-01", None)),
    ("reconciliation_findings_closed_somehow", ("C_MISSING_HERE", "p", None, None, "gone")),
]


@breaks(*(name for name, _ in FINDINGS_THAT_BREAK_A_RULE))
@pytest.mark.parametrize(("name", "values"), FINDINGS_THAT_BREAK_A_RULE)
def test_a_finding_that_breaks_a_rule_is_refused_by_its_name(harness, name, values):
    with refused_by(name):
        harness.run(FINDING, *values)


@breaks("reconciliation_findings_one_open", "reconciliation_findings_pkey")
def test_a_difference_is_one_open_finding(harness):
    harness.run(FINDING, "C_MISSING_HERE", "p", None, "2026-07-01", "gone")
    harness.run(FINDING, "C_MISSING_HERE", "p", None, None, None)
    with refused_by("reconciliation_findings_one_open"):
        harness.run(FINDING, "C_MISSING_HERE", "p", None, None, None)
    harness.run(FINDING, "C_CHARGED_TWICE", "p", None, None, None)
    with refused_by("reconciliation_findings_pkey"):
        harness.run("INSERT INTO reconciliation_findings OVERRIDING SYSTEM VALUE SELECT * FROM reconciliation_findings")


@breaks("reconciliation_findings_accepted_by_somebody")
@pytest.mark.parametrize("accepted", ["accepted_at = now()", "accepted_by = 'ops', accepted_why = 'so'"])
def test_a_finding_is_accepted_at_a_time_by_somebody_for_a_reason(harness, accepted):
    harness.run(FINDING, "C_MISSING_HERE", "p", None, None, None)
    with refused_by("reconciliation_findings_accepted_by_somebody"):
        harness.run(f"UPDATE reconciliation_findings SET {accepted}")


@breaks("batch_closings_pkey", "batch_closings_batch_id_fkey", "batch_closings_agree")
def test_a_closing_record_is_of_a_batch_that_exists_and_agrees_or_says_what_differs(harness):
    harness.batch("b")
    insert = (
        "INSERT INTO batch_closings (batch_id, orders_paid, orders_declined, amount_paid, amount_declined,"
        " amount_at_service, differences, figures_sha256) VALUES (%s, 1, 0, 1000, 0, %s, %s, 'x')"
    )
    harness.run(insert, "b", 1000, [])
    harness.run(insert, "b", 999, ["C_AMOUNT_DIFFERS"])
    with refused_by("batch_closings_agree"):
        harness.run(insert, "b", 999, [])
    with refused_by("batch_closings_batch_id_fkey"):
        harness.run(insert, "nowhere", 1000, [])
    with refused_by("batch_closings_pkey"):
        harness.run("INSERT INTO batch_closings OVERRIDING SYSTEM VALUE SELECT * FROM batch_closings")


@breaks(
    "resolutions_pkey",
    "resolutions_payment_id_fkey",
    "resolutions_refund_id_fkey",
    "resolutions_decision_known",
    "resolutions_of_what_is_decided",
    "resolutions_decided_by_given",
    "resolutions_reason_given",
)
def test_a_resolution_is_of_a_payment_or_refund_that_exists_by_somebody_and_for_a_reason(harness):
    (order_id,) = harness.orders(order(1))
    amount = harness.value("SELECT amount FROM orders")
    payment_id = harness.payment([order_id], amount)
    insert = "INSERT INTO resolutions (payment_id, refund_id, decision, decided_by, reason) VALUES (%s, %s, %s, %s, %s)"
    harness.run(insert, payment_id, None, "paid", "operator", "found")
    for values, name in [
        ((str(uuid.uuid4()), None, "paid", "operator", "found"), "resolutions_payment_id_fkey"),
        ((None, str(uuid.uuid4()), "refunded", "operator", "found"), "resolutions_refund_id_fkey"),
        ((payment_id, None, "refunded", "operator", "found"), "resolutions_of_what_is_decided"),
        ((None, None, "refunded", "operator", "found"), "resolutions_of_what_is_decided"),
        ((payment_id, None, "perhaps", "operator", "found"), "resolutions_decision_known"),
        ((payment_id, None, "paid", "", "found"), "resolutions_decided_by_given"),
        ((payment_id, None, "paid", "operator", ""), "resolutions_reason_given"),
    ]:
        with refused_by(name):
            harness.run(insert, *values)
    with refused_by("resolutions_pkey"):
        harness.run("INSERT INTO resolutions OVERRIDING SYSTEM VALUE SELECT * FROM resolutions")

"""A person's decision about an unknown payment or refund: written down, and followed by orders and notifications."""

from __future__ import annotations

import pytest

from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.services.payment_gateway import Capabilities
from orders_pipeline.settlement.ledger import UNDECIDABLE
from orders_pipeline.settlement.payments.settle import settle_one
from orders_pipeline.settlement.refunds.ledger import RefundLedger
from orders_pipeline.settlement.refunds.plan import read_plan, write_plan
from orders_pipeline.settlement.resolve import Decision, NotResolvable, resolve_payment, resolve_refund
from orders_pipeline_tests.support.ledgers import Harness, order

NEITHER = Capabilities(honours_keys=False, can_look_up=False)
FOUND = Decision("pay_123", "operator", "seen in the service's own list")
NOTHING = Decision(None, "operator", "the service's support says that there is no charge")


class Silent:
    """A provider that never answers and offers no way to find out."""

    capabilities = NEITHER

    def __init__(self) -> None:
        self.sent = 0

    def pay(self, _: object) -> Outcome:
        self.sent += 1
        return Outcome("unknown", "E_SERVICE_NO_ANSWER", service_failed=True)

    def look_up(self, _: object) -> Outcome:
        raise AssertionError("it has no look-up")


def stuck(harness: Harness) -> str:
    """Have a payment that only a person can decide about, and return its id."""
    harness.batch()
    harness.orders(order(1, customer_code="C-1"), order(2, customer_code="C-1"))
    harness.plan()
    gateway = Silent()
    for _ in range(2):
        with harness.working() as worker:
            ledger = harness.ledger(worker, NEITHER)
            ledger.begin()
            harness.due_now("payments")
            ledger.record([(claim, settle_one(gateway, claim, worker.may_send)) for claim in ledger.claim(5)])
    assert gateway.sent == 1
    assert harness.value("SELECT outcome_code FROM payments") == UNDECIDABLE
    assert harness.statuses("orders") == ["unknown", "unknown"]
    return str(harness.value("SELECT payment_id FROM payments"))


def test_one_charge_does_not_pay_two_payments(harness):
    payment_id = stuck(harness)
    (other,) = harness.orders(order(3, customer_code="C-2"))
    times = dict.fromkeys(("sent_at", "settled_at"), harness.value("SELECT now()"))
    harness.payment([other], 1000, status="succeeded", service_payment_id="pay_123", **times)
    with pytest.raises(NotResolvable, match="another payment"):
        resolve_payment(harness.database, payment_id, FOUND)
    assert harness.statuses("payments").count("unknown") == 1


def test_a_charge_that_was_found_pays_the_orders_and_lets_the_customer_be_notified(harness):
    payment_id = stuck(harness)
    assert resolve_payment(harness.database, payment_id, FOUND) == harness.batch_id
    assert (harness.statuses("payments"), harness.statuses("orders")) == (["succeeded"], ["paid", "paid"])
    assert harness.value("SELECT service_payment_id FROM payments") == "pay_123"
    assert harness.statuses("notifications") == ["ready"]


def test_a_payment_that_was_not_charged_is_sent_as_if_for_the_first_time(harness):
    payment_id = stuck(harness)
    resolve_payment(harness.database, payment_id, NOTHING)
    assert (harness.statuses("payments"), harness.statuses("orders")) == (["planned"], ["pending", "pending"])
    assert harness.statuses("notifications") == ["waiting"]
    with harness.working() as worker:
        (claim,) = harness.ledger(worker, NEITHER).claim(5)
    assert not claim.in_doubt


def test_who_decided_what_and_why_is_kept(harness):
    payment_id = stuck(harness)
    resolve_payment(harness.database, payment_id, NOTHING)
    (kept,) = harness.run("SELECT payment_id, decision, decided_by, reason, decided_at FROM resolutions")
    assert (str(kept["payment_id"]), kept["decision"], kept["decided_by"]) == (payment_id, "not_paid", "operator")
    assert kept["reason"] == NOTHING.reason
    assert kept["decided_at"] is not None


@pytest.mark.parametrize("decision", [FOUND, NOTHING])
def test_only_an_unknown_payment_can_be_decided_about(harness, decision):
    payment_id = stuck(harness)
    resolve_payment(harness.database, payment_id, FOUND)
    with pytest.raises(NotResolvable, match="the payment is succeeded"):
        resolve_payment(harness.database, payment_id, decision)
    assert harness.value("SELECT count(*) FROM resolutions") == 1


@pytest.mark.parametrize("payment_id", ["", "planted", "00000000-0000-4000-8000-000000000000"])
def test_what_is_no_payment_is_refused_without_repeating_it(harness, payment_id):
    with pytest.raises(NotResolvable) as refused:
        resolve_payment(harness.database, payment_id, NOTHING)
    assert not payment_id or payment_id not in str(refused.value)


def test_a_payment_that_somebody_looks_up_now_is_left_alone(harness):
    payment_id = stuck(harness)
    harness.due_now("payments")
    with harness.working() as worker:
        (claim,) = harness.ledger(worker, NEITHER).claim(5)
        assert claim.in_doubt
        with pytest.raises(NotResolvable, match="the payment is being processed"):
            resolve_payment(harness.database, payment_id, NOTHING)
    assert resolve_payment(harness.database, payment_id, NOTHING) == harness.batch_id


# --- refunds ----------------------------------------------------------------------------------------------------------


def stuck_refund(harness: Harness) -> str:
    """Have a refund of one of two orders of a payment, whose customer was notified, that only a person can decide about."""
    harness.batch()
    harness.orders(order(1, customer_code="C-1"), order(2, customer_code="C-1"))
    harness.plan()
    with harness.working() as worker:
        payments, notices = harness.ledger(worker), harness.notices(worker)
        payments.record([(claim, Outcome("succeeded", None, "pay_1")) for claim in payments.claim(5)])
        notices.record([(claim, Outcome("succeeded", None, "n-1")) for claim in notices.claim(5)])
        plan = read_plan(harness.database, harness.batch_id, ["ORD-0001"])
        (refund_id,) = write_plan(harness.database, plan, requested_by="operator", reason="returned")
        refunds = RefundLedger(harness.database, worker)
        refunds.record([(claim, Outcome("unknown", UNDECIDABLE)) for claim in refunds.claim(5)])
    return refund_id


def test_a_refund_that_was_found_has_refunded_its_orders_and_their_customer_is_to_be_corrected(harness):
    refund_id = stuck_refund(harness)
    resolved = resolve_refund(harness.database, refund_id, Decision("ref_123", "operator", "seen at the service"))
    assert resolved == harness.batch_id
    assert harness.run("SELECT status, service_refund_id FROM refunds") == [
        {"status": "succeeded", "service_refund_id": "ref_123"}
    ]
    assert (harness.statuses("payments"), harness.statuses("orders")) == (["succeeded"], ["refunded", "paid"])
    assert harness.value("SELECT status FROM refund_orders JOIN notifications ON notification_id = correction_id") == "ready"
    kept = harness.run("SELECT CAST(refund_id AS text), payment_id, decision, decided_by, reason FROM resolutions")
    assert [tuple(row.values()) for row in kept] == [(refund_id, None, "refunded", "operator", "seen at the service")]


def test_a_refund_that_was_not_made_is_sent_as_if_for_the_first_time(harness):
    refund_id = stuck_refund(harness)
    resolve_refund(harness.database, refund_id, NOTHING)
    assert harness.statuses("orders") == ["paid", "paid"]
    with harness.working() as worker:
        (claim,) = RefundLedger(harness.database, worker).claim(5)
        assert not claim.in_doubt
        with pytest.raises(NotResolvable, match="the refund is sending"):
            resolve_refund(harness.database, refund_id, NOTHING)
    assert harness.value("SELECT decision FROM resolutions") == "not_refunded"


def test_a_payment_is_no_refund_and_a_refund_no_payment(harness):
    refund_id = stuck_refund(harness)
    with pytest.raises(NotResolvable, match="there is no such payment"):
        resolve_payment(harness.database, refund_id, NOTHING)
    with pytest.raises(NotResolvable, match="there is no such refund"):
        resolve_refund(harness.database, str(harness.value("SELECT payment_id FROM payments")), NOTHING)

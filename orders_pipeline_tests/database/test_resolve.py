"""A person's decision about an unknown payment: written down, followed by orders and notifications, where it may be."""

from __future__ import annotations

import pytest

from orders_pipeline.outcomes import Outcome
from orders_pipeline.payments.gateway import Capabilities
from orders_pipeline.payments.settle import UNDECIDABLE, settle_one
from orders_pipeline.resolve import Decision, NotResolvable, resolve
from orders_pipeline_tests.ledger_desk import Desk, order

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


def stuck(desk: Desk) -> str:
    """Have a payment that only a person can decide about, and return its id."""
    desk.batch()
    desk.orders(order(1, customer_code="C-1"), order(2, customer_code="C-1"))
    desk.plan()
    gateway = Silent()
    for _ in range(2):
        with desk.working() as worker:
            ledger = desk.ledger(worker, NEITHER)
            ledger.begin()
            desk.due_now("payments")
            ledger.record([(claim, settle_one(gateway, claim, worker.may_send)) for claim in ledger.claim(5)])
    assert gateway.sent == 1
    assert desk.value("SELECT outcome_code FROM payments") == UNDECIDABLE
    assert desk.statuses("orders") == ["unknown", "unknown"]
    return str(desk.value("SELECT payment_id FROM payments"))


def test_a_charge_that_was_found_pays_the_orders_and_lets_the_customer_be_told(desk):
    payment_id = stuck(desk)
    assert resolve(desk.database, payment_id, FOUND) == desk.batch_id
    assert (desk.statuses("payments"), desk.statuses("orders")) == (["succeeded"], ["paid", "paid"])
    assert desk.value("SELECT service_payment_id FROM payments") == "pay_123"
    assert desk.statuses("notifications") == ["ready"]


def test_a_payment_that_was_not_charged_is_sent_as_if_for_the_first_time(desk):
    payment_id = stuck(desk)
    resolve(desk.database, payment_id, NOTHING)
    assert (desk.statuses("payments"), desk.statuses("orders")) == (["planned"], ["pending", "pending"])
    assert desk.statuses("notifications") == ["waiting"]
    with desk.working() as worker:
        (claim,) = desk.ledger(worker, NEITHER).claim(5)
    assert not claim.in_doubt


def test_who_decided_what_and_why_is_kept(desk):
    payment_id = stuck(desk)
    resolve(desk.database, payment_id, NOTHING)
    (kept,) = desk.run("SELECT payment_id, decision, decided_by, reason, decided_at FROM resolutions")
    assert (str(kept["payment_id"]), kept["decision"], kept["decided_by"]) == (payment_id, "not_paid", "operator")
    assert kept["reason"] == NOTHING.reason
    assert kept["decided_at"] is not None


@pytest.mark.parametrize("decision", [FOUND, NOTHING])
def test_only_an_unknown_payment_can_be_decided_about(desk, decision):
    payment_id = stuck(desk)
    resolve(desk.database, payment_id, FOUND)
    with pytest.raises(NotResolvable, match="the payment is succeeded"):
        resolve(desk.database, payment_id, decision)
    assert desk.value("SELECT count(*) FROM resolutions") == 1


@pytest.mark.parametrize("payment_id", ["", "planted", "00000000-0000-4000-8000-000000000000"])
def test_what_is_no_payment_is_refused_without_repeating_it(desk, payment_id):
    with pytest.raises(NotResolvable) as refused:
        resolve(desk.database, payment_id, NOTHING)
    assert not payment_id or payment_id not in str(refused.value)


def test_a_payment_that_somebody_looks_up_now_is_left_alone(desk):
    payment_id = stuck(desk)
    desk.due_now("payments")
    with desk.working() as worker:
        (claim,) = desk.ledger(worker, NEITHER).claim(5)
        assert claim.in_doubt
        with pytest.raises(NotResolvable, match="at this moment"):
            resolve(desk.database, payment_id, NOTHING)
    assert resolve(desk.database, payment_id, NOTHING) == desk.batch_id

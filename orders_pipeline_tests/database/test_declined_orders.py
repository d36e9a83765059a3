"""A declined payment for several orders is tried again order by order, once, where the profile says so."""

from __future__ import annotations

from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.services.payment_gateway import Capabilities, PaymentRequest
from orders_pipeline.settlement.payments.settle import settle_one
from orders_pipeline_tests.support.ledgers import Harness, order

DECLINED = Outcome("declined", "card_declined", "pay-1")


class PickyGateway:
    """Declines every payment with one of the bad orders in it, and remembers the orders it was sent."""

    capabilities = Capabilities()

    def __init__(self, *bad: str) -> None:
        self._bad = set(bad)
        self.sent: list[list[str]] = []

    def pay(self, request: PaymentRequest) -> Outcome:
        names = [name for name, _ in request.allocations]
        self.sent.append(names)
        return DECLINED if self._bad.intersection(names) else Outcome("succeeded", None, "pay-2")

    def look_up(self, _: PaymentRequest) -> Outcome:
        return Outcome("absent")


def together(harness: Harness, count: int = 3) -> list[str]:
    """Have a batch with one payment for orders of one customer, who is to be notified; return the orders' references."""
    harness.batch()
    harness.orders(*(order(number, customer_code="C-1") for number in range(1, count + 1)))
    harness.plan()
    assert harness.statuses("payments") == ["planned"]
    return [f"{harness.batch_id}-{number}" for number in range(1, count + 1)]


def settle_all(harness: Harness, gateway: PickyGateway, *, retry: bool = True) -> None:
    with harness.working() as worker:
        ledger = harness.ledger(worker, retry_declined_orders=retry)
        while claims := ledger.claim(10):
            ledger.record([(claim, settle_one(gateway, claim, worker.may_send)) for claim in claims])


def test_only_the_bad_order_stays_declined_and_each_is_tried_alone_once(harness):
    names = together(harness)
    gateway = PickyGateway(names[1])
    settle_all(harness, gateway)
    assert harness.statuses("orders") == ["paid", "declined", "paid"]
    assert gateway.sent[0] == names
    assert sorted(gateway.sent[1:]) == [[each] for each in names]
    assert sorted(harness.statuses("payments")) == ["declined", "declined", "succeeded", "succeeded"]
    assert harness.value("SELECT sum(amount) FROM payment_orders WHERE live") == harness.value(
        "SELECT sum(amount) FROM orders WHERE status = 'paid'"
    )


def test_a_customer_is_notified_when_the_last_of_the_orders_is_final(harness):
    names = together(harness)
    with harness.working() as worker:
        ledger = harness.ledger(worker, retry_declined_orders=True)
        (claim,) = ledger.claim(10)
        ledger.record([(claim, DECLINED)])
        assert harness.statuses("orders") == ["pending"] * 3
        assert harness.statuses("notifications") == ["waiting"]
        first, *rest = ledger.claim(10)
        ledger.record([(first, DECLINED)])
        assert harness.statuses("notifications") == ["waiting"]
        ledger.record([(claim, DECLINED) for claim in rest])
    assert len(rest) == len(names) - 1
    assert harness.statuses("notifications") == ["ready"]


def test_where_the_profile_says_final_nothing_is_tried_again(harness):
    gateway = PickyGateway(*together(harness))
    settle_all(harness, gateway, retry=False)
    assert harness.statuses("orders") == ["declined"] * 3
    assert len(gateway.sent) == 1


def test_a_result_that_others_have_taken_over_plans_nothing(harness):
    together(harness)
    with harness.working() as worker:
        ledger = harness.ledger(worker, retry_declined_orders=True)
        (claim,) = ledger.claim(10)
        harness.run("UPDATE payments SET claimed_by = NULL, status = 'unknown'")
        ledger.record([(claim, DECLINED)])
    assert harness.statuses("payments") == ["unknown"]

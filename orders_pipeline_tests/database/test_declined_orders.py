"""A declined payment for several orders is tried again order by order, once, where the profile says so."""

from __future__ import annotations

from orders_pipeline.services.gateway import Capabilities, PaymentRequest
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.settlement.payments.settle import settle_one
from orders_pipeline_tests.ledger_desk import Desk, order

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


def together(desk: Desk, count: int = 3) -> list[str]:
    """Have a batch with one payment for so many orders of one customer, who is to be told; return the orders' references."""
    desk.batch()
    desk.orders(*(order(number, customer_code="C-1") for number in range(1, count + 1)))
    desk.plan()
    assert desk.statuses("payments") == ["planned"]
    return [f"{desk.batch_id}-{number}" for number in range(1, count + 1)]


def settle_all(desk: Desk, gateway: PickyGateway, *, retry: bool = True) -> None:
    with desk.working() as worker:
        ledger = desk.ledger(worker, retry_declined_orders=retry)
        while claims := ledger.claim(10):
            ledger.record([(claim, settle_one(gateway, claim, worker.may_send)) for claim in claims])


def test_only_the_bad_order_stays_declined_and_each_is_tried_alone_once(desk):
    names = together(desk)
    gateway = PickyGateway(names[1])
    settle_all(desk, gateway)
    assert desk.statuses("orders") == ["paid", "declined", "paid"]
    assert gateway.sent[0] == names
    assert sorted(gateway.sent[1:]) == [[each] for each in names]
    assert sorted(desk.statuses("payments")) == ["declined", "declined", "succeeded", "succeeded"]
    assert desk.value("SELECT sum(amount) FROM payment_orders WHERE live") == desk.value(
        "SELECT sum(amount) FROM orders WHERE status = 'paid'"
    )


def test_a_customer_is_told_when_the_last_of_the_orders_is_final(desk):
    names = together(desk)
    with desk.working() as worker:
        ledger = desk.ledger(worker, retry_declined_orders=True)
        (claim,) = ledger.claim(10)
        ledger.record([(claim, DECLINED)])
        assert desk.statuses("orders") == ["pending"] * 3
        assert desk.statuses("notifications") == ["waiting"]
        first, *rest = ledger.claim(10)
        ledger.record([(first, DECLINED)])
        assert desk.statuses("notifications") == ["waiting"]
        ledger.record([(claim, DECLINED) for claim in rest])
    assert len(rest) == len(names) - 1
    assert desk.statuses("notifications") == ["ready"]


def test_where_the_profile_says_final_nothing_is_tried_again(desk):
    gateway = PickyGateway(*together(desk))
    settle_all(desk, gateway, retry=False)
    assert desk.statuses("orders") == ["declined"] * 3
    assert len(gateway.sent) == 1


def test_a_result_that_others_have_taken_over_plans_nothing(desk):
    together(desk)
    with desk.working() as worker:
        ledger = desk.ledger(worker, retry_declined_orders=True)
        (claim,) = ledger.claim(10)
        desk.run("UPDATE payments SET claimed_by = NULL, status = 'unknown'")
        ledger.record([(claim, DECLINED)])
    assert desk.statuses("payments") == ["unknown"]

"""A payment gateway that answers as it is told, and payments that are tried with it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.services.payment_gateway import Capabilities, PaymentRequest
from orders_pipeline.settlement.payments.settle import settle_one
from orders_pipeline_tests.support.ledgers import Harness, order

PAID = Outcome("succeeded", None, "pay-1")
LOST = Outcome("unknown", "E_SERVICE_NO_ANSWER")
REFUSED = Outcome("not_sent", "E_SERVICE_UNREACHABLE")
ABSENT = Outcome("absent")
KEYED = Capabilities(honours_keys=True, can_look_up=True)
KEYS_ONLY = Capabilities(honours_keys=True, can_look_up=False)
LOOK_UP_ONLY = Capabilities(honours_keys=False, can_look_up=True)
NEITHER = Capabilities(honours_keys=False, can_look_up=False)
EVERY_MODE = pytest.mark.parametrize(
    "able", [KEYED, KEYS_ONLY, LOOK_UP_ONLY, NEITHER], ids=["keys+look-up", "keys", "look-up", "neither"]
)


class ScriptedGateway:
    """Answers from two scripts and remembers what it was asked, in order; the last answer of a script is repeated."""

    def __init__(
        self, capabilities: Capabilities, *, pay: Sequence[Outcome] = (PAID,), look_up: Sequence[Outcome] = (ABSENT,)
    ) -> None:
        self.capabilities = capabilities
        self.asked: list[str] = []
        self.requests: list[PaymentRequest] = []
        self._pay, self._look_up = list(pay), list(look_up)

    def pay(self, request: PaymentRequest) -> Outcome:
        self.asked.append("pay")
        self.requests.append(request)
        return self._pay.pop(0) if len(self._pay) > 1 else self._pay[0]

    def look_up(self, request: PaymentRequest) -> Outcome:
        self.asked.append("look up")
        return self._look_up.pop(0) if len(self._look_up) > 1 else self._look_up[0]


def planned(harness: Harness, count: int = 1, **changes: object) -> None:
    """Have a batch with one payment an order, each of a customer of its own."""
    harness.batch()
    harness.orders(*(order(n, customer_code=f"C-{n}", notify_channel="none", **changes) for n in range(1, count + 1)))
    harness.plan()


def one_try(harness: Harness, worker, gateway: ScriptedGateway) -> Outcome:
    """Let time pass, claim the payment, settle it and record what came of it."""
    harness.due_now("payments")
    ledger = harness.ledger(worker, gateway.capabilities)
    (claim,) = ledger.claim(10)
    outcome = settle_one(gateway, claim, worker.may_send)
    ledger.record([(claim, outcome)])
    return outcome


def seconds_to_next(harness: Harness) -> float:
    return float(harness.value("SELECT extract(epoch FROM next_attempt_at - clock_timestamp()) FROM payments"))

"""The order platform's own Payment service, as a provider: its words turned into outcomes.

The statuses and problem codes of its REST contract are known here and nowhere else. Sending bytes belongs in
`http_client.py`, deciding what to do after an outcome in `settle.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orders_pipeline.http_client import Answer, NoAnswer, NotDelivered, ServiceClient, safe_code
from orders_pipeline.outcomes import Outcome, OutcomeKind
from orders_pipeline.payments.gateway import Capabilities, PaymentRequest

PATH = "/v1/payments"
PROCESSING_POLL_S = 1.0
KEY_REUSED = "idempotency-key-reused"  # something was sent under our key before, and may have been charged
STATUS_MEANS: Mapping[str, OutcomeKind] = {
    "succeeded": "succeeded",
    "refunded": "succeeded",
    "failed": "declined",
    "processing": "unknown",
}
# problems that settle a payment without a charge
FINAL = frozenset({"payment-declined", "order-not-found", "customer-not-found", "validation", "amount-over-limit"})
UNAVAILABLE = "unavailable"  # the service's own word for not accepted; any other 503 may come from something on the way


class RestPayments:
    """Pays through the platform's Payment service."""

    capabilities = Capabilities(honours_keys=True, can_look_up=True)

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    def pay(self, request: PaymentRequest) -> Outcome:
        """Send the payment once and say what became of it."""
        try:
            answer = self._client.call("POST", PATH, body=_body(request), idempotency_key=request.payment_id)
        except NotDelivered as failure:
            return Outcome("not_sent", failure.code)
        except NoAnswer as failure:
            return Outcome("unknown", failure.code)
        if answer.status in (200, 201, 202):
            return _from_payment(answer.body, request, answer.retry_after_s)
        return self._from_problem(answer, request)

    def look_up(self, request: PaymentRequest) -> Outcome:
        """Ask by our key what became of the payment."""
        return self._find({"idempotency_key": request.payment_id}, request)

    def _find(self, query: Mapping[str, str], request: PaymentRequest) -> Outcome:
        try:
            answer = self._client.call("GET", PATH, query=query)
        except (NotDelivered, NoAnswer) as failure:
            return Outcome("unknown", failure.code)
        items = answer.body.get("items")
        if answer.status != 200 or not isinstance(items, list):
            refused = 400 <= answer.status < 500 and answer.status not in (409, 429)
            return Outcome("unknown", answer.problem, retry_after_s=answer.retry_after_s, stop=refused)
        ours = [item for item in items if isinstance(item, dict) and item.get("reference") == request.payment_id]
        if not items:
            return Outcome("absent")
        if not ours:
            return Outcome("unknown", "other-reference")
        return _from_payment(ours[0], request, answer.retry_after_s)

    def _from_problem(self, answer: Answer, request: PaymentRequest) -> Outcome:
        problem = answer.problem
        if answer.status == 429 or (answer.status == 503 and problem == UNAVAILABLE):
            return Outcome("not_sent", problem, retry_after_s=answer.retry_after_s)
        if not 400 <= answer.status < 500:  # 5xx, redirects and whatever else: it may have been booked
            return Outcome("unknown", problem, retry_after_s=answer.retry_after_s)
        if problem == "order-already-paid":
            found = self._find({"idempotency_key": request.payment_id}, request)
            # paid, but not by this payment: for a person to see, never to pay again
            return Outcome("unknown", problem) if found.kind == "absent" else found
        if answer.status == 409:
            return Outcome("unknown", problem, retry_after_s=answer.retry_after_s)
        if problem in FINAL:
            return Outcome("declined", answer.code or problem)
        # a defect of ours or a setting: every further payment would meet it too
        return Outcome("unknown" if problem == KEY_REUSED else "not_sent", problem, stop=True)


def _body(request: PaymentRequest) -> dict[str, Any]:
    method: dict[str, str] = {"type": request.payment_method}
    if request.payment_token is not None:
        method["token"] = request.payment_token
    return {
        "amount": request.amount,
        "currency": "JPY",
        "customer_code": request.customer_code,
        "reference": request.payment_id,
        "payment_method": method,
        "allocations": [{"order_id": str(order_id), "amount": amount} for order_id, amount in request.allocations],
        "metadata": {"batch_id": request.batch_id},
    }


def _from_payment(body: Mapping[str, Any], request: PaymentRequest, retry_after_s: float | None) -> Outcome:
    """Read a payment strictly: another reference, amount or currency is no answer to this request."""
    service_payment_id, status = body.get("id"), body.get("status")
    if (
        body.get("reference") != request.payment_id
        or type(body.get("amount")) is not int
        or body.get("amount") != request.amount
        or body.get("currency") != "JPY"
        or not isinstance(service_payment_id, str)
        or not isinstance(status, str)
        or status not in STATUS_MEANS
    ):
        return Outcome("unknown", "answer-does-not-fit")
    kind = STATUS_MEANS[status]
    if kind == "unknown":
        return Outcome(kind, status, service_payment_id, retry_after_s or PROCESSING_POLL_S)
    failure = body.get("failure")
    code = failure.get("code") if kind == "declined" and isinstance(failure, dict) else None
    return Outcome(kind, safe_code(code), service_payment_id)

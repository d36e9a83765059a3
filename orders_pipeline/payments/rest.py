"""The order platform's own Payment service, as a provider: its words turned into outcomes.

The statuses and problem codes of its REST contract are known here and nowhere else. Sending bytes belongs in
`http_client.py`, deciding what to do after an outcome in `settle.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import quote

from orders_pipeline.http_client import Answer, NoAnswer, NotDelivered, ServiceClient, safe_code
from orders_pipeline.outcomes import Outcome, OutcomeKind
from orders_pipeline.payments.gateway import (
    Capabilities,
    ListedPayment,
    ListedStatus,
    ListFailed,
    PaymentPage,
    PaymentRequest,
    RefundRequest,
)

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
REFUND_FINAL = FINAL | {"not-found"}  # the payment is not there
REFUND_MEANS: Mapping[str, OutcomeKind] = {"succeeded": "succeeded", "failed": "declined", "processing": "unknown"}
UNAVAILABLE = "unavailable"  # the service's own word for not accepted; any other 503 may come from something on the way
UNFIT = "answer-does-not-fit"
OTHER_REFERENCE = "other-reference"
LISTED_ID = re.compile(r"[\x21-\x7e]{1,128}")
MAX_CURSOR_CHARS = 1024
MAX_YEN = 2**53  # what every JSON reader keeps exactly


class RestPayments:
    """Pays through the platform's Payment service."""

    def __init__(self, client: ServiceClient, capabilities: Capabilities = Capabilities()) -> None:  # noqa: B008 - frozen
        self.capabilities = capabilities
        self._client = client

    def pay(self, request: PaymentRequest) -> Outcome:
        """Send the payment once and say what became of it."""
        try:
            answer = self._client.call("POST", PATH, body=_body(request), idempotency_key=request.payment_id)
        except NotDelivered as failure:
            return Outcome("not_sent", failure.code, service_failed=True)
        except NoAnswer as failure:
            return Outcome("unknown", failure.code, service_failed=True)
        if answer.status in (200, 201, 202):
            return self._fitting(_from_payment(answer.body, request, answer.retry_after_s))
        if answer.problem == "order-already-paid" and 400 <= answer.status < 500:
            found = self._find({"reference": request.payment_id}, request)
            # paid, but not by this payment: for a person to see, never to pay again
            return Outcome("unknown", answer.problem) if found.kind == "absent" else found
        return _from_problem(answer, FINAL)

    def look_up(self, request: PaymentRequest) -> Outcome:
        """Ask by our reference, which a service that ignores keys keeps too, what became of the payment."""
        return self._find({"reference": request.payment_id}, request)

    def refund(self, request: RefundRequest) -> Outcome:
        """Give yen of a payment back, once, and say what became of it; the service has no look-up for refunds."""
        path = f"{PATH}/{quote(request.service_payment_id, safe='')}/refunds"
        body = {"amount": request.amount, "reason": request.reason}
        try:
            answer = self._client.call("POST", path, body=body, idempotency_key=request.refund_id)
        except NotDelivered as failure:
            return Outcome("not_sent", failure.code, service_failed=True)
        except NoAnswer as failure:
            return Outcome("unknown", failure.code, service_failed=True)
        if answer.status in (200, 201, 202):
            return self._fitting(_from_refund(answer.body, request, answer.retry_after_s))
        return _from_problem(answer, REFUND_FINAL)

    def list_payments(
        self, created_from: datetime, created_to: datetime, *, limit: int, cursor: str | None = None
    ) -> PaymentPage:
        """Return a page of the payments created from a time until before another; raise ListFailed."""
        query = {"created_from": _iso(created_from), "created_to": _iso(created_to), "limit": str(limit)}
        try:
            answer = self._client.call("GET", PATH, query=query | ({"cursor": cursor} if cursor else {}))
        except (NotDelivered, NoAnswer) as failure:
            raise ListFailed(failure.code) from None
        if answer.status != 200:
            may_pass = answer.status in (409, 429) or answer.status >= 500
            raise ListFailed(answer.problem, answer.retry_after_s, may_pass=may_pass)
        items, following = answer.body.get("items"), answer.body.get("next")
        ends = following is None or (isinstance(following, str) and 0 < len(following) <= MAX_CURSOR_CHARS)
        if not isinstance(items, list) or not ends:
            raise ListFailed(UNFIT)
        return PaymentPage([_listed(item) for item in items], following)

    def _find(self, query: Mapping[str, str], request: PaymentRequest) -> Outcome:
        try:
            answer = self._client.call("GET", PATH, query=query)
        except (NotDelivered, NoAnswer) as failure:
            return Outcome("unknown", failure.code, service_failed=True)
        items = answer.body.get("items")
        if answer.status != 200 or not isinstance(items, list):
            refused = 400 <= answer.status < 500 and answer.status not in (409, 429)
            failed = answer.status not in (409, 429)
            return Outcome("unknown", answer.problem, None, answer.retry_after_s, stop=refused, service_failed=failed)
        ours = [item for item in items if isinstance(item, dict) and item.get("reference") == request.payment_id]
        if not items:
            return Outcome("absent")
        if not ours:
            return self._fitting(Outcome("unknown", OTHER_REFERENCE))
        found = [_from_payment(item, request, answer.retry_after_s) for item in ours]
        # where keys are ignored there may be several: one that failed says nothing about the others
        return self._fitting(min(found, key=lambda each: ("succeeded", "unknown", "declined").index(each.kind)))

    def _fitting(self, outcome: Outcome) -> Outcome:
        """Hang up on a service whose answer belongs to another request: so may the next ones."""
        if outcome.code in (UNFIT, OTHER_REFERENCE):
            self._client.hang_up()
        return outcome


def _from_problem(answer: Answer, final: frozenset[str]) -> Outcome:
    """Read a problem: what is neither `final` nor certainly not accepted may have been booked."""
    problem = answer.problem
    unavailable = answer.status == 503 and problem == UNAVAILABLE
    if answer.status == 429 or unavailable:
        return Outcome("not_sent", problem, retry_after_s=answer.retry_after_s, service_failed=unavailable)
    if not 400 <= answer.status < 500:  # 5xx, redirects and whatever else: it may have been booked
        return Outcome("unknown", problem, retry_after_s=answer.retry_after_s, service_failed=True)
    if answer.status == 409:
        return Outcome("unknown", problem, retry_after_s=answer.retry_after_s)
    if problem in final:
        return Outcome("declined", answer.code or problem)
    # a defect of ours or a setting: every further payment would meet it too
    kind: OutcomeKind = "unknown" if problem == KEY_REUSED else "not_sent"
    return Outcome(kind, problem, stop=True, service_failed=True)


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
        return Outcome("unknown", UNFIT, service_failed=True)
    kind = STATUS_MEANS[status]
    if kind == "unknown":
        return Outcome(kind, status, service_payment_id, retry_after_s or PROCESSING_POLL_S)
    failure = body.get("failure")
    code = failure.get("code") if kind == "declined" and isinstance(failure, dict) else None
    return Outcome(kind, safe_code(code), service_payment_id)


def _from_refund(body: Mapping[str, Any], request: RefundRequest, retry_after_s: float | None) -> Outcome:
    """Read a refund strictly: one of another payment or amount is no answer to this request."""
    service_refund_id, status = body.get("id"), body.get("status")
    if (
        body.get("payment_id") != request.service_payment_id
        or type(body.get("amount")) is not int
        or body.get("amount") != request.amount
        or not isinstance(service_refund_id, str)
        or not isinstance(status, str)
        or status not in REFUND_MEANS
    ):
        return Outcome("unknown", UNFIT, service_failed=True)
    kind = REFUND_MEANS[status]
    wait_s = (retry_after_s or PROCESSING_POLL_S) if kind == "unknown" else None
    return Outcome(kind, None if kind == "succeeded" else status, service_refund_id, wait_s)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _listed(item: object) -> ListedPayment:
    """Read one payment of a list strictly; raise ListFailed for what the contract does not allow."""
    if not isinstance(item, dict):
        raise ListFailed(UNFIT)
    service_payment_id, reference, key, status = (item.get(n) for n in ("id", "reference", "idempotency_key", "status"))
    if (
        not isinstance(service_payment_id, str)
        or not LISTED_ID.fullmatch(service_payment_id)
        or not isinstance(reference, str)
        or not isinstance(key, str | None)
        or not isinstance(status, str)
        or status not in STATUS_MEANS
        or item.get("currency") != "JPY"
    ):
        raise ListFailed(UNFIT)
    failure, metadata = item.get("failure"), item.get("metadata")
    batch_id = metadata.get("batch_id") if isinstance(metadata, dict) else None
    return ListedPayment(
        service_payment_id=service_payment_id,
        reference=reference,
        idempotency_key=key,
        amount=_yen(item.get("amount")),
        status=cast("ListedStatus", status),
        created_at=_moment(item.get("created_at")),
        failure_code=safe_code(failure.get("code")) if isinstance(failure, dict) else None,
        batch_id=safe_code(batch_id),
        allocations=_allocations(item.get("allocations")),
    )


def _yen(value: object) -> int:
    if type(value) is not int or not 0 < value <= MAX_YEN:
        raise ListFailed(UNFIT)
    return value


def _moment(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ListFailed(UNFIT)
    return moment


def _allocations(value: object) -> Mapping[str, int] | None:
    """Read an order's share of each, where the list gives them; an order stands there once."""
    if value is None:
        return None
    found: dict[str, int] = {}
    for share in value if isinstance(value, list) else [None]:
        if not isinstance(share, dict):
            raise ListFailed(UNFIT)
        order_id = share.get("order_id")
        name = safe_code(str(order_id)) if type(order_id) in (str, int) else None
        if name is None or name in found:
            raise ListFailed(UNFIT)
        found[name] = _yen(share.get("amount"))
    return found

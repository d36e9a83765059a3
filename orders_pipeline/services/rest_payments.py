"""The order platform's own Payment service, as a provider: its words turned into outcomes.

The statuses and problem codes of its REST contract are known here and nowhere else. Sending bytes belongs in
`http_client.py`, deciding what to do after an outcome in `settlement/payments/settle.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import quote

from orders_pipeline.services.answers import Answer, NoAnswer, NotDelivered, TooLong, safe_code
from orders_pipeline.services.http_client import MAX_LIST_BYTES, ServiceClient
from orders_pipeline.services.outcomes import Outcome, OutcomeKind
from orders_pipeline.services.payment_gateway import (
    Capabilities,
    ListedPayment,
    ListedStatus,
    ListFailed,
    PaymentPage,
    PaymentRequest,
    RefundRequest,
    UnreadablePayment,
)
from orders_pipeline.services.problems import KEY_REUSED, UNFIT, problem_outcome, without_answer

PATH = "/v1/payments"
PROCESSING_POLL_S = 1.0
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
        """Send the payment once and return the outcome."""
        try:
            answer = self._client.call("POST", PATH, body=_body(request), idempotency_key=request.payment_id)
        except (NotDelivered, NoAnswer) as failure:
            return without_answer(failure)
        if answer.status in (200, 201, 202):
            return self._fitting(_from_payment(answer.body, request, answer.retry_after_s))
        if answer.problem in ("order-already-paid", KEY_REUSED) and answer.is_refusal:
            # under the same key in other words: the same file, imported on another day by a database that was put back
            found = self._find({"reference": request.reference}, request)
            # paid, but not by this payment: for a person to see, never to pay again
            return Outcome("unknown", answer.problem, refused=True) if found.kind == "absent" else found
        return _from_problem(answer, FINAL)

    def look_up(self, request: PaymentRequest) -> Outcome:
        """Ask by our reference, which a service that ignores keys keeps too, what became of the payment."""
        return self._find({"reference": request.reference}, request)

    def refund(self, request: RefundRequest) -> Outcome:
        """Refund yen of a payment, once, and return the outcome; the service has no look-up for refunds."""
        path = f"{PATH}/{quote(request.service_payment_id, safe='')}/refunds"
        body = {"amount": request.amount, "reason": request.reason}
        try:
            answer = self._client.call("POST", path, body=body, idempotency_key=request.refund_id)
        except (NotDelivered, NoAnswer) as failure:
            return without_answer(failure)
        if answer.status in (200, 201, 202):
            return self._fitting(_from_refund(answer.body, request, answer.retry_after_s))
        return _from_problem(answer, REFUND_FINAL)

    def list_payments(
        self, created_from: datetime, created_to: datetime, *, limit: int, cursor: str | None = None
    ) -> PaymentPage:
        """Return a page of the payments created from a time until before another; raise ListFailed."""
        query = {"created_from": _iso(created_from), "created_to": _iso(created_to), "limit": str(limit)}
        return _page(self._listing(PATH, query | ({"cursor": cursor} if cursor else {})).body)

    def list_by_reference(self, reference: str) -> PaymentPage:
        """Return what is listed under a reference, whenever it was created; raise ListFailed."""
        return _page(self._listing(PATH, {"reference": reference}).body)

    def list_by_id(self, service_payment_id: str) -> PaymentPage:
        """Return the payment with the service's own id, or nothing; raise ListFailed."""
        answer = self._listing(f"{PATH}/{quote(service_payment_id, safe='')}", {}, absent="not-found")
        return _page({"items": [answer.body] if answer.status == 200 else []})

    def _listing(self, path: str, query: Mapping[str, str], *, absent: str | None = None) -> Answer:
        """Ask for something listed; the problem `absent` is an answer too."""
        try:
            answer = self._client.call("GET", path, query=query, most_bytes=MAX_LIST_BYTES)
        except TooLong as failure:
            raise ListFailed(failure.code, is_too_long=True) from None
        except (NotDelivered, NoAnswer) as failure:
            raise ListFailed(failure.code) from None
        if answer.status != 200 and answer.problem != absent:
            may_pass = answer.status in (409, 429) or answer.status >= 500
            raise ListFailed(answer.problem, answer.retry_after_s, may_pass=may_pass)
        return answer

    def _find(self, query: Mapping[str, str], request: PaymentRequest) -> Outcome:
        try:
            answer = self._client.call("GET", PATH, query=query, most_bytes=MAX_LIST_BYTES)
        except (NotDelivered, NoAnswer) as failure:
            return Outcome("unknown", failure.code, service_failed=True)
        items = answer.body.get("items")
        if answer.status != 200 or not isinstance(items, list):
            return replace(_from_problem(answer, frozenset()), kind="unknown")
        ours = [item for item in items if isinstance(item, dict) and item.get("reference") == request.reference]
        if not items:
            return Outcome("absent")
        if not ours:
            return self._fitting(Outcome("unknown", OTHER_REFERENCE))
        found = [_from_payment(item, request, answer.retry_after_s) for item in ours]
        # where keys are ignored there may be several: one that failed says nothing about the others
        return self._fitting(min(found, key=lambda outcome: ("succeeded", "unknown", "declined").index(outcome.kind)))

    def _fitting(self, outcome: Outcome) -> Outcome:
        """Hang up on a service whose answer belongs to another request: so may the next ones."""
        if outcome.code in (UNFIT, OTHER_REFERENCE):
            self._client.hang_up()
        return outcome


def _from_problem(answer: Answer, final: frozenset[str]) -> Outcome:
    return problem_outcome(answer, final, is_unavailable=answer.status == 503 and answer.problem == UNAVAILABLE)


def _body(request: PaymentRequest) -> dict[str, Any]:
    method: dict[str, str] = {"type": request.payment_method}
    if request.payment_token is not None:
        method["token"] = request.payment_token
    return {
        "amount": request.amount,
        "currency": "JPY",
        "customer_code": request.customer_code,
        "reference": request.reference,
        "payment_method": method,
        "allocations": [{"order_id": order, "amount": amount} for order, amount in request.allocations],
        "metadata": {"batch_id": request.batch_id},
    }


def _from_payment(body: Mapping[str, Any], request: PaymentRequest, retry_after_s: float | None) -> Outcome:
    """Read a payment strictly: another reference, amount or currency is no answer to this request."""
    service_payment_id, status = body.get("id"), body.get("status")
    if (
        body.get("reference") != request.reference
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


class _Unreadable(Exception):
    """This is not as the contract has a listed payment."""


def _page(body: Mapping[str, Any]) -> PaymentPage:
    """Read a page: payments of other callers may be as they like, the page itself may not; raise ListFailed."""
    items, following = body.get("items"), body.get("next")
    ends = following is None or (isinstance(following, str) and 0 < len(following) <= MAX_CURSOR_CHARS)
    if not isinstance(items, list) or not ends:
        raise ListFailed(UNFIT)
    readable, unreadable = [], []
    for item in items:
        if not isinstance(item, dict):
            raise ListFailed(UNFIT)
        try:
            readable.append(_listed(item))
        except _Unreadable:
            unreadable.append(_unreadable(item))
    return PaymentPage(readable, following, unreadable)


def _listed(item: Mapping[str, Any]) -> ListedPayment:
    """Read one payment of a list strictly; raise _Unreadable for what the contract does not allow."""
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
        raise _Unreadable
    failure, metadata, refunded = item.get("failure"), item.get("metadata"), item.get("refunded_amount")
    batch_id = metadata.get("batch_id") if isinstance(metadata, dict) else None
    amount = _yen(item.get("amount"))
    return ListedPayment(
        service_payment_id=service_payment_id,
        reference=reference,
        idempotency_key=key,
        amount=amount,
        status=cast("ListedStatus", status),
        created_at=_moment(item.get("created_at")),
        refunded_amount=None if refunded is None else _yen(refunded, least=0, most=amount),
        failure_code=safe_code(failure.get("code")) if isinstance(failure, dict) else None,
        batch_id=safe_code(batch_id),
        allocations=_allocations(item.get("allocations")),
    )


def _unreadable(item: Mapping[str, Any]) -> UnreadablePayment:
    """Return whose an unreadable payment may be."""
    service_payment_id, reference, key = (
        value if isinstance(value, str) else None for value in map(item.get, ("id", "reference", "idempotency_key"))
    )
    is_id = service_payment_id is not None and LISTED_ID.fullmatch(service_payment_id)
    return UnreadablePayment(service_payment_id if is_id else None, reference, key)


def _yen(value: object, *, least: int = 1, most: int = MAX_YEN) -> int:
    if type(value) is not int or not least <= value <= most:
        raise _Unreadable
    return value


def _moment(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _Unreadable
    return moment


def _allocations(value: object) -> Mapping[str, int] | None:
    """Read an order's share of each, where the list gives them; an order stands there once."""
    if value is None:
        return None
    found: dict[str, int] = {}
    for share in value if isinstance(value, list) else [None]:
        if not isinstance(share, dict):
            raise _Unreadable
        order_id = share.get("order_id")
        name = safe_code(str(order_id)) if type(order_id) in (str, int) else None
        if name is None or name in found:
            raise _Unreadable
        found[name] = _yen(share.get("amount"))
    return found

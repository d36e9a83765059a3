"""The Payment service's routes: pay, look up, list, refund.

What may be sent is in `contract.py`, what happened in `ledger.py`, keys and faults in `service.py`.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from orders_pipeline.sandbox.contract import (
    PaymentRequest,
    Problem,
    RefundRequest,
    fingerprint,
    read_json,
    read_key,
    read_payment,
    read_request,
)
from orders_pipeline.sandbox.ledger import SECOND_US, Answer, KeyedAnswer, Payment, now_us, page_parameters
from orders_pipeline.sandbox.service import Service, arrival_s, read_body

PAGE_DEFAULT = 100
PAGE_MAX = 1000
_FOR_EVER_US = 2**62


def request_key(service: Service, request: Request) -> str | None:
    """Return the Idempotency-Key, or None where keys are ignored."""
    return read_key(request.headers.get("idempotency-key")) if service.options.honour_keys else None


async def create(service: Service, request: Request) -> Response:
    """POST /v1/payments."""
    key = request_key(service, request)
    value = read_json(await read_body(request))
    wanted = read_payment(value)
    mark = fingerprint(value)

    def book() -> Answer:
        return _book(service, wanted, key, mark, request.state.request_id)

    options = service.options
    slot = key or f"{wanted.reference}/{secrets.token_hex(4)}"
    return await service.perform(
        "payment",
        slot,
        mark,
        book,
        faults=options.faults,
        latency_ms=options.latency_ms,
        arrived_s=arrival_s(request),
        tries_of=key or wanted.reference,
        is_refused=options.faults.refuses(wanted.customer_code, wanted.amount),
    )


def _book(service: Service, wanted: PaymentRequest, key: str | None, mark: bytes, request_id: str) -> Answer:
    options = service.options
    allocations = [(str(allocation.order_id), allocation.amount) for allocation in wanted.allocations]
    declined = options.faults.decline_code(wanted.customer_code, wanted.reference, [order for order, _ in allocations])
    processing = declined is None and options.faults.is_processing(wanted.reference)
    created_us = now_us()
    payment = Payment(
        id=f"pay_{secrets.token_hex(12)}",
        status="failed" if declined else "processing" if processing else "succeeded",
        amount=wanted.amount,
        reference=wanted.reference,
        idempotency_key=key,
        batch_id=wanted.metadata.batch_id,
        failure_code=declined[0] if declined else None,
        failure_retryable=declined[1] if declined else None,
        created_us=created_us,
        settles_us=created_us + int(options.faults.processing_s * SECOND_US) if processing else None,
    )
    if declined:
        problem = Problem("payment-declined", code=declined[0], retryable=declined[1])
        answer = Answer(problem.status, problem.body(request_id))
    else:
        answer = Answer(202 if processing else 201, payment.as_json(), f"/v1/payments/{payment.id}")
    keyed = KeyedAnswer("payment", key, mark, answer)
    payer = service.ledger.book_payment(payment, allocations, keyed, guard_orders=options.guard_orders)
    if payer is not None:
        raise Problem("order-already-paid", payment_id=payer)
    return answer


async def show(service: Service, request: Request) -> Response:
    """GET /v1/payments/{id}."""
    payment_id = request.path_params["payment_id"]

    def read() -> Answer:
        payment = service.ledger.payment(payment_id, visible_us(service))
        if payment is None:
            raise Problem("not-found")
        return Answer(200, payment.as_json())

    return await service.look_up(payment_id, read)


async def find(service: Service, request: Request) -> Response:
    """GET /v1/payments: by key, reference or order, or all of a time, a page at a time."""
    query = dict(request.query_params)
    name = filter_name(query, ("idempotency_key", "reference", "order_id"), default="created")
    if name == "idempotency_key" and not service.options.honour_keys:
        raise Problem("validation", errors=[{"pointer": "/idempotency_key", "code": "not_supported"}])
    limit, after = read_page(query)
    parameters = page_parameters(limit=limit + 1, after=after, visible_us=visible_us(service))
    if name == "created":
        parameters |= {"from_us": _time(query, "created_from", 0), "to_us": _time(query, "created_to", _FOR_EVER_US)}
    else:
        parameters["value"] = query[name]

    def read() -> Answer:
        pairs = service.ledger.payments(name, parameters)
        following = write_cursor(pairs[limit - 1][0]) if len(pairs) > limit else None
        return Answer(200, {"items": [payment.as_json() for _, payment in pairs[:limit]], "next": following})

    return await service.look_up(query.get(name, name), read)


async def refund(service: Service, request: Request) -> Response:
    """POST /v1/payments/{id}/refunds."""
    key = request_key(service, request)
    payment_id = request.path_params["payment_id"]
    value = read_json(await read_body(request))
    wanted = read_request(RefundRequest, value)
    mark = fingerprint(value | {"payment_id": payment_id})

    def book() -> Answer:
        if service.ledger.payment(payment_id) is None:
            raise Problem("not-found")
        refund_id = f"ref_{secrets.token_hex(12)}"
        body = {"id": refund_id, "payment_id": payment_id, "amount": wanted.amount, "status": "succeeded"}
        answer = Answer(201, body)
        if not service.ledger.refund(refund_id, payment_id, wanted.amount, KeyedAnswer("refund", key, mark, answer)):
            raise Problem("validation", errors=[{"pointer": "/amount", "code": "exceeds_remaining"}])
        return answer

    options = service.options
    slot = key or f"{payment_id}/{secrets.token_hex(4)}"
    return await service.perform(
        "refund",
        slot,
        mark,
        book,
        faults=options.faults,
        latency_ms=options.latency_ms,
        arrived_s=arrival_s(request),
        is_refused=options.faults.refuses(payment_id, wanted.amount),
    )


def visible_us(service: Service) -> int:
    """Return the time up to which look-ups see."""
    return now_us() - int(service.options.lookup_lag_s * SECOND_US)


def filter_name(query: Mapping[str, str], names: tuple[str, ...], default: str | None = None) -> str:
    """Return the one filter that is asked for; raise Problem where there are several, or none and no default."""
    asked = [name for name in names if name in query]
    if len(asked) > 1 or (not asked and default is None):
        raise Problem("validation", errors=[{"pointer": "", "code": "one_filter"}])
    return asked[0] if asked else str(default)


def read_page(query: Mapping[str, str]) -> tuple[int, int]:
    """Return the page size and the sequence number it starts behind."""
    limit = query.get("limit", str(PAGE_DEFAULT))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 6 and 1 <= int(limit) <= PAGE_MAX):
        raise Problem("validation", errors=[{"pointer": "/limit", "code": "out_of_range"}])
    return int(limit), _read_cursor(query["cursor"]) if query.get("cursor") else 0


def write_cursor(sequence: int) -> str:
    """Return an opaque cursor that continues behind a sequence number."""
    return base64.urlsafe_b64encode(f"after:{sequence}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        word, _, number = text.partition(":")
        if word == "after" and number.isdigit() and len(number) < 19:
            return int(number)
    except (binascii.Error, ValueError):
        pass
    raise Problem("validation", errors=[{"pointer": "/cursor", "code": "invalid"}])


def _time(query: Mapping[str, str], name: str, default: int) -> int:
    if not query.get(name):
        return default
    try:
        moment = datetime.fromisoformat(query[name].replace(" ", "+"))  # a plus sign sent without %2B
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int(aware.timestamp() * SECOND_US)
    except (ValueError, OverflowError):
        raise Problem("validation", errors=[{"pointer": f"/{name}", "code": "invalid"}]) from None

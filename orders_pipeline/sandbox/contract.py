"""What callers may send and which problems they get back, as the contract of the order platform lays down.

Requests are read strictly (no strings for numbers); problems are built from this table alone, never from input. What a
valid request does belongs in `payments.py` and `notifications.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

AMOUNT_LIMIT_JPY = 1_000_000
BULK_LIMIT = 100
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_ADDRESS = {"email": re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+"), "sms": re.compile(r"\+?[0-9]{10,15}")}

PROBLEMS: Mapping[str, tuple[int, str, bool]] = {  # type -> status, title, retryable
    "malformed": (400, "The request cannot be read.", False),
    "idempotency-key-missing": (400, "The Idempotency-Key header is missing.", False),
    "unauthorized": (401, "A valid bearer token is needed.", False),
    "payment-declined": (402, "The payment was declined.", False),
    "forbidden": (403, "This caller may not do this.", False),
    "not-found": (404, "There is no such thing here.", False),
    "order-not-found": (404, "The order does not exist.", False),
    "customer-not-found": (404, "The customer does not exist.", False),
    "template-not-found": (404, "The template does not exist.", False),
    "method-not-allowed": (405, "This method is not offered here.", False),
    "request-in-progress": (409, "A request with this key is still running.", True),
    "order-already-paid": (409, "The order is paid already.", False),
    "too-large": (413, "The request is too large.", False),
    "validation": (422, "The request is not valid.", False),
    "amount-over-limit": (422, "The amount is over the limit for one transaction.", False),
    "idempotency-key-reused": (422, "This key was used with another request.", False),
    "invalid-recipient": (422, "The recipient cannot be reached through this channel.", False),
    "rate-limited": (429, "Too many requests.", True),
    "internal": (500, "Something went wrong.", True),
    "bad-gateway": (502, "The service behind this one failed.", True),
    "unavailable": (503, "The service is not available now.", True),
    "gateway-timeout": (504, "The service behind this one did not answer in time.", True),
}


class Problem(Exception):
    """A request is answered with the problem `slug`; `extra` holds further safe members, `retry_after` the header."""

    def __init__(self, slug: str, *, retry_after: str | None = None, **extra: object) -> None:
        super().__init__(slug)
        self.slug = slug
        self.status = PROBLEMS[slug][0]
        self.retry_after = retry_after
        self.extra = extra

    def body(self, request_id: str) -> dict[str, object]:
        """Return the problem+json object."""
        status, title, retryable = PROBLEMS[self.slug]
        base: dict[str, object] = {"type": f"/problems/{self.slug}", "title": title, "status": status}
        return base | {"code": self.slug, "request_id": request_id, "retryable": retryable} | self.extra


class UnlistedRefusal(Problem):
    """A refusal that the contract does not name: `status:word`, or a status alone, which comes without a body."""

    def __init__(self, refusal: str) -> None:
        Exception.__init__(self, refusal)
        status, _, self.slug = refusal.partition(":")
        self.status = int(status)
        self.retry_after = None

    def body(self, request_id: str) -> dict[str, object]:
        """Return the problem+json object."""
        known = {"type": f"/problems/{self.slug}", "title": "The request is refused.", "status": self.status}
        return known | {"code": self.slug, "request_id": request_id, "retryable": False}


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, hide_input_in_errors=True)


Code = Annotated[str, Field(min_length=1, max_length=128)]
OrderId = Code | Annotated[int, Field(ge=0, lt=2**63)]


class Allocation(_Strict):
    """An order's share of a payment, in yen."""

    order_id: OrderId
    amount: Annotated[int, Field(ge=1)]


class PaymentMethod(_Strict):
    """How the customer pays."""

    type: Literal["invoice", "card_on_file", "bank_transfer"]
    token: Annotated[str, Field(min_length=8, max_length=128)] | None = None

    @model_validator(mode="after")
    def _card_has_token(self) -> PaymentMethod:
        if self.type == "card_on_file" and self.token is None:
            raise PydanticCustomError("token_missing", "a card on file has a token")
        return self


class Metadata(_Strict):
    """The caller's own marks."""

    batch_id: Code | None = None


class PaymentRequest(_Strict):
    """One transaction for one or more orders, in yen."""

    amount: Annotated[int, Field(ge=1)]
    currency: Literal["JPY"]
    customer_code: Code
    reference: Annotated[str, Field(min_length=1, max_length=255)]
    payment_method: PaymentMethod
    allocations: Annotated[tuple[Allocation, ...], Field(min_length=1, strict=False)]
    metadata: Metadata = Metadata()

    @model_validator(mode="after")
    def _allocations_fit(self) -> PaymentRequest:
        if sum(allocation.amount for allocation in self.allocations) != self.amount:
            raise PydanticCustomError("allocation_sum", "the allocations add up to the amount")
        if len({str(allocation.order_id) for allocation in self.allocations}) != len(self.allocations):
            raise PydanticCustomError("order_repeated", "an order has one allocation")
        return self


class RefundRequest(_Strict):
    """Yen to refund of a payment."""

    amount: Annotated[int, Field(ge=1, le=AMOUNT_LIMIT_JPY)]
    reason: Annotated[str, Field(max_length=500)]


class Recipient(_Strict):
    """Whom a notification is for."""

    customer_code: Code
    address: Annotated[str, Field(max_length=320)]


class NotificationRequest(_Strict):
    """One message to one customer."""

    template_id: Code
    channel: Literal["email", "sms"]
    recipient: Recipient
    locale: Annotated[str, Field(max_length=35)] = "ja-JP"
    variables: dict[str, Any] = Field(default_factory=dict)
    order_ids: Annotated[tuple[OrderId, ...], Field(strict=False)] = ()
    dedupe_key: Annotated[str, Field(min_length=1, max_length=255)]
    metadata: Metadata = Metadata()


class BulkRequest(_Strict):
    """Up to 100 notifications, each read on its own."""

    items: Annotated[list[Any], Field(min_length=1, max_length=BULK_LIMIT)]


Request = TypeVar("Request", bound=BaseModel)


def read_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`; raise Problem `malformed` for anything else."""
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Problem("malformed") from None
    if not isinstance(value, dict):
        raise Problem("malformed")
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


def read_request(kind: type[Request], value: object) -> Request:
    """Return `value` as a request of `kind`; raise Problem `validation` with pointers and codes, without values."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False)[:100]
        errors = [{"pointer": _pointer(detail["loc"]), "code": detail["type"]} for detail in details]
        raise Problem("validation", errors=errors) from None


def _pointer(location: tuple[int | str, ...]) -> str:
    # only names of our own models: pydantic adds words of its own for a union
    return "".join(f"/{part}" for part in location if isinstance(part, int) or (part.islower() and part.isidentifier()))


def read_payment(value: Mapping[str, Any]) -> PaymentRequest:
    """Return a payment request; the amount limit has its own problem."""
    amount = value.get("amount")
    if type(amount) is int and amount > AMOUNT_LIMIT_JPY:
        raise Problem("amount-over-limit", limit=AMOUNT_LIMIT_JPY, errors=[{"pointer": "/amount", "code": "over_limit"}])
    return read_request(PaymentRequest, value)


def read_notification(value: object, templates: tuple[str, ...]) -> NotificationRequest:
    """Return a notification request whose template is known and whose address fits its channel."""
    request = read_request(NotificationRequest, value)
    if templates and request.template_id not in templates:
        raise Problem("template-not-found")
    if not _ADDRESS[request.channel].fullmatch(request.recipient.address):
        raise Problem("invalid-recipient")
    return request


def read_key(header: str | None) -> str:
    """Return the Idempotency-Key, which is needed; raise Problem if there is none or it is not usable."""
    if not header:
        raise Problem("idempotency-key-missing")
    if not _KEY.fullmatch(header):
        raise Problem("malformed")
    return header


def fingerprint(value: Mapping[str, Any]) -> bytes:
    """Return 32 bytes that distinguish two request bodies, whatever the order of their members."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()

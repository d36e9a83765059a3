"""Which calls go wrong, and how: seeded, so the same calls go wrong again.

A fault is drawn from (seed, idempotency key, attempt), a decline from (seed, customer, order or reference), a refusal from
(seed, customer): never from a running generator, so threads change nothing. How a fault is acted out belongs in `service.py`
and `replies.py`.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Rate = Annotated[float, Field(ge=0, le=1)]

BEFORE = (  # nothing is booked
    "error_before",
    "timeout_before",
    "reset_before",
    "rate_limited",
    "unavailable",
    "forbidden",
    "not_found",
    "redirect",
)
AFTER = (  # booked, and the caller is not answered properly
    "error_after",
    "timeout_after",
    "reset_after",
    "malformed",
    "truncated",
    "empty",
    "html",
    "wrong_body",
    "wrong_types",
    "huge",
    "dribble",
)
LATE = "booked_late"  # 504 now, booked `late_s` later
KINDS = (*BEFORE, *AFTER, LATE)
DECLINE_CODES = (("card_declined", False), ("insufficient_funds", True), ("expired_card", False))


def share(*parts: object) -> float:
    """Return a number in [0, 1) that depends on `parts` alone, evenly spread."""
    text = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64


class Faults(BaseModel):
    """The share of calls that meet each fault (they exclude each other), and who is declined."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    seed: int = 0
    decline: Rate = 0.0  # of customers, always
    decline_order: Rate = 0.0  # of orders, which take down every payment they are in
    decline_payment: Rate = 0.0  # of payments, by reference
    refuse: Rate = 0.0  # of customers: all requests for them are refused, and so are the refunds of so many payments
    refuse_customer: Annotated[str, Field(max_length=128)] = ""  # this one too
    refuse_amount: Annotated[int, Field(ge=0)] = 0  # and each payment or refund of just so many yen; 0: none
    refuse_as: Annotated[str, Field(pattern=r"^4\d\d(:[a-z-]{1,64})?$")] = "400:malformed"  # without a word: no body either
    refuse_whole: bool = False  # one refused notification has all in its call refused
    processing: Rate = 0.0  # of payments answered 202, by reference; succeeded `processing_s` later

    error_before: Rate = 0.0
    timeout_before: Rate = 0.0
    reset_before: Rate = 0.0
    rate_limited: Rate = 0.0
    unavailable: Rate = 0.0
    forbidden: Rate = 0.0
    not_found: Rate = 0.0
    redirect: Rate = 0.0
    error_after: Rate = 0.0
    timeout_after: Rate = 0.0
    reset_after: Rate = 0.0
    malformed: Rate = 0.0
    truncated: Rate = 0.0
    empty: Rate = 0.0
    html: Rate = 0.0
    wrong_body: Rate = 0.0
    wrong_types: Rate = 0.0
    huge: Rate = 0.0
    dribble: Rate = 0.0
    booked_late: Rate = 0.0

    max_per_key: Annotated[int, Field(ge=0)] = 0  # later attempts of a key go well; 0: no such limit
    hang_s: Annotated[float, Field(ge=0)] = 40.0  # how long a time-out hangs, and a dribble at most lasts
    late_s: Annotated[float, Field(ge=0)] = 1.0
    processing_s: Annotated[float, Field(ge=0)] = 1.0
    retry_after: Annotated[str, Field(max_length=64, pattern=r"^[\x20-\x7e]*$")] = "1"  # sent as it is; empty: no header

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return parse(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _exclude_each_other(self) -> Self:
        if sum(getattr(self, kind) for kind in KINDS) > 1 + 1e-9:
            raise ValueError("the rates of the faults add up to more than 1")
        return self

    def fault_of(self, key: str, attempt: int) -> str | None:
        """Return the fault of an attempt (from 1) of `key`, one of KINDS, or None."""
        if self.max_per_key and attempt > self.max_per_key:
            return None
        draw = share(self.seed, "fault", key, attempt)
        for kind in KINDS:
            draw -= getattr(self, kind)
            if draw < 0:
                return kind
        return None

    def decline_code(self, customer: str, reference: str, orders: list[str]) -> tuple[str, bool] | None:
        """Return why such a payment is declined and whether a later try may do better, or None."""
        is_declined = (
            self._falls(self.decline, "customer", customer)
            or self._falls(self.decline_payment, "payment", reference)
            or any(self._falls(self.decline_order, "order", order) for order in orders)
        )
        return DECLINE_CODES[int(share(self.seed, "code", customer) * len(DECLINE_CODES))] if is_declined else None

    def refuses(self, customer: str, amount: int = 0) -> bool:
        """Return whether a request for a customer is refused; `amount` is what it asks for, in yen."""
        return (
            self._falls(self.refuse, "refuse", customer)
            or customer == self.refuse_customer
            or (amount > 0 and amount == self.refuse_amount)
        )

    def is_processing(self, reference: str) -> bool:
        """Return whether this payment's result comes later."""
        return self._falls(self.processing, "processing", reference)

    def _falls(self, rate: float, *parts: str) -> bool:
        return rate > 0 and share(self.seed, *parts) < rate


def parse(text: str) -> dict[str, str]:
    """Read `name=value,name=value`; raise ValueError where a part is no such pair."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(separator for _, separator, _ in pairs):
        raise ValueError("faults are written name=value,name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}

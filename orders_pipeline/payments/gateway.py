"""The seam to a payment provider: what a payment asks for and what a provider is able to do.

A provider's module (`rest.py` is today's) keeps its own words to itself and answers in outcomes. A new provider is
one module and one line in `payments/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orders_pipeline.outcomes import Outcome


@dataclass(frozen=True)
class PaymentRequest:
    """One payment as it is sent; the same `payment_id` is always the same payment."""

    payment_id: str  # idempotency key and reference
    batch_id: str
    customer_code: str
    payment_method: str
    amount: int  # yen
    allocations: Sequence[tuple[int, int]]  # (order_id, yen), adding up to `amount`
    payment_token: str | None = None

    def __repr__(self) -> str:
        """Show no token."""
        return f"PaymentRequest({self.payment_id}, {self.amount})"


@dataclass(frozen=True)
class Capabilities:
    """What a provider offers for a safe second try."""

    honours_keys: bool = True  # the same idempotency key never charges twice
    can_look_up: bool = True  # a payment can be asked for by our reference


class PaymentGateway(Protocol):
    """A provider of payments. Neither method raises: whatever happens is an outcome."""

    capabilities: Capabilities

    def pay(self, request: PaymentRequest) -> Outcome:
        """Send the payment once and say what became of it."""

    def look_up(self, request: PaymentRequest) -> Outcome:
        """Ask what became of the payment: succeeded, declined, absent or unknown."""

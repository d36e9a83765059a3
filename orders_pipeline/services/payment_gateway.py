"""The seam to a payment provider: what a payment asks for and what a provider is able to do.

A provider's module (`rest_payments.py` is today's) keeps its own words to itself and answers in outcomes. A new provider is
one module and one line in `payment_providers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from orders_pipeline.services.outcomes import Outcome

ListedStatus = Literal["succeeded", "processing", "refunded", "failed"]


@dataclass(frozen=True)
class PaymentRequest:
    """One payment as it is sent; the same `payment_id` is always the same payment."""

    payment_id: str  # idempotency key
    reference: str  # the payment's name at the provider, among those of all its other callers
    batch_id: str
    customer_code: str
    payment_method: str
    amount: int  # yen
    allocations: Sequence[tuple[str, int]]  # (order's reference, yen), adding up to `amount`
    payment_token: str | None = None

    def __repr__(self) -> str:
        """Show no token."""
        return f"PaymentRequest({self.payment_id}, {self.amount})"


@dataclass(frozen=True)
class RefundRequest:
    """Yen of a payment to refund; the same `refund_id` is always the same refund."""

    refund_id: str  # idempotency key
    service_payment_id: str
    amount: int  # yen
    reason: str

    def __repr__(self) -> str:
        """Show no text that others have chosen."""
        return f"RefundRequest({self.refund_id}, {self.amount})"


@dataclass(frozen=True)
class ListedPayment:
    """A payment as the provider's own list has it; what a provider's list leaves out is None."""

    service_payment_id: str
    reference: str
    idempotency_key: str | None
    amount: int  # yen
    status: ListedStatus
    created_at: datetime
    refunded_amount: int | None = None  # yen refunded of it
    failure_code: str | None = None
    batch_id: str | None = None
    allocations: Mapping[str, int] | None = None  # yen by the order's reference

    @property
    def yen_refunded(self) -> int:
        """Return the yen refunded of it, as far as the list says."""
        if self.refunded_amount is not None:
            return self.refunded_amount
        return self.amount if self.status == "refunded" else 0

    def __repr__(self) -> str:
        """Show no text that others have chosen."""
        return f"ListedPayment({self.service_payment_id}, {self.amount}, {self.status})"


@dataclass(frozen=True)
class UnreadablePayment:
    """A listed payment with something that no payment of ours can have: another currency, an unknown status."""

    service_payment_id: str | None
    reference: str | None
    idempotency_key: str | None

    def __repr__(self) -> str:
        """Show no text that others have chosen."""
        return f"UnreadablePayment({self.service_payment_id})"


@dataclass(frozen=True)
class PaymentPage:
    """Some listed payments, newest last, and the cursor that continues behind them; None at the end."""

    items: Sequence[ListedPayment]
    following: str | None
    unreadable: Sequence[UnreadablePayment] = ()


class ListFailed(Exception):
    """The provider's list could not be read; the same page may come at another try."""

    code = "E_PAYMENT_LIST"

    def __init__(
        self, reason: str, retry_after_s: float | None = None, *, may_pass: bool = True, is_too_long: bool = False
    ) -> None:
        super().__init__(f"{self.code}: the Payment service's list could not be read ({reason})")
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.may_pass = may_pass
        self.is_too_long = is_too_long  # fewer payments in one page may come


@dataclass(frozen=True)
class Capabilities:
    """What a provider offers for a safe second try, and for comparing its ledger with ours."""

    honours_keys: bool = True  # the same idempotency key never charges, or refunds, twice
    can_look_up: bool = True  # a payment can be asked for by our reference
    can_list: bool = True  # all payments of a time can be listed


class PaymentGateway(Protocol):
    """A provider of payments. To pay, look up and refund never raises: whatever happens is an outcome."""

    capabilities: Capabilities

    def pay(self, request: PaymentRequest) -> Outcome:
        """Send the payment once and return the outcome."""

    def look_up(self, request: PaymentRequest) -> Outcome:
        """Ask what became of the payment: succeeded, declined, absent or unknown."""

    def refund(self, request: RefundRequest) -> Outcome:
        """Refund yen of a payment, once, and return the outcome; only the same key finds out about it later."""

    def list_payments(
        self, created_from: datetime, created_to: datetime, *, limit: int, cursor: str | None = None
    ) -> PaymentPage:
        """Return a page of the payments created from a time until before another; raise ListFailed."""

    def list_by_reference(self, reference: str) -> PaymentPage:
        """Return what is listed under a reference, whenever it was created; raise ListFailed."""

    def list_by_id(self, service_payment_id: str) -> PaymentPage:
        """Return the payment with the provider's own id, or nothing; raise ListFailed."""

"""The ledger of refunds, each sent under one key for ever.

There is no look-up for refunds: what is in doubt is sent again with the same key, or waits for a person where the provider
honours it no more. What was refunded of a payment in all can be looked up. What is common to all ledgers belongs in
`settlement/ledger.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.services.outcomes import Outcome, called_off
from orders_pipeline.services.payment_gateway import ListFailed, PaymentGateway, RefundRequest
from orders_pipeline.settlement.ledger import UNDECIDABLE, Claim, Ledger
from orders_pipeline.settlement.payments.ledger import KEYS_KEPT_S, LOOK_UP_WAIT_S, PAYMENT_BREAKER
from orders_pipeline.settlement.refusals import Refusals, Tried

ALREADY_MADE = "made-already"  # as it seems, before our ledger was restored from a backup: a person decides
NOT_LOOKED_UP = "not-looked-up"  # what the service has refunded could not be found out: nothing was sent


@dataclass(frozen=True)
class RefundClaim(Claim[RefundRequest]):
    """A refund that is this worker's to carry out."""

    may_be_made: bool = False  # the service has refunded yen of the payment that our ledger does not know
    may_be_forgotten: bool = False  # the database may have been put back since the payment
    is_decided: bool = False  # a person has found out that it was not made


class RefundLedger(Ledger[RefundClaim]):
    """A batch's refunds in the database, as one worker sees them; what somebody else began is resumed too."""

    name = "refunds"
    breaker = PAYMENT_BREAKER
    refusals = Refusals("refund", a_person_decides=True)
    codes_for_a_person = Ledger.codes_for_a_person | {ALREADY_MADE}
    doubt_s = LOOK_UP_WAIT_S
    ends_with_batch = False

    def beside(self, claim: RefundClaim) -> int:
        """Return the yen that our ledger has refunded, or may have, of a claim's payment, but for the claim's own."""
        with self._database.begin() as transaction:
            return int(transaction.scalar("refunded_beside", refund_id=claim.request.refund_id))

    def _may_go_on(self, transaction: Transaction) -> bool:
        """Return false where our ledger may not be whole."""
        standing = transaction.rows("standing", batch_id=self._worker.batch_id)[0]
        return not (standing.is_stopped or standing.is_other)

    def _read(self, transaction: Transaction, item_ids: Sequence[str]) -> list[RefundClaim]:
        return [
            RefundClaim(
                RefundRequest(str(row.refund_id), row.service_payment_id, row.amount, row.reason),
                row.attempts,
                row.status == "unknown",
                row.outcome_code,
                row.is_old,
                may_be_made=row.may_be_made,
                may_be_forgotten=row.may_be_forgotten,
                is_decided=row.is_decided,
            )
            for row in transaction.rows("claimed_refunds", refund_ids=list(item_ids), keys_kept_s=KEYS_KEPT_S)
        ]

    def _tried(self, claim: RefundClaim) -> Tried:
        request = claim.request
        # each for itself: whoever is refused a refund was charged
        return Tried(request.refund_id, self.refusals.service, request.refund_id, claim.in_doubt, claim.last_code)

    def _before_record(self, transaction: Transaction, item_ids: Sequence[str]) -> None:
        transaction.rows("lock_payments_of_refunds", refund_ids=list(item_ids))

    def _recorded(self, transaction: Transaction, item_ids: Sequence[str], declined_ids: Sequence[str]) -> None:
        if declined_ids:
            transaction.execute("retire_declined_refunds", refund_ids=declined_ids)
        follow_refunds(transaction, item_ids)


def follow_refunds(transaction: Transaction, refund_ids: Sequence[str]) -> None:
    """Let orders and payments follow those of the refunds that succeeded; plan corrections for customers notified before.

    A request of which these are the last open refunds is finished.
    """
    transaction.rows("lock_notifications_of_refunds", refund_ids=refund_ids)
    transaction.execute("note_who_was_notified", refund_ids=refund_ids)
    transaction.execute("orders_follow_refunds", refund_ids=refund_ids)
    transaction.execute("payments_follow_refunds", refund_ids=refund_ids)
    transaction.execute("plan_corrections", refund_ids=refund_ids)
    # locked last, by who holds all else that is needed
    requests = transaction.rows("lock_requests_of_refunds", refund_ids=refund_ids)
    transaction.execute("finish_refund_requests", request_ids=[str(row.request_id) for row in requests])


def refund_one(gateway: PaymentGateway, claim: RefundClaim, may_send: Callable[[], bool]) -> Outcome:
    """Bring one claimed refund to an outcome; what may have been sent is sent again only where its key is honoured.

    Nothing is sent once `may_send` says no: others may have taken the claim over.
    """
    if claim.may_be_made and not claim.in_doubt:
        return Outcome("unknown", ALREADY_MADE)
    if claim.in_doubt and (claim.is_old or not gateway.capabilities.honours_keys):
        return Outcome("unknown", UNDECIDABLE)
    sent = gateway.refund(claim.request) if may_send() else called_off(in_doubt=False)
    if sent.kind == "not_sent" and not sent.refused and claim.in_doubt:
        # certain of this try only: what became of the one before is still not known
        return replace(sent, kind="unknown")
    return sent


def look_up_and_refund(
    gateway: PaymentGateway, claim: RefundClaim, may_send: Callable[[], bool], beside: Callable[[RefundClaim], int]
) -> Outcome:
    """Bring one claimed refund to an outcome; where it may be forgotten, ask first what was refunded of its payment.

    If that is more than our ledger has (`beside`), a database that was put back may have forgotten this very refund, and the
    service its key. Where it cannot be asked, a person finds out.
    """
    is_certain = claim.in_doubt or claim.may_be_made or claim.is_decided  # what is to be done, whatever the service says
    if claim.may_be_forgotten and not is_certain:
        held = _made_already(gateway, claim, beside)
        if held is not None:
            return held
    return refund_one(gateway, claim, may_send)


def _made_already(gateway: PaymentGateway, claim: RefundClaim, beside: Callable[[RefundClaim], int]) -> Outcome | None:
    """Look up what was refunded of a claim's payment; return why nothing may be sent, or None."""
    if not gateway.capabilities.can_look_up:
        return Outcome("unknown", UNDECIDABLE)
    try:
        page = gateway.list_by_id(claim.request.service_payment_id)
    except ListFailed as failure:
        if not failure.may_pass:  # no other try finds out
            return Outcome("unknown", UNDECIDABLE)
        return Outcome("not_sent", NOT_LOOKED_UP, retry_after_s=failure.retry_after_s, service_failed=True)
    if page.unreadable:
        return Outcome("unknown", UNDECIDABLE)
    # our side is read last: whatever the service has of it was written down before it was sent
    is_more = any(payment.yen_refunded > beside(claim) for payment in page.items if payment.yen_refunded)
    return Outcome("unknown", ALREADY_MADE) if is_more else None

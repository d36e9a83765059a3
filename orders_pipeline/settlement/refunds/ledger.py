"""The ledger of refunds: claimed, sent and recorded like payments, each under one key for ever.

The intent is committed before a request leaves and the result after it came. There is no look-up for refunds: what is in
doubt is sent again with the same key, or waits for a person where the provider honours it no more. What was given back of a
payment in all can be looked up. Loop: `settlement/drain.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from orders_pipeline.batches.workers import Worker, end_lost_workers
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.services.outcomes import CALLED_OFF, FOR_EVER_S, Outcome, OutcomeKind, called_off
from orders_pipeline.services.payment_gateway import ListFailed, PaymentGateway, RefundRequest
from orders_pipeline.settlement.payments import settle
from orders_pipeline.settlement.refusals import Refusals, Tried

ALREADY_MADE = "made-already"  # as it seems, before our ledger was restored from a backup: a person decides
NOT_LOOKED_UP = "not-looked-up"  # what the service has given back could not be found out: nothing was sent
REFUSALS = Refusals("refund", a_person_decides=True)
REFUND_STATUS: Mapping[OutcomeKind, str] = {
    "succeeded": "succeeded",
    "declined": "declined",
    "not_sent": "planned",
    "unknown": "unknown",
}


@dataclass(frozen=True)
class RefundClaim:
    """A refund that is this worker's to carry out."""

    request: RefundRequest
    attempts: int
    in_doubt: bool  # it may have been sent before
    is_old: bool = False  # its key may be forgotten
    may_be_made: bool = False  # the service has given back yen of the payment that our ledger does not know
    may_be_forgotten: bool = False  # the database may have been put back since the payment
    is_decided: bool = False  # a person has found out that it was not made
    last_code: str | None = None


class RefundLedger:
    """A batch's refunds in the database, as one worker sees them; what somebody else began is gone on with too."""

    def __init__(self, database: Database, worker: Worker) -> None:
        self._database = database
        self._worker = worker

    def begin(self) -> None:
        """Take over what lost workers had claimed and give every open refund its attempts back."""
        settle.BREAKER.prepare(self._database)
        with self._database.begin() as transaction:
            self._take_over(transaction, only_by_lease=False)
            transaction.execute("renew_refund_attempts", batch_id=self._worker.batch_id)
            REFUSALS.end_hold(transaction, self._worker.batch_id)

    def claim(self, limit: int) -> list[RefundClaim]:
        """Take up to `limit` due refunds; their intent is committed when this returns. Raise LeaseLost."""
        self._worker.require()
        with self._database.begin() as transaction:
            if self._is_held(transaction):
                return []
            transaction.by_index()
            is_held = REFUSALS.hold(transaction, self._worker.batch_id)
            allowed = settle.BREAKER.allowance(transaction, 0 if is_held else limit)
            rows = transaction.rows(
                "claim_refunds",
                batch_id=self._worker.batch_id,
                worker_id=self._worker.worker_id,
                max_attempts=settle.MAX_ATTEMPTS,
                limit=allowed.calls,
                retries=allowed.retries,
                keys_kept_s=settle.KEYS_KEPT_S,
            )
            settle.BREAKER.claimed(transaction, allowed, len(rows))
        return [
            RefundClaim(
                RefundRequest(str(row.refund_id), row.service_payment_id, row.amount, row.reason),
                row.attempts,
                row.status == "unknown",
                row.is_old,
                row.may_be_made,
                row.may_be_forgotten,
                row.is_decided,
                row.outcome_code,
            )
            for row in rows
        ]

    def record(self, results: Sequence[tuple[RefundClaim, Outcome]]) -> bool:
        """Commit what came of claims and return whether the service may be called on.

        A result for a claim that others have taken over since is dropped.
        """
        batch_id = self._worker.batch_id
        with self._database.begin() as transaction:
            transaction.by_index()
            tried = [(_tried(claim), outcome) for claim, outcome in results]
            judged = REFUSALS.judged(transaction, batch_id, tried, doubt_s=settle.LOOK_UP_WAIT_S)
            results = [(claim, outcome) for (claim, _), outcome in zip(results, judged, strict=True)]
            transaction.rows("lock_payments_of_refunds", refund_ids=[claim.request.refund_id for claim, _ in results])
            written = transaction.rows(
                "record_refunds",
                worker_id=self._worker.worker_id,
                refund_ids=[claim.request.refund_id for claim, _ in results],
                statuses=[REFUND_STATUS[outcome.kind] for _, outcome in results],
                service_refund_ids=[outcome.service_id for _, outcome in results],
                codes=[outcome.code for _, outcome in results],
                delays_s=[_delay_s(claim, outcome) for claim, outcome in results],
                called_off=CALLED_OFF,
            )
            refund_ids = [str(row.refund_id) for row in written]
            follow_refunds(transaction, refund_ids)
            if any(outcome.kind == "declined" for _, outcome in results):
                transaction.execute("retire_declined_refunds", refund_ids=refund_ids)
            left_alone = settle.BREAKER.observe(transaction, judged)
            return not (left_alone or REFUSALS.hold(transaction, batch_id))

    def beside(self, claim: RefundClaim) -> int:
        """Return the yen that our ledger has given back, or may have, of a claim's payment, but for the claim's own."""
        with self._database.begin() as transaction:
            return int(transaction.scalar("refunded_beside", refund_id=claim.request.refund_id))

    def wait_s(self) -> float | None:
        """Return the seconds until a refund is due, or may be if others hold it; None when none is left to try."""
        with self._database.begin() as transaction:
            if self._is_held(transaction):
                return None
            transaction.by_index()
            self._take_over(transaction, only_by_lease=True)
            if REFUSALS.hold(transaction, self._worker.batch_id):
                return None
            due_s = transaction.scalar(
                "seconds_to_next_refund", batch_id=self._worker.batch_id, max_attempts=settle.MAX_ATTEMPTS
            )
            return settle.BREAKER.wait_s(transaction, None if due_s is None else max(float(due_s), 0.0))

    def _is_held(self, transaction: Transaction) -> bool:
        """Tell whether nothing may be refunded, as our ledger may not be whole."""
        standing = transaction.rows("standing", batch_id=self._worker.batch_id)[0]
        return bool(standing.is_stopped or standing.is_other)

    def _take_over(self, transaction: Transaction, *, only_by_lease: bool) -> None:
        """Release what lost workers hold, and we ourselves: nothing of ours is under way when this is called."""
        batch_id, caller_id = self._worker.batch_id, self._worker.worker_id
        end_lost_workers(transaction, batch_id, self._worker, only_by_lease=only_by_lease)
        transaction.execute("release_refunds_of_lost_workers", batch_id=batch_id, caller_id=caller_id)


def follow_refunds(transaction: Transaction, refund_ids: Sequence[str]) -> None:
    """Let orders and payments follow those of the refunds that succeeded, and plan corrections for who was told before."""
    transaction.rows("lock_notifications_of_refunds", refund_ids=refund_ids)
    transaction.execute("note_who_was_told", refund_ids=refund_ids)
    transaction.execute("orders_follow_refunds", refund_ids=refund_ids)
    transaction.execute("payments_follow_refunds", refund_ids=refund_ids)
    transaction.execute("plan_corrections", refund_ids=refund_ids)


def _tried(claim: RefundClaim) -> Tried:
    request = claim.request
    # each for itself: whoever is refused a refund was charged
    return Tried(request.refund_id, REFUSALS.service, request.refund_id, claim.in_doubt, claim.last_code)


def _delay_s(claim: RefundClaim, outcome: Outcome) -> float:
    if outcome.code in (settle.UNDECIDABLE, ALREADY_MADE):
        return FOR_EVER_S
    backoff_s: float = min(settle.BACKOFF_S * 2 ** (claim.attempts - 1), settle.MAX_BACKOFF_S)
    return max(backoff_s * random.uniform(0.5, 1.0), outcome.retry_after_s or 0.0)  # noqa: S311 - spreads out, hides nothing


def refund_one(gateway: PaymentGateway, claim: RefundClaim, may_send: Callable[[], bool]) -> Outcome:
    """Bring one claimed refund to an outcome; what may have been sent is sent again only where its key is honoured.

    Nothing is sent once `may_send` says no: others may have taken the claim over.
    """
    if claim.may_be_made and not claim.in_doubt:
        return Outcome("unknown", ALREADY_MADE)
    if claim.in_doubt and (claim.is_old or not gateway.capabilities.honours_keys):
        return Outcome("unknown", settle.UNDECIDABLE)
    sent = gateway.refund(claim.request) if may_send() else called_off(in_doubt=False)
    if sent.kind == "not_sent" and not sent.refused and claim.in_doubt:
        # certain of this try only: what became of the one before is still not known
        return replace(sent, kind="unknown")
    return sent


def look_up_and_refund(
    gateway: PaymentGateway, claim: RefundClaim, may_send: Callable[[], bool], beside: Callable[[RefundClaim], int]
) -> Outcome:
    """Bring one claimed refund to an outcome; where it may be forgotten, ask first what was given back of its payment.

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
    """Look up what was given back of a claim's payment; return why nothing may be sent, or None."""
    if not gateway.capabilities.can_look_up:
        return Outcome("unknown", settle.UNDECIDABLE)
    try:
        page = gateway.list_by_id(claim.request.service_payment_id)
    except ListFailed as failure:
        if not failure.may_pass:  # no other try finds out
            return Outcome("unknown", settle.UNDECIDABLE)
        return Outcome("not_sent", NOT_LOOKED_UP, retry_after_s=failure.retry_after_s, service_failed=True)
    if page.unreadable:
        return Outcome("unknown", settle.UNDECIDABLE)
    # our side is read last: whatever the service has of it was written down before it was sent
    is_more = any(each.given_back > beside(claim) for each in page.items if each.given_back)
    return Outcome("unknown", ALREADY_MADE) if is_more else None

"""Settling: a batch's payments are written down, claimed, sent and recorded, until the ledger has nothing open.

The intent is committed before a request leaves and the result after it came; what a crash leaves in between is unknown, and
is looked up before anything is sent again. Meaning of answers belongs in the provider's module, the loop in
`settlement/drain.py`.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from orders_pipeline.audit import recording
from orders_pipeline.batches.shared_calls import SharedCalls
from orders_pipeline.batches.workers import Worker, end_lost_workers
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.database import Database, Transaction, array_of
from orders_pipeline.security import personal_data
from orders_pipeline.security.encryption import Cipher
from orders_pipeline.services.circuit_breaker import Breaker
from orders_pipeline.services.outcomes import CALLED_OFF, FOR_EVER_S, Outcome, OutcomeKind, called_off
from orders_pipeline.services.payment_gateway import Capabilities, PaymentGateway, PaymentRequest
from orders_pipeline.settlement.drain import drain, one_by_one
from orders_pipeline.settlement.payments.plan import PayableOrder, plan_payments
from orders_pipeline.settlement.refusals import Refusals, Tried

MAX_ATTEMPTS = 8  # in one drain; a later one starts anew
BACKOFF_S = 0.5
MAX_BACKOFF_S = 20.0
LOOK_UP_WAIT_S = 120.0  # longer than a request can live; only then does "not found" mean anything without keys
KEYS_KEPT_S = 86_400.0  # services forget keys after a day: one that may be as old proves nothing
ABSENT_ONCE = "absent-once"
ABSENT_EARLY = "absent-early"  # a request may still be on its way: this look-up proves nothing
UNDECIDABLE = "undecidable"  # the provider offers no way to find out: a person decides
BREAKER = Breaker("payment")
REFUSALS = Refusals("payment", a_person_decides=True)
PAYMENT_STATUS: Mapping[OutcomeKind, str] = {
    "succeeded": "succeeded",
    "declined": "declined",
    "not_sent": "planned",
    "unknown": "unknown",
}


@dataclass(frozen=True)
class PaymentClaim:
    """A payment that is this worker's to settle."""

    request: PaymentRequest
    attempts: int
    in_doubt: bool  # it may have been sent before: look it up first
    last_code: str | None
    is_old: bool = False  # its key may be forgotten
    young_s: float = 0.0  # for so long a request of it may still arrive


def plan_batch(database: Database, cipher: Cipher, batch_id: str, profile: Profile) -> int:
    """Write down the payments for a batch's orders that have none and return their number."""
    with database.begin() as transaction:
        transaction.row("lock_batch", batch_id=batch_id)
        rows = transaction.rows("orders_to_plan", batch_id=batch_id)
        orders = [
            PayableOrder(
                row.import_row_number,
                row.customer_code,
                row.payment_method,
                row.amount,
                _card(cipher, batch_id, row),
                row.is_nobodys,
            )
            for row in rows
        ]
        order_ids = {row.import_row_number: row.order_id for row in rows}
        cards = sum(bool(order.card) for order in orders)
        recording.read_personal(transaction, "to plan payments", batch_id, cards)
        payments = plan_payments(orders, profile.payments)
        members = [array_of(payment.row_numbers) for payment in payments]
        amounts = [payment.amount for payment in payments]
        ids = transaction.rows("next_payment_ids", batch_id=batch_id, members=members, amounts=amounts)
        planned = [(str(row.payment_id), payment) for row, payment in zip(ids, payments, strict=True)]
        if planned:
            transaction.execute(
                "insert_payments",
                batch_id=batch_id,
                payment_ids=[payment_id for payment_id, _ in planned],
                customer_codes=[payment.customer_code for _, payment in planned],
                payment_methods=[payment.payment_method for _, payment in planned],
                amounts=amounts,
            )
            shares = [(payment_id, order) for payment_id, payment in planned for order in payment.orders]
            transaction.execute(
                "insert_allocations",
                payment_ids=[payment_id for payment_id, _ in shares],
                order_ids=[order_ids[order.import_row_number] for _, order in shares],
                amounts=[order.amount for _, order in shares],
            )
    return len(planned)


def _card(cipher: Cipher, batch_id: str, row: Row[Any]) -> str:
    if row.payment_method != "card_on_file":
        return ""
    return personal_data.reveal(cipher, batch_id, row.import_row_number, row.personal)["payment_token"]


class PaymentLedger:
    """A batch's payments in the database, as one worker sees them."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        worker: Worker,
        capabilities: Capabilities,
        on_settled: Callable[[Transaction, Sequence[str]], None],
        *,
        concurrency: int,
        retry_declined_orders: bool = False,
        look_again: Callable[[], bool] = lambda: False,
    ) -> None:
        self.concurrency = concurrency
        self._database = database
        self._cipher = cipher
        self._worker = worker
        self._honours_keys = capabilities.honours_keys
        self._can_look_up = capabilities.can_look_up
        self._on_settled = on_settled
        self._look_again = look_again
        self._is_whole = True  # as far as is known: nothing is claimed in a database that is not where the ledger was
        self._unlisted_since: datetime | None = None  # what is planned was put in doubt for that
        self._retry_declined_orders = retry_declined_orders

    def may_send(self) -> bool:
        """Tell whether claims that were taken before are still ours to send."""
        return self._worker.may_send()

    def shared_calls(self) -> SharedCalls:
        """Return this worker's share of what the service is sent at once."""
        return SharedCalls(self._database, BREAKER.service, self._worker, self.concurrency)

    def begin(self) -> None:
        """Take over what lost workers had claimed and give every open payment its attempts back."""
        batch_id = self._worker.batch_id
        BREAKER.prepare(self._database)
        with self._database.begin() as transaction:
            self._take_over(transaction, only_by_lease=False)
            transaction.execute("renew_payment_attempts", batch_id=batch_id)
            self._doubt(transaction)
            REFUSALS.end_hold(transaction, batch_id)

    def _doubt(self, transaction: Transaction) -> None:
        if self._can_look_up:
            transaction.execute(
                "doubt_what_may_be_charged",
                batch_id=self._worker.batch_id,
                keys_kept_s=KEYS_KEPT_S if self._honours_keys else 0.0,
                look_up_wait_s=LOOK_UP_WAIT_S,
            )

    def _take_over(self, transaction: Transaction, *, only_by_lease: bool) -> None:
        """Release what lost workers hold, and we ourselves: nothing of ours is under way when this is called."""
        self._release(transaction, keys_kept_s=KEYS_KEPT_S if self._honours_keys else 0.0, only_by_lease=only_by_lease)

    def _release(self, transaction: Transaction, *, keys_kept_s: float, only_by_lease: bool = False) -> None:
        batch_id = self._worker.batch_id
        end_lost_workers(transaction, batch_id, self._worker, only_by_lease=only_by_lease)
        released = transaction.execute(
            "release_payments_of_lost_workers",
            batch_id=batch_id,
            caller_id=self._worker.worker_id,
            keys_kept_s=keys_kept_s,
            backoff_s=BACKOFF_S,
            look_up_wait_s=LOOK_UP_WAIT_S,
        )
        if released:
            transaction.execute("orders_of_released_payments", batch_id=batch_id)

    def claim(self, limit: int) -> list[PaymentClaim]:
        """Take up to `limit` due payments; their intent is committed when this returns. Raise LeaseLost.

        None are taken once a person has stopped or cancelled the batch.
        """
        self._worker.require()
        with self._database.begin() as transaction:
            standing = self._standing(transaction)
        if standing.is_other:
            self._is_whole = self._look_again()
            with self._database.begin() as transaction:
                standing = self._standing(transaction)
        unlisted_since = standing.unlisted_since
        if unlisted_since != self._unlisted_since:  # whoever looked: another database runs than when this began
            with self._database.begin() as transaction:
                self._doubt(transaction)
            self._unlisted_since = unlisted_since
        with self._database.begin() as transaction:
            standing = self._standing(transaction)
            if self._is_held(standing) or standing.unlisted_since != unlisted_since:
                return []
            transaction.by_index()
            if self._worker.is_halted(transaction):
                return []
            is_held = REFUSALS.hold(transaction, self._worker.batch_id)
            allowed = BREAKER.allowance(transaction, 0 if is_held else limit)
            rows = transaction.rows(
                "claim_payments",
                batch_id=self._worker.batch_id,
                worker_id=self._worker.worker_id,
                max_attempts=MAX_ATTEMPTS,
                limit=allowed.calls,
                retries=allowed.retries,
                keys_kept_s=KEYS_KEPT_S,
            )
            BREAKER.claimed(transaction, allowed, len(rows))
            cards = sum(row.payment_method == "card_on_file" for row in rows)
            recording.read_personal(transaction, "to pay", self._worker.batch_id, cards)
        return [self._read(row) for row in rows]

    def _standing(self, transaction: Transaction) -> Row[Any]:
        return transaction.rows("standing", batch_id=self._worker.batch_id)[0]

    def _is_held(self, standing: Row[Any]) -> bool:
        return bool(not self._is_whole or standing.is_held or standing.is_other)

    def record(self, results: Sequence[tuple[PaymentClaim, Outcome]]) -> bool:
        """Commit what came of claims and return whether the service may be called on.

        A result for a claim that others have taken over since is dropped.
        """
        batch_id = self._worker.batch_id
        with self._database.begin() as transaction:
            transaction.by_index()
            tried = [(_tried(claim), outcome) for claim, outcome in results]
            judged = REFUSALS.judged(transaction, batch_id, tried, doubt_s=LOOK_UP_WAIT_S)
            results = [(claim, outcome) for (claim, _), outcome in zip(results, judged, strict=True)]
            written = transaction.rows(
                "record_payments",
                worker_id=self._worker.worker_id,
                payment_ids=[claim.request.payment_id for claim, _ in results],
                statuses=[PAYMENT_STATUS[outcome.kind] for _, outcome in results],
                service_payment_ids=[outcome.service_id for _, outcome in results],
                codes=[outcome.code for _, outcome in results],
                delays_s=[self._delay_s(claim, outcome) for claim, outcome in results],
                called_off=CALLED_OFF,
            )
            payment_ids = [str(row.payment_id) for row in written]
            if any(outcome.kind == "declined" for _, outcome in results):
                transaction.execute("retire_allocations", payment_ids=payment_ids)
                if self._retry_declined_orders:
                    transaction.execute("plan_declined_orders_alone", payment_ids=payment_ids)
                    self._doubt(transaction)
            self._on_settled(transaction, payment_ids)
            left_alone = BREAKER.observe(transaction, judged) or REFUSALS.hold(transaction, batch_id)
        return not left_alone

    def wait_s(self) -> float | None:
        """Return the seconds until a payment is due, or may be if others hold it; None when none is left to try."""
        if self._worker.halted.is_set():
            return None
        with self._database.begin() as transaction:
            if self._is_held(self._standing(transaction)):
                return None
            transaction.by_index()
            self._take_over(transaction, only_by_lease=True)
            if REFUSALS.hold(transaction, self._worker.batch_id):
                return None
            due_s = transaction.scalar("seconds_to_next_payment", batch_id=self._worker.batch_id, max_attempts=MAX_ATTEMPTS)
            return BREAKER.wait_s(transaction, None if due_s is None else max(float(due_s), 0.0))

    def _read(self, row: Row[Any]) -> PaymentClaim:
        batch_id = self._worker.batch_id
        card = None
        if row.personal is not None:
            card = personal_data.reveal(self._cipher, batch_id, row.import_row_number, row.personal)["payment_token"]
        request = PaymentRequest(
            payment_id=str(row.payment_id),
            batch_id=batch_id,
            customer_code=row.customer_code,
            payment_method=row.payment_method,
            amount=row.amount,
            reference=row.reference,
            allocations=list(zip(row.order_refs, row.order_amounts, strict=True)),
            payment_token=card,
        )
        return PaymentClaim(request, row.attempts, row.status == "unknown", row.outcome_code, row.is_old)

    def _delay_s(self, claim: PaymentClaim, outcome: Outcome) -> float:
        if outcome.code == UNDECIDABLE:
            return FOR_EVER_S
        backoff_s: float = min(BACKOFF_S * 2 ** (claim.attempts - 1), MAX_BACKOFF_S) * random.uniform(0.5, 1.0)  # noqa: S311
        if (
            outcome.kind == "unknown"
            and outcome.code not in (ABSENT_ONCE, ABSENT_EARLY, CALLED_OFF)  # nothing was sent
            and (claim.is_old or not self._honours_keys)
        ):
            if not self._can_look_up:  # nobody finds out: a person is asked at once
                return FOR_EVER_S
            backoff_s = max(backoff_s, LOOK_UP_WAIT_S)  # a second try may be under way like a first
        return max(backoff_s, outcome.retry_after_s or 0.0)


def _tried(claim: PaymentClaim) -> Tried:
    request, last_code = claim.request, claim.last_code
    in_doubt = claim.in_doubt and last_code != ABSENT_ONCE  # what is sent after that was waited for
    return Tried(request.payment_id, REFUSALS.service, request.customer_code, in_doubt, last_code)


class DoubtLedger(PaymentLedger):
    """Those of a batch's payments that may have been charged, as whoever cancels the batch sees them."""

    def begin(self) -> None:
        """Take over what lost workers had claimed, and say from when on a look-up that finds nothing is believed.

        What a database that is lost may have sent is among what is looked up.
        """
        batch_id = self._worker.batch_id
        BREAKER.prepare(self._database)
        with self._database.begin() as transaction:
            self._doubt(transaction)
            if self._honours_keys:
                early = (ABSENT_ONCE, ABSENT_EARLY)
                wait = {"look_up_wait_s": LOOK_UP_WAIT_S, "waiting": list(early)}
                transaction.execute("distrust_look_ups", batch_id=batch_id, **wait)
            self._release(transaction, keys_kept_s=0.0)
            transaction.execute("renew_doubtful_attempts", batch_id=batch_id)

    def claim(self, limit: int) -> list[PaymentClaim]:
        """Take up to `limit` payments to look up, each once at once and then when that proves something."""
        self._worker.require()
        with self._database.begin() as transaction:
            transaction.by_index()
            allowed = BREAKER.allowance(transaction, limit)
            rows = transaction.rows(
                "claim_doubtful_payments",
                batch_id=self._worker.batch_id,
                worker_id=self._worker.worker_id,
                max_attempts=MAX_ATTEMPTS,
                limit=allowed.calls,
                keys_kept_s=KEYS_KEPT_S,
            )
            BREAKER.claimed(transaction, allowed, len(rows))
        return [replace(self._read(row), young_s=max(float(row.young_s), 0.0)) for row in rows]

    def wait_s(self) -> float | None:
        """Return the seconds until a look-up is due, or None when none is left."""
        with self._database.begin() as transaction:
            transaction.by_index()
            due_s = transaction.scalar("seconds_to_next_look_up", batch_id=self._worker.batch_id, max_attempts=MAX_ATTEMPTS)
            return BREAKER.wait_s(transaction, None if due_s is None else max(float(due_s), 0.0))


def find_out(gateway: PaymentGateway, claim: PaymentClaim) -> Outcome:
    """Bring a payment that may have been charged to an outcome without sending anything.

    That it was not charged is believed when two look-ups say so, after every request for it must have ended.
    """
    if not gateway.capabilities.can_look_up:
        return Outcome("unknown", UNDECIDABLE)
    found = gateway.look_up(claim.request)
    if found.kind != "absent":
        return found
    if claim.young_s > 0:
        return Outcome("unknown", ABSENT_EARLY, retry_after_s=claim.young_s)
    return Outcome("not_sent") if claim.last_code == ABSENT_ONCE else Outcome("unknown", ABSENT_ONCE)


def settle_one(gateway: PaymentGateway, claim: PaymentClaim, may_send: Callable[[], bool]) -> Outcome:
    """Bring one claimed payment to an outcome: what may have been sent is looked up before it is sent again.

    Nothing is sent once `may_send` says no: others may have taken the claim over and send it.
    """
    able = gateway.capabilities
    if claim.is_old:
        able = replace(able, honours_keys=False)
    if claim.in_doubt and not (able.can_look_up or able.honours_keys):
        return Outcome("unknown", UNDECIDABLE)
    if claim.in_doubt and able.can_look_up:
        found = gateway.look_up(claim.request)
        if found.kind != "absent":
            return found
        # without keys a look-up may be behind the booking: once is not enough
        if not able.honours_keys and claim.last_code != ABSENT_ONCE:
            return Outcome("unknown", ABSENT_ONCE)
    sent = gateway.pay(claim.request) if may_send() else called_off(in_doubt=False)
    if sent.kind == "not_sent" and not sent.refused and claim.in_doubt and able.honours_keys:
        # certain of this try only: without waiting out the one before, its charge is not ruled out
        return replace(sent, kind="unknown")
    return sent


def settle_batch(ledger: PaymentLedger, gateway: PaymentGateway, stop: threading.Event) -> None:
    """Drain a batch's payments with the ledger's concurrency; returns when none is left to try now."""
    ledger.begin()
    drain(
        ledger,
        one_by_one(lambda claim: settle_one(gateway, claim, ledger.may_send)),
        concurrency=ledger.concurrency,
        bound=ledger.shared_calls(),
        stop=stop,
    )

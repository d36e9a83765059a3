"""The ledger of payments, as who pays a batch sees it, and as who cancels it does.

What is common to all ledgers belongs in `settlement/ledger.py`; sending and looking up in `settle.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from orders_pipeline.audit import recording
from orders_pipeline.batches.shared_calls import SharedCalls
from orders_pipeline.batches.workers import Worker
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.security import personal_data
from orders_pipeline.security.encryption import Cipher
from orders_pipeline.services.circuit_breaker import Breaker
from orders_pipeline.services.outcomes import CALLED_OFF, FOR_EVER_S, Outcome
from orders_pipeline.services.payment_gateway import Capabilities, PaymentRequest
from orders_pipeline.settlement.ledger import BACKOFF_S, MAX_ATTEMPTS, Claim, Ledger
from orders_pipeline.settlement.refusals import Refusals, Tried

LOOK_UP_WAIT_S = 120.0  # longer than a request can live; only then does "not found" mean anything without keys
KEYS_KEPT_S = 86_400.0  # services forget keys after a day: one that may be as old proves nothing
ABSENT_ONCE = "absent-once"
ABSENT_EARLY = "absent-early"  # a request may still be on its way: this look-up proves nothing
PAYMENT_BREAKER = Breaker("payment")
NOTHING_SENT = (ABSENT_ONCE, ABSENT_EARLY, CALLED_OFF)


@dataclass(frozen=True)
class PaymentClaim(Claim[PaymentRequest]):
    """A payment that is this worker's to settle."""

    young_s: float = 0.0  # for so long a request of it may still arrive


class PaymentLedger(Ledger[PaymentClaim]):
    """A batch's payments in the database, as one worker sees them."""

    name = "payments"
    breaker = PAYMENT_BREAKER
    refusals = Refusals("payment", a_person_decides=True)
    lost_wait_s = BACKOFF_S
    doubt_s = LOOK_UP_WAIT_S

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
        super().__init__(database, worker)
        self.concurrency = concurrency
        self.keys_kept_s = KEYS_KEPT_S if capabilities.honours_keys else 0.0
        self._cipher = cipher
        self._honours_keys = capabilities.honours_keys
        self._can_look_up = capabilities.can_look_up
        self._on_settled = on_settled
        self._look_again = look_again
        self._is_whole = True  # as far as is known: nothing is claimed in a database that is not where the ledger was
        self._unlisted_since: datetime | None = None  # what is planned was put in doubt for that
        self._retry_declined_orders = retry_declined_orders

    def shared_calls(self) -> SharedCalls:
        """Return this worker's share of what the service is sent at once."""
        return SharedCalls(self._database, self.breaker.service, self._worker, self.concurrency)

    def claim(self, limit: int) -> list[PaymentClaim]:
        """Take up to `limit` due payments; their intent is committed when this returns. Raise LeaseLost.

        None are taken once a person has stopped or cancelled the batch, or in a database that may have been put back.
        """
        with self._database.begin() as transaction:
            standing = self._standing(transaction)
        if standing.is_other:
            self._is_whole = self._look_again()
            with self._database.begin() as transaction:
                standing = self._standing(transaction)
        if standing.unlisted_since != self._unlisted_since:  # whoever looked: another database runs than when this began
            with self._database.begin() as transaction:
                self._doubt(transaction)
            self._unlisted_since = standing.unlisted_since
        return super().claim(limit)

    def _may_claim(self, transaction: Transaction) -> bool:
        return self._standing(transaction).unlisted_since == self._unlisted_since and super()._may_claim(transaction)

    def _may_go_on(self, transaction: Transaction) -> bool:
        standing = self._standing(transaction)
        return self._is_whole and not (standing.is_held or standing.is_other) and super()._may_go_on(transaction)

    def _standing(self, transaction: Transaction) -> Row[Any]:
        return transaction.rows("standing", batch_id=self._worker.batch_id)[0]

    def _begun(self, transaction: Transaction) -> None:
        self._doubt(transaction)

    def _doubt(self, transaction: Transaction) -> None:
        if self._can_look_up:
            doubted = transaction.rows(
                "doubt_what_may_be_charged",
                batch_id=self._worker.batch_id,
                keys_kept_s=KEYS_KEPT_S if self._honours_keys else 0.0,
                look_up_wait_s=self.doubt_s,
            )
            follow_payments(transaction, [str(row.payment_id) for row in doubted])

    def _released(self, transaction: Transaction, item_ids: Sequence[str]) -> None:
        follow_payments(transaction, item_ids)

    def _read(self, transaction: Transaction, item_ids: Sequence[str], *, with_cards: bool = True) -> list[PaymentClaim]:
        follow_payments(transaction, item_ids)
        rows = transaction.rows(
            "claimed_payments", payment_ids=list(item_ids), keys_kept_s=KEYS_KEPT_S, with_cards=with_cards
        )
        cards = sum(row.personal is not None for row in rows)
        recording.read_personal(transaction, "to pay", self._worker.batch_id, cards)
        return [self._claim(row) for row in rows]

    def _claim(self, row: Row[Any]) -> PaymentClaim:
        batch_id = self._worker.batch_id
        card = None
        if row.personal is not None:
            card = personal_data.decrypt(self._cipher, batch_id, row.import_row_number, row.personal)["payment_token"]
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
        return PaymentClaim(
            request, row.attempts, row.status == "unknown", row.outcome_code, row.is_old, max(float(row.young_s), 0.0)
        )

    def _tried(self, claim: PaymentClaim) -> Tried:
        request, last_code = claim.request, claim.last_code
        in_doubt = claim.in_doubt and last_code != ABSENT_ONCE  # what is sent after that was waited for
        return Tried(request.payment_id, self.refusals.service, request.customer_code, in_doubt, last_code)

    def _recorded(self, transaction: Transaction, item_ids: Sequence[str], declined_ids: Sequence[str]) -> None:
        follow_payments(transaction, item_ids)
        if declined_ids:
            transaction.execute("retire_allocations", payment_ids=declined_ids)
            if self._retry_declined_orders:
                transaction.execute("plan_declined_orders_singly", payment_ids=declined_ids)
                self._doubt(transaction)
        self._on_settled(transaction, item_ids)

    def _delay_s(self, claim: PaymentClaim, outcome: Outcome) -> float:
        delay_s = super()._delay_s(claim, outcome)
        proves_nothing = claim.is_old or not self._honours_keys
        if outcome.kind == "unknown" and outcome.code not in NOTHING_SENT and proves_nothing:
            # nobody finds out, and a person is asked at once; or a second try may be under way like a first
            return max(delay_s, self.doubt_s) if self._can_look_up else FOR_EVER_S
        return delay_s


class DoubtLedger(PaymentLedger):
    """Those of a batch's payments that may have been charged, as whoever cancels the batch sees them."""

    def begin(self) -> None:
        """Take over what lost workers had claimed, and say from when on a look-up that finds nothing is believed.

        What a database that is lost may have sent is among what is looked up.
        """
        batch_id = self._worker.batch_id
        self.breaker.prepare(self._database)
        with self._database.begin() as transaction:
            self._doubt(transaction)
            if self._honours_keys:
                early = [ABSENT_ONCE, ABSENT_EARLY]
                transaction.execute("distrust_look_ups", batch_id=batch_id, look_up_wait_s=self.doubt_s, waiting=early)
            self.keys_kept_s = 0.0  # nothing is sent again with one
            self._release(transaction)
            transaction.execute("renew_doubtful_attempts", batch_id=batch_id)

    def claim(self, limit: int) -> list[PaymentClaim]:
        """Take up to `limit` payments to look up, each once at once and then when that proves something."""
        self._worker.require()
        with self._database.begin() as transaction:
            transaction.by_index()
            allowed = self.breaker.allowance(transaction, limit)
            claimed = transaction.rows(
                "claim_doubtful_payments",
                batch_id=self._worker.batch_id,
                worker_id=self._worker.worker_id,
                max_attempts=MAX_ATTEMPTS,
                limit=allowed.calls,
            )
            self.breaker.claimed(transaction, allowed, len(claimed))
            return self._read(transaction, [str(row.payment_id) for row in claimed], with_cards=False)

    def wait_s(self) -> float | None:
        """Return the seconds until a look-up is due, or None when none is left."""
        with self._database.begin() as transaction:
            transaction.by_index()
            due_s = transaction.scalar("seconds_to_next_look_up", batch_id=self._worker.batch_id, max_attempts=MAX_ATTEMPTS)
            return self.breaker.wait_s(transaction, None if due_s is None else max(float(due_s), 0.0))


def follow_payments(transaction: Transaction, payment_ids: Sequence[str]) -> None:
    """Give orders the status that follows from their payments'."""
    if payment_ids:
        transaction.execute("orders_follow_payments", payment_ids=list(payment_ids))

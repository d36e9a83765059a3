"""The ledger: items of a batch that are claimed, sent to a service and recorded, so that none is carried out twice.

Payments, notifications and refunds are such items. The intent is committed before a request leaves and the result after it
came; what a crash leaves in between is unknown. What is common to them is here and in `sql/queries/ledgers.sql`, what each
adds in the module `ledger.py` of its folder; the loop that drains a ledger is in `drain.py`.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from orders_pipeline.batches.workers import Worker, end_lost_workers
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.services.circuit_breaker import Breaker
from orders_pipeline.services.outcomes import CALLED_OFF, FOR_EVER_S, Outcome, OutcomeKind
from orders_pipeline.settlement.refusals import Refusals, Tried

MAX_ATTEMPTS = 8  # in one drain; a later one starts anew
BACKOFF_S = 0.5
MAX_BACKOFF_S = 20.0
UNDECIDABLE = "undecidable"  # the provider offers no way to find out: a person decides

Request = TypeVar("Request")


@dataclass(frozen=True)
class Claim(Generic[Request]):
    """An item that is this worker's to send."""

    request: Request
    attempts: int
    in_doubt: bool  # it may have been sent before
    last_code: str | None = None  # of the outcome before this try
    is_old: bool = False  # its key may be forgotten


ClaimOf = TypeVar("ClaimOf", bound=Claim[Any])


class Ledger(ABC, Generic[ClaimOf]):
    """A batch's items of one kind in the database, as one worker sees them."""

    name: ClassVar[str]  # of its statements
    breaker: ClassVar[Breaker]
    refusals: ClassVar[Refusals]
    statuses: ClassVar[Mapping[OutcomeKind, str]] = {
        "succeeded": "succeeded",
        "declined": "declined",
        "not_sent": "planned",
        "unknown": "unknown",
    }
    codes_for_a_person: ClassVar[frozenset[str]] = frozenset({UNDECIDABLE})  # nothing is tried until one has decided
    keys_kept_s = FOR_EVER_S  # for so long the service knows a key that it was sent
    lost_wait_s = 0.0  # what a lost worker has sent is in doubt for so long before it is tried again
    doubt_s = 0.0  # for so long a try may be under way; matters where keys prove nothing
    ends_with_batch = True  # nothing is sent once a person has stopped or cancelled it
    look_ups_wait = True  # a new drain leaves what is in doubt its time

    def __init__(self, database: Database, worker: Worker) -> None:
        self._database = database
        self._worker = worker

    def may_send(self) -> bool:
        """Return whether claims that were taken before are still ours to send."""
        return self._worker.may_send()

    def begin(self) -> None:
        """Take over what lost workers had claimed and give every open item its attempts back."""
        self.breaker.prepare(self._database)
        with self._database.begin() as transaction:
            self._release(transaction)
            transaction.execute(f"renew_{self.name}", batch_id=self._worker.batch_id, look_ups_wait=self.look_ups_wait)
            self._begun(transaction)
            self.refusals.end_hold(transaction, self._worker.batch_id)

    def claim(self, limit: int) -> list[ClaimOf]:
        """Take up to `limit` due items; their intent is committed when this returns. Raise LeaseLost.

        None are taken where nothing may be sent: once a person has stopped or cancelled the batch, or on hold.
        """
        self._worker.require()
        with self._database.begin() as transaction:
            transaction.by_index()
            if not self._may_claim(transaction):
                return []
            is_held = self.refusals.hold(transaction, self._worker.batch_id)
            allowed = self.breaker.allowance(transaction, 0 if is_held else limit)
            claimed = transaction.rows(
                f"claim_{self.name}",
                batch_id=self._worker.batch_id,
                worker_id=self._worker.worker_id,
                max_attempts=MAX_ATTEMPTS,
                limit=allowed.calls,
                retries=allowed.retries,
            )
            self.breaker.claimed(transaction, allowed, len(claimed))
            return self._read(transaction, [str(row.item_id) for row in claimed])

    def record(self, results: Sequence[tuple[ClaimOf, Outcome]]) -> bool:
        """Commit what came of claims and return whether the service may still be called.

        A result for a claim that others have taken over since is dropped.
        """
        batch_id = self._worker.batch_id
        with self._database.begin() as transaction:
            transaction.by_index()
            tried = [self._tried(claim) for claim, _ in results]
            asked = [(each, outcome) for each, (_, outcome) in zip(tried, results, strict=True)]
            outcomes = self.refusals.judged(transaction, batch_id, asked, doubt_s=self.doubt_s)
            self._before_record(transaction, [each.item_id for each in tried])
            recorded = transaction.rows(
                f"record_{self.name}",
                worker_id=self._worker.worker_id,
                item_ids=[each.item_id for each in tried],
                statuses=[self.statuses[outcome.kind] for outcome in outcomes],
                service_ids=[outcome.service_id for outcome in outcomes],
                codes=[outcome.code for outcome in outcomes],
                delays_s=[self._delay_s(claim, outcome) for (claim, _), outcome in zip(results, outcomes, strict=True)],
                called_off=CALLED_OFF,
            )
            declined = [str(row.item_id) for row in recorded if row.status == self.statuses["declined"]]
            self._recorded(transaction, [str(row.item_id) for row in recorded], declined)
            must_wait = self.breaker.observe(transaction, outcomes) or self.refusals.hold(transaction, batch_id)
        return not must_wait

    def wait_s(self) -> float | None:
        """Return the seconds until an item is due, or may be if others hold it; None when none is left to try."""
        batch_id = self._worker.batch_id
        with self._database.begin() as transaction:
            transaction.by_index()
            if not self._may_go_on(transaction):
                return None
            self._release(transaction, only_by_lease=True)
            if self.refusals.hold(transaction, batch_id):
                return None
            due_s = transaction.scalar(f"seconds_to_next_{self.name}", batch_id=batch_id, max_attempts=MAX_ATTEMPTS)
            return self.breaker.wait_s(transaction, None if due_s is None else max(float(due_s), 0.0))

    def _release(self, transaction: Transaction, *, only_by_lease: bool = False) -> None:
        """Release what lost workers hold, and we ourselves: nothing of ours is under way when this is called."""
        end_lost_workers(transaction, self._worker.batch_id, self._worker, only_by_lease=only_by_lease)
        released = transaction.rows(
            f"release_{self.name}",
            batch_id=self._worker.batch_id,
            caller_id=self._worker.worker_id,
            keys_kept_s=self.keys_kept_s,
            lost_wait_s=self.lost_wait_s,
            doubt_s=self.doubt_s,
        )
        if released:
            self._released(transaction, [str(row.item_id) for row in released])

    def _may_claim(self, transaction: Transaction) -> bool:
        """Return whether anything may be claimed now; if so, nobody stops the batch before the transaction ends."""
        return self._may_go_on(transaction) and not (self.ends_with_batch and self._worker.is_halted(transaction))

    def _may_go_on(self, _: Transaction) -> bool:
        """Return whether anything may be sent, now or later, as far as is known."""
        # the batch is not locked: whoever waits gives up lost workers, and the sweep locks these before their batches
        return not (self.ends_with_batch and self._worker.halted.is_set())

    def _begun(self, transaction: Transaction) -> None:
        """Do what else a drain begins with."""

    def _released(self, transaction: Transaction, item_ids: Sequence[str]) -> None:
        """Let others follow what is in doubt since its worker was lost."""

    @abstractmethod
    def _read(self, transaction: Transaction, item_ids: Sequence[str]) -> list[ClaimOf]:
        """Return the claims that were taken, each with its request."""

    @abstractmethod
    def _tried(self, claim: ClaimOf) -> Tried:
        """Return what a refusal of it is judged by."""

    def _before_record(self, transaction: Transaction, item_ids: Sequence[str]) -> None:
        """Take the locks that go before those of the items."""

    def _recorded(self, transaction: Transaction, item_ids: Sequence[str], declined_ids: Sequence[str]) -> None:
        """Let orders and whatever else depends on it follow what was recorded."""

    def _delay_s(self, claim: ClaimOf, outcome: Outcome) -> float:
        """Return how long nothing is tried after an outcome, in seconds."""
        if outcome.code in self.codes_for_a_person:
            return FOR_EVER_S
        longest_s: float = min(BACKOFF_S * 2 ** (claim.attempts - 1), MAX_BACKOFF_S)
        return max(longest_s * random.uniform(0.5, 1.0), outcome.retry_after_s or 0.0)  # noqa: S311 - spreads out, hides nothing

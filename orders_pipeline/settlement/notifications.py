"""Notifications: who is told what, when it is final, and sending it once and within the service's rate.

A notification waits until the payments of all its orders are final, then it is claimed, sent and recorded like a
payment. A correction tells those who know of a payment that it was given back. What the service's answers mean is said in
`services/notification_service.py`, the tokens are kept in `services/rate_limit.py`, the loop is in `drain.py`.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from sqlalchemy import Row

from orders_pipeline.audit import recording
from orders_pipeline.batches.workers import Worker, end_lost_workers
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.database import Database, Transaction, array_of
from orders_pipeline.security import personal_data
from orders_pipeline.security.encryption import Cipher
from orders_pipeline.services.circuit_breaker import Breaker
from orders_pipeline.services.notification_service import BULK, SERVICE, Message, NotificationService
from orders_pipeline.services.outcomes import CALLED_OFF, Outcome, OutcomeKind, called_off
from orders_pipeline.services.rate_limit import RateLimiter, Stopped
from orders_pipeline.settlement.drain import drain, one_by_one
from orders_pipeline.settlement.refusals import Refusals, Tried

Kind = Literal["result", "correction"]

BULK_CALLS = 2  # at a time: one is answered while the next one is on its way
FEW = 8  # so many are sent one by one where all in one call are refused; more are halved
MAX_ATTEMPTS = 8  # in one drain; a later one starts anew
BACKOFF_S = 0.5
MAX_BACKOFF_S = 20.0
MAX_LINES = 100  # orders named one by one in a digest; the totals cover all
ADDRESS_COLUMN = {"email": "email", "sms": "phone"}
BREAKER = Breaker(SERVICE)
REFUSALS = Refusals(SERVICE, a_person_decides=False)
CORRECTION_TEMPLATE = "order-refund"
NOTIFICATION_STATUS: Mapping[OutcomeKind, str] = {
    "succeeded": "sent",
    "declined": "failed",
    "not_sent": "ready",
    "unknown": "unknown",
}


@dataclass(frozen=True)
class NotificationClaim:
    """A notification that is this worker's to send."""

    message: Message
    attempts: int
    in_doubt: bool


def plan_batch(database: Database, cipher: Cipher, batch_id: str, profile: Profile) -> int:
    """Write down the notifications for a batch's orders that have none and return their number.

    A digest is for one customer, channel and address: nobody is told of orders that belong to another address.
    """
    with database.begin() as transaction:
        transaction.row("lock_batch", batch_id=batch_id)
        rows = transaction.rows("orders_to_notify", batch_id=batch_id)
        groups: defaultdict[tuple[object, ...], list[Row[Any]]] = defaultdict(list)
        for row in rows:
            opened = personal_data.reveal(cipher, batch_id, row.import_row_number, row.personal)
            address = opened[ADDRESS_COLUMN[row.notify_channel]]
            alone = row.order_id if profile.notifications == "per_order" or row.is_nobodys else None
            groups[row.customer_code, row.notify_channel, address, alone].append(row)
        recording.read_personal(transaction, "to plan notifications", batch_id, len(rows))
        members = [array_of(row.import_row_number for row in group) for group in groups.values()]
        ids = transaction.rows("next_notification_ids", batch_id=batch_id, members=members)
        planned = [(str(row.notification_id), key, group) for row, (key, group) in zip(ids, groups.items(), strict=True)]
        if planned:
            transaction.execute(
                "insert_notifications",
                batch_id=batch_id,
                notification_ids=[notification_id for notification_id, _, _ in planned],
                customer_codes=[key[0] for _, key, _ in planned],
                channels=[key[1] for _, key, _ in planned],
            )
            transaction.execute(
                "insert_notification_orders",
                notification_ids=[notification_id for notification_id, _, group in planned for _ in group],
                order_ids=[row.order_id for _, _, group in planned for row in group],
            )
    return len(planned)


def make_ready(transaction: Transaction, payment_ids: Sequence[str]) -> None:
    """Release the notifications whose orders are all final now that these payments were recorded."""
    locked = transaction.rows("lock_waiting_notifications", payment_ids=payment_ids)
    if locked:  # a second statement, so that it sees what was committed while the first waited for its locks
        transaction.execute("ready_notifications", notification_ids=[str(row.notification_id) for row in locked])


class NotificationLedger:
    """A batch's notifications, or those of some kinds, in the database, as one worker sees them."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        worker: Worker,
        profile: Profile,
        kinds: Sequence[Kind] = ("result", "correction"),
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._worker = worker
        self._kinds = list(kinds)
        self._template_id = "order-result" if profile.notifications == "per_order" else "order-digest"

    def may_send(self) -> bool:
        """Tell whether claims that were taken before are still ours to send."""
        return self._worker.may_send()

    def begin(self) -> None:
        """Take over what lost workers had claimed, release what is final, and give every open one its attempts back."""
        batch_id = self._worker.batch_id
        BREAKER.prepare(self._database)
        with self._database.begin() as transaction:
            self._take_over(transaction, only_by_lease=False)
            transaction.execute("ready_notifications_of_batch", batch_id=batch_id)
            transaction.execute("renew_notification_attempts", batch_id=batch_id, kinds=self._kinds)
            REFUSALS.end_hold(transaction, batch_id)

    def claim(self, limit: int) -> list[NotificationClaim]:
        """Take up to `limit` notifications that are ready; their intent is committed when this returns. Raise LeaseLost.

        Of results none are taken once a person has stopped or cancelled the batch; corrections belong to refunds.
        """
        self._worker.require()
        with self._database.begin() as transaction:
            transaction.by_index()
            if "result" in self._kinds and self._worker.is_halted(transaction):
                return []
            is_held = REFUSALS.hold(transaction, self._worker.batch_id)
            allowed = BREAKER.allowance(transaction, 0 if is_held else limit)
            rows = transaction.rows(
                "claim_notifications",
                batch_id=self._worker.batch_id,
                kinds=self._kinds,
                worker_id=self._worker.worker_id,
                max_attempts=MAX_ATTEMPTS,
                limit=allowed.calls,
                retries=allowed.retries,
            )
            BREAKER.claimed(transaction, allowed, len(rows))
            return self._claimed(transaction, rows)

    def claim_doubtful(self) -> list[NotificationClaim]:
        """Take the results that may have been sent, to look them up."""
        ids = {"batch_id": self._worker.batch_id, "worker_id": self._worker.worker_id}
        with self._database.begin() as transaction:
            return self._claimed(transaction, transaction.rows("claim_doubtful_notifications", **ids))

    def _claimed(self, transaction: Transaction, claimed: Sequence[Row[Any]]) -> list[NotificationClaim]:
        # a second statement, so that it sees what a refund has changed that the first one waited for
        rows = transaction.rows("claimed_notifications", notification_ids=[str(row.notification_id) for row in claimed])
        recording.read_personal(transaction, "to notify", self._worker.batch_id, len(rows))
        return [self._read(row) for row in rows]

    def record(self, results: Sequence[tuple[NotificationClaim, Outcome]]) -> bool:
        """Commit what came of claims and return whether the service may be called on.

        A result for a claim that others have taken over since is dropped.
        """
        batch_id = self._worker.batch_id
        with self._database.begin() as transaction:
            transaction.by_index()
            judged = REFUSALS.judged(transaction, batch_id, [(_tried(claim), outcome) for claim, outcome in results])
            results = [(claim, outcome) for (claim, _), outcome in zip(results, judged, strict=True)]
            transaction.execute(
                "record_notifications",
                worker_id=self._worker.worker_id,
                notification_ids=[claim.message.notification_id for claim, _ in results],
                statuses=[NOTIFICATION_STATUS[outcome.kind] for _, outcome in results],
                service_notification_ids=[outcome.service_id for _, outcome in results],
                codes=[outcome.code for _, outcome in results],
                delays_s=[_delay_s(claim, outcome) for claim, outcome in results],
                called_off=CALLED_OFF,
            )
            left_alone = BREAKER.observe(transaction, judged)
            return not (left_alone or REFUSALS.hold(transaction, batch_id))

    def wait_s(self) -> float | None:
        """Return the seconds until a notification is due, or may be if others hold it; None when none is left to try."""
        if self._worker.halted.is_set():
            return None
        with self._database.begin() as transaction:
            transaction.by_index()
            self._take_over(transaction, only_by_lease=True)
            if REFUSALS.hold(transaction, self._worker.batch_id):
                return None
            due_s = transaction.scalar(
                "seconds_to_next_notification",
                batch_id=self._worker.batch_id,
                kinds=self._kinds,
                max_attempts=MAX_ATTEMPTS,
            )
            return BREAKER.wait_s(transaction, None if due_s is None else max(float(due_s), 0.0))

    def _take_over(self, transaction: Transaction, *, only_by_lease: bool) -> None:
        """Release what lost workers hold, and we ourselves: nothing of ours is under way when this is called."""
        batch_id, caller_id = self._worker.batch_id, self._worker.worker_id
        end_lost_workers(transaction, batch_id, self._worker, only_by_lease=only_by_lease)
        ours = {"caller_id": caller_id, "kinds": self._kinds}
        transaction.execute("release_notifications_of_lost_workers", batch_id=batch_id, **ours)

    def _read(self, row: Row[Any]) -> NotificationClaim:
        opened = personal_data.reveal(self._cipher, self._worker.batch_id, row.import_row_number, row.personal)
        message = Message(
            notification_id=str(row.notification_id),
            batch_id=self._worker.batch_id,
            template_id=CORRECTION_TEMPLATE if row.kind == "correction" else self._template_id,
            channel=row.channel,
            customer_code=row.customer_code,
            address=opened[ADDRESS_COLUMN[row.channel]],
            variables=_variables(opened.get("customer_name", ""), row),
            order_refs=row.order_refs,
        )
        return NotificationClaim(message, row.attempts, row.status == "unknown")


def _tried(claim: NotificationClaim) -> Tried:
    message = claim.message
    return Tried(message.notification_id, message.template_id, message.customer_code, claim.in_doubt)


def _variables(customer_name: str, row: Row[Any]) -> dict[str, Any]:
    lines = [
        {"client_order_ref": ref, "amount": amount, "outcome": status}
        for ref, amount, status in zip(row.refs, row.amounts, row.order_statuses, strict=True)
    ]
    paid = [line["amount"] for line in lines if line["outcome"] == "paid"]
    refunded = [line["amount"] for line in lines if line["outcome"] == "refunded"]
    given_back = {"refunded_count": len(refunded), "refunded_amount": sum(refunded)} if refunded else {}
    return {
        "customer_name": customer_name,
        "orders": lines[:MAX_LINES],
        "order_count": len(lines),
        "paid_count": len(paid),
        "paid_amount": sum(paid),
        "declined_count": sum(line["outcome"] == "declined" for line in lines),
    } | given_back


def _delay_s(claim: NotificationClaim, outcome: Outcome) -> float:
    backoff_s: float = min(BACKOFF_S * 2 ** (claim.attempts - 1), MAX_BACKOFF_S) * random.uniform(0.5, 1.0)  # noqa: S311
    return max(backoff_s, outcome.retry_after_s or 0.0)


def find_out(ledger: NotificationLedger, service: NotificationService, limiter: RateLimiter, stop: threading.Event) -> None:
    """Look up the results that may have been sent, and send nothing; what nobody can say stays unknown."""
    limiter.prepare()
    ledger.begin()
    for claim in ledger.claim_doubtful():
        found = called_off(in_doubt=True)
        with contextlib.suppress(Stopped), limiter.token(stop):
            found = service.look_up(claim.message)
        ledger.record([(claim, Outcome("not_sent") if found.kind == "absent" else found)])


def send_one(
    service: NotificationService,
    limiter: RateLimiter,
    claim: NotificationClaim,
    *,
    may_send: Callable[[], bool],
    stop: threading.Event,
) -> Outcome:
    """Bring one claimed notification to an outcome; what may have been sent is looked up first.

    Nothing is sent once `may_send` says no: others may have taken the claim over and send it.
    """
    try:
        if claim.in_doubt:
            with limiter.token(stop):
                found = service.look_up(claim.message)
            if found.kind != "absent":
                return found
        with limiter.token(stop):
            return service.send(claim.message) if may_send() else called_off(in_doubt=False)
    except Stopped:
        return called_off(in_doubt=claim.in_doubt)


def send_many(
    service: NotificationService,
    limiter: RateLimiter,
    claims: Sequence[NotificationClaim],
    *,
    may_send: Callable[[], bool],
    stop: threading.Event,
) -> list[Outcome]:
    """Bring claimed notifications to outcomes, in one call but for those that may have been sent before."""
    alone = partial(send_one, service, limiter, may_send=may_send, stop=stop)

    def together(fresh: Sequence[NotificationClaim]) -> list[Outcome]:
        if len(fresh) < 2:
            return [alone(claim) for claim in fresh]
        try:
            with limiter.token(stop):
                messages = [claim.message for claim in fresh]
                sent = service.send_many(messages) if may_send() else [called_off(in_doubt=False)] * len(fresh)
        except Stopped:
            sent = [called_off(in_doubt=False)] * len(fresh)
        if sent is not None:
            return sent
        half = len(fresh) // 2 if len(fresh) > FEW else 1
        return [outcome for start in range(0, len(fresh), half) for outcome in together(fresh[start : start + half])]

    found = iter(together([claim for claim in claims if not claim.in_doubt]))
    return [alone(claim) if claim.in_doubt else next(found) for claim in claims]


def notify_batch(
    ledger: NotificationLedger,
    service: NotificationService,
    limiter: RateLimiter,
    *,
    concurrency: int,
    stop: threading.Event,
    more_to_come: Callable[[], bool],
) -> None:
    """Drain a batch's notifications; returns when none is left to try now and none is to come.

    Sends many in one call where the service takes that, and else one by one, `concurrency` at a time.
    """
    limiter.prepare()
    ledger.begin()
    with contextlib.suppress(Stopped):
        with limiter.token(stop):
            many = service.takes_many()
        drain(
            ledger,
            partial(send_many, service, limiter, may_send=ledger.may_send, stop=stop)
            if many
            else one_by_one(partial(send_one, service, limiter, may_send=ledger.may_send, stop=stop)),
            concurrency=BULK_CALLS if many else concurrency,
            bundle=BULK if many else 1,
            stop=stop,
            more_to_come=more_to_come,
        )

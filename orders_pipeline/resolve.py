"""Resolving: a person decides about a payment whose result no look-up can find out, and answers for it.

Only payments that are unknown and that nobody is working on can be decided about. Finding out without a person is the
work of `payments/settle.py`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from orders_pipeline import notifications
from orders_pipeline.database import Database
from orders_pipeline.workers import end_lost_workers


class NotResolvable(Exception):
    """The payment is none that a person can decide about; the text says why."""

    code = "E_NOT_RESOLVABLE"


@dataclass(frozen=True)
class Decision:
    """What was found out about a payment: the charge's id at the service, or None when nothing was charged."""

    service_payment_id: str | None
    decided_by: str
    reason: str


def resolve(database: Database, payment_id: str, decision: Decision) -> str:
    """Write a person's decision down and return the payment's batch; raise NotResolvable.

    A payment that was not charged is planned again; one that was, is paid, and its customer may be told.
    """
    try:
        payment_id = str(uuid.UUID(payment_id))
    except ValueError:
        raise NotResolvable("E_NOT_RESOLVABLE: this is not the id of a payment") from None
    with database.begin() as transaction:
        payment = transaction.row("payment_to_resolve", payment_id=payment_id)
        if payment is None:
            raise NotResolvable("E_NOT_RESOLVABLE: there is no such payment")
        end_lost_workers(transaction, payment.batch_id)
        alive = {row.worker_id for row in transaction.rows("live_workers", batch_id=payment.batch_id)}
        if payment.status != "unknown":
            raise NotResolvable(
                f"E_NOT_RESOLVABLE: the payment is {payment.status}, and only an unknown one can be decided about"
            )
        if payment.claimed_by in alive:
            raise NotResolvable(
                "E_NOT_RESOLVABLE: the payment is being looked up at this moment; try again when that is over"
            )
        if decision.service_payment_id is None:
            transaction.execute("resolve_as_not_paid", payment_id=payment_id)
        else:
            transaction.execute("resolve_as_paid", payment_id=payment_id, service_payment_id=decision.service_payment_id)
        transaction.execute("orders_follow_payments", payment_ids=[payment_id])
        notifications.make_ready(transaction, [payment_id])
        transaction.execute(
            "insert_resolution",
            payment_id=payment_id,
            decision="not_paid" if decision.service_payment_id is None else "paid",
            decided_by=decision.decided_by,
            reason=decision.reason,
        )
    return str(payment.batch_id)

"""Resolving: a person decides about a payment or refund whose result no look-up can find out, and answers for it.

Only what is unknown and claimed by nobody can be decided about. Finding out without a person belongs in
`payments/settle.py` and `refunds/ledger.py`.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row

from orders_pipeline.batches.workers import end_lost_workers
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.settlement.notifications.plan import make_ready
from orders_pipeline.settlement.payments.ledger import follow_payments
from orders_pipeline.settlement.refunds.ledger import follow_refunds
from orders_pipeline.system.errors import NotThere


class NotResolvable(Exception):
    """This is nothing that a person can decide about; the text says why."""

    code = "E_NOT_RESOLVABLE"


class NothingToResolve(NotResolvable, NotThere):
    """There is no such payment or refund."""


@dataclass(frozen=True)
class Decision:
    """What was found out: the id that the charge or refund has at the service, or None when there is none."""

    service_id: str | None
    decided_by: str
    reason: str


def resolve_payment(database: Database, payment_id: str, decision: Decision) -> str:
    """Write a person's decision about a payment down and return its batch; raise NotResolvable.

    A payment that was not charged is planned again; one that was, is paid, and its customer may be notified.
    """
    with _undecided(database, "payment", payment_id) as (transaction, payment):
        payment_id = str(payment.payment_id)
        if decision.service_id is None:
            transaction.execute("resolve_as_not_paid", payment_id=payment_id)
        else:
            charge = {"payment_id": payment_id, "service_payment_id": decision.service_id}
            if transaction.scalar("is_charge_of_another", **charge):
                raise NotResolvable(
                    "E_NOT_RESOLVABLE: another payment of the batch has this charge, and one charge pays one"
                )
            transaction.execute("resolve_as_paid", **charge)
        follow_payments(transaction, [payment_id])
        make_ready(transaction, [payment_id])
        _note(transaction, decision, "not_paid" if decision.service_id is None else "paid", payment_id=payment_id)
    return str(payment.batch_id)


def resolve_refund(database: Database, refund_id: str, decision: Decision) -> str:
    """Write a person's decision about a refund down and return its batch; raise NotResolvable.

    A refund that was not made is planned again; one that was has refunded its orders, and its customers are corrected.
    """
    with _undecided(database, "refund", refund_id) as (transaction, refund):
        refund_id = str(refund.refund_id)
        if decision.service_id is None:
            transaction.execute("resolve_as_not_refunded", refund_id=refund_id)
        else:
            transaction.execute("resolve_as_refunded", refund_id=refund_id, service_refund_id=decision.service_id)
            follow_refunds(transaction, [refund_id])
        _note(transaction, decision, "not_refunded" if decision.service_id is None else "refunded", refund_id=refund_id)
    return str(refund.batch_id)


@contextlib.contextmanager
def _undecided(
    database: Database, what: Literal["payment", "refund"], item_id: str
) -> Iterator[tuple[Transaction, Row[Any]]]:
    """Lock the payment or refund with this id, which only a person can decide about: (transaction, its row)."""
    try:
        known = str(uuid.UUID(item_id))
    except ValueError:
        raise NothingToResolve(f"E_NOT_RESOLVABLE: this is not the id of a {what}") from None
    with database.begin() as transaction:
        if what == "payment":
            row = transaction.row("payment_to_resolve", payment_id=known)
        else:
            transaction.rows("lock_payments_of_refunds", refund_ids=[known])  # first, as who records refunds does
            row = transaction.row("refund_to_resolve", refund_id=known)
        if row is None:
            raise NothingToResolve(f"E_NOT_RESOLVABLE: there is no such {what}")
        end_lost_workers(transaction, row.batch_id)
        if row.status != "unknown":
            raise NotResolvable(
                f"E_NOT_RESOLVABLE: the {what} is {row.status}, and only an unknown one can be decided about"
            )
        if row.claimed_by in {worker.worker_id for worker in transaction.rows("live_workers", batch_id=row.batch_id)}:
            raise NotResolvable(f"E_NOT_RESOLVABLE: the {what} is being processed now; try again when that is over")
        yield transaction, row


def _note(
    transaction: Transaction,
    decision: Decision,
    word: str,
    *,
    payment_id: str | None = None,
    refund_id: str | None = None,
) -> None:
    transaction.execute(
        "insert_resolution",
        payment_id=payment_id,
        refund_id=refund_id,
        decision=word,
        decided_by=decision.decided_by,
        reason=decision.reason,
    )

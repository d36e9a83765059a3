"""The plan of a refund: which orders were chosen, what can be refunded of each, and the refunds written down for it.

A plan is read and shown before anything happens; what is written later is at most what was shown. Sending belongs
in `ledger.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from orders_pipeline.batches import batches
from orders_pipeline.batches.batch_lock import BatchBusy
from orders_pipeline.batches.workers import end_lost_workers
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.system.errors import NotThere

NOT_PAID = ("pending", "paying", "declined", "unknown")
NOT_FINAL = frozenset({"pending", "paying", "unknown"})
SHOWN_REFS = 5
REF = re.compile(r"[A-Za-z0-9_./-]{1,64}")


class UnknownOrders(NotThere):
    """Some of the named orders are not in the batch: `missing`, as they were named."""

    code = "E_UNKNOWN_ORDER"

    def __init__(self, missing: Sequence[str]) -> None:
        shown = [ref for ref in missing if REF.fullmatch(ref)][:SHOWN_REFS]
        which = f": {', '.join(shown)}{', ...' if len(shown) < len(missing) else ''}" if shown else ""
        verb = "is" if len(missing) == 1 else "are"
        super().__init__(f"{self.code}: {len(missing)} of the named orders {verb} not in this batch{which}")
        self.missing = missing


@dataclass(frozen=True)
class ChosenOrder:
    """An order as a refund sees it."""

    order_id: int
    amount: int  # yen
    status: str
    payment_id: str | None = None
    is_under_way: bool = False  # a refund of it was begun and is not settled
    was_notified: bool = False  # its customer was or may have been notified


@dataclass(frozen=True)
class RefundPlan:
    """What a refund of a batch, or of some of its orders, comes to."""

    batch_id: str
    orders: Sequence[ChosenOrder]

    @cached_property
    def refundable(self) -> list[ChosenOrder]:
        """Return the orders that are paid and without a refund under way."""
        return [order for order in self.orders if order.status == "paid" and not order.is_under_way]

    @cached_property
    def under_way(self) -> list[ChosenOrder]:
        """Return the orders with a refund that was begun and is not settled."""
        return [order for order in self.orders if order.is_under_way]

    @property
    def order_ids(self) -> list[int]:
        """Return the ids of all chosen orders."""
        return [order.order_id for order in self.orders]

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is left to refund."""
        return not (self.refundable or self.under_way)

    @property
    def not_final(self) -> int:
        """Return how many of the orders may still come to be paid."""
        return sum(order.status in NOT_FINAL for order in self.orders)

    @property
    def digest(self) -> str:
        """Return what is another as soon as anything else would be refunded."""
        would_be = sorted((order.order_id, order.amount, order.payment_id) for order in self.refundable)
        return hashlib.sha256(json.dumps([self.batch_id, would_be]).encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Return the counts and yen of each class, as shown before anything happens."""
        classes = {
            "refundable": self.refundable,
            "under_way": self.under_way,
            "refunded": [order for order in self.orders if order.status == "refunded"],
            "not_paid": [order for order in self.orders if order.status in NOT_PAID],
        }
        to_correct = [order for order in (*self.refundable, *self.under_way) if order.was_notified]
        return {
            "orders": {"chosen": len(self.orders)}
            | {name: len(orders) for name, orders in classes.items()}
            | {"notified": len(to_correct)},
            "not_paid": {state: sum(order.status == state for order in self.orders) for state in NOT_PAID},
            "refunds": len({order.payment_id for order in self.refundable}),
            "amount_jpy": {name: sum(order.amount for order in orders) for name, orders in classes.items()},
        }


def read_plan(database: Database, batch_id: str, refs: Sequence[str] = ()) -> RefundPlan:
    """Read what can be refunded of a batch, or of the orders with these references (in any case), and change nothing.

    An unsettled refund that covers a named order takes its other orders along. Raises UnknownBatch and UnknownOrders.
    """
    named = {ref.lower(): ref for ref in refs}
    with database.begin() as transaction:
        batches.get(transaction, batch_id)
        rows = transaction.rows("orders_to_choose", batch_id=batch_id, refs=list(named) or None)
    _require(named, {row.ref for row in rows})
    orders = [
        ChosenOrder(
            order_id=row.order_id,
            amount=row.amount,
            status=row.status,
            payment_id=None if row.payment_id is None else str(row.payment_id),
            is_under_way=row.is_under_way,
            was_notified=row.was_notified,
        )
        for row in rows
    ]
    return RefundPlan(batch_id, orders)


def _require(named: Mapping[str, str], known: set[str]) -> None:
    missing = [ref for name, ref in named.items() if name not in known]
    if missing:
        raise UnknownOrders(missing)


def write_plan(
    database: Database,
    plan: RefundPlan,
    *,
    requested_by: str,
    reason: str,
    record: Callable[[Transaction, str | None, int], None] = lambda *_: None,
) -> list[str]:
    """Write down the refunds a plan needs, as one request, and return all of its orders' refunds that are not settled.

    What another request has begun meanwhile is not planned twice. `record` writes down with it what else belongs to the
    request: it is handed the request's id, if anything was planned, and for how many orders. Raises BatchBusy while the
    batch is being paid.
    """
    with database.begin() as transaction:
        transaction.row("lock_batch", batch_id=plan.batch_id)
        end_lost_workers(transaction, plan.batch_id)
        # customers would be notified of a payment while it is refunded
        if any(worker.run_id is not None for worker in transaction.rows("live_workers", batch_id=plan.batch_id)):
            raise BatchBusy(f"{BatchBusy.code}: the batch is being paid at this moment; refund it when that is over")
        rows = transaction.rows("orders_to_refund", order_ids=[order.order_id for order in plan.refundable])
        request_id = None
        if rows:
            asked = {"batch_id": plan.batch_id, "requested_by": requested_by}
            request_id = str(transaction.scalar("insert_refund_request", **asked))
            transaction.execute(
                "insert_refunds",
                **asked,
                request_id=request_id,
                reason=reason,
                refund_ids=[str(row.refund_id) for row in rows],
                payment_ids=[str(row.payment_id) for row in rows],
                amounts=[sum(row.amounts) for row in rows],
            )
            transaction.execute(
                "insert_refund_orders",
                refund_ids=[str(row.refund_id) for row in rows for _ in row.order_ids],
                order_ids=[order_id for row in rows for order_id in row.order_ids],
                amounts=[amount for row in rows for amount in row.amounts],
            )
        record(transaction, request_id, sum(len(row.order_ids) for row in rows))
        return [str(row.refund_id) for row in transaction.rows("open_refunds", order_ids=plan.order_ids)]

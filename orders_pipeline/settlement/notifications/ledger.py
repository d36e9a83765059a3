"""The ledger of notifications: of results, which wait until their orders are final, and of the corrections of refunds.

What is common to all ledgers belongs in `settlement/ledger.py`; who is notified of what in `plan.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

from sqlalchemy import Row

from orders_pipeline.audit import recording
from orders_pipeline.batches.workers import Worker
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.security import personal_data
from orders_pipeline.security.encryption import Cipher
from orders_pipeline.services.circuit_breaker import Breaker
from orders_pipeline.services.notification_service import SERVICE, Message
from orders_pipeline.settlement.ledger import Claim, Ledger
from orders_pipeline.settlement.notifications.plan import ADDRESS_COLUMN
from orders_pipeline.settlement.refusals import Refusals, Tried

NotificationClaim: TypeAlias = Claim[Message]

MAX_ORDERS = 100  # named one by one in a digest; the totals cover all
MAX_ITEMS = 5  # named of an order that has lines
NOTIFICATION_BREAKER = Breaker(SERVICE)


class NotificationLedger(Ledger[NotificationClaim]):
    """A batch's notifications in the database, as one worker sees them."""

    breaker = NOTIFICATION_BREAKER
    refusals = Refusals(SERVICE, a_person_decides=False)
    statuses: ClassVar = {"succeeded": "sent", "declined": "failed", "not_sent": "ready", "unknown": "unknown"}
    look_ups_wait = False

    def __init__(self, database: Database, cipher: Cipher, worker: Worker, template_id: str) -> None:
        super().__init__(database, worker)
        self._cipher = cipher
        self._template_id = template_id

    def _begun(self, transaction: Transaction) -> None:
        transaction.execute("ready_notifications_of_batch", batch_id=self._worker.batch_id)

    def _read(self, transaction: Transaction, item_ids: Sequence[str]) -> list[NotificationClaim]:
        # a second statement, so that it sees what a refund has changed that the claim waited for
        most = {"most_orders": MAX_ORDERS // MAX_ITEMS, "most_items": MAX_ITEMS}
        rows = transaction.rows("claimed_notifications", notification_ids=list(item_ids), **most)
        recording.read_personal(transaction, "to notify", self._worker.batch_id, len(rows))
        return [self._claim(row) for row in rows]

    def _claim(self, row: Row[Any]) -> NotificationClaim:
        opened = personal_data.decrypt(self._cipher, self._worker.batch_id, row.import_row_number, row.personal)
        message = Message(
            notification_id=str(row.notification_id),
            batch_id=self._worker.batch_id,
            template_id=self._template_id,
            channel=row.channel,
            customer_code=row.customer_code,
            address=opened[ADDRESS_COLUMN[row.channel]],
            variables=_variables(opened.get("customer_name", ""), row),
            order_refs=row.order_refs,
        )
        return Claim(message, row.attempts, row.status == "unknown")

    def _tried(self, claim: NotificationClaim) -> Tried:
        message = claim.request
        return Tried(message.notification_id, message.template_id, message.customer_code, claim.in_doubt)


class ResultLedger(NotificationLedger):
    """Those that say what became of orders."""

    name = "results"

    def __init__(self, database: Database, cipher: Cipher, worker: Worker, profile: Profile) -> None:
        template_id = "order-result" if profile.notifications == "per_order" else "order-digest"
        super().__init__(database, cipher, worker, template_id)

    def claim_doubtful(self) -> list[NotificationClaim]:
        """Take those that may have been sent, to look them up."""
        ids = {"batch_id": self._worker.batch_id, "worker_id": self._worker.worker_id}
        with self._database.begin() as transaction:
            claimed = transaction.rows("claim_doubtful_notifications", **ids)
            return self._read(transaction, [str(row.notification_id) for row in claimed])


class CorrectionLedger(NotificationLedger):
    """Those that say that an order was refunded whose customer was notified otherwise; they belong to refunds."""

    name = "corrections"
    ends_with_batch = False

    def __init__(self, database: Database, cipher: Cipher, worker: Worker) -> None:
        super().__init__(database, cipher, worker, "order-refund")


def _variables(customer_name: str, row: Row[Any]) -> dict[str, Any]:
    orders = [
        {"client_order_ref": ref, "amount": amount, "outcome": status} | _items(line_count, items)
        for ref, amount, status, line_count, items in zip(
            row.refs, row.amounts, row.order_statuses, row.line_counts, row.items, strict=True
        )
    ]
    paid = [order["amount"] for order in orders if order["outcome"] == "paid"]
    refunded = [order["amount"] for order in orders if order["outcome"] == "refunded"]
    refund_totals = {"refunded_count": len(refunded), "refunded_amount": sum(refunded)} if refunded else {}
    return {
        "customer_name": customer_name,
        "orders": orders[:MAX_ORDERS],
        "order_count": len(orders),
        "paid_count": len(paid),
        "paid_amount": sum(paid),
        "declined_count": sum(order["outcome"] == "declined" for order in orders),
    } | refund_totals


def _items(line_count: int | None, items: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """Return what is said of an order's lines, where it has some: how many there are, and the first ones."""
    if line_count is None:
        return {}
    return {"item_count": line_count} | ({} if items is None else {"items": items})

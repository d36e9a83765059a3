"""The plan of notifications: who is notified of which orders, and when it is final.

Claiming and recording belong in `ledger.py`, sending in `notify.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from orders_pipeline.audit import recording
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.database import Database, Transaction, array_of
from orders_pipeline.security import personal_data
from orders_pipeline.security.encryption import Cipher

ADDRESS_COLUMN = {"email": "email", "sms": "phone"}


def plan_notifications(database: Database, cipher: Cipher, batch_id: str, profile: Profile) -> int:
    """Write down the notifications for a batch's orders that have none and return their number.

    A digest is for one customer, channel and address: nobody is notified of orders that belong to another address.
    """
    with database.begin() as transaction:
        transaction.row("lock_batch", batch_id=batch_id)
        rows = transaction.rows("orders_to_notify", batch_id=batch_id)
        groups: defaultdict[tuple[object, ...], list[Row[Any]]] = defaultdict(list)
        for row in rows:
            opened = personal_data.decrypt(cipher, batch_id, row.import_row_number, row.personal)
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

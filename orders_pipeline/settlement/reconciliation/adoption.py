"""What our ledger takes over from the service: the end of payments that only the service knows, as their worker would have.

Payments that a lost database had planned are planned anew first, so that they can be taken over too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Row

from orders_pipeline.audit import recording
from orders_pipeline.clients.profiles import Clients
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.database_errors import DatabaseUnavailable
from orders_pipeline.security.encryption import Cipher
from orders_pipeline.settlement.notifications.plan import make_ready
from orders_pipeline.settlement.payments import settle
from orders_pipeline.settlement.payments.ledger import follow_payments
from orders_pipeline.system import errors


def plan_lost(database: Database, cipher: Cipher, clients: Clients, session: Transaction) -> bool:
    """Plan what could not be while paying was stopped, and return whether some of it is what the service has already.

    A batch that cannot be planned does not stop the others: its code is noted, and what it lost stays a finding.
    """
    for batch in session.rows("batches_to_plan"):
        profile = clients.profile_of_batch(batch.client_code)
        try:
            settle.plan_batch(database, cipher, batch.batch_id, profile)
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one batch
            recording.failed(database, error)
            session.execute("note_trouble", batch_id=batch.batch_id, code=errors.code_of(error))
    return session.execute("match_planned_since") > 0


def adopt_all(database: Database, clients: Clients, session: Transaction, scope: Mapping[str, object]) -> int:
    """Settle the payments that only the service knows the end of and return their number."""
    names = ("batch_id", "started_at", "young_s")
    parameters = {name: value for name, value in scope.items() if name in names}
    found = session.rows("payments_to_adopt", **parameters)
    adopted = 0
    for (_, client_code), rows in groupby(found, key=lambda row: (row.batch_id, row.client_code)):
        profile = clients.profile_of_batch(client_code)
        adopted += _adopt(database, list(rows), retry_orders=profile.declined_payments == "retry_orders")
    return adopted


def _adopt(database: Database, rows: Sequence[Row[Any]], *, retry_orders: bool) -> int:
    """Record of a batch's unknown payments what the service says, as their own worker would have."""
    with database.begin() as transaction:
        written = transaction.rows(
            "adopt_payments",
            payment_ids=[str(row.payment_id) for row in rows],
            statuses=["declined" if row.status == "failed" else "succeeded" for row in rows],
            service_payment_ids=[row.service_payment_id for row in rows],
            codes=[row.failure_code for row in rows],
            times=[row.created_at for row in rows],
        )
        payment_ids = [str(row.payment_id) for row in written]
        follow_payments(transaction, payment_ids)
        declined = [str(row.payment_id) for row in written if row.status == "declined"]
        transaction.execute("retire_allocations", payment_ids=declined)
        if retry_orders:
            transaction.execute("plan_declined_orders_singly", payment_ids=declined)
        make_ready(transaction, payment_ids)
        transaction.execute("note_adopted_payments", payment_ids=payment_ids)
    return len(payment_ids)

"""The sweep: batches without a worker that could be resumed now: unfinished ones, and those with open refunds.

What a process or host that vanished left behind, and what was paused while a service was away. Asking for runs, and putting
Dagster's own records right, belongs in `orchestration/sensors.py`; taking over claims in `ledger.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from orders_pipeline.batches.batch_lock import BATCH_LOCK_CLASS
from orders_pipeline.batches.workers import WORKER_LOCK_CLASS
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.settlement.notifications.ledger import NOTIFICATION_BREAKER
from orders_pipeline.settlement.payments.ledger import PAYMENT_BREAKER

PATIENCE_S = 30.0  # a batch may have no worker for so long, as between two steps of its run
LONGEST_S = 600.0  # between two tries of one batch
API_PATIENCE_S = 10.0  # a run that the batch API has asked for may take this long to begin: whoever asked waits
MOST = 100  # batches in one sweep


def stalled_batches(database: Database) -> list[Row[Any]]:
    """Return the batches (`batch_id`, `client_code`, `csv_source`, `run_requests`) that a run would resume, oldest first.

    Batches that wait for a service whose breaker is open are not among them, but for one that may probe it.
    """
    with database.begin() as transaction:
        transaction.execute("end_all_lost_workers", lock_class=WORKER_LOCK_CLASS)
        transaction.execute("note_idle_batches", lock_class=BATCH_LOCK_CLASS)
        bounds = {"patience_s": PATIENCE_S, "api_patience_s": API_PATIENCE_S, "longest_s": LONGEST_S, "limit": MOST}
        found = transaction.rows("stalled_batches", **bounds)
        known = {row.batch_id for row in found}
        refunding = [row for row in transaction.rows("batches_refunding", **bounds) if row.batch_id not in known]
        return _without_open_breakers(transaction, [*found, *refunding])


def _without_open_breakers(transaction: Transaction, rows: Sequence[Row[Any]]) -> list[Row[Any]]:
    """Leave out batches that only have to do with services whose breakers are open; one at a time goes to probe."""
    waits = {each.service: each.wait_for_probe_s(transaction) for each in (PAYMENT_BREAKER, NOTIFICATION_BREAKER)}
    chosen = []
    for row in rows:
        due = [
            service
            for service, is_due in (
                (PAYMENT_BREAKER.service, row.payments_due),
                (NOTIFICATION_BREAKER.service, row.notifications_due),
            )
            if is_due
        ]
        closed = [service for service in due if waits[service] is None]
        probes = [service for service in due if (wait := waits[service]) is not None and wait <= 0]
        if due and not closed and not probes:
            continue
        chosen.append(row)
        for service in probes:  # the next batch that needs it waits for what this one finds
            waits[service] = LONGEST_S
    return chosen

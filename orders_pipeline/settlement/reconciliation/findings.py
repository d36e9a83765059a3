"""Findings: what differs between our ledger and the service's list, each one however often it is seen, until it is gone.

What differs is found out by `compare_payments` in `sql/queries/reconciliation.sql`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.system.errors import NotThere

FINDINGS: Mapping[str, str] = {
    "C_MISSING_THERE": "paid in our ledger, and the service has no such payment",
    "C_MISSING_HERE": "charged by the service, and not by our ledger",
    "C_AMOUNT_DIFFERS": "another amount at the service",
    "C_STATE_DIFFERS": "another state at the service",
    "C_CHARGED_TWICE": "charged more than once by the service",
    "C_REFUND_MISSING_THERE": "refunded in our ledger, and not by the service",
    "C_REFUND_MISSING_HERE": "refunded by the service, and not in our ledger",
    "C_UNREADABLE": "listed by the service in a form that cannot be read",
}
SHOWN_FINDINGS = 1000


class UnknownFinding(NotThere):
    """There is no such finding to accept."""

    code = "E_UNKNOWN_FINDING"


def open_findings(transaction: Transaction, batch_id: str | None) -> list[dict[str, Any]]:
    """Return the oldest open findings of a batch, or of all, each with its age in seconds; accepted ones are the last."""
    return [
        {
            "finding_id": row.finding_id,
            "code": row.code,
            "batch_id": row.batch_id,
            "payment_id": None if row.payment_id is None else str(row.payment_id),
            "service_payment_id": row.service_payment_id,
            **row.detail,
            "first_seen_at": row.first_seen_at.isoformat(timespec="seconds"),
            "age_s": int(row.age_s),
            "accepted": None if row.accepted_at is None else {"by": row.accepted_by, "why": row.accepted_why},
        }
        for row in transaction.rows("open_findings", batch_id=batch_id, limit=SHOWN_FINDINGS)
    ]


def accept(database: Database, finding_id: int, *, accepted_by: str, why: str) -> None:
    """Accept an open finding, which then holds up no payments: a person answers for it; raise UnknownFinding."""
    with database.begin() as transaction:
        if not transaction.execute("accept_finding", finding_id=finding_id, accepted_by=accepted_by, accepted_why=why):
            raise UnknownFinding("E_UNKNOWN_FINDING: there is no open finding with this number that is not accepted yet")

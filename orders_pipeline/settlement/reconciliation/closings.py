"""Closing records: what a finished batch came to, in our ledger and at the Payment service, written when both are compared.

A record is never changed; a later comparison that says something else writes another. What is compared, and what differs,
is found out in `reconcile.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from orders_pipeline.infrastructure.database import Transaction

FIGURES = (
    "batch_id",
    "source_sha256",
    "rows_total",
    "rows_accepted",
    "rows_rejected",
    "rows_blank",
    "rows_skipped",
    "orders_paid",
    "orders_declined",
    "amount_accepted",
    "amount_paid",
    "amount_declined",
    "amount_at_service",
)


def close_batches(session: Transaction, scope: Mapping[str, object]) -> list[str]:
    """Write the closing records that are due after a comparison, in its session, and return their batches."""
    names = ("batch_id", "covered_from", "covered_to")
    closed = []
    for batch in session.rows("batches_to_close", **{name: scope[name] for name in names}):
        figures = figures_of(batch)
        sha256 = sha256_of(figures)
        if sha256 != batch.last_sha256:
            session.execute("insert_closing", **figures, figures_sha256=sha256)
            closed.append(str(batch.batch_id))
    return closed


def figures_of(row: Row[Any]) -> dict[str, Any]:
    """Return the figures of a closing record from a row that has them."""
    figures = {name: getattr(row, name) for name in FIGURES}
    whole = {
        name: int(value) if name.startswith("amount_") and value is not None else value for name, value in figures.items()
    }
    return whole | {"differences": list(row.differences)}


def sha256_of(figures: Mapping[str, Any]) -> str:
    """Return the SHA-256 of figures as canonical JSON: keys sorted, no blanks."""
    text = json.dumps(dict(figures), ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

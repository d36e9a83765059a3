"""Declarations: what a client says of its own file, kept with the batch and held against the file.

The manifest beside the file, the sequence number in its name, and how many bad rows its profile allows. What manifests and
numbers mean is in `manifest.py` and `clients/sequences.py`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from orders_pipeline.clients import sequences
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.clients.sequences import Position
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.intake.manifest import Manifest
from orders_pipeline.intake.validation import TOTAL_ROW, Validated
from orders_pipeline.records.rejections import FileRejected, Rejection


def position_of(profile: Profile, name: str) -> Position | None:
    """Return the place that a file of this name has in its client's sequence, or None without one."""
    return sequences.position_of(name, profile.sequence) if profile.sequence is not None else None


def note(transaction: Transaction, batch_id: str, profile: Profile, name: str, manifest: Manifest | None) -> None:
    """Keep what the client says of a batch's file, which it called `name`."""
    position = position_of(profile, name)
    transaction.execute(
        "set_control",
        batch_id=batch_id,
        manifest=None if manifest is None else manifest.model_dump_json(exclude_none=True),
        series=None if position is None else position.series,
        number=None if position is None else position.number,
    )


def manifest_of(batch: Row[Any]) -> Manifest | None:
    """Return the manifest that came with a batch."""
    return None if batch.manifest is None else Manifest.model_validate(batch.manifest)


def sequence_gap(transaction: Transaction, client_code: str, position: Position | None) -> list[Rejection]:
    """Return a warning when a file of the client's sequence seems to be missing before the one at this position."""
    if position is None:
        return []
    latest = transaction.scalar("latest_before", client_code=client_code, series=position.series, number=position.number)
    missing = sequences.missing_before(position, latest)
    detail = {"expected": str(missing), "found": str(position.number)}
    return [] if missing is None else [Rejection(None, None, None, "W_SEQUENCE_GAP", detail)]


def check_validated(profile: Profile, manifest: Manifest | None, result: Validated) -> None:
    """Refuse a file with other totals than its manifest's, or of which more rows are bad than the profile allows."""
    rows, total_rows = result.rows_accepted + result.rows_rejected, result.rejections[TOTAL_ROW]
    if manifest is not None:
        manifest.check_totals(
            rows + result.rows_same - total_rows,
            result.amount_sent,
            unreadable=result.amounts_unreadable,
            has_total_row=total_rows > 0,
        )
    limit = profile.most_bad_rows(rows)
    if result.rows_rejected > limit:
        raise FileRejected("F_TOO_MANY_ERRORS", {"rejected": str(result.rows_rejected), "limit": str(limit)})

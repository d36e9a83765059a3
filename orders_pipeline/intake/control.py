"""Control: what a client says of its own file, noted when the file arrives and held against it.

The manifest beside the file, the sequence number in its name, and how many bad rows its profile puts up with. What
manifests and numbers mean is in `manifest.py` and `clients/sequences.py`; the steps of a file are in `steps.py`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Row

from orders_pipeline.clients import sequences
from orders_pipeline.clients.file_names import composed, forms_of, is_order_name
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.clients.sequences import Position
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.infrastructure.storage import KeyRefused, Storage, StoredObject
from orders_pipeline.intake.manifest import MOST_BYTES, Manifest, manifest_names, read_manifest
from orders_pipeline.intake.validation import TOTAL_ROW, Validated
from orders_pipeline.records.rejections import FileRejected, Rejection

Found = TypeVar("Found")


def manifest_beside(path: Path) -> Manifest | None:
    """Return the manifest of a local file, if there is one beside it; raise FileRejected."""

    def find(name: str) -> Path | None:
        beside = (path.with_name(form) for form in forms_of(name))
        return next((each for each in beside if os.path.lexists(each)), None)  # nor is one there whose name is too long

    manifest = _only_one(path.name, find, lambda: (each.name for each in path.parent.iterdir()))
    if manifest is None:
        return None
    try:
        with manifest.open("rb") as file:
            return read_manifest(file.read(MOST_BYTES + 1))
    except OSError:
        raise FileRejected("F_DENIED") from None


def landed_manifest(landing: Storage, landing_key: str, copy: Path) -> Manifest | None:
    """Return the manifest of a landed file, if there is one beside it, by way of a local copy; raise FileRejected."""

    def find(key: str) -> StoredObject | None:
        for form in forms_of(key):
            with contextlib.suppress(KeyRefused):  # its name would be too long
                if (found := landing.head(form)) is not None:
                    return found
        return None

    folder = landing_key.rpartition("/")[0]
    landed = _only_one(landing_key, find, lambda: (stored.key for stored in landing.list(folder + "/")))
    if landed is None:
        return None
    if landed.size > MOST_BYTES:
        raise FileRejected("F_MANIFEST")
    landing.fetch(landed, copy)
    return read_manifest(copy.read_bytes())


def _only_one(name: str, find: Callable[[str], Found | None], names_beside: Callable[[], Iterable[str]]) -> Found | None:
    """Return a file's manifest; raise FileRejected where another order file has the same one as well."""
    own, shared = manifest_names(name)
    if (found := find(own)) is not None or (found := find(shared)) is None:
        return found
    rivals = {composed(each) for each in names_beside() if is_order_name(each)} - {composed(name)}
    if any(manifest_names(each)[1] == composed(shared) for each in rivals):
        raise FileRejected("F_MANIFEST_SHARED")
    return found


def position_of(profile: Profile, name: str) -> Position | None:
    """Return the place that a client's file of this name has in its sequence, where it has one."""
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
            rows - total_rows,
            result.amount_sent,
            unreadable=result.amounts_unreadable,
            has_total_row=total_rows > 0,
        )
    limit = profile.most_bad_rows(rows)
    if result.rows_rejected > limit:
        raise FileRejected("F_TOO_MANY_ERRORS", {"rejected": str(result.rows_rejected), "limit": str(limit)})

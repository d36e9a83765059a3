"""The reports of a batch in the storage: their names, where they lie, and reading them.

Their content is made in `rejected_csv.py`, `errors_csv.py` and `summaries.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orders_pipeline.batches import batches
from orders_pipeline.batches.artifacts import artifact
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.storage import Storage
from orders_pipeline.system.errors import NotThere

REPORTS = {"rejected": "rejected.csv", "errors": "errors.csv", "result": "result.json"}


class NoReport(NotThere):
    """A batch has no such report."""

    code = "E_NO_REPORT"


def located(storage: Storage, kept: dict[str, Any]) -> dict[str, Any]:
    """Return a summary that was kept, with its reports where they are now."""
    keys = {name: artifact(kept["batch_id"], REPORTS[name]) for name in kept["artifacts"]}
    return kept | {"artifacts": {name: storage.location(key) for name, key in keys.items()}}


def locations(storage: Storage, batch_id: str) -> dict[str, str]:
    """Return where the reports of a batch are, by name; the storage is asked, so this belongs in no transaction."""
    keys = {name: artifact(batch_id, file) for name, file in REPORTS.items()}
    return {name: storage.location(key) for name, key in keys.items() if name == "result" or storage.head(key) is not None}


@contextlib.contextmanager
def report(storage: Storage, database: Database, batch_id: str, name: str) -> Iterator[Path | None]:
    """Give one of a batch's report files, or None where it has none; raise UnknownBatch."""
    with database.begin() as transaction:
        batches.get(transaction, batch_id)
    key = artifact(batch_id, REPORTS[name])
    if storage.head(key) is None:
        yield None
        return
    with storage.local(key) as path:
        yield path


def rows_open(database: Database, batch_id: str) -> tuple[int, int] | None:
    """Return how many of the rows in rejected.csv still wait for a correction, and of how many; None before one has come."""
    with database.begin() as transaction:
        batch = batches.get(transaction, batch_id)
        group = transaction.rows("import_group", bulk_import_group=batch.bulk_import_group)[0]
        left = transaction.rows("rows_to_correct_in", bulk_import_group=batch.bulk_import_group, batch_id=batch_id)
    is_read = not (batch.status_code or "").startswith("F_")
    return (len(left), batch.rows_rejected) if is_read and group.batches > 1 else None


def report_path(batch_id: str, name: str) -> str:
    """Return the path of a report below ORDERS_REPORTS_URL; `name` is a key of `REPORTS`."""
    return f"/batches/{batch_id}/{REPORTS[name]}"

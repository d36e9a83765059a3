"""The end of a batch: its reports are written, it gets the state its counts amount to, and its summary is kept.

Those of its rows are written first once they are loaded, as who corrects them need not wait for payments.
Reports are made from the archive and the database alone, so each can be made again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from orders_pipeline.batches import batches
from orders_pipeline.batches.artifacts import STAGED, artifact, lent
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.scratch import Packed
from orders_pipeline.infrastructure.storage import ObjectGone, Storage, StorageError
from orders_pipeline.reports.errors_csv import ErrorsCsv
from orders_pipeline.reports.rejected_csv import RejectedCsv
from orders_pipeline.reports.rejected_rows import as_rejection, rejected_rows
from orders_pipeline.reports.report_files import REPORTS, locations
from orders_pipeline.reports.summaries import keep_summary, summarise, summary_of
from orders_pipeline.security.encryption import DecryptionError
from orders_pipeline.system.composition import System
from orders_pipeline.system.errors import code_of

ROWS_GONE = "W_ROWS_GONE"
FINISH_TRIES = 3  # reports are written anew when the batch has changed while they were written


def finish_batch(storage: Storage, database: Database, batch_id: str) -> dict[str, Any]:
    """Write a batch's reports, put it into the state its counts amount to, and return its summary."""
    started = time.monotonic()
    for tries_left in reversed(range(FINISH_TRIES)):
        batch = _try_reports(storage, database, batch_id)
        where = locations(storage, batch_id)
        with database.begin() as transaction:
            at = transaction.scalar("moment")
        end = _End(batch_id, batches.counts(batch) if tries_left else None, at, time.monotonic() - started, where)
        tried = end.try_out(database)
        if tried is None:
            continue
        result = tried
        # before the batch has ended: nothing would make up for a result that is missing then
        storage.put(artifact(batch_id, REPORTS["result"]), _as_result(result))
        with database.begin() as transaction:
            if end.apply(transaction) is not None:
                break
    keep_summary(storage, database, batch_id)
    return result


def _as_result(summary: Mapping[str, Any]) -> bytes:
    return json.dumps(summary, ensure_ascii=False, indent=2).encode()


def write_row_reports(storage: Storage, database: Database, batch_id: str) -> None:
    """Write what is to be corrected of a batch that has just been loaded; its end writes it again, or says why it cannot."""
    started = time.monotonic()
    with database.begin() as transaction:
        batch = batches.get(transaction, batch_id)
        rejects_rows = transaction.scalar("has_row_rejections", batch_id=batch_id)
    if batch.status != "loaded":
        return
    with contextlib.suppress(StorageError, DecryptionError):
        _put(storage, batch_id, _made_reports(storage, database, batch, with_rows=rejects_rows))
    with database.begin() as transaction:
        seconds = time.monotonic() - started
        transaction.execute("add_stage_seconds", batch_id=batch_id, stage="report", seconds=seconds)


class _RollBack(Exception):
    """Ends a transaction that was only to show what it would come to."""


@dataclass(frozen=True)
class _End:
    """The end of a batch whose reports are written.

    `counts` are those at the time of the reports, or None if the batch ends whatever has changed since.
    """

    batch_id: str
    counts: tuple[object, ...] | None
    at: datetime
    seconds: float
    artifacts: Mapping[str, str]

    def try_out(self, database: Database) -> dict[str, Any] | None:
        """Return the batch's summary as it will be at its end."""
        result = None
        with contextlib.suppress(_RollBack), database.begin() as transaction:
            result = self.apply(transaction)
            raise _RollBack
        return result

    def apply(self, transaction: Transaction) -> dict[str, Any] | None:
        """Put the batch into the state its counts amount to and return its summary.

        Does nothing and returns None where others have worked on it meanwhile: the reports say what was before.
        """
        now = batches.progress(transaction, self.batch_id)
        if self.counts not in (None, batches.counts(now)):
            return None
        held_by = {row.service for row in transaction.rows("held_refusals", batch_id=self.batch_id)}
        status, code = batches.final_status(now, held_by)
        batches.set_status(transaction, self.batch_id, status, code, at=self.at)
        transaction.execute("add_stage_seconds", batch_id=self.batch_id, stage="report", seconds=self.seconds)
        return summary_of(transaction, self.batch_id, self.artifacts)


def _try_reports(storage: Storage, database: Database, batch_id: str) -> Row[Any]:
    """Write all reports of a batch, or note with it why that cannot be done; return its row."""
    try:
        return _write_all_reports(storage, database, batch_id)
    except (StorageError, DecryptionError) as error:
        with database.begin() as transaction:
            transaction.execute("note_trouble", batch_id=batch_id, code=code_of(error))
        raise


def _write_all_reports(storage: Storage, database: Database, batch_id: str) -> Row[Any]:
    """Write the reports of a batch as it is now into the storage, and return its row.

    Where its file is gone, as from a storage that was put back, the reports are without its rows, and a warning says so.
    """
    with database.begin() as transaction:
        batch = batches.progress(transaction, batch_id)
        rejects_rows = transaction.scalar("has_row_rejections", batch_id=batch_id)
    try:
        made = _made_reports(storage, database, batch, with_rows=rejects_rows)
    except ObjectGone:
        with database.begin() as transaction:
            warning = {"line": None, "column_name": None, "code": ROWS_GONE, "detail": "{}"}
            transaction.execute("insert_file_rejection", batch_id=batch_id, **warning)
        made = _made_reports(storage, database, batch, with_rows=False)
    _put(storage, batch_id, made)
    return batch


def _put(storage: Storage, batch_id: str, reports: Mapping[str, Packed]) -> None:
    for name, report in reports.items():
        storage.put(artifact(batch_id, name), report.read())


def renew_result(system: System, batch_id: str) -> None:
    """Write result.json of a batch that has one as its summary is now; a storage that is away keeps what it has."""
    key = artifact(batch_id, REPORTS["result"])
    with contextlib.suppress(StorageError):
        if system.storage.head(key) is not None:
            system.storage.put(key, _as_result(summarise(system, batch_id)))


def _made_reports(storage: Storage, database: Database, batch: Row[Any], *, with_rows: bool) -> dict[str, Packed]:
    """Make errors.csv, and rejected.csv where rows are rejected and not the whole file; return the files by name.

    Without the rows, errors.csv says of each what is wrong, and there is no rejected.csv.
    """
    batch_id, layout = batch.batch_id, batch.source_layout
    errors = ErrorsCsv(layout["headers"] if layout else {})
    made = {REPORTS["errors"]: errors.packed}
    with contextlib.ExitStack() as stack:
        if with_rows:  # the storage is asked before the transaction begins
            text, staged = (
                stack.enter_context(lent(storage, database, batch_id, name)) for name in (layout["text"], STAGED)
            )
            rejected = RejectedCsv(batch, stack.enter_context(text.open("rb")))
            if not (batch.status_code or "").startswith("F_"):  # else all rows must come again, not only the bad ones
                made[REPORTS["rejected"]] = rejected.packed
        transaction = stack.enter_context(database.begin())
        errors.add(map(as_rejection, transaction.rows("file_rejections", batch_id=batch_id)))
        errors.add_orders(transaction.stream("orders_with_errors", batch_id=batch_id))
        of_rows = map(as_rejection, transaction.stream("row_rejections", batch_id=batch_id))
        if not with_rows:
            errors.add(of_rows)
            return made
        for row in rejected_rows(staged, of_rows):
            rejected.add(row)
            errors.add_row(row)
    return made

"""Reports: what a client gets back of a batch, and what a batch came to.

`rejected.csv` holds the rejected records byte for byte, ready to be corrected and sent again; `errors.csv` says to people
what is wrong; `result.json` sums up. Made from the archive and the database alone, so each can be made again.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, groupby
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import Row

from orders_pipeline.batches import batches
from orders_pipeline.batches.artifacts import STAGED, artifact, lent
from orders_pipeline.batches.workers import in_hand
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.scratch import Packed
from orders_pipeline.infrastructure.storage import ObjectGone, StorageError
from orders_pipeline.records.card_numbers import has_card_number
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import message
from orders_pipeline.security.encryption import DecryptionError
from orders_pipeline.settlement import sweep
from orders_pipeline.system import continuity
from orders_pipeline.system.errors import NotThere, code_of
from orders_pipeline.system.opening import System

REPORTS = {"rejected": "rejected.csv", "errors": "errors.csv", "result": "result.json"}
OUR_COLUMNS = ("_batch", "_row", "_line", "_codes")
ERROR_COLUMNS = ("row", "line", "column", "header", "code", "message_ja", "message", "value")
STAGED_ROWS = 2_000  # looked through at a time: they and their errors are objects
ROWS_GONE = "W_ROWS_GONE"
FINISH_TRIES = 3  # reports are written anew when the batch has changed while they were written
SHOWN_CHARS = 100  # of a value in errors.csv
_BATCH_CELL = re.compile(r'\s*"?(?:[0-9]{8}-[0-9a-f]{12})?"?\s*')
FORMULA_STARTS = tuple("=+-@|%\t\r\n＝＋－＠")


class NoReport(NotThere):
    """A batch has no such report."""

    code = "E_NO_REPORT"


class RejectionRow(Protocol):
    """A rejection, as the database has it."""

    @property
    def import_row_number(self) -> int | None:
        """Return the row, or None for the whole file."""

    @property
    def line(self) -> int | None:
        """Return the first physical line."""

    @property
    def column_name(self) -> str | None:
        """Return the column it is about."""

    @property
    def code(self) -> str:
        """Return its code."""

    @property
    def detail(self) -> Mapping[str, str]:
        """Return the safe parameters of its message."""


@dataclass(frozen=True)
class Listed:
    """A rejection that no database has."""

    import_row_number: int | None
    line: int | None
    column_name: str | None
    code: str
    detail: Mapping[str, str]


@dataclass(frozen=True)
class RejectedRow:
    """A row that is given back: where its record lies, its cells as sent, and all its rejections."""

    span: tuple[int, int]  # offset and length in bytes
    line: int
    cells: Mapping[str, str | None]
    rejections: Sequence[RejectionRow]


def finish_batch(system: System, batch_id: str) -> dict[str, Any]:
    """Write a batch's reports, put it into the state its counts amount to, and return its summary."""
    started = time.monotonic()
    for tries_left in reversed(range(FINISH_TRIES)):
        batch = _noted(system, batch_id)
        artifacts = _artifacts(system, batch_id)
        with system.database.begin() as transaction:
            at = transaction.scalar("moment")
        end = _End(batch_id, batches.counts(batch) if tries_left else None, at, time.monotonic() - started, artifacts)
        tried = end.try_out(system.database)
        if tried is None:
            continue
        result = tried
        # before the batch has ended: nothing would make up for a result that is missing then
        system.storage.put(artifact(batch_id, REPORTS["result"]), _as_result(result))
        with system.database.begin() as transaction:
            if end.come(transaction) is not None:
                break
    _counted(system, batch_id)
    return result


def _as_result(summary: Mapping[str, Any]) -> bytes:
    return json.dumps(summary, ensure_ascii=False, indent=2).encode()


class _Undone(Exception):
    """Takes back what a transaction did to find out what it would come to."""


@dataclass(frozen=True)
class _End:
    """The end of a batch whose reports are written; `counts` are those they say, or None if it comes in any case."""

    batch_id: str
    counts: tuple[object, ...] | None
    at: datetime
    seconds: float
    artifacts: Mapping[str, str]

    def try_out(self, database: Database) -> dict[str, Any] | None:
        """Return the batch's summary as it will be at its end."""
        result = None
        with contextlib.suppress(_Undone), database.begin() as transaction:
            result = self.come(transaction)
            raise _Undone
        return result

    def come(self, transaction: Transaction) -> dict[str, Any] | None:
        """Put the batch into the state its counts amount to and return its summary.

        Does nothing and returns None where others have worked on it meanwhile: the reports say what was before.
        """
        now = batches.get(transaction, self.batch_id)
        if self.counts not in (None, batches.counts(now)):
            return None
        held_by = {row.service for row in transaction.rows("held_refusals", batch_id=self.batch_id)}
        status, code = batches.final_status(now, held_by)
        batches.set_status(transaction, self.batch_id, status, code, at=self.at)
        transaction.execute("add_stage_seconds", batch_id=self.batch_id, stage="report", seconds=self.seconds)
        return _whole_summary(transaction, self.batch_id, self.artifacts)


def _noted(system: System, batch_id: str) -> Row[Any]:
    """Write all reports of a batch; it shows why that cannot be done."""
    try:
        return _write_all_reports(system, batch_id)
    except (StorageError, DecryptionError) as error:
        with system.database.begin() as transaction:
            transaction.execute("note_trouble", batch_id=batch_id, code=code_of(error))
        raise


def _write_all_reports(system: System, batch_id: str) -> Row[Any]:
    """Keep the reports of a batch as it is now, and return what it is.

    Where its file is gone, as from a storage that was put back, the reports are without its rows, and it is warned of that.
    """
    with system.database.begin() as transaction:
        batch = batches.get(transaction, batch_id)
        rejects_rows = transaction.scalar("has_row_rejections", batch_id=batch_id)
    try:
        made = _made_reports(system, batch, with_rows=rejects_rows)
    except ObjectGone:
        with system.database.begin() as transaction:
            warning = {"line": None, "column_name": None, "code": ROWS_GONE, "detail": "{}"}
            transaction.execute("insert_file_rejection", batch_id=batch_id, **warning)
        made = _made_reports(system, batch, with_rows=False)
    for name, report in made.items():
        system.storage.put(artifact(batch_id, name), report.read())
    return batch


def summarise(system: System, batch_id: str) -> dict[str, Any]:
    """Return what `status --json` shows of a batch, and what is open in its import group; raise UnknownBatch."""
    artifacts = _artifacts(system, batch_id)
    with system.database.begin() as transaction:
        summary = _whole_summary(transaction, batch_id, artifacts)
    return _with_turns(system, [summary])[0]


def _whole_summary(transaction: Transaction, batch_id: str, artifacts: Mapping[str, str]) -> dict[str, Any]:
    batch = batches.get(transaction, batch_id)
    group = transaction.rows("import_group", bulk_import_group=batch.bulk_import_group)[0]
    next_try = transaction.scalar("next_try", batch_id=batch_id, patience_s=sweep.PATIENCE_S, longest_s=sweep.LONGEST_S)
    return _summary(transaction, batch, artifacts) | {
        "next_try": None if next_try is None else next_try.isoformat(timespec="seconds"),
        "paying_rests": continuity.rest_shown(transaction),
        "corrections": {"batches": group.batches, "rows_open": group.rows_open, "open_in": list(group.open_in)},
        "services_left_alone": [
            {"service": each.service, "code": each.reason, "next_try": each.probe_at.isoformat(timespec="seconds")}
            for each in (transaction.rows("open_breakers") if batch.status == "paused" else ())
        ],
        "refused": [
            {"service": each.service, "code": each.code, "count": each.items}
            | {"since": each.since.isoformat(timespec="seconds"), "next_try": each.next_try.isoformat(timespec="seconds")}
            for each in transaction.rows("held_refusals", batch_id=batch_id)
        ],
        "unknown_payments": [
            {"payment_id": str(each.payment_id), "amount_jpy": each.amount, "code": each.outcome_code}
            | {"since": each.sent_at.isoformat(timespec="seconds"), "needs_a_person": each.needs_a_person}
            for each in transaction.rows("unknown_payments", batch_id=batch_id)
        ],
        "refunds": _refunds(transaction, batch_id),
        "open_refunds": [
            {"refund_id": str(each.refund_id), "status": each.status, "amount_jpy": each.amount}
            | {"code": each.outcome_code, "orders": list(each.refs), "needs_a_person": each.needs_a_person}
            | {"since": each.created_at.isoformat(timespec="seconds")}
            for each in transaction.rows("unsettled_refunds", batch_id=batch_id)
        ],
    }


def is_refunding(summary: Mapping[str, Any]) -> bool:
    """Tell from a batch's summary whether some of its refunds, or the corrections that follow them, are open."""
    return bool(summary["refunds"]["open"] or summary["refunds"]["corrections"]["open"])


def progress(system: System, batch_id: str) -> dict[str, Any]:
    """Return the part of a batch's summary that is counted from its orders alone; raise UnknownBatch."""
    with system.database.begin() as transaction:
        return batches.summary(batches.get(transaction, batch_id), {}, {}, {})


def recent(system: System, limit: int) -> list[dict[str, Any]]:
    """Return the summaries of the newest batches; those that are finished are counted once."""
    with system.database.begin() as transaction:
        newest = transaction.rows("recent_batches", limit=limit)
    summaries = [_counted(system, row.batch_id) if row.summary is None else _located(system, row.summary) for row in newest]
    return _with_turns(system, summaries)


def _with_turns(system: System, summaries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return summaries that say of which batches a run waits for its turn."""
    idle = [each["batch_id"] for each in summaries if each["status"] in batches.UNDER_WAY and not each["at_work"]]
    if not idle:
        return summaries
    # as whoever logs in: Dagster's tables are none of the application's
    with (
        contextlib.closing(Database(system.endpoints.database_url, pool_size=1)) as login,
        login.begin() as transaction,
    ):
        found = transaction.rows("queued_batches", batch_ids=idle) if transaction.scalar("dagster_runs_exist") else ()
    queued = {row.batch_id for row in found}
    return [each | {"queued": each["batch_id"] in queued} for each in summaries]


def _counted(system: System, batch_id: str) -> dict[str, Any]:
    """Return a batch's summary, and keep it where the batch is finished and nothing changes at this moment."""
    artifacts = _artifacts(system, batch_id)
    with system.database.begin() as transaction:
        is_still = transaction.scalar("lock_summary", batch_id=batch_id)
        summary = _summary(transaction, batches.get(transaction, batch_id), artifacts)
        if is_still:
            transaction.execute("keep_summary", batch_id=batch_id, summary=json.dumps(summary))
    return summary


def _located(system: System, kept: dict[str, Any]) -> dict[str, Any]:
    """Return a summary that was kept, with its reports where they are now."""
    keys = {name: artifact(kept["batch_id"], REPORTS[name]) for name in kept["artifacts"]}
    return kept | {"artifacts": {name: system.storage.location(key) for name, key in keys.items()}}


def _artifacts(system: System, batch_id: str) -> dict[str, str]:
    """Return where a batch's reports are, asked of the storage and never in a transaction."""
    keys = {name: artifact(batch_id, file) for name, file in REPORTS.items()}
    return {
        name: system.storage.location(key)
        for name, key in keys.items()
        if name == "result" or system.storage.head(key) is not None
    }


@contextlib.contextmanager
def report(system: System, batch_id: str, name: str) -> Iterator[Path | None]:
    """Give one of a batch's report files, or None where it has none; raise UnknownBatch."""
    with system.database.begin() as transaction:
        batches.get(transaction, batch_id)
    key = artifact(batch_id, REPORTS[name])
    if system.storage.head(key) is None:
        yield None
        return
    with system.storage.local(key) as path:
        yield path


def renew_result(system: System, batch_id: str) -> None:
    """Write result.json of a batch that has one as its summary is now; a storage that is away keeps what it has."""
    key = artifact(batch_id, REPORTS["result"])
    with contextlib.suppress(StorageError):
        if system.storage.head(key) is not None:
            system.storage.put(key, _as_result(summarise(system, batch_id)))


def report_path(batch_id: str, name: str) -> str:
    """Return the path of a report below ORDERS_REPORTS_URL; `name` is a key of `REPORTS`."""
    return f"/batches/{batch_id}/{REPORTS[name]}"


def errors_of(system: System, batch_id: str) -> Iterator[dict[str, Any]]:
    """Yield a batch's rejections with their messages, without any value; raise UnknownBatch."""
    with system.database.begin() as transaction:
        batches.get(transaction, batch_id)
        for row in chain(
            transaction.stream("rejections", batch_id=batch_id), transaction.stream("troubled_orders", batch_id=batch_id)
        ):
            yield {
                "row": row.import_row_number,
                "line": row.line,
                "column": row.column_name,
                "code": row.code,
                "message": message(row.code, "en", row.detail),
                "message_ja": message(row.code, "ja", row.detail),
            }


def _summary(transaction: Transaction, row: Row[Any], artifacts: Mapping[str, str]) -> dict[str, Any]:
    seconds = {each.stage: each.seconds for each in transaction.rows("stage_seconds", batch_id=row.batch_id)}
    found = transaction.rows("rejections_by_code", batch_id=row.batch_id)
    codes = {each.code: each.rows for each in found if not each.is_warning}
    warnings = [each.code for each in found if each.is_warning]
    details = {each.code: each.detail for each in transaction.rows("file_rejections", batch_id=row.batch_id)}
    if row.status_code and row.status_detail:
        details[row.status_code] = row.status_detail
    is_in_hand = row.finished_at is None and bool(in_hand(transaction, [row.batch_id]))
    return batches.summary(row, codes, seconds, artifacts) | {
        "warnings": warnings,
        "details": details,
        "at_work": is_in_hand,
        "queued": False,
    }


def _refunds(transaction: Transaction, batch_id: str) -> dict[str, Any]:
    totals = transaction.rows("refund_totals", batch_id=batch_id)[0]
    return {state: getattr(totals, state) for state in ("planned", "succeeded", "declined", "open")} | {
        "corrections": {state: getattr(totals, f"corrections_{state}") for state in ("planned", "sent", "failed", "open")}
    }


def _made_reports(system: System, batch: Row[Any], *, with_rows: bool) -> dict[str, Packed]:
    """Make errors.csv, and rejected.csv where rows are given back and not the whole file; return the files by name.

    Without the rows, errors.csv says of each what is wrong, and there is no rejected.csv.
    """
    errors, rejected = _Errors(), Packed()
    layout = batch.source_layout
    with contextlib.ExitStack() as stack:
        if with_rows:  # the storage is asked before the transaction begins
            text_path = stack.enter_context(lent(system, batch.batch_id, layout["text"]))
            text = stack.enter_context(text_path.open("rb"))
            staged = stack.enter_context(lent(system, batch.batch_id, STAGED))
        transaction = stack.enter_context(system.database.begin())
        of_file = transaction.rows("file_rejections", batch_id=batch.batch_id)
        errors.add(_error(each, each.line, None, {}) for each in of_file)
        errors.add(_trouble(each) for each in transaction.stream("troubled_orders", batch_id=batch.batch_id))
        if not with_rows:
            of_rows = transaction.stream("row_rejections", batch_id=batch.batch_id)
            errors.add(_error(each, each.line, {}, layout["headers"]) for each in of_rows)
            return {REPORTS["errors"]: errors.packed}
        returned = _RejectedFile(batch, text, rejected)
        for row in _rejected_rows(staged, transaction.stream("row_rejections", batch_id=batch.batch_id)):
            returned.write(row)
            errors.add(_error(each, row.line, row.cells, layout["headers"]) for each in row.rejections)
    if (batch.status_code or "").startswith("F_"):  # all rows must come again, not only the bad ones
        return {REPORTS["errors"]: errors.packed}
    return {REPORTS["errors"]: errors.packed, REPORTS["rejected"]: rejected}


class _Errors:
    """Writes errors.csv; the mark at its beginning says to spreadsheets that it is UTF-8."""

    def __init__(self) -> None:
        self.packed = Packed()
        self.packed.write(codecs.BOM_UTF8)
        self._writer = csv.writer(self)
        self._writer.writerow(ERROR_COLUMNS)

    def add(self, rows: Iterable[Sequence[object]]) -> None:
        self._writer.writerows(rows)

    def write(self, text: str) -> None:
        self.packed.write(text.encode())


def write_errors(
    target: Path, rejections: Sequence[RejectionRow], staged: Path | None, headers: Mapping[str, Sequence[str]]
) -> None:
    """Write the errors.csv of a file that is no batch; `staged` has its rows where they could be read."""
    errors = _Errors()
    errors.add(_error(each, each.line, None, {}) for each in rejections if each.import_row_number is None)
    if staged is not None:
        of_rows = (each for each in rejections if each.import_row_number is not None)
        for row in _rejected_rows(staged, of_rows):
            errors.add(_error(each, row.line, row.cells, headers) for each in row.rejections)
    with target.open("wb") as file:
        file.writelines(errors.packed.read())


def _rejected_rows(staged: Path, rejections: Iterator[RejectionRow]) -> Iterator[RejectedRow]:
    """Find the rejected rows in the staged file; both are in the order of the rows, and little of either is in memory."""
    by_row = groupby(rejections, key=lambda each: each.import_row_number or 0)
    ahead = next(by_row, None)
    with pq.ParquetFile(staged) as file:
        for chunk in file.iter_batches(STAGED_ROWS):
            last = chunk.column("import_row_number")[-1].as_py() if chunk.num_rows else 0
            wanted: dict[int, list[RejectionRow]] = {}
            while ahead is not None and ahead[0] <= last:
                wanted[ahead[0]] = list(ahead[1])
                ahead = next(by_row, None)
            numbers = pa.array(wanted, pa.int32())
            for cells in chunk.filter(pc.is_in(chunk.column("import_row_number"), value_set=numbers)).to_pylist():
                number = cells["import_row_number"]
                yield RejectedRow((cells["offset"], cells["length"]), cells["line"], cells, wanted[number])


class _RejectedFile:
    """Writes rejected.csv: the header and records as they were sent, with our columns at their end."""

    def __init__(self, batch: Row[Any], text: BinaryIO, target: Packed) -> None:
        layout = batch.source_layout
        delimiter = layout["delimiter"]
        self._batch_id = batch.batch_id
        self._codec = {"utf-8-sig": "utf-8"}.get(batch.encoding, batch.encoding)
        self._delimiter = delimiter
        self._line_ending = layout["line_ending"]
        self._text = text
        self._target = target
        header_offset, header_length = layout["header_span"]
        header = self._read((header_offset, header_length))
        # a correction that is corrected again has our columns already: they are replaced
        self._replace = header.endswith(self._encode(delimiter + delimiter.join(OUR_COLUMNS)))
        surplus = layout["surplus"]  # empty cells that rows have at their end and the header has not
        self._cells_replaced = len(OUR_COLUMNS) + surplus if self._replace else 0
        if self._replace:
            header = self._without_last(header, len(OUR_COLUMNS))
        else:  # our columns stand below their names
            header = header + self._encode(delimiter * surplus) if surplus >= 0 else self._without_last(header, -surplus)
        if self._codec.startswith("utf"):  # without it, a spreadsheet takes it for another encoding
            target.write("\ufeff".encode(self._codec))
        target.write(self._with_ours(header, OUR_COLUMNS))

    def write(self, row: RejectedRow) -> None:
        record = self._read(row.span)
        if self._has_ours(record):
            record = self._without_last(record, self._cells_replaced)
        codes = " ".join(dict.fromkeys(each.code for each in row.rejections))
        number = row.rejections[0].import_row_number
        self._target.write(self._with_ours(record, (self._batch_id, str(number), str(row.line), codes)))

    def _read(self, span: tuple[int, int]) -> bytes:
        self._text.seek(span[0])
        return self._text.read(span[1])

    def _has_ours(self, record: bytes) -> bool:
        """Tell whether a record ends in our columns, as its header does: somebody may have added rows without them."""
        cells = record.decode(self._codec, "replace").rsplit(self._delimiter, self._cells_replaced)
        return 1 < len(cells) == self._cells_replaced + 1 and bool(_BATCH_CELL.fullmatch(cells[1]))

    def _with_ours(self, record: bytes, ours: Sequence[str]) -> bytes:
        return record + self._encode(self._delimiter + self._delimiter.join(ours) + self._line_ending)

    def _without_last(self, record: bytes, cells: int) -> bytes:
        if not cells:
            return record
        if self._codec.startswith("utf-16"):  # a delimiter's two bytes also stand across two characters
            return self._encode(record.decode(self._codec).rsplit(self._delimiter, cells)[0])
        return record.rsplit(self._encode(self._delimiter), cells)[0]

    def _encode(self, text: str) -> bytes:
        return text.encode(self._codec)


def _error(
    rejection: RejectionRow,
    line: int | None,
    cells: Mapping[str, str | None] | None,
    headers: Mapping[str, Sequence[str]],
) -> list[object]:
    detail = rejection.detail
    return [
        rejection.import_row_number or "",
        line or "",
        rejection.column_name or "",
        _safe(" + ".join(headers.get(rejection.column_name or "", ()))),
        rejection.code,
        message(rejection.code, "ja", detail),
        message(rejection.code, "en", detail),
        _shown(rejection.column_name, cells),
    ]


def _trouble(order: Row[Any]) -> list[object]:
    """Return the line about an accepted order that was not paid or told of; its reference is the value shown."""
    ja, en = (message(order.code, language, order.detail) for language in ("ja", "en"))
    return [order.import_row_number, "", "", "", order.code, ja, en, _safe(order.client_order_ref)]


def _shown(column: str | None, cells: Mapping[str, str | None] | None) -> str:
    """Return the cell a rejection is about, safe for a spreadsheet; nothing of a personal column, and no card number."""
    if cells is None or column is None or column in ORDERS.personal_columns:
        return ""
    value = cells.get(column) or ""
    if has_card_number(value):
        return ""
    return _safe(value if len(value) <= SHOWN_CHARS else value[:SHOWN_CHARS] + "…")


def _safe(shown: str) -> str:
    """Return a cell that a spreadsheet shows and does not calculate."""
    return "'" + shown if shown.lstrip(" \u00a0\u3000").startswith(FORMULA_STARTS) else shown

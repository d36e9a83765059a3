"""Rows that a person corrects in the page: changed cell by cell, checked, and sent as a person's own file would be.

They go the way of every correction; nothing is judged or stored here. What was wrong with a row may have been another row, a
day or a setting: so rows that nobody changed are checked too, and are sent as they are where they can be taken now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Row
from starlette.responses import Response

from orders_pipeline.batches.artifacts import ORIGINAL, STAGED
from orders_pipeline.clients.file_names import is_converted, stem
from orders_pipeline.infrastructure.scratch import Scratch, scratch_files
from orders_pipeline.intake.file_validation import context_of
from orders_pipeline.intake.rejected_before import rejected_together
from orders_pipeline.records.rejections import Language
from orders_pipeline.web import submission, uploads
from orders_pipeline.web.calls import Call, answer, own_batch
from orders_pipeline.web.page.rendering import language_for
from orders_pipeline.web.page.sheet import Sheet, as_text_of, read_sheet, written
from orders_pipeline.web.page.texts import Words
from orders_pipeline.web.problems import Problem

MOST_EDITS_BYTES = 4 << 20
MOST_ROWS = 100_000
TOO_MANY_BAD = "F_TOO_MANY_ERRORS"  # of a file whose every row is judged; no other that is refused is
SKIPPED = "W_ROWS_SKIPPED"

Records = Mapping[int, Sequence[str]]


class Edit(BaseModel):
    """One cell that was changed; `old` is None where it was not shown."""

    model_config = ConfigDict(strict=True, extra="forbid")

    row: int = Field(ge=1)
    cell: int = Field(ge=0, le=10_000)
    old: str | None
    new: str = Field(max_length=10_000, pattern=r"^[^\r\n\x00]*$")


class Edits(BaseModel):
    """What a person has changed, and which other rows are right as they are."""

    model_config = ConfigDict(strict=True, extra="forbid")

    edits: list[Edit] = Field(max_length=MOST_ROWS)
    unchanged: list[Annotated[int, Field(ge=1)]] = Field(default=[], max_length=MOST_ROWS)


@dataclass(frozen=True)
class _Found:
    """What a check finds: what is wrong with each row, and why the file as a whole would be refused, if it would.

    Rows that are `skipped` are no orders as the client's profile says. Those that are `closed` by it wait no more. `yen` and
    `payments` are those of the rows that would be taken, and `is_to_approve` says whether they would wait for approval.
    """

    errors: Mapping[int, Sequence[Mapping[str, Any]]]
    refusal: Mapping[str, Any] | None
    skipped: frozenset[int] = frozenset()
    closed: frozenset[int] = frozenset()
    yen: int = 0
    payments: int = 0
    is_to_approve: bool = False

    @property
    def good(self) -> list[int]:
        """Return the rows that would be taken, or closed."""
        return [row for row, errors in self.judged.items() if not errors and row not in self.skipped - self.closed]

    @property
    def judged(self) -> Mapping[int, Sequence[Mapping[str, Any]]]:
        """Return what is wrong with each row, of none where the file is refused without a look at its rows."""
        return self.errors if self.refusal is None or self.refusal["code"] == TOO_MANY_BAD else {}


@dataclass(frozen=True)
class _OpenRows:
    """A batch's rows that wait for a correction, and what a file of some of them would be called."""

    call: Call
    folder: Scratch
    sheet: Sheet
    numbers: Collection[int]
    orders: Mapping[int, frozenset[int]]  # rows that are taken together
    name: str

    def records(self, records: Records) -> Records:
        """Return records in the order of their rows, with those that are taken together with them."""
        return with_whole_orders(self.sheet, records, self.numbers, self.orders)

    def as_they_are(self, changed: Collection[int]) -> dict[int, Sequence[str]]:
        """Return the rows that nobody has changed, but for those that their client's files cannot have."""
        rows = {}
        for row in self.numbers:
            if row not in changed and row in self.sheet.records and self.sheet.is_even(row):
                with suppress(Problem):
                    written(self.sheet, self.call.batch_id, {row: self.sheet.records[row]})
                    rows[row] = self.sheet.records[row]
        return rows

    def send(self, records: Records) -> Response:
        """Make a batch of records."""
        original = self.folder / ORIGINAL
        original.write_bytes(written(self.sheet, self.call.batch_id, self.records(records)))
        return submission.correct(self.call, {"name": self.name}, uploads.described(original, self.name), self.folder)

    def check(self, records: Records) -> _Found:
        """Return what a check finds of a file of records."""
        records = self.records(records)
        if not records:
            return _Found({}, None)
        with scratch_files() as apart:
            (apart / ORIGINAL).write_bytes(written(self.sheet, self.call.batch_id, records))
            upload = uploads.described(apart / ORIGINAL, self.name)
            found = submission.checked(self.call, {"name": self.name}, upload, apart)
            kept = _kept(apart) if found["rows"]["skipped"] else {*range(1, len(records) + 1)}
        errors: dict[int, list[Mapping[str, Any]]] = {row: [] for row in records}
        rows, refusal = list(records), None
        for each in found["errors"]:
            if each["row"] is not None:
                errors[rows[each["row"] - 1]].append(each)
            elif each["code"] == found["status_code"]:
                refusal = each
        skipped = frozenset(row for at, row in enumerate(rows, 1) if at not in kept)
        closed = skipped - {rows[at - 1] for at in found["not_closed"]}
        money = found["amount_jpy"]["accepted"], found["payments"]["planned"], found["status"] == "awaiting_approval"
        return _Found(errors, refusal, skipped, closed, *money)


def _kept(folder: Scratch) -> set[int]:
    """Return the rows of a file that is staged in a folder which are not skipped."""
    return {*pq.read_table(folder / STAGED, columns=["import_row_number"])["import_row_number"].to_pylist()}


def take_edits(call: Call, given: Mapping[str, str], body: Path, folder: Scratch) -> Response:
    """Check rows as a person has changed them, or make a batch of them that corrects the one that they are in."""
    try:
        edits = Edits.model_validate_json(body.read_bytes())
    except ValidationError:
        raise Problem("malformed-request") from None
    is_check = given.get("dry_run") == "true"
    if not (edits.edits or edits.unchanged or is_check):
        raise Problem("malformed-request")
    open_rows = _open_rows(call, folder, {*(edit.row for edit in edits.edits), *edits.unchanged})
    changed = _changed(open_rows.sheet, edits.edits)
    others = open_rows.as_they_are(changed)
    if not changed.keys() | others.keys() >= {*edits.unchanged}:
        raise Problem("cell-changed")
    kept = {row: others.pop(row) for row in edits.unchanged if row in others}
    if is_check:
        return answer(_check(open_rows, changed, kept, others, language_for(call.request)))
    return open_rows.send({**changed, **kept})


def _open_rows(call: Call, folder: Scratch, named: Collection[int]) -> _OpenRows:
    """Return the rows of a batch that may be corrected; raise a Problem where one that is named may not be."""
    with call.system.database.begin() as transaction:
        batch = own_batch(transaction, call.caller, call.batch_id)
        group = transaction.rows("import_group", bulk_import_group=batch.bulk_import_group)[0]
        rows = transaction.rows("rows_to_correct_in", bulk_import_group=batch.bulk_import_group, batch_id=call.batch_id)
    numbers = {row.import_row_number for row in rows}
    if not numbers.issuperset(named) or not numbers:
        raise Problem("already-corrected")
    sheet, orders = _read(call, batch)
    return _OpenRows(call, folder, sheet, numbers, orders, f"{stem(batch.csv_source)}.correction-{group.batches}.csv")


def _read(call: Call, batch: Row[Any]) -> tuple[Sheet, Mapping[int, frozenset[int]]]:
    """Return a batch's rejected rows, as its client's text files are written, and which of them are taken together."""
    sheet = read_sheet(call.system.storage, batch)
    if sheet is None:
        raise Problem("no-such-file")
    profile = call.system.clients.profile(call.caller.client_code)
    if batch.source_layout.get("is_converted", is_converted(batch.csv_source)):
        sheet = as_text_of(sheet, profile)
    if profile.lines != "grouped":
        return sheet, {}
    context = context_of(profile, batch.encoding)
    return sheet, rejected_together(call.system.storage, call.system.database, context, call.batch_id)


def _changed(sheet: Sheet, edits: Sequence[Edit]) -> dict[int, list[str]]:
    """Return the records that were changed; raise a Problem for a cell that is not what it was when it was shown."""
    records: dict[int, list[str]] = {}
    for edit in sorted(edits, key=lambda edit: edit.row):
        record = records.setdefault(edit.row, list(sheet.records.get(edit.row, ())))
        if edit.row not in sheet.records or not sheet.is_even(edit.row) or edit.cell >= len(record):
            raise Problem("cell-changed")
        if edit.old is not None and edit.old != sheet.records[edit.row][edit.cell]:
            raise Problem("cell-changed")
        record[edit.cell] = edit.new
    return records


def with_whole_orders(
    sheet: Sheet,
    changed: Mapping[int, Sequence[str]],
    open_rows: Collection[int],
    orders: Mapping[int, frozenset[int]],
) -> dict[int, Sequence[str]]:
    """Return records with those that were rejected together with them, which are taken together."""
    wanted = {*changed}.union(*{orders[row] for row in changed if row in orders})
    even = [row for row in sheet.records if row in open_rows and sheet.is_even(row)]
    return {row: changed.get(row, sheet.records[row]) for row in even if row in wanted}


def _check(open_rows: _OpenRows, changed: Records, kept: Records, others: Records, language: Language) -> dict[str, Any]:
    """Return of each row that was changed or is kept, or can be taken as it is, what is wrong with them if sent together.

    Other rows stay where they are, so that none of them keeps one back that was changed or is kept, and none is closed
    that nobody has decided on.
    """
    found = open_rows.check({**changed, **kept, **others})
    taken = {row: others[row] for row in found.good if row in others and row not in found.skipped}
    if len(taken) < len(others):
        found = open_rows.check({**changed, **kept, **taken})
    good = [] if found.refusal else found.good
    closed = [row for row in good if row in found.closed]
    words, of_changed = Words(language), sum(row in changed and row not in found.closed for row in good)
    says = [words("fix_checked", good=of_changed, n=len(changed))] if changed else []
    if closed:
        says.append(words("fix_closed", n=len(closed)))
    if unchanged := len(good) - len(closed) - of_changed:
        says.append(words("fix_unchanged", n=unchanged))
    if good:
        says.append(words("fix_money", n=found.payments, yen=words.yen(found.yen)))
    if found.is_to_approve:
        says.append(words("check_approval"))
    return {
        "rows": {
            str(row): [_skipped_and_open(words)]
            if row in found.skipped - found.closed
            else [_shown(open_rows.sheet, each, words) for each in errors]
            for row, errors in found.judged.items()
        },
        "closed": closed,
        "good": len(good),
        "refusal": found.refusal and found.refusal["message" if language == "en" else "message_ja"],
        "says": " ".join(says or [words("fix_none_unchanged")]),
        "send": words("fix_send", n=len(good), yen=words.yen(found.yen)),
    }


def _skipped_and_open(words: Words) -> dict[str, Any]:
    return {"cell": None, "kind": f":{SKIPPED}", "column": words("whole_row"), "says": words("fix_skipped")}


def _shown(sheet: Sheet, error: Mapping[str, Any], words: Words) -> dict[str, Any]:
    cells = sheet.columns.get(error["column"] or "", ())
    return {
        "cell": cells[0] if cells else None,
        "kind": f"{error['column'] or ''}:{error['code']}",
        "column": error["header"] or error["column"] or words("whole_row"),
        "says": error["message" if words.language == "en" else "message_ja"],
    }

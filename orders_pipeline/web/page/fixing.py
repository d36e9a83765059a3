"""Rows to correct, in the page: shown as they were sent, changed cell by cell, and sent as a person's own file would be.

What is changed is changed in the records of rejected.csv, in its own headers and encoding, and goes the way of every
correction: nothing is judged or stored here.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Row
from starlette.responses import Response

from orders_pipeline.audit import recording
from orders_pipeline.batches.artifacts import ORIGINAL, artifact
from orders_pipeline.clients.file_names import is_converted, stem
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.scratch import Scratch
from orders_pipeline.infrastructure.storage import ObjectGone
from orders_pipeline.intake.csv_file import Dialect
from orders_pipeline.intake.file_validation import context_of
from orders_pipeline.intake.rejected_before import rejected_together
from orders_pipeline.records.card_numbers import has_card_number
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import Language, message
from orders_pipeline.reports.rejected_csv import OUR_COLUMNS
from orders_pipeline.reports.report_files import REPORTS
from orders_pipeline.web import submission, uploads
from orders_pipeline.web.calls import Call, answer
from orders_pipeline.web.calls import number as as_number
from orders_pipeline.web.page.rendering import Visit, language_for
from orders_pipeline.web.page.texts import Words
from orders_pipeline.web.problems import Problem

ROWS_A_PAGE = 100
MOST_PAGES = 1_000_000
MOST_EDITS_BYTES = 4 << 20
MOST_REPLACED = 3  # values a kind of problem that are offered to be replaced in all their rows
ALWAYS_SHOWN = ("client_order_ref", "customer_code", "amount")
FORBIDDEN = "R_FORBIDDEN_DATA"  # a card's number, which nobody is shown
NAMED = {(rule.code, rule.column): rule.suppressed_by for rule in (*ORDERS.text_row_rules, *ORDERS.typed_row_rules)}
PERSONAL = frozenset(column.name for column in ORDERS.columns if column.personal or column.secret)
SECRET = frozenset(column.name for column in ORDERS.columns if column.secret)


class Edit(BaseModel):
    """One cell that was changed; `old` is None where it was not shown."""

    model_config = ConfigDict(strict=True, extra="forbid")

    row: int = Field(ge=1)
    cell: int = Field(ge=0, le=10_000)
    old: str | None
    new: str = Field(max_length=10_000, pattern=r"^[^\r\n\x00]*$")


class Edits(BaseModel):
    """What a person has changed."""

    model_config = ConfigDict(strict=True, extra="forbid")

    edits: list[Edit] = Field(min_length=1, max_length=100_000)


@dataclass(frozen=True)
class Sheet:
    """The rejected records of a batch by row, under the client's own headers; `columns` has the cells of each of ours."""

    header: Sequence[str]
    records: Mapping[int, Sequence[str]]
    columns: Mapping[str, Sequence[int]]
    codec: str
    mark: str
    dialect: Dialect
    line_ending: str

    def is_even(self, row: int) -> bool:
        """Return whether a record has a cell for each header, so that it can be said which is which."""
        return len(self.records[row]) == len(self.header)


@dataclass(frozen=True)
class Cell:
    """One cell as it is shown; its text is None where it is not. It is open where it may be what has to be changed."""

    at: int
    text: str | None
    is_bad: bool
    is_open: bool
    says: Sequence[str]


@dataclass(frozen=True)
class FixRow:
    """One row as it is shown; `says` is about the row as a whole."""

    number: int
    cells: Sequence[Cell]
    says: Sequence[str]
    is_even: bool


def show_fix(visit: Visit) -> Response:
    """Show a page of the rows of a batch that wait for a correction."""
    batch_id, who = str(visit.request.path_params["batch_id"]), visit.who
    with visit.system.database.begin() as transaction:
        batch = transaction.row("api_batch_file", batch_id=batch_id, client_code=who.client_code)
        if batch is None:
            raise Problem("not-found")
        rows = transaction.rows("rows_to_correct_in", bulk_import_group=batch.bulk_import_group, batch_id=batch_id)
        numbers = [row.import_row_number for row in rows]
        found = transaction.rows("page_rejections", batch_id=batch_id, numbers=numbers)
    sheet = _read_sheet(visit, batch) if numbers else None
    if sheet is None:
        return visit.render("fix_none.html", batch=batch, is_later=bool(numbers))
    pages = max(1, -(-len(numbers) // ROWS_A_PAGE))
    given = visit.request.query_params
    page = min(as_number(given.get("page"), 1, MOST_PAGES), pages)
    shown = numbers[(page - 1) * ROWS_A_PAGE : page * ROWS_A_PAGE]
    with visit.system.database.begin() as transaction:
        transaction.execute("identify_caller", actor=who.actor)
        detail = {"purpose": "to correct them"}
        recording.record(
            transaction, "phi_access", "read", "rejected rows", batch_id=batch_id, rows=len(numbers), detail=detail
        )
    return visit.render(
        "fix.html",
        batch=batch,
        total=len(numbers),
        page=page,
        pages=pages,
        first=(page - 1) * ROWS_A_PAGE + 1,
        last=(page - 1) * ROWS_A_PAGE + len(shown),
        groups=_groups(sheet, found, visit.language),
        **_table(
            sheet,
            shown,
            found,
            visit.language,
            with_all=given.get("columns") == "all",
            with_personal=given.get("personal") == "show",
        ),
    )


def _read_sheet(visit: Visit, batch: Row[Any]) -> Sheet | None:
    """Return the records of rejected.csv, or None before it is written."""
    try:
        with visit.system.storage.local(artifact(batch.batch_id, REPORTS["rejected"])) as path:
            content = path.read_bytes()
    except ObjectGone:
        return None
    layout = batch.source_layout
    codec = {"utf-8-sig": "utf-8"}.get(batch.encoding, batch.encoding)
    text = content.decode(codec, "surrogateescape" if codec == "utf-8" else "replace")
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    dialect = Dialect(layout["delimiter"], layout.get("has_quotes", True))
    try:
        records = list(dialect.reader(io.StringIO(text.removeprefix(mark), newline="")))
    except csv.Error:
        raise Problem("no-such-file") from None
    header = records[0][: -len(OUR_COLUMNS)]
    by_row = {int(record[-3]): record for record in records[1:] if len(record) > 3 and record[-3].isdecimal()}
    return Sheet(
        header,
        {row: record[: -len(OUR_COLUMNS)] for row, record in by_row.items()},
        layout["places"],
        codec,
        mark,
        dialect,
        layout["line_ending"],
    )


def _table(
    sheet: Sheet,
    numbers: Sequence[int],
    found: Sequence[Row[Any]],
    language: Language,
    *,
    with_all: bool,
    with_personal: bool,
) -> dict[str, Any]:
    """Return the columns and rows of the table: by default what is wrong, and what tells the orders apart."""
    of_rows: dict[int, list[Row[Any]]] = {number: [] for number in numbers}
    for each in found:
        if each.import_row_number in of_rows:
            of_rows[each.import_row_number].append(each)
    known = [at for each in ALWAYS_SHOWN for at in sheet.columns.get(each, ())]
    bad = {at for each in chain(*of_rows.values()) for at in _cells_of(sheet, each)}
    rest = range(len(sheet.header)) if with_all else ()
    places = list(dict.fromkeys([*known[:1], *sorted(bad), *known, *rest]))  # what is wrong is not out of sight
    return {
        "headers": [(at, sheet.header[at]) for at in places],
        "rows": [
            _row(sheet, number, rejections, places, language, with_personal=with_personal)
            for number, rejections in of_rows.items()
            if number in sheet.records
        ],
        "with_all": with_all,
        "with_personal": with_personal,
    }


def _cells_of(sheet: Sheet, found: Row[Any]) -> list[int]:
    """Return the cells of what is wrong: of its column, and of the others that its rule is about."""
    column = found.column_name or ""
    return [at for each in (column, *NAMED.get((found.code, column), ())) for at in sheet.columns.get(each, ())]


def _row(
    sheet: Sheet,
    number: int,
    rejections: Sequence[Row[Any]],
    places: Sequence[int],
    language: Language,
    *,
    with_personal: bool,
) -> FixRow:
    is_even = sheet.is_even(number)
    of_cells: dict[int, list[str]] = {}
    of_row: list[str] = []
    named = {at for each in rejections for at in _cells_of(sheet, each)}
    secret = {at for name in SECRET for at in sheet.columns.get(name, ())}
    for each in rejections:
        own = sheet.columns.get(each.column_name or "", ())
        sentence = message(each.code, language, each.detail)
        for at in own:
            of_cells.setdefault(at, []).append(sentence)
        if each.code == FORBIDDEN:
            secret.update(own)
        if not own or not is_even:
            of_row.append(sentence)
    hidden = set() if with_personal else {at for name in PERSONAL for at in sheet.columns.get(name, ())}
    cells = []
    for at in places if is_even else ():
        is_bad = at in of_cells
        text = sheet.records[number][at]
        is_hidden = at in secret or (at in hidden and not is_bad) or not _may_be_shown(text)
        is_open = is_bad or bool(of_row) or (at in named and not is_hidden)
        cells.append(Cell(at, None if is_hidden else text, is_bad, is_open, of_cells.get(at, ())))
    return FixRow(number, cells, of_row, is_even)


def _may_be_shown(text: str) -> bool:
    """Return whether a browser may have a cell: no card's number, and no line break, which it would take out."""
    return not (set("\r\n") & set(text)) and not has_card_number(text, is_code=True) and not has_card_number(text)


def _groups(sheet: Sheet, found: Sequence[Row[Any]], language: Language) -> list[dict[str, Any]]:
    """Return what is wrong, code by code and column by column, with the values that several rows of each share."""
    kinds: dict[tuple[str, str], list[Row[Any]]] = {}
    for each in found:
        kinds.setdefault((each.column_name or "", each.code), []).append(each)
    groups = []
    for (column, code), rows in sorted(kinds.items(), key=lambda kind: -len(kind[1])):
        places = sheet.columns.get(column, ())
        shared = []
        if len(places) == 1 and code != FORBIDDEN and column not in (*SECRET, ORDERS.identity):
            (at,) = places
            even = [each.import_row_number for each in rows if each.import_row_number in sheet.records]
            values = Counter(sheet.records[number][at] for number in even if sheet.is_even(number))
            shared = [
                {"cell": at, "old": value, "rows": [n for n in even if sheet.is_even(n) and sheet.records[n][at] == value]}
                for value, count in values.most_common(MOST_REPLACED)
                if count > 1 and _may_be_shown(value)
            ]
        groups.append(
            {
                "column": " + ".join(sheet.header[at] for at in places) or column,
                "says": message(code, language, rows[0].detail),
                "rows": len(rows),
                "shared": shared,
            }
        )
    return groups


def take_edits(call: Call, given: Mapping[str, str], body: Path, folder: Scratch) -> Response:
    """Check rows as a person has changed them, or make a batch of them that corrects the one that they are in."""
    try:
        edits = Edits.model_validate_json(body.read_bytes()).edits
    except ValidationError:
        raise Problem("malformed-request") from None
    visit = Visit(call.system, call.request, call.caller)
    with call.system.database.begin() as transaction:
        batch = transaction.row("api_batch_file", batch_id=call.batch_id, client_code=call.caller.client_code)
        if batch is None:
            raise Problem("not-found")
        group = transaction.rows("import_group", bulk_import_group=batch.bulk_import_group)[0]
        rows = transaction.rows("rows_to_correct_in", bulk_import_group=batch.bulk_import_group, batch_id=call.batch_id)
    open_rows = {row.import_row_number for row in rows}
    if not {edit.row for edit in edits} <= open_rows:
        raise Problem("already-corrected")
    sheet = _read_sheet(visit, batch)
    if sheet is None:
        raise Problem("no-such-file")
    profile = call.system.clients.profile(call.caller.client_code)
    if batch.source_layout.get("is_converted", is_converted(batch.csv_source)):
        sheet = _as_text_of(sheet, profile)
    records: Mapping[int, Sequence[str]] = _changed(sheet, edits)
    if profile.lines == "grouped":
        context = context_of(profile, batch.encoding)
        orders = rejected_together(call.system.storage, call.system.database, context, call.batch_id)
        records = with_whole_orders(sheet, records, open_rows, orders)
    name = f"{stem(batch.csv_source)}.correction-{group.batches}.csv"
    (folder / ORIGINAL).write_bytes(_written(sheet, call.batch_id, records))
    upload = uploads.described(folder / ORIGINAL, name)
    if given.get("dry_run") != "true":
        return submission.correct(call, {"name": name}, upload, folder)
    found = submission.checked(call, {"name": name}, upload, folder)
    return answer(_checked(sheet, list(records), found, language_for(call.request)))


def _as_text_of(sheet: Sheet, profile: Profile) -> Sheet:
    """Return rows of a workbook, or of JSON, as their client's text files are written."""
    encoding = profile.encoding or "utf-8"
    codec, mark = {"utf-8": ("utf-8", "\ufeff"), "utf-16": ("utf-16-le", "\ufeff")}.get(encoding, (encoding, ""))
    return replace(sheet, codec=codec, mark=mark, dialect=Dialect(profile.delimiter, profile.quoting != "none"))


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


def _written(sheet: Sheet, batch_id: str, records: Mapping[int, Sequence[str]]) -> bytes:
    """Return records as a file, as their client writes one, that says which rows it corrects."""
    text = io.StringIO(newline="")
    writer = sheet.dialect.writer(text, sheet.line_ending)
    try:
        writer.writerow([*sheet.header, *OUR_COLUMNS])
        for row, record in records.items():
            writer.writerow([*record, batch_id, row, "", ""])
        return (sheet.mark + text.getvalue()).encode(sheet.codec, "surrogateescape" if sheet.codec == "utf-8" else "strict")
    except (UnicodeEncodeError, csv.Error):  # the client's files cannot have such a cell
        raise Problem("not-encodable") from None


def _checked(sheet: Sheet, rows: Sequence[int], found: Mapping[str, Any], language: Language) -> dict[str, Any]:
    """Return of each changed row whether it can be taken, and what is wrong with its cells if not."""
    words = Words(language)
    errors: dict[int, list[dict[str, Any]]] = {row: [] for row in rows}
    refusal = None
    for each in found["errors"]:
        says = each["message" if language == "en" else "message_ja"]
        if each["row"] is None:
            refusal = says if found["status_code"] else None
            continue
        cells = sheet.columns.get(each["column"] or "", ())
        errors[rows[each["row"] - 1]].append({"cell": cells[0] if cells else None, "says": says})
    good = 0 if refusal else sum(not each for each in errors.values())
    return {
        "rows": {str(row): each for row, each in errors.items()},
        "good": good,
        "refusal": refusal,
        "says": words("fix_checked", good=good, n=len(rows)),
        "send": words("fix_send", n=good),
    }

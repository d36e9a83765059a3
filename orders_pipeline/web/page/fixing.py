"""Rows to correct, as the page shows them: as they were sent, what is wrong with each, and which cells may be written to.

What becomes of cells that somebody has changed is in `edits.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import Row
from starlette.responses import Response

from orders_pipeline.audit import recording
from orders_pipeline.records.card_numbers import has_card_number
from orders_pipeline.records.normalise import normalise_header
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import Language, message
from orders_pipeline.web.calls import number as as_number
from orders_pipeline.web.calls import own_batch
from orders_pipeline.web.page.deciding import Deciding, Decision
from orders_pipeline.web.page.rendering import Visit
from orders_pipeline.web.page.sheet import Sheet, read_sheet

ROWS_A_PAGE = 100
MOST_PAGES = 1_000_000
MOST_REPLACED = 3  # values a kind of problem that are offered to be replaced in all their rows
ALWAYS_SHOWN = ("customer_code", "amount")
SHOWN_BESIDE = {"quantity": "item_code", "unit_price": "item_code"}  # which says what is counted and priced
CONFLICT = "R_REF_CONFLICT"  # of which rows one may be right as it is, and only a person knows which
FORBIDDEN = "R_FORBIDDEN_DATA"  # a card's number, which nobody is shown
NAMED = {(rule.code, rule.column): rule.suppressed_by for rule in (*ORDERS.text_row_rules, *ORDERS.typed_row_rules)}
PERSONAL = frozenset(column.name for column in ORDERS.columns if column.personal or column.secret)
SECRET = frozenset(column.name for column in ORDERS.columns if column.secret)


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
    """One row as it is shown; `says` is about the row as a whole, and `reference` is None where it is not shown."""

    number: int
    reference: str | None
    cells: Sequence[Cell]
    says: Sequence[str]
    is_even: bool
    may_be_kept: bool
    decisions: Sequence[Decision]


def show_fix(visit: Visit) -> Response:
    """Show a page of the rows of a batch that wait for a correction."""
    batch_id, who = str(visit.request.path_params["batch_id"]), visit.who
    with visit.system.database.begin() as transaction:
        batch = own_batch(transaction, who, batch_id)
        rows = transaction.rows("rows_to_correct_in", bulk_import_group=batch.bulk_import_group, batch_id=batch_id)
        numbers = [row.import_row_number for row in rows]
        found = transaction.rows("page_rejections", batch_id=batch_id, numbers=numbers)
    sheet = read_sheet(visit.system.storage, batch) if numbers else None
    if sheet is None:
        return visit.render("fix_none.html", batch=batch, is_later=bool(numbers))
    deciding = Deciding.of(sheet.header, visit.system.clients.profile_of_batch(who.client_code))
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
        left_out_by=sorted({*deciding.filled({each.code for each in found})}),
        **_table(
            sheet,
            deciding,
            shown,
            found,
            visit.language,
            with_all=given.get("columns") == "all",
            with_personal=given.get("personal") == "show",
        ),
    )


def _table(
    sheet: Sheet,
    deciding: Deciding,
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
    identity = sheet.columns.get(ORDERS.identity, ())
    wrong = {column for each in chain(*of_rows.values()) for column in _columns_of(each)}
    wrong |= {SHOWN_BESIDE[column] for column in wrong & SHOWN_BESIDE.keys()}
    bad = sorted(at for column in wrong for at in sheet.columns.get(column, ()))
    bad += sorted({at for each in chain(*of_rows.values()) for at in _places_said(sheet, each)} - {*bad})
    decisions = {number: _decisions(sheet, deciding, each) for number, each in of_rows.items()}
    bad += sorted({at for each in chain(*decisions.values()) for at, _ in each.cells} - {*bad})
    known = [at for each in ALWAYS_SHOWN for at in sheet.columns.get(each, ())]
    is_of_rows = any(not sheet.columns.get(each.column_name or "") for each in chain(*of_rows.values()))
    rest = range(len(sheet.header)) if with_all else ()
    places = list(dict.fromkeys([*(identity if is_of_rows else ()), *bad, *known, *rest]))
    return {
        "reference": " + ".join(sheet.header[at] for at in identity),
        "headers": [(at, sheet.header[at]) for at in places],
        "rows": [
            _row(sheet, number, rejections, places, language, decisions[number], with_personal=with_personal)
            for number, rejections in of_rows.items()
            if number in sheet.records
        ],
        "with_all": with_all,
        "with_personal": with_personal,
    }


def _columns_of(found: Row[Any]) -> tuple[str, ...]:
    """Return the columns of what is wrong: its own, and the others that its rule is about."""
    column = found.column_name or ""
    return column, *NAMED.get((found.code, column), ())


def _places_said(sheet: Sheet, found: Row[Any]) -> list[int]:
    """Return the places of the cells for which a person has to decide on a row; their headers may be no columns of ours."""
    said = {normalise_header(part.partition(" = ")[0]) for part in found.detail.get("said", "").split(", ")}
    return [at for at, header in enumerate(sheet.header) if normalise_header(header) in said]


def _decisions(sheet: Sheet, deciding: Deciding, rejections: Sequence[Row[Any]]) -> Sequence[Decision]:
    said = dict.fromkeys(at for each in rejections for at in _places_said(sheet, each))
    return deciding.offered({each.code for each in rejections}, [*said])


def _row(
    sheet: Sheet,
    number: int,
    rejections: Sequence[Row[Any]],
    places: Sequence[int],
    language: Language,
    decisions: Sequence[Decision],
    *,
    with_personal: bool,
) -> FixRow:
    is_even = sheet.is_even(number)
    of_cells: dict[int, list[str]] = {}
    of_row: list[str] = []
    named = {at for each in rejections for column in _columns_of(each) for at in sheet.columns.get(column, ())}
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
    decided = {at for each in decisions for at, _ in each.cells}
    cells = []
    for at in places if is_even else ():
        is_bad = at in of_cells
        text = sheet.records[number][at]
        is_hidden = at in secret or (at in hidden and not is_bad) or not _may_be_shown(text)
        is_open = is_bad or bool(of_row) or at in decided or (at in named and not is_hidden)
        cells.append(Cell(at, None if is_hidden else text, is_bad, is_open, of_cells.get(at, ())))
    reference = " ".join(sheet.records[number][at] for at in sheet.columns.get(ORDERS.identity, ())) if is_even else ""
    shown = reference if reference and _may_be_shown(reference) else None
    may_be_kept = is_even and {each.code for each in rejections} == {CONFLICT}
    return FixRow(number, shown, cells, of_row, is_even, may_be_kept, decisions if is_even else ())


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
                "kind": f"{column}:{code}",
                "says": message(code, language, rows[0].detail),
                "rows": [each.import_row_number for each in rows],
                "shared": shared,
            }
        )
    return groups

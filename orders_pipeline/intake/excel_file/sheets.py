"""The sheets of a workbook: which one holds the orders, its header, and its rows as they are shown.

Whether the package may be opened at all is decided in `package`.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from openpyxl.reader.excel import ExcelReader

from orders_pipeline.intake.csv_file import Names
from orders_pipeline.intake.excel_file.conditional_formats import ConditionalFormats
from orders_pipeline.intake.excel_file.formats import CellKind
from orders_pipeline.intake.excel_file.package import Extent, Parts, damaged
from orders_pipeline.intake.excel_file.ranges import MergedCells
from orders_pipeline.intake.excel_file.shown_cells import ShownCells, marked
from orders_pipeline.intake.excel_file.stored_cells import SheetRow, read_rows, read_texts
from orders_pipeline.records.normalise import normalise_header
from orders_pipeline.records.record_type import Kind
from orders_pipeline.records.rejections import FileRejected

HEADER_MARGIN = 20  # rows above the orders: a header, and titles that staging will name
_MAX_COLUMNS = 256
_MAX_CELL = 32_767  # characters; Excel takes no more
_NO_NAMES = Names({}, ())
_SHEETS_NAMED = 10
_LONGEST_NAME = 31  # characters; Excel takes no more
_DIGITS_ONLY = re.compile(r"[^\w]*[0-9][0-9,.]*円?")


@dataclass(frozen=True)
class OrderSheet:
    """What is known of the sheet with the orders: the names its header may hold, and the kind of each column.

    `name` is the sheet's own, where it was agreed on. `choices` are the headers of cells by which a profile chooses rows.
    """

    names: Names = _NO_NAMES
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    name: str | None = None
    choices: Collection[str] = ()

    def kinds_under(self, header: Sequence[str]) -> dict[int, CellKind]:
        """Return the kinds of a header's columns by their numbers from 1; what rows are chosen by is not just a text."""
        columns = enumerate(self.names.columns(header), 1)
        kinds = {number: self.kinds[column] for number, column in columns if column is not None and column in self.kinds}
        choices = {normalise_header(name) for name in self.choices}
        chosen = (number for number, name in enumerate(header, 1) if normalise_header(name) in choices)
        others: dict[int, CellKind] = {number: "choice" for number in chosen if kinds.get(number, "text") == "text"}
        return {**kinds, **others}


class Structure(ExcelReader):
    """The library's reader of a workbook's sheets, its styles and the day its dates begin at, and of no more."""

    def read_strings(self) -> None:
        """Leave the texts, which are most of a workbook, to `stored_cells`."""

    def read_worksheets(self) -> None:
        """Leave the sheets to `stored_cells`, and their charts and pictures alone."""


@dataclass(frozen=True)
class Sheet:
    """A sheet with a value, and where in the package its rows are."""

    name: str
    path: str
    extent: Extent
    is_visible: bool
    conditional: ConditionalFormats
    merged: MergedCells


class Sheets:
    """The sheets with values of one workbook, of which one is wanted."""

    def __init__(self, package: zipfile.ZipFile, parts: Parts, structure: Structure, wanted: OrderSheet) -> None:
        self._package = package
        self._recomputes = parts.recomputes
        self._cells = ShownCells(structure.wb)
        self._texts: list[str] = []
        if parts.texts is not None:
            with package.open(parts.texts) as stream:
                self._texts = read_texts(stream)
        self._all = list(_with_values(structure, parts.sheets))
        self._wanted = wanted
        self._headers: dict[str, tuple[int, list[str]]] = {}  # by the sheet's path

    def choose(self) -> Sheet:
        """Return the sheet that was agreed on, or the visible one that holds the header, or else the first visible one.

        Of several with the header, the one with rows under it counts: forms for another month have none. Raises FileRejected
        where that is not one sheet, or where the orders of one seem to continue on another without a header.
        """
        visible = [sheet for sheet in self._all if sheet.is_visible]
        name = self._wanted.name
        if name is not None:
            chosen = [sheet for sheet in self._all if normalise_header(sheet.name) == normalise_header(name)]
            if not chosen:
                raise _uncertain(visible, name)
        else:
            holding = [sheet for sheet in visible if self.header(sheet)[0]]
            filled = [sheet for sheet in holding if self.header(sheet)[0] < sheet.extent.rows]
            if filled:
                order = self._first_order(filled[0])
                with_orders = [sheet for sheet in visible if sheet in filled or self._continues(sheet, order)]
                if len(with_orders) > 1:
                    raise _uncertain(filled if len(filled) > 1 else with_orders)
            chosen = filled or holding or visible
        if not chosen:
            raise FileRejected("F_EMPTY")
        if chosen[0].extent.columns > _MAX_COLUMNS:
            raise FileRejected("F_COLUMNS")
        return chosen[0]

    def header(self, sheet: Sheet) -> tuple[int, list[str]]:
        """Return the number and cells of the row that is the header, among the first with a value; 0 without one."""
        if sheet.path not in self._headers:
            rows = self._first_rows(sheet) if self._wanted.names.required else ()
            found = ((number, cells) for number, cells in rows if self._wanted.names.is_header(cells))
            self._headers[sheet.path] = next(found, (0, []))
        return self._headers[sheet.path]

    def _first_rows(self, sheet: Sheet) -> Iterator[tuple[int, list[str]]]:
        """Yield the numbers and cells of the first rows with a value."""
        filled = (row for row in self.rows(sheet) if row.cells)
        return ((row.number, self.shown(sheet, row, {})) for row in islice(filled, HEADER_MARGIN + 1))

    def _first_order(self, sheet: Sheet) -> dict[int, str]:
        """Return where the first row under the header is filled in: the columns by their places from 0."""
        header, names = self.header(sheet)
        columns = self._wanted.names.columns(names)
        orders = (self.shown(sheet, row, {}) for row in self.rows(sheet) if row.number > header and row.cells)
        cells = next(orders, [""] * len(columns))
        return {at: column for at, column in enumerate(columns) if column and cells[at]}

    def _continues(self, sheet: Sheet, order: Mapping[int, str]) -> bool:
        """Return whether a sheet without the header has rows that are filled in like an order on the first sheet."""
        names = self._wanted.names
        rows = [cells for _, cells in self._first_rows(sheet)]
        named = max((names.found_in(row) for row in rows), key=len)
        if len(named) > 1 and len({*names.required} - named) > 1:  # its header is that of something else
            return False
        reference = next((at for at, column in order.items() if column == names.required[0]), None)
        if reference is None or sheet.extent.columns <= max(order):
            return False
        numbers = {at for at, column in order.items() if self._wanted.kinds.get(column) == "number"}
        return any(
            row[reference].isascii()
            and all(row[at] and (at not in numbers or _DIGITS_ONLY.fullmatch(row[at])) for at in order)
            for row in rows
        )

    def rows(self, sheet: Sheet) -> Iterator[SheetRow]:
        """Read a sheet's rows up to the last with a value."""
        with self._package.open(sheet.path) as stream:
            for row in read_rows(stream, self._texts, recomputes=self._recomputes):
                if row.number > sheet.extent.rows:
                    return
                yield row

    def shown(self, sheet: Sheet, row: SheetRow, kinds: Mapping[int, CellKind]) -> list[str]:
        """Return what a row's cells show; `kinds` are those of columns that hold something of an order.

        What a merge hides is nothing there, and marked in those columns.
        """
        shown = [""] * sheet.extent.columns
        for cell in row.cells:
            others = sheet.conditional.of(cell.column, row.number) if cell.column in kinds else ()
            if sheet.merged.hide(cell.column, row.number):
                text = marked("", cell.value) if cell.column in kinds else ""
            else:
                text = self._cells.show(cell, kinds.get(cell.column), others)
            shown[cell.column - 1] = text
            if len(text) > _MAX_CELL:
                raise FileRejected("F_FIELD_TOO_LONG", {"limit": str(_MAX_CELL)})
        return shown


def _with_values(structure: Structure, extents: Mapping[str, Extent]) -> Iterator[Sheet]:
    workbook: Any = structure.wb
    formats = {
        number: style.numFmt.formatCode
        for number, style in enumerate(workbook._differential_styles.styles)
        if style.numFmt is not None
    }
    for sheet, relation in structure.parser.find_sheets():
        if "chartsheet" in relation.Type:
            continue
        is_visible = sheet.state == "visible"
        if relation.target not in extents:
            if is_visible:
                raise damaged()
            continue
        extent = extents[relation.target]
        if extent.rows:
            conditional = ConditionalFormats(extent.conditions, formats)
            yield Sheet(sheet.name, relation.target, extent, is_visible, conditional, MergedCells(extent.merged))


def _uncertain(sheets: Sequence[Sheet], wanted: str = "") -> FileRejected:
    names = [sheet.name[:_LONGEST_NAME] for sheet in sheets[:_SHEETS_NAMED] if sheet.name.isprintable()]
    return FileRejected("F_SHEETS", {"sheets": ", ".join(names), "wanted": wanted})

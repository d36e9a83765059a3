"""A client's workbook (.xlsx) as a CSV file: its order sheet, row for row, each cell as Excel shows it.

Here the sheet is chosen and its rows are written; a cell that shows another number than it holds is marked as such.
Whether the package may be opened at all is decided in `package`,
what a value looks like in `formats`; what rows mean is decided after the CSV file is staged, as for any other.
"""

from __future__ import annotations

import csv
import errno
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, BinaryIO

from openpyxl.cell.read_only import ReadOnlyCell
from openpyxl.reader.excel import ExcelReader
from openpyxl.workbook import Workbook

from orders_pipeline.infrastructure.scratch import scratch_files
from orders_pipeline.intake.csv_file import Names
from orders_pipeline.intake.excel_file.cells import Cell, Raised, SheetRow, Struck, read_rows, read_texts
from orders_pipeline.intake.excel_file.conditions import ConditionalFormats
from orders_pipeline.intake.excel_file.formats import JAPANESE_FORMATS, Value, show, shows_what_is_stored
from orders_pipeline.intake.excel_file.package import Extent, Parts, check_package, damaged
from orders_pipeline.intake.excel_file.ranges import MergedCells
from orders_pipeline.records.normalise import normalise_header
from orders_pipeline.records.record_type import Kind
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.records.rules import CELL_ERROR, NOT_AS_SHOWN, UNCOMPUTED

_HEADER_MARGIN = 20  # rows above the orders: a header, and titles that staging will name
_MAX_COLUMNS = 256
_MAX_CELL = 32_767  # characters; Excel takes no more
_NO_NAMES = Names({}, ())
_SHEETS_NAMED = 10
_LONGEST_NAME = 31  # characters; Excel takes no more
_LONGEST_SHOWN = 100  # characters of a marked cell
_ERROR = "#VALUE!"  # in place of one we do not know
_ODD_ZEROS = re.compile(r"[^0-9]*0[0-9]*,|.*\.(?:0{3,})?[^0-9]*$")  # with which a number in a CSV file would be doubtful
_DIGITS_ONLY = re.compile(r"[^\w]*[0-9][0-9,.]*円?")
_NO_DECIMALS = re.compile(r"\.0*(?=[^0-9]*$)|,")
# twice what a CSV file may have, since the commas of rows and cells that are blank come on top of what was typed
_TEXT_FACTOR = 2

_Rows = Iterator[list[str]]


@dataclass(frozen=True)
class OrderSheet:
    """What is known of the sheet with the orders: the names its header may hold, and the kind of each column.

    `name` is the sheet's own, where it was agreed on.
    """

    names: Names = _NO_NAMES
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    name: str | None = None

    def kinds_under(self, header: Sequence[str]) -> dict[int, Kind]:
        """Return the kinds of a header's columns by their numbers from 1."""
        columns = [self.names.known.get(normalise_header(cell), "") for cell in header]
        return {number: self.kinds[column] for number, column in enumerate(columns, 1) if column in self.kinds}


def write_csv(source: Path, target: Path, *, max_bytes: int, max_rows: int, wanted: OrderSheet = OrderSheet()) -> int:
    """Write the order sheet of a workbook as strict CSV (UTF-8 with BOM, CRLF, mode 0600), or raise FileRejected.

    The order sheet is the visible one that holds the header and rows, or the one agreed on; without either the first with
    a value.
    Record N of the CSV file is row N of the sheet; all records have the width of the widest, and blank rows and columns at
    the end are left out. Dates are written like 2026-04-01, whatever their format; everything else as a Japanese Excel
    shows it. Where that is another number than the stored one, or another cell's value or nothing as the cell is merged, it
    is marked, with both. `max_rows` does not count blank rows. Returns how many rows under the header are hidden.
    """
    if source.stat().st_size > max_bytes:
        raise FileRejected("F_TOO_LARGE", {"limit": str(max_bytes)})
    limit = _TEXT_FACTOR * max_bytes
    with (
        source.open("rb") as file,
        scratch_files() as scratch,
        (scratch / "uneven").open("w+", encoding="utf-8", newline="") as uneven,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of extensions that the library does not read
        reading = _Reading(wanted)
        rows = _filled(reading.read(file, max_bytes, max_rows), max_rows)
        width = _write_uneven(rows, uneven, limit)
        if not width:
            raise FileRejected("F_EMPTY")
        uneven.seek(0)
        _write_even(csv.reader(uneven), target, width)
        return reading.hidden_rows


class _Reading:
    """Reads the order sheet of one workbook."""

    def __init__(self, wanted: OrderSheet) -> None:
        self._wanted = wanted
        self.hidden_rows = 0

    def read(self, file: BinaryIO, max_bytes: int, max_rows: int) -> _Rows:
        """Read the order sheet's rows as texts; whatever makes the libraries stumble is a damaged workbook."""
        try:
            parts = check_package(file, max_bytes=max_bytes, max_rows=max_rows)
            file.seek(0)
            structure = _Structure(file, read_only=True, data_only=True, keep_links=False)
            structure.read()
            with zipfile.ZipFile(file) as package:
                sheets = _Sheets(package, parts, structure)
                sheet = sheets.choose(self._wanted)
                yield from self._shown_rows(sheets, sheet)
        except (FileRejected, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
                raise  # the disk; a workbook only sends a library to places that are not there
            raise damaged() from None

    def _shown_rows(self, sheets: _Sheets, sheet: _Sheet) -> _Rows:
        """Show each row up to the last with a value; rows that are not there are blank."""
        header, kinds = sheets.header(sheet, self._wanted.names)
        under = self._wanted.kinds_under(kinds)
        tops: dict[int, tuple[int, str]] = {}  # by column, the last row with a text of its own, and the text
        expected = 1
        for row in sheets.rows(sheet):
            yield from ([] for _ in range(expected, row.number))
            expected = row.number + 1
            is_order = 0 < header < row.number
            shown = sheets.shown(sheet, row, under if is_order else {})
            if is_order and sheet.merged.joins_rows:
                _mark_blank_merged(shown, row.number, under, sheet.merged, tops)
            self.hidden_rows += row.is_hidden and is_order and any(shown)
            yield shown


def _mark_blank_merged(
    shown: list[str], row: int, columns: Iterable[int], merged: MergedCells, tops: dict[int, tuple[int, str]]
) -> None:
    """Mark cells of an order that are blank and show the one above, which they are merged into; not of a row of nothing."""
    has_text = any(shown[column - 1] for column in columns)
    for column in columns:
        text = shown[column - 1]
        top = merged.top_of(column, row)
        if top is None and text:
            tops[column] = row, text
        elif top is not None and has_text and not text and tops.get(column, (0, ""))[0] == top:
            shown[column - 1] = _marked(tops[column][1], "")


class _Structure(ExcelReader):
    """The library's reader of a workbook's sheets, its styles and the day its dates begin at, and of no more."""

    def read_strings(self) -> None:
        """Leave the texts, which are most of a workbook, to `cells`."""

    def read_worksheets(self) -> None:
        """Leave the sheets to `cells`, and their charts and pictures alone."""


@dataclass(frozen=True)
class _Sheet:
    name: str
    path: str
    extent: Extent
    is_visible: bool
    conditional: ConditionalFormats
    merged: MergedCells


class _Sheets:
    """The sheets with values of one workbook."""

    def __init__(self, package: zipfile.ZipFile, parts: Parts, structure: _Structure) -> None:
        self._package = package
        self._recomputes = parts.recomputes
        self._formats = _Formats(structure.wb)
        self._texts: list[str] = []
        if parts.texts is not None:
            with package.open(parts.texts) as stream:
                self._texts = read_texts(stream)
        self._all = list(_with_values(structure, parts.sheets))

    def choose(self, wanted: OrderSheet) -> _Sheet:
        """Return the sheet that was agreed on, or the visible one that holds the header, or else the first visible one.

        Of several with the header the one with rows under it counts: forms for another month have none. So do those on which
        its rows go on without a header.
        """
        visible = [sheet for sheet in self._all if sheet.is_visible]
        if wanted.name is not None:
            chosen = [sheet for sheet in self._all if normalise_header(sheet.name) == normalise_header(wanted.name)]
            if not chosen:
                raise _uncertain(visible, wanted.name)
        else:
            headers = [(sheet, self.header(sheet, wanted.names)[0]) for sheet in visible]
            holding = [sheet for sheet, header in headers if header]
            filled = [sheet for sheet, header in headers if 0 < header < sheet.extent.rows]
            if len(filled) > 1:
                raise _uncertain(filled)
            if filled:
                chosen = [sheet for sheet in visible if sheet in filled or self._goes_on(sheet, filled[0], wanted)]
                if len(chosen) > 1:
                    raise _uncertain(chosen)
            chosen = filled or holding or visible
        if not chosen:
            raise FileRejected("F_EMPTY")
        if chosen[0].extent.columns > _MAX_COLUMNS:
            raise FileRejected("F_COLUMNS")
        return chosen[0]

    def header(self, sheet: _Sheet, names: Names) -> tuple[int, list[str]]:
        """Return the number and cells of the row that is the header, among the first with a value; 0 without one."""
        if names.required:
            shown = ((row.number, self.shown(sheet, row, {})) for row in self.rows(sheet) if row.cells)
            for number, cells in islice(shown, _HEADER_MARGIN + 1):
                if names.is_header(cells):
                    return number, cells
        return 0, []

    def _goes_on(self, sheet: _Sheet, first: _Sheet, wanted: OrderSheet) -> bool:
        """Tell whether a sheet without the header has rows like the one under it on the `first`: filled in as that is."""
        header, names = self.header(first, wanted.names)
        columns = [wanted.names.known.get(normalise_header(cell)) for cell in names]
        orders = (self.shown(first, row, {}) for row in self.rows(first) if row.number > header and row.cells)
        order = next(orders, [""] * len(columns))
        kinds = {at: wanted.kinds.get(column) for at, column in enumerate(columns) if column and order[at]}
        reference = columns.index(wanted.names.required[0])
        rows = [self.shown(sheet, row, {}) for row in islice(filter(_has_cells, self.rows(sheet)), _HEADER_MARGIN + 1)]
        named = max((wanted.names.found_in(row) for row in rows), key=len)
        if len(named) > 1 and len({*wanted.names.required} - named) > 1:  # its header is that of something else
            return False
        return reference in kinds and any(
            sheet.extent.columns > max(kinds)
            and row[reference].isascii()
            and all(row[at] and (kind != "number" or _DIGITS_ONLY.fullmatch(row[at])) for at, kind in kinds.items())
            for row in rows
        )

    def rows(self, sheet: _Sheet) -> Iterator[SheetRow]:
        """Read a sheet's rows up to the last with a value."""
        with self._package.open(sheet.path) as stream:
            for row in read_rows(stream, self._texts, recomputes=self._recomputes):
                if row.number > sheet.extent.rows:
                    return
                yield row

    def shown(self, sheet: _Sheet, row: SheetRow, kinds: Mapping[int, Kind]) -> list[str]:
        """Return what a row's cells show; `kinds` are those of columns that hold something of an order.

        What a merge hides is nothing there, and marked in those columns.
        """
        shown = [""] * sheet.extent.columns
        for cell in row.cells:
            others = sheet.conditional.of(cell.column, row.number) if cell.column in kinds else ()
            if sheet.merged.hide(cell.column, row.number):
                text = _marked("", cell.value) if cell.column in kinds else ""
            else:
                text = self._formats.show(cell, kinds.get(cell.column), others)
            shown[cell.column - 1] = text
            if len(text) > _MAX_CELL:
                raise FileRejected("F_FIELD_TOO_LONG", {"limit": str(_MAX_CELL)})
        return shown


def _with_values(structure: _Structure, extents: Mapping[str, Extent]) -> Iterator[_Sheet]:
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
            yield _Sheet(sheet.name, relation.target, extent, is_visible, conditional, MergedCells(extent.merged))


def _uncertain(sheets: Sequence[_Sheet], wanted: str = "") -> FileRejected:
    names = [sheet.name[:_LONGEST_NAME] for sheet in sheets[:_SHEETS_NAMED] if sheet.name.isprintable()]
    return FileRejected("F_SHEETS", {"sheets": ", ".join(names), "wanted": wanted})


class _Formats:
    """Shows the cells of one workbook by the number formats of its styles."""

    def __init__(self, workbook: Workbook) -> None:
        self._sheet: Any = SimpleNamespace(parent=workbook)  # all that a cell needs of its sheet to know its style
        self._epoch = workbook.epoch
        self._formats: dict[int, tuple[str, bool]] = {}

    def show(self, cell: Cell, kind: Kind | None, others: Iterable[str] = ()) -> str:
        """Return what a cell shows; in a column of a kind, marked where that is another number than the stored one.

        So it is where one of the `others` shows another number, the formats that a condition may give the cell, and where it
        is struck through, or a code or number has digits of a footnote.
        """
        if cell.style not in self._formats:
            self._formats[cell.style] = self._format(cell.style)
        number_format, is_struck = self._formats[cell.style]
        shown = self._shown(cell, number_format)
        if kind is None:
            return "" if shown == UNCOMPUTED and cell.is_error else shown
        if cell.is_error:
            return shown if re.match(CELL_ERROR, shown) else _ERROR
        if is_struck or isinstance(cell.value, Struck) or (isinstance(cell.value, Raised) and kind != "text"):
            return _marked(shown, cell.value)
        for each, text in ((number_format, shown), *((other, self._shown(cell, other)) for other in others)):
            if not shows_what_is_stored(cell.value, each, text, kind):
                return _marked(text, cell.value)
        is_odd = kind == "number" and not isinstance(cell.value, str) and _ODD_ZEROS.match(shown)
        return _NO_DECIMALS.sub("", shown) if is_odd else shown  # what stands around the number, like a $, stays

    def _shown(self, cell: Cell, number_format: str) -> str:
        return show(cell.value, number_format, is_error=cell.is_error, epoch=self._epoch)

    def _format(self, style: int) -> tuple[str, bool]:
        """Return a style's number format, and whether it strikes text through."""
        styled = ReadOnlyCell(self._sheet, 1, 1, None, style_id=style)
        return JAPANESE_FORMATS.get(styled.style_array.numFmtId) or styled.number_format, bool(styled.font.strike)


def _has_cells(row: SheetRow) -> bool:
    return bool(row.cells)


def _marked(text: str, value: Value) -> str:
    return f"{NOT_AS_SHOWN} {text[:_LONGEST_SHOWN]} ({str(value)[:_LONGEST_SHOWN]})"


def _filled(rows: _Rows, max_rows: int) -> _Rows:
    """Leave blank rows at the end out, and refuse more rows with text than an order file may have."""
    blank = filled = 0
    for row in rows:
        while row and not row[-1]:
            row.pop()
        if not row:
            blank += 1
            continue
        filled += 1
        if filled > max_rows + _HEADER_MARGIN:
            raise FileRejected("F_TOO_MANY_ROWS", {"limit": str(max_rows)})
        yield from ([] for _ in range(blank))
        blank = 0
        yield row


def _write_uneven(rows: _Rows, target: IO[str], limit: int) -> int:
    """Write rows without their blank cells at the end, and return the largest width."""
    writer = csv.writer(target, lineterminator="\r\n")
    width = size = 0
    for count, row in enumerate(rows, 1):
        writer.writerow(row)
        width = max(width, len(row))
        size += len("".join(row).encode())
        if size + count * (width + 1) > limit:
            raise FileRejected("F_TOO_LARGE", {"limit": str(limit)})
    return width


def _write_even(rows: _Rows, target: Path, width: int) -> None:
    """Write rows with as many cells each as the widest has."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8-sig", newline="") as file:
        os.fchmod(file.fileno(), 0o600)
        writer = csv.writer(file, lineterminator="\r\n")
        for row in rows:
            writer.writerow(row + [""] * (width - len(row)))

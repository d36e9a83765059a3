"""A client's workbook (.xlsx) as a CSV file: its order sheet, row for row, each cell as Excel shows it.

Here the sheet is chosen and its rows are written. Whether the package may be opened at all is decided in `package`,
what a value looks like in `formats`; what rows mean is decided after the CSV file is staged, as for any other.
"""

from __future__ import annotations

import csv
import errno
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, BinaryIO

from openpyxl.cell.read_only import ReadOnlyCell
from openpyxl.reader.excel import ExcelReader
from openpyxl.reader.workbook import WorkbookParser
from openpyxl.workbook import Workbook

from orders_pipeline.excel_file.cells import Cell, read_rows, read_texts
from orders_pipeline.excel_file.formats import JAPANESE_FORMATS, show
from orders_pipeline.excel_file.package import Extent, check_package, damaged
from orders_pipeline.rejections import FileRejected
from orders_pipeline.scratch import scratch_files

_HEADER_MARGIN = 20  # rows above the orders: a header, and titles that staging will name
_MAX_COLUMNS = 256
_MAX_CELL = 32_767  # characters; Excel takes no more
# twice what a CSV file may have, since the commas of rows and cells that are blank come on top of what was typed
_TEXT_FACTOR = 2

_Rows = Iterator[list[str]]


def write_csv(source: Path, target: Path, *, max_bytes: int, max_rows: int) -> None:
    """Write the order sheet of a workbook as strict CSV (UTF-8 with BOM, CRLF, mode 0600), or raise FileRejected.

    The order sheet is the first visible one with a value. Record N of the CSV file is row N of the sheet; all records have
    the width of the widest, and blank rows and columns at the end are left out. Dates are written like 2026-04-01,
    whatever their format; everything else as a Japanese Excel shows it. `max_rows` does not count blank rows.
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
        rows = _filled(_read(file, max_bytes, max_rows), max_rows)
        width = _write_uneven(rows, uneven, limit)
        if not width:
            raise FileRejected("F_EMPTY")
        uneven.seek(0)
        _write_even(csv.reader(uneven), target, width)


def _read(file: BinaryIO, max_bytes: int, max_rows: int) -> _Rows:
    """Read the order sheet's rows as texts; whatever makes the libraries stumble is a damaged workbook."""
    try:
        parts = check_package(file, max_bytes=max_bytes, max_rows=max_rows)
        file.seek(0)
        structure = _Structure(file, read_only=True, data_only=True, keep_links=False)
        structure.read()
        path, extent = _order_sheet(structure.parser, parts.sheets)
        with zipfile.ZipFile(file) as package:
            texts: list[str] = []
            if parts.texts is not None:
                with package.open(parts.texts) as stream:
                    texts = read_texts(stream)
            with package.open(path) as stream:
                yield from _shown_rows(read_rows(stream, texts), extent, structure.wb)
    except (FileRejected, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
            raise  # the disk; a workbook only sends a library to places that are not there
        raise damaged() from None


class _Structure(ExcelReader):
    """The library's reader of a workbook's sheets, its styles and the day its dates begin at, and of no more."""

    def read_strings(self) -> None:
        """Leave the texts, which are most of a workbook, to `cells`."""

    def read_worksheets(self) -> None:
        """Leave the sheets to `cells`, and their charts and pictures alone."""


def _order_sheet(workbook: WorkbookParser, extents: Mapping[str, Extent]) -> tuple[str, Extent]:
    """Return the first visible sheet with a value, as its path in the package and its extent."""
    for sheet, relation in workbook.find_sheets():
        if sheet.state != "visible" or "chartsheet" in relation.Type:
            continue
        path = relation.target
        if path not in extents:
            raise damaged()
        if extents[path].columns > _MAX_COLUMNS:
            raise FileRejected("F_COLUMNS")
        if extents[path].rows:
            return path, extents[path]
    raise FileRejected("F_EMPTY")


def _shown_rows(rows: Iterator[tuple[int, list[Cell]]], extent: Extent, workbook: Workbook) -> _Rows:
    """Show each row up to the last with a value; rows that are not there are blank."""
    formats = _Formats(workbook)
    expected = 1
    for number, cells in rows:
        if number > extent.rows:
            return
        yield from ([] for _ in range(expected, number))
        expected = number + 1
        shown = [""] * extent.columns
        for cell in cells:
            shown[cell.column - 1] = text = formats.show(cell)
            if len(text) > _MAX_CELL:
                raise FileRejected("F_FIELD_TOO_LONG", {"limit": str(_MAX_CELL)})
        yield shown


class _Formats:
    """Shows the cells of one workbook by the number formats of its styles."""

    def __init__(self, workbook: Workbook) -> None:
        self._sheet: Any = SimpleNamespace(parent=workbook)  # all that a cell needs of its sheet to know its style
        self._epoch = workbook.epoch
        self._formats: dict[int, str] = {}

    def show(self, cell: Cell) -> str:
        """Return what a cell shows."""
        if cell.style not in self._formats:
            self._formats[cell.style] = self._format(cell.style)
        return show(cell.value, self._formats[cell.style], is_error=cell.is_error, epoch=self._epoch)

    def _format(self, style: int) -> str:
        styled = ReadOnlyCell(self._sheet, 1, 1, None, style_id=style)
        return JAPANESE_FORMATS.get(styled.style_array.numFmtId) or styled.number_format


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

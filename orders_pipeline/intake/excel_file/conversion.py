"""A workbook (.xlsx) as a CSV file: its order sheet, row for row, each cell as Excel shows it.

What rows mean is decided after the CSV file is staged, as for any other.
"""

from __future__ import annotations

import csv
import errno
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

from orders_pipeline.infrastructure.scratch import scratch_files
from orders_pipeline.intake.excel_file.package import check_package, damaged
from orders_pipeline.intake.excel_file.ranges import MergedCells
from orders_pipeline.intake.excel_file.sheets import HEADER_MARGIN, OrderSheet, Sheet, Sheets, Structure
from orders_pipeline.intake.excel_file.shown_cells import marked
from orders_pipeline.records.rejections import FileRejected

# twice what a CSV file may have, since the commas of rows and cells that are blank come on top of what was typed
_TEXT_FACTOR = 2
_ANY_SHEET = OrderSheet()
_Rows = Iterator[list[str]]


def write_csv(source: Path, target: Path, *, max_bytes: int, max_rows: int, wanted: OrderSheet = _ANY_SHEET) -> int:
    """Write the order sheet of a workbook as strict CSV (UTF-8 with BOM, CRLF, mode 0600), or raise FileRejected.

    The order sheet is the one agreed on, or the visible one that holds the header and rows, or the first with a value.
    Record N of the CSV file is row N of the sheet. All records have the width of the widest; blank rows and columns at the
    end are left out. Dates are written like 2026-04-01, whatever their format, and everything else as a Japanese Excel shows
    it. A cell is marked, with what it shows and what it holds, where these are not the same number, or where it is merged
    and shows another cell's value or nothing. `max_rows` does not count blank rows. Returns how many rows under the header
    are hidden.
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
            structure = Structure(file, read_only=True, data_only=True, keep_links=False)
            structure.read()
            with zipfile.ZipFile(file) as package:
                sheets = Sheets(package, parts, structure, self._wanted)
                sheet = sheets.choose()
                yield from self._shown_rows(sheets, sheet)
        except (FileRejected, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
                raise  # the disk; a workbook only sends a library to places that are not there
            raise damaged() from None

    def _shown_rows(self, sheets: Sheets, sheet: Sheet) -> _Rows:
        """Show each row up to the last with a value; rows that are not there are blank."""
        header, kinds = sheets.header(sheet)
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
            shown[column - 1] = marked(tops[column][1], "")


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
        if filled > max_rows + HEADER_MARGIN:
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

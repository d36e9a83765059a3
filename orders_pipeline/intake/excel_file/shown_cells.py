"""Cells as a workbook shows them, by the number formats of its styles.

A cell that shows another number than it holds is marked. What a format makes of a value is said in `formats`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from openpyxl.cell.read_only import ReadOnlyCell
from openpyxl.workbook import Workbook

from orders_pipeline.intake.excel_file.format_sections import JAPANESE_FORMATS
from orders_pipeline.intake.excel_file.formats import CellKind, Value, show, shows_what_is_stored
from orders_pipeline.intake.excel_file.stored_cells import Cell, Raised, Struck
from orders_pipeline.records.rules import CELL_ERROR, NOT_AS_SHOWN, UNCOMPUTED

_LONGEST_SHOWN = 100  # characters of a marked cell
_ERROR = "#VALUE!"  # in place of one we do not know
_ODD_ZEROS = re.compile(r"[^0-9]*0[0-9]*,|.*\.(?:0{3,})?[^0-9]*$")  # with which a number in a CSV file would be doubtful
_NO_DECIMALS = re.compile(r"\.0*(?=[^0-9]*$)|,")


class ShownCells:
    """The texts that the cells of one workbook show, by the number formats of its styles."""

    def __init__(self, workbook: Workbook) -> None:
        self._sheet: Any = SimpleNamespace(parent=workbook)  # all that a cell needs of its sheet to know its style
        self._epoch = workbook.epoch
        self._formats: dict[int, tuple[str, bool]] = {}

    def show(self, cell: Cell, kind: CellKind | None, others: Iterable[str] = ()) -> str:
        """Return what a cell shows; in a column of a kind, marked where that is another number than the stored one.

        It is also marked where one of the `others`, formats that a condition may give the cell, shows another number, where
        the cell is struck through, and where a code or number has the digit of a footnote. A choice of 0 is 0, also where a
        dash is shown, or nothing.
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
            return marked(shown, cell.value)
        for each, text in ((number_format, shown), *((other, self._shown(cell, other)) for other in others)):
            if not shows_what_is_stored(cell.value, each, text, kind):
                return marked(text, cell.value)
        if kind == "choice" and not isinstance(cell.value, bool) and cell.value == 0 and not re.search("[0-9]", shown):
            return "0"
        is_odd = kind in {"number", "choice"} and not isinstance(cell.value, str) and _ODD_ZEROS.match(shown)
        return _NO_DECIMALS.sub("", shown) if is_odd else shown  # what stands around the number, like a $, stays

    def _shown(self, cell: Cell, number_format: str) -> str:
        return show(cell.value, number_format, is_error=cell.is_error, epoch=self._epoch)

    def _format(self, style: int) -> tuple[str, bool]:
        """Return a style's number format, and whether it strikes text through."""
        styled = ReadOnlyCell(self._sheet, 1, 1, None, style_id=style)
        return JAPANESE_FORMATS.get(styled.style_array.numFmtId) or styled.number_format, bool(styled.font.strike)


def marked(text: str, value: Value) -> str:
    """Return a cell that validation rejects as not shown as stored, with the beginning of what it shows and holds."""
    return f"{NOT_AS_SHOWN} {text[:_LONGEST_SHOWN]} ({str(value)[:_LONGEST_SHOWN]})"

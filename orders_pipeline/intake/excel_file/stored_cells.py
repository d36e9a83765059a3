"""The texts and the cells of a workbook's parts, read as a stream: what is stored, not yet what is shown.

Only what `package` let pass is read here. The library could do it, but takes five times as long and builds objects for
every text; the rest of a workbook, which is small, is left to it (`sheets`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import IO, NamedTuple
from xml.parsers import expat

from orders_pipeline.intake.excel_file.formats import Value
from orders_pipeline.intake.excel_file.ranges import Range, column_number, ranges_in
from orders_pipeline.records.rules import UNCOMPUTED

MAIN_NAMESPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main "

_BLOCK = 64 << 10
_ROW, _CELL, _VALUE, _FORMULA, _STRING, _INLINE, _RUN_TEXT, _PHONETIC = (
    MAIN_NAMESPACE + name for name in ("row", "c", "v", "f", "si", "is", "t", "rPh")
)
_RUN, _STRIKE, _RAISED = (MAIN_NAMESPACE + name for name in ("r", "strike", "vertAlign"))
_MOST_ARRAYS = 256  # results of one formula in many cells, beside each other
_WHOLE_NUMBER = re.compile("-?[0-9]+")
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


class Struck(str):
    """A text of which a part is struck through."""

    __slots__ = ()


class Raised(str):
    """A text of which some digits are raised or lowered, as those of a footnote are."""

    __slots__ = ()


class Cell(NamedTuple):
    """A cell with a value: its column from 1, the number of its style, and whether the value is an error like #REF!.

    The value is `UNCOMPUTED`, and an error, where there is a formula that no program has computed, or Excel will anew.
    """

    column: int
    style: int
    value: Value
    is_error: bool


class SheetRow(NamedTuple):
    """A row of a sheet: its number from 1, its cells that have a value, and whether it is hidden, by a filter or a hand."""

    number: int
    cells: list[Cell]
    is_hidden: bool


def read_texts(stream: IO[bytes]) -> list[str]:
    """Return the texts that the cells of a workbook share, without their readings (furigana)."""
    reader = _TextReader()
    for _ in _feed(stream, reader):
        pass
    return reader.texts


def read_rows(stream: IO[bytes], texts: Sequence[str], *, recomputes: bool = False) -> Iterator[SheetRow]:
    """Read the rows a sheet holds; `texts` are those the cells of the workbook share.

    Where Excel `recomputes` formulas as it opens the workbook, the results in it may be of other values, or 0.
    """
    reader = _RowReader(texts, recomputes=recomputes)
    for _ in _feed(stream, reader):
        yield from reader.rows
        reader.rows = []


def _feed(stream: IO[bytes], reader: _TextReader) -> Iterator[None]:
    """Feed a stream to a reader, block by block."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    while block := stream.read(_BLOCK):
        parser.Parse(block)
        yield


class _TextReader:
    """Collects texts: of the parts of each that are formatted differently, but not of what only says how it is read."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._parts: list[str] = []
        self._collects = self._is_reading = False
        self._is_struck = self._is_raised = False  # the run that is read
        self._text_type: type[str] = str

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Take the beginning of an element."""
        if name == _RUN_TEXT:
            self._collects = not self._is_reading
        elif name == _PHONETIC:
            self._is_reading = True
        elif name == _RUN:
            self._is_struck = self._is_raised = False
        elif name == _STRIKE:
            self._is_struck = attributes.get("val", "1") not in {"0", "false"}
        elif name == _RAISED:
            self._is_raised = attributes.get("val") != "baseline"

    def end(self, name: str) -> None:
        """Take the end of an element."""
        if name == _RUN_TEXT:
            self._collects = False
        elif name == _PHONETIC:
            self._is_reading = False
        elif name == _RUN:
            self._is_struck = self._is_raised = False
        elif name == _STRING:
            self.texts.append(self._text(self._taken()))

    def characters(self, text: str) -> None:
        """Take text between elements."""
        if self._collects:
            self._parts.append(text)
            if self._is_struck and text.strip():
                self._text_type = Struck
            elif self._is_raised and self._text_type is str and re.search(r"\d", text):
                self._text_type = Raised

    def _taken(self) -> str:
        text = "".join(self._parts)
        self._parts.clear()
        return text

    def _text(self, taken: str) -> str:
        text = _unescaped(taken)
        if self._text_type is not str:
            text, self._text_type = self._text_type(text), str
        return text


class _RowReader(_TextReader):
    """Collects rows of cells; `rows` holds those that are complete."""

    def __init__(self, texts: Sequence[str], *, recomputes: bool) -> None:
        super().__init__()
        self._shared = texts
        self._recomputes = recomputes
        self._arrays: list[Range] = []  # which the formula of another cell fills
        self.rows: list[SheetRow] = []
        self._row = self._column = 0
        self._is_hidden = False
        self._kind, self._style, self._has_formula, self._has_value = "n", 0, False, False
        self._cells: list[Cell] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Take the beginning of an element."""
        if name == _VALUE:
            self._collects = True
            self._begin_value()
        elif name == _CELL:
            letters = attributes.get("r", "").rstrip("0123456789")
            self._column = column_number(letters) if letters else self._column + 1
            self._kind, self._style = attributes.get("t", "n"), int(attributes.get("s", 0))
            self._has_formula = self._has_value = False
            if self._cells and self._column <= self._cells[-1].column and self._is_there(self._column):
                raise ValueError("a cell twice")
        elif name == _INLINE:
            self._begin_value()
        elif name == _FORMULA:
            self._has_formula = True
            if self._recomputes and attributes.get("t") in {"array", "dataTable"}:
                self._arrays += ranges_in(attributes.get("ref", ""))
                if len(self._arrays) > _MOST_ARRAYS:
                    raise ValueError("arrays upon each other")
        elif name == _ROW:
            self._row = int(attributes.get("r", self._row + 1))
            self._column, self._cells = 0, []
            self._arrays = [each for each in self._arrays if self._row <= each.last_row]
            self._is_hidden = attributes.get("hidden") in {"1", "true"} or attributes.get("ht") in {"0", "0.0"}
        else:
            super().start(name, attributes)

    def end(self, name: str) -> None:
        """Take the end of an element."""
        if name == _VALUE:
            self._collects = False
        elif name == _CELL:
            stored = self._taken()
            is_empty_text = not stored and self._kind == "str"
            is_recomputed = self._recomputes and (self._has_formula or self._is_in_array())
            if not is_empty_text and (is_recomputed or (self._has_formula and not stored)):
                self._cells.append(Cell(self._column, self._style, UNCOMPUTED, is_error=True))
            elif stored:
                self._cells.append(Cell(self._column, self._style, self._value(stored), self._kind == "e"))
        elif name == _ROW:
            self.rows.append(SheetRow(self._row, self._cells, self._is_hidden))
        else:
            super().end(name)

    def _begin_value(self) -> None:
        """Let no cell have two values, which would be read as one."""
        if self._has_value:
            raise ValueError("two values")
        self._has_value = True

    def _is_there(self, column: int) -> bool:
        return any(cell.column == column for cell in self._cells)

    def _is_in_array(self) -> bool:
        return any(each.first_column <= self._column <= each.last_column for each in self._arrays)

    def _value(self, stored: str) -> Value:
        match self._kind:
            case "n":
                return int(stored) if _WHOLE_NUMBER.fullmatch(stored) else float(stored)
            case "s":
                return self._shared[int(stored)]
            case "b":
                return stored != "0"
            case "d":
                return datetime.fromisoformat(stored).replace(tzinfo=None)
            case _:
                return self._text(stored)


def _unescaped(text: str) -> str:
    """Return a text with the characters that XML cannot hold (_x000D_), and with LF between its lines."""
    if "_x" in text:
        text = _ESCAPED.sub(_character, text)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _character(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    return match[0] if 0xD800 <= code <= 0xDFFF else chr(code)

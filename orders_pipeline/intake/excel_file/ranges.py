"""Columns and ranges of a sheet, like "E2:E10 G2": which rows of a column lie in them, and which cells a merge hides."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

_RANGE = re.compile(r"\$?([A-Za-z]{1,3})?\$?([0-9]{1,7})?(?::\$?([A-Za-z]{1,3})?\$?([0-9]{1,7})?)?")
_LAST_ROW = 1_048_576


class Range(NamedTuple):
    """Cells from one column and row to another, all from 1."""

    first_column: int
    last_column: int
    first_row: int
    last_row: int


@lru_cache(maxsize=20_000)  # asked for every cell
def column_number(letters: str) -> int:
    """Return the number of a column from 1: A is 1, XFD 16,384; raise ValueError for what is no column."""
    if not (letters.isascii() and letters.isalpha() and len(letters) <= 3):
        raise ValueError("no column")
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number


def ranges_in(cells: str) -> Iterator[Range]:
    """Yield each range of a text; one without a row or column has all of them. Raises ValueError for what is none."""
    for each in cells.split():
        found = _RANGE.fullmatch(each)
        if found is None:
            raise ValueError("no range")
        left, top, right, bottom = found[1] or "A", int(found[2] or 1), found[3], found[4]
        if ":" not in each:
            right, bottom = right or left, bottom or str(top)
        columns = sorted((column_number(left), column_number(right or "XFD")))
        rows = sorted((top, int(bottom or _LAST_ROW)))
        yield Range(*columns, *rows)


class Spans:
    """Rows of one column."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in sorted(spans):
            if self._lasts and first <= self._lasts[-1] + 1:
                self._lasts[-1] = max(self._lasts[-1], last)
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    def __contains__(self, row: int) -> bool:
        at = bisect_right(self._firsts, row) - 1
        return at >= 0 and row <= self._lasts[at]


class MergedCells:
    """The cells of a sheet that are merged into another one, which alone is seen."""

    def __init__(self, merges: Iterable[str]) -> None:
        self._ranges = [each for cells in merges for each in ranges_in(cells)]
        self._hidden: dict[int, Spans] = {}
        self._upright: dict[int, list[tuple[int, int]]] = {}
        for each in self._ranges:
            if each.first_row < each.last_row:
                self._upright.setdefault(each.first_column, []).append((each.first_row, each.last_row))
        for spans in self._upright.values():
            spans.sort()

    @property
    def joins_rows(self) -> bool:
        """Return whether any cell is merged into one above."""
        return bool(self._upright)

    def top_of(self, column: int, row: int) -> int | None:
        """Return the row above in the same column whose cell is seen in the place of this one, if one is."""
        spans = self._upright.get(column, ())
        at = bisect_left(spans, (row, 0)) - 1
        return spans[at][0] if at >= 0 and row <= spans[at][1] else None

    def hide(self, column: int, row: int) -> bool:
        """Return whether a cell is not seen."""
        if not self._ranges:
            return False
        if column not in self._hidden:
            self._hidden[column] = Spans(
                (each.first_row + (column == each.first_column), each.last_row)
                for each in self._ranges
                if each.first_column <= column <= each.last_column
                and each.first_row + (column == each.first_column) <= each.last_row
            )
        return row in self._hidden[column]

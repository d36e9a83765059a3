"""Number formats that a workbook puts on cells under a condition: which cells may be shown so.

Whether a condition holds is never worked out: it may be any formula. What a format shows is said in `formats`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from orders_pipeline.excel_file.cells import column_number

_RANGE = re.compile(r"\$?([A-Za-z]{1,3})?\$?([0-9]{1,7})?(?::\$?([A-Za-z]{1,3})?\$?([0-9]{1,7})?)?")
_LAST_ROW = 1_048_576


class Condition(NamedTuple):
    """A rule of a sheet: its cells, like "E2:E10 G2", and the number of its style or the number format itself."""

    cells: str
    style: int | None
    number_format: str | None


class _Range(NamedTuple):
    first_column: int
    last_column: int
    rows: tuple[int, int]


class ConditionalFormats:
    """The number formats that the cells of one sheet may have, beside their own."""

    def __init__(self, rules: Sequence[Condition], formats_of_styles: Mapping[int, str]) -> None:
        self._ranges: dict[str, list[_Range]] = {}
        for rule in rules:
            number_format = formats_of_styles.get(rule.style) if rule.style is not None else rule.number_format
            if number_format:
                self._ranges.setdefault(number_format, []).extend(_ranges(rule.cells))
        self._spans: dict[int, dict[str, tuple[list[int], list[int]]]] = {}

    def of(self, column: int, row: int) -> Iterator[str]:
        """Yield the number formats that a cell may be shown in."""
        if column not in self._spans:
            self._spans[column] = {
                number_format: _merged([each.rows for each in ranges if each.first_column <= column <= each.last_column])
                for number_format, ranges in self._ranges.items()
            }
        for number_format, (firsts, lasts) in self._spans[column].items():
            at = bisect_right(firsts, row) - 1
            if at >= 0 and row <= lasts[at]:
                yield number_format


def _ranges(cells: str) -> Iterator[_Range]:
    """Yield each range; one without a row or column has all of them."""
    for each in cells.split():
        found = _RANGE.fullmatch(each)
        if found is None:
            raise ValueError("no range")
        left, top, right, bottom = found[1] or "A", int(found[2] or 1), found[3], found[4]
        if ":" not in each:
            right, bottom = right or left, bottom or str(top)
        columns = sorted((column_number(left), column_number(right or "XFD")))
        rows = sorted((top, int(bottom or _LAST_ROW)))
        yield _Range(columns[0], columns[1], (rows[0], rows[1]))


def _merged(rows: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Return the first and last rows of spans that do not touch, in order."""
    firsts: list[int] = []
    lasts: list[int] = []
    for first, last in sorted(rows):
        if lasts and first <= lasts[-1] + 1:
            lasts[-1] = max(lasts[-1], last)
        else:
            firsts.append(first)
            lasts.append(last)
    return firsts, lasts

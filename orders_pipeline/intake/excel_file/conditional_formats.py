"""Number formats that a workbook puts on cells under a condition: which cells may be shown so.

Whether a condition holds is never worked out: it may be any formula. What a format shows is said in `formats`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from orders_pipeline.intake.excel_file.ranges import Range, Spans, ranges_in


class Condition(NamedTuple):
    """A rule of a sheet: its cells, like "E2:E10 G2", and the number of its style or the number format itself."""

    cells: str
    style: int | None
    number_format: str | None


class ConditionalFormats:
    """The number formats that the cells of one sheet may have, beside their own."""

    def __init__(self, rules: Sequence[Condition], formats_of_styles: Mapping[int, str]) -> None:
        self._ranges: dict[str, list[Range]] = {}
        for rule in rules:
            number_format = formats_of_styles.get(rule.style) if rule.style is not None else rule.number_format
            if number_format:
                self._ranges.setdefault(number_format, []).extend(ranges_in(rule.cells))
        self._spans: dict[int, dict[str, Spans]] = {}

    def of(self, column: int, row: int) -> Iterator[str]:
        """Yield the number formats that a cell may be shown in."""
        if column not in self._spans:
            self._spans[column] = {
                number_format: Spans(
                    (each.first_row, each.last_row) for each in ranges if each.first_column <= column <= each.last_column
                )
                for number_format, ranges in self._ranges.items()
            }
        for number_format, spans in self._spans[column].items():
            if row in spans:
                yield number_format

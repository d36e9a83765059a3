"""Dialect: what separates the cells of a text, and whether a quotation mark encloses a cell or is a character like others.

What is made of the cells is decided by who reads them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _csv import Reader, Writer


@dataclass(frozen=True)
class Dialect:
    """How a client writes cells; with `has_quotes` as RFC 4180 says, else every line is a record."""

    delimiter: str = ","
    has_quotes: bool = True

    def reader(self, lines: Iterable[str], *, strict: bool = False) -> Reader:
        """Return a reader of the records in some lines."""
        if self.has_quotes:
            return csv.reader(lines, delimiter=self.delimiter, strict=strict)
        return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, strict=strict)

    def writer(self, target: TextIO, line_ending: str) -> Writer:
        """Return a writer of records, with all cells in quotes: a line end in one need not be that of the records."""
        if self.has_quotes:
            return csv.writer(target, delimiter=self.delimiter, lineterminator=line_ending, quoting=csv.QUOTE_ALL)
        return csv.writer(
            target, delimiter=self.delimiter, lineterminator=line_ending, quoting=csv.QUOTE_NONE, quotechar=None
        )

    def cells_of(self, lines: Sequence[str]) -> list[str]:
        """Return the cells of the record that begins some lines; none of what is no CSV."""
        try:
            return next(self.reader(lines), [])
        except csv.Error:
            return []

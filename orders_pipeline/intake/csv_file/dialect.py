"""Dialect: what separates the cells of a text, and whether a quotation mark encloses a cell or is a character like others.

What is made of the cells is decided by who reads them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _csv import Reader, Writer


_ESCAPED_QUOTE = '\\"'


class NoRecordError(Exception):
    """A line may be only a part of a record."""


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

    def read_alone(self, line: str) -> tuple[list[str], bool]:
        """Return the cells of a line that is a record by itself, and whether it is written as it should be.

        All its quotation marks must open or close a cell, or be doubled in one; else it is still a record where some are
        escaped by a backslash instead, and all others are right. Raises NoRecordError for any other line.
        """
        record = line.rstrip("\r\n")
        if not self.has_quotes or self._patterns[0].fullmatch(record):
            return next(self.reader([record]), []), True
        if _ESCAPED_QUOTE in record and self._patterns[1].fullmatch(record):
            return next(csv.reader([record], delimiter=self.delimiter, escapechar="\\")), False
        raise NoRecordError

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """Return what a record on one line is like, as RFC 4180 says, and with quotation marks escaped by a backslash."""
        mark = re.escape(self.delimiter)
        inside = r'(?:[^"]|"")*+', r'(?:[^"\\]|""|\\.)*+'
        cells = (rf'(?:"{each}"|[^"{mark}]*+)' for each in inside)
        as_it_should_be, escaped = (re.compile(f"{cell}(?:{mark}{cell})*+") for cell in cells)
        return as_it_should_be, escaped

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

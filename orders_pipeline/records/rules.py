"""What a rule is: a code, and the condition that a cell or a row must pass to be without it.

Conditions run over whole Arrow arrays; `judgement.py` also makes a Pandera check of each. Empty cells and nulls pass all
but `Filled`: whether a value must be there is a question of its own. Expressions run in RE2, whose time is linear in any
text. Which rules a column has is said in its catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.records.card_numbers import card_numbers_among
from orders_pipeline.records.normalise import utf8_content

if TYPE_CHECKING:
    import pandas as pd

Passed: TypeAlias = "pd.Series[bool]"

# Control (but tab and line ends), bidirectional and other invisible controls, private use, the marks of damaged text.
_FORBIDDEN = (
    *((0x0, 0x8), (0xB, 0xC), (0xE, 0x1F), (0x7F, 0x7F), (0x80, 0x9F), (0x61C, 0x61C), (0x200E, 0x200F), (0x2028, 0x202E)),
    *((0x2060, 0x206F), (0xE000, 0xF8FF), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFF), (0xF0000, 0x10FFFF)),
)
NOT_AS_SHOWN = "#FORMAT!"  # what a cell of a workbook begins with that shows another number than the one stored, or nothing
UNCOMPUTED = "#FORMULA!"  # what is read of a cell of a workbook with a formula and no result
# errors of Excel and of LibreOffice, what Excel saves of a cell too narrow for its value, and where there is no result
CELL_ERROR = (
    r"^\s*(?:#(?i:FORMULA!|N/A|REF!|VALUE!|NAME\?|DIV/0!|NUM!|NULL!|SPILL!|CALC!|FIELD!|BLOCKED!|CONNECT!|BUSY!|UNKNOWN!|PYTHON!"
    r"|EXTERNAL!|GETTING_DATA)|#{4,}|(?i:Err):[0-9]{3})\s*$"
)


class Condition(Protocol):
    """A test of single cells."""

    def __call__(self, cells: pa.Array, today: date, /) -> pa.Array:
        """Return for each cell whether it passes, null where a cell is null; `today` is the day in Japan."""


@dataclass(frozen=True)
class Rule:
    """A condition on every cell of a column, and the code a cell gets that fails it, with the same `detail` for all."""

    code: str
    condition: Condition
    detail: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RowRule:
    """A check over several columns, reported at `column`; left out where one of `suppressed_by` has a finding."""

    code: str
    column: str
    check: Callable[[pd.DataFrame], Passed]
    suppressed_by: tuple[str, ...]


@dataclass(frozen=True)
class Filled:
    """Cells are more than white space."""

    def __call__(self, cells: pa.Array, _: date) -> pa.Array:
        """Return which cells pass."""
        return pc.not_equal(pc.utf8_trim_whitespace(cells), "")


@dataclass(frozen=True)
class AtMost:
    """Cells have at most so many characters."""

    characters: int

    def __call__(self, cells: pa.Array, _: date) -> pa.Array:
        """Return which cells pass."""
        lengths = pc.binary_length(cells)  # bytes are counted faster, and are never fewer
        if (pc.max(lengths).as_py() or 0) > self.characters:
            lengths = pc.utf8_length(cells)
        return pc.less_equal(lengths, self.characters)


@dataclass(frozen=True)
class Matches:
    """Whole cells match an RE2 pattern, or are empty."""

    pattern: str

    def __call__(self, cells: pa.Array, _: date) -> pa.Array:
        """Return which cells pass."""
        return pc.match_substring_regex(cells, f"^(?:{self.pattern})?$")


@dataclass(frozen=True)
class Lacks:
    """No part of a cell matches an RE2 pattern; `marks`: bytes without one of which nothing can match."""

    pattern: str
    marks: tuple[bytes, ...] = ()

    def __call__(self, cells: pa.Array, _: date) -> pa.Array:
        """Return which cells pass."""
        if self.marks:
            content = utf8_content(cells)
            if not any(mark in content for mark in self.marks):  # by far the most columns
                return pa.repeat(True, len(cells))
        return pc.invert(pc.match_substring_regex(cells, self.pattern))


@dataclass(frozen=True)
class OneOf:
    """Cells are one of `choices`, or empty."""

    choices: tuple[str, ...]

    def __call__(self, cells: pa.Array, _: date) -> pa.Array:
        """Return which cells pass."""
        return pc.is_in(cells, value_set=pa.array(["", *self.choices]))


@dataclass(frozen=True)
class Between:
    """Numbers are from `low` up to `high`."""

    low: int
    high: int = 2**63 - 1

    def __call__(self, cells: pa.Array, _: date) -> pa.Array:
        """Return which cells pass."""
        return pc.and_(pc.greater_equal(cells, self.low), pc.less_equal(cells, self.high))


@dataclass(frozen=True)
class DaysBack:
    """Dates are at most so many days before today, and none is after it."""

    most: int

    def __call__(self, cells: pa.Array, today: date) -> pa.Array:
        """Return which cells pass."""
        oldest = today - timedelta(days=self.most)
        return pc.and_(pc.greater_equal(cells, oldest), pc.less_equal(cells, today))


@dataclass(frozen=True)
class CalendarDate:
    """Cells are a day of the calendar written like 2026-04-01, or empty."""

    def __call__(self, cells: pa.Array, _: date) -> pa.Array:
        """Return which cells pass."""
        distinct = cells.dictionary_encode()
        known = pa.array([text == "" or _is_day(text) for text in distinct.dictionary.to_pylist()], pa.bool_())
        return known.take(distinct.indices)


@dataclass(frozen=True)
class NoCardNumber:
    """Cells have no card number; in codes, which may be long numbers themselves, none that stands alone."""

    in_codes: bool = False

    def __call__(self, cells: pa.Array, _: date) -> pa.Array:
        """Return which cells pass."""
        found = card_numbers_among(cells, in_codes=self.in_codes)
        return pc.invert(pc.is_in(cells, value_set=found)) if len(found) else pa.repeat(True, len(cells))


def never_matches(pattern: str) -> Lacks:
    """Return the condition that no whole cell matches an RE2 pattern."""
    return Lacks(f"^(?:{pattern})$")


# no control, bidirectional, private-use or replacement characters; tabs and line ends may be there
PRINTABLE = Lacks(
    "[" + "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in _FORBIDDEN) + "]",
    tuple(bytes([byte]) for first, last in _FORBIDDEN for byte in range(chr(first).encode()[0], chr(last).encode()[0] + 1)),
)
COMPUTED = Lacks(rf"^\s*(?i:{UNCOMPUTED})\s*$", (b"#",))
NO_CELL_ERROR = Lacks(CELL_ERROR, (b"#", b":"))  # single bytes are found much faster
SHOWN = Lacks(rf"^(?i:{NOT_AS_SHOWN})", (b"#",))


def is_no_text(cells: pa.Array) -> pa.Array:
    """Return for each cell whether it is an error of a spreadsheet, like #N/A, or marked as not what it shows."""
    return pc.invert(pc.and_(NO_CELL_ERROR(cells, date.min), SHOWN(cells, date.min)))


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False

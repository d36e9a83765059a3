"""The building blocks rules are written with: each takes a column and answers, cell by cell, whether it passes.

Empty cells and nulls pass everything but `filled`: whether a value must be there is a question of its own. Expressions
run in RE2, whose time is linear in any text. What a particular column allows is said in its catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.records.card_numbers import find_card_numbers, may_hold_one
from orders_pipeline.records.normalise import utf8_content

if TYPE_CHECKING:
    import pandas as pd

Cells: TypeAlias = "pd.Series[Any]"
Passed: TypeAlias = "pd.Series[bool]"
Check: TypeAlias = "Callable[[Cells, RowContext], Passed]"
Translate: TypeAlias = "Callable[[pa.Array], pa.Array]"

# Control (but tab and line ends), bidirectional and other invisible controls, private use, the marks of damaged text.
_FORBIDDEN = (
    r"[\x{0}-\x{8}\x{b}\x{c}\x{e}-\x{1f}\x{7f}-\x{9f}\x{61c}\x{200e}\x{200f}\x{2028}-\x{202e}\x{2060}-\x{206f}"
    r"\x{e000}-\x{f8ff}\x{feff}\x{fff9}-\x{ffff}\x{f0000}-\x{10ffff}]"
)
OTHER_NUMBER = "#FORMAT!"  # what a cell of a workbook begins with whose text is another number than the one stored
_OTHER_NUMBER = rf"^(?i:{OTHER_NUMBER})"
UNCOMPUTED = "#FORMULA!"  # what is read of a cell of a workbook with a formula and no result
_UNCOMPUTED = rf"^\s*(?i:{UNCOMPUTED})\s*$"
# errors of Excel and of LibreOffice, what Excel saves of a cell too narrow for its value, and where there is no result
CELL_ERROR = (
    r"^\s*(?:#(?i:FORMULA!|N/A|REF!|VALUE!|NAME\?|DIV/0!|NUM!|NULL!|SPILL!|CALC!|FIELD!|BLOCKED!|CONNECT!|BUSY!|UNKNOWN!|PYTHON!"
    r"|EXTERNAL!|GETTING_DATA)|#{4,}|(?i:Err):[0-9]{3})\s*$"
)


@dataclass(frozen=True)
class RowContext:
    """What rules may look at beside the row: the day in Japan, the file's encoding, the profile's default channel.

    `translate` puts raw cells of a column into the catalogue's words, where the client uses others.
    """

    today: date
    encoding: str
    default_notify_channel: str
    translate: Mapping[str, Translate] = field(default_factory=dict)


def filled(cells: Cells, _: RowContext) -> Passed:
    """Pass cells that hold more than white space."""
    return _answer(cells, pc.not_equal(pc.utf8_trim_whitespace(_arrow(cells)), ""))


def printable(cells: Cells, _: RowContext) -> Passed:
    """Pass cells without control, bidirectional, private-use or replacement characters; tabs and line ends pass."""
    return _answer(cells, pc.invert(pc.match_substring_regex(_arrow(cells), _FORBIDDEN)))


def computed(cells: Cells, _: RowContext) -> Passed:
    """Pass cells that are more than the mark of a formula without a result."""
    return _answer(cells, pc.invert(_match(_arrow(cells), _UNCOMPUTED, b"#")))


def no_cell_error(cells: Cells, _: RowContext) -> Passed:
    """Pass cells that are more than an error of a spreadsheet, like #N/A."""
    return _answer(cells, pc.invert(is_cell_error(_arrow(cells))))


def is_cell_error(cells: pa.Array) -> pa.Array:
    """Return which cells are an error of a spreadsheet and nothing else."""
    return _match(cells, CELL_ERROR, b"#", b"rr:", b"RR:")


def no_other_number(cells: Cells, _: RowContext) -> Passed:
    """Pass cells that do not begin with the mark of a number that is stored as another."""
    return _answer(cells, pc.invert(_match(_arrow(cells), _OTHER_NUMBER, b"#")))


def _match(cells: pa.Array, pattern: str, *marks: bytes) -> pa.Array:
    """Return which cells match a pattern that only cells with one of the marks can match, by far the least."""
    content = utf8_content(cells)
    if not any(mark in content for mark in marks):
        return pa.repeat(False, len(cells))
    return pc.match_substring_regex(cells, pattern)


def at_most_characters(limit: int) -> Check:
    """Return a check for at most `limit` characters."""

    def check(cells: Cells, _: RowContext) -> Passed:
        lengths = pc.binary_length(_arrow(cells))  # bytes are counted faster, and are never fewer
        if (pc.max(lengths).as_py() or 0) > limit:
            lengths = pc.utf8_length(_arrow(cells))
        return _answer(cells, pc.less_equal(lengths, limit))

    return check


def matches(pattern: str) -> Check:
    """Return a check that the whole cell matches an RE2 `pattern`, or is empty."""
    whole = f"^(?:{pattern})?$"
    return lambda cells, _: _answer(cells, pc.match_substring_regex(_arrow(cells), whole))


def never_matches(pattern: str) -> Check:
    """Return a check that the whole cell does not match an RE2 `pattern`."""
    whole = f"^(?:{pattern})$"
    return lambda cells, _: _answer(cells, pc.invert(pc.match_substring_regex(_arrow(cells), whole)))


def one_of(*choices: str) -> Check:
    """Return a check that the cell is one of `choices`, or empty."""
    return lambda cells, _: _answer(cells, pc.is_in(_arrow(cells), value_set=pa.array(["", *choices])))


def between(low: int | date, high: int | date | None = None) -> Check:
    """Return a check for numbers or dates from `low`, up to `high` where one is given; nulls pass."""

    def check(cells: Cells, _: RowContext) -> Passed:
        values = _arrow(cells)
        inside = pc.greater_equal(values, low)
        return _answer(cells, inside if high is None else pc.and_(inside, pc.less_equal(values, high)))

    return check


def calendar_date(cells: Cells, _: RowContext) -> Passed:
    """Pass cells that are a day of the calendar written like 2026-04-01, or empty."""
    distinct = _arrow(cells).dictionary_encode()
    known = pa.array([text == "" or _is_day(text) for text in distinct.dictionary.to_pylist()], pa.bool_())
    return _answer(cells, known.take(distinct.indices))


def no_card_number(cells: Cells, _: RowContext) -> Passed:
    """Pass cells without a number that has a card brand's beginning and length and a right check digit."""
    suspects = _arrow(cells).filter(pc.match_substring_regex(_arrow(cells), may_hold_one())).unique()
    cards = [text for text in suspects.to_pylist() if any(find_card_numbers(text))]
    return _answer(cells, pc.invert(pc.is_in(_arrow(cells), value_set=pa.array(cards, pa.string()))))


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _arrow(cells: Cells) -> pa.Array:
    values = pa.array(cells.array)
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _answer(cells: Cells, passed: pa.Array) -> Passed:
    known = pc.fill_null(passed, True) if passed.null_count else passed
    import pandas as pd  # noqa: PLC0415 - slow to import, and most commands judge nothing

    return pd.Series(known.to_numpy(zero_copy_only=False), index=cells.index, dtype=bool)

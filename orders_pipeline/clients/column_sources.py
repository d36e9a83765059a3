"""Column sources: where a client's own files hold what a column of the catalogue means, and in which words.

Settings of a profile, and what they do to cells. Which place a header has in a file is found out in `csv_file`; what a
cell is worth is decided in `records`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from orders_pipeline.records.normalise import normalise_header, numbered, plain_word

SHORT_FORMS = (str, list)
MULTIPLIED = 2
_A_DAY = datetime(2026, 11, 29, 13, 5, 7)  # noqa: DTZ001 - to try formats with
_LEADING_ZEROS = "(^|[^0-9])0+([0-9])"


class ColumnSource(BaseModel):
    """Where one column's cells come from in a client's files.

    Either one of `headers` or all of `join` (their cells with a space between) name it there; where a header comes several
    times, `occurrence` says which one is meant. `after` begins a cell behind a text and `until` ends it before one, `format`
    is how the client writes dates, `values` says what the client's words mean, and `default` stands for empty cells and for
    a missing column. An amount may be of each line of an order, or what two headers come to when they are multiplied; what
    stands under the headers `add` counts once an order, and on each of its lines what stands under `add_each_line`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    headers: tuple[str, ...] = Field(default=(), alias="header")
    join: tuple[str, ...] = ()
    occurrence: int | None = Field(default=None, ge=1, le=100)
    after: str = ""
    until: str = ""
    date_format: str = Field(default="", alias="format")
    values: Mapping[str, str] = Field(default_factory=dict)
    default: str = ""
    each: Literal["order", "line"] = "order"
    multiply: tuple[str, ...] = ()
    add: tuple[str, ...] = ()
    add_each_line: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, source: object) -> object:
        """Read a name, or a list of names, as the headers of a source."""
        if isinstance(source, SHORT_FORMS):
            source = {"header": source}
        if isinstance(source, dict) and isinstance(source.get("header"), str):
            return source | {"header": [source["header"]]}
        return source

    @model_validator(mode="after")
    def _has_one_place(self) -> ColumnSource:
        if self.headers and self.join:
            raise ValueError("a column has either header or join")
        if len(self.join) == 1:
            raise ValueError("join names two or more headers")
        if self.occurrence and len(self.headers) != 1:
            raise ValueError("occurrence says which one is meant of one header")
        says = self.headers, self.join, self.default, self.values, self.after, self.until, self.date_format
        if not any(says) and not self.is_of_lines:
            raise ValueError("a column names a header, join, after, until, format, values or default")
        if self.date_format and not _is_of_a_day(self.date_format):
            raise ValueError("format says how a year, a month and a day are written, as in %Y%m%d%H%M%S")
        return self

    @model_validator(mode="after")
    def _comes_of_lines_in_one_way(self) -> ColumnSource:
        of_cells = ("headers", "join", "after", "until", "date_format", "values", "default")
        others = [type(self).model_fields[name].alias or name for name in of_cells if getattr(self, name)]
        if self.multiply and others:
            raise ValueError(f"multiply and {others[0]} contradict each other")
        if self.multiply and self.each == "line":
            raise ValueError("multiply and each = line contradict each other: what is multiplied is of each line")
        if self.multiply and len(set(map(normalise_header, self.multiply))) != MULTIPLIED:
            raise ValueError("multiply names two headers")
        if self.added and not self.is_summed:
            setting = "add" if self.add else "add_each_line"
            raise ValueError(f"{setting} and each = order contradict each other: the order's amount is whole")
        if len({*map(normalise_header, self.added)}) != len(self.added):
            raise ValueError("add and add_each_line name a header twice")
        return self

    @property
    def added(self) -> tuple[str, ...]:
        """Return the headers of what is added, once an order or on each line."""
        return (*self.add, *self.add_each_line)

    @property
    def is_summed(self) -> bool:
        """Return whether it is the sum of an order's lines."""
        return self.each == "line" or bool(self.multiply)

    @property
    def is_of_lines(self) -> bool:
        """Return whether it says something of lines."""
        return self.is_summed or bool(self.added)

    @property
    def names(self) -> tuple[str, ...]:
        """Return every header that the sources name."""
        if self.occurrence:
            return (numbered(self.headers[0], self.occurrence),)
        return (*self.headers, *self.join)

    @property
    def words(self) -> tuple[str, ...]:
        """Return what cells may be in the catalogue's words that say something else in the client's, or nothing."""
        return (*self.values.values(), self.default) if self.default else tuple(self.values.values())

    def translate(self, cells: pa.Array) -> pa.Array:
        """Return raw cells in the catalogue's words; a word that `values` does not know stays as it is."""
        if self.after:
            before = f"^(?s:.*?){re.escape(self.after)}"
            cells = pc.replace_substring_regex(pc.utf8_trim_whitespace(cells), before, "")
        if self.until:
            parts = pc.split_pattern(pc.utf8_trim_whitespace(cells), self.until, max_splits=1)
            cells = pc.list_element(parts, 0)
        if self.date_format:
            cells = _as_dates(cells, self.date_format)
        if self.values:
            known = {plain_word(theirs): ours for theirs, ours in self.values.items()}
            distinct = cells.dictionary_encode()
            words = [known.get(plain_word(word), word) for word in distinct.dictionary.to_pylist()]
            cells = pa.array(words, pa.string()).take(distinct.indices)
        if self.default:
            cells = pc.if_else(pc.equal(pc.utf8_trim_whitespace(cells), ""), self.default, cells)
        return cells


def _is_of_a_day(date_format: str) -> bool:
    """Return whether a format says which day it is, once it is read."""
    try:
        return datetime.strptime(_A_DAY.strftime(date_format), date_format).date() == _A_DAY.date()  # noqa: DTZ007
    except ValueError:
        return False


def _as_dates(cells: pa.Array, date_format: str) -> pa.Array:
    """Return cells that are a time in this format as the day they say; any others stay as they are."""
    trimmed = pc.utf8_trim_whitespace(cells)
    moments = pc.strptime(trimmed, date_format, "s", error_is_null=True)
    written = pc.replace_substring_regex(pc.strftime(moments, date_format), _LEADING_ZEROS, r"\1\2")
    sent = pc.replace_substring_regex(trimmed, _LEADING_ZEROS, r"\1\2")
    is_whole = pc.fill_null(pc.equal(written, sent), fill_value=False)
    return pc.if_else(is_whole, pc.strftime(moments, "%Y-%m-%d"), cells)

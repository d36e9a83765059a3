"""Rows of a CSV file as tables: numbered, with their places in the file, their shape checked and the row they correct.

Cells stay as sent. Which file the rows are of, and its header, is known from `staging`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.batches.batches import BATCH_ID
from orders_pipeline.clients.row_choices import RowChoice
from orders_pipeline.intake.csv_file.chosen_rows import ChosenRows
from orders_pipeline.intake.csv_file.dialect import Dialect, NoRecordError
from orders_pipeline.intake.csv_file.header import Header, Names
from orders_pipeline.intake.csv_file.records import Chunk, EvenChunk, Flags, Places
from orders_pipeline.intake.csv_file.shape import Shape
from orders_pipeline.intake.csv_file.split_amounts import SplitAmounts
from orders_pipeline.records.corrected_rows import NO_ROW
from orders_pipeline.records.normalise import unguarded
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.records.rules import is_no_text

TO_DECIDE, UNCLEAR = "to_decide", "unclear"
_BATCHES_KEPT = 3
_PLACES = (
    pa.field("import_row_number", pa.int32()),
    pa.field("line", pa.int32()),
    pa.field("offset", pa.int64()),
    pa.field("length", pa.int32()),
    pa.field("shape_ok", pa.bool_()),
    pa.field("corrects_row", pa.int32()),
    pa.field("unreadable", pa.string()),
    pa.field("maybe_references", pa.list_(pa.string())),
    pa.field(TO_DECIDE, pa.string()),
    pa.field(UNCLEAR, pa.string()),
)
ToldApartBy: TypeAlias = "tuple[str, Callable[[pa.Array], npt.NDArray[np.uint64]]]"
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_ROW_NUMBER = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class Limits:
    """How large a file may be; `max_rows` does not count blank rows, `max_field_chars` is at most 131,072."""

    max_bytes: int = 20 << 20
    max_rows: int = 10_000
    max_field_chars: int = 65_536
    max_columns: int = 256


@dataclass(frozen=True)
class Reading:
    """How a file is read: the names its header may hold, its limits, its dialect, and the column of amounts.

    `skip` says which rows are no orders, and `reject` which a person has to decide on. Rows are `told_apart_by` the cells of
    a column: the function returns a number for each, 0 where a row is of no order. `is_grouped`, rows of the same number are
    one order. Where it `may_have_controls`, rows with control characters are unreadable. `line_by_line`, each line must be a
    record.
    """

    names: Names
    limits: Limits
    dialect: Dialect
    amount: str | None
    skip: Sequence[RowChoice] = ()
    reject: Sequence[RowChoice] = ()
    told_apart_by: ToldApartBy | None = None
    is_grouped: bool = False
    may_have_controls: bool = False
    line_by_line: bool = False


class StagedRows:
    """Turns chunks of records into tables, and keeps the counts of one reading."""

    def __init__(self, header: Header, shape: Shape, reading: Reading, encoding: str) -> None:
        self._header = header
        self._shape = shape
        self._names = reading.names
        self._limits = reading.limits
        self._columns = tuple(dict.fromkeys(reading.names.known.values()))
        self.amounts = SplitAmounts(header, reading.amount)
        self._header_words = pa.array([*reading.names.known, *(cell.strip().lower() for cell in header.cells)], pa.string())
        self.schema = pa.schema([*_PLACES, *(pa.field(column, pa.string()) for column in self._columns)])
        self.rows_total = self.rows_filled = self.rows_unreadable = 0
        self._may_have_controls, self._line_by_line = reading.may_have_controls, reading.line_by_line
        self.chosen = ChosenRows(header.cells, reading.skip, reading.reject, encoding)
        self._told_apart_by, self._is_grouped = reading.told_apart_by, reading.is_grouped
        self.batches: dict[str, Mapping[str, str]] = {}

    def table(self, chunk: Chunk | EvenChunk) -> pa.Table:
        """Return the rows that are neither blank nor skipped as a table of `schema`."""
        if self._may_have_controls:
            chunk = _without_controls(chunk)
        if isinstance(chunk, EvenChunk):
            if (chunk.places.lengths > self._limits.max_field_chars).any():
                chunk = chunk.row_by_row()
            elif self._shape.takes(len(chunk.columns), len(chunk.columns[0]) - len(chunk.odd)):
                return self._table_of_columns(chunk)
            else:
                chunk = chunk.row_by_row()
        return self._table_of_rows(chunk)

    def _table_of_columns(self, chunk: EvenChunk) -> pa.Table:
        blank = [place for place, row in chunk.odd.items() if not any(row)]
        self.rows_total += len(chunk.columns[0])
        if blank:
            chunk = chunk.select(~np.isin(np.arange(len(chunk.columns[0])), blank))
        right = np.ones(len(chunk.columns[0]), np.bool_)
        if chunk.odd:
            right[list(chunk.odd)] = self._shape.check(list(chunk.odd.values()))
        readable = pa.nulls(len(right), pa.string())
        said = self._corrected_rows(chunk), readable, self._maybe_references(right, chunk.odd.__getitem__)
        table = self._table(chunk.places, right, said, chunk.columns.__getitem__, chunk.row)
        if self._header.batch is not None:
            cells = chunk.columns[self._header.batch]
            self._collect_batches(
                {cell: pc.index(cells, cell).as_py() for cell in pc.unique(cells).drop_null().to_pylist()}, chunk.places
            )
        return table

    def _table_of_rows(self, chunk: Chunk) -> pa.Table:
        filled = chunk.select(np.fromiter(map(any, chunk.rows), np.bool_, len(chunk.rows)))
        self.rows_total += len(chunk.rows)
        if not filled.rows:
            return self.schema.empty_table()
        self._check_field_lengths(filled)
        right = self._shape.check(filled.rows)
        for place in filled.unreadable:
            if self._line_by_line and not right[place]:  # then nobody knows whether it is one record
                raise NoRecordError
            right[place] = False
        self.rows_unreadable += len(filled.unreadable)
        rows = [row if ok else None for row, ok in zip(filled.rows, right.tolist(), strict=True)]
        each = zip(filled.rows, right.tolist(), strict=True)
        corrects = pa.array([self._corrected_row(row, ok) for row, ok in each], pa.int32())
        unreadable = pa.array([filled.unreadable.get(place) for place in range(len(rows))], pa.string())
        said = corrects, unreadable, self._maybe_references(right, filled.rows.__getitem__)

        def column_at(place: int) -> pa.Array:
            return pa.array(_cells(rows, place), pa.string())

        table = self._table(filled.places, right, said, column_at, filled.rows.__getitem__)
        if self._header.batch is not None:
            cells = _cells(rows, self._header.batch)
            self._collect_batches({cell: cells.index(cell) for cell in dict.fromkeys(cells) if cell}, filled.places)
        return table

    def _count_filled(self, rows: int) -> None:
        self.rows_filled += rows
        if self.rows_filled > self._limits.max_rows:
            raise FileRejected("F_TOO_MANY_ROWS", {"limit": str(self._limits.max_rows)})

    def _corrected_rows(self, chunk: EvenChunk) -> pa.Array:
        """Return which row each one corrects."""
        batch, row = self._header.batch, self._header.row
        if row is None and batch is None:
            return pa.nulls(len(chunk.columns[0]), pa.int32())
        absent = pa.nulls(len(chunk.columns[0]), pa.string())
        named = zip(*((absent if at is None else chunk.columns[at]).to_pylist() for at in (batch, row)), strict=True)
        numbers = [_row_number(*cells) for cells in named]
        for place, cells in chunk.odd.items():
            numbers[place] = self._corrected_row(cells, ok=False)
        return pa.array(numbers, pa.int32())

    def _corrected_row(self, row: Sequence[str], ok: bool) -> int | None:
        """Return which row this one corrects; where the shape is wrong, our own cells are known by what is in them."""
        batch, number = self._header.batch, self._header.row
        if ok:
            return _row_number(*("" if place is None else row[place] for place in (batch, number)))
        if batch is None or number is None:
            return None
        at = next((at for at in reversed(range(len(row) - 1)) if BATCH_ID.fullmatch(row[at].strip())), None)
        return None if at is None else _row_number(row[at], row[at + 1])

    def _maybe_references(self, right: Flags, row_at: Callable[[int], Sequence[str]]) -> pa.Array:
        """Return of rows of the wrong shape the cells that may be the reference which groups rows; else null."""
        found: list[Sequence[str] | None] = [None] * len(right)
        places = self._places_of_references()
        if places and self._is_grouped:
            for place in np.flatnonzero(~right).tolist():
                row = row_at(place)
                found[place] = cells_that_may_be(row, places[0], len(row) - len(self._header.cells))
        return pa.array(found, pa.list_(pa.string()))

    def _table(
        self,
        places: Places,
        right: Flags,
        said: tuple[pa.Array, ...],
        column_at: Callable[[int], pa.Array],
        row_at: Callable[[int], Sequence[str]],
    ) -> pa.Table:
        """Return a table of rows, but for those that are skipped: of no row before it is known that it is a whole one.

        `said` is which rows they correct, why they are unreadable, and what they may refer to.
        """
        self.amounts.look(places, right, column_at)
        absent = pc.if_else(pa.array(right), "", pa.scalar(None, pa.string()))
        cells = [
            absent if at is None else _joined([column_at(place) for place in at])
            for at in (self._header.columns.get(column) for column in self._columns)
        ]
        suspects = self._header_suspects(dict(zip(self._columns, cells, strict=True)))
        for place in (*np.flatnonzero(~right).tolist(), *suspects):
            self._check_not_header(row_at(place), places, place)
        may_be_skipped = right & ~np.isin(np.arange(len(right)), suspects)
        orders = self._orders(column_at) if self._is_grouped and self.chosen.may_be_skipped else None
        chosen = self.chosen.find(places.numbers, column_at, may_be_skipped, orders)
        values = (
            places.numbers,
            places.lines,
            places.offsets,
            places.lengths,
            right,
            *said,
            chosen.to_decide,
            chosen.unclear,
        )
        arrays = [pa.array(each, field.type) for each, field in zip(values, _PLACES, strict=True)]
        table = pa.Table.from_arrays([*arrays, *cells], schema=self.schema)
        self._count_filled(len(table) - int(np.count_nonzero(chosen.skipped)))
        if not chosen.skipped.any():
            return table
        references = self._orders(column_at) if orders is None else orders
        if references is None:
            references = np.zeros(len(table), np.uint64)
        elif not self._is_grouped:
            self.chosen.keep(references[chosen.skipped], places.numbers[chosen.skipped])
        self.chosen.keep_names(
            places.numbers[chosen.skipped],
            said[0].filter(pa.array(chosen.skipped)),
            references[chosen.skipped],
            chosen.says_so[chosen.skipped],
        )
        return table.filter(pa.array(~chosen.skipped))

    def _places_of_references(self) -> tuple[int, ...]:
        return () if self._told_apart_by is None else self._header.columns.get(self._told_apart_by[0], ())

    def _orders(self, column_at: Callable[[int], pa.Array]) -> npt.NDArray[np.uint64] | None:
        """Return which order each row is of, 0 for none."""
        if self._told_apart_by is None or not (places := self._places_of_references()):
            return None
        return self._told_apart_by[1](_joined([pc.fill_null(column_at(at), "") for at in places]))

    def _check_field_lengths(self, chunk: Chunk) -> None:
        limit = self._limits.max_field_chars
        for place in np.flatnonzero(chunk.places.lengths > limit).tolist():
            if max(map(len, chunk.rows[place])) > limit:
                raise FileRejected("F_FIELD_TOO_LONG", {"limit": str(limit), **chunk.places.name(place)})

    def _header_suspects(self, cells: Mapping[str, pa.Array]) -> list[int]:
        """Return the rows whose first required cell could be a header's."""
        if not self._names.required:
            return []
        words = pc.utf8_lower(pc.utf8_trim_whitespace(cells[self._names.required[0]]))
        found: list[int] = np.flatnonzero(
            pc.is_in(words, value_set=self._header_words).to_numpy(zero_copy_only=False)
        ).tolist()
        return found

    def _check_not_header(self, row: Sequence[str], places: Places, place: int) -> None:
        if self._names.is_header(row):
            raise FileRejected("F_HEADER_REPEATED", places.name(place))

    def _collect_batches(self, cells: Mapping[str, int], places: Places) -> None:
        """Keep what cells say, given with the place where each stands first."""
        for cell, place in cells.items():
            if cell.strip() and len(self.batches) < _BATCHES_KEPT:
                self.batches.setdefault(cell.strip(), places.name(place))


def cells_that_may_be(row: Sequence[str], place: int, surplus: int) -> Sequence[str]:
    """Return the cells of a row with so many cells too many (below 0: too few) that may stand in a place of the header."""
    first, last = sorted((place, place + surplus))
    return row[max(first, 0) : last + 1]


def _without_controls(chunk: Chunk | EvenChunk) -> Chunk:
    """Return a chunk in which rows with control characters are unreadable."""
    rows = chunk.row_by_row() if isinstance(chunk, EvenChunk) else chunk
    found = {place: "R_CHARS" for place, row in enumerate(rows.rows) if any(map(CONTROL.search, row))}
    return replace(rows, unreadable=found | dict(rows.unreadable))


def _row_number(batch: str | None, row: str | None) -> int | None:
    """Return the row that two cells `_batch` and `_row` name, `NO_ROW` where they name none, None where they say nothing."""
    batch, row = (batch or "").strip(), (row or "").strip()
    return int(row) if _ROW_NUMBER.fullmatch(row) else NO_ROW if batch or row else None


def _joined(parts: Sequence[pa.Array]) -> pa.Array:
    """Return the parts' cells with a space between those that are not empty; null where the parts are null.

    A part that is an error of a spreadsheet, or marked, is all there is.
    """
    if len(parts) > 1:
        parts = [unguarded(part) for part in parts]
    joined, *rest = parts
    for part in rest:
        separator = pc.if_else(pc.or_(pc.equal(joined, ""), pc.equal(part, "")), "", " ")
        joined = pc.binary_join_element_wise(joined, separator, part, "")
    for part in parts:
        joined = pc.if_else(is_no_text(part), part, joined)
    return joined


def _cells(rows: Sequence[list[str] | None], place: int) -> list[str | None]:
    """Return one cell of each row; None where the row's shape is wrong."""
    return [None if row is None else row[place] for row in rows]

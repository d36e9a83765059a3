"""A client's CSV file: its shape checked, its rows numbered and staged as Parquet, in constant memory.

Header, shape and limits are decided here; what makes the whole file unsafe raises FileRejected. Cells stay as sent:
what a value means, and which rows are good, is decided in `validation`. Bytes and lines are in `encoding` and
`physical_lines`, records in `records`, header cells in `header`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetWriter

from orders_pipeline.infrastructure.parquet_file import new_parquet
from orders_pipeline.intake.csv_file.encoding import detect_text
from orders_pipeline.intake.csv_file.header import Header, Names, check_delimiter, read_header
from orders_pipeline.intake.csv_file.physical_lines import TextSpan, read_blocks, split_lines
from orders_pipeline.intake.csv_file.records import Chunk, EvenChunk, Flags, Places, Records
from orders_pipeline.intake.csv_file.shape import Shape, UnevenRowsError
from orders_pipeline.intake.csv_file.split_amounts import SplitAmounts
from orders_pipeline.records.normalise import normalise_header
from orders_pipeline.records.rejections import FileRejected, Rejection
from orders_pipeline.records.rules import is_no_text

_TITLE_ROWS = 20
_BATCHES_KEPT = 3
# hardly a cell is the same twice: dictionaries and statistics only make the file larger and slower
_PARQUET: Mapping[str, Any] = {"compression": "lz4", "use_dictionary": False, "write_statistics": False}
_PLACES = (
    pa.field("import_row_number", pa.int32()),
    pa.field("line", pa.int32()),
    pa.field("offset", pa.int64()),
    pa.field("length", pa.int32()),
    pa.field("shape_ok", pa.bool_()),
    pa.field("corrects_row", pa.int32()),
)
_ROW_NUMBER = re.compile("[0-9]{1,9}")
_BATCH_ID = re.compile("[0-9]{8}-[0-9a-f]{12}")
NO_ROW = 0  # what a row corrects that says so, and names none


@dataclass(frozen=True)
class Limits:
    """How large a file may be; `max_rows` does not count blank rows, `max_field_chars` is at most 131,072."""

    max_bytes: int = 20 << 20
    max_rows: int = 10_000
    max_field_chars: int = 65_536
    max_columns: int = 256


@dataclass(frozen=True)
class StagedFile:
    """What staging found out about a file.

    `encoding` is utf-8, utf-8-sig, cp932, utf-16-le or utf-16-be; `header` the header's cells as sent, `header_span`
    its offset and length in bytes, `line_ending` its terminator, `row_width` the cells of a row of the right shape;
    `columns` maps each known column to its places;
    `rows_total` counts every record after the header, the `rows_blank` among them; `corrected_batches` holds the first
    three different values of the `_batch` column, and `corrected_from` the `row` and `line` where each comes first.
    """

    encoding: str
    has_bom: bool
    line_ending: str
    header: tuple[str, ...]
    header_span: tuple[int, int]
    row_width: int
    columns: Mapping[str, tuple[int, ...]]
    unknown_columns: int
    rows_total: int
    rows_blank: int
    corrected_batches: tuple[str, ...]
    corrected_from: tuple[Mapping[str, str], ...]
    warnings: tuple[Rejection, ...]


@dataclass(frozen=True)
class _Reading:
    names: Names
    limits: Limits
    delimiter: str
    amount: str | None


def stage(
    source: Path,
    staged: Path,
    *,
    header_names: Mapping[str, str],
    required: Sequence[str],
    limits: Limits,
    delimiter: str = ",",
    joined: Mapping[str, Sequence[str]] = MappingProxyType({}),
    encoding: str | None = None,
    amount: str | None = None,
) -> StagedFile:
    """Check a file's encoding, header and shape and write its rows to `staged` as Parquet; raises FileRejected.

    The Parquet file holds a row for every record that is not blank: `import_row_number`, `line`, `offset` and `length`
    in bytes, `shape_ok`, `corrects_row` (what `_row` says, 0 where it is no number but `_batch` or it says something, or
    null), then each column of `header_names` as sent ("" where
    the file lacks it, null where the shape is wrong); the headers of a column of `joined` are joined by a space. It
    appears whole or not at all, readable by its owner only. An `encoding` that is given is the only one tried; cells of
    the column `amount` may not be split at a comma.
    """
    if source.stat().st_size > limits.max_bytes:
        raise FileRejected("F_TOO_LARGE", {"limit": str(limits.max_bytes)})
    known = {normalise_header(name): column for name, column in header_names.items()}
    parts = {column: tuple(map(normalise_header, headers)) for column, headers in joined.items()}
    names = Names(known, tuple(required), parts)
    reading = _Reading(names, limits, delimiter, amount if delimiter == "," else None)
    span = detect_text(source, delimiter, encoding)
    _check_first_line(source, span, delimiter, names)
    try:
        return _write(source, staged, span, reading, allow_trailing=True)
    except UnevenRowsError:
        return _write(source, staged, span, reading, allow_trailing=False)


def read_records(source: Path, spans: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """Read records as sent, without their terminators, by (offset, length) in bytes."""
    with source.open("rb") as file:
        for offset, length in spans:
            file.seek(offset)
            yield file.read(length)


def _check_first_line(source: Path, span: TextSpan, delimiter: str, names: Names) -> None:
    """Refuse what the first line with text gives away: nothing there, markup, another delimiter."""
    for block in read_blocks(source, span):
        for line in split_lines(block.text):
            if line.strip():
                if line.lstrip().startswith("<"):
                    raise FileRejected("F_NOT_CSV", {"kind": "HTML or XML"})
                check_delimiter(line, delimiter, names)
                return
    raise FileRejected("F_EMPTY")


def _write(source: Path, target: Path, span: TextSpan, reading: _Reading, *, allow_trailing: bool) -> StagedFile:
    """Read the whole file once and write its rows to `target`."""
    records = Records(read_blocks(source, span), span.start, reading.delimiter)
    chunks = records.chunks()
    first, place = _first_filled(chunks)
    header = read_header(first.rows[place], reading.names, _following(first, place, chunks), reading.limits.max_columns)
    records.begin_after(int(first.places.numbers[place]))
    shape = Shape(header, allow_trailing=allow_trailing)
    staging = _Staging(header, shape, reading)
    with new_parquet(target, staging.schema, **_PARQUET) as writer:
        _write_behind(writer, map(staging.table, chain([first.after(place)], chunks)))
        if not staging.rows_filled:
            raise FileRejected("F_NO_ROWS")
        shape.check_all()
        staging.amounts.check_all(last_cell_left_off=shape.last_cell_left_off)
    detail = {"count": str(len(header.unknown)), "columns": header.unknown_shown}
    unknown = Rejection(None, int(first.places.lines[place]), None, "W_UNKNOWN_COLUMN", detail)
    offset, length = int(first.places.offsets[place]), int(first.places.lengths[place])
    return StagedFile(
        encoding=span.encoding,
        has_bom=span.has_bom,
        line_ending=_line_ending(source, span, offset + length, int(first.places.terminators[place])),
        header=header.cells,
        header_span=(offset, length),
        row_width=shape.width,
        columns=header.columns,
        unknown_columns=len(header.unknown),
        rows_total=staging.rows_total,
        rows_blank=staging.rows_total - staging.rows_filled,
        corrected_batches=tuple(staging.batches),
        corrected_from=tuple(staging.batches.values()),
        warnings=(unknown,) if header.unknown else (),
    )


def _write_behind(writer: ParquetWriter, tables: Iterator[pa.Table]) -> None:
    """Write tables as they come, each while the next one is made."""
    with ThreadPoolExecutor(1, thread_name_prefix="staging") as pool:
        written: Future[None] | None = None
        for table in tables:
            if written is not None:
                written.result()
            written = pool.submit(writer.write_table, table)
        if written is not None:
            written.result()


def _first_filled(chunks: Iterator[Chunk | EvenChunk]) -> tuple[Chunk, int]:
    """Return the chunk with the first record that is not blank, and the record's place in it."""
    for chunk in map(_as_rows, chunks):
        for place, row in enumerate(chunk.rows):
            if any(row):
                return chunk, place
    raise FileRejected("F_EMPTY")


def _following(chunk: Chunk, place: int, chunks: Iterator[Chunk | EvenChunk]) -> Iterator[list[str]]:
    """Read a few records behind the one at `place`, as far as they are CSV."""
    later = (row for each in chain([chunk.after(place)], map(_as_rows, chunks)) for row in each.rows)
    with suppress(FileRejected):
        yield from islice(later, _TITLE_ROWS)


def _as_rows(chunk: Chunk | EvenChunk) -> Chunk:
    return chunk.row_by_row() if isinstance(chunk, EvenChunk) else chunk


def _line_ending(source: Path, span: TextSpan, offset: int, length: int) -> str:
    return next(read_records(source, [(offset, length)])).decode(span.codec)


class _Staging:
    """Turns chunks of records into tables and keeps the counts of one reading."""

    def __init__(self, header: Header, shape: Shape, reading: _Reading) -> None:
        self._header = header
        self._shape = shape
        self._names = reading.names
        self._limits = reading.limits
        self._columns = tuple(dict.fromkeys(reading.names.known.values()))
        self.amounts = SplitAmounts(header, reading.amount)
        self._header_words = pa.array([*reading.names.known, *(cell.strip().lower() for cell in header.cells)], pa.string())
        self.schema = pa.schema([*_PLACES, *(pa.field(column, pa.string()) for column in self._columns)])
        self.rows_total = self.rows_filled = 0
        self.batches: dict[str, Mapping[str, str]] = {}

    def table(self, chunk: Chunk | EvenChunk) -> pa.Table:
        """Return the rows that are not blank as a table of `schema`."""
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
        self._count(len(chunk.columns[0]), len(chunk.columns[0]) - len(blank))
        if blank:
            chunk = chunk.select(~np.isin(np.arange(len(chunk.columns[0])), blank))
        right = np.ones(len(chunk.columns[0]), np.bool_)
        if chunk.odd:
            right[list(chunk.odd)] = self._shape.check(list(chunk.odd.values()))
        table = self._table(chunk.places, right, self._corrected_rows(chunk), chunk.columns.__getitem__)
        for place, row in chunk.odd.items():
            self._check_not_header(row, chunk.places, place)
        for place in self._header_suspects(table):
            self._check_not_header([column[place].as_py() for column in chunk.columns], chunk.places, place)
        if self._header.batch is not None:
            cells = chunk.columns[self._header.batch]
            self._collect_batches(
                {cell: pc.index(cells, cell).as_py() for cell in pc.unique(cells).drop_null().to_pylist()}, chunk.places
            )
        return table

    def _table_of_rows(self, chunk: Chunk) -> pa.Table:
        filled = chunk.select(np.fromiter(map(any, chunk.rows), np.bool_, len(chunk.rows)))
        self._count(len(chunk.rows), len(filled.rows))
        if not filled.rows:
            return self.schema.empty_table()
        self._check_field_lengths(filled)
        right = self._shape.check(filled.rows)
        rows = [row if ok else None for row, ok in zip(filled.rows, right.tolist(), strict=True)]
        each = zip(filled.rows, right.tolist(), strict=True)
        corrects = pa.array([self._corrected_row(row, ok) for row, ok in each], pa.int32())
        table = self._table(filled.places, right, corrects, lambda place: pa.array(_cells(rows, place), pa.string()))
        for place in (*np.flatnonzero(~right).tolist(), *self._header_suspects(table)):
            self._check_not_header(filled.rows[place], filled.places, place)
        if self._header.batch is not None:
            cells = _cells(rows, self._header.batch)
            self._collect_batches({cell: cells.index(cell) for cell in dict.fromkeys(cells) if cell}, filled.places)
        return table

    def _count(self, rows: int, filled: int) -> None:
        self.rows_total += rows
        self.rows_filled += filled
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
        at = next((at for at in reversed(range(len(row) - 1)) if _BATCH_ID.fullmatch(row[at].strip())), None)
        return None if at is None else _row_number(row[at], row[at + 1])

    def _table(self, places: Places, right: Flags, corrects: pa.Array, column_at: Callable[[int], pa.Array]) -> pa.Table:
        values = (places.numbers, places.lines, places.offsets, places.lengths, right, corrects)
        arrays = [pa.array(each, field.type) for each, field in zip(values, _PLACES, strict=True)]
        self.amounts.look(places, right, column_at)
        absent = pc.if_else(pa.array(right), "", pa.scalar(None, pa.string()))
        for column in self._columns:
            at = self._header.columns.get(column)
            arrays.append(absent if at is None else _joined([column_at(place) for place in at]))
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _check_field_lengths(self, chunk: Chunk) -> None:
        limit = self._limits.max_field_chars
        for place in np.flatnonzero(chunk.places.lengths > limit).tolist():
            if max(map(len, chunk.rows[place])) > limit:
                raise FileRejected("F_FIELD_TOO_LONG", {"limit": str(limit), **chunk.places.name(place)})

    def _header_suspects(self, table: pa.Table) -> list[int]:
        """Return the rows whose first required cell could be a header's."""
        if not self._names.required:
            return []
        cells = pc.utf8_ltrim(table[self._names.required[0]], characters="\ufeff")  # of a second file behind the first
        words = pc.utf8_lower(pc.utf8_trim_whitespace(cells))
        found: list[int] = np.flatnonzero(pc.is_in(words, value_set=self._header_words).to_numpy()).tolist()
        return found

    def _check_not_header(self, row: Sequence[str], places: Places, place: int) -> None:
        if self._names.is_header(row):
            raise FileRejected("F_HEADER_REPEATED", places.name(place))

    def _collect_batches(self, cells: Mapping[str, int], places: Places) -> None:
        """Keep what cells say, given with the place where each stands first."""
        for cell, place in cells.items():
            if cell.strip() and len(self.batches) < _BATCHES_KEPT:
                self.batches.setdefault(cell.strip(), places.name(place))


def _row_number(batch: str | None, row: str | None) -> int | None:
    """Return the row that two cells `_batch` and `_row` name, `NO_ROW` where they name none, None where they say nothing."""
    batch, row = (batch or "").strip(), (row or "").strip()
    return int(row) if _ROW_NUMBER.fullmatch(row) else NO_ROW if batch or row else None


def _joined(parts: Sequence[pa.Array]) -> pa.Array:
    """Return the parts' cells with a space between those that are not empty; null where the parts are null.

    A part that is an error of a spreadsheet, or marked, is all there is.
    """
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

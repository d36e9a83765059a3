"""The records of a CSV text, strictly by RFC 4180, in chunks, each record with its number, line and bytes.

Python's strict `csv.reader` decides where records and cells end; this module feeds it physical lines and keeps count.
Blocks that `quick_reader` can read go the faster way. What the records mean, the header among them, is decided in
`staging`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, compress
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from orders_pipeline.intake.csv_file.dialect import Dialect
from orders_pipeline.intake.csv_file.physical_lines import Block, Integers, split_lines
from orders_pipeline.intake.csv_file.quick_reader import read_even
from orders_pipeline.records.normalise import BYTE_ORDER_MARK
from orders_pipeline.records.rejections import FileRejected

Flags = npt.NDArray[np.bool_]
Said = TypeVar("Said")

_CHUNK_RECORDS = 100_000


@dataclass(frozen=True)
class Places:
    """Where records stand: their numbers, first physical lines (from 1) and bytes in the file.

    `lengths` leave the terminators out; `terminators` are their lengths in bytes.
    """

    numbers: Integers
    lines: Integers
    offsets: Integers
    lengths: Integers
    terminators: Integers

    def select(self, wanted: Flags) -> Places:
        """Return the places where `wanted` is true."""
        numbers, lines, offsets = self.numbers[wanted], self.lines[wanted], self.offsets[wanted]
        return Places(numbers, lines, offsets, self.lengths[wanted], self.terminators[wanted])

    def name(self, place: int) -> dict[str, str]:
        """Return `row` and `line` of one record, as messages name them."""
        return {"row": str(self.numbers[place]), "line": str(self.lines[place])}


@dataclass(frozen=True)
class Chunk:
    """Consecutive records, row by row; `unreadable` says of some by their place why their cells cannot be trusted."""

    places: Places
    rows: Sequence[list[str]]
    unreadable: Mapping[int, str] = field(default_factory=dict)

    def select(self, wanted: Flags) -> Chunk:
        """Return the records where `wanted` is true."""
        rows = list(compress(self.rows, wanted.tolist()))
        return Chunk(self.places.select(wanted), rows, _selected(self.unreadable, wanted))

    def after(self, place: int) -> Chunk:
        """Return the records behind the one at `place`, numbered from 1."""
        rest = self.select(np.arange(len(self.rows)) > place)
        return replace(rest, places=replace(rest.places, numbers=np.arange(1, len(rest.rows) + 1)))


@dataclass(frozen=True)
class EvenChunk:
    """Consecutive records, column by column: most have the same width and are not blank.

    `odd` holds the cells of the others by their place; they are null in the columns.
    """

    places: Places
    columns: tuple[pa.Array, ...]
    odd: Mapping[int, list[str]]

    def select(self, wanted: Flags) -> EvenChunk:
        """Return the records where `wanted` is true."""
        chosen = pa.array(wanted)
        columns = tuple(column.filter(chosen) for column in self.columns)
        return EvenChunk(self.places.select(wanted), columns, _selected(self.odd, wanted))

    def row(self, place: int) -> list[str]:
        """Return the cells of one record."""
        return self.odd[place] if place in self.odd else [column[place].as_py() for column in self.columns]

    def row_by_row(self) -> Chunk:
        """Return the same records as rows."""
        rows = [list(row) for row in zip(*(each.to_pylist() for each in self.columns), strict=True)]
        return Chunk(self.places, [self.odd.get(place, row) for place, row in enumerate(rows)])


def _selected(by_place: Mapping[int, Said], wanted: Flags) -> dict[int, Said]:
    """Return what is said by place of records that are wanted, by their new places."""
    if not by_place:
        return {}
    new_places = (np.cumsum(wanted) - 1).tolist()
    return {new_places[place]: said for place, said in by_place.items() if wanted[place]}


class Records:
    """Reads records from blocks of lines that begin at byte `start`, behind `lines_before` others.

    A byte order mark in front of a record, where files were put together, is no part of it; `marks` are counted. One in
    front of the first record stays: there it is the second one of the file. With `line_by_line` each line must be a record
    by itself, as the dialect's `read_alone` takes it.
    """

    def __init__(
        self,
        blocks: Iterable[Block],
        start: int,
        dialect: Dialect,
        lines_before: int = 0,
        *,
        line_by_line: bool = False,
    ) -> None:
        self._blocks = iter(blocks)
        self._dialect = dialect
        self._line_by_line = line_by_line
        self._header_record: int | None = None
        self._records_read = 0
        self._lines_read = self._lines_loaded = lines_before
        # the ends of the lines behind _lines_read; in front of them, where the first of them starts
        self._ends = np.array([start], np.int64)
        self._terminators = np.zeros(1, np.int64)
        self._begins_record = False  # the next line, but for the first
        self.marks = 0

    def begin_after(self, number: int) -> None:
        """Number the records from 1 after the header, which so far has `number`."""
        self._header_record = number

    def chunks(self) -> Iterator[Chunk | EvenChunk]:
        """Read the records, row by row until the header is known.

        Raises FileRejected with F_QUOTE or F_FIELD_TOO_LONG where there is no next record, and NoRecordError.
        """
        for block in self._blocks:
            if self._line_by_line:
                yield self._read_lines(block)
                continue
            even = None if self._header_record is None else read_even(block, self._dialect)
            if even is None:
                yield from self._read_strictly(block)
            else:
                self._load(block)
                self._begins_record = True
                yield EvenChunk(self._place(even.last_lines + self._lines_read), even.columns, even.odd)

    def _load(self, block: Block) -> None:
        self._ends = np.concatenate((self._ends, block.ends))
        self._terminators = np.concatenate((self._terminators, block.terminators))
        self._lines_loaded += len(block.ends)

    def _lines(self, first: Block) -> Iterator[Iterator[str]]:
        for block in chain([first], self._blocks):
            self._load(block)
            text = block.text
            lines = split_lines(text)
            yield self._without_marks(lines) if BYTE_ORDER_MARK in text else lines

    def _without_marks(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            is_marked = self._begins_record and line.startswith(BYTE_ORDER_MARK)
            self.marks += is_marked
            self._begins_record = False
            yield line.removeprefix(BYTE_ORDER_MARK) if is_marked else line

    def _read_lines(self, block: Block) -> Chunk:
        lines_before = self._lines_loaded
        lines = self._without_marks(next(self._lines(block)))
        rows: list[list[str]] = []
        unreadable: dict[int, str] = {}
        for line in lines:
            try:
                row, is_right = self._dialect.read_alone(line)
            except csv.Error as error:  # a cell is longer than any may be
                if rows:
                    self._place(lines_before + np.arange(1, len(rows) + 1))
                raise self._rejected(error) from None
            if not is_right:
                unreadable[len(rows)] = "R_QUOTE"
            rows.append(row)
            self._begins_record = True
        return Chunk(self._place(lines_before + np.arange(1, len(rows) + 1)), rows, unreadable)

    def _read_strictly(self, first: Block) -> Iterator[Chunk]:
        """Read the records of a block, and of the next blocks as long as a record reaches into them."""
        lines_before = self._lines_loaded
        reader = self._dialect.reader(chain.from_iterable(self._lines(first)), strict=True)
        while True:
            rows: list[list[str]] = []
            last_lines: list[int] = []
            failure = None
            try:
                for row in reader:
                    self._begins_record = True
                    rows.append(row)
                    last_lines.append(lines_before + reader.line_num)
                    if last_lines[-1] == self._lines_loaded or len(rows) == _CHUNK_RECORDS:
                        break
            except csv.Error as error:
                failure = error
            if rows:
                yield Chunk(self._place(np.array(last_lines, np.int64)), rows)
            if failure is not None:  # only now: the header, from which rows are numbered, may be in this chunk
                raise self._rejected(failure) from None
            if self._lines_read == self._lines_loaded:
                return

    def _place(self, last_lines: Integers) -> Places:
        """Return the places of the next records, whose last lines are given by their numbers in the file."""
        lasts = last_lines - self._lines_read
        firsts = np.concatenate((np.zeros(1, np.int64), lasts[:-1]))
        offsets = self._ends[firsts]
        terminators = self._terminators[lasts]
        places = Places(
            numbers=self._records_read - (self._header_record or 0) + np.arange(1, len(lasts) + 1),
            lines=self._lines_read + firsts + 1,
            offsets=offsets,
            lengths=self._ends[lasts] - terminators - offsets,
            terminators=terminators,
        )
        self._records_read += len(lasts)
        self._lines_read = int(last_lines[-1])
        self._ends = self._ends[lasts[-1] :]
        self._terminators = self._terminators[lasts[-1] :]
        return places

    def _rejected(self, error: csv.Error) -> FileRejected:
        """Return the verdict on the next record, which cannot be read; the error's own words never hold a value."""
        detail = {"line": str(self._lines_read + 1)}
        if self._header_record is not None:
            detail["row"] = str(self._records_read + 1 - self._header_record)
        return FileRejected("F_FIELD_TOO_LONG" if "field limit" in str(error) else "F_QUOTE", detail)

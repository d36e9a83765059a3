"""What stands around the table in a client's text: titles above the header, comments and footers, as its profile says.

Finds where the table begins and ends. A first line `sep=,`, which is for spreadsheets, is left out of any file. Else a
file that corrects rows, which has our columns, is the table and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from orders_pipeline.intake.csv_file.dialect import Dialect
from orders_pipeline.intake.csv_file.header import BATCH_COLUMN, Names
from orders_pipeline.intake.csv_file.physical_lines import TextSpan, line_ends, read_blocks, split_lines
from orders_pipeline.records.normalise import normalise_header
from orders_pipeline.records.rejections import FileRejected

LOOKED_THROUGH = 20  # lines, for a header that is somewhere
MOST_LINES = 100  # above a header
_TAIL_BYTES = 64 << 10
_FOR_SPREADSHEETS = re.compile(r'"?sep=.?"?\s*', re.IGNORECASE)
_SEP_LINE_BYTES = 32


@dataclass(frozen=True)
class Frame:
    """What stands around a table.

    The header is on `header_line`, or on the first of some lines that holds all that is required ("find"), or on the first
    line with text; it has `header_rows` rows, of which the first names the columns. Lines that begin with `comment` are left
    out above the header and at the end, as are the last `footer_lines` with text.
    """

    header_line: int | Literal["find"] | None = None
    header_rows: int = 1
    comment: str = ""
    footer_lines: int = 0


@dataclass(frozen=True)
class Table:
    """Where a table is: its text, the lines before it, and how many rows its header has; `left_out` lines follow it.

    The line before it `has_sep` where that only tells spreadsheets what separates cells.
    """

    span: TextSpan
    lines_before: int = 0
    header_rows: int = 1
    left_out: int = 0
    has_sep: bool = False


def find_table(source: Path, span: TextSpan, frame: Frame, names: Names, dialect: Dialect) -> Table:
    """Return where the table is in a text; raise F_LEFT_OUT where a line that would be left out may be an order."""
    behind = None if isinstance(frame.header_line, int) else _behind_sep(source, span)
    if behind is None:
        return _find(source, span, frame, names, dialect)
    found = _find(source, replace(span, start=behind), frame, names, dialect)
    return replace(found, lines_before=found.lines_before + 1, has_sep=True)


def _behind_sep(source: Path, span: TextSpan) -> int | None:
    """Return where a text goes on behind a first line that only tells spreadsheets what separates cells."""
    with source.open("rb") as file:
        file.seek(span.start)
        head = file.read(min(_SEP_LINE_BYTES, span.end - span.start))
    ends, _ = line_ends(head, span.unit, is_last=False)
    if not len(ends) or not _FOR_SPREADSHEETS.fullmatch(head[: ends[0]].decode(span.codec, "replace")):
        return None
    return span.start + int(ends[0])


def _find(source: Path, span: TextSpan, frame: Frame, names: Names, dialect: Dialect) -> Table:
    """Return where the table is behind such a line."""
    if frame == Frame():
        return Table(span)
    head = list(islice(_lines(source, span), MOST_LINES))
    records = _Records([line for _, line in head], dialect)
    first = next((number for number, (_, line) in enumerate(head) if line.strip()), 0)
    header = records.at(first)
    if names.is_header(header) and BATCH_COLUMN in map(normalise_header, header):
        return Table(span)
    at = _header_at(frame, head, records, names)
    header = records.at(at)
    is_order = _like_an_order(header, names)
    begin = head[at][0] if at < len(head) else span.start
    more = range(at + 1, at + frame.header_rows)  # of the header
    for number in (*range(at), *more):
        if is_order(records.at(number)):
            raise FileRejected("F_LEFT_OUT", {"line": str(number + 1)})
    end, left_out = _end(source, replace(span, start=begin), frame, lambda line: dialect.cells_of([line]), is_order)
    lines_before = at if begin > span.start else 0
    return Table(replace(span, start=begin, end=end), lines_before, frame.header_rows, left_out)


class _Records:
    """The records that begin at each of some lines."""

    def __init__(self, lines: Sequence[str], dialect: Dialect) -> None:
        self._lines, self._dialect = lines, dialect

    def at(self, number: int) -> list[str]:
        """Return the cells of the record that begins at a line, which may go on behind it."""
        return self._dialect.cells_of(self._lines[number : number + LOOKED_THROUGH])


def _header_at(frame: Frame, head: Sequence[tuple[int, str]], records: _Records, names: Names) -> int:
    """Return how many lines stand above the header."""
    if isinstance(frame.header_line, int):
        return frame.header_line - 1
    lines = [(number, line.strip()) for number, (_, line) in enumerate(head)]
    said = [number for number, line in lines if line and not (frame.comment and line.startswith(frame.comment))]
    first = said[0] if said else 0
    if frame.header_line is None:
        return first
    return next((number for number in range(min(LOOKED_THROUGH, len(head))) if names.is_header(records.at(number))), first)


def _like_an_order(header: Sequence[str], names: Names) -> Callable[[Sequence[str]], bool]:
    """Return what says of a record whether it has a cell under each required column, and digits where amounts have."""
    columns = {column: at for at, column in enumerate(names.columns(header)) if column is not None}
    required = [columns[name] for name in names.required if name in columns]
    amount = columns.get("amount")

    def is_one(cells: Sequence[str]) -> bool:
        if len(required) < 2 or len(cells) <= max(required) or not all(cells[at].strip() for at in required):
            return False
        said = cells if amount is None or len(cells) <= amount else [cells[amount]]
        return any(character.isdigit() for cell in said for character in cell)

    return is_one


def _end(
    source: Path,
    span: TextSpan,
    frame: Frame,
    read: Callable[[str], Sequence[str]],
    is_order: Callable[[Sequence[str]], bool],
) -> tuple[int, int]:
    """Return where a text ends without its footers and the comments at its end, and how many lines these are.

    A comment is one cell: what has several, however it begins, is a row.
    """
    size = span.unit.itemsize
    start = max(span.start, span.end - _TAIL_BYTES // size * size)
    with source.open("rb") as file:
        file.seek(start)
        tail = file.read(span.end - start)
    ends, _ = line_ends(tail, span.unit, is_last=True)
    begins = [0, *ends.tolist()][:-1]
    footers, end, left_out = frame.footer_lines, span.end, 0
    for begin, after in zip(reversed(begins), reversed(ends.tolist()), strict=True):
        if begin == 0 and start > span.start:  # a line of which only a part is here
            break
        line = tail[begin:after].decode(span.codec, "replace").rstrip("\r\n")
        cells = read(line)
        is_comment = bool(frame.comment) and line.lstrip().startswith(frame.comment) and len(cells) == 1
        if line.strip() and not is_comment:
            if not footers:
                break
            if is_order(cells):
                raise FileRejected("F_LEFT_OUT", {})
            footers -= 1
        if line.strip():
            left_out += 1
        end = start + begin if line.strip() or left_out else end
    return end, left_out


def _lines(source: Path, span: TextSpan) -> Iterator[tuple[int, str]]:
    """Yield the first byte and the text of each line."""
    begin = span.start
    for block in read_blocks(source, span):
        for end, line in zip(block.ends.tolist(), split_lines(block.text), strict=True):
            yield begin, line
            begin = end

"""What stands around the table in a client's text: titles above the header, comments and footers, as its profile says.

Finds where the table begins and ends. A file that corrects rows, which has our columns, is the table and nothing else.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from orders_pipeline.intake.csv_file.header import BATCH_COLUMN, Names
from orders_pipeline.intake.csv_file.physical_lines import TextSpan, line_ends, read_blocks, split_lines
from orders_pipeline.records.normalise import normalise_header

LOOKED_THROUGH = 20  # lines, for a header that is somewhere
MOST_LINES = 100  # above a header
_TAIL_BYTES = 64 << 10


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
    """Where a table is: its text, the lines before it, and how many rows its header has."""

    span: TextSpan
    lines_before: int = 0
    header_rows: int = 1


def find_table(source: Path, span: TextSpan, frame: Frame, names: Names, delimiter: str) -> Table:
    """Return where the table is in a text."""
    if frame == Frame():
        return Table(span)
    head = list(islice(_lines(source, span), MOST_LINES))
    filled = [(number, cells) for number, (_, line) in enumerate(head) if any(cells := _cells(line, delimiter))]
    if filled and names.is_header(filled[0][1]) and BATCH_COLUMN in map(normalise_header, filled[0][1]):
        return Table(span)
    at = _header_at(frame, head, filled, names)
    start = head[at][0] if at < len(head) else span.start
    width = len(_cells(head[at][1], delimiter)) if at < len(head) else 0
    end = _end(source, replace(span, start=start), frame, lambda line: len(_cells(line, delimiter)) == width > 1)
    return Table(replace(span, start=start, end=end), at if start > span.start else 0, frame.header_rows)


def _header_at(frame: Frame, head: list[tuple[int, str]], filled: list[tuple[int, list[str]]], names: Names) -> int:
    """Return how many lines stand above the header."""
    if isinstance(frame.header_line, int):
        return frame.header_line - 1
    said = [number for number, _ in filled if not (frame.comment and head[number][1].lstrip().startswith(frame.comment))]
    first = said[0] if said else 0
    if frame.header_line is None:
        return first
    return next((number for number, cells in filled if number < LOOKED_THROUGH and names.is_header(cells)), first)


def _end(source: Path, span: TextSpan, frame: Frame, is_row: Callable[[str], bool]) -> int:
    """Return where a text ends without its footers and the comments at its end; what is as wide as a row is no comment."""
    size = span.unit.itemsize
    start = max(span.start, span.end - _TAIL_BYTES // size * size)
    with source.open("rb") as file:
        file.seek(start)
        tail = file.read(span.end - start)
    ends, _ = line_ends(tail, span.unit, is_last=True)
    begins = [0, *ends.tolist()][:-1]
    footers, end = frame.footer_lines, span.end
    for begin, after in zip(reversed(begins), reversed(ends.tolist()), strict=True):
        if begin == 0 and start > span.start:  # a line of which only a part is here
            break
        line = tail[begin:after].decode(span.codec, "replace").strip()
        if line and footers:
            footers -= 1
        elif line and not (frame.comment and line.startswith(frame.comment) and not is_row(line)):
            break
        end = start + begin if line or end < span.end else end
    return end


def _lines(source: Path, span: TextSpan) -> Iterator[tuple[int, str]]:
    """Yield the first byte and the text of each line."""
    begin = span.start
    for block in read_blocks(source, span):
        for end, line in zip(block.ends.tolist(), split_lines(block.text), strict=True):
            yield begin, line
            begin = end


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []

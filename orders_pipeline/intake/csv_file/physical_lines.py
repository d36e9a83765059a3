"""A text file as blocks of whole physical lines, each line with its place in the file's bytes.

Here a file's bytes become text whose every line is known by number, byte offset and terminator; CR, LF and CRLF each
end a line, and nothing else does. Which encoding it is stands in `encoding`, what the lines mean in `csv_file`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, dropwhile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orders_pipeline.intake.csv_file.dialect import Dialect
from orders_pipeline.records.rejections import FileRejected

Integers = npt.NDArray[np.int64]

_BLOCK_BYTES = 2 << 20
_FIRST_BYTES = 64 << 10  # of a text: enough for its header, before which records are read one by one
_LONGEST_LINE_BYTES = 16 << 20
_LF, _CR = 10, 13
_UNITS = {"utf-16-le": np.dtype("<u2"), "utf-16-be": np.dtype(">u2")}


@dataclass(frozen=True)
class TextSpan:
    """The bytes `start` to `end` of a file are text in `encoding`; outside are a BOM and a closing Ctrl-Z."""

    encoding: str
    has_bom: bool
    start: int
    end: int

    @property
    def codec(self) -> str:
        """Return the name of the codec for bytes without their BOM."""
        return "utf-8" if self.encoding == "utf-8-sig" else self.encoding

    @property
    def unit(self) -> np.dtype[np.unsignedinteger]:
        """Return the type of one code unit."""
        return unit_of(self.encoding)


@dataclass(frozen=True)
class Block:
    """Some whole lines: their bytes, and for each line the offset behind its terminator and the terminator's bytes."""

    data: bytes
    codec: str
    ends: Integers
    terminators: Integers

    @property
    def text(self) -> str:
        """Return the lines as text; F_CHANGED when they are not what `encoding` found valid."""
        try:
            return self.data.decode(self.codec)
        except UnicodeDecodeError:
            raise FileRejected("F_CHANGED") from None

    def in_utf8(self) -> tuple[bytes, Integers]:
        """Return the lines in UTF-8, and the offset behind each line's terminator in these."""
        if self.codec == "utf-8":
            return self.data, self.ends - (self.ends[-1] - len(self.data))
        data = self.text.encode()
        return data, line_ends(data, np.dtype("u1"), is_last=True)[0]


def unit_of(encoding: str) -> np.dtype[np.unsignedinteger]:
    """Return the type of one code unit: two bytes in UTF-16, one byte elsewhere."""
    return _UNITS.get(encoding, np.dtype("u1"))


def read_raw(
    source: Path, start: int, end: int, block_bytes: int = _BLOCK_BYTES, first_bytes: int = _BLOCK_BYTES
) -> Iterator[tuple[int, bytes]]:
    """Read the bytes from `start` to `end` in blocks, the first of `first_bytes` at most, each with its offset."""
    with source.open("rb") as file:
        file.seek(start)
        offset = start
        while offset < end:
            data = file.read(min(block_bytes if offset > start else first_bytes, block_bytes, end - offset))
            if not data:
                raise FileRejected("F_CHANGED")
            yield offset, data
            offset += len(data)


def read_blocks(source: Path, span: TextSpan, block_bytes: int = _BLOCK_BYTES) -> Iterator[Block]:
    """Read the text in blocks of whole lines, in constant memory; F_FIELD_TOO_LONG where a line has no end."""
    carry = b""
    offset = span.start
    lines_before = 0
    for position, read in read_raw(source, span.start, span.end, block_bytes, _FIRST_BYTES):
        data = carry + read
        is_last = position + len(read) >= span.end
        ends, terminators = line_ends(data, span.unit, is_last=is_last)
        if not len(ends):
            if len(data) > _LONGEST_LINE_BYTES:
                raise FileRejected("F_FIELD_TOO_LONG", {"line": str(lines_before + 1)})
            carry = data
            continue
        used = int(ends[-1])
        yield Block(data[:used], span.codec, ends + offset, terminators)
        carry = data[used:]
        offset += used
        lines_before += len(ends)


def line_ends(data: bytes, unit: np.dtype[np.unsignedinteger], *, is_last: bool) -> tuple[Integers, Integers]:
    """Return each complete line's end in bytes and its terminator's bytes; a last line needs no terminator."""
    size = unit.itemsize
    codes = np.frombuffer(data, unit, count=len(data) // size)
    is_end = codes == _LF
    # `in` on the bytes is far cheaper than a comparison; files with CR are compared in full
    is_return = codes == _CR if b"\r" in data else None
    if is_return is not None:
        followed_by_feed = np.append(is_end[1:], not is_last)  # CR at a block's end: LF may be next
        is_end |= is_return & ~followed_by_feed
    places = np.flatnonzero(is_end)
    terminators = np.ones(len(places), np.int64)
    if is_return is not None:
        is_pair = (codes[places] == _LF) & (places > 0) & is_return[places - 1]
        terminators[is_pair] = 2
    ends = places.astype(np.int64) + 1
    if is_last and len(codes) and (not len(ends) or ends[-1] != len(codes)):
        ends = np.append(ends, len(codes))
        terminators = np.append(terminators, 0)
    return ends * size, terminators * size


def split_lines(text: str) -> io.StringIO:
    """Return an iterator of the text's physical lines, terminators kept; only CR, LF and CRLF end a line."""
    return io.StringIO(text, newline="")


def locate(source: Path, span: TextSpan, offset: int, dialect: Dialect) -> dict[str, str]:
    """Return where a byte stands: its `offset`, physical `line`, and `row` unless it is in the header.

    Only the text before `offset` is read.
    """
    encoding = span.encoding if span.unit.itemsize > 1 else "latin-1"
    before = TextSpan(encoding, has_bom=False, start=span.start, end=offset)
    lines = 1
    ends_a_line = True

    def texts() -> Iterator[io.StringIO]:
        nonlocal lines, ends_a_line
        for block in read_blocks(source, before):
            ends_a_line = bool(block.terminators[-1])
            lines += int(np.count_nonzero(block.terminators))
            yield split_lines(block.data.decode(block.codec, errors="replace"))
        if ends_a_line:
            yield split_lines("x")

    found = {"offset": str(offset)}
    try:
        rows = dialect.reader(chain.from_iterable(texts()))
        records = sum(1 for _ in dropwhile(lambda row: not any(row), rows))  # the first with text is the header
    except csv.Error:
        return found
    found["line"] = str(lines)
    if records > 1:
        found["row"] = str(records - 1)
    return found

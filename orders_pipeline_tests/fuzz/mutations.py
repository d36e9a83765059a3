"""Broken order files: samples as clients send them, damaged in text and in bytes in ways that happen and that do not.

Strategies only; every damage is a small pure function, and its draws are numbers, so that a failing file shrinks to the
damages that matter. What must become of such files is said in the tests.
"""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline_tests.support.factories import TODAY

CODECS = ("utf-8", "utf-8-sig", "cp932", "utf-16-le", "utf-16-be", "utf-16")
SCALE = 1000  # places are drawn as thousandths of what they lie in
HUGE = (66_000, 132_000)  # characters: over the limit of a field, and over that of the reader

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_STRANGE_TEXT = (
    '"', '""', ",", ",,", ";", "\t", "，", "\r", "\n", "\r\n", "\n\r", "\v", "\f", "\x85", "\u2028", "\ufeff", "\u200b",
    "\u202e", "\ue000", "\ufffd", "\U0001f469\u200d\U0001f469\u200d\U0001f467", "𠮷", "カ\u3099", "㈱①", "=1+1", "<html>",
    "\\", "'", "|", "0", "４", "9" * 30, "4111111111111111", "合計", "NA", " ", "\u3000", "sep=,\r\n", "#", "\x1a",
)  # fmt: skip
_STRANGE_BYTES = (
    b"\0", b"\0\0", b"\x1a", b"\x1b$B", b"\x07", b"\x7f", b"\x80", b"\x81", b"\xa0", b"\xfd", b"\xff", b"\xed\xa0\xbd",
    b"\xed\xa0\xbd\xed\xb8\x80", b"\x3d\xd8", b"\x00\xdc", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xff\xfe",
    b"\xfe\xff", b"\xff\xfe\0\0", b"\x82\xa0", b"\xe3\x81\x82", b"\xa4\xa2", b"\xb1\xb2\xb3", b"\x83\x5c", b"\x0d", b"\x0a",
    b"\x0a\x00", b"\x00\x0d", b'"', b",", b"PK\x03\x04", b"\x1f\x8b", b"%PDF", b"+ADw-", b"~{",
)  # fmt: skip


@lru_cache(maxsize=256)
def sample(rows: int, seed: int, japanese: bool) -> str:
    """Return the text of a sample file, a fifth of its rows bad."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.csv"
        write_sample(path, rows=rows, seed=seed, bad=0.2, today=TODAY, japanese_headers=japanese)
        return path.read_bytes().decode()


@dataclass(frozen=True, repr=False)
class Damage:
    """A change to a text or to bytes, and where and how it is made."""

    change: Callable[..., Any]
    how: tuple[Any, ...]

    def __call__(self, whole: Any) -> Any:
        return self.change(whole, *self.how)

    def __repr__(self) -> str:
        return f"{self.change.__name__}{self.how}"


def _damage(change: Callable[..., Any], *how: st.SearchStrategy[Any]) -> st.SearchStrategy[Damage]:
    return st.builds(Damage, st.just(change), st.tuples(*how))


sample_arguments = (st.integers(5, 60), st.integers(1, 3), st.booleans())
places = st.integers(0, SCALE)
counts = st.integers(1, 60)


def _at(place: int, length: int) -> int:
    return place * length // SCALE


def _lines(text: str) -> list[str]:
    return _LINE.findall(text)


def _insert(text: str, place: int, what: str) -> str:
    at = _at(place, len(text))
    return text[:at] + what + text[at:]


def _delete(text: str, place: int, count: int) -> str:
    at = _at(place, len(text))
    return text[:at] + text[at + count :]


def _replace_one(text: str, place: int, old: str, new: str) -> str:
    at = text.find(old, _at(place, len(text)))
    return text if at < 0 else text[:at] + new + text[at + len(old) :]


def _replace_all(text: str, old: str, new: str) -> str:
    return text.replace(old, new)


def _duplicate(text: str, place: int, count: int, target: int) -> str:
    lines = _lines(text)
    at = _at(place, len(lines))
    return "".join([*lines[: _at(target, len(lines))], *lines[at : at + count], *lines[_at(target, len(lines)) :]])


def _drop_line(text: str, place: int) -> str:
    lines = _lines(text)
    return "".join(lines[: _at(place, len(lines))] + lines[_at(place, len(lines)) + 1 :])


def _add_to_lines(text: str, what: str, step: int, first: int) -> str:
    lines = _lines(text)
    for at in range(first, len(lines), step):
        body = lines[at].rstrip("\r\n")
        lines[at] = body + what + lines[at][len(body) :]
    return "".join(lines)


def _before_lines(text: str, what: str, step: int, first: int) -> str:
    return "".join(what + line if at >= first and (at - first) % step == 0 else line for at, line in enumerate(_lines(text)))


def _repeat_header(text: str, place: int) -> str:
    lines = _lines(text)
    at = _at(place, len(lines))
    return "".join(lines[:at] + lines[:1] + lines[at:])


def _join_sample(text: str, place: int, *other: Any) -> str:
    return text[: _at(place, len(text))] + sample(*other)


def _rows(text: str) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error:  # a field is too long for the reader
        return [[text]]


def _written(rows: list[list[str]], quoting: int, ending: str) -> str:
    target = io.StringIO(newline="")
    csv.writer(target, quoting=quoting, lineterminator=ending).writerows(rows)
    return target.getvalue()


def _drop_column(text: str, place: int, rows: int) -> str:
    """Drop a column of all rows, or of the first ones only."""
    found = _rows(text)
    at = _at(place, max(map(len, found), default=0))
    kept = [row[:at] + row[at + 1 :] if number < rows else row for number, row in enumerate(found)]
    return _written(kept, csv.QUOTE_MINIMAL, "\r\n")


def _quoted(text: str, ending: str) -> str:
    return _written(_rows(text), csv.QUOTE_ALL, ending)


def _huge(text: str, place: int, size: int, fill: str) -> str:
    return _insert(text, place, fill * size)


def _without_last_line_end(text: str) -> str:
    return text.rstrip("\r\n")


strange_text = st.sampled_from(_STRANGE_TEXT)
text_damages = st.one_of(
    _damage(_insert, places, strange_text),
    _damage(_delete, places, counts),
    _damage(_replace_one, places, st.sampled_from(',"\r\n01'), strange_text),
    _damage(_replace_all, st.sampled_from(["\r\n", "\n", ",", '"']), strange_text),
    _damage(_duplicate, places, counts, places),
    _damage(_drop_line, places),
    _damage(_add_to_lines, strange_text, st.sampled_from([1, 1, 2, 1000]), counts),
    _damage(_add_to_lines, st.sampled_from([",", ",,", ",x"]), st.just(1), st.just(0)),
    _damage(
        _before_lines,
        st.sampled_from(["\r\n", "\n", ",,\r\n", '""\n', "\r", "x\n"]),
        st.sampled_from([1, 2, 7, 1000]),
        st.integers(0, 5),
    ),
    _damage(_repeat_header, places),
    _damage(_join_sample, places, *sample_arguments),
    _damage(_drop_column, places, st.sampled_from([1, 5, 1000])),
    _damage(_quoted, st.sampled_from(["\r\n", "\n", "\r"])),
    _damage(_huge, places, st.sampled_from(HUGE), st.sampled_from(["x", "山", "\n"])),
    _damage(_without_last_line_end),
)


def _flip(data: bytes, place: int, bit: int) -> bytes:
    at = _at(place, len(data))
    return data[:at] + bytes(each ^ 1 << bit for each in data[at : at + 1]) + data[at + 1 :]


def _put(data: bytes, place: int, what: bytes, over: int) -> bytes:
    at = _at(place, len(data))
    return data[:at] + what + data[at + over :]


def _take_out(data: bytes, place: int, count: int) -> bytes:
    at = _at(place, len(data))
    return data[:at] + data[at + count :]


def _cut(data: bytes, place: int) -> bytes:
    return data[: _at(place, len(data))]


def _copy(data: bytes, place: int, count: int, target: int) -> bytes:
    at, to = _at(place, len(data)), _at(target, len(data))
    return data[:to] + data[at : at + count] + data[to:]


def _splice(data: bytes, place: int, codec: str, other_place: int, *sample_of: Any) -> bytes:
    other = sample(*sample_of).encode(codec)
    return data[: _at(place, len(data))] + other[_at(other_place, len(other)) :]


byte_damages = st.one_of(
    _damage(_flip, places, st.integers(0, 7)),
    _damage(_put, places, st.sampled_from(_STRANGE_BYTES), st.integers(0, 4)),
    _damage(_put, places, st.binary(max_size=30), st.just(0)),
    _damage(_take_out, places, counts),
    _damage(_cut, places),
    _damage(_copy, places, st.integers(1, 3000), places),
    _damage(_splice, places, st.sampled_from((*CODECS, "euc_jp")), places, *sample_arguments),
)


@dataclass(frozen=True)
class DamagedFile:
    """A sample file with some damages of its text, written in `codec`, and some of its bytes."""

    codec: str
    sample: tuple[int, int, bool]
    of_text: Sequence[Damage]
    of_bytes: Sequence[Damage]

    @property
    def data(self) -> bytes:
        text = reduce(lambda changed, damage: damage(changed), self.of_text, sample(*self.sample))
        return reduce(lambda changed, damage: damage(changed), self.of_bytes, text.encode(self.codec, errors="replace"))


def damaged(codec: str) -> st.SearchStrategy[DamagedFile]:
    """Return a strategy of damaged files in one encoding."""
    return st.builds(
        DamagedFile,
        st.just(codec),
        st.tuples(*sample_arguments),
        st.lists(text_damages, max_size=4),
        st.lists(byte_damages, max_size=3),
    )


HEADER = b"client_order_ref,customer_code,customer_name,amount,payment_method,note\r\n"
scraps = st.lists(
    st.one_of(st.sampled_from(_STRANGE_BYTES), st.sampled_from([b"a", b"1", b"invoice", b"\r\n", b",", b'"', b",,,,,"])),
    max_size=40,
).map(b"".join)
# bytes that nobody would call a sample: anything at all, and a header with scraps behind it
senseless = st.one_of(st.binary(max_size=300), scraps, scraps.map(lambda rest: HEADER + rest))

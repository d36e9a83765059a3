"""Normalisation by kind of column: what may differ in writing without meaning anything else.

Codes, numbers and dates lose their full-width ASCII and outer spaces; text only gets composed. No other form is exchanged
for another: NFKC would turn C① into C1, which may be another customer's code, and ㈱ into (株). What cannot be read is left
as it is, for the rules to refuse. Functions take an Arrow array of strings and return one of the same length.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MOST_DIGITS = 15  # a number of more digits is above every limit
BYTE_ORDER_MARK = "\ufeff"
JAPANESE_PHONE = "0[0-9]{9,10}"

INVISIBLE = f"\u200b\u200c\u200d\u2060{BYTE_ORDER_MARK}"
_DIRECTION = "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_BETWEEN_DIGITS = " ().-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u30fc\uff70"
_SPACES = " \t\r\n\u00a0\u3000"
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}
# Composing would exchange these ideographs for their standard form: 神 is the name of some who are not called 神.
_COMPOSED = re.compile("[^\uf900-\ufaff\U0002f800-\U0002fa1f]+")
_HALF_WIDTH_KANA = re.compile("[\uff61-\uff9f]+")
# Number and date cells are only NFKC-normalised when made of these: NFKC would turn ① and ² into digits as well.
_NUMBER_CHARACTERS = r"^[\t\r\n\x{20}-\x{7e}\x{a0}\x{a5}\x{3000}\x{ff01}-\x{ff5e}\x{ffe5}円▲△\x{2212}]*$"
_DATE_CHARACTERS = re.compile("[\t\r\n\x20-\x7e\u00a0\u3000\uff01-\uff5e年月日元明治大正昭和平成令㋿㍻㍼㍽㍾]*")

_ERAS = (
    ("明治", "M", date(1868, 1, 25)),
    ("大正", "T", date(1912, 7, 30)),
    ("昭和", "S", date(1926, 12, 25)),
    ("平成", "H", date(1989, 1, 8)),
    ("令和", "R", date(2019, 5, 1)),
)
_MONTH_AND_DAY = (
    r"(?:年(?P<m1>[0-9]{1,2})月(?P<d1>[0-9]{1,2})日|(?P<mark>[-/.])(?P<m2>[0-9]{1,2})(?P=mark)(?P<d2>[0-9]{1,2}))"
)
_WESTERN_DATE = re.compile(rf"(?P<year>[0-9]{{4}})(?:{_MONTH_AND_DAY}|(?P<m3>[0-9]{{2}})(?P<d3>[0-9]{{2}}))")
_JAPANESE_DATE = re.compile(rf"(?P<era>明治|大正|昭和|平成|令和|[MTSHRmtshr])(?P<year>[0-9]{{1,2}}|元){_MONTH_AND_DAY}")


class Normaliser(Protocol):
    """A function from raw cells to normalised cells; `encoding` is the file's, for what depends on it."""

    def __call__(self, cells: pa.Array, *, encoding: str) -> pa.Array:
        """Return as many cells as were given, in the same order."""
        ...


def within(cells: pa.Array, limit: int, function: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Return `function(cells)`; cells of more than `limit` characters are cut to one more than that and left so.

    Bounds the work for a cell, whatever was sent.
    """
    if (pc.max(pc.binary_length(cells)).as_py() or 0) <= limit:
        return function(cells)
    too_long = pc.greater(pc.utf8_length(cells), limit)
    cut = pc.utf8_slice_codeunits(cells, 0, limit + 1)
    return pc.if_else(too_long, cut, function(pc.if_else(too_long, "", cut)))


def unguarded(cells: pa.Array, *, with_apostrophes: bool = True) -> pa.Array:
    """Return cells without what keeps a spreadsheet from reading codes as numbers: ="0001" and '0001 are 0001."""
    if pc.any(pc.starts_with(cells, '="')).as_py():
        cells = pc.replace_substring_regex(cells, r'^="([^"]*)"[ \t]*$', r"\1")
    if with_apostrophes and pc.any(pc.starts_with(cells, "'")).as_py():
        cells = pc.if_else(pc.starts_with(cells, "'"), pc.utf8_slice_codeunits(cells, 1), cells)
    return cells


def text(cells: pa.Array, *, encoding: str) -> pa.Array:  # noqa: ARG001 - same signature for every kind
    """Compose characters (NFC) and change nothing else."""
    if unicodedata.is_normalized("NFC", utf8_content(cells).decode()):  # all at once: much faster than cell by cell
        return cells
    return _unless(pc.string_is_ascii(cells), cells, partial(_map, _composed))


def _without(cells: pa.Array, characters: str) -> pa.Array:
    """Return cells without some characters, of which most files have few."""
    content = utf8_content(cells)
    for each in characters:
        written = each.encode()
        if written[:1] in content and written in content:  # a single byte is found much faster
            cells = pc.replace_substring(cells, each, "")
    return cells


def utf8_content(cells: pa.Array) -> bytes:
    """Return the text of all cells, one after another."""
    _, offsets, content = cells.buffers()
    if content is None:
        return b""
    bounds = np.frombuffer(offsets, np.int32, len(cells) + 1, offset=4 * cells.offset)
    return bytes(content[bounds[0] : bounds[-1]])


def code(cells: pa.Array, *, encoding: str) -> pa.Array:  # noqa: ARG001
    """Replace full-width ASCII and trim spaces."""
    plain = _unless(pc.string_is_ascii(cells), cells, partial(_map, half_width))
    return pc.utf8_trim(plain, characters=_SPACES)


def lower_code(cells: pa.Array, *, encoding: str, words: Mapping[str, str] = MappingProxyType({})) -> pa.Array:
    """Normalise as a code and write it in small letters; other words for a code, which are `words`, become the code."""
    codes = pc.ascii_lower(code(cells, encoding=encoding))
    at = pc.index_in(codes, pa.array(words, pa.string()))
    return codes if at.null_count == len(at) else pc.coalesce(pa.array(words.values(), pa.string()).take(at), codes)


def upper_code(cells: pa.Array, *, encoding: str) -> pa.Array:
    """Normalise as a code and write it in capitals."""
    return pc.ascii_upper(code(cells, encoding=encoding))


def phone(cells: pa.Array, *, encoding: str) -> pa.Array:
    """Normalise as a code, without marks of direction as telephones copy them; write Japanese numbers as their digits.

    What separates groups of digits is dropped, and +81 is the domestic 0. Other numbers stay as they are.
    """
    sent = code(_without(cells, _DIRECTION), encoding=encoding)
    joined = _without(sent, _BETWEEN_DIGITS)
    digits = pc.utf8_trim(joined, characters=_SPACES)  # what stood behind a separator
    domestic = pc.replace_substring_regex(digits, r"^\+810?", "0")
    return pc.if_else(pc.match_substring_regex(domestic, f"^{JAPANESE_PHONE}$"), domestic, sent)


def number(cells: pa.Array, *, encoding: str) -> pa.Array:
    """Write whole numbers with ASCII digits only: without yen sign, good grouping, `.0` or `.00`, leading zeros.

    Other decimals stay and are refused: `1.000` is one thousand to half of the world, and so may `0,100` be a tenth.
    A backslash counts as a yen sign in a CP932 file, where they are the same byte. Numbers below zero get a minus.
    """
    clean = pc.match_substring_regex(cells, rf"^(?:0|[1-9][0-9]{{0,{MOST_DIGITS - 1}}})?$")
    return _unless(clean, cells, partial(_number, yen=r"[\x{a5}\\]" if encoding == "cp932" else r"\x{a5}"))


def normalise_header(cell: str) -> str:
    """Return a column's name, from a header or a profile, as names are compared: in NFKC, trimmed, case folded."""
    return unicodedata.normalize("NFKC", cell).strip().strip(INVISIBLE).strip().casefold()


def numbered(header: str, occurrence: int) -> str:
    """Return what a header that comes several times is known by: the first time by itself, later with its number."""
    return f"{header}\0{occurrence}"


def unnumbered(header: str) -> str:
    """Return a header as it is written, whichever of its occurrences is meant."""
    return header.partition("\0")[0]


def half_width(written: str) -> str:
    """Return a text with its full-width ASCII replaced, and nothing else."""
    return written.translate(_FULL_WIDTH)


def plain_word(written: str) -> str:
    """Return a word as words are compared: in half-width ASCII, full-width kana, composed, without outer spaces."""
    kana = _HALF_WIDTH_KANA.sub(lambda match: unicodedata.normalize("NFKC", match[0]), half_width(written))
    return _composed(kana).strip()


def shorten_digits(cells: pa.Array) -> pa.Array:
    """Cut what follows the first digits of numbers above every limit, so that they are too large and not too long."""
    huge = rf"^(-?[0-9]{{{MOST_DIGITS + 1}}})[0-9]+$"
    if not pc.any(pc.greater(pc.binary_length(cells), MOST_DIGITS + 1)).as_py():
        return cells
    return pc.replace_substring_regex(cells, huge, r"\1")


def calendar_date(cells: pa.Array, *, encoding: str) -> pa.Array:  # noqa: ARG001
    """Write dates that can be read in one way only, Western or Japanese, like 2026-04-01."""
    return _unless(pc.match_substring_regex(cells, r"^(?:[0-9]{4}-[0-9]{2}-[0-9]{2})?$"), cells, _dates)


def parse_date(written: str) -> date | None:
    """Return the day a Western or Japanese date means, or None; an era is held to its first and last day."""
    if western := _WESTERN_DATE.fullmatch(written):
        return _day(int(western["year"]), western)
    japanese = _JAPANESE_DATE.fullmatch(written)
    if japanese is None:
        return None
    position = next(at for at, names in enumerate(_ERAS) if japanese["era"].upper() in names)
    first = _ERAS[position][2]
    after = _ERAS[position + 1][2] if position + 1 < len(_ERAS) else date.max
    day = _day(first.year - 1 + (1 if japanese["year"] == "元" else int(japanese["year"])), japanese)
    return day if day is not None and first <= day < after else None


def _day(year: int, match: re.Match[str]) -> date | None:
    """Return the day with the month and day that are in one of the pattern's groups, or None if there is no such day."""
    parts = match.groupdict()
    month, day = (next(parts[f"{part}{at}"] for at in "123" if parts.get(f"{part}{at}")) for part in "md")
    try:
        return date(year, int(month), int(day))
    except ValueError:
        return None


def _composed(written: str) -> str:
    return _COMPOSED.sub(lambda match: unicodedata.normalize("NFC", match[0]), written)


def _map(function: Callable[[str], str], cells: pa.Array) -> pa.Array:
    return pa.array([function(cell) for cell in cells.to_pylist()], pa.string())


def _unless(clean: pa.Array, cells: pa.Array, function: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Apply `function` to the cells that are not clean."""
    dirty = pc.invert(clean)
    if not pc.any(dirty).as_py():
        return cells
    return pc.replace_with_mask(cells, dirty, function(cells.filter(dirty)))


def _number(cells: pa.Array, *, yen: str) -> pa.Array:
    plain = pc.match_substring_regex(cells, _NUMBER_CHARACTERS)
    tidy = pc.utf8_trim(pc.if_else(plain, pc.utf8_normalize(cells, form="NFKC"), cells), characters=_SPACES)
    sign = rf"(?:(?:{yen}|(?i:JPY)) ?)?"
    amount = rf"{sign}([0-9]+|[1-9][0-9]{{0,2}}(?:,[0-9]{{3}})+)(?:\.0{{1,2}})? ?円?"
    below_zero = rf"^(?:{sign}[\-\x{{2212}}▲△] ?{amount}|\({amount}\))$"
    tidy = _rewritten(tidy, rf"^{amount}$", r"\1")
    tidy = _rewritten(tidy, below_zero, r"-\1\2")
    return pc.replace_substring_regex(tidy, r"^(-?)0+([0-9]+)$", r"\1\2")


def _rewritten(cells: pa.Array, pattern: str, replacement: str) -> pa.Array:
    matching = pc.match_substring_regex(cells, pattern)
    rewritten = pc.replace_substring_regex(cells, pattern, replacement)
    return pc.if_else(matching, pc.replace_substring(rewritten, ",", ""), cells)


def _dates(cells: pa.Array) -> pa.Array:
    distinct: Any = cells.dictionary_encode()
    readable = pa.array([_date_text(written) for written in distinct.dictionary.to_pylist()], pa.string())
    return readable.take(distinct.indices)


def _date_text(written: str) -> str:
    if not _DATE_CHARACTERS.fullmatch(written):
        return written
    plain = unicodedata.normalize("NFKC", written).strip(_SPACES)
    day = parse_date(plain)
    return plain if day is None else day.isoformat()

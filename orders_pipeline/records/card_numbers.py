"""Card numbers in a text, however they are written: what must never be kept.

A card number has its brand's beginning and length and a right check digit, but so has about every hundredth number that is
none. So it is looked for as people write one: its digits in a row, also with others at their ends, or in groups, with the
same separator between all of them, or grouped as on a card whatever stands between. In a column of codes, which are often
long numbers themselves, it must stand alone.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.records.normalise import utf8_content

SHORTEST = 14
_LENGTHS = {
    "4": (16, 19),
    "5[1-5]|2[2-7]": (16,),
    "3[47]": (15,),
    "30[0-5]|3[689]": (14,),
    "35": (16,),
    "6011|62|64[4-9]|65": (16, 17, 18, 19),
    "5018|5020|5038|5893|6304|6759|676[1-3]": (14, 15, 16, 17, 18, 19),
}
_VALUES = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED = bytes.maketrans(b"0123456789", bytes(sum(divmod(2 * value, 10)) for value in range(10)))
_GROUPS = ({4, 8, 12}, {4, 8, 12, 16}, {4, 10})  # where most cards have their spaces
_MANY = 3  # gaps that are the same by no accident
_WIDEST = 12  # characters between two groups; beyond three it is one again and again
_DIGIT = r"[0-9\x{ff10}-\x{ff19}\x{2460}-\x{2468}\x{24ea}]"
_KANA_AND_KANJI = r"\x{3041}-\x{3096}\x{30a1}-\x{30fa}\x{4e01}-\x{9fff}"
# between two groups, in RE2's writing: any few, or more that are no words, which a text has between its numbers
_ANY_BETWEEN = rf"(?:[^0-9]{{0,3}}|[^0-9A-Za-z{_KANA_AND_KANJI}]{{4,{_WIDEST}}})"
# ー and 一 are typed for a dash
_BETWEEN = r"[\W_ーｰ一]"
_RUN = re.compile(rf"[0-9](?:(?:[^0-9]{{0,3}}|({_BETWEEN})\1{{3,{_WIDEST - 1}}})[0-9]){{{SHORTEST - 1},}}")
_NO_DIGITS = bytes(set(range(128)) - set(b"0123456789"))
_PLAIN = re.compile(rf"{_BETWEEN}*")
# as grouped on a card, with the same longer text between all groups
_SPREAD = re.compile(
    rf"(?<![0-9])[0-9]{{4}}([^0-9]{{4,{_WIDEST}}})(?:[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}|[0-9]{{6}}\1[0-9]{{4,5}})(?![0-9])"
)
_DAY = re.compile(r"2[2-7](?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])")  # year, month and day, as references begin


@functools.cache
def _may_hold_one() -> str:
    """Return a pattern, in RE2's writing, of texts that may hold one: more than do.

    Its classes of all letters are a hundred times as slow.
    """
    gap = rf"[^0-9]{{1,{_WIDEST}}}"
    grouped = rf"{_DIGIT}{{4}}{gap}(?:{_DIGIT}{{4}}{gap}{_DIGIT}{{4}}{gap}|{_DIGIT}{{6}}{gap}){_DIGIT}{{4}}"
    return rf"{_DIGIT}(?:{_ANY_BETWEEN}{_DIGIT}){{{SHORTEST - 1}}}|{grouped}|[{_rare_digits()}]"


@functools.cache
def _may_be_one() -> str:
    """Return a pattern, in RE2's writing, of codes that may hold one that stands alone; few long numbers do."""
    in_a_row = rf"(?:^|[^0-9])(?:[3-6]|2[2-7])[0-9]{{{SHORTEST - 2},18}}(?:[^0-9]|$)"
    gap = rf"[^0-9]{{1,{_WIDEST}}}"
    grouped = rf"[0-9]{{4}}{gap}(?:[0-9]{{4}}{gap}[0-9]{{4}}|[0-9]{{6}}){gap}[0-9]{{2}}"
    return rf"{in_a_row}|{grouped}|[\x{{ff10}}-\x{{ff19}}\x{{2460}}-\x{{2468}}\x{{24ea}}{_rare_digits()}]"


@functools.cache
def _rare_digits() -> str:
    """Return the digits that hardly a text has; to find them takes a moment."""
    return "".join(rf"\x{{{ord(digit):x}}}" for digit in _digits() if not re.match("[0-9０-９①-⑨⓪]", digit))


@functools.cache
def _begins_digit() -> bytes:
    """Return a 1 for each byte with which a digit of any writing begins in UTF-8, and 0 for the others."""
    return bytes(np.isin(np.arange(256), [digit.encode()[0] for digit in _digits()]))


@functools.cache
def _lengths_by_beginning() -> Mapping[bytes, Sequence[int]]:
    """Return the lengths of card numbers by their first four digits; no two brands begin alike."""
    brands = [(re.compile(beginning), lengths) for beginning, lengths in _LENGTHS.items()]
    beginnings = map("{:04}".format, range(10_000))
    return {digits.encode(): lengths for digits in beginnings for brand, lengths in brands if brand.match(digits)}


def _digits() -> Iterator[str]:
    return (character for character in map(chr, range(0x20000)) if unicodedata.digit(character, None) is not None)


def card_numbers_among(cells: pa.Array, *, in_codes: bool) -> pa.Array:
    """Return the distinct texts among cells (strings, nulls too) that hold a card number."""
    enough = _enough_digits(cells)
    if not enough.any():
        return pa.array([], pa.string())
    may_have = cells.filter(pa.array(enough))
    suspects = may_have.filter(pc.match_substring_regex(may_have, _may_be_one() if in_codes else _may_hold_one())).unique()
    return pa.array([text for text in suspects.to_pylist() if has_card_number(text, is_code=in_codes)], pa.string())


def _enough_digits(cells: pa.Array) -> npt.NDArray[np.bool_]:
    """Return which cells may have as many digits as a card number: more than do, for their first bytes are counted."""
    if (pc.max(pc.binary_length(cells)).as_py() or 0) < SHORTEST:
        return np.zeros(len(cells), np.bool_)
    offsets = np.frombuffer(cells.buffers()[1], np.int32, len(cells) + 1, offset=4 * cells.offset)
    before = np.zeros(offsets[-1] - offsets[0] + 1, np.int32)
    np.cumsum(np.frombuffer(utf8_content(cells).translate(_begins_digit()), np.uint8), out=before[1:])
    enough: npt.NDArray[np.bool_] = np.diff(before[offsets - offsets[0]]) >= SHORTEST
    return enough


@functools.lru_cache(maxsize=1 << 16)  # rows are judged twice, the second time by Pandera
def has_card_number(text: str, *, is_code: bool = False) -> bool:
    """Return whether a text holds a card number; in a code, which may be a long number itself, it stands alone."""
    numbers = find_card_numbers(text)
    return any(_stands_alone(text, places) for places in numbers) if is_code else any(numbers)


def find_card_numbers(text: str) -> Iterator[Sequence[int]]:
    """Yield, for each card number, the positions of its digits in the text."""
    plain = _with_digits(text)
    for run in _RUN.finditer(plain):
        digits = _only_digits(run[0])
        fitting = [(first, end) for first, end in _candidates(digits) if _check_sum(digits[first:end]) % 10 == 0]
        if not fitting:
            continue
        places = [at for at in range(*run.span()) if plain[at] in "0123456789"]
        gaps = {
            at: plain[places[at - 1] + 1 : places[at]] for at in range(1, len(places)) if places[at] > places[at - 1] + 1
        }
        yield from (places[first:end] for first, end in fitting if _is_written_so(first, end, gaps, len(digits)))
    for spread in _SPREAD.finditer(plain):
        digits = _only_digits(spread[0])
        if (0, len(digits)) in _candidates(digits) and _check_sum(digits) % 10 == 0:
            yield [at for at in range(*spread.span()) if plain[at] in "0123456789"]


def _stands_alone(text: str, places: Sequence[int]) -> bool:
    """Return whether a card number is no part of a longer one, in a row or grouped as on a card, and begins with no day."""
    plain = _with_digits(text)
    around = plain[max(places[0] - 1, 0) : places[0]] + plain[places[-1] + 1 : places[-1] + 2]
    gaps = {at for at in range(1, len(places)) if places[at] > places[at - 1] + 1}
    begins = "".join(plain[at] for at in places[:6])
    return not re.search("[0-9]", around) and (not gaps or gaps in _GROUPS) and not _DAY.match(begins)


def _only_digits(text: str) -> bytes:
    return text.encode("ascii", "ignore").translate(None, _NO_DIGITS)


def _candidates(digits: bytes) -> Iterator[tuple[int, int]]:
    lengths_of = _lengths_by_beginning()
    for first in range(len(digits) - SHORTEST + 1):
        for length in lengths_of.get(digits[first : first + 4], ()):
            if first + length <= len(digits):
                yield first, first + length


def _is_written_so(first: int, end: int, gaps: Mapping[int, str], count: int) -> bool:
    """Return whether the digits from `first` to `end` of so many are one number; `gaps` is what stands before a digit."""
    inside = {at - first: gap for at, gap in gaps.items() if first < at < end}
    stands_free = [at in gaps or at in (0, count) for at in (first, end)]
    if not inside:
        return True
    is_plain = all(_PLAIN.fullmatch(gap) for gap in inside.values())
    is_grouped = inside.keys() in _GROUPS
    if is_grouped and is_plain:
        return any(stands_free)
    if len(set(inside.values())) == 1:
        is_written_so = is_plain or is_grouped or len(inside) >= _MANY
    else:
        is_written_so = is_plain and any(inside.keys() <= groups for groups in _GROUPS)
    return is_written_so and all(stands_free)


def _with_digits(text: str) -> str:
    return text if text.isascii() else "".join(_digit(character) for character in text)


def _digit(character: str) -> str:
    value = unicodedata.digit(character, None)
    return character if value is None else str(value)


def _check_sum(digits: bytes) -> int:
    """Return the sum of Luhn's rule."""
    return sum(digits[-1::-2].translate(_VALUES)) + sum(digits[-2::-2].translate(_DOUBLED))

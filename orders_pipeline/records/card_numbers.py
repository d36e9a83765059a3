"""Card numbers in a text, however they are written: what must never be kept.

A card number has its brand's beginning and length and a right check digit, and so has every hundredth number or so that is
none. So it is looked for where people write one: as digits in a row, also with others at their ends, or in groups, with
the same between all of them or grouped as on a card.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

SHORTEST = 14
_LENGTHS = {
    "4": (16, 19),
    "5[1-5]|2[2-7]": (16,),
    "3[47]": (15,),
    "30[0-5]|3[68]": (14,),
    "35": (16,),
    "6011|62|64[4-9]|65": (16, 17, 18, 19),
}
_BRANDS = tuple((re.compile(f"(?={beginning})"), lengths) for beginning, lengths in _LENGTHS.items())
_GROUPS = ({4, 8, 12}, {4, 8, 12, 16}, {4, 10})  # where most cards have their spaces
_WIDEST = 12  # characters between two groups; beyond three it is one again and again
_DIGIT = r"[0-9\x{ff10}-\x{ff19}\x{2460}-\x{2468}\x{24ea}]"
_KANA_AND_KANJI = r"\x{3041}-\x{3096}\x{30a1}-\x{30fa}\x{4e01}-\x{9fff}"
# between two groups, in RE2's writing: any few, or more that are no words, which a text has between its numbers
_ANY_BETWEEN = rf"(?:[^0-9A-Za-z]{{0,3}}|[^0-9A-Za-z{_KANA_AND_KANJI}]{{4,{_WIDEST}}})"
# ー and 一 are typed for a dash
_BETWEEN = r"[\W_ーｰ一]"
_RUN = re.compile(rf"[0-9](?:(?:{_BETWEEN}{{0,3}}|({_BETWEEN})\1{{3,{_WIDEST - 1}}})[0-9]){{{SHORTEST - 1},}}")


@functools.cache
def may_hold_one() -> str:
    """Return a pattern, in RE2's writing, of texts that may hold one: more than do.

    Its classes of all letters are a hundred times as slow.
    """
    return rf"{_DIGIT}(?:{_ANY_BETWEEN}{_DIGIT}){{{SHORTEST - 1}}}|[{_rare_digits()}]"


@functools.cache
def enough_digits() -> str:
    """Return a pattern, in RE2's writing, of all texts that have as many digits of any writing as a card number."""
    digit = rf"(?:{_DIGIT}|[{_rare_digits()}])"
    return rf"(?s:{digit}(?:.*{digit}){{{SHORTEST - 1}}})"


@functools.cache
def _rare_digits() -> str:
    """Return the digits that hardly a text has; to find them takes a moment."""
    return "".join(
        rf"\x{{{code:x}}}"
        for code in range(0x80, 0x20000)
        if unicodedata.digit(chr(code), None) is not None and not re.match("[０-９①-⑨⓪]", chr(code))
    )


def find_card_numbers(text: str) -> Iterator[Sequence[int]]:
    """Yield the places of each card number's digits."""
    plain = "".join(_digit(character) for character in text)
    for run in _RUN.finditer(plain):
        places = [at for at in range(*run.span()) if plain[at] in "0123456789"]
        digits = "".join(plain[at] for at in places)
        gaps = {
            at: plain[places[at - 1] + 1 : places[at]] for at in range(1, len(places)) if places[at] > places[at - 1] + 1
        }
        for first, end in _candidates(digits):
            if _is_written_so(first, end, gaps, len(digits)) and _check_sum(digits[first:end]) % 10 == 0:
                yield places[first:end]


def _candidates(digits: str) -> Iterator[tuple[int, int]]:
    for beginning, lengths in _BRANDS:
        for found in beginning.finditer(digits):
            yield from (
                (found.start(), found.start() + length) for length in lengths if found.start() + length <= len(digits)
            )


def _is_written_so(first: int, end: int, gaps: Mapping[int, str], count: int) -> bool:
    """Tell whether the digits from `first` to `end` of so many stand as one number; `gaps` is what stands before a digit."""
    inside = {at - first: gap for at, gap in gaps.items() if first < at < end}
    ends_at_gaps = [at in gaps or at in (0, count) for at in (first, end)]
    if inside.keys() in _GROUPS:
        return any(ends_at_gaps)
    return not inside or (all(ends_at_gaps) and len(set(inside.values())) == 1)


def _digit(character: str) -> str:
    value = unicodedata.digit(character, None)
    return character if value is None else str(value)


def _check_sum(digits: str) -> int:
    """Return the sum of Luhn's rule."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return sum(doubled) + sum(int(digit) for digit in digits[-1::-2])

"""Masked cells, in place of real ones: of the same length and classes of characters, and with the same rejection codes.

Every letter becomes another letter of its script and case, every digit another digit; all else is kept. A masked cell
depends on a key that nobody keeps and on the cell's meaning, so that two ways to write one value still mean the same. What
a file's cells mean is found out in `mask.py`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

from orders_pipeline.records.card_numbers import find_card_numbers
from orders_pipeline.records.orders import CAP_JPY

Draws = Iterator[int]
Rewrite = Callable[[str, Draws, str, int], str]
Judged = Sequence[tuple[frozenset[str], str]]

_ATTEMPTS = 40
_PATIENCE = 12  # so often a cell of another meaning than all others is tried first
_COUNTRY_CODE = re.compile(r"\s*[+＋][8８][1１]")
_TOP_LEVEL = re.compile(r"[A-Za-z]+(?=\s*$)")
_YEN = re.compile("円|[JjＪｊ][PpＰｐ][YyＹｙ]")
_DATE_WORDS = re.compile(r"(?:明治|大正|昭和|平成|令和)元?(?=[\d年])|(?<=[\d元])[年月日]")
_RUN = re.compile(r"\d+")
_DATE_ATTEMPTS = 30  # so often another date is tried before any digits
_MONTH_ATTEMPTS = 10  # so often another day of the same month is tried first


@dataclass(frozen=True)
class Meaning:
    """How cells of one column are judged (codes, and normalised text), and how one of them is rewritten."""

    name: str
    judge: Callable[[Sequence[str]], Judged]
    rewrite: Rewrite
    fresh: bool  # whether a masked cell must not be another one's real value


def draws(key: bytes, *what: object, count: int) -> Draws:
    """Return `count` numbers that depend on the key and on what they are for, and reveal neither."""
    digest = hashlib.shake_256(key + repr(what).encode("utf-8", "surrogatepass")).digest(4 * count)
    return (int.from_bytes(digest[at : at + 4]) for at in range(0, 4 * count, 4))


def masked(cells: Sequence[str], meaning: Meaning, codec: str, key: bytes) -> dict[str, str]:
    """Return for each of the distinct cells another one that gets the same codes, different for different meanings.

    Where there are too few others (dates, single digits), some get the same meaning. A number or date that has no other,
    like a quantity of 0, stays; any other cell gets other codes rather than stay.
    """
    worth = dict(zip(cells, meaning.judge(cells), strict=True))
    groups: dict[str, list[str]] = {}
    for cell in cells:
        groups.setdefault(worth[cell][1], []).append(cell)
    taken = set(groups) if meaning.fresh else set()
    found = {cell: cell for cell in cells if not any(len(_alike(each, codec)) > 1 for each in cell)}
    second_best = {cell: cell for cell in cells}
    left = {group: [cell for cell in members if cell not in found] for group, members in groups.items()}
    for attempt in range(_ATTEMPTS):
        left = {group: members for group, members in left.items() if members}
        tried = {
            cell: meaning.rewrite(cell, draws(key, meaning.name, group, attempt, count=len(cell) + 8), codec, attempt)
            for group, members in left.items()
            for cell in members
        }
        second_best |= {cell: made for cell, made in tried.items() if meaning.fresh and second_best[cell] == cell}
        changed = [made for cell, made in tried.items() if made != cell]
        verdicts = dict(zip(changed, meaning.judge(changed), strict=True)) if changed else {}
        for group, members in left.items():
            if not all(verdicts.get(tried[cell], ("", ""))[0] == worth[cell][0] for cell in members):
                continue
            made = {cell: tried[cell] for cell in members}
            second_best |= made
            meanings = {verdicts[tried[cell]][1] for cell in members}
            if len(meanings) == 1 and (meanings.isdisjoint(taken) or attempt >= _PATIENCE):
                taken |= meanings
                found |= made
                left[group] = []
    return second_best | found


def text(cell: str, drawn: Draws, codec: str, _attempt: int) -> str:
    """Rewrite letters and digits; of a card number the first four digits, which say whose it is, stay, and the last fits."""
    cards = [card for card in find_card_numbers(cell) if all(cell[at].isdecimal() for at in card)]
    made = list(_rewritten(cell, drawn, codec, {at for card in cards for at in card[:4]}))
    for card in cards[:1]:
        made[card[-1]] = _digit_like(made[card[-1]], _check_digit([unicodedata.decimal(made[at]) for at in card[:-1]]))
    return "".join(made)


def email(cell: str, drawn: Draws, codec: str, attempt: int) -> str:
    """Rewrite an address into one that nobody has: there is no top-level domain zz, zzz, ..."""
    made = text(cell, drawn, codec, attempt)
    return _TOP_LEVEL.sub(lambda match: "z" * len(match[0]), made) if "@" in made and "." in made else made


def phone(cell: str, drawn: Draws, codec: str, _attempt: int) -> str:
    """Rewrite a number into one that nobody has: no subscriber's begins with 0. It begins with 0 if it did."""
    country = _COUNTRY_CODE.match(cell)
    start = country.end() if country else 0
    digits = _digits(cell, start, len(cell))
    first = next(iter(digits), None)
    kept = set(range(start))
    if first is not None and unicodedata.decimal(cell[first]) == 0:
        kept.add(digits.pop(0))
    made = list(_rewritten(cell, drawn, codec, kept))
    if first is not None and first not in kept and unicodedata.decimal(made[first]) == 0:
        made[first] = _digit_like(made[first], 9)
    if len(digits) >= 9:
        for at in digits[1:4]:
            made[at] = _digit_like(made[at], 0)
    return "".join(made)


def number(cell: str, drawn: Draws, codec: str, _attempt: int) -> str:
    """Rewrite digits; zeros in front and behind a point stay, and no other one comes to stand in front."""
    whole = _digits(cell, 0, _point(cell))
    zeros = set(takewhile(lambda at: unicodedata.decimal(cell[at]) == 0, whole))
    yen = {at for found in _YEN.finditer(cell) for at in range(*found.span())}
    made = list(_rewritten(cell, drawn, codec, zeros | yen | set(range(_point(cell), len(cell)))))
    first = next((at for at in whole if at not in zeros), None)
    if first is not None:
        made[first] = _digit_like(cell[first], 1 + next(drawn) % 9)
    return "".join(made)


def calendar_date(cell: str, drawn: Draws, codec: str, attempt: int) -> str:
    """Rewrite the day of a date, then its month too; a text that is none, digit by digit."""
    runs = [found.span() for found in _RUN.finditer(cell)]
    if runs and runs[0][1] - runs[0][0] == 8:
        start = runs[0][0]
        runs[:1] = [(start, start + 4), (start + 4, start + 6), (start + 6, start + 8)]
    year = 0 if "元" in cell else 1
    if len(runs) < year + 2 or attempt >= _DATE_ATTEMPTS:
        return _rewritten(cell, drawn, codec, _date_words(cell))
    (month_start, month_end), (day_start, day_end) = runs[year : year + 2]
    month, day = cell[month_start:month_end], cell[day_start:day_end]
    if attempt >= _MONTH_ATTEMPTS:
        month = _digits_like(month, 1 + next(drawn) % 12)
    day = _digits_like(day, 1 + next(drawn) % (9 if len(day) == 1 else 31))
    made = cell[:month_start] + month + cell[month_end:day_start] + day
    return made + _rewritten(cell, drawn, codec, _date_words(cell) | set(range(day_end)))[day_end:]


def money(sent: tuple[int | None, ...], drawn: Draws) -> tuple[int | None, ...] | None:
    """Return another quantity, unit price and amount of as many digits, whose product is the amount where it was.

    None where there is no other, like for 1,000,000 yen.
    """
    quantity, price, amount = sent
    if amount is None:
        return None
    if quantity is None or price is None:
        low, high = _bounds(amount)
        made_amount = low + next(drawn) % (high - low + 1)
        return (quantity, price, made_amount) if made_amount != amount else None
    low, high = _bounds(quantity)
    made_quantity = low + next(drawn) % (high - low + 1)
    low, high = _bounds(price)
    least, most = _bounds(amount)
    holds = quantity * price == amount
    if holds:
        low, high = max(low, -(-least // made_quantity)), min(high, most // made_quantity)
    if high < low:
        return None
    made_price = low + next(drawn) % (high - low + 1)
    product = made_quantity * made_price
    made_amount = product if holds else least + next(drawn) % (most - least + 1)
    made = (made_quantity, made_price, made_amount)
    return made if (product == made_amount) == holds and made != sent else None


def with_number(cell: str, value: int) -> str:
    """Return a cell with another number of as many digits, written the same way."""
    written = str(value)
    places = _digits(cell, 0, _point(cell))[-len(written) :]
    made = list(cell)
    for at, digit in zip(places, written, strict=True):
        made[at] = _digit_like(cell[at], int(digit))
    return "".join(made)


def _bounds(value: int) -> tuple[int, int]:
    """Return the least and the highest number of as many digits that is as good as this one."""
    highest = 10 ** len(str(value)) - 1
    return 10 ** (len(str(value)) - 1), min(highest, CAP_JPY) if value <= CAP_JPY else highest


def _rewritten(cell: str, drawn: Draws, codec: str, kept: set[int]) -> str:
    made = []
    for at, character in enumerate(cell):
        others = _alike(character, codec) if at not in kept else ()
        made.append(others[next(drawn) % len(others)] if len(others) > 1 else character)
    return "".join(made)


@lru_cache(maxsize=70_000)
def _alike(character: str, codec: str) -> Sequence[str]:
    """Return the letters or digits this one may become, in their order; it alone where it is neither."""
    kind = _class(character, codec)
    return _classes(ord(character) >> 8, codec)[kind] if kind else character


@lru_cache(maxsize=1_000)
def _classes(block: int, codec: str) -> Mapping[tuple[object, ...], str]:
    classes: dict[tuple[object, ...], str] = {}
    for character in map(chr, range(block << 8, (block + 1) << 8)):
        if kind := _class(character, codec):
            classes[kind] = classes.get(kind, "") + character
    return classes


def _class(character: str, codec: str) -> tuple[object, ...]:
    """Return what a letter or digit must share with those it may become, or nothing."""
    category = unicodedata.category(character)
    if category[0] not in "LN" or category == "Lm":
        return ()
    try:
        encoded = character.encode(codec)
    except UnicodeEncodeError:
        return ()
    if encoded.decode(codec) != character:
        return ()
    script = unicodedata.name(character, "").split()[:2] if category[0] == "L" else ()
    stable = (unicodedata.is_normalized("NFC", character), unicodedata.is_normalized("NFKC", character))
    return (category, *script, len(encoded), len(character.encode()), *stable)


def _date_words(cell: str) -> set[int]:
    return {at for found in _DATE_WORDS.finditer(cell) for at in range(*found.span())}


def _check_digit(digits: Sequence[int]) -> int:
    """Return the digit that makes a card number of the digits before it (Luhn)."""
    doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[::-2])
    return -(doubled + sum(digits[-2::-2])) % 10


def _digits(cell: str, start: int, end: int) -> list[int]:
    return [at for at in range(start, end) if cell[at].isdecimal()]


def _point(cell: str) -> int:
    """Return where the decimals begin, or the end."""
    return min((at for at in map(cell.find, ".．") if at >= 0), default=len(cell))


def _digit_like(character: str, digit: int) -> str:
    return chr(ord(character) - unicodedata.decimal(character) + digit)


def _digits_like(written: str, value: int) -> str:
    digits = str(value).zfill(len(written))[-len(written) :]
    return "".join(_digit_like(character, int(digit)) for character, digit in zip(written, digits, strict=True))

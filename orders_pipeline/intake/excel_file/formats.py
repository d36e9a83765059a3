"""How Excel shows a cell's value: number formats, their sections, and the text that comes of them.

Knows values and formats, nothing of workbooks or files. Two things differ from the screen on purpose: dates, whatever
their format, are written like 2026-04-01, because 04/01/26 can be read in two ways; and spaces that a format only aligns
with (`_)`, `* `) are left out.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache
from types import MappingProxyType

from openpyxl.utils.datetime import MAC_EPOCH, WINDOWS_EPOCH, from_excel

from orders_pipeline.records.record_type import Kind

Value = str | int | float | bool | date | datetime | time | timedelta

# the formats a Japanese Excel knows by number alone, which the library's table of an English Excel does not have
JAPANESE_FORMATS: Mapping[int, str] = MappingProxyType(
    dict.fromkeys((27, 36, 50, 57), "[$-411]ge.m.d")
    | dict.fromkeys((28, 29, 51, 54, 58), '[$-411]ggge"年"m"月"d"日"')
    | dict.fromkeys((34, 52, 55), 'yyyy"年"m"月"')
    | dict.fromkeys((35, 53, 56), 'm"月"d"日"')
    | {30: "m/d/yy", 31: 'yyyy"年"m"月"d"日"', 32: 'h"時"mm"分"', 33: 'h"時"mm"分"ss"秒"'}
)

_USUAL = frozenset({"General", "@"})
_NO_DATE = "########"  # what Excel shows where a serial number is no date
_EXACT = Context(prec=1_400, rounding=ROUND_HALF_UP)  # a double has at most 309 digits before the point, 1,074 behind
_AS_STORED = Context(prec=15, rounding=ROUND_HALF_UP)  # Excel shows no more digits of a number
_FULL_DIGITS = 15
_GENERAL_WIDTH = 10  # digits that General shows beside a decimal point
_SMALLEST_EXPONENT = -4
_TOKEN = re.compile(
    r"""
    "(?P<quoted>[^"]*)"? | \\(?P<escaped>.) | [_*](?P<space>.) | \[(?P<bracket>[^\]]*)\] | (?P<section>;)
    | (?P<general>General|G/標準) | (?P<exponent>E[+-]) | (?P<clock>AM/PM|A/P|[hs]+)
    | (?P<day>[ydger]+|a{3,4}) | (?P<month>m+) | (?P<digit>[0\#?]) | (?P<point>\.) | (?P<comma>,) | (?P<percent>%)
    | (?P<text>@) | (?P<slash>/) | (?P<literal>.)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_CONDITION = re.compile(r"(<=|>=|<>|<|>|=)\s*(-?[0-9]+(?:\.[0-9]+)?)")
_ELAPSED = re.compile(r"h+|m+|s+", re.IGNORECASE)
_COMPARISONS: Mapping[str, Callable[[Decimal, Decimal], bool]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "<>": operator.ne}
)

_DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}(?: [0-9:]{8})?")
_SHOWN_NUMBER = re.compile(r"[^0-9.]*(?P<digits>[0-9]*\.?[0-9]+|[0-9]+\.)(?:E(?P<exponent>[+-]?[0-9]{1,3}))?[^0-9]*")
_NEGATIVE = re.compile(r"[^\w]*[-\u2212▲△]|[^\w]*\([^()]*\)[^\w]*$")

_Tokens = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Section:
    """One part of a format: `tokens` are pairs of kind and text, `condition` an operator and a number."""

    tokens: _Tokens
    condition: tuple[str, Decimal] | None

    def has(self, *kinds: str) -> bool:
        return any(kind in kinds for kind, _ in self.tokens)

    @property
    def is_date(self) -> bool:
        return self.has("day", "month", "clock", "elapsed")

    @property
    def shows_time(self) -> bool:
        return self.has("clock", "elapsed")

    @property
    def shows_day(self) -> bool:
        return self.has("day") or (self.has("month") and not self.shows_time)  # beside hours, m is minutes


def show(value: Value, number_format: str, *, is_error: bool = False, epoch: datetime = WINDOWS_EPOCH) -> str:
    """Return the text that a cell with this value and format shows.

    `epoch` is the day 0 of the workbook's dates; `is_error` marks a text that is an error like #REF!. A format that is
    not understood shows the number as General does.
    """
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if number_format in _USUAL:  # most cells, and nothing to work out
        if isinstance(value, str):
            return value
        if isinstance(value, int) and abs(value) < 10**_FULL_DIGITS:
            return str(value)
    if isinstance(value, str):
        return value if is_error else _text(value, _sections(number_format))
    sections = _sections(number_format)
    if isinstance(value, int | float):
        return _show_number(value, sections, epoch)
    return _day_and_time(value, next((section for section in sections if section.is_date), None), epoch)


def shows_what_is_stored(value: Value, number_format: str, shown: str, kind: Kind) -> bool:
    """Tell whether the text `show` returned is the very value that is stored, and not another number or a day.

    Formats round, scale, drop signs and add digits. What is only written otherwise is the same: 1,000円 or 007; in a code or
    a date also digits set apart, like 100-0001, but none longer than Excel keeps. In a text it is the sender's matter.
    """
    if kind == "text" or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return value == shown or _digits(value) == _digits(shown)
    if kind == "date" and (_DAY.fullmatch(shown) or not isinstance(value, int | float)):
        return True
    return isinstance(value, int | float) and _is_number(value, number_format, shown, or_digits=kind != "number")


def _is_number(value: float, number_format: str, shown: str, *, or_digits: bool) -> bool:
    """Tell whether a text is read as this number, or at least has its digits."""
    stored = Decimal(value) if isinstance(value, int) else _AS_STORED.create_decimal(repr(value))
    if not _digits(shown):
        return stored == 0
    if or_digits and abs(stored) >= 10**_FULL_DIGITS:  # Excel has made zeros of the last digits: the code of how many?
        return False
    if bool(_NEGATIVE.match(shown)) != (stored < 0) or _is_fraction(stored, number_format):
        return False
    read = _SHOWN_NUMBER.fullmatch(shown.replace(",", ""))
    if read and _EXACT.scaleb(Decimal(read["digits"]), int(read["exponent"] or 0)) == stored.copy_abs():
        return True
    return or_digits and _digits(shown).lstrip("0") == _digits(f"{stored:f}").lstrip("0")


def _digits(text: str) -> str:
    return "".join(re.findall("[0-9]", text))


def _is_fraction(number: Decimal, number_format: str) -> bool:
    """Tell whether Excel shows a number as a fraction, which `show` does not."""
    chosen = _choose(number, _sections(number_format))
    return number != number.to_integral_value() and chosen is not None and all(map(chosen[0].has, ("slash", "digit")))


@lru_cache(maxsize=4096)
def _sections(number_format: str) -> tuple[_Section, ...]:
    sections: list[_Section] = []
    tokens: list[tuple[str, str]] = []
    condition: tuple[str, Decimal] | None = None
    for found in _TOKEN.finditer((number_format or "General") + ";"):
        kind = found.lastgroup or "literal"
        text = found[kind] if found.lastgroup else ""
        if kind == "section":
            sections.append(_Section(tuple(tokens), condition))
            tokens, condition = [], None
        elif kind == "bracket":
            if limit := _CONDITION.fullmatch(text.strip()):
                condition = limit[1], Decimal(limit[2])
            elif text.startswith("$"):
                tokens.append(("literal", text[1:].partition("-")[0]))
            elif _ELAPSED.fullmatch(text):
                tokens.append(("elapsed", text))
        elif kind != "space" or (found[0][0] == "*" and text.isdecimal()):  # a digit that fills the cell
            tokens.append(("literal" if kind in {"quoted", "escaped", "space"} else kind, text))
    return tuple(sections)


def _text(value: str, sections: Sequence[_Section]) -> str:
    """Return a text with what its section puts around it; the fourth section is for text, or a last one with @."""
    section = sections[min(len(sections), 4) - 1]
    if len(sections) < 4 and not section.has("text"):
        return value
    return "".join(value if kind == "text" else text for kind, text in section.tokens if kind in {"text", "literal"})


def _show_number(value: float, sections: Sequence[_Section], epoch: datetime) -> str:
    number = _AS_STORED.create_decimal(repr(value))
    chosen = _choose(number, sections)
    if chosen is None:
        return _NO_DATE
    section, signed = chosen
    if section.is_date:
        try:
            stored = from_excel(value, epoch, timedelta=section.has("elapsed"))
            return _NO_DATE if value < 0 else _day_and_time(stored, section, epoch)
        except (OverflowError, ValueError):
            return _NO_DATE
    sign = "-" if number < 0 and signed else ""
    if section.has("general", "text"):
        shown = _general(abs(number))
        return sign + "".join(shown if kind in {"general", "text"} else text for kind, text in section.tokens)
    if section.has("slash") and section.has("digit"):
        return sign + _general(abs(number))  # a fraction: its decimal number says the same
    return sign + _Layout(section.tokens).fill(abs(number))


def _choose(number: Decimal, sections: Sequence[_Section]) -> tuple[_Section, bool] | None:
    """Return the section for a number, and whether a minus is put before it: a section for negatives has its own."""
    numeric = sections[:3]
    usual: tuple[tuple[str, Decimal] | None, ...] = ((">=", Decimal(0)), None)
    if len(numeric) == 1 or (len(numeric) == 2 and numeric[0].condition):
        usual = (None, None)
    elif len(numeric) == 3:
        usual = (">", Decimal(0)), ("<", Decimal(0)), None
    for place, section in enumerate(numeric):
        condition = section.condition or usual[place]
        if condition is None or _COMPARISONS[condition[0]](number, condition[1]):
            explicit = section.condition
            own_sign = explicit[0] in {"<", "<="} and explicit[1] <= 0 if explicit else place == 1 and usual[0] is not None
            return section, not own_sign
    return None


def _general(number: Decimal) -> str:
    """Return a number from 0 as General shows it.

    Whole numbers of 12 to 15 digits are written in full, where Excel shows 1.23457E+11: the digits are all there, and a
    code must not lose them. Beyond 15 Excel itself has lost the last digits, and zeros would only look like a code.
    """
    exponent = number.adjusted() if number else 0
    if exponent >= _FULL_DIGITS or exponent < _SMALLEST_EXPONENT:
        shown = _EXACT.quantize(number.scaleb(-exponent), Decimal("0.00001"))
        if shown >= 10:
            shown, exponent = shown / 10, exponent + 1
        return f"{_plain(shown)}E{exponent:+03d}"
    if exponent > _GENERAL_WIDTH:
        return _plain(_AS_STORED.plus(number))
    decimals = _GENERAL_WIDTH - max(exponent + 1, 1)
    return _plain(_EXACT.quantize(number, Decimal(1).scaleb(-max(decimals, 0))))


def _plain(number: Decimal) -> str:
    """Return a number's digits, without zeros at the end of its decimals."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class _Layout:
    """The places for digits of one section, and what stands between them."""

    def __init__(self, tokens: _Tokens) -> None:
        parts: dict[str, list[tuple[str, str]]] = {"whole": [], "point": [], "exponent": []}
        part = "whole"
        for kind, text in tokens:
            if kind in {"point", "exponent"} and not parts[kind]:
                part = kind
            parts[part].append((kind, text))
        whole = parts["whole"]
        self._fraction, self._exponent = parts["point"], parts["exponent"]
        places = [place for place, (kind, _) in enumerate(whole) if kind == "digit"]
        last = places[-1] if places else -1
        commas = [place for place, (kind, _) in enumerate(whole) if kind == "comma"]
        self._grouped = bool(places) and any(places[0] < place < last for place in commas)
        self._scale = 2 * sum(kind == "percent" for kind, _ in tokens)
        if places:
            self._scale -= 3 * sum(place > last for place in commas)
        self._scale -= 3 * sum(kind == "comma" for kind, _ in self._fraction)
        self._whole = [token for token in whole if token[0] != "comma"]
        self._slots = len(places)
        self._decimals = sum(kind == "digit" for kind, _ in self._fraction)

    def fill(self, number: Decimal) -> str:
        """Return the section with a number's digits in its places; the number is not negative."""
        number = number.scaleb(self._scale, _EXACT)
        exponent = 0
        if self._exponent:
            number, exponent = self._normalised(number)
        digits, _, decimals = f"{self._rounded(number):f}".partition(".")
        if not self._slots and not self._decimals:
            return "".join(text for _, text in self._whole)  # a format without places hides the number
        shown = self._fill_whole(digits.lstrip("0")) + self._fill_fraction(decimals)
        return shown + self._fill_exponent(exponent) if self._exponent else shown

    def _rounded(self, number: Decimal) -> Decimal:
        return _EXACT.quantize(number, Decimal(1).scaleb(-self._decimals))

    def _normalised(self, number: Decimal) -> tuple[Decimal, int]:
        """Return mantissa and exponent; with several places before the point the exponent is a multiple of them."""
        step = max(self._slots, 1)
        exponent = number.adjusted() // step * step if number else 0
        if self._rounded(number.scaleb(-exponent)) >= Decimal(10) ** step:
            exponent += step
        return number.scaleb(-exponent), exponent

    def _fill_whole(self, digits: str) -> str:
        filled: list[str] = []  # from right to left
        place = 0
        for kind, text in reversed(self._whole):
            if kind != "digit":
                filled.append(text)
                continue
            place += 1
            until = len(digits) if place == self._slots else place  # the first place takes all digits that are left
            taken = digits[max(len(digits) - until, 0) : len(digits) - place + 1] if place <= len(digits) else ""
            for at, digit in enumerate(reversed(taken or _empty(text)), place - 1):
                if self._grouped and at and at % 3 == 0:
                    filled.append(",")
                filled.append(digit)
        shown = "".join(reversed(filled))
        return shown if self._slots else shown + digits

    def _fill_fraction(self, decimals: str) -> str:
        shown, place, significant = "", 0, len(decimals.rstrip("0"))
        for kind, text in self._fraction:
            if kind == "digit":
                shown += decimals[place] if place < significant else _empty(text)
                place += 1
            elif kind != "comma":
                shown += text
        return shown

    def _fill_exponent(self, exponent: int) -> str:
        (_, mark), *places = self._exponent
        sign = "-" if exponent < 0 else "+" if mark[1] == "+" else ""
        width = sum(kind == "digit" for kind, _ in places)
        return f"E{sign}{abs(exponent):0{width}d}" + "".join(text for kind, text in places if kind != "digit")


def _empty(slot: str) -> str:
    """Return what a place shows that has no digit."""
    return {"0": "0", "?": " "}.get(slot, "")


def _day_and_time(value: date | datetime | time | timedelta, section: _Section | None, epoch: datetime) -> str:
    """Return a date like 2026-04-01, with the time behind it where the format shows one that is not midnight."""
    shows_day = section is None or section.shows_day
    shows_time = section is None or section.shows_time
    if isinstance(value, timedelta):
        return _clock(value)
    if isinstance(value, time):
        clock = timedelta(hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond)
        day = "1904-01-01" if epoch == MAC_EPOCH else "1900-01-00"  # what Excel calls its day 0
        if section is None or not shows_day:
            return _clock(clock)
    else:
        moment = value if isinstance(value, datetime) else datetime.combine(value, time())
        if moment < WINDOWS_EPOCH:
            return _NO_DATE
        moment = (moment + timedelta(milliseconds=500)).replace(microsecond=0) if shows_time else moment
        day = moment.date().isoformat()
        clock = moment - datetime.combine(moment.date(), time())
        if not shows_day:
            return _clock(clock)
    return f"{day} {_clock(clock)}" if shows_time and clock else day


def _clock(elapsed: timedelta) -> str:
    seconds = int(elapsed / timedelta(seconds=1) + 0.5)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

"""Number formats of a workbook, read into sections: which section a value gets, and whether it shows a date.

What a section makes of the value is in `formats` and `digit_places`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from types import MappingProxyType

# the formats a Japanese Excel knows by number alone, which the library's table of an English Excel does not have
JAPANESE_FORMATS: Mapping[int, str] = MappingProxyType(
    dict.fromkeys((27, 36, 50, 57), "[$-411]ge.m.d")
    | dict.fromkeys((28, 29, 51, 54, 58), '[$-411]ggge"年"m"月"d"日"')
    | dict.fromkeys((34, 52, 55), 'yyyy"年"m"月"')
    | dict.fromkeys((35, 53, 56), 'm"月"d"日"')
    | {30: "m/d/yy", 31: 'yyyy"年"m"月"d"日"', 32: 'h"時"mm"分"', 33: 'h"時"mm"分"ss"秒"'}
)
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
Tokens = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """One part of a format: `tokens` are pairs of kind and text, `condition` an operator and a number."""

    tokens: Tokens
    condition: tuple[str, Decimal] | None

    def has(self, *kinds: str) -> bool:
        """Return whether a token is of one of these kinds."""
        return any(kind in kinds for kind, _ in self.tokens)

    @property
    def is_date(self) -> bool:
        """Return whether a number is shown as a date or time."""
        return self.has("day", "month", "clock", "elapsed")

    @property
    def shows_time(self) -> bool:
        """Return whether hours, minutes or seconds are shown."""
        return self.has("clock", "elapsed")

    @property
    def shows_day(self) -> bool:
        """Return whether year, month or day are shown."""
        return self.has("day") or (self.has("month") and not self.shows_time)  # beside hours, m is minutes


@lru_cache(maxsize=4096)
def sections_of(number_format: str) -> tuple[Section, ...]:
    """Return the sections of a number format."""
    sections: list[Section] = []
    tokens: list[tuple[str, str]] = []
    condition: tuple[str, Decimal] | None = None
    for found in _TOKEN.finditer((number_format or "General") + ";"):
        kind = found.lastgroup or "literal"
        text = found[kind] if found.lastgroup else ""
        if kind == "section":
            sections.append(Section(tuple(tokens), condition))
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


def choose_section(number: Decimal, sections: Sequence[Section]) -> tuple[Section, bool] | None:
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

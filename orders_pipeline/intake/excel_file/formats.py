"""How Excel shows a cell's value: the text that a number format makes of it, and whether that is still the value.

How a format is read is in `format_sections`; workbooks are not known here. Two things differ from the screen on purpose.
Dates, whatever their format, are written like 2026-04-01, because 04/01/26 can be read in two ways. Spaces that a format
only aligns with (`_)`, `* `) are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Literal, TypeAlias

from openpyxl.utils.datetime import MAC_EPOCH, WINDOWS_EPOCH, from_excel

from orders_pipeline.intake.excel_file.digit_places import AS_STORED, EXACT, FULL_DIGITS, DigitPlaces, general
from orders_pipeline.intake.excel_file.format_sections import Section, choose_section, sections_of
from orders_pipeline.records.record_type import Kind

CellKind: TypeAlias = Kind | Literal["choice"]  # the latter of cells that say which rows a profile chooses
Value = str | int | float | bool | date | datetime | time | timedelta
_USUAL = frozenset({"General", "@"})
_NO_DATE = "########"  # what Excel shows where a serial number is no date
_DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}(?: [0-9:]{8})?")
_SHOWN_NUMBER = re.compile(r"[^0-9.]*(?P<digits>[0-9]*\.?[0-9]+|[0-9]+\.)(?:E(?P<exponent>[+-]?[0-9]{1,3}))?[^0-9]*")
_NEGATIVE = re.compile(r"[^\w]*[-\u2212▲△]|[^\w]*\([^()]*\)[^\w]*$")


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
        if isinstance(value, int) and abs(value) < 10**FULL_DIGITS:
            return str(value)
    if isinstance(value, str):
        return value if is_error else _text(value, sections_of(number_format))
    sections = sections_of(number_format)
    if isinstance(value, int | float):
        return _show_number(value, sections, epoch)
    return _day_and_time(value, next((section for section in sections if section.is_date), None), epoch)


def shows_what_is_stored(value: Value, number_format: str, shown: str, kind: CellKind) -> bool:
    """Return whether the text `show` returned is the very value that is stored, and not another number or a day.

    Formats round, scale, drop signs and add digits. What is only written otherwise is the same: 1,000円 or 007; in a code or
    a date also digits set apart, like 100-0001, but none longer than Excel keeps. In a text it is the sender's matter. Words
    of a choice are shown as they are stored.
    """
    if kind == "text" or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return value == shown or (kind != "choice" and _digits(value) == _digits(shown))
    if kind in {"date", "choice"} and (_DAY.fullmatch(shown) or not isinstance(value, int | float)):
        return True
    return isinstance(value, int | float) and _is_number(value, number_format, shown, or_digits=kind != "number")


def _is_number(value: float, number_format: str, shown: str, *, or_digits: bool) -> bool:
    """Return whether a text is read as this number, or at least has its digits."""
    stored = Decimal(value) if isinstance(value, int) else AS_STORED.create_decimal(repr(value))
    if not _digits(shown):
        return stored == 0
    if or_digits and abs(stored) >= 10**FULL_DIGITS:  # Excel has made zeros of the last digits: the code of how many?
        return False
    if bool(_NEGATIVE.match(shown)) != (stored < 0) or _is_fraction(stored, number_format):
        return False
    read = _SHOWN_NUMBER.fullmatch(shown.replace(",", ""))
    if read and EXACT.scaleb(Decimal(read["digits"]), int(read["exponent"] or 0)) == stored.copy_abs():
        return True
    return or_digits and _digits(shown).lstrip("0") == _digits(f"{stored:f}").lstrip("0")


def _digits(text: str) -> str:
    return "".join(re.findall("[0-9]", text))


def _is_fraction(number: Decimal, number_format: str) -> bool:
    """Return whether Excel shows a number as a fraction, which `show` does not."""
    chosen = choose_section(number, sections_of(number_format))
    return number != number.to_integral_value() and chosen is not None and all(map(chosen[0].has, ("slash", "digit")))


def _text(value: str, sections: Sequence[Section]) -> str:
    """Return a text with what its section puts around it; the fourth section is for text, or a last one with @."""
    section = sections[min(len(sections), 4) - 1]
    if len(sections) < 4 and not section.has("text"):
        return value
    return "".join(value if kind == "text" else text for kind, text in section.tokens if kind in {"text", "literal"})


def _show_number(value: float, sections: Sequence[Section], epoch: datetime) -> str:
    number = AS_STORED.create_decimal(repr(value))
    chosen = choose_section(number, sections)
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
        shown = general(abs(number))
        return sign + "".join(shown if kind in {"general", "text"} else text for kind, text in section.tokens)
    if section.has("slash") and section.has("digit"):
        return sign + general(abs(number))  # a fraction: its decimal number says the same
    return sign + DigitPlaces(section.tokens).fill(abs(number))


def _day_and_time(value: date | datetime | time | timedelta, section: Section | None, epoch: datetime) -> str:
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

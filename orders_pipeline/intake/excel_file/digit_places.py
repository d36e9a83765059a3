"""Digits of numbers: put into the places of a number format's section, or written as the format General does."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal

from orders_pipeline.intake.excel_file.format_sections import Tokens

EXACT = Context(prec=1_400, rounding=ROUND_HALF_UP)  # a double has at most 309 digits before the point, 1,074 behind
AS_STORED = Context(prec=15, rounding=ROUND_HALF_UP)  # Excel shows no more digits of a number
FULL_DIGITS = 15
_GENERAL_WIDTH = 10  # digits that General shows beside a decimal point
_SMALLEST_EXPONENT = -4


def general(number: Decimal) -> str:
    """Return a number from 0 as General shows it.

    Whole numbers of 12 to 15 digits are written in full, where Excel shows 1.23457E+11: the digits are all there, and a
    code must not lose them. Beyond 15 Excel itself has lost the last digits, and zeros would only look like a code.
    """
    exponent = number.adjusted() if number else 0
    if exponent >= FULL_DIGITS or exponent < _SMALLEST_EXPONENT:
        shown = EXACT.quantize(number.scaleb(-exponent), Decimal("0.00001"))
        if shown >= 10:
            shown, exponent = shown / 10, exponent + 1
        return f"{_plain(shown)}E{exponent:+03d}"
    if exponent > _GENERAL_WIDTH:
        return _plain(AS_STORED.plus(number))
    decimals = _GENERAL_WIDTH - max(exponent + 1, 1)
    return _plain(EXACT.quantize(number, Decimal(1).scaleb(-max(decimals, 0))))


def _plain(number: Decimal) -> str:
    """Return a number's digits, without zeros at the end of its decimals."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class DigitPlaces:
    """The places for digits of one section, and what stands between them."""

    def __init__(self, tokens: Tokens) -> None:
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
        number = number.scaleb(self._scale, EXACT)
        exponent = 0
        if self._exponent:
            number, exponent = self._normalised(number)
        digits, _, decimals = f"{self._rounded(number):f}".partition(".")
        if not self._slots and not self._decimals:
            return "".join(text for _, text in self._whole)  # a format without places hides the number
        shown = self._fill_whole(digits.lstrip("0")) + self._fill_fraction(decimals)
        return shown + self._fill_exponent(exponent) if self._exponent else shown

    def _rounded(self, number: Decimal) -> Decimal:
        return EXACT.quantize(number, Decimal(1).scaleb(-self._decimals))

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

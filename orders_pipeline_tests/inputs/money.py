"""Inputs 63 to 80: amounts, items and the currency."""

from __future__ import annotations

from orders_pipeline_tests.inputs.case import Case
from orders_pipeline_tests.inputs.sheet import accepts, gives_back

ITEM = {"item_code": "ITEM-1", "quantity": "2", "unit_price": "500"}


def amount(number: int, name: str, written: str, becomes: int, codec: str = "utf-8") -> Case:
    return accepts(number, name, {"amount": written}, {"amount": becomes}, codec=codec)


def no_amount(number: int, name: str, written: str, code: str, shown: str | None = None) -> Case:
    return gives_back(number, name, {"amount": written}, code, shown=shown)


def quantity(name: str, written: str) -> Case:
    return gives_back(79, name, {"quantity": written, "item_code": "ITEM-1", "unit_price": "500"}, "R_QUANTITY")


WRITTEN_OTHERWISE = [
    amount(63, "full-width digits", "１０００", 1000),
    amount(64, "good grouping", "1,000", 1000),
    amount(64, "good grouping with a full-width comma", "1，000", 1000),
    amount(66, "a half-width yen sign", "¥1000", 1000),
    amount(66, "a full-width yen sign", "￥1000", 1000),
    amount(66, "yen as a kanji", "1000円", 1000),
    amount(66, "JPY in front", "JPY 1000", 1000),
    amount(67, "a backslash in CP932", "\\1000", 1000, "cp932"),
    amount(68, "outer spaces", " 1000 ", 1000),
    amount(69, "one decimal that is zero", "1000.0", 1000),
    amount(69, "two decimals that are zero", "1000.00", 1000),
    amount(75, "the smallest", "1", 1),
    amount(75, "the largest", "1000000", 1_000_000),
    amount(75, "the largest, grouped", "1,000,000", 1_000_000),
]

NO_NUMBERS = [
    no_amount(number, f"amount {written[:20]}", written, "R_AMOUNT_FORMAT", shown)
    for number, written, shown in [
        (65, "10,00", None),
        (65, "1,0000", None),
        (67, "\\1000", None),
        (68, "+1000", "'+1000"),
        (70, "1000.5", None),
        (71, "1e3", None),
        (71, "1E+05", None),
        (72, "0x10", None),
        (72, "1_000", None),
        (72, "١٠٠٠", None),
        (72, "①", None),
        (72, "千", None),
        (72, "TRUE", None),
        (72, "inf", None),
        (72, "nan", None),
    ]
]

DOTS = [
    gives_back(
        70,
        f"amount {written.replace('.', ' dot ')}",
        {"amount": written},
        "R_AMOUNT_FORMAT",
        detail={"hint": "dot_thousands"},
    )
    for written in ("1.000", "25.000", "１．０００", "1.000.000", "1,000.000")
]

ERRORS = [no_amount(72, f"amount {written}", written, "R_CELL_ERROR") for written in ("#REF!", "#VALUE!", "#N/A")]

OUT_OF_RANGE = [
    no_amount(73, "minus 1", "-1", "R_AMOUNT_RANGE", "'-1"),
    no_amount(73, "a black triangle", "▲1000", "R_AMOUNT_RANGE"),
    no_amount(73, "a white triangle", "△1000", "R_AMOUNT_RANGE"),
    no_amount(73, "parentheses", "(1000)", "R_AMOUNT_RANGE"),
    no_amount(73, "minus 0", "-0", "R_AMOUNT_RANGE", "'-0"),
    no_amount(74, "zero", "0", "R_AMOUNT_RANGE"),
    no_amount(76, "one yen over the limit", "1000001", "R_AMOUNT_OVER_LIMIT"),
    no_amount(77, "2 to the 31st", str(2**31), "R_AMOUNT_OVER_LIMIT"),
    no_amount(77, "2 to the 63rd", str(2**63), "R_AMOUNT_OVER_LIMIT"),
    no_amount(77, "30 digits", "9" * 30, "R_AMOUNT_OVER_LIMIT"),
    no_amount(77, "10000 digits", "9" * 10_000, "R_AMOUNT_OVER_LIMIT"),
]

ITEMS_AND_CURRENCY = [
    accepts(78, "quantity times price is the amount", ITEM),
    gives_back(78, "quantity times price is not the amount", {"amount": "1001"} | ITEM, "R_AMOUNT_MISMATCH"),
    quantity("quantity 0", "0"),
    quantity("quantity with a decimal", "1.5"),
    quantity("no quantity", ""),
    gives_back(80, "dollars", {"currency": "USD"}, "R_CURRENCY"),
    accepts(80, "yen", {"currency": "JPY"}),
    accepts(80, "an empty currency", {"currency": ""}),
    accepts(80, "no column of currency", {}),
]

CASES = (*WRITTEN_OTHERWISE, *NO_NUMBERS, *DOTS, *ERRORS, *OUT_OF_RANGE, *ITEMS_AND_CURRENCY)

"""Inputs 81 to 88: dates."""

from __future__ import annotations

from datetime import date, timedelta

from orders_pipeline_tests.inputs.case import Case
from orders_pipeline_tests.inputs.sheet import accepts, gives_back
from orders_pipeline_tests.support.factories import TODAY

FIRST_OF_APRIL = date(2026, 4, 1)


def day(number: int, name: str, written: str, becomes: date = FIRST_OF_APRIL) -> Case:
    return accepts(number, name, {"order_date": written}, {"order_date": becomes})


def no_day(number: int, written: str, code: str, **detail: str) -> Case:
    return gives_back(number, f"date {written}", {"order_date": written}, code, detail=detail)


DAYS = [
    day(81, "ISO", "2026-04-01"),
    day(81, "slashes without zeros", "2026/4/1"),
    day(81, "eight digits", "20260401"),
    day(81, "year and month and day in kanji", "2026年4月1日"),
    day(82, "an era in kanji", "令和8年4月1日"),
    day(82, "an era as a letter", "R8.4.1"),
    accepts(
        82,
        "the first year of an era",
        {"order_date": "令和元年5月1日"},
        {"order_date": date(2019, 5, 1)},
        around={"order_date": "2019-04-30"},
        today=date(2019, 5, 2),
    ),
]

NO_DAYS = [
    *(no_day(83, written, "R_DATE_FORMAT") for written in ("平成31年5月1日", "H40.1.1", "令和0年", "令和0年4月1日")),
    *(no_day(84, written, "R_DATE_AMBIGUOUS") for written in ("04/01/2026", "01-04-26", "4月1日")),
    no_day(85, "46113", "R_DATE_FORMAT", hint="excel_serial"),
    *(no_day(86, written, "R_DATE_FORMAT") for written in ("2026-02-30", "2025-02-29")),
    *(no_day(87, written, "R_DATE_RANGE") for written in ("0001-01-01", "1899-12-31", "9999-12-31")),
    no_day(87, (TODAY + timedelta(days=1)).isoformat(), "R_DATE_RANGE"),
    no_day(87, (TODAY - timedelta(days=367)).isoformat(), "R_DATE_RANGE"),
    *(no_day(88, written, "R_DATE_FORMAT") for written in ("2026-04-01T23:30Z", "2026-04-01 23:30")),
]

BORDERS = [
    day(87, "today", TODAY.isoformat(), TODAY),
    day(87, "366 days ago", (TODAY - timedelta(days=366)).isoformat(), TODAY - timedelta(days=366)),
    accepts(87, "no date", {"order_date": ""}),
]

CASES = (*DAYS, *NO_DAYS, *BORDERS)

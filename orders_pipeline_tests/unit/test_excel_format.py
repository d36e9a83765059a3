"""What a cell shows, by its value and its number format."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl.utils.datetime import MAC_EPOCH

from orders_pipeline.intake.excel_file.format_sections import JAPANESE_FORMATS
from orders_pipeline.intake.excel_file.formats import show, shows_what_is_stored
from orders_pipeline.records import normalise

ACCOUNTING = r'_ * #,##0_ ;_ * \-#,##0_ ;_ * "-"_ ;_ @_ '
POSTAL = r"[<=999]000;[<=9999]000\-00;000\-0000"
PHONE = r"[<=99999999]####-####;\(00\)\ ####-####"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1000, "1000"),
        (1000.0, "1000"),
        (0.1, "0.1"),
        (0.1 + 0.2, "0.3"),
        (-5, "-5"),
        (0, "0"),
        (1 / 3, "0.333333333"),
        (12345.678901, "12345.6789"),
        (12345678901, "12345678901"),
        (0.0001, "0.0001"),
        (0.00001, "1E-05"),
        (312345678, "312345678"),
    ],
)
def test_general_shows_a_number_as_excel_does(value, shown):
    assert show(value, "General") == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(123456789012345, "123456789012345"), (4901234567894.0, "4901234567894"), (10**15 + 5, "1E+15")]
)
def test_general_keeps_the_digits_of_a_code_as_far_as_excel_has_them(value, shown):
    assert show(value, "General") == shown


@pytest.mark.parametrize(
    ("value", "number_format", "shown"),
    [
        (7, "0", "7"),
        (7, "00000", "00007"),
        (2.5, "0", "3"),
        (1.005, "0.00", "1.01"),
        (1234.5, "0.00", "1234.50"),
        (1234567, "#,##0", "1,234,567"),
        (999, "#,##0", "999"),
        (0, "#,##0", "0"),
        (0, "#", ""),
        (1.5, "#.##", "1.5"),
        (0.5, ".00", ".50"),
        (1234567, "#,##0,", "1,235"),
        (1234567, "#,##0.0,", "1,234.6"),
        (1234567, '0.00,,"M"', "1.23M"),
        (7, "*90", "97"),
        (-1234, "#,##0", "-1,234"),
        (-1234, "#,##0_);(#,##0)", "(1,234)"),
        (1234, "#,##0_);[Red](#,##0)", "1,234"),
        (1000, "¥#,##0", "¥1,000"),
        (1000, '"¥"#,##0', "¥1,000"),
        (1000, "[$¥-411]#,##0", "¥1,000"),
        (1000, "[$￥-411]#,##0.00", "￥1,000.00"),
        (-1000, r'"¥"#,##0;[赤]"¥"\-#,##0', "¥-1,000"),
        (1000, '0"円"', "1000円"),
        (1000, "#,##0円", "1,000円"),
        (1000, 'General"円"', "1000円"),
        (1000, "G/標準", "1000"),
        (312345678, "@", "312345678"),
        (0.105, "0%", "11%"),
        (0.105, "0.0%", "10.5%"),
        (1000, ACCOUNTING, "1,000"),
        (-1000, ACCOUNTING, "-1,000"),
        (0, ACCOUNTING, "-"),
        (5, "0;0;zero;@", "5"),
        (0, '0;0;"なし"', "なし"),
        (5, ";;;", ""),
        (1234567, r"000\-0000", "123-4567"),
        (1234567, POSTAL, "123-4567"),
        (100, POSTAL, "100"),
        (9999999, PHONE, "999-9999"),
        (312345678, PHONE, "(03) 1234-5678"),
        (12345, "0.00E+00", "1.23E+04"),
        (12345, "##0.0E+0", "12.3E+3"),
        (0.00012, "0.0E-0", "1.2E-4"),
        (1.5, "# ?/?", "1.5"),
        (5, "", "5"),
    ],
)
def test_a_number_is_shown_by_its_format(value, number_format, shown):
    assert show(value, number_format) == shown


@pytest.mark.parametrize("value", [-1, 5_000_000_000, float("1e300")])
def test_a_number_that_is_no_day_shows_as_excel_shows_it(value):
    assert show(value, "yyyy/m/d") == "########"


def test_a_condition_that_no_section_meets_shows_as_excel_shows_it():
    assert show(5, "[>10]0;[>20]0") == "########"


@pytest.mark.parametrize(
    "number_format",
    [
        "yyyy/m/d",
        "yyyy-mm-dd",
        "m/d/yy",
        "mm-dd-yy",
        "d-mmm-yy",
        "mmm-yy",
        'yyyy"年"m"月"d"日"',
        '[$-411]ggge"年"m"月"d"日"',
        "[$-411]ge.m.d;@",
        "[$-F800]dddd, mmmm dd, yyyy",
        "m/d(aaa)",
        *sorted(set(JAPANESE_FORMATS.values()) - {JAPANESE_FORMATS[32], JAPANESE_FORMATS[33]}),
    ],
)
def test_a_date_in_any_format_is_written_in_the_one_way_that_cannot_be_misread(number_format):
    assert show(46113, number_format) == "2026-04-01"


def test_the_time_of_a_date_is_written_only_where_it_is_shown_and_not_midnight():
    assert show(46113.5, "yyyy/m/d h:mm") == "2026-04-01 12:00:00"
    assert show(46113, "yyyy/m/d h:mm") == "2026-04-01"
    assert show(46113.5, "yyyy/m/d") == "2026-04-01"
    assert show(46113 + 86399.7 / 86400, "yyyy/m/d h:mm") == "2026-04-02"


def test_times_and_durations_are_written_with_seconds():
    assert show(0.5, "h:mm AM/PM") == "12:00:00"
    assert show(46113.25, 'h"時"mm"分"') == "06:00:00"
    assert show(1.25, "[h]:mm") == "30:00:00"
    assert show(0, "mm:ss") == "00:00:00"


def test_dates_count_from_the_day_the_workbook_says():
    assert show(44651, "yyyy/m/d", epoch=MAC_EPOCH) == "2026-04-01"
    assert show(1, "yyyy/m/d") == "1900-01-01"


def test_a_reference_to_an_empty_cell_shown_as_a_date_stays_no_date():
    assert show(0, "yyyy/m/d") == "1900-01-00"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (date(2026, 4, 1), "2026-04-01"),
        (datetime(2026, 4, 1, 9, 30), "2026-04-01 09:30:00"),  # noqa: DTZ001 - Excel knows no time zones
        (time(9, 30), "09:30:00"),
        (timedelta(hours=30), "30:00:00"),
    ],
)
def test_a_value_that_is_stored_as_a_date_needs_no_format(value, shown):
    assert show(value, "General") == shown


@pytest.mark.parametrize(
    ("value", "number_format", "shown"),
    [
        ("00123", "General", "00123"),
        ("00123", "0", "00123"),
        ("00123", "@", "00123"),
        (" 山田 ", ACCOUNTING, " 山田 "),
        ("山田", '@"様"', "山田様"),
        ("山田", ";;;", ""),
        ("2026/4/1", "yyyy/m/d", "2026/4/1"),
        ("2026/4/1", "yyyy/m/d;@", "2026/4/1"),
    ],
)
def test_text_stays_as_it_is_but_for_what_its_format_puts_around_it(value, number_format, shown):
    assert show(value, number_format) == shown


def test_truth_values_and_errors_are_shown_in_any_format():
    assert [show(value, "0.00") for value in (True, False)] == ["TRUE", "FALSE"]
    assert show("#REF!", '@"様"', is_error=True) == "#REF!"


@given(
    st.integers(-(10**15) + 1, 10**15 - 1), st.sampled_from(["General", "0", "#,##0", '"¥"#,##0', "00000", '0"円"', "0.00"])
)
def test_a_whole_number_comes_back_from_any_format(value, number_format):
    shown = show(value, number_format)
    assert float(shown.replace(",", "").replace("¥", "").replace("円", "")) == value


@given(st.floats(0, 1e9), st.integers(0, 6))
def test_decimals_are_those_of_the_number_rounded(value, decimals):
    shown = show(value, "0." + "0" * decimals)
    assert len(shown.partition(".")[2]) == decimals
    assert abs(float(shown) - value) <= 0.5000001 * 10**-decimals + 1e-6


@given(
    st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    st.text('0#?.,;%@E+-eymdhs[]<>=9"\\_*/年 ', max_size=12),
)
def test_no_format_is_too_odd_to_show_something(value, number_format):
    assert isinstance(show(value, number_format), str)


# Whether what is shown is what is stored


@pytest.mark.parametrize(
    ("value", "number_format"),
    [
        (-1000, "#,##0;[Red]#,##0"),
        (-1000, "0;0"),
        (-1000, '0;"負"0'),
        (1_234_000, "#,##0,"),
        (1_234_000, '#,##0.0,"千"'),
        (1500, '#,##0,"000"'),
        (1000.4, "#,##0"),
        (1000.04, "0.0"),
        (1000, '"9"0'),
        (1000, '0"00"'),
        (1000, r"0\0"),
        (1000, "*90"),
        (12345, '0"."00'),
        (0.5, "0%"),
        (10, "0%"),
        (1000.5, "# ?/?"),
        (123456, "0.0E+0"),
        (5, ";;;"),
        (5, '"-"0'),
        (5, "(0)"),
        (46113, "yyyy/m/d"),
        (46113, "h:mm"),
        (1e15 + 5, "General"),
        (1000.00000000012, "General"),
        ("1000", '@"0"'),
        ("1000", ";;;"),
    ],
)
def test_a_number_that_shows_as_another_is_noticed(value, number_format):
    assert not shows_what_is_stored(value, number_format, show(value, number_format), "number")


@pytest.mark.parametrize(
    ("value", "number_format"),
    [
        (1000, "General"),
        (1000, "#,##0"),
        (1000, '"¥"#,##0'),
        (1000, "[$￥-411]#,##0.00"),
        (1000, "#,##0円"),
        (1000, ACCOUNTING),
        (-1000, ACCOUNTING),
        (0, ACCOUNTING),
        (-1000, "#,##0_);(#,##0)"),
        (-1000, '#,##0;"▲ "#,##0'),
        (1000.5, "0.00"),
        (1210.0000000000002, "#,##0"),
        (150_000, "0.00E+00"),
        ("1000", "#,##0"),
        ("１０００", "@"),
        (True, "0"),
        (0, "#,##0;-#,##0;"),
    ],
)
def test_a_number_that_is_only_written_otherwise_is_the_same(value, number_format):
    assert shows_what_is_stored(value, number_format, show(value, number_format), "number")


@pytest.mark.parametrize(
    ("value", "number_format", "same"),
    [
        (12, "0000", True),
        (123_456_789_012_345, "0", True),
        (1_234_567_890_123_450, "0", False),  # of ten codes of 16 digits, all of which a spreadsheet keeps as this one
        (1_234_567_890_123_450, "0000-0000-0000-0000", False),
        (12, '"A-"0000', True),
        (1_234_567, POSTAL, True),
        (312_345_678, PHONE, True),
        (12.5, "0.00", True),
        (12, '"2026-"0000', False),
        (12.4, "0", False),
        (-12, "0;0", False),
        (1_234_567_890_123_456, "0", False),
        (46113, "m-d", False),
        (0.5, "# ?/?", False),
        (date(2026, 4, 1), "General", False),
    ],
)
def test_a_code_keeps_its_zeros_and_what_stands_between_its_digits(value, number_format, same):
    assert shows_what_is_stored(value, number_format, show(value, number_format), "code") is same


@pytest.mark.parametrize(
    ("value", "number_format"),
    [(46113, "m/d"), (46113, '[$-411]ggge"年"m"月"d"日"'), (20260401, "0000/00/00"), (date(2026, 4, 1), "General")],
)
def test_a_date_may_be_shown_as_a_date(value, number_format):
    assert shows_what_is_stored(value, number_format, show(value, number_format), "date")


@pytest.mark.parametrize(("value", "number_format"), [(-1000, "0;0"), (46113, "m-d"), (1234, "0,")])
def test_in_a_text_what_is_shown_is_the_senders_matter(value, number_format):
    assert shows_what_is_stored(value, number_format, show(value, number_format), "text")


# what Excel's own dialog offers, and what people write there
FORMATS = ["General", "0", "0.00", "#,##0", "#,##0.00", "#,##0_);(#,##0)", "#,##0_);[Red](#,##0)", "#,##0;[Red]#,##0"]
FORMATS += ["#,##0;[Red]-#,##0", "$#,##0.00_);($#,##0.00)", "0%", "0.00%", "0.00E+00", "##0.0E+0", "# ?/?", "# ??/??"]
FORMATS += ["mm-dd-yy", "d-mmm", "h:mm:ss", "[h]:mm:ss", "@", ACCOUNTING, POSTAL, PHONE, "#,##0,", "#,##0,,", "0.0,", "0;0"]
FORMATS += [
    '"¥"#,##0',
    "#,##0円",
    '0"00"',
    '"9"0',
    ";;;",
    "#",
    "0000",
    '[<1000]0;#,##0,"K"',
    "0;;",
    '#,##0;"△ "#,##0',
    "(0)",
]


@given(st.one_of(st.integers(-(10**9), 10**9), st.decimals(-(10**7), 10**7, places=3).map(float)), st.sampled_from(FORMATS))
def test_an_amount_is_read_as_the_number_stored_or_refused(value, number_format):
    """What the rules make of the text, read as a CSV file's amount, is the stored number wherever it is not marked."""
    shown = show(value, number_format)
    if shows_what_is_stored(value, number_format, shown, "number"):
        read = normalise.number(pa.array([shown]), encoding="utf-8")[0].as_py()
        if re.fullmatch("-?[0-9]+", read):
            assert int(read) == value

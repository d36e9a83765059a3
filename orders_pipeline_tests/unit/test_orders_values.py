"""Amounts, items and dates of orders: how they may be written and what they may be; numbers are those of the inputs."""

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders_pipeline.records import normalise
from orders_pipeline.records.normalise import parse_date
from orders_pipeline.records.orders import ORDERS
from orders_pipeline_tests.support.factories import TODAY, accepted, judge_cells, judge_rows, refused, row_context

# Amounts


def test_input_063_full_width_digits_are_accepted_as_1000():
    assert accepted("amount", ["１０００"]) == ["1000"]


def test_input_064_good_grouping_is_accepted_as_1000():
    assert accepted("amount", ["1,000", "1，000", "１，０００"]) == ["1000"] * 3


def test_input_065_bad_grouping_is_refused():
    refused("amount", ["10,00", "1,0000", "1,00,000", ",100", "1000,"], "R_AMOUNT_FORMAT")


def test_input_066_yen_signs_are_accepted_as_1000():
    cells = ["¥1000", "￥1000", "1000円", "JPY 1000", "¥1,000", "¥ 1,000", "jpy1000", "1000 円"]
    assert accepted("amount", cells) == ["1000"] * len(cells)


def test_input_067_a_backslash_is_a_yen_sign_only_in_cp932():
    judged = judge_cells("amount", ["\\1000"], row_context(encoding="cp932"))
    assert judged.codes == [[]]
    assert judged.values[0]["amount"] == 1000
    refused("amount", ["\\1000"], "R_AMOUNT_FORMAT")


def test_input_068_outer_spaces_are_accepted_and_a_plus_is_not():
    assert accepted("amount", [" 1000 ", "\u30001000"]) == ["1000"] * 2
    refused("amount", ["+1000", "＋1000"], "R_AMOUNT_FORMAT")


def test_input_069_zero_decimals_are_accepted():
    assert accepted("amount", ["1000.0", "1000.00", "1,000.00"]) == ["1000"] * 3


def test_more_decimals_are_refused_for_the_dot_may_stand_between_thousands():
    refused(
        "amount", ["1000.000", "1.000", "25.000", "¥1.000", "1.000円", "-1.000", "1.000.000", "0.000"], "R_AMOUNT_FORMAT"
    )
    refused("quantity", ["1.000"], "R_QUANTITY", item_code="A", unit_price="1000")
    refused("unit_price", ["1.000"], "R_UNIT_PRICE", item_code="A", quantity="1000")


def test_a_group_that_begins_with_zero_may_be_decimals_and_is_refused():
    refused("amount", ["0,100", "001,000", "00,100"], "R_AMOUNT_FORMAT")


def test_input_070_fractions_of_a_yen_are_refused():
    refused("amount", ["1000.5", "0.99", "1000."], "R_AMOUNT_FORMAT")


def test_input_071_scientific_notation_is_refused():
    refused("amount", ["1e3", "1E+05", "1.00E+05"], "R_AMOUNT_FORMAT")


def test_input_072_what_only_a_program_takes_for_a_number_is_refused():
    cells = ["0x10", "1_000", "١٠٠", "①", "千", "TRUE", "inf", "nan", "1²", "Ⅷ", "१"]
    refused("amount", cells, "R_AMOUNT_FORMAT")


def test_input_073_amounts_below_zero_are_out_of_range():
    cells = ["-1", "▲1000", "△1000", "(1000)", "-0", "−1,000", "（１，０００）", "-¥1000", "¥-1000", "-" + "9" * 30]
    refused("amount", cells, "R_AMOUNT_RANGE")


def test_input_074_an_amount_of_zero_is_out_of_range():
    refused("amount", ["0", "000", "0.00", "¥0"], "R_AMOUNT_RANGE")


def test_input_075_the_smallest_and_the_largest_amount_are_accepted():
    assert [row["amount"] for row in judge_cells("amount", ["1", "1000000", "1,000,000"]).values] == [1, 10**6, 10**6]


def test_input_076_one_yen_more_than_the_limit_is_refused():
    refused("amount", ["1000001"], "R_AMOUNT_OVER_LIMIT")


def test_input_077_huge_amounts_are_over_the_limit_however_long():
    cells = [str(2**31), str(2**63), "9" * 30, "9" * 10_000, "１" * 20, "999,999,999,999,999,999"]
    refused("amount", cells, "R_AMOUNT_OVER_LIMIT")


def test_spaces_inside_an_overlong_amount_do_not_make_it_short():
    refused("amount", ["1" + " " * 70_000 + "5"], "R_TOO_LONG")


@given(st.integers(min_value=1, max_value=1_000_000), st.sampled_from(["{}", "{:,}", "¥{:,}", "{}円", "{}.00", " {} "]))
@settings(max_examples=10, deadline=None)
def test_an_amount_means_the_same_however_it_is_written(amount, notation):
    judged = judge_cells("amount", [notation.format(amount)])
    assert judged.codes == [[]]
    assert judged.values[0]["amount"] == amount


# Items


def test_input_078_quantity_times_price_must_be_the_amount():
    refused("amount", ["2999", "3001"], "R_AMOUNT_MISMATCH", item_code="A", quantity="3", unit_price="1000")
    assert accepted("amount", ["3000"], item_code="A", quantity="3", unit_price="1,000") == ["3000"]


def test_input_079_a_quantity_that_is_no_whole_number_from_one_is_refused():
    cells = ["0", "1.5", "-1", "", "三", "9" * 10]
    refused("quantity", cells, "R_QUANTITY", item_code="A", unit_price="1000")


def test_a_unit_price_that_is_no_whole_number_from_one_is_refused():
    refused("unit_price", ["0", "10.5", "-1", "", "時価"], "R_UNIT_PRICE", item_code="A", quantity="1")


def test_an_item_code_is_needed_with_quantity_and_price():
    refused("item_code", [""], "R_ITEM_CODE", quantity="1", unit_price="1000")


def test_each_part_of_an_item_that_is_missing_is_named():
    judged = judge_cells("quantity", ["1"])
    assert judged.found == [[("item_code", "R_ITEM_CODE"), ("unit_price", "R_UNIT_PRICE")]]


def test_the_largest_quantity_and_price_do_not_overflow():
    most = "9" * 9
    refused("amount", ["1000000"], "R_AMOUNT_MISMATCH", item_code="A", quantity=most, unit_price=most)


def test_input_080_only_yen_are_accepted_and_are_the_default():
    refused("currency", ["USD", "円"], "R_CURRENCY")
    assert accepted("currency", ["", "JPY", "jpy", "ＪＰＹ"]) == ["", "JPY", "JPY", "JPY"]


# Dates


def test_input_081_dates_in_western_notation_are_accepted():
    cells = ["2026-04-01", "2026/4/1", "20260401", "2026年4月1日", "２０２６／０４／０１", "2026.4.1", " 2026-4-1 "]
    assert accepted("order_date", cells) == ["2026-04-01"] * len(cells)
    assert judge_cells("order_date", cells[:1]).values[0]["order_date"] == date(2026, 4, 1)


def test_input_082_dates_in_japanese_notation_are_accepted():
    cells = ["令和8年4月1日", "R8.4.1", "r08/04/01", "令和８年４月１日", "㋿8年4月1日"]
    assert accepted("order_date", cells) == ["2026-04-01"] * len(cells)
    assert parse_date("令和元年5月1日") == date(2019, 5, 1)
    assert parse_date("平成31年4月30日") == date(2019, 4, 30)
    assert parse_date("昭和64年1月7日") == date(1989, 1, 7)


def test_input_083_dates_beyond_their_era_are_refused():
    cells = ["平成31年5月1日", "H40.1.1", "令和0年1月1日", "令和元年4月30日", "昭和64年1月8日", "X8.4.1"]
    refused("order_date", cells, "R_DATE_FORMAT")


def test_input_084_dates_with_two_readings_are_ambiguous():
    cells = ["04/01/2026", "01-04-26", "4月1日", "4/1", "26.4.1", "260401"]
    refused("order_date", cells, "R_DATE_AMBIGUOUS")


def test_input_085_a_spreadsheet_serial_is_refused_with_a_hint():
    refused("order_date", ["46113"], "R_DATE_FORMAT")
    hinted = [rule for rule in ORDERS.by_name["order_date"].text_rules if rule.detail.get("hint") == "excel_serial"]
    assert len(hinted) == 1


def test_input_086_days_the_calendar_does_not_have_are_refused():
    refused("order_date", ["2026-02-30", "2025-02-29", "2026/13/1", "20260431", "2026年0月1日"], "R_DATE_FORMAT")


def test_input_087_dates_far_from_today_are_out_of_range():
    long_ago = (TODAY - timedelta(days=367)).isoformat()
    tomorrow = (TODAY + timedelta(days=1)).isoformat()
    cells = ["0001-01-01", "1899-12-30", "9999-12-31", "明治45年7月29日", long_ago, tomorrow]
    refused("order_date", cells, "R_DATE_RANGE")
    borders = [TODAY.isoformat(), (TODAY - timedelta(days=366)).isoformat()]
    assert accepted("order_date", [*borders, ""]) == [*borders, ""]


def test_input_088_a_date_with_a_time_is_refused():
    refused("order_date", ["2026-04-01T23:30Z", "2026-04-01 00:00", "2026-04-01+09:00"], "R_DATE_FORMAT")


def test_digits_only_unicode_knows_make_no_date():
    refused("order_date", ["2026年④月1日", "٢٠٢٦-04-01"], "R_DATE_FORMAT")


# Codes


@pytest.mark.parametrize(
    ("column", "code", "cells"),
    [
        ("customer_code", "R_CUSTOMER_CODE", ["C①", "C²", "Ⅳ", "C㎏", "ﬁ1", "C\u212a", "ｱ1", "Ｃ①"]),
        ("client_order_ref", "R_REF_FORMAT", ["A①", "㍿1", "A⑴", "A𝟏", "A\u212a"]),
        ("phone", "R_PHONE", ["090①2345678", "090-1234-567⑧", "090𝟏2345678"]),
        ("email", "R_EMAIL", ["a①@example.com", "ﬁ@example.com", "a@example。com"]),
        ("payment_method", "R_PAYMENT_METHOD", ["ⓘnvoice", "ban\u212a_transfer", "ｉｎvo\u2170ce"]),
        ("currency", "R_CURRENCY", ["ⒿPY", "㏚"]),
        ("order_date", "R_DATE_FORMAT", ["2026-06-①5", "²026-06-15"]),
    ],
)
def test_no_other_character_turns_into_one_that_a_code_may_have(column, code, cells):
    refused(column, cells, code, notify_channel="sms" if column == "phone" else "none")


def test_full_width_ascii_is_what_it_looks_like():
    assert accepted("customer_code", ["Ｃ－０_１", "\u3000C1 "]) == ["C-0_1", "C1"]
    assert accepted("phone", ["０９０－１２３４－５６７８", "090ｰ1234ー5678"]) == ["09012345678"] * 2


@given(st.characters(exclude_categories=["Cs"]))
def test_a_code_is_never_another_one_than_was_sent(character):
    plain = normalise.half_width(character)
    assert (
        plain == character or (0xFF01 <= ord(character) <= 0xFF5E and ord(plain) == ord(character) - 0xFEE0) or plain == " "
    )


def test_names_keep_the_ideographs_they_are_written_with():
    names = ["神田", "福本", "羽\u30ab\u3099"]
    assert accepted("customer_name", names) == ["神田", "福本", "羽\u30ac"]


# What a spreadsheet leaves


def test_an_error_of_a_spreadsheet_is_no_value_of_any_column():
    errors = ["#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!", " #n/a ", "Err:502", "####"]
    judged = judge_rows([dict.fromkeys(ORDERS.column_names, error) for error in errors])
    assert judged.found == [[(column, "R_CELL_ERROR") for column in ORDERS.column_names]] * len(errors)


def test_a_text_that_only_mentions_an_error_is_a_text():
    assert accepted("note", ["#N/A と表示されました", "#101", "###", "# 1"]) == [
        "#N/A と表示されました",
        "#101",
        "###",
        "# 1",
    ]


def test_a_marked_cell_is_refused_in_every_column():
    judged = judge_rows([dict.fromkeys(ORDERS.column_names, "#FORMAT! 1,000 (-1000)")])
    assert judged.found == [[(column, "R_CELL_FORMAT") for column in ORDERS.column_names]]

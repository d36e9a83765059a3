"""A workbook becomes the CSV file of its order sheet: which sheet, which rows, and what its cells say."""

from __future__ import annotations

import stat
import time
import tracemalloc
import warnings
from datetime import date, datetime

import pyarrow.parquet as pq
import pytest
from openpyxl.chart import BarChart
from openpyxl.utils.datetime import CALENDAR_MAC_1904

from orders_pipeline.intake.csv_file import Limits, stage
from orders_pipeline_tests.support.csv_staging import NAMES, REQUIRED
from orders_pipeline_tests.support.workbooks import MAIN, SHEET, Harness


@pytest.fixture
def harness(tmp_path):
    return Harness(tmp_path)


def test_a_real_workbook_is_staged_like_a_csv_file(harness, tmp_path):
    harness.sheet.append(["注文番号", "得意先名", "金額"])
    harness.sheet.append(["A-001", '山田, "太郎"\n東京', 1000])
    harness.sheet.append([None, None, None])
    harness.sheet.append(["A-002", "鈴木", 2500])
    harness.sheet["C4"].number_format = '"¥"#,##0'
    harness.rows()
    staged = tmp_path / "staged.parquet"
    found = stage(harness.target, staged, header_names=NAMES, required=REQUIRED, limits=Limits())
    rows = pq.read_table(staged).to_pylist()
    assert (found.encoding, found.line_ending, found.rows_total, found.rows_blank) == ("utf-8-sig", "\r\n", 3, 1)
    assert [(row["import_row_number"], row["client_order_ref"], row["customer_name"], row["amount"]) for row in rows] == [
        (1, "A-001", '山田, "太郎"\n東京', "1000"),
        (3, "A-002", "鈴木", "¥2,500"),
    ]


def test_the_csv_file_is_strict_even_and_for_its_owner_only(harness):
    harness.target.touch(mode=0o644)
    harness.sheet.append(["a", "b"])
    harness.sheet.append(['say "x"', None, "1,5"])
    harness.rows()
    assert harness.target.read_bytes() == b'\xef\xbb\xbfa,b,\r\n"say ""x""",,"1,5"\r\n'
    assert stat.S_IMODE(harness.target.stat().st_mode) == 0o600


def test_row_n_of_the_sheet_is_record_n_and_what_is_blank_at_the_end_is_left_out(harness):
    harness.sheet["B2"] = "x"
    harness.sheet["A5"] = "y"
    harness.sheet["D9"] = ""
    harness.sheet["E5"].number_format = "0.00"
    assert harness.rows() == [["", ""], ["", "x"], ["", ""], ["", ""], ["y", ""]]


def test_formulas_that_show_nothing_do_not_make_rows_or_columns(harness):
    blank = '<c r="{0}" t="str"><f>IF(A9="","",A9)</f><v></v></c>'
    harness.sheet_of(f'<row r="1"><c r="A1"><v>5</v></c>{blank.format("C1")}</row><row r="2">{blank.format("A2")}</row>')
    assert harness.written() == [["5"]]


def test_cells_are_written_as_excel_shows_them(harness):
    values = [("00123", "@"), (123, "00000"), (1000.0, "General"), (-1000, "#,##0_);(#,##0)"), (True, "General")]
    values += [(date(2026, 4, 1), "m/d/yy"), (datetime(2026, 4, 1, 9, 30), "yyyy/m/d h:mm")]  # noqa: DTZ001
    values += [(0.1, "0%"), ("山田", "General")]
    for column, (value, number_format) in enumerate(values, 1):
        harness.sheet.cell(1, column, value).number_format = number_format
    shown = ["00123", "00123", "1000", "(1,000)", "TRUE", "2026-04-01", "2026-04-01 09:30:00", "10%", "山田"]
    assert harness.rows() == [shown]


def test_dates_of_a_workbook_that_counts_from_1904_are_the_same_days(harness):
    harness.book.epoch = CALENDAR_MAC_1904
    harness.sheet["A1"] = date(2026, 4, 1)
    assert harness.rows() == [["2026-04-01"]]


def test_formats_a_japanese_excel_names_by_number_only_are_known(harness):
    harness.sheet["A1"] = 46113
    harness.sheet["A1"].number_format = "0.00E+00"
    harness.repack({"xl/styles.xml": lambda data: data.replace(b'numFmtId="11"', b'numFmtId="31"')})
    assert harness.written() == [["2026-04-01"]]


def test_a_formula_shows_what_was_calculated_last(harness):
    harness.sheet_of(
        '<row r="1"><c r="A1"><f>1+1</f><v>2</v></c><c r="B1"><f>1+2</f></c><c r="C1" t="str"><f>"a"</f><v>a</v></c>'
        '<c r="D1" t="e"><f>1/0</f><v>#DIV/0!</v></c><c r="E1" t="b"><v>0</v></c><c r="F1" t="d"><v>2026-04-01</v></c></row>'
    )
    assert harness.written() == [["2", "", "a", "#DIV/0!", "FALSE", "2026-04-01"]]


def test_shared_texts_are_read_without_formatting_and_readings_and_with_their_line_breaks(harness):
    texts = "<si><t>山田</t><rPh sb='0' eb='2'><t>ヤマダ</t></rPh><phoneticPr fontId='1'/></si>"
    texts += "<si><r><t>赤</t></r><r><rPr><b/></rPr><t xml:space='preserve'> 青 </t></r></si>"
    texts += "<si><t>東京_x000D_\n港区_x005F_x0041__xD800_</t></si><si><t/></si>"
    cells = "".join(f'<c r="{column}1" t="s"><v>{text}</v></c>' for text, column in enumerate("ABCD"))
    harness.with_texts(texts, f'<row r="1">{cells}</row>')
    assert harness.written() == [["山田", "赤 青 ", "東京\n港区_x0041__xD800_"]]


def test_cells_and_rows_without_a_place_follow_each_other(harness):
    harness.sheet_of("<row><c><v>1</v></c><c><v>2</v></c></row><row r='3'><c r='B3'><v>3</v></c><c><v>4</v></c></row>")
    assert harness.written() == [["1", "2", ""], ["", "", ""], ["", "3", "4"]]


@pytest.mark.parametrize(
    "cells",
    [
        '<c r="A1"><v>1000</v><v>5</v></c>',
        '<c r="A1" t="inlineStr"><is><t>1000</t></is><v>5</v></c>',
        '<c r="A1"><v>1000</v></c><c r="B1"><v>1</v></c><c r="A1"><v>9</v></c>',
    ],
)
def test_a_cell_with_two_values_is_damage_and_no_other_value(harness, cells):
    harness.sheet_of(f'<row r="1">{cells}</row>')
    assert harness.refusal().detail["hint"] == "excel_damaged"


def test_a_merged_cell_has_its_value_once(harness):
    harness.sheet.append(["a", "b", "c"])
    harness.sheet["A2"] = "merged"
    harness.sheet.merge_cells("A2:B3")
    harness.sheet["C3"] = "z"
    assert harness.rows() == [["a", "b", "c"], ["merged", "", ""], ["", "", "z"]]


def test_the_first_visible_sheet_with_a_value_counts(harness):
    harness.sheet["A1"].number_format = "0.00"
    hidden = harness.book.create_sheet("控え")
    hidden["A1"], hidden.sheet_state = "hidden", "hidden"
    very_hidden = harness.book.create_sheet("設定")
    very_hidden["A1"], very_hidden.sheet_state = "very hidden", "veryHidden"
    harness.book.create_sheet("注文")["A1"] = "orders"
    harness.book.create_sheet("マスタ")["A1"] = "other"
    assert harness.rows() == [["orders"]]


def test_a_sheet_of_charts_is_passed_over(harness):
    chart = BarChart()
    harness.book.create_chartsheet("図", index=0).add_chart(chart)
    harness.sheet["A1"] = "orders"
    assert harness.rows() == [["orders"]]


def test_a_missing_sheet_is_not_replaced_by_the_next(harness):
    harness.sheet["A1"] = "orders"
    harness.book.create_sheet("マスタ")["A1"] = "other"
    harness.repack({SHEET: None})
    assert harness.refusal().code == "F_NOT_CSV"


def test_nothing_is_warned_of(harness):
    harness.sheet["A1"] = "x"
    extension = b'<extLst><ext uri="{CCE6A557-97BC-4b89-ADB6-D9C93CAAB3DF}"/></extLst></worksheet>'
    harness.repack(
        {SHEET: lambda data: data.replace(b"</worksheet>", extension), "xl/styles.xml": f"<styleSheet {MAIN}/>".encode()}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert harness.written() == [["x"]]


def test_a_workbook_without_values_is_empty(harness):
    harness.sheet["A1"].number_format = "0.00"
    harness.book.save(harness.source)
    assert harness.refusal().code == "F_EMPTY"


def test_a_file_without_bytes_is_empty(harness):
    harness.source.touch()
    assert harness.refusal().code == "F_EMPTY"


def test_a_formatted_last_row_costs_nothing(harness):
    rows = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576" s="1"/></row>'
    harness.sheet_of(rows)
    started = time.process_time()
    assert harness.written() == [["1"]]
    assert time.process_time() - started < 1


def test_many_formatted_rows_below_the_orders_are_left_out(harness):
    blank = "".join(f'<row r="{row}" s="1" customFormat="1"/>' for row in range(2, 200_000))
    harness.sheet_of('<row r="1"><c r="A1"><v>1</v></c></row>' + blank)
    assert harness.written() == [["1"]]


def test_a_value_far_below_the_others_is_not_lost(harness):
    harness.sheet_of('<row r="1"><c r="A1"><v>1</v></c></row><row r="300000"><c r="A300000"><v>2</v></c></row>')
    rows = harness.written()
    assert (len(rows), rows[0], rows[-1]) == (300_000, ["1"], ["2"])


def test_more_rows_than_an_order_file_may_have_are_refused_and_blank_ones_do_not_count(harness):
    for row in range(1, 200, 2):
        harness.sheet.cell(row, 1, row)
    harness.book.save(harness.source)
    found = harness.refusal(max_rows=50)
    assert (found.code, found.detail) == ("F_TOO_MANY_ROWS", {"limit": "50"})
    harness.write(max_rows=99)


def test_a_value_beyond_256_columns_is_refused_and_a_format_is_not(harness):
    harness.sheet["A1"] = "x"
    harness.sheet["XFD2"].number_format = "0.00"
    harness.sheet["IV1"] = "last"
    assert len(harness.rows()[0]) == 256
    harness.target.unlink()
    harness.sheet["IW1"] = "beyond"
    harness.book.save(harness.source)
    assert harness.refusal().code == "F_COLUMNS"


def test_a_cell_longer_than_excel_allows_is_refused(harness):
    harness.sheet_of(f'<row r="1"><c r="A1" t="str"><v>{"x" * 32_768}</v></c></row>')
    found = harness.refusal()
    assert (found.code, found.detail) == ("F_FIELD_TOO_LONG", {"limit": "32767"})


def test_texts_that_many_cells_share_do_not_grow_without_bound(harness):
    rows = "".join(f'<row r="{row}"><c r="A{row}" t="s"><v>0</v></c></row>' for row in range(1, 101))
    harness.with_texts(f"<si><t>{'x' * 30_000}</t></si>", rows)
    found = harness.refusal(max_bytes=1 << 20)
    assert (found.code, found.detail) == ("F_TOO_LARGE", {"limit": str(2 << 20)})


def test_a_workbook_larger_than_a_file_may_be_is_refused(harness):
    harness.sheet["A1"] = "x"
    harness.book.save(harness.source)
    assert harness.refusal(max_bytes=1000).detail == {"limit": "1000"}


def test_a_file_that_cannot_be_read_is_not_called_damaged(harness, tmp_path):
    with pytest.raises(FileNotFoundError):
        harness.write()


def test_rows_are_written_as_they_are_read(harness):
    cells = "".join(f'<c r="{chr(65 + at)}{{0}}" t="inlineStr"><is><t>値{at}-{{0}}</t></is></c>' for at in range(18))
    harness.sheet_of("".join(f'<row r="{row}">{cells.format(row)}</row>' for row in range(1, 3_001)))
    tracemalloc.start()
    try:
        harness.write()
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()
    assert harness.target.read_bytes().count(b"\r\n") == 3_000

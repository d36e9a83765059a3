"""A workbook of orders: which sheet is read, what its cells may show, and which of its rows are hidden."""

from __future__ import annotations

import re

import pytest
from openpyxl.cell.rich_text import CellRichText, TextBlock
from openpyxl.cell.text import InlineFont
from openpyxl.formatting.rule import Rule
from openpyxl.styles import Font
from openpyxl.styles.differential import DifferentialStyle
from openpyxl.styles.numbers import NumberFormat

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.intake.csv_file import Limits
from orders_pipeline.intake.file_staging import stage_file
from orders_pipeline.records.orders import ORDERS
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.workbooks import SHEET, Harness

HEADER = list(ORDERS.column_names)


@pytest.fixture
def harness(tmp_path):
    harness = Harness(tmp_path)
    harness.looks_for_orders()
    return harness


def fill(sheet, *rows, header=HEADER):
    sheet.append(header)
    for row in rows:
        sheet.append([row[name] or None for name in HEADER])


def set_cell(sheet, row, column, value, number_format="General"):
    cell = sheet.cell(row, HEADER.index(column) + 1)
    cell.value, cell.number_format = value, number_format


def column(rows, name):
    return [row[HEADER.index(name)] for row in rows[1:]]


def test_what_a_merge_hides_is_marked_and_what_it_shows_is_there_once(harness):
    fill(harness.sheet, *(order_row(client_order_ref=f"A-{n}", customer_name=f"n{n}", note="") for n in range(4)))
    letters = dict(zip(HEADER, "ABCDEFGHIJKLMNOPQRST", strict=False))
    for row in range(2, 6):
        set_cell(harness.sheet, row, "amount", row * 1000, "#,##0")
    amount, name = letters["amount"], letters["customer_name"]
    harness.sheet.merged_cells.add(f"{amount}2:{amount}4")  # as a format painter does: what is below stays
    harness.sheet.merged_cells.add(f"{name}4:{chr(ord(name) + 1)}5")
    harness.sheet["Z2"] = "seen"
    harness.sheet["Z3"] = "not seen"  # of no order
    harness.sheet.merged_cells.add("Z2:Z3")
    rows = harness.rows()
    assert column(rows, "amount") == ["2,000", "#FORMAT!  (3000)", "#FORMAT!  (4000)", "5,000"]
    assert column(rows, "customer_name") == ["n0", "n1", "n2", "#FORMAT!  (n3)"]
    assert column(rows, "customer_name_kana") == [""] * 4
    assert [row[25] for row in rows] == ["", "seen", "", "", ""]


def test_a_blank_cell_that_shows_the_one_above_is_marked_but_not_in_a_row_of_nothing(harness):
    fill(harness.sheet, *(order_row(client_order_ref=f"A-{n}", payment_method="") for n in range(6)))
    letter = {name: chr(65 + at) for at, name in enumerate(HEADER)}
    method, note = letter["payment_method"], letter["note"]
    harness.sheet[f"{method}3"], harness.sheet[f"{method}6"] = "bank_transfer", "invoice"
    for row in range(1, 8):
        harness.sheet[f"{note}{row}"] = None
    harness.sheet[f"{note}1"] = "note"
    harness.sheet.merged_cells.add(f"{note}1:{note}2")  # of the header
    harness.sheet.merged_cells.add(f"{note}3:{note}5")  # of nothing
    harness.sheet.merged_cells.add(f"{method}3:{method}5")
    for name in HEADER:
        harness.sheet[f"{letter[name]}7"] = None
        harness.sheet.merged_cells.add(f"{letter[name]}6:{letter[name]}7")  # an order two lines high
    rows = harness.rows()
    assert column(rows, "payment_method") == ["", "bank_transfer", *["#FORMAT! bank_transfer ()"] * 2, "invoice"]
    assert column(rows, "note") == [""] * 5


def test_a_header_that_a_merge_hides_is_none(harness):
    fill(harness.sheet, order_row())
    harness.sheet.merged_cells.add("A1:B1")
    assert harness.rows()[0][:3] == [HEADER[0], "", HEADER[2]]


def test_the_sheet_with_the_header_is_read_wherever_it_stands(harness):
    harness.sheet.title = "表紙"
    harness.sheet["A1"] = "ご注文一覧"
    fill(harness.book.create_sheet("注文"), order_row(client_order_ref="A-1"))
    hidden = harness.book.create_sheet("控え")
    fill(hidden, order_row(client_order_ref="B-1"))
    hidden.sheet_state = "hidden"
    harness.book.create_sheet("マスタ")["A1"] = "other"
    assert column(harness.rows(), "client_order_ref") == ["A-1"]


def test_two_sheets_with_the_header_are_refused_with_their_names(harness):
    harness.sheet.title = "東京"
    fill(harness.sheet, order_row(client_order_ref="A-1"))
    second = harness.book.create_sheet("大阪")
    second.append(["ご注文一覧"])
    fill(second, order_row(client_order_ref="B-1"))
    harness.book.save(harness.source)
    refused = harness.refusal()
    assert (refused.code, refused.detail) == ("F_SHEETS", {"sheets": "東京, 大阪", "wanted": ""})


def test_a_sheet_on_which_the_orders_go_on_without_the_header_is_refused_too(harness):
    harness.sheet.title = "1"
    fill(harness.sheet, order_row(client_order_ref="A-1", amount="1,000円"))
    more = harness.book.create_sheet("2")
    for code, amount in (("コード", "金額"), ("A-2", "1000"), ("A-3", "￥2,000")):
        more.append([order_row(client_order_ref=code, amount=amount)[name] or None for name in HEADER])
    harness.book.save(harness.source)
    refused = harness.refusal()
    assert (refused.code, refused.detail) == ("F_SHEETS", {"sheets": "1, 2", "wanted": ""})
    more.sheet_state = "hidden"
    assert column(harness.rows(), "client_order_ref") == ["A-1"]


def test_what_is_struck_through_is_marked_as_are_codes_and_numbers_with_digits_of_a_footnote(harness):
    fill(harness.sheet, *(order_row(client_order_ref=f"A-{n}", customer_name="n", note="") for n in range(6)))
    set_cell(harness.sheet, 2, "amount", 1000)
    for row, name in ((2, "amount"), (3, "note"), (3, "customer_name")):  # the note is blank
        harness.sheet.cell(row, HEADER.index(name) + 1).font = Font(strike=True)
    struck, raised = InlineFont(strike=True), InlineFont(vertAlign="superscript")
    set_cell(harness.sheet, 4, "amount", CellRichText("1", TextBlock(struck, "0"), "000"))
    set_cell(harness.sheet, 5, "amount", CellRichText("1000", TextBlock(raised, "2")))
    set_cell(harness.sheet, 5, "customer_name", CellRichText("CO", TextBlock(raised, "2")))
    set_cell(harness.sheet, 6, "amount", CellRichText("1", TextBlock(InlineFont(b=True, strike=False), "000")))
    set_cell(harness.sheet, 7, "amount", CellRichText("1000", TextBlock(raised, "円")))
    rows = harness.rows()
    assert column(rows, "amount") == [
        "#FORMAT! 1000 (1000)", "1000", "#FORMAT! 10000 (10000)", "#FORMAT! 10002 (10002)", "1000", "1000円",
    ]  # fmt: skip
    assert column(rows, "customer_name") == ["n", "#FORMAT! n (n)", "n", "CO2", "n", "n"]
    assert set(column(rows, "note")) == {""}


@pytest.mark.parametrize("change", [{"client_order_ref": "合計"}, {"amount": "未定"}, {"customer_name": ""}])
def test_a_sheet_with_something_else_is_left_alone(harness, change):
    fill(harness.sheet, order_row(client_order_ref="A-1"))
    other = harness.book.create_sheet("マスタ")
    row = order_row(client_order_ref="SKU-1") | change
    other.append([row[name] or None for name in HEADER])
    other.append(["SKU-1", "1000"])
    master = harness.book.create_sheet("得意先")
    fill(
        master,
        order_row(client_order_ref="C-1"),
        header=[{"amount": "与信", "client_order_ref": "No"}.get(n, n) for n in HEADER],
    )
    assert column(harness.rows(), "client_order_ref") == ["A-1"]


def test_a_sheet_with_nothing_but_the_header_is_no_other_one(harness):
    fill(harness.sheet)
    fill(harness.book.create_sheet("11月"), order_row(client_order_ref="A-1"))
    fill(harness.book.create_sheet("12月"))
    assert column(harness.rows(), "client_order_ref") == ["A-1"]
    harness.book["11月"].delete_rows(2)
    assert harness.rows() == [HEADER]


def test_the_sheet_that_was_agreed_on_is_read(harness):
    fill(harness.sheet, order_row(client_order_ref="A-1"))
    harness.sheet.title = "控え"
    fill(harness.book.create_sheet("Orders"), order_row(client_order_ref="B-1"))
    harness.looks_for_orders("orders")
    assert column(harness.rows(), "client_order_ref") == ["B-1"]


def test_a_sheet_that_was_agreed_on_and_is_missing_is_named(harness):
    harness.sheet.title = "Sheet1"
    fill(harness.sheet, order_row())
    harness.book.save(harness.source)
    harness.looks_for_orders("注文")
    refused = harness.refusal()
    assert (refused.code, refused.detail) == ("F_SHEETS", {"sheets": "Sheet1", "wanted": "注文"})


def test_without_a_header_anywhere_the_first_sheet_is_left_to_the_checks_of_headers(harness):
    harness.sheet["A1"] = "first"
    harness.book.create_sheet("second")["A1"] = "second"
    assert harness.rows() == [["first"]]


@pytest.mark.parametrize(
    ("name", "value", "number_format", "written"),
    [
        ("amount", -1000, "#,##0;[Red]#,##0", "#FORMAT! 1,000 (-1000)"),
        ("amount", 1_234_000, "#,##0,", "#FORMAT! 1,234 (1234000)"),
        ("amount", 1000.4, "#,##0", "#FORMAT! 1,000 (1000.4)"),
        ("amount", 1000, "#,##0", "1,000"),
        ("amount", 1000, "0.000", "1000"),
        ("amount", 1000, "000,000", "001000"),
        ("amount", 1000, "#,##0.", "1000"),
        ("amount", 1000, '"$"#,##0.000', "$1000"),
        ("amount", 1000, ";;;", "#FORMAT!  (1000)"),
        ("client_order_ref", 12, "0000", "0012"),
        ("client_order_ref", 46113, "m-d", "#FORMAT! 2026-04-01 (46113)"),
        ("order_date", 46113, "m-d", "2026-04-01"),
        ("note", -1000, "0;0", "1000"),
    ],
)
def test_a_cell_that_shows_another_number_is_marked_with_both(harness, name, value, number_format, written):
    fill(harness.sheet, order_row())
    set_cell(harness.sheet, 2, name, value, number_format)
    assert column(harness.rows(), name) == [written]


@pytest.mark.parametrize(
    ("cells", "number_format", "written"),
    [
        ("{0}2", "#,##0,", "#FORMAT! 1 (1000)"),
        ("A1:A9 {0}3 {0}2:{0}9", "0;0", "-1000"),
        ("{0}1:{0}1048576", ";;;", "#FORMAT!  (1000)"),
        ("A2:XFD2", '"0"0', "1000"),
        ("{0}3:{0}9 A2", "#,##0,", "1000"),
        ("{0}2", "#,##0", "1000"),
        ("{0}2", '0"円"', "1000"),
    ],
)
@pytest.mark.parametrize("is_extended", [False, True])
def test_a_format_that_a_condition_may_give_a_cell_shows_the_same_number_or_the_cell_is_marked(
    harness, cells, number_format, written, is_extended
):
    amount = "-1000" if number_format == "0;0" else "1000"
    fill(harness.sheet, order_row())
    set_cell(harness.sheet, 2, "amount", int(amount))
    marked = f"#FORMAT! 1000 ({amount})" if number_format == "0;0" else written
    cells = cells.format(chr(64 + 1 + HEADER.index("amount")))
    if is_extended:
        harness.repack({SHEET: lambda data: data.replace(b"</worksheet>", extended(cells, number_format) + b"</worksheet>")})
        assert column(harness.written(), "amount") == [marked]
    else:
        style = DifferentialStyle(numFmt=NumberFormat(numFmtId=170, formatCode=number_format))
        harness.sheet.conditional_formatting.add(cells, Rule("expression", dxf=style, formula=["FALSE"]))
        assert column(harness.rows(), "amount") == [marked]


def extended(cells, number_format):
    """Return conditional formatting as newer programs write it beside the usual one."""
    code = number_format.replace('"', "&quot;")
    return (
        '<extLst><ext uri="{78C0D931-6437-407d-A8EE-F0AAD7539E65}"'
        ' xmlns:x14="http://schemas.microsoft.com/office/spreadsheetml/2009/9/main">'
        '<x14:conditionalFormattings><x14:conditionalFormatting xmlns:xm="http://schemas.microsoft.com/office/excel/2006/main">'
        '<x14:cfRule type="expression"><xm:f>FALSE</xm:f>'
        f'<x14:dxf><x14:numFmt numFmtId="170" formatCode="{code}"/></x14:dxf></x14:cfRule>'
        f"<xm:sqref>{cells}</xm:sqref></x14:conditionalFormatting></x14:conditionalFormattings></ext></extLst>"
    ).encode()


@pytest.mark.parametrize("value", ["", "<v></v>", "<v/>"])
@pytest.mark.parametrize("name", ["amount", "customer_name", "note"])
def test_a_formula_that_was_never_computed_is_written_as_one(harness, name, value):
    fill(harness.sheet, order_row())
    place = f"{chr(64 + 1 + HEADER.index(name))}2"
    cell = f'<c r="{place}"><f>SUM(A1)</f>{value}</c>'.encode()
    harness.sheet[place] = 4711
    harness.repack({SHEET: lambda data: re.sub(rb'<c r="%s".*?</c>' % place.encode(), cell, data)})
    assert column(harness.written(), name) == ["#FORMULA!"]


@pytest.mark.parametrize("says_so", ["book", "sheet", "version"])
def test_results_that_excel_computes_anew_as_it_opens_the_workbook_are_none(harness, says_so):
    fill(
        harness.sheet, order_row(customer_code="C-1")
    )  # as libraries write that compute nothing: 0, or a template's results
    harness.book.calculation.fullCalcOnLoad = says_so == "book"
    harness.book.calculation.calcId = 0 if says_so == "version" else 191029
    cells = {name: f"{chr(65 + HEADER.index(name))}2" for name in ("customer_name", "amount", "note")}
    for place in cells.values():
        harness.sheet[place] = 4711
    results = dict(zip(cells.values(), (b"<v>0</v>", b"<v>120</v>", b"<v></v>"), strict=True))

    def changed(data):
        for place, result in results.items():
            kind = b' t="str"' if result == b"<v></v>" else b""
            cell = b'<c r="%s"%s><f>B9</f>%s</c>' % (place.encode(), kind, result)
            data = re.sub(rb'<c r="%s".*?</c>' % place.encode(), cell, data)
        recomputes = b'<sheetCalcPr fullCalcOnLoad="1"/>' if says_so == "sheet" else b""
        return data.replace(b"</sheetData>", b"</sheetData>" + recomputes)

    harness.repack({SHEET: changed})
    rows = harness.written()
    assert column(rows, "customer_code") == ["C-1"]
    assert [column(rows, name) for name in cells] == [["#FORMULA!"], ["#FORMULA!"], [""]]


def test_nor_are_those_of_one_formula_in_many_cells(harness):
    fill(harness.sheet, *(order_row(client_order_ref=f"A-{n}", customer_name="0") for n in range(4)))
    harness.book.calculation.fullCalcOnLoad = True
    letter = chr(65 + HEADER.index("customer_name"))
    cell = b'<c r="%s2"><f t="array" ref="%s2:%s4">B9</f><v>0</v></c>' % ((letter.encode(),) * 3)
    harness.repack({SHEET: lambda data: re.sub(rb'<c r="%s2".*?</c>' % letter.encode(), cell, data)})
    rows = harness.written()
    assert column(rows, "customer_name") == [*["#FORMULA!"] * 3, "0"]
    assert column(rows, "client_order_ref") == ["A-0", "A-1", "A-2", "A-3"]


def test_a_formula_whose_result_is_an_empty_text_is_empty_and_one_in_another_column_too(harness):
    fill(harness.sheet, order_row(), header=[*HEADER, "計"])
    last = chr(64 + len(HEADER) + 1)
    harness.sheet["A2"] = 4711
    harness.sheet[f"{last}2"] = 4712
    cells = {"A2": b'<c r="A2" t="str"><f>B2</f><v></v></c>', f"{last}2": f'<c r="{last}2"><f>B2</f></c>'.encode()}

    def changed(data):
        for place, cell in cells.items():
            data = re.sub(rb'<c r="%s".*?</c>' % place.encode(), cell, data)
        return data

    harness.repack({SHEET: changed})
    written = harness.written()[1]
    assert (written[0], written[-1]) == ("", "")


def test_rows_of_nothing_but_formulas_that_were_never_computed_are_not_lost(harness):
    fill(harness.sheet, order_row())
    row = b'<row r="5"><c r="A5"><f>B2</f></c></row></sheetData>'
    harness.repack({SHEET: lambda data: data.replace(b"</sheetData>", row)})
    assert harness.written()[4][0] == "#FORMULA!"


def test_columns_of_the_clients_own_may_show_what_they_like(harness):
    fill(harness.sheet, order_row(), header=[*HEADER, "税率"])
    harness.sheet.cell(2, len(HEADER) + 1, 0.1).number_format = "0%"
    assert harness.rows()[1][-1] == "10%"


def test_errors_are_written_as_errors_that_are_known(harness):
    fill(harness.sheet, order_row())
    harness.repack({SHEET: lambda data: data.replace(b"</row></sheetData>", ERROR)})
    assert harness.written()[1][-1] == "#VALUE!"


ERROR = f'<c r="{chr(64 + len(HEADER))}2" t="e"><v>#NEW!</v></c></row></sheetData>'.encode()


def test_hidden_rows_are_written_and_counted(harness):
    harness.sheet.row_dimensions[1].hidden = True
    fill(harness.sheet, *(order_row(client_order_ref=f"A-{row}") for row in range(1, 5)))
    harness.sheet.row_dimensions[3].hidden = True
    harness.sheet.row_dimensions[9].hidden = True
    harness.repack({SHEET: lambda data: data.replace(b'<row r="4"', b'<row r="4" ht="0"')})
    assert column(harness.written(), "client_order_ref") == ["A-1", "A-2", "A-3", "A-4"]
    assert harness.hidden_rows == 2


def test_hidden_rows_are_a_warning_of_the_file_and_a_profile_names_its_sheet(harness, tmp_path):
    harness.sheet["A1"] = "表紙"
    for name in ("控え", "注文"):
        fill(harness.book.create_sheet(name), order_row(client_order_ref=f"{name}-1"), order_row(client_order_ref="A-2"))
    harness.book["注文"].row_dimensions[2].hidden = True
    harness.book.save(harness.source)
    (tmp_path / "staged").mkdir()
    staged = stage_file(Limits(), Profile(sheet="注文"), harness.source, "orders.xlsx", tmp_path / "staged")
    assert [(warning.code, warning.detail) for warning in staged.warnings] == [("W_HIDDEN_ROWS", {"count": "1"})]
    assert staged.rows_total == 2

"""Staging an order file: what refuses it as a whole, and that rows keep their numbers, lines and bytes."""

from __future__ import annotations

import csv
import io
import stat
from itertools import islice

import openpyxl
import pytest

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.intake.csv_file import Limits, staging
from orders_pipeline.intake.csv_file.physical_lines import read_blocks
from orders_pipeline.intake.file_staging import stage_file
from orders_pipeline.records.normalise import normalise_header
from orders_pipeline.records.rejections import FileRejected, message
from orders_pipeline_tests.support.csv_staging import HEADER, ROWS, Harness


@pytest.fixture
def harness(tmp_path):
    return Harness(tmp_path)


def test_a_staged_file_holds_places_and_cells_as_sent(harness):
    found = harness.stage(HEADER + 'A-1," 山田, ""太郎"" ",１０００\r\n')
    assert (found.encoding, found.has_bom, found.line_ending) == ("utf-8", False, "\r\n")
    assert (found.header, found.header_span) == (("client_order_ref", "customer_name", "amount"), (0, 37))
    assert found.columns == {"client_order_ref": (0,), "customer_name": (1,), "amount": (2,)}
    assert (found.rows_total, found.rows_blank, found.corrected_batches, found.warnings) == (1, 0, (), ())
    row = 'A-1," 山田, ""太郎"" ",１０００'.encode()
    assert harness.rows() == [
        {
            "import_row_number": 1,
            "line": 2,
            "offset": 39,
            "length": len(row),
            "shape_ok": True,
            "corrects_row": None,
            "unreadable": None,
            "maybe_references": None,
            "to_decide": None,
            "unclear": None,
            "client_order_ref": "A-1",
            "customer_name": ' 山田, "太郎" ',
            "email": "",
            "amount": "１０００",
        }
    ]
    assert harness.records() == [row]


def test_a_staged_file_is_for_its_owner_only(harness):
    harness.stage(HEADER + ROWS)
    assert stat.S_IMODE(harness.staged.stat().st_mode) == 0o600


def test_a_refused_file_leaves_nothing_staged(harness):
    with pytest.raises(FileRejected):
        harness.stage(HEADER)
    assert not harness.staged.exists()


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\n\r\n \r\n", b"\x1a", b",,\r\n,,\r\n", b"\r"])
def test_input_001_nothing_but_blank_lines_is_an_empty_file(harness, data):
    assert harness.refusal(data).code == "F_EMPTY"


@pytest.mark.parametrize("rest", ["", "\r\n\r\n", ",,\r\n", "\n,,\n\n"])
def test_input_002_a_header_without_rows_is_refused(harness, rest):
    assert harness.refusal(HEADER + rest).code == "F_NO_ROWS"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932", "utf-16-le", "utf-16-be", "utf-16"])
def test_input_003_every_encoding_gives_the_same_cells(harness, encoding):
    found = harness.stage((HEADER + ROWS).encode(encoding))
    assert found.encoding == ("utf-16-le" if encoding == "utf-16" else encoding)
    assert found.has_bom == (encoding in {"utf-8-sig", "utf-16"})
    assert harness.column("customer_name") == ["山田", "鈴木"]
    inner = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le"}.get(encoding, encoding)
    assert harness.records() == [line.encode(inner) for line in ROWS.split("\r\n")[:-1]]


def test_input_006_mixed_encodings_are_refused_by_staging(harness):
    assert harness.refusal((HEADER + ROWS).encode() + ROWS.encode("cp932")).detail["row"] == "3"


def test_input_009_two_byte_order_marks_leave_no_first_column(harness):
    refused = harness.refusal(b"\xef\xbb\xbf" * 2 + (HEADER + ROWS).encode())
    assert (refused.code, refused.detail["columns"]) == ("F_HEADER_MISSING", "client_order_ref")


def test_input_009_two_byte_order_marks_before_an_optional_column_are_refused_too(harness):
    text = "email,client_order_ref,customer_name,amount\na@example.jp,A-1,山田,1\n"
    refused = harness.refusal(b"\xef\xbb\xbf" * 2 + text.encode())
    assert (refused.code, refused.detail["columns"]) == ("F_HEADER_MISSING", "email")


def test_input_009_a_byte_order_mark_inside_stays_for_the_row_rules(harness):
    harness.stage(HEADER + "\ufeffA-1,山\ufeff田,1\r\n")
    assert harness.column("client_order_ref") == ["A-1"]
    assert harness.column("customer_name") == ["山\ufeff田"]


def test_input_011_ctrl_z_at_the_end_is_no_row(harness):
    assert harness.stage(HEADER + ROWS + "\x1a").rows_total == 2


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_input_012_every_line_ending_is_accepted(harness, ending):
    found = harness.stage((HEADER + ROWS).replace("\r\n", ending))
    assert (found.line_ending, harness.column("line"), harness.column("amount")) == (ending, [2, 3], ["1000", "2000"])


def test_input_012_mixed_line_endings_are_accepted(harness):
    harness.stage("client_order_ref,customer_name,amount\rA-1,a,1\nA-2,b,2\r\nA-3,c,3\r\rA-4,d,4")
    assert harness.column("line") == [2, 3, 4, 6]
    assert harness.records() == [b"A-1,a,1", b"A-2,b,2", b"A-3,c,3", b"A-4,d,4"]


def test_input_013_other_separators_do_not_end_a_line(harness):
    name = "a\u2028b\x0bc\x0cd\x85e\u2029f"
    harness.stage(HEADER + f"A-1,{name},1\r\nA-2,b,2\r\n")
    assert (harness.column("customer_name"), harness.column("line")) == ([name, "b"], [2, 3])


def test_input_014_a_quoted_line_break_keeps_row_and_line_numbers_apart(harness):
    harness.stage(HEADER + 'A-1,"山田\r\n太郎\n\r様",1\r\nA-2,鈴木,2\r\n')
    assert harness.column("customer_name") == ["山田\r\n太郎\n\r様", "鈴木"]
    assert (harness.column("import_row_number"), harness.column("line")) == ([1, 2], [2, 6])


def test_input_015_an_unbalanced_quote_refuses_the_file_by_its_record(harness):
    refused = harness.refusal(HEADER + 'A-1,"山田\r\n太郎",1\r\nA-2,"鈴木,2\r\nA-3,佐藤,3\r\n')
    assert (refused.code, refused.detail) == ("F_QUOTE", {"row": "2", "line": "4"})


@pytest.mark.parametrize("name", ['"A"B', '"A\\"B\\""', '"A" ', '"A"B"'])
def test_input_016_text_after_a_closing_quote_refuses_the_file(harness, name):
    refused = harness.refusal(HEADER + f"A-1,{name},1\r\n")
    assert (refused.code, refused.detail) == ("F_QUOTE", {"row": "1", "line": "2"})


BAD_QUOTE = 'A-9,"5\\" 管, ""太""",1\r\n'
UNREADABLE = [("A-9,山\x08田,1\r\n", "R_CHARS"), ("A-9,山\0田,1\r\n", "R_CHARS"), (BAD_QUOTE, "R_QUOTE")]


@pytest.mark.parametrize("codec", ["utf-8", "cp932", "utf-16"])
@pytest.mark.parametrize(("bad", "code"), [*UNREADABLE, ("A-9,山\x1b田,1\r\n", "R_CHARS")])
@pytest.mark.parametrize("rows", [1, 60_000])
def test_one_bad_record_is_rejected_alone_where_the_next_one_is_certain(harness, codec, bad, code, rows):
    text = HEADER + 'A-1,"山, ""田""",1000\r\n' * rows + bad + "A-2,鈴木,2000\r\n"
    found = harness.stage(text.encode(codec), Limits(max_rows=rows + 2))
    assert (found.rows_total, found.rows_blank) == (rows + 2, 0)
    assert harness.column("shape_ok")[-3:] == [True, False, True]
    assert harness.column("unreadable")[-3:] == [None, code, None]
    assert harness.column("client_order_ref")[-3:] == ["A-1", None, "A-2"]
    assert harness.records()[-2] == (bad.strip()).encode({"utf-16": "utf-16-le"}.get(codec, codec))


@pytest.mark.parametrize(("bad", "code"), [*UNREADABLE])
@pytest.mark.parametrize(
    "others",
    [
        'A-1,"山\r\n田",1\r\nA-2,b,2\r\n',  # a record of two lines
        'A-1,5" 管,1\r\nA-2,b,2\r\n',  # a quotation mark that opens nothing, and may close something
        'A-1,"山,1\r\nA-2,b,2\r\n',  # one that is never closed
        "",  # most of the rows are bad
        "A-1,a,1\r\n\x1a\r\nA-2,b,2\r\n",  # a line that is no record
        "A-1,a,1\r\n" + "\0" * 512 + "\r\nA-2,b,2\r\n",
        'A-1,a,1\r\nA-2,"b\\",2\r\nA-3,"c\\" d,3\r\nA-4,d,4\r\n',  # an escape that is no end
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_one_bad_record_refuses_the_file_where_the_next_one_is_not_certain(harness, bad, code, others, place):
    refused = harness.refusal(HEADER + (bad + others if place else others + bad))
    assert refused.code in ("F_CONTROL_CHARS", "F_QUOTE")


def test_a_control_character_in_the_header_refuses_the_file(harness):
    for header in (HEADER.replace("amount", "amo\x08unt"), HEADER.strip() + ",memo\x08\r\n"):
        assert harness.refusal(header + ROWS).code == "F_CONTROL_CHARS"


def test_input_017_a_quote_inside_an_unquoted_cell_is_a_character(harness):
    harness.stage(HEADER + 'A-1,5" disk "new",1\r\n')
    assert harness.column("customer_name") == ['5" disk "new"']


@pytest.mark.parametrize("bad", ["A-2,鈴木", "A-2", "A-2,鈴木,2,3", "A-2,鈴木,2,", "A-2,鈴木,1,000"])
def test_input_018_019_and_022_a_row_of_another_length_is_marked_and_holds_no_cells(harness, bad):
    found = harness.stage(HEADER + f"A-1,山田,1\r\n{bad}\r\nA-3,佐藤,3\r\n")
    assert (found.rows_total, found.rows_blank) == (3, 0)
    assert harness.column("shape_ok") == [True, False, True]
    assert harness.column("client_order_ref") == ["A-1", None, "A-3"]
    assert harness.column("email") == ["", None, ""]
    assert harness.records()[1] == bad.encode()


@pytest.mark.parametrize("extra", [",x", ",", ",x,y"])
def test_input_020_every_row_longer_than_the_header_refuses_the_file(harness, extra):
    refused = harness.refusal(HEADER + f"A-1,山田,1{extra}\r\n" + f"A-2,鈴木,2{extra}x\r\n")
    assert refused.code == "F_COLUMNS"
    assert refused.detail == {"expected": "3", "found": str(3 + extra.count(","))}


def test_input_020_every_row_longer_than_its_named_columns_refuses_the_file(harness):
    assert harness.refusal(HEADER.strip() + ",\r\nA-1,山田,1,x\r\nA-2,鈴木,2,y\r\n").code == "F_COLUMNS"


@pytest.mark.parametrize(("header", "row"), [("", ","), (",", ","), (",", ""), ("", ",,"), (",,", ",,")])
def test_input_021_a_trailing_comma_everywhere_is_accepted(harness, header, row):
    text = HEADER.strip() + f"{header}\r\n" + "".join(f"A-{i},山田,{i}{row}\r\n" for i in range(3)) + ",,,\r\n"
    found = harness.stage(text)
    assert (found.warnings, found.rows_blank) == ((), 1)
    assert harness.column("shape_ok") == [True] * 3
    assert harness.column("amount") == ["0", "1", "2"]


def test_input_021_a_trailing_comma_in_some_rows_marks_those_rows(harness):
    harness.stage(HEADER + "A-1,山田,1,\r\nA-2,鈴木,2\r\nA-3,佐藤,3,\r\n")
    assert harness.column("shape_ok") == [False, True, False]


def test_input_021_a_short_row_is_not_excused_by_the_others_trailing_commas(harness):
    harness.stage(HEADER.strip() + ",\r\nA-1,山田,1,\r\nA-2,鈴木,\r\nA-3,佐藤,3,\r\n")
    assert harness.column("shape_ok") == [True, False, True]


def test_input_023_the_same_column_twice_refuses_the_file(harness):
    refused = harness.refusal("client_order_ref,customer_name,amount,email,EMAIL,金額\nA-1,a,1,,,\n")
    assert (refused.code, refused.detail) == ("F_HEADER_DUPLICATE", {"columns": "email, amount"})


def test_input_024_missing_required_columns_are_listed(harness):
    refused = harness.refusal("client_order_ref,email\nA-1,a@example.jp\n")
    assert refused.code == "F_HEADER_MISSING"
    assert refused.detail == {"columns": "customer_name, amount"}


@pytest.mark.parametrize("row", ["A-1,山田太郎,1000\nA-2,鈴木,2\n", "A-1,山田太郎,1000,email\nA-2,鈴木,2,email\n"])
def test_input_025_a_file_without_header_is_refused_without_repeating_its_order(harness, row):
    refused = harness.refusal(row)
    assert refused.code == "F_HEADER_MISSING"
    assert refused.detail == {"columns": "client_order_ref, customer_name, amount", "hint": "no_header"}


def test_input_026_columns_may_stand_in_any_order(harness):
    found = harness.stage("amount,client_order_ref,customer_name\n1,A-1,山田\n")
    assert found.columns == {"amount": (0,), "client_order_ref": (1,), "customer_name": (2,)}
    assert harness.column("amount") == ["1"]


@pytest.mark.parametrize(
    "cell",
    [
        "Client_Order_REF",
        "  client_order_ref ",
        "ｃｌｉｅｎｔ＿ｏｒｄｅｒ＿ｒｅｆ",
        "\u200bclient_order_ref\u200b",
        "注文番号",
        "\u3000注文番号 ",
    ],
)
def test_input_027_header_cells_are_compared_in_normal_form(harness, cell):
    found = harness.stage(f"{cell},customer_name,amount\nA-1,山田,1\n")
    assert (found.columns["client_order_ref"], found.header[0]) == ((0,), cell)


def test_input_027_invisible_characters_are_taken_off_around_a_name():
    assert normalise_header(" \ufeff\u200b Ａｍｏｕｎｔ\u200b ") == "amount"


@pytest.mark.parametrize("cell", ["amuont", "order_amount", "金額(税込)"])
def test_input_028_a_renamed_column_is_named_with_the_missing_one(harness, cell):
    refused = harness.refusal(f"client_order_ref,customer_name,{cell}\nA-1,山田,1\n")
    assert refused.code == "F_HEADER_MISSING"
    assert refused.detail == {"columns": "amount", "nearest": cell}


def test_input_029_unknown_columns_are_counted_warned_about_and_not_stored(harness):
    found = harness.stage("client_order_ref,shoe size,customer_name,amount,shoe size\nA-1,UNKNOWNVALUE,山田,1,2\n")
    assert [(warning.code, warning.line, dict(warning.detail)) for warning in found.warnings] == [
        ("W_UNKNOWN_COLUMN", 1, {"count": "2", "columns": "shoe size"})
    ]
    assert b"UNKNOWNVALUE" not in harness.staged.read_bytes()


def test_what_may_be_a_value_is_not_said_to_be_an_unknown_column(harness):
    unknown = [
        "備考2",
        "a@b.jp",
        "090-1234-5678",
        "4111 1111 1111 1111",
        "x" * 65,
        "a\u202eb",
        *(f"c{n}" for n in range(12)),
    ]
    found = harness.stage(f"client_order_ref,customer_name,amount,{','.join(unknown)}\nA-1,山田,1{',' * len(unknown)}\n")
    shown = ", ".join(["備考2", *(f"c{n}" for n in range(9))])
    assert [dict(each.detail) for each in found.warnings] == [{"count": str(len(unknown)), "columns": shown, "more": "8"}]


@pytest.mark.parametrize(
    "again",
    [
        "\ufeff" + HEADER,
        '\ufeff"' + HEADER.strip().replace(",", '","') + '"\r\n',
        HEADER,
        HEADER.upper(),
        "金額,得意先名,注文番号\r\n",
        HEADER.strip() + ",memo\r\n",
    ],
)
def test_input_030_a_header_in_the_middle_refuses_the_file(harness, again):
    refused = harness.refusal(HEADER + ROWS + again + ROWS)
    assert (refused.code, refused.detail) == ("F_HEADER_REPEATED", {"row": "3", "line": "4"})


@pytest.mark.parametrize(
    ("lines", "hint"),
    [
        ("受注一覧\r\n", "title_lines"),
        ("受注一覧,,\r\n2026年4月,,\r\n\r\n", "title_lines"),
        ("# orders of April\r\n", "title_lines"),
    ],
)
def test_input_031_lines_before_the_header_are_refused_with_a_hint(harness, lines, hint):
    refused = harness.refusal(lines + HEADER + ROWS)
    assert (refused.code, refused.detail["hint"]) == ("F_HEADER_MISSING", hint)
    assert hint not in message(refused.code, "ja", refused.detail)


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "cp932", "utf-16"])
@pytest.mark.parametrize("line", ["sep=,\r\n", "SEP=;\n", '"sep=,"\r', "\ufeffsep=,\n\n"])
def test_a_first_line_for_spreadsheets_is_left_out_and_lines_stay_true(harness, codec, line):
    found = harness.stage((line.replace("\ufeff", "") + HEADER + ROWS).encode(codec))
    assert (found.header, [each.code for each in found.warnings]) == (tuple(HEADER.strip().split(",")), ["W_SEP_LINE"])
    assert (harness.column("import_row_number"), harness.column("line")) == (
        [1, 2],
        [3 + line.count("\n\n"), 4 + line.count("\n\n")],
    )


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("rows", [1, 60_000])
def test_byte_order_marks_before_rows_are_left_out_and_counted(harness, codec, rows):
    many = "".join(f"B-{number},山田,1000\r\n" for number in range(rows))  # also behind the first block
    text = f'{HEADER}\ufeffA-1,山田,1000\r\n{many}\ufeff"A-2","\n\ufeff鈴木",2000\r\n'
    found = harness.stage(text.encode(codec), Limits(max_rows=rows + 2))
    assert [(each.code, dict(each.detail)) for each in found.warnings] == [("W_BOM", {"count": "2"})]
    assert harness.column("client_order_ref")[:: rows + 1] == ["A-1", "A-2"]
    assert harness.column("customer_name")[-1] == "\n\ufeff鈴木"
    assert harness.records()[0].decode(codec.replace("-sig", "").replace("utf-16", "utf-16-le")) == "\ufeffA-1,山田,1000"


def test_blank_lines_before_the_header_are_skipped_and_lines_stay_true(harness):
    found = harness.stage("\r\n,,\r\n" + HEADER + ROWS)
    assert (found.rows_total, found.rows_blank, found.header_span) == (2, 0, (6, 37))
    assert (harness.column("import_row_number"), harness.column("line")) == ([1, 2], [4, 5])


def test_input_032_a_total_row_is_a_row_like_any_other(harness):
    harness.stage(HEADER + ROWS + "合計,,3000\r\n")
    assert harness.column("client_order_ref") == ["A-1", "A-2", "合計"]


def test_input_033_034_and_035_blank_rows_are_counted_and_keep_their_numbers(harness):
    found = harness.stage(HEADER + 'A-1,山田,1\r\n\r\n,,\r\n"",,""\r\nA-2,鈴木,2\r\n\r\n,,,,,\r\n')
    assert (found.rows_total, found.rows_blank) == (7, 5)
    assert (harness.column("import_row_number"), harness.column("line")) == ([1, 5], [2, 6])


@pytest.mark.parametrize(
    ("delimiter", "number", "hint"), [(";", 36, "semicolon"), ("\t", 37, "tab"), ("，", 38, "full_width_comma")]
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_input_036_037_and_038_another_delimiter_is_refused_with_a_hint(harness, delimiter, number, hint, quote):
    text = "".join(
        delimiter.join(f"{quote}{cell}{quote}" for cell in row) + "\r\n" for row in csv.reader(io.StringIO(HEADER + ROWS))
    )
    refused = harness.refusal(text)
    assert (refused.code, refused.detail) == ("F_DELIMITER", {"hint": hint})


def test_input_037_tabs_are_accepted_where_they_are_expected(harness):
    harness.stage((HEADER + ROWS).replace(",", "\t"), delimiter="\t")
    assert harness.column("amount") == ["1000", "2000"]
    assert harness.column("shape_ok") == [True, True]


@pytest.mark.parametrize("rows", [2, 60_000])
def test_in_an_unquoted_file_every_line_is_a_record(harness, rows):
    text = HEADER + '"A-1,"山田,1\r\n' + "".join(f'A"-{number},"鈴木"",2\r\n' for number in range(1, rows))
    found = harness.stage(text.replace(",", "\t"), Limits(max_rows=rows), delimiter="\t", has_quotes=False)
    assert (found.rows_total, all(harness.column("shape_ok"))) == (rows, True)
    assert harness.column("client_order_ref")[:2] == ['"A-1', 'A"-1']
    assert harness.column("customer_name")[-1] == '"鈴木""'


def test_input_037_commas_are_refused_where_tabs_are_expected(harness):
    harness.staged.unlink(missing_ok=True)
    assert harness.refusal(HEADER + ROWS, delimiter="\t").detail == {"hint": "comma"}


def test_input_039_the_last_row_needs_no_line_end(harness):
    found = harness.stage((HEADER + ROWS).rstrip())
    assert (found.rows_total, harness.column("amount")) == (2, ["1000", "2000"])


@pytest.mark.parametrize("data", ["<html><body>", "\ufeff\r\n  <!DOCTYPE html>", "<?xml version='1.0'?>"])
def test_input_041_markup_is_no_csv(harness, data):
    assert harness.refusal(data + "\r\n" + HEADER + ROWS).code == "F_NOT_CSV"


def test_input_041_and_042_a_workbook_or_archive_is_refused_unread(harness):
    assert harness.refusal(b"PK\x03\x04" + bytes(1000)).code == "F_NOT_CSV"


def test_input_043_a_file_over_the_size_limit_is_refused_before_it_is_read(harness):
    refused = harness.refusal(b"\0" * 101, Limits(max_bytes=100))
    assert (refused.code, refused.detail) == ("F_TOO_LARGE", {"limit": "100"})


def test_input_044_one_row_over_the_limit_refuses_the_file_and_blank_rows_do_not_count(harness):
    rows = "".join(f"A-{i},a,1\n,,\n" for i in range(10))
    assert harness.stage(HEADER + rows, Limits(max_rows=10)).rows_blank == 10
    harness.staged.unlink()
    refused = harness.refusal(HEADER + rows + "A-11,a,1\n", Limits(max_rows=10))
    assert (refused.code, refused.detail) == ("F_TOO_MANY_ROWS", {"limit": "10"})


@pytest.mark.parametrize("cells", ["{},1", "{},1,extra"])
@pytest.mark.parametrize("length", [65_537, 140_000])
def test_input_045_a_field_over_64_kib_refuses_the_file(harness, cells, length):
    refused = harness.refusal(HEADER + "A-1,a,1\n" + "A-2," + cells.format("x" * length) + "\n")
    assert refused.code == "F_FIELD_TOO_LONG"
    assert (refused.detail["row"], refused.detail["line"]) == ("2", "3")


def test_input_045_and_046_a_field_of_64_kib_is_left_to_the_row_rules(harness):
    harness.stage(HEADER + "A-1," + "山" * 65_536 + ",1\n")
    assert harness.column("shape_ok") == [True]


def test_input_045_a_line_without_end_is_not_read_into_memory(harness):
    refused = harness.refusal((HEADER + "A-1,").encode() + b"x" * (18 << 20), Limits(max_bytes=30 << 20))
    assert (refused.code, refused.detail["line"]) == ("F_FIELD_TOO_LONG", "2")


def test_what_is_wrong_with_rows_is_said_before_what_cannot_be_read_behind_them(harness):
    rows = "".join(f"A-{number},{'x' * 100},1\n" for number in range(500))
    never_closed = '"' + "x" * (16 << 10)  # the first record of the second block
    assert harness.refusal(HEADER + rows + HEADER + never_closed).code == "F_HEADER_REPEATED"


def test_ctrl_c_ends_the_reading_whatever_is_wrong_with_rows_before(harness, monkeypatch):
    def read(source, span):
        yield from islice(read_blocks(source, span), 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(staging, "read_blocks", read)
    with pytest.raises(KeyboardInterrupt):
        harness.stage(HEADER + "A-1,x,1\n" + HEADER)


@pytest.mark.parametrize("control", ["\0", "\x1b"])
@pytest.mark.parametrize(
    "text", ["{long}{control}{header}A-1,a,1\n", "{long}{header}A-1,{control}a,1\n", "{header}A-1,{control}{long},1\n"]
)
def test_input_045_with_control_characters_too_the_file_is_refused_with_a_code(harness, text, control):
    refused = harness.refusal(text.format(long="x" * 140_000, header=HEADER, control=control))
    assert refused.code in ("F_FIELD_TOO_LONG", "F_CONTROL_CHARS")


def test_input_047_ten_thousand_columns_refuse_the_file(harness):
    header = HEADER.strip() + "".join(f",c{i}" for i in range(10_000))
    assert harness.refusal(header + "\n" + ROWS).code == "F_COLUMNS"


def test_input_095_report_columns_are_ignored_but_their_batch_is_collected(harness):
    found = harness.stage(
        HEADER.strip() + ",_batch,_row,_codes,_batch\n"
        "A-1,山田,1,old,3,R_AMOUNT, b-7 \nA-2,鈴木,2,old,4,R_EMAIL,b-7\nA-3,佐藤,2,old,4,R_EMAIL,\nA-4,佐藤,2,,,,b-8\n"
    )
    assert found.warnings == ()
    assert found.corrected_batches == ("b-7", "b-8")


def test_at_most_three_batches_are_kept(harness):
    rows = "".join(f"A-{i},a,1,b-{i}\n" for i in range(9))
    assert harness.stage(HEADER.strip() + ",_batch\n" + rows).corrected_batches == ("b-0", "b-1", "b-2")


def test_a_refusal_of_a_record_names_no_value_of_it(harness):
    for text in (HEADER + 'A-1,"SECRETNAME"x,1\n', HEADER + "A-1,SECRETNAME" + "x" * 140_000 + ",1\n"):
        refused = harness.refusal(text)
        assert "SECRETNAME" not in str(refused) + repr(refused) + str(refused.detail)


NOTED = HEADER.strip() + ",備考\r\n"
NOTING = Profile.model_validate({"columns": {"customer_code": {"default": "C-1"}, "payment_method": {"default": "invoice"}}})


@pytest.mark.parametrize(
    "rows",
    [
        "A-1,山田,1,000\r\nA-2,鈴木,500\r\n",  # the last cell is left off where it is empty
        "A-1,山田,500\r\nA-2,鈴木,12,500\r\n",
        "A-1,山田,1,000\r\nA-2,鈴木,12,500\r\n",
        "A-1,山田,￥1,000円\r\n",
        'A-1,"山田",1,000\r\nA-2,鈴木,500\r\n\r\n',
    ],
)
def test_amounts_that_are_split_at_their_commas_refuse_the_file(harness, rows):
    refused = harness.refusal(NOTED + rows, amount="amount")
    assert (refused.code, refused.detail["row"]) == ("F_AMOUNTS_SPLIT", "2" if rows.startswith("A-1,山田,500") else "1")


@pytest.mark.parametrize(
    "rows",
    [
        "A-1,山田,500,101\r\nA-2,鈴木,500,午前\r\n",
        "A-1,山田,1000,101\r\nA-2,鈴木,500\r\n",
        "A-1,山田,500,0101\r\nA-2,鈴木,500\r\n",
        'A-1,山田,"1,000",101\r\nA-2,鈴木,500,\r\n',
    ],
)
def test_a_note_of_three_digits_is_no_part_of_an_amount(harness, rows):
    harness.stage(NOTED + rows, amount="amount")
    assert harness.column("shape_ok")[0]


def test_a_clients_file_is_looked_at_so_and_a_workbooks_cells_are_not(harness, tmp_path):
    harness.source.write_text(NOTED + "A-1,山田,1,000\r\n")
    with pytest.raises(FileRejected, match="F_AMOUNTS_SPLIT"):
        stage_file(Limits(), NOTING, harness.source, "orders.csv", tmp_path)
    book = openpyxl.Workbook()
    for row in (NOTED.strip().split(","), ["A-1", "山田", "500", "101"]):
        book.active.append(row)
    book.save(harness.source)
    stage_file(Limits(), NOTING, harness.source, "orders.xlsx", tmp_path)

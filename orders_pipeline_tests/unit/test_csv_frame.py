"""What stands around the orders in a client's text is left out, and rows keep their lines and bytes."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.clients.row_choices import RowChoice
from orders_pipeline.intake.csv_file import Frame, stage
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline_tests.support.csv_staging import LIMITS

HEADER = "注文番号,得意先コード,得意先名"
ROWS = "A-1,C1,見本\nA-2,C2,見本\n"
TITLES = '注文明細レポート\n期間,2026/11/01\n"出力日時\n\n'  # with a quote that is never closed


def read(tmp_path, text: str, frame: Frame, codec: str = "utf-8", skip=(), **others):
    source, staged = tmp_path / "orders.csv", tmp_path / "staged.parquet"
    source.write_bytes(text.encode(codec))
    profile = Profile()
    found = stage(
        source,
        staged,
        header_names=profile.header_names(),
        required=("client_order_ref", "customer_code", "customer_name"),
        limits=LIMITS,
        frame=frame,
        skip=skip,
        **others,
    )
    table = pq.read_table(staged)
    content = source.read_bytes()
    rows = zip(*(table[name].to_pylist() for name in ("import_row_number", "line", "offset", "length")), strict=True)
    codec = found.encoding.removesuffix("-sig") if found.encoding.startswith("utf-8") else found.encoding
    return found, [(number, line, content[at : at + length].decode(codec)) for number, line, at, length in rows]


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "cp932", "utf-16"])
@pytest.mark.parametrize("line", [5, "find"])
def test_titles_above_the_header_are_left_out(tmp_path, codec, line):
    found, rows = read(tmp_path, f"{TITLES}{HEADER}\n{ROWS}", Frame(header_line=line), codec)
    assert rows == [(1, 6, "A-1,C1,見本"), (2, 7, "A-2,C2,見本")]
    assert (found.rows_total, found.rows_blank, found.header) == (2, 0, tuple(HEADER.split(",")))


@pytest.mark.parametrize("units", ["個", "単位の説明" * 6_000])
def test_a_header_of_several_rows_is_no_order_though_it_fills_more_than_the_first_block(tmp_path, units):
    found, rows = read(tmp_path, f"{HEADER}\n番号,番号,{units}\n{ROWS}", Frame(header_rows=2))
    assert rows == [(1, 3, "A-1,C1,見本"), (2, 4, "A-2,C2,見本")]
    assert found.rows_total == 2


@pytest.mark.parametrize(("line", "code"), [(3, "F_QUOTE"), (6, "F_HEADER_MISSING"), (90, "F_HEADER_MISSING")])
def test_a_header_line_that_has_no_header_is_refused(tmp_path, line, code):
    with pytest.raises(FileRejected) as refused:
        read(tmp_path, f"{TITLES}{HEADER}\n{ROWS}", Frame(header_line=line))
    assert refused.value.code == code


def test_what_is_looked_for_is_looked_for_in_the_first_lines_only(tmp_path):
    titles = "表題,x,y\n"
    assert len(read(tmp_path, titles * 19 + f"{HEADER}\n{ROWS}", Frame(header_line="find"))[1]) == 2
    with pytest.raises(FileRejected) as refused:
        read(tmp_path, titles * 20 + f"{HEADER}\n{ROWS}", Frame(header_line="find"))
    assert refused.value.code == "F_HEADER_MISSING"


@pytest.mark.parametrize("end", ["", "\n", "\r\n\r\n"])
def test_comments_above_the_header_and_at_the_end_are_left_out(tmp_path, end):
    text = f"# SAP\n#\n\n# Records: 2\n{HEADER}\n{ROWS}\n# 終わり\n#{end}"
    found, rows = read(tmp_path, text, Frame(comment="#"))
    assert [row[:2] for row in rows] == [(1, 6), (2, 7)]
    assert [(each.code, each.detail) for each in found.warnings] == [("W_LINES_LEFT_OUT", {"count": "2"})]
    assert (found.rows_total, found.rows_blank) == (2, 0)


def test_a_row_that_begins_like_a_comment_is_a_row(tmp_path):
    _, rows = read(tmp_path, f"{HEADER}\n{ROWS}#A-3,C3,見本\n#A-4,C4,見本\n# end\n", Frame(comment="#"))
    assert [text for _, _, text in rows] == ["A-1,C1,見本", "A-2,C2,見本", "#A-3,C3,見本", "#A-4,C4,見本"]


@pytest.mark.parametrize(
    ("header_end", "row_end"), [("", ""), ("", ","), ("", ",,"), (",", ""), (",,備考", ",,"), (",,備考", ",,午前")]
)
def test_no_row_is_a_comment_however_it_ends(tmp_path, header_end, row_end):
    rows = [f"#A-{at},C1,見本{row_end}" for at in range(1, 2001)]
    text = "\n".join([f"{HEADER}{header_end}", *rows, "# end of 2000", ""])
    found, read_rows = read(tmp_path, text, Frame(comment="#"))
    assert [line for _, _, line in read_rows] == rows
    assert found.rows_total == 2000


@pytest.mark.parametrize(
    "frame", [Frame(footer_lines=1), Frame(header_rows=2), Frame(header_line="find"), Frame(header_line=2)]
)
def test_a_file_without_what_is_to_be_left_out_is_refused_before_an_order_is(tmp_path, frame):
    above = "A-0,C0,見本\n" if frame.header_line else ""
    with pytest.raises(FileRejected) as refused:
        read(tmp_path, f"{above}{HEADER}\n{ROWS}", frame)
    assert refused.value.code == "F_LEFT_OUT"


def test_a_correction_whose_header_has_a_line_break_is_the_table_and_nothing_else(tmp_path):
    text = f'"メモ\n欄",{HEADER},_batch,_row,_line,_codes\nx,A-1,C1,見本,20261129-0123456789ab,7,9,R_X\n'
    _, rows = read(tmp_path, text, Frame(header_rows=2, footer_lines=1))
    assert [number for number, _, _ in rows] == [1]


@pytest.mark.parametrize("codec", ["utf-8", "cp932", "utf-16"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
def test_footers_are_left_out(tmp_path, codec, end):
    found, rows = read(tmp_path, f"{HEADER}\n{ROWS}合計,2件\n\n以上{end}", Frame(footer_lines=2), codec)
    assert [text for _, _, text in rows] == ["A-1,C1,見本", "A-2,C2,見本"]
    assert found.rows_total == 2


def test_a_second_row_of_the_header_is_left_out(tmp_path):
    found, rows = read(tmp_path, f"client_order_ref,customer_code,customer_name\n{HEADER}\n{ROWS}", Frame(header_rows=2))
    assert rows == [(1, 3, "A-1,C1,見本"), (2, 4, "A-2,C2,見本")]
    assert found.rows_total == 2


def test_a_file_that_corrects_rows_is_the_table_and_nothing_else(tmp_path):
    text = f"{HEADER},_batch,_row,_line,_codes\nA-1,C1,見本,20261129-0123456789ab,7,9,R_X\n# end\n"
    frame = Frame(header_line=4, header_rows=2, comment="#", footer_lines=1)
    found, rows = read(tmp_path, text, frame)
    assert [row[:2] for row in rows] == [(1, 2), (2, 3)]
    assert found.corrected_batches == ("20261129-0123456789ab",)


def test_rows_are_skipped_wherever_they_are_and_the_others_keep_their_numbers(tmp_path):
    skip = [RowChoice(header="得意先名", values=("取消",))]
    many = [f"A-{at},C1,{'取消' if at % 3 == 0 else '見本'}\n" for at in range(1, 9_001)]
    many[4000:4000] = ["odd,row\n", "\n", '"A-x","C1","取消"\n', "A-y,C1, 取消 \n"]
    found, rows = read(tmp_path, f"{HEADER}\n{''.join(many)}", Frame(), skip=skip)
    assert (found.rows_total, found.rows_blank, found.rows_skipped) == (9_004, 1, 3_002)
    kept = [number for number, line in enumerate(many, 1) if "取消" not in line and line != "\n"]
    assert [number for number, _, _ in rows] == kept


@pytest.mark.parametrize("rows", [3, 6_000])
def test_what_follows_a_skipped_row_in_its_order_is_skipped_with_it(tmp_path, rows):
    skip = [RowChoice(header="得意先名", values=("取消",))]
    many = "".join(
        f"B-{at // 3:0300},C1,{('取消' if at // 3 % 2 else '見本') if at % 3 == 0 else ''}\n" for at in range(rows * 3)
    )

    def orders_of(cells):
        return np.array([int(cell[2:]) + 1 if cell else 0 for cell in cells.to_pylist()], np.uint64)

    text = f"{HEADER}\nA-1,C1,取消\nA-1,C1,\nA-1,C1,見本\nA-1,C1,\nA-2,C1,\n{many}"
    found, read_rows = read(
        tmp_path, text, Frame(), skip=skip, told_apart_by=("client_order_ref", orders_of), is_grouped=True
    )
    assert [number for number, *_ in read_rows][:6] == [3, 4, 5, 6, 7, 8]
    assert (found.rows_skipped, len(read_rows)) == (2 + rows // 2 * 3, 3 + (rows - rows // 2) * 3)


def test_a_row_of_another_width_is_never_skipped_in_whatever_block_it_stands(tmp_path):
    skip = [RowChoice(header="得意先名", values=("取消",))]
    many = "".join(f"B-{at:0300},C1,見本\n" for at in range(9_000))
    found, rows = read(tmp_path, f"{HEADER}\nA-1,C1,取消,more\n{many}A-2,C1,取消,more\n", Frame(), skip=skip)
    assert (found.rows_skipped, found.rows_total, len(rows)) == (0, 9_002, 9_002)


def test_without_the_header_that_tells_them_apart_no_row_is_taken(tmp_path):
    with pytest.raises(FileRejected) as refused:
        read(tmp_path, f"{HEADER}\n{ROWS}", Frame(), skip=[RowChoice(header="状況", values=("取消",))])
    assert (refused.value.code, refused.value.detail["columns"]) == ("F_HEADER_MISSING", "状況")


@pytest.mark.parametrize(("occurrence", "skipped"), [(1, 0), (2, 1)])
def test_a_header_that_stands_twice_says_what_is_skipped_only_where_it_is_said_which_of_them(tmp_path, occurrence, skipped):
    text = f"{HEADER},状況,状況\nA-1,C1,見本,済,取消\nA-2,C1,見本,済,済\n"
    with pytest.raises(FileRejected) as refused:
        read(tmp_path, text, Frame(), skip=[RowChoice(header="状況", values=("取消",))])
    assert (refused.value.code, refused.value.detail["columns"]) == ("F_HEADER_DUPLICATE", "状況")
    chosen = RowChoice(header="状況", occurrence=occurrence, values=("取消",))
    found, _ = read(tmp_path, text, Frame(), skip=[chosen])
    assert (found.rows_skipped, found.rows_total) == (skipped, 2)


def test_every_setting_for_a_header_counts_however_it_is_named(tmp_path):
    skips = [RowChoice(header="状況", values=("取消",)), RowChoice(header=" 状況", occurrence=1, values=("返品",))]
    text = f"{HEADER},状況\nA-1,C1,見本,取消\nA-2,C1,見本,返品\nA-3,C1,見本,済\n"
    found, rows = read(tmp_path, text, Frame(), skip=skips)
    assert (found.rows_skipped, [number for number, *_ in rows]) == (2, [3])


def test_a_long_file_is_read_to_its_footer(tmp_path):
    many = "".join(f"A-{at},C1,見本\n" for at in range(9_000))
    _, rows = read(tmp_path, f"表題\n{HEADER}\n{many}合計\n", Frame(header_line=2, footer_lines=1))
    assert (len(rows), rows[-1]) == (9_000, (9_000, 9_002, "A-8999,C1,見本"))

"""Which rows of a file a profile means, and what is said of those that are skipped."""

from __future__ import annotations

import json
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openpyxl.styles import Font
from pydantic import ValidationError

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.clients.row_choices import RowChoice
from orders_pipeline.intake.csv_file import Limits
from orders_pipeline.intake.file_staging import stage_file
from orders_pipeline.intake.file_validation import context_of
from orders_pipeline.intake.validation import nothing_sealed, validate
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import FileRejected, message

HEADER = "client_order_ref,customer_code,customer_name,amount,payment_method"


def meant(choice: dict[str, Any], *cells: str | None, encoding: str = "") -> list[str | None]:
    chosen = RowChoice.model_validate({"header": "H"} | choice)
    return list(chosen.matches(pa.array(cells, pa.string()), encoding).to_pylist())


def test_values_are_compared_as_words_and_as_numbers() -> None:
    cells = ["取消", " 取消 ", "取消し", "0", "0.00", "¥0", "０", "00", "", None]
    zero = "H = 0"
    assert meant({"values": ["取消", "0"]}, *cells) == [
        "H = 取消",
        "H = 取消",
        None,
        zero,
        zero,
        zero,
        zero,
        None,
        None,
        None,
    ]
    assert meant({"values": ["1,000"]}, "1000", "1000.00", "1.000", "01000") == ["H = 1,000", "H = 1,000", None, None]
    assert meant({"values": ["001"]}, "001", "1") == ["H = 001", None]
    assert meant({"values": [""]}, " ", "x") == ["H = ", None]


def test_all_filled_cells_are_meant_but_those_that_are_excepted() -> None:
    assert meant({"except": []}, "2026-11-28", "0", " ", "", None) == ["H", "H", None, None, None]
    assert meant({"except": ["0", "paid"]}, "0.00", "paid", "Paid", "-5", "") == [None, None, "H", "H", None]


def test_what_is_not_seen_around_a_word_is_none_of_it() -> None:
    blank = ["\u200b", "\ufeff", "\u3000\u200b ", "\ufeff\u200b"]
    assert meant({"except": []}, *blank, "x") == [None, None, None, None, "H"]
    assert meant({"values": ["取消", "0"]}, "取消\u200b", "\ufeff0", "取\u200b消") == ["H = 取消", "H = 0", None]


def test_a_backslash_is_a_yen_sign_where_both_are_the_same_byte() -> None:
    assert meant({"values": ["0"]}, "\\0", "\\0.00", encoding="cp932") == ["H = 0", "H = 0"]
    assert meant({"values": ["0"]}, "\\0", encoding="utf-8") == [None]


@pytest.mark.parametrize("choice", [{}, {"values": ["a"], "except": ["b"]}, {"values": []}])
def test_a_choice_says_in_one_way_which_cells_are_meant(choice: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RowChoice.model_validate({"header": "H"} | choice)


def stage(tmp_path, settings: dict[str, Any], *rows: str, more: str = "状況,取消日"):
    path = tmp_path / "orders.csv"
    path.write_text("\n".join([f"{HEADER},{more}", *rows, ""]), "utf-8")
    return stage_file(Limits(), Profile.model_validate(settings), path, path.name, tmp_path)


SKIP = {"skip": [{"header": "状況", "values": ["取消", "見本"]}, {"header": "取消日", "except": []}]}


def test_it_is_said_what_skipped_rows_are_how_many_and_where_the_first_stand(tmp_path) -> None:
    states = ["済,", "取消,", "見本,11/28", "済,11/28", *["取消,"] * 6, "済,"]
    rows = [f"A-{at},C1,見本,1000,invoice,{state}" for at, state in enumerate(states, 1)]
    staged = stage(tmp_path, SKIP, *rows)
    (warning,) = staged.warnings
    assert (warning.code, warning.detail["count"], staged.rows_skipped) == ("W_ROWS_SKIPPED", "9", 9)
    assert warning.detail["by"] == "状況 = 取消: 7 (#2, #5, #6, #7, #8, ...), 状況 = 見本: 1 (#3), 取消日: 1 (#4)"
    assert message("W_ROWS_SKIPPED", "en", warning.detail).endswith(f": 9; {warning.detail['by']}.")


def test_of_a_file_in_which_every_row_is_skipped_it_is_said_that_they_are(tmp_path) -> None:
    with pytest.raises(FileRejected) as refused:
        stage(tmp_path, SKIP, *(f"A-{at},C1,見本,1000,invoice,取消," for at in (1, 2)))
    assert "2 rows were skipped, as the client's profile says; 状況 = 取消: 2 (#1, #2)" in str(refused.value)


def test_headers_that_a_profile_looks_at_are_not_said_to_be_ignored_and_more_than_are_shown_are_counted(tmp_path) -> None:
    others = ",".join(f"x{letter}" for letter in "abcdefghijkl")
    settings = SKIP | {"reject": [{"header": "返金額", "except": ["0"]}]}
    row = f"A-1,C1,見本,1000,invoice,済,,0{',' * 12}"
    (warning,) = stage(tmp_path, settings, row, more=f"状況,取消日,返金額,{others}").warnings
    assert (warning.code, warning.detail["count"], warning.detail["more"]) == ("W_UNKNOWN_COLUMN", "12", "2")
    assert message(warning.code, "en", warning.detail) == (
        "Columns that are not known were ignored (12): xa, xb, xc, xd, xe, xf, xg, xh, xi, xj and 2 more."
    )


def test_only_a_choice_that_is_optional_may_lack_its_header(tmp_path) -> None:
    choice = {"header": "返金額", "except": ["0"]}
    row = "A-1,C1,見本,1000,invoice,済,"
    for setting in ("skip", "reject"):
        with pytest.raises(FileRejected) as refused:
            stage(tmp_path, {setting: [choice]}, row)
        assert (refused.value.code, refused.value.detail["columns"]) == ("F_HEADER_MISSING", "返金額")
        assert stage(tmp_path, {setting: [choice | {"optional": True}]}, row).rows_skipped == 0


STATUS: dict[str, Any] = {
    "skip": [{"header": "状況", "values": ["取消"]}, {"header": "取消日", "except": []}],
    "reject": [{"header": "返金額", "except": ["0"]}],
}
WIDER = "状況,取消日,返金額"


def judged(tmp_path, settings: dict[str, Any], more: str = WIDER) -> tuple[list[int], dict[int, list[tuple[str, Any]]]]:
    """Return the rows of the file that `stage` or a test wrote which are accepted, and what is said of the others."""
    profile = Profile.model_validate(settings)
    validate(
        tmp_path / "staged.parquet",
        tmp_path / "accepted",
        tmp_path / "rejections",
        record_type=ORDERS,
        context=context_of(profile, "utf-8"),
        seal=nothing_sealed,
        existing=lambda _: {},
    )
    rejected: dict[int, list[tuple[str, Any]]] = {}
    for each in pq.read_table(tmp_path / "rejections").to_pylist():
        rejected.setdefault(each["import_row_number"], []).append((each["code"], json.loads(each["detail"])))
    return pq.read_table(tmp_path / "accepted").column("import_row_number").to_pylist(), rejected


def codes(rejected: dict[int, list[tuple[str, Any]]]) -> dict[int, list[str]]:
    return {row: [code for code, _ in found] for row, found in rejected.items()}


ROW = "A-{},C1,見本,1000,invoice,{}"


@pytest.mark.parametrize(
    ("odd", "code"),
    [
        ("A-2,C1,見本,商店,1000,invoice,済,,", "R_COLUMNS"),  # a comma that nobody quoted: the state stands under 取消日
        ("A-2,C1,見本,1,000,invoice,,,", "R_COLUMNS"),
        ("A-2,C1,見本,1000,済,取消日,", "R_COLUMNS"),
        ("A-2,C1,見本\x07,1000,invoice,済,11/28,", "R_CHARS"),
    ],
    ids=["more", "split", "fewer", "control"],
)
def test_a_row_that_is_not_whole_is_rejected_and_never_skipped_by_what_slipped_into_the_place(tmp_path, odd, code) -> None:
    staged = stage(tmp_path, STATUS, ROW.format(1, "済,,"), odd, ROW.format(3, "済,,"), ROW.format(4, "取消,,"), more=WIDER)
    assert staged.rows_skipped == 1
    accepted, rejected = judged(tmp_path, STATUS)
    assert (accepted, codes(rejected)) == ([1, 3], {2: [code]})


def test_a_header_among_the_rows_refuses_the_file_and_is_not_skipped_for_its_own_words(tmp_path) -> None:
    again = f"{HEADER.replace('customer_code,customer_name', 'customer_name,customer_code')},{WIDER}"
    with pytest.raises(FileRejected) as refused:
        stage(tmp_path, STATUS, ROW.format(1, "済,,"), again, ROW.format(2, "済,,"), more=WIDER)
    assert refused.value.code == "F_HEADER_REPEATED"


def test_what_looks_like_a_part_of_a_header_is_for_a_person_to_decide(tmp_path) -> None:
    stage(tmp_path, STATUS, ROW.format(1, "済,,"), "client_order_ref,C1,見本,1000,invoice,状況,取消日,", more=WIDER)
    accepted, rejected = judged(tmp_path, STATUS)
    assert (accepted, codes(rejected)) == ([1], {2: ["R_TO_DECIDE"]})


@pytest.mark.parametrize(
    ("cell", "code"), [("#N/A", "R_CELL_ERROR"), ("#FORMULA!", "R_CELL_FORMULA"), ("#FORMAT! 0 (320)", "R_CELL_FORMAT")]
)
@pytest.mark.parametrize(
    ("place", "header"), [("{},,", "状況"), ("済,{},", "取消日"), ("済,,{}", "返金額"), ("取消,,{}", "返金額")]
)
def test_a_row_is_rejected_by_a_cell_of_which_nobody_knows_what_it_says(tmp_path, cell, code, place, header) -> None:
    stage(tmp_path, STATUS, ROW.format(1, "済,,"), ROW.format(2, place.format(cell)), more=WIDER)
    accepted, rejected = judged(tmp_path, STATUS)
    assert (accepted, rejected) == ([1], {2: [(code, {"column": header, "said": header})]})
    assert header in message(code, "ja", rejected[2][0][1])


def workbook(tmp_path, cells: list[tuple[Any, str]], place: int = 2, merges: tuple[str, ...] = ()) -> list[str]:
    """Return what became of rows of a workbook with such cells, each with its format, under one header of `WIDER`."""
    book = openpyxl.Workbook()
    book.calculation.fullCalcOnLoad = False
    sheet = book.worksheets[0]
    sheet.append([*HEADER.split(","), *WIDER.split(",")])
    for at, (value, number_format) in enumerate(cells, 1):
        sheet.append([f"A-{at}", "C1", "見本", 1000, "invoice", None, None, None])
        sheet.cell(at + 1, 6 + place, value).number_format = number_format.removeprefix("struck")
        if number_format.startswith("struck"):
            sheet.cell(at + 1, 6 + place).font = Font(strike=True)
    for merge in merges:
        sheet.merge_cells(merge)
    book.save(tmp_path / "orders.xlsx")
    stage_file(Limits(), Profile.model_validate(STATUS), tmp_path / "orders.xlsx", "orders.xlsx", tmp_path)
    accepted, rejected = judged(tmp_path, STATUS)
    said = dict.fromkeys(accepted, "accepted") | {row: found[0] for row, found in codes(rejected).items()}
    return [said.get(row, "skipped") for row in range(1, len(cells) + 1)]


@pytest.mark.parametrize(
    ("value", "number_format", "became"),
    [
        (0, "General", "accepted"),
        (320, "General", "R_TO_DECIDE"),
        (320, "#,##0,", "R_CELL_FORMAT"),
        (320, ";;;", "R_CELL_FORMAT"),
        (320, '[>1000]#,##0;"0"', "R_CELL_FORMAT"),
        (0.004, "0%", "R_CELL_FORMAT"),
        ("320", ";;;", "R_CELL_FORMAT"),
        (0, '#,##0;[Red]-#,##0;"-"', "accepted"),
        (0, '_ * #,##0_ ;_ * -#,##0_ ;_ * "-"_ ;_ @_ ', "accepted"),
        (0, ";;;", "accepted"),
        (0, "0.000", "accepted"),
        ("=300+20", "General", "R_CELL_FORMULA"),
        (320, "struckGeneral", "R_CELL_FORMAT"),
    ],
)
def test_a_cell_of_a_workbook_that_shows_something_else_decides_nothing(tmp_path, value, number_format, became) -> None:
    assert workbook(tmp_path, [(value, number_format)]) == [became]


def test_a_row_is_not_skipped_or_charged_by_a_word_that_a_workbook_does_not_show(tmp_path) -> None:
    cells = [("取消", "General"), ("取消", ";;;"), ('="取"&"消"', "General"), ("取消", ';;;"済"'), ("済", "@")]
    assert workbook(tmp_path, cells, 0) == ["skipped", "R_CELL_FORMAT", "R_CELL_FORMULA", "R_CELL_FORMAT", "accepted"]
    day = [(45000, "yyyy/m/d"), (45000.5, "m/d h:mm"), (45000, ";;;")]
    assert workbook(tmp_path, day, 1) == ["skipped", "skipped", "R_CELL_FORMAT"]


def test_a_row_whose_state_is_merged_into_the_one_above_is_rejected(tmp_path) -> None:
    cells = [("取消", "General"), (None, "General"), ("済", "General")]
    assert workbook(tmp_path, cells, 0, ("F2:F3",)) == ["skipped", "R_CELL_FORMAT", "accepted"]
    assert workbook(tmp_path, [(300, "General"), (None, "General")], 2, ("H2:H3",)) == ["R_TO_DECIDE", "R_CELL_FORMAT"]


@pytest.mark.parametrize("rows", [("済,,", "取消,,"), ("取消,,", "済,,"), ("済,,", "済,,300"), ("済,,300", "済,,")])
@pytest.mark.parametrize("reference", ["A-1", "a-1 ", '"=""A-1"""'])
def test_an_order_that_comes_twice_is_not_charged_where_one_row_of_it_says_that_it_may_not_be(
    tmp_path, rows, reference
) -> None:
    first, again = (ROW.format(1, row) for row in rows)
    stage(tmp_path, STATUS, first, ROW.format(2, "済,,"), again.replace("A-1", reference), more=WIDER)
    accepted, rejected = judged(tmp_path, STATUS)
    assert accepted == [2]
    kept = {row for row, said in ((1, rows[0]), (3, rows[1])) if "取消" not in said}
    assert set(rejected) == kept
    assert all("R_REF_CONFLICT" in found for found in codes(rejected).values())
    conflicts = [detail for found in rejected.values() for code, detail in found if code == "R_REF_CONFLICT"]
    assert conflicts == [{"first_row": str(*({1, 3} - kept or {1}))}] * len(kept)


def test_rows_that_repeat_each_other_and_say_the_same_are_as_before(tmp_path) -> None:
    states = ["済,,", "済,,", "取消,,", "取消,,"]
    refs = [1, 1, 2, 2]
    stage(tmp_path, STATUS, *(ROW.format(*each) for each in zip(refs, states, strict=True)), more=WIDER)
    accepted, rejected = judged(tmp_path, STATUS)
    assert (accepted, codes(rejected)) == ([1], {2: ["R_REF_DUP_IN_FILE"]})


FILLED = {"customer_code": "C-9", "customer_name": "店", "payment_method": "invoice", "notify_channel": "none"}
TOTALS = {
    "columns": {column: {"default": word, "header": column} for column, word in FILLED.items()},
    "skip": STATUS["skip"],
}


@pytest.mark.parametrize(
    ("state", "yen", "accepted"), [("取消,,", 3000, [1, 3]), ("取消,,", 2000, [1, 3]), ("済,,", 1500, [1, 2, 3, 4])]
)
def test_a_total_of_a_file_of_which_rows_were_skipped_is_no_order_whatever_it_comes_to(
    tmp_path, state, yen, accepted
) -> None:
    rows = [ROW.format(1, "済,,"), ROW.format(2, state), ROW.format(3, "済,,"), f"TOTAL,,,{yen},,,,"]
    stage(tmp_path, TOTALS, *rows, more=WIDER)
    found, rejected = judged(tmp_path, TOTALS)
    assert found == accepted
    assert codes(rejected) == ({} if 4 in accepted else {4: ["R_TOTAL_ROW"]})

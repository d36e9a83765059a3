"""Orders of several rows: what a file of lines comes to with a client's profile. Sums are worked out by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openpyxl
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.intake import order_groups
from orders_pipeline.intake.csv_file import Dialect, Limits
from orders_pipeline.intake.file_staging import stage_file
from orders_pipeline.intake.file_validation import context_of
from orders_pipeline.intake.grouped_validation import validate_grouped
from orders_pipeline.intake.rejected_before import together
from orders_pipeline.intake.repeated_orders import RepeatedOrders
from orders_pipeline.intake.validation import Validated, nothing_sealed
from orders_pipeline.records.corrected_rows import Corrections, NamedRow
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.web.page import edits, fixing
from orders_pipeline.web.page.deciding import Deciding
from orders_pipeline.web.page.sheet import Sheet

HEADER = "注文番号,得意先コード,得意先名,商品コード,数量,単価,金額,送料,支払方法,備考"
OF_LINES: dict[str, Any] = {"lines": "grouped", "columns": {"amount": {"header": "金額", "each": "line"}}}
SKIPPING: dict[str, Any] = OF_LINES | {"skip": [{"header": "状況", "values": ["取消"]}]}
OF_ORDERS: dict[str, Any] = {"lines": "grouped"}
COMPUTED: dict[str, Any] = {"lines": "grouped", "columns": {"amount": {"multiply": ["単価", "数量"], "add": ["送料"]}}}
WITH_POSTAGE: dict[str, Any] = {
    "lines": "grouped",
    "columns": {"amount": {"header": "金額", "each": "line", "add_each_line": ["送料"]}},
}


def line(ref: str, item: str = "A-1,2,500,1000", *, customer: str = "C01,見本商店", end: str = ",invoice,") -> str:
    """Return a row; `item` is the code, quantity, price and amount, `end` postage, how it is paid, a note."""
    return f"{ref},{customer},{item},{end}"


def write_workbook(target: Path, rows: list[str]) -> None:
    """Write rows as a sheet, with numbers as numbers."""
    workbook = openpyxl.Workbook()
    sheet = workbook.worksheets[0]
    for row in rows:
        sheet.append([int(cell) if cell.isdecimal() else cell or None for cell in row.split(",")])
    workbook.save(target)


@dataclass
class Outcome:
    summary: Validated
    accepted: list[dict[str, Any]]
    rejected: dict[int, list[tuple[str | None, str, dict[str, str]]]]

    @property
    def amounts(self) -> dict[str, int]:
        return {order["client_order_ref"]: order["amount"] for order in self.accepted}

    @property
    def codes(self) -> dict[int, list[str]]:
        return {row: [code for _, code, _ in found] for row, found in self.rejected.items()}


@pytest.fixture
def run(tmp_path: Path):
    def run(
        settings: dict[str, Any],
        *rows: str,
        header: str = HEADER,
        chunk_rows: int = 1000,
        name: str = "orders.csv",
        corrections: Corrections | None = None,
        **known: str,
    ) -> Outcome:
        profile = Profile.model_validate(settings)
        source = tmp_path / name
        if name.endswith(".xlsx"):
            write_workbook(source, [header, *rows])
        else:
            source.write_text("\r\n".join([header, *rows, ""]), "utf-8-sig")
        staged = stage_file(Limits(), profile, source, source.name, tmp_path)
        grouping = profile.grouping()
        assert grouping is not None
        paths = [tmp_path / name for name in ("accepted", "rejections")]
        summary = validate_grouped(
            tmp_path / "staged.parquet",
            *paths,
            context=context_of(profile, "utf-8"),
            grouping=grouping,
            seal=nothing_sealed,
            repeated=RepeatedOrders(
                ORDERS,
                lambda references: {each: known[each] for each in references if each in known},
                lambda rows, _: [()] * len(rows.number),
                lambda _: {},
            ),
            corrections=corrections,
            chunk_rows=chunk_rows,
        )
        rejected: dict[int, list[tuple[str | None, str, dict[str, str]]]] = {}
        for each in pq.read_table(paths[1]).to_pylist():
            found = (each["column"], each["code"], json.loads(each["detail"]))
            rejected.setdefault(each["import_row_number"], []).append(found)
        left_out = staged.rows_skipped + staged.rows_blank
        assert summary.rows_accepted + summary.rows_rejected + left_out == len(rows)
        return Outcome(summary, pq.read_table(paths[0]).to_pylist(), rejected)

    return run


def test_rows_of_a_reference_are_one_order_with_the_sum_of_its_lines(run):
    found = run(OF_LINES, line("O-1", "A-1,2,1000,2000"), line("O-1", "A-2,1,500,500"), line("O-2", "A-1,1,1000,1000"))
    assert found.amounts == {"O-1": 2500, "O-2": 1000}
    assert (found.summary.rows_accepted, found.summary.rows_continuing, found.summary.amount_accepted) == (3, 1, 3500)
    first = found.accepted[0]
    assert (first["import_row_number"], first["line_count"], first["amount_added"], first["item_code"]) == (1, 2, 0, None)
    assert [list(each.values()) for each in first["lines"]] == [[1, "A-1", 2, 1000, 2000], [2, "A-2", 1, 500, 500]]


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 1000])
def test_rows_of_an_order_may_stand_anywhere_in_the_file(run, chunk_rows):
    refs = ["O-1", "O-2", "O-3", "o-1", "O-4", "O-2", "O-1", "O-4"]
    rows = [line(ref, f"A-{at},1,{2**at},{2**at}") for at, ref in enumerate(refs)]
    found = run(OF_LINES, *rows, chunk_rows=chunk_rows)
    assert found.amounts == {"O-1": 1 + 8 + 64, "O-2": 2 + 32, "O-3": 4, "O-4": 16 + 128}


@pytest.mark.parametrize("chunk_rows", [1, 2, 1000])
def test_rows_of_orders_that_are_accepted_stand_in_turn_whatever_their_place_in_the_file(run, chunk_rows):
    references = ("O-1", "O-2", "O-3", "O-1", "O-4", "O-2", "O-1")
    rows = [line(ref, f"A-{at},1,100,100") for at, ref in enumerate(references)]
    found = run(OF_LINES, *rows, chunk_rows=chunk_rows)
    assert [order["import_row_number"] for order in found.accepted] == [1, 2, 3, 5]
    assert [[each["import_row_number"] for each in order["lines"]] for order in found.accepted] == [
        [1, 4, 7],
        [2, 6],
        [3],
        [5],
    ]


def test_an_amount_of_the_order_is_the_same_or_blank_on_its_rows(run):
    found = run(
        OF_ORDERS,
        line("O-1", "A-1,1,1000,3800"),
        line("O-1", "A-2,2,1000,"),
        line("O-2", "A-1,1,1200,1320"),
        line("O-2", "A-1,1,1200,1320"),
        line("O-3", "A-1,1,100,100"),
        line("O-3", "A-1,1,100,200"),
    )
    assert found.amounts == {"O-1": 3800, "O-2": 1320}
    assert {each["amount"] for order in found.accepted for each in order["lines"]} == {None}
    assert found.rejected[6] == [("client_order_ref", "R_REF_CONFLICT", {"first_row": "5", "columns": "amount"})]
    assert found.rejected[5] == [("client_order_ref", "R_ORDER_INCOMPLETE", {"other_row": "6"})]


def test_a_computed_amount_is_the_sum_of_products_and_what_counts_once(run):
    found = run(
        COMPUTED,
        line("O-1", "A-1,2,1000,", end="600,invoice,"),
        line("O-1", "A-2,1,500,", end=",invoice,"),
        line("O-1", "A-3,3,20,", end="600,invoice,"),
        line("O-2", ",1,1500,", end=",invoice,"),
        line("O-3", "A-1,1,900,", end=",invoice,"),
        line("O-3", "値引き,1,-100,", end=",invoice,"),
    )
    assert found.amounts == {"O-1": 2000 + 500 + 60 + 600, "O-2": 1500, "O-3": 800}
    assert [order["amount_added"] for order in found.accepted] == [600, 0, 0]
    assert [each["amount"] for each in found.accepted[0]["lines"]] == [2000, 500, 60]


@pytest.mark.parametrize("chunk_rows", [1, 1000])
def test_what_is_added_on_each_line_is_summed_beside_the_lines_amounts(run, chunk_rows):
    found = run(
        WITH_POSTAGE,
        line("O-1", "A-1,2,1000,2000", end="350.00,invoice,"),
        line("O-2", "A-1,1,900,900", end=",invoice,"),
        line("O-1", "A-2,1,500,500", end="120,invoice,"),
        line("O-1", "A-3,3,20,60", end=",invoice,"),
        line("O-3", "A-1,1,900,900", end="300,invoice,"),
        line("O-3", "A-1,1,100,100", end="-50,invoice,"),
        chunk_rows=chunk_rows,
    )
    assert found.amounts == {"O-1": 2000 + 350 + 500 + 120 + 60, "O-2": 900, "O-3": 900 + 300 + 100 - 50}
    assert [order["amount_added"] for order in found.accepted] == [470, 0, 250]
    assert [each["amount"] for each in found.accepted[0]["lines"]] == [2000, 500, 60]
    assert found.summary.amount_accepted == 3030 + 900 + 1250


def test_one_amount_may_have_what_counts_once_and_what_counts_on_each_line(run):
    amount = {"multiply": ["単価", "数量"], "add": ["手数料"], "add_each_line": ["送料", "包装料"]}
    header = "注文番号,得意先コード,得意先名,支払方法,単価,数量,手数料,送料,包装料"
    rows = ["O-1,C01,見本商店,invoice,1000,2,330,500,10", "O-1,C01,見本商店,invoice,700,1,330,200,20"]
    found = run({"lines": "grouped", "columns": {"amount": amount}}, *rows, header=header)
    assert found.amounts == {"O-1": 2000 + 700 + 330 + 500 + 10 + 200 + 20}
    assert found.accepted[0]["amount_added"] == 330 + 730
    without = run({"lines": "grouped", "columns": {"amount": amount | {"add": []}}}, *rows, header=header)
    assert without.amounts == {"O-1": 2700 + 730}


@pytest.mark.parametrize("name", ["orders.csv", "orders.xlsx"])
def test_factors_may_be_columns_that_are_known_by_no_name(run, name):
    profile = {"lines": "grouped", "columns": {"amount": {"multiply": ["税込単価", "個数"], "add": ["手数料"]}}}
    header = "注文番号,得意先コード,得意先名,支払方法,税込単価,個数,手数料"
    rows = [f"O-1,C01,見本商店,invoice,{rest}" for rest in ("1100,2,330", "550,1,330")]
    found = run(profile, *rows, header=header, name=name)
    assert found.amounts == {"O-1": 2200 + 550 + 330}
    broken = run(profile, "O-1,C01,見本商店,invoice,千円,2,", "O-2,C01,見本商店,invoice,,2,", header=header)
    assert broken.rejected == {1: [("amount", "R_AMOUNT_FORMAT", {})], 2: [("amount", "R_REQUIRED", {})]}


@pytest.mark.parametrize(
    ("profile", "rows", "codes"),
    [
        (OF_LINES, [line("O-1", "A,1,1,x"), line("O-1")], {1: ["R_AMOUNT_FORMAT"], 2: ["R_ORDER_INCOMPLETE"]}),
        (OF_LINES, [line("O-1"), line("O-1", "A,1,1,")], {1: ["R_ORDER_INCOMPLETE"], 2: ["R_REQUIRED"]}),
        (OF_LINES, [line("O-1"), line("O-1", "A,2,500,999")], {1: ["R_ORDER_INCOMPLETE"], 2: ["R_AMOUNT_MISMATCH"]}),
        (OF_LINES, [line("O-1", ",,,999999"), line("O-1", ",,,2")], {1: ["R_AMOUNT_OVER_LIMIT"], 2: ["R_ORDER_INCOMPLETE"]}),
        (OF_LINES, [line("O-1", ",,,500"), line("O-1", ",,,-500")], {1: ["R_AMOUNT_RANGE"], 2: ["R_ORDER_INCOMPLETE"]}),
        (COMPUTED, [line("O-1"), line("O-1", "A,x,500,")], {1: ["R_ORDER_INCOMPLETE"], 2: ["R_QUANTITY"]}),
        (COMPUTED, [line("O-1", end="無料,invoice,"), line("O-1")], {1: ["R_AMOUNT_FORMAT"], 2: ["R_ORDER_INCOMPLETE"]}),
        (
            WITH_POSTAGE,
            [line("O-1", end="1,invoice,"), line("O-1", end="無料,invoice,")],
            {1: ["R_ORDER_INCOMPLETE"], 2: ["R_AMOUNT_FORMAT"]},
        ),
        (
            WITH_POSTAGE,
            [line("O-1", end="600000000,invoice,"), line("O-1", end="600000000,invoice,")],
            {1: ["R_AMOUNT_OVER_LIMIT"], 2: ["R_ORDER_INCOMPLETE"]},
        ),
        (
            COMPUTED,
            [line("O-1", end="1,invoice,"), line("O-1", end="2,invoice,")],
            {1: ["R_ORDER_INCOMPLETE"], 2: ["R_REF_CONFLICT"]},
        ),
        (OF_LINES, [line("O-1", customer=","), line("O-1")], {1: ["R_REQUIRED", "R_REQUIRED"], 2: ["R_REF_CONFLICT"]}),
        (OF_LINES, [line("O-1"), line("O-1", end=",invoice,\u202e")], {1: ["R_ORDER_INCOMPLETE"], 2: ["R_CHARS"]}),
    ],
)
def test_a_bad_row_rejects_its_whole_order_and_no_other(run, profile, rows, codes):
    found = run(profile, *rows, line("O-9"))
    assert found.codes == codes
    assert list(found.amounts) == ["O-9"]


def test_what_is_added_comes_to_no_more_than_a_line_may(run):
    profile = {
        "lines": "grouped",
        "columns": {"amount": {"header": "金額", "each": "line", "add": ["送料", "手数料", "梱包"]}},
    }
    header = "注文番号,得意先コード,得意先名,支払方法,金額,送料,手数料,梱包"
    most = "999999999"
    rows = [f"-{most},{most},{most},{most}", f"-{most},,,", "-999990000,,,"]
    found = run(
        profile, *(f"O-1,C01,見本商店,invoice,{row}" for row in rows), "O-2,C01,見本商店,invoice,7,,,", header=header
    )
    assert found.codes == {1: ["R_AMOUNT_OVER_LIMIT"], 2: ["R_ORDER_INCOMPLETE"], 3: ["R_ORDER_INCOMPLETE"]}
    assert found.amounts == {"O-2": 7}


@pytest.mark.parametrize(
    ("setting", "added", "codes"),
    [
        ({"default": "1000"}, "", {}),
        ({"values": {"無料": "0"}}, "無料", {1: ["R_AMOUNT_FORMAT"]}),
        ({"after": "円"}, "円5", {1: ["R_AMOUNT_FORMAT"]}),
    ],
)
def test_how_the_amount_is_translated_says_nothing_of_what_is_added(run, setting, added, codes):
    profile = {"lines": "grouped", "columns": {"amount": {"header": "金額", "each": "line", "add": ["送料"], **setting}}}
    found = run(profile, line("O-1", "A-1,1,500,円500" if "after" in setting else "A-1,1,500,500", end=f"{added},invoice,"))
    assert (found.codes, found.amounts) == (codes, {} if codes else {"O-1": 500})


def test_below_the_first_row_blank_cells_inherit_and_the_same_written_otherwise_is_the_same(run):
    found = run(
        OF_LINES, line("O-1", end=",invoice,ﾒﾓ"), line("O-1", customer=",", end=",,"), line("O-1", end=",INVOICE,ﾒﾓ")
    )
    assert found.amounts == {"O-1": 3000}
    assert found.accepted[0]["payment_method"] == "invoice"


def test_an_order_that_was_received_before_is_so_in_all_of_its_rows(run):
    found = run(OF_LINES, line("O-1"), line("O-2"), line("O-1", "A-2,1,500,500"), **{"o-1": "20261129-000000000001"})
    assert found.codes == {1: ["R_REF_EXISTS"], 3: ["R_REF_EXISTS"]}
    assert list(found.amounts) == ["O-2"]


@pytest.mark.parametrize("below", ["O-1", "O-1 ", "o-1", "Ｏ-1", '"=""O-1"""'])
@pytest.mark.parametrize("between", [(), ("",), (",,,,,,,,,,",)], ids=["next", "blank", "commas"])
def test_the_rows_below_a_skipped_one_go_with_it_however_their_reference_is_written(run, below, between):
    rows = [line("O-1") + ",取消", *between, line(below, "A-2,1,500,500") + ",", line("O-2", "A-1,1,500,500") + ",済"]
    found = run(SKIPPING, *rows, header=f"{HEADER},状況")
    assert (found.amounts, found.codes) == ({"O-2": 500}, {})


@pytest.mark.parametrize("chunk_rows", [1, 1000])
@pytest.mark.parametrize(
    ("states", "codes"),
    [
        (["O-1取消", "O-2済", "o-1"], {3: ["R_ORDER_INCOMPLETE"]}),
        (["O-1済", "O-2済", "O-1取消"], {1: ["R_ORDER_INCOMPLETE"]}),
        (["O-1取消", "O-1済", "O-2済", "O-1済"], {2: ["R_ORDER_INCOMPLETE"], 4: ["R_ORDER_INCOMPLETE"]}),
        (["O-1取消", "O-2済", "O-1取消"], {}),
        (["O-1済", "O-1取消", "O-2済"], {}),  # a line, and not the order
    ],
)
def test_an_order_is_not_taken_in_part_where_rows_of_it_were_skipped_elsewhere(run, states, codes, chunk_rows):
    rows = [f"{line(each[:3], f'A-{at},1,500,500')},{each[3:]}" for at, each in enumerate(states)]
    assert run(SKIPPING, *rows, header=f"{HEADER},状況", chunk_rows=chunk_rows).codes == codes


@pytest.mark.parametrize("chunk_rows", [1, 1000])
def test_an_order_with_an_amount_of_its_own_is_not_charged_for_a_line_that_was_skipped(run, chunk_rows):
    settings = OF_ORDERS | {"skip": SKIPPING["skip"]}
    states = ["O-1済", "O-1取消", "O-2済", "O-3取消", "O-3", "O-3取消"]
    rows = [f"{line(each[:3], f'A-{at},1,500,1500')},{each[3:]}" for at, each in enumerate(states)]
    found = run(settings, *rows, header=f"{HEADER},状況", chunk_rows=chunk_rows)
    assert found.rejected == {1: [(None, "R_ORDER_INCOMPLETE", {"other_row": "2"})]}
    assert found.amounts == {"O-2": 1500}


@pytest.mark.parametrize("chunk_rows", [1, 1000])
def test_a_row_that_is_not_whole_holds_up_its_order_whatever_slipped_under_the_header_of_a_choice(run, chunk_rows):
    header = HEADER.replace("送料", "状況")
    odd = line("O-1", "A,2,500,1,000", end="取消,invoice,")  # 000 stands there, and 取消 behind it
    slipped = line("O-2", "A,1,2,500,取消", end="x,invoice,")
    rows = [odd, line("O-1"), line("O-3"), line("O-2"), slipped, line("O-4"), line("O-5")]
    found = run(SKIPPING | {"skip": [{"header": "状況", "except": []}]}, *rows, header=header, chunk_rows=chunk_rows)
    assert (found.codes[1], found.codes[2], found.codes[5]) == (["R_COLUMNS"], ["R_ORDER_INCOMPLETE"], ["R_COLUMNS"])
    assert not {"O-1", "O-2"} & set(found.amounts)


@pytest.mark.parametrize("cell", ["#N/A", "#FORMAT! 0 (320)"])
def test_an_order_is_not_taken_of_which_a_row_does_not_say_whether_it_is_skipped(run, cell):
    rows = [line("O-1") + ",済", line("O-1", "A-2,1,500,500") + f",{cell}", line("O-2") + ",済"]
    found = run(SKIPPING, *rows, header=f"{HEADER},状況")
    assert found.codes[1] == ["R_ORDER_INCOMPLETE"]
    assert (found.codes[2][0][:7], list(found.amounts)) == ("R_CELL_", ["O-2"])


def test_each_of_several_settings_says_which_rows_of_a_header_are_skipped(run):
    skip = [{"header": "状況", "values": ["取消"]}, {"header": " 状況", "values": ["返品"]}]
    rows = [line("O-1") + ",取消", line("O-2") + ",返品", line("O-3") + ",済"]
    assert list(run(OF_LINES | {"skip": skip}, *rows, header=f"{HEADER},状況").amounts) == ["O-3"]


@pytest.mark.parametrize("chunk_rows", [1, 1000])
def test_an_order_is_rejected_whole_that_a_person_has_to_decide_on_and_so_is_no_other(run, chunk_rows):
    settings = OF_LINES | {"reject": [{"header": "返金額", "except": ["0"]}, {"header": "状況", "values": ["一部返金"]}]}
    states = ["O-1,100,一部返金", "O-1,,", "O-2,0.00,済", "O-2,,", "O-3,0,一部返金", "O-1,,"]
    rows = [f"{line(each[:3], f'A-{at},1,500,500')}{each[3:]}" for at, each in enumerate(states)]
    found = run(settings, *rows, header=f"{HEADER},返金額,状況", chunk_rows=chunk_rows)
    assert found.amounts == {"O-2": 1000}
    assert found.codes == {1: ["R_TO_DECIDE"], 2: ["R_ORDER_INCOMPLETE"], 5: ["R_TO_DECIDE"], 6: ["R_ORDER_INCOMPLETE"]}
    assert found.rejected[1] == [(None, "R_TO_DECIDE", {"said": "返金額, 状況 = 一部返金"})]


def test_of_an_order_that_was_received_before_nobody_has_to_decide(run):
    settings = OF_LINES | {"reject": [{"header": "返金額", "except": ["0"]}]}
    rows = [line("O-1") + ",100", line("O-1", "A-2,1,500,500") + ","]
    found = run(settings, *rows, header=f"{HEADER},返金額", **{"o-1": "20261129-000000000001"})
    assert found.codes == {1: ["R_REF_EXISTS"], 2: ["R_REF_EXISTS"]}


@pytest.mark.parametrize("chunk_rows", [1, 1000])
@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        ("1a 1b 2a 1a 1b 2a", {1: 0, 2: 0, 3: 0, 4: 1, 5: 1, 6: 3}),
        ("1a 2a 1b 1a 2a 1b", {1: 0, 2: 0, 3: 0, 4: 1, 5: 2, 6: 1}),  # the copies of an order meet
        ("1a 1b 2a 1b 1a", {}),
        ("1a 1a 2a 1b", {}),
    ],
)
def test_an_order_that_comes_again_elsewhere_in_the_file_is_not_taken_twice_over(run, lines, codes, chunk_rows):
    found = run(OF_LINES, *(line(f"O-{ref}", f"A-{item},1,500,500") for ref, item in lines.split()), chunk_rows=chunk_rows)
    assert found.codes == {row: ["R_REF_DUP_IN_FILE" if first else "R_ORDER_INCOMPLETE"] for row, first in codes.items()}
    named = {row: said["first_row"] for row, ((_, _, said),) in found.rejected.items() if "first_row" in said}
    assert named == {row: str(first) for row, first in codes.items() if first}


@pytest.mark.parametrize("lost", ["O-1,C01", line(""), line("#N/A")], ids=["shape", "blank", "error"])
def test_orders_next_to_a_row_that_may_be_of_them_are_not_taken_without_it(run, lost):
    found = run(OF_LINES, line("O-1"), lost, line("O-2"), line("O-3"), chunk_rows=1)
    assert (found.codes[1], found.codes[3], list(found.amounts)) == (["R_ORDER_INCOMPLETE"], ["R_ORDER_INCOMPLETE"], ["O-3"])
    assert found.rejected[1][0][2] == {"other_row": "2"}


MALFORMED = ["10 01", "1.001E+03", "1001?", "１００１番", "1001\u200b"]


@pytest.mark.parametrize("lost", MALFORMED)
def test_an_order_is_not_taken_without_a_row_whose_reference_is_malformed(run, lost):
    found = run(OF_LINES, line("1001"), line(lost), line("1002"), line("1003"))
    assert (found.codes[1], found.codes[3], list(found.amounts)) == (
        ["R_ORDER_INCOMPLETE"],
        ["R_ORDER_INCOMPLETE"],
        ["1003"],
    )


@pytest.mark.parametrize("lost", [each for each in MALFORMED if "E" not in each])
@pytest.mark.parametrize("chunk_rows", [1, 1000])
def test_a_row_whose_malformed_reference_seems_to_name_an_order_holds_it_up_from_anywhere(run, lost, chunk_rows):
    found = run(OF_LINES, line("1001"), line("1002"), line("1003"), line(lost), chunk_rows=chunk_rows)
    assert (found.rejected[1][0][2], list(found.amounts)) == ({"other_row": "4"}, ["1002"])


@pytest.mark.parametrize("chunk_rows", [1, 1000])
@pytest.mark.parametrize(
    "lost",
    [
        "2026-11-20,1001,C01,見本,商店,A-1,1,500,500,,invoice,",
        ",2026-11-20,1001,C01,見本商店,A-1,1,500,500,,invoice,",
        "1001",
    ],
    ids=["more_behind", "more_before", "fewer"],
)
def test_a_row_of_the_wrong_shape_holds_up_from_anywhere_the_order_that_it_may_name(run, lost, chunk_rows):
    rows = [f"2026-11-20,{line(ref)}" for ref in ("1001", "1002", "1003")]
    found = run(OF_LINES, *rows, lost, header="受注日," + HEADER, chunk_rows=chunk_rows)
    assert (found.rejected[1][0][2], list(found.amounts)) == ({"other_row": "4"}, ["1002"])


@pytest.mark.parametrize(("profile", "total"), [(OF_LINES, 2500), (OF_ORDERS, 1500)])
def test_a_total_row_is_none_of_the_orders_above_it(run, profile, total):
    rows = [line("O-1", ",,,1000"), line("O-1", ",,,1000"), line("O-2", ",,,500"), f",,,,,,{total},,,"]
    found = run(profile, *rows)
    assert (found.codes, len(found.amounts)) == ({4: ["R_TOTAL_ROW"]}, 2)
    assert (found.summary.amount_sent, found.summary.amounts_unreadable) == (total, 0)


def test_an_order_has_no_more_rows_than_are_judged_in_one_piece(run, monkeypatch):
    monkeypatch.setattr(order_groups, "MOST_LINES", 2)
    found = run(OF_LINES, line("O-1"), line("O-2"), line("O-1"), line("O-1"), chunk_rows=1)
    assert found.codes == {row: ["R_TOO_MANY_LINES"] for row in (1, 3, 4)}


def rejected_together(*numbers: int, only: frozenset[str] | None = None) -> Corrections:
    """Return what is known of rows that were rejected together; corrections may have any reference, or `only` these."""
    named = {number: NamedRow(("b", number), only, {}, []) for number in numbers}
    return Corrections(named, orders=dict.fromkeys(numbers, frozenset(numbers)))


def correcting(number: int, row: str) -> str:
    return f"{row},20261123-b93d56059697,{number}"


@pytest.mark.parametrize("chunk_rows", [1, 1000])
def test_rows_that_were_rejected_together_may_be_corrected_as_several_orders_of_one_file(run, chunk_rows):
    rows = [correcting(1, line("1001")), correcting(2, line("1001B", customer="C02,別の店"))]
    found = run(OF_LINES, *rows, header=HEADER + ",_batch,_row", corrections=rejected_together(1, 2), chunk_rows=chunk_rows)
    assert (found.codes, list(found.amounts)) == ({}, ["1001", "1001B"])


@pytest.mark.parametrize(
    "other",
    [[], [correcting(2, line("10 01"))], [correcting(2, line("O-2"))], [correcting(2, line("O-1") + ",more")]],
    ids=["left_out", "malformed", "changed", "misshapen"],
)
def test_a_correction_is_not_taken_without_what_was_rejected_with_it(run, other):
    rows = [correcting(1, line("O-1")), line("O-5"), line("O-6"), *other]
    corrections = rejected_together(1, 2, only=frozenset({"o-1"}))
    found = run(OF_LINES, *rows, header=HEADER + ",_batch,_row", corrections=corrections)
    assert found.rejected[1] == [(None, "R_ORDER_INCOMPLETE", {"missing": "2"})]


def test_rows_are_together_that_are_tied_by_way_of_others():
    found = together([1, 2, 3, 4, 5, 6], [(1, 2), (3, 2), (4, 9), (9, 5), (6, 6)])
    assert {row: sorted(whole) for row, whole in found.items()} == {
        1: [1, 2, 3],
        2: [1, 2, 3],
        3: [1, 2, 3],
        4: [4],
        5: [5],
        6: [6],
    }


@pytest.mark.parametrize(
    ("profile", "named"),
    [
        ({"columns": {"amount": {"header": "小計", "each": "line"}}}, ("lines = one_per_order", "each = line")),
        ({"columns": {"amount": {"multiply": ["単価", "数量"]}}}, ("lines = one_per_order", "multiply")),
        ({"lines": "grouped", "columns": {"amount": {"multiply": ["a", "b"], "header": "c"}}}, ("multiply", "header")),
        ({"lines": "grouped", "columns": {"amount": {"multiply": ["a", "b"], "each": "line"}}}, ("multiply", "each = line")),
        ({"lines": "grouped", "columns": {"amount": {"header": "a", "add": ["b"]}}}, ("add", "each = order")),
        ({"lines": "grouped", "columns": {"amount": {"header": "a", "add_each_line": ["b"]}}}, ("add_each_line", "order")),
        (
            {"lines": "grouped", "columns": {"amount": {"each": "line", "add": ["b"], "add_each_line": ["Ｂ"]}}},
            ("add_each_line name a header twice",),
        ),
        (
            {"lines": "grouped", "columns": {"amount": {"each": "line", "add_each_line": ["金額"]}}},
            ("amount itself", "twice"),
        ),
        (
            {"lines": "grouped", "columns": {"quantity": {"header": "a", "add_each_line": ["b"]}}},
            ("add_each_line", "quantity"),
        ),
        ({"lines": "grouped", "columns": {"amount": {"multiply": ["a"]}}}, ("multiply names two headers",)),
        ({"lines": "grouped", "columns": {"quantity": {"header": "a", "each": "line"}}}, ("each", "quantity")),
    ],
)
def test_settings_that_contradict_each_other_are_named(profile, named):
    with pytest.raises(ValidationError) as refusal:
        Profile.model_validate(profile)
    assert all(each in str(refusal.value) for each in named)


def test_what_is_corrected_in_the_page_is_sent_with_the_other_rows_of_its_order():
    records = {2: ["O-1", "x"], 3: ["O-2", "x"], 5: ["O 1", "1"], 6: ["", "x"], 7: ["", "1"], 8: ["O-1", "1"]}
    sheet = Sheet(["注文番号", "数量"], records, {"client_order_ref": [0]}, "utf-8", "", Dialect(), "\r\n")
    orders = together([2, 3, 5, 6, 7, 8], [(2, 5), (2, 8)])
    sent = edits.with_whole_orders(sheet, {2: ["O-1", "2"], 6: ["", "3"]}, {2, 3, 5, 6, 7}, orders)
    assert sent == {2: ["O-1", "2"], 5: ["O 1", "1"], 6: ["", "3"]}


def test_the_page_shows_the_cells_for_which_a_person_has_to_decide_and_takes_changes_of_them():
    header = ["注文番号", "金額", "返金額", "状況", "メモ"]
    places = {"client_order_ref": [0], "amount": [1]}
    sheet = Sheet(header, {4: ["O-1", "8000", "3000", "一部返金", "x"]}, places, "utf-8", "", Dialect(), "\r\n")
    detail = {"said": "返金額, 状況 = 一部返金"}
    found = SimpleNamespace(import_row_number=4, column_name=None, code="R_TO_DECIDE", detail=detail)
    profile = {"skip": [{"header": "メモ", "values": ["取消", "返金済"]}], "reject": [{"header": "返金額", "except": ["0"]}]}
    profile["reject"].append({"header": "状況", "values": ["", "一部返金"]})
    table = fixing._table(sheet, Deciding(header), [4], [found], "ja", with_all=False, with_personal=False)
    assert {name for _, name in table["headers"]} == {"注文番号", "金額", "返金額", "状況"}
    ((shown,),) = (table["rows"],)
    assert all(cell.is_open for cell in shown.cells)
    assert [(each.is_charged, each.cells) for each in shown.decisions] == [(True, [(2, ""), (3, "")])]
    deciding = Deciding.of(header, Profile.model_validate(profile))
    offered = deciding.offered({"R_TO_DECIDE"}, [2, 3])
    assert [(each.is_charged, each.word, each.cells) for each in offered] == [
        (False, "取消", [(4, "取消")]),
        (False, "返金済", [(4, "返金済")]),
    ]  # nothing that the state may say lets the row be charged
    charged, *_ = deciding.offered({"R_TO_DECIDE"}, [2])
    assert (charged.is_charged, charged.cells) == (True, [(2, ""), (4, None)])
    assert deciding.offered({"R_TO_DECIDE"}, [2])[1].cells == [(4, "取消"), (2, None)]
    assert [each.word for each in deciding.offered({"R_REF_CONFLICT"}, [])] == ["取消", "返金済"]
    assert deciding.offered({"R_AMOUNT_FORMAT"}, []) == []


def test_the_days_of_orders_are_those_of_their_first_rows(run):
    header = "受注日," + HEADER
    found = run(OF_LINES, f"2026-11-20,{line('O-1')}", f",{line('O-1')}", header=header)
    assert found.accepted[0]["order_date"] == date(2026, 11, 20)

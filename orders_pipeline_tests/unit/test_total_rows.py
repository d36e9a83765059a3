"""The total row under the orders is no order, whatever fills its cells, and an order is no total row."""

from __future__ import annotations

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from orders_pipeline.intake.total_rows import find_total_rows
from orders_pipeline.intake.validation import nothing_sealed, validate
from orders_pipeline.records.judgement import Judge
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.record_type import RowContext
from orders_pipeline_tests.support.factories import TODAY, order_row, order_rows, write_staged

BLANK = dict.fromkeys(ORDERS.column_names, "")


def filled_with(word):
    return lambda cells: pc.if_else(pc.equal(cells, ""), word, cells)


# what the profile fills in, until only a reference is missing
DEFAULTS = {
    "customer_code": filled_with("C-9"),
    "customer_name": filled_with("店"),
    "payment_method": filled_with("invoice"),
}
CONTEXT = RowContext(TODAY, "utf-8", "none", DEFAULTS)


@pytest.fixture
def total(tmp_path):
    def find(rows, chunk_rows=2):
        staged = write_staged(tmp_path / "staged.parquet", rows)
        return sorted(find_total_rows(staged, Judge(ORDERS, CONTEXT), chunk_rows))

    return find


@pytest.mark.parametrize(
    "cells",
    [
        {"client_order_ref": "TOTAL"},
        {"client_order_ref": "合計"},
        {"client_order_ref": "合\u3000計:"},
        {"client_order_ref": "Grand Total"},
        {"customer_name": "総計"},
        {"note": "小計"},
        {"client_order_ref": "集計"},
        {"note": "合計3件"},
        {},
        {"client_order_ref": "SUM", "payment_method": "invoice", "customer_code": "C-9", "notify_channel": "none"},
    ],
)
def test_a_last_row_of_a_sum_and_nothing_else_is_a_total(total, cells):
    rows = [*order_rows(4), BLANK | {"amount": "￥4,000"} | cells]
    assert total(rows) == [5]


@pytest.mark.parametrize(
    "cells",
    [
        {"client_order_ref": "A-9"},
        {"client_order_ref": "TOTAL", "amount": "4001"},
        {"client_order_ref": "TOTAL", "customer_code": "C-1"},
        {"client_order_ref": "TOTAL", "note": "急ぎ"},
        {"client_order_ref": "TOTAL", "amount": ""},
        {"client_order_ref": "TOTAL-1"},
    ],
)
def test_a_row_that_says_more_or_another_amount_is_none(total, cells):
    assert total([*order_rows(4), BLANK | {"amount": "4000"} | cells]) == []


def sum_row(yen, word="TOTAL"):
    return BLANK | {"client_order_ref": word, "amount": str(yen)}


def test_a_subtotal_is_none_either_nor_is_a_total_behind_which_something_stands(total):
    first, second = order_rows(2), [order_row(client_order_ref=f"B-{number}", amount="500") for number in range(3)]
    assert total([*first, sum_row(2000, "Subtotal"), *second, sum_row(1500, "小計"), sum_row(3500)]) == [3, 7, 8]
    tax = order_row(client_order_ref="Tax", amount="200")
    assert total([*first, sum_row(2000, "Subtotal"), tax, sum_row(2200), BLANK | {"note": "以上"}]) == [3, 5]
    assert total([*first, sum_row(2000), *second, sum_row(2000)]) == [3]  # neither what is above nor what came since
    assert total([sum_row(1000)]) == []


def test_amounts_that_cannot_be_read_and_rows_of_another_shape_are_not_summed(total):
    rows = [*order_rows(2), order_row(amount="abc"), order_row(amount="-500"), None]
    assert total([*rows, BLANK | {"client_order_ref": "TOTAL", "amount": "1500"}]) == [6]
    assert total([*rows, None]) == []


def test_a_total_row_is_rejected_with_that_code_alone(tmp_path):
    rows = [*order_rows(3, amount="1,000,000"), BLANK | {"client_order_ref": "TOTAL", "amount": "3000000"}]
    found = validate(
        write_staged(tmp_path / "staged.parquet", rows),
        tmp_path / "accepted.parquet",
        tmp_path / "rejections.parquet",
        record_type=ORDERS,
        context=CONTEXT,
        seal=nothing_sealed,
        existing=lambda _: {},
        chunk_rows=2,
    )
    assert (found.rows_accepted, found.amount_accepted, dict(found.rejections)) == (3, 3_000_000, {"R_TOTAL_ROW": 1})
    rejections = pq.read_table(tmp_path / "rejections.parquet").select(["import_row_number", "column", "code"])
    assert rejections.to_pylist() == [{"import_row_number": 4, "column": None, "code": "R_TOTAL_ROW"}]
    assert pq.read_table(tmp_path / "accepted.parquet").column("import_row_number").to_pylist() == [1, 2, 3]

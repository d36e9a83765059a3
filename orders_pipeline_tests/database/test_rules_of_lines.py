"""The schema's rules of lines: they are those of their order, come to its amount, and stay and go with it."""

from __future__ import annotations

import pytest

from orders_pipeline_tests.support.ledgers import Harness, order
from orders_pipeline_tests.support.schema_rules import breaks, refused_by

INSERT = "INSERT INTO order_lines VALUES {}"
LINES = "('b', 1, 1, 'A-1', 2, 300, 600), ('b', 1, 3, 'A-2', 1, 300, 300)"  # with 100 once, 1000 together


@pytest.fixture
def grouped(harness: Harness) -> Harness:
    """A database with an order of two rows, of which the lines are not written yet, and one of a single row."""
    harness.batch("b", status="validated")
    harness.orders(order(1, line_count=2, amount_added=100), order(2))
    return harness


@breaks("order_lines_make_orders", "order_lines_item_amount", "order_lines_pkey")
@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        ("('b', 1, 1, 'A-1', 2, 300, 600)", "order_lines_make_orders"),
        ("('b', 1, 1, NULL, NULL, NULL, 899), ('b', 1, 3, NULL, NULL, NULL, 2)", "order_lines_make_orders"),
        ("('b', 1, 1, NULL, NULL, NULL, 900), ('b', 1, 3, 'A', 1, 1, NULL)", "order_lines_make_orders"),
        ("('b', 1, 3, NULL, NULL, NULL, 600), ('b', 1, 4, NULL, NULL, NULL, 300)", "order_lines_make_orders"),
        ("('b', 2, 2, NULL, NULL, NULL, 1000)", "order_lines_make_orders"),
        ("('b', 4, 4, NULL, NULL, NULL, 1000)", "order_lines_make_orders"),
        ("('b', 1, 1, 'A-1', 2, 300, 601), ('b', 1, 3, NULL, NULL, NULL, 299)", "order_lines_item_amount"),
        ("('b', 1, 1, NULL, NULL, NULL, 600), ('b', 1, 1, NULL, NULL, NULL, 300)", "order_lines_pkey"),
    ],
)
def test_lines_are_those_of_their_order_and_come_to_its_amount(grouped, lines, rule):
    with refused_by(rule):
        grouped.run(INSERT.format(lines))


def test_lines_without_amounts_are_of_an_order_whose_amount_is_its_own(harness):
    harness.batch("b", status="validated")
    harness.orders(order(1, line_count=2))
    with refused_by("order_lines_make_orders"):
        harness.run(INSERT.format(LINES))
    harness.run(INSERT.format("('b', 1, 1, 'A-1', 2, 300, NULL), ('b', 1, 3, NULL, NULL, NULL, NULL)"))


@breaks("order_lines_stay", "orders_with_lines_stay", "order_lines_go_not_alone", "order_lines_go_with_orders")
def test_lines_never_change_and_go_with_their_order(grouped):
    grouped.run(INSERT.format(LINES))
    with refused_by("order_lines_stay"):
        grouped.run("UPDATE order_lines SET item_code = 'B'")
    for change in ("amount = 999", "line_count = 1", "amount_added = NULL", "import_row_number = 9"):
        with refused_by("orders_with_lines_stay"):
            grouped.run(f"UPDATE orders SET {change} WHERE import_row_number = 1")
    grouped.run("UPDATE orders SET status = 'paying'")
    with refused_by("order_lines_go_not_alone"):
        grouped.run("DELETE FROM order_lines WHERE import_row_number = 3")
    grouped.run("DELETE FROM orders")
    assert grouped.value("SELECT count(*) FROM order_lines") == 0


@breaks("orders_lines_have_the_item")
@pytest.mark.parametrize(
    "changes",
    [{"line_count": 0}, {"amount_added": 0}, {"line_count": 1, "item_code": "A", "quantity": 1, "unit_price": 1000}],
)
def test_an_order_has_an_item_of_its_own_or_lines(harness, changes):
    with refused_by("orders_lines_have_the_item"):
        harness.orders(order(1, **changes))


@breaks("batches_have_all_lines", "batches_rows_continuing_accepted")
def test_a_batch_is_loaded_with_all_lines_of_its_orders(grouped):
    counts = "rows_total = 3, rows_blank = 0, rows_rejected = 0, rows_accepted = 3, rows_continuing = %s"
    for continuing in (-1, 4):
        with refused_by("batches_rows_continuing_accepted"):
            grouped.run(f"UPDATE batches SET {counts}", continuing)
    grouped.run(f"UPDATE batches SET {counts}", 1)
    with refused_by("batches_have_all_lines"):
        grouped.run("UPDATE batches SET status = 'loaded'")
    grouped.run(INSERT.format(LINES))
    grouped.run("UPDATE batches SET status = 'loaded'")

"""Sequence numbers: read out of a name by a template, and the gaps they show."""

from __future__ import annotations

import pytest

from orders_pipeline.clients.sequences import Position, check_template, missing_before, position_of


@pytest.mark.parametrize(
    ("pattern", "name", "position"),
    [
        ("orders-{number}.csv", "orders-0007.csv", Position("", 7)),
        ("orders-{number}.csv", "ORDERS-7.CSV", Position("", 7)),
        ("{series}_{number}.csv", "20260401_2.csv", Position("20260401", 2)),
        ("注文({number}).csv", "注文(12).csv", Position("", 12)),
        ("a.{number}.csv", "aX1.csv", None),
        ("orders-{number}.csv", "orders-.csv", None),
        ("orders-{number}.csv", "orders-１.csv", None),
        ("orders-{number}.csv", "orders-1.csv.bak", None),
        ("{series}-{number}.csv", "-1.csv", None),
        ("{number}.csv", "1234567890123456.csv", None),
    ],
)
def test_a_template_reads_the_place_of_a_file_or_says_that_it_has_none(pattern, name, position):
    assert position_of(name, check_template(pattern)) == position


@pytest.mark.parametrize("pattern", ["orders.csv", "{number}{number}", "{series}.csv", "{number}-{other}", "{number}}", ""])
def test_a_template_without_one_number_is_refused(pattern):
    with pytest.raises(ValueError, match=r"\{number\} once"):
        check_template(pattern)


@pytest.mark.parametrize(
    ("series", "number", "latest", "missing"),
    [
        ("", 8, 7, None),
        ("", 9, 7, 8),
        ("", 57, None, None),
        ("day", 1, None, None),
        ("day", 0, None, None),
        ("day", 2, None, 1),
        ("day", 3, 1, 2),
    ],
)
def test_a_gap_is_the_number_after_the_latest_one_before(series, number, latest, missing):
    assert missing_before(Position(series, number), latest) == missing

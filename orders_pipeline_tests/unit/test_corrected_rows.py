"""Corrected rows: which references a correction may have, as rules of its own; the way of files is tested in `pipeline`."""

from __future__ import annotations

import pytest

from orders_pipeline.records.corrected_rows import NamedRow, Original


@pytest.mark.parametrize(
    ("had", "has", "may"),
    [
        ("0007", "7", False),
        ("1e3", "1000", False),
        ("snan1", "7", True),  # what Python takes for a number that must not be compared
        ("nan", "nan1", True),
        ("a-1", "snan", True),
    ],
)
def test_a_rejected_reference_may_become_any_but_what_a_spreadsheet_makes_of_it(had, has, may):
    assert NamedRow(("b", 1), None, {had: None}, ()).may_have(has) == may


def named(*codes):
    """A row that was sent with these customer codes, one after another."""
    return NamedRow(("b", 1), None, {}, [Original({}, "utf-8", {"customer_code": code}) for code in reversed(codes)])


@pytest.mark.parametrize(
    ("had", "has", "may"),
    [
        ("0012", "12", False),
        ("1e3", "1.00e+03", False),
        ("1-2", "1月2日", False),
        ("1-2", "2-jan", False),
        ("12345678901234567890", "12345678901234500000", False),
        ("0012", "0012", True),
        ("0012", "0013", True),
        ("12", "0012", True),  # the zeros that a spreadsheet took before
        ("a012", "a12", True),
    ],
)
def test_a_code_may_become_any_but_what_a_spreadsheet_makes_of_it(had, has, may):
    assert named(had).may_have_code("customer_code", has) == may
    assert named(had).may_have_code("item_code", has)


def test_a_code_that_a_spreadsheet_changed_may_be_put_right_again():
    assert named("0012", "12").may_have_code("customer_code", "0012")
    assert not named("0012", "12").may_have_code("customer_code", "12")
    assert not named("0012", "0013").may_have_code("customer_code", "13")

"""Corrected rows: which references a correction may have, as rules of its own; the way of files is tested in `pipeline`."""

from __future__ import annotations

import pytest

from orders_pipeline.records.corrected import NamedRow


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

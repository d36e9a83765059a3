"""Whether the tests see mistakes where money is moved: `pytest -m soak orders_pipeline_tests/mutants`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from orders_pipeline_tests.mutants import (
    approving,
    cancelling,
    equivalent,
    ledgers,
    notifying,
    paying,
    reconciling,
    refunding,
)
from orders_pipeline_tests.mutants.mutant import ROOT, TESTS, Mutant, copy_tree
from orders_pipeline_tests.support.soak import SOAK

MUTANTS: list[Mutant] = [
    each for module in (ledgers, paying, refunding, reconciling, notifying, cancelling, approving) for each in module.MUTANTS
]


def test_every_mutant_can_still_be_made_and_names_tests_that_are_there():
    assert len(MUTANTS) >= 60
    assert not [
        mutant.name
        for mutant in [*MUTANTS, *equivalent.MUTANTS]
        if (ROOT / mutant.file).read_text("utf-8").count(mutant.old) != 1
    ]
    files = {test.partition("::")[0] for mutant in MUTANTS for test in mutant.tests}
    texts = {file: (ROOT / TESTS / file).read_text("utf-8") for file in files}
    for mutant in MUTANTS:
        for file, _, name in (test.partition("::") for test in mutant.tests):
            assert not name or f"def {name}(" in texts[file], mutant.name
    assert max(Counter((mutant.file, mutant.old, mutant.new) for mutant in MUTANTS).values()) == 1


@SOAK
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_seen_by_the_tests_named_for_it(mutant: Mutant, server_url: str, template: str, tmp_path: Path) -> None:
    copy = copy_tree(tmp_path / "copy")
    mutant.write(copy)
    assert mutant.is_seen(copy, server_url)

"""Inputs 1 to 47, each from its bytes to what the database and the reports say, without paying."""

from __future__ import annotations

from pathlib import Path

import pytest

from orders_pipeline.batches import batches
from orders_pipeline_tests.inputs.case import Case
from orders_pipeline_tests.inputs.catalogue import OF_FILES, as_parameters
from orders_pipeline_tests.inputs.use_cases import run_case
from orders_pipeline_tests.support.installation import Installation


@pytest.mark.parametrize("case", as_parameters(OF_FILES))
def test_what_becomes_of(installation: Installation, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "today", lambda: case.today)
    run_case(case, installation, tmp_path)

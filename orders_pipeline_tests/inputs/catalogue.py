"""All cases, in the order of their numbers, and how they become parameters of a test."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from orders_pipeline_tests.inputs import dates, encodings, files, money, references, rest, shapes
from orders_pipeline_tests.inputs.case import Case
from orders_pipeline_tests.support.soak import SOAK

OF_FILES = (*encodings.CASES, *shapes.CASES, *files.CASES)
OF_VALUES = (*references.CASES, *money.CASES, *dates.CASES, *rest.CASES)
CASES = tuple(sorted((*OF_FILES, *OF_VALUES), key=lambda case: case.number))


def as_parameter(case: Case, *marks: pytest.MarkDecorator) -> object:
    return pytest.param(case, id=case.test_name, marks=marks)


def as_parameters(cases: Iterable[Case]) -> list[object]:
    """Return the cases as parameters; of each number the first is in the default run."""
    seen: set[int] = set()
    parameters = []
    for case in cases:
        parameters.append(as_parameter(case, *([SOAK] if case.number in seen else [])))
        seen.add(case.number)
    return parameters

"""All cases, in the order of their numbers, and how they become parameters of a test."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from orders_pipeline_tests.inputs import dates, encodings, files, money, references, rest, shapes
from orders_pipeline_tests.inputs.case import Case

OF_FILES = (*encodings.CASES, *shapes.CASES, *files.CASES)
OF_VALUES = (*references.CASES, *money.CASES, *dates.CASES, *rest.CASES)
CASES = tuple(sorted((*OF_FILES, *OF_VALUES), key=lambda case: case.number))


def as_parameter(case: Case, *marks: pytest.MarkDecorator) -> object:
    return pytest.param(case, id=case.test_name, marks=marks)


def as_parameters(cases: Iterable[Case]) -> list[object]:
    return [as_parameter(case) for case in cases]

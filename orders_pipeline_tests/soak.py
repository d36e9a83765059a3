"""Variants of a test: one for every run of the tests, the others for the long one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

SOAK = pytest.mark.soak


def first_of(variants: Iterable[object]) -> list[object]:
    """Return the parameters of a test of which only the first is in the default run."""
    return [pytest.param(each, marks=[SOAK] if place else []) for place, each in enumerate(variants)]

"""Variants of a test: a few for every run of the tests, the others for the long one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

SOAK = pytest.mark.soak


def first_of(variants: Iterable[object], count: int = 1) -> list[object]:
    """Return the parameters of a test of which only the first `count` are in the default run; a tuple is several values."""
    return [
        pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=[SOAK] if place >= count else [])
        for place, each in enumerate(variants)
    ]

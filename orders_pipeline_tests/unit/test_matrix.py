"""The matrix of faults: every number is in it, and every test it names exists and carries the number."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LAST = {"C": 31, "D": 18, "Y": 26, "N": 7, "Q": 9, "S": 22}
ROW = re.compile(r"^\| ([CDYNQS])(\d\d)(?:-[CDYNQS](\d\d))? \| (.*) \| (.*) \|$", re.MULTILINE)
NUMBERS = [f"{letter}{number:02}" for letter, last in LAST.items() for number in range(1, last + 1)]

# the same as another number, another subject, or not there
ELSEWHERE = {"C07", "C16", "C21", "C22", "C23", "D17", "S04", "S07", "S12", "S17", "S18"}


@functools.cache
def matrix() -> dict[str, str]:
    """Return what stands in the matrix for each number; "the same" is the row above."""
    found: dict[str, str] = {}
    above = ""
    for letter, first, last, _, said in ROW.findall((TESTS / "faults" / "MATRIX.md").read_text("utf-8")):
        above = said.replace("the same", above.partition(",")[0])
        found |= {f"{letter}{number:02}": above for number in range(int(first), int(last or first) + 1)}
    return found


@functools.cache
def names_of_tests() -> set[str]:
    """Return the name of every test there is."""
    trees = [ast.parse(path.read_text("utf-8")) for path in TESTS.rglob("test_*.py")]
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def carries(name: str, number: str) -> bool:
    """Tell whether a test is named for a number, or for some from one before to one behind it."""
    numbers = name.removeprefix("test_").lower()
    span = re.match(r"([a-z])(\d\d)_to_\1(\d\d)_", numbers)
    if span is not None:
        return span[1] == number[0].lower() and int(span[2]) <= int(number[1:]) <= int(span[3])
    return number.lower() in numbers.split("_")[:2]


def test_every_number_is_in_the_matrix():
    assert list(matrix()) == NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_names_tests_that_exist_or_says_why_there_is_none(number):
    said = matrix()[number]
    named = re.findall(r"`(test_\w+)`", said)
    assert set(named) <= names_of_tests()
    assert any(carries(name, number) for name in named) or (said and number in ELSEWHERE)

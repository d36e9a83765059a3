"""Grouping: that several rows of a file are one order, and how its amount comes of them.

What profiles say and what judges rows, in the names of staged columns; judged is in `order_lines.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Grouping:
    """How the amount of an order comes of its rows, by the names of staged columns.

    It is the same on every row (`each` is order), or the sum of what each row says; or of the product of two `factors`.
    What is in the columns `added` counts once an order, and on each row what is in those `added_each_line`.
    """

    each: Literal["line", "order"] = "order"
    factors: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    added_each_line: tuple[str, ...] = ()

    @property
    def sums_lines(self) -> bool:
        """Return whether an order's amount is made of its lines'."""
        return self.each == "line" or bool(self.factors)

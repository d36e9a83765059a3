"""Cells that come again and again, as methods, dates and addresses do: looked at once for each text, and not row by row.

What is done with a text belongs elsewhere; it may depend on nothing but that text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True)
class Distinct:
    """Cells as their `texts`, and the place of each cell's among these; without `places` each text is a cell's own."""

    texts: pa.Array
    places: pa.Array | None = None

    @classmethod
    def of(cls, cells: pa.Array) -> Distinct:
        """Return cells (strings, nulls too) by their distinct texts, but where hardly a text comes twice."""
        encoded = cells.dictionary_encode(null_encoding="encode")
        has_repeats = 2 * len(encoded.dictionary) <= len(cells)
        return cls(encoded.dictionary, encoded.indices) if has_repeats else cls(cells)

    def map(self, function: Callable[[pa.Array], pa.Array]) -> Distinct:
        """Return what `function` makes of each text, for as many cells; several texts may become the same."""
        return Distinct(function(self.texts), self.places)

    @property
    def cells(self) -> pa.Array:
        """Return the cells one by one."""
        return self.texts if self.places is None else self.texts.take(self.places)

    def spread(self, of_texts: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return for each cell what is said of its text."""
        return of_texts if self.places is None else of_texts[self.places.to_numpy()]

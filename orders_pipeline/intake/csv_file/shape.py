"""Whether the rows of a CSV file have the shape of its header, judged over the whole file.

Counts cells and looks whether they are empty; nothing else of a row matters here. Which records there are is decided in
`records`, what the header names in `header`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orders_pipeline.intake.csv_file.header import Header
from orders_pipeline.intake.csv_file.physical_lines import Integers
from orders_pipeline.intake.csv_file.records import Flags
from orders_pipeline.records.rejections import FileRejected


class UnevenRowsError(Exception):
    """The rows do not all end in the same empty cells: they must be read again by the header's own width."""


class Shape:
    """Tells whether rows have the header's width, over all chunks.

    Rows may end in more (or fewer) empty cells than the header, if all do alike. The first row with a cell for every name
    sets the width then, and the first row that contradicts it raises UnevenRowsError.
    """

    def __init__(self, header: Header, *, allow_trailing: bool) -> None:
        self._named = header.width
        self._sent = len(header.cells)
        self._width = None if allow_trailing else self._sent
        self._overfull: set[int] = set()  # the widths of rows with values where the header has no name
        self._shortest = self._longest = self._rows = 0
        self._any_right = False
        self.last_cell_left_off = False

    @property
    def width(self) -> int:
        """Return how many cells rows of the right shape have."""
        return self._sent if self._width is None else self._width

    def check(self, rows: Sequence[list[str]]) -> Flags:
        """Return which of the rows have the right shape."""
        counts: Integers = np.fromiter(map(len, rows), np.int64, len(rows))
        fits = self._fits(rows, counts)
        if self._width is None and fits.any():
            self._width = int(counts[fits][0])
        if self._width not in (None, self._sent) and self._is_contradicted(counts):
            raise UnevenRowsError
        right: Flags = fits & (counts == self.width)
        self._shortest = min(self._shortest, int(counts.min())) if self._rows else int(counts.min())
        self._longest = max(self._longest, int(counts.max()))
        self._rows += len(rows)
        self._any_right |= bool(right.any())
        self.last_cell_left_off |= bool((counts == self._named - 1).any())
        return right

    def _fits(self, rows: Sequence[list[str]], counts: Integers) -> Flags:
        """Return which rows have a cell for every name, and nothing in any other."""
        fits: Flags = counts >= self._named
        for place in np.flatnonzero(counts > self._named).tolist():
            if any(rows[place][self._named :]):
                fits[place] = False
                self._overfull.add(len(rows[place]))
        return fits

    def _is_contradicted(self, counts: Integers) -> bool:
        """Return whether a row has the header's own width, or values in the cells that should be empty in every row."""
        return bool((counts == self._sent).any()) or not self._overfull.isdisjoint((self._width, self._sent))

    def takes(self, width: int, rows: int) -> bool:
        """Return whether `rows` rows of one width have the right shape, without doubt; if not, `check` must look."""
        if width != self._width or width != self._named:
            return False
        self._rows += rows
        self._any_right = True
        return True

    def check_all(self) -> None:
        """Refuse the file when every row has the same cells too many: which value belongs where is unclear."""
        if self._rows > 1 and not self._any_right and self._shortest == self._longest > self._named:
            raise FileRejected("F_COLUMNS", {"expected": str(self._named), "found": str(self._longest)})

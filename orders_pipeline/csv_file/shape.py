"""Whether the rows of a CSV file have the shape of its header, judged over the whole file.

Counts cells and looks whether they are empty; nothing else of a row matters here. Which records there are is decided in
`records`, what the header names in `header`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orders_pipeline.csv_file.header import Header
from orders_pipeline.csv_file.physical_lines import Integers
from orders_pipeline.csv_file.records import Flags
from orders_pipeline.rejections import FileRejected


class UnevenRowsError(Exception):
    """The rows do not all end in the same empty cells: they must be read again by the header's own width."""


class Shape:
    """Whether rows have the header's width, over all chunks.

    Every row may end in more (or fewer) empty cells than the header, if all do alike: the first row sets the width
    then, and the first row that contradicts it raises UnevenRowsError.
    """

    def __init__(self, header: Header, *, allow_trailing: bool) -> None:
        self._named = header.width
        self._sent = len(header.cells)
        self._allow_trailing = allow_trailing
        self._width: int | None = None
        self._shortest = self._longest = self._rows = 0
        self._any_right = False

    def check(self, rows: Sequence[list[str]]) -> Flags:
        """Return which of the rows have the right shape."""
        counts: Integers = np.fromiter(map(len, rows), np.int64, len(rows))
        if self._width is None:
            first = self._shortest = self._longest = int(counts[0])
            self._width = first if self._allow_trailing and first >= self._named else self._sent
        right: Flags = counts == self._width
        if self._width > self._named:
            right &= ~np.fromiter((any(row[self._named :]) for row in rows), np.bool_, len(rows))
        if self._width != self._sent and ((counts == self._sent) | ((counts == self._width) & ~right)).any():
            raise UnevenRowsError
        self._rows += len(rows)
        self._shortest = min(self._shortest, int(counts.min()))
        self._longest = max(self._longest, int(counts.max()))
        self._any_right |= bool(right.any())
        return right

    def takes(self, width: int, rows: int) -> bool:
        """Tell whether `rows` rows of one width have the right shape, without doubt; if not, `check` must look."""
        if width != self._width or width != self._named:
            return False
        self._rows += rows
        self._any_right = True
        return True

    def check_all(self) -> None:
        """Refuse the file when every row has the same cells too many: which value belongs where is unclear."""
        if self._rows > 1 and not self._any_right and self._shortest == self._longest > self._named:
            raise FileRejected("F_COLUMNS", {"expected": str(self._named), "found": str(self._longest)})

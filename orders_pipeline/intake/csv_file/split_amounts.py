"""Amounts like 1,000 that stand without quotes, so that each fills two cells: as they are read, one yen would be charged.

Such a row has too many cells, unless the file leaves off its last cell where that is empty: then it has the header's width.
So split amounts are looked for over the whole file, where one optional column follows the amount.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.intake.csv_file.header import Header
from orders_pipeline.intake.csv_file.records import Flags, Places
from orders_pipeline.records.rejections import FileRejected

_BEGINNING = r"^[^0-9]*[0-9]{1,3}$"
_END = "^[0-9]{3}[ 円-]*$"


class SplitAmounts:
    """Tells whether amounts are split in two, over all chunks."""

    def __init__(self, header: Header, amount: str | None) -> None:
        at = header.columns.get(amount or "", ())
        self._at = at[0] if at == (header.width - 2,) else None
        self._rows = self._split = 0
        self._first: dict[str, str] = {}

    def look(self, places: Places, right: Flags, column_at: Callable[[int], pa.Array]) -> None:
        """Look at the rows of a chunk that have the right shape."""
        if self._at is None:
            return
        begins = pc.match_substring_regex(column_at(self._at), _BEGINNING)
        ends = pc.match_substring_regex(column_at(self._at + 1), _END)
        split = right & pc.fill_null(pc.and_(begins, ends), False).to_numpy(zero_copy_only=False)
        self._rows += int(np.count_nonzero(right))
        self._split += int(np.count_nonzero(split))
        if not self._first and split.any():
            self._first = places.name(int(np.argmax(split)))

    def check_all(self, *, last_cell_left_off: bool) -> None:
        """Refuse the file when rows leave their last cell off and others may be split, or when all may be."""
        if self._split and (last_cell_left_off or self._split == self._rows):
            raise FileRejected("F_AMOUNTS_SPLIT", self._first)

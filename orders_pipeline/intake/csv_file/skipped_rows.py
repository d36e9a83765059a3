"""What a staged file keeps of the rows that were skipped: that there are any, and which orders they seem to be of.

It is read in `intake/duplicate_rows.py` and `intake/order_groups.py`, which judge the rows of such an order that were not.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from orders_pipeline.intake.csv_file.records import Flags

_COUNT, _RUNS, _REFERENCES, _ROWS = "rows_skipped", "skipped_runs", "skipped_references", "skipped_rows"
_NO_ROW = 2**31  # above every row's number


class SkippedRuns:
    """Rows of one order next to each other, of which some were skipped.

    Of each, `found` has the order's number, the first row and the last, and the first that was skipped.
    """

    def __init__(self) -> None:
        self.found: list[tuple[int, int, int, int]] = []
        self._last = (0, 0, 0, 0)  # the run that may go on

    def add(self, orders: npt.NDArray[np.uint64], numbers: npt.NDArray[Any], skipped: Flags) -> None:
        """Look at more rows; those of no order are passed over."""
        places = np.flatnonzero(orders)
        if not len(places):
            return
        orders, numbers, skipped = orders[places], numbers[places], skipped[places]
        starts = np.flatnonzero(np.append(True, orders[1:] != orders[:-1]))
        ends = np.append(starts[1:], len(orders)) - 1
        skipped_row = np.minimum.reduceat(np.where(skipped, numbers, _NO_ROW), starts) % _NO_ROW
        columns = orders[starts], numbers[starts], numbers[ends], skipped_row
        for order, first, last, row in zip(*(column.tolist() for column in columns), strict=True):
            if order == self._last[0]:
                self._last = order, self._last[1], last, self._last[3] or row
            else:
                self.end()
                self._last = order, first, last, row

    def end(self) -> None:
        """Keep the run that was looked at last, if a row of it was skipped: no more of it follows."""
        if self._last[3]:
            self.found.append(self._last)
        self._last = (0, 0, 0, 0)


class SkippedReferences:
    """The references of skipped rows where each row is an order, as twelve bytes each: a hash, and the row's number."""

    def __init__(self) -> None:
        self._parts: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int32]]] = []

    def add(self, orders: npt.NDArray[np.uint64], numbers: npt.NDArray[Any]) -> None:
        """Keep some rows, but for those of no order."""
        named = orders != 0
        self._parts.append((orders[named], numbers[named].astype(np.int32)))

    def first_rows(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int32]]:
        """Return the references in turn, each with the first row that has it."""
        hashes, rows = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        hashes, first = np.unique(hashes, return_index=True)
        return hashes, rows[first]

    def kept(self) -> Mapping[str, str]:
        """Return what is kept with the file."""
        if not self._parts:
            return {}
        hashes, rows = self.first_rows()
        return {_REFERENCES: base64.b64encode(hashes.tobytes()).decode(), _ROWS: base64.b64encode(rows.tobytes()).decode()}


def kept_of(count: int, runs: SkippedRuns, references: SkippedReferences) -> Mapping[str, str]:
    """Return what is kept with a file of which so many rows were skipped."""
    if not count:
        return {}
    runs.end()
    return {_COUNT: str(count), _RUNS: json.dumps(runs.found), **references.kept()}


def any_was_skipped(staged: Path) -> bool:
    """Return whether any row of a file was skipped."""
    return bool(_kept(staged, _COUNT))


def skipped_runs(staged: Path) -> Sequence[Sequence[int]]:
    """Return what `SkippedRuns` found in a file whose rows are grouped."""
    runs: Sequence[Sequence[int]] = json.loads(_kept(staged, _RUNS) or b"[]")
    return runs


def skipped_references(staged: Path) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int32]]:
    """Return what `SkippedReferences` found in a file of which each row is an order, by ascending hash."""
    hashes, rows = (base64.b64decode(_kept(staged, name)) for name in (_REFERENCES, _ROWS))
    return np.frombuffer(hashes, np.uint64), np.frombuffer(rows, np.int32)


def _kept(staged: Path, name: str) -> bytes:
    kept: bytes = (pq.read_metadata(staged).metadata or {}).get(name.encode(), b"")
    return kept

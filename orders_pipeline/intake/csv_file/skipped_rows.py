"""What a staged file keeps of its skipped rows: that there are any, their orders, and which rejected rows they name.

It is read in `intake/duplicate_rows.py` and `intake/order_groups.py`, which judge the rows of such an order that were not,
and in `intake/validation.py`, where skipped rows close those that they name.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from orders_pipeline.intake.csv_file.records import Flags

Numbers: TypeAlias = "npt.NDArray[Any]"

_COUNT, _RUNS, _REFERENCES, _NAMES = "rows_skipped", "skipped_runs", "skipped_references", "skipped_names"
_NO_ROW = 2**31  # above every row's number
_RUN = np.dtype([("order", np.uint64), ("first", np.int32), ("last", np.int32), ("skipped", np.int32)])
_REFERENCE = np.dtype([("order", np.uint64), ("row", np.int32)])
_NAME = np.dtype([("row", np.int32), ("corrects", np.int32), ("order", np.uint64), ("says_so", np.bool_)])


class SkippedName(NamedTuple):
    """A skipped row that names the row it corrects: by its number, with the number of its order, 0 for none.

    It `says_so` itself that it is skipped, or follows one of its order that does.
    """

    row: int
    corrects: int
    order: int
    says_so: bool


class SkippedRuns:
    """Rows of one order next to each other, of which some were skipped, as twenty bytes each run.

    Of each the order's number is kept, the first row and the last, and the first that was skipped.
    """

    def __init__(self) -> None:
        self._parts: list[Numbers] = []
        self._last = np.zeros(1, _RUN)  # the run that may go on

    def add(self, orders: npt.NDArray[np.uint64], numbers: Numbers, skipped: Flags) -> None:
        """Look at more rows; those of no order are passed over."""
        places = np.flatnonzero(orders)
        if not len(places):
            return
        orders, numbers, skipped = orders[places], numbers[places], skipped[places]
        starts = np.flatnonzero(np.append(True, orders[1:] != orders[:-1]))
        runs = np.zeros(len(starts), _RUN)
        runs["order"], runs["first"] = orders[starts], numbers[starts]
        runs["last"] = numbers[np.append(starts[1:], len(orders)) - 1]
        runs["skipped"] = np.minimum.reduceat(np.where(skipped, numbers, _NO_ROW), starts) % _NO_ROW
        (last,) = self._last
        if runs["order"][0] == last["order"]:
            runs["first"][0], runs["skipped"][0] = last["first"], last["skipped"] or runs["skipped"][0]
        else:
            runs = np.append(self._last, runs)
        self._last = runs[-1:].copy()
        self._keep(runs[:-1])

    def found(self) -> Numbers:
        """Return all runs, now that no more of the last one follows."""
        self._keep(self._last)
        return np.concatenate(self._parts)

    def _keep(self, runs: Numbers) -> None:
        self._parts.append(runs[runs["skipped"] > 0])


class SkippedReferences:
    """The references of skipped rows where each row is an order, as twelve bytes each: a hash, and the row's number."""

    def __init__(self) -> None:
        self._parts = [np.zeros(0, _REFERENCE)]

    def add(self, orders: npt.NDArray[np.uint64], numbers: Numbers) -> None:
        """Keep some rows, but for those of no order."""
        named = orders != 0
        part = np.zeros(int(np.count_nonzero(named)), _REFERENCE)
        part["order"], part["row"] = orders[named], numbers[named]
        self._parts.append(part)

    def found(self) -> Numbers:
        """Return each reference once, in turn, with the first row that has it."""
        found = np.concatenate(self._parts)
        return found[np.unique(found["order"], return_index=True)[1]]


class SkippedNames:
    """Which rows the skipped rows of a correcting file name, as 17 bytes each."""

    def __init__(self) -> None:
        self._parts = [np.zeros(0, _NAME)]
        self.any_row = False

    def add(self, numbers: Numbers, corrects: pa.Array, orders: Numbers, says_so: Flags) -> None:
        """Keep those of some rows that say that they correct one."""
        says = corrects.is_valid().to_numpy(zero_copy_only=False)
        part = np.zeros(int(np.count_nonzero(says)), _NAME)
        part["row"], part["corrects"] = numbers[says], corrects.drop_null().to_numpy()
        part["order"], part["says_so"] = orders[says], says_so[says]
        self._parts.append(part)
        self.any_row |= bool(part["corrects"].any())

    def found(self) -> Numbers:
        """Return all of them."""
        return np.concatenate(self._parts)


def kept_of(count: int, runs: SkippedRuns, references: SkippedReferences, names: SkippedNames) -> Mapping[str, str]:
    """Return what is kept with a file of which so many rows were skipped."""
    if not count:
        return {}
    parts = ((_RUNS, runs.found()), (_REFERENCES, references.found()), (_NAMES, names.found()))
    return {_COUNT: str(count), **{name: base64.b64encode(found.tobytes()).decode() for name, found in parts}}


def any_was_skipped(staged: Path) -> bool:
    """Return whether any row of a file was skipped."""
    return bool(_kept(staged, _COUNT))


def skipped_runs(staged: Path) -> Sequence[Numbers]:
    """Return what `SkippedRuns` found in a file whose rows are grouped: orders, first, last and first skipped rows."""
    found = np.frombuffer(base64.b64decode(_kept(staged, _RUNS)), _RUN)
    return [found[name] for name in ("order", "first", "last", "skipped")]


def skipped_references(staged: Path) -> Sequence[Numbers]:
    """Return what `SkippedReferences` found in a file of which each row is an order: ascending hashes, and rows."""
    found = np.frombuffer(base64.b64decode(_kept(staged, _REFERENCES)), _REFERENCE)
    return [found[name] for name in ("order", "row")]


def skipped_names(staged: Path) -> list[SkippedName]:
    """Return the skipped rows of a file that say which row they correct."""
    found = np.frombuffer(base64.b64decode(_kept(staged, _NAMES)), _NAME)
    return [SkippedName(*each) for each in found.tolist()]


def _kept(staged: Path, name: str) -> bytes:
    kept: bytes = (pq.read_metadata(staged).metadata or {}).get(name.encode(), b"")
    return kept

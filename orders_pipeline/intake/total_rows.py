"""Total rows: sums that people leave among orders or under them, and that are no orders, even where defaults fill them.

A total row says nothing but a sum: of all orders above it, or of those since the last total row. Amounts are added up only
for a file with a row that may be one. Where rows were skipped, nobody knows which of them a sum has: there a word in place
of the reference is enough.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.infrastructure.parquet_file import map_chunks, read_chunks
from orders_pipeline.intake.csv_file import any_was_skipped
from orders_pipeline.records.judgement import Judge

_WORD = re.compile(
    r"(?:税込|税抜)?(?:総|合|小|累|集|総合)?計(?:金額|額|行)?(?:税込|税抜)?(?:[0-9]+件)?|総額|(?:grand|sub)?totals?(?:amount)?|sum"
)
_MAY_BE_BLANK_OR_WORD = r"^[\s\x{3000}]*$|[計総]|(?i:total|sum)|[ｔｓＴＳ]"  # in RE2's writing: more than are
_READABLE = "^-?[0-9]{1,12}$"  # what is larger is no amount, and many of it would not fit 64 bits


Which: TypeAlias = Literal["group", "all"]


@dataclass
class Sums:
    """The yen of the orders above a row: of all, and of those since the last total row; None where there are none."""

    all: int | None = None
    group: int | None = None

    def add(self, yen: int) -> None:
        """Add an order."""
        self.all, self.group = (self.all or 0) + yen, (self.group or 0) + yen

    def totals(self, rows: Iterable[tuple[int, int | None, bool]]) -> Iterator[tuple[int, Which]]:
        """Yield which rows, each with its number, its yen and whether it says only a sum, are totals, and of what."""
        for number, yen, may_be_one in rows:
            if may_be_one and yen is not None and yen in (self.group, self.all):
                which: Which = "group" if yen == self.group else "all"
                self.group = None
                yield number, which
            elif yen is not None:
                self.add(yen)


def find_total_rows(
    staged: Path, judge: Judge, chunk_rows: int, repeating: npt.NDArray[np.int32] | None = None
) -> frozenset[int]:
    """Return the numbers of the rows whose amount is such a sum, or may be, and in which nothing else is.

    Their other cells are blank, say what a blank one would be filled with, or are words for a total. Rows that are
    `repeating` an amount of another row add nothing to a sum.
    """
    candidates = _candidates(staged, judge, chunk_rows)
    suspects = _suspects(staged, judge, chunk_rows, candidates)
    if not suspects:
        return frozenset()
    certain = {number for number in suspects if candidates[number]} if any_was_skipped(staged) else set()

    passed_over = pa.array([] if repeating is None else repeating, pa.int32())

    def rows() -> Iterator[tuple[int, int | None, bool]]:
        for chunk in read_chunks(staged, chunk_rows, ["import_row_number", "shape_ok", judge.record_type.amount]):
            shaped = chunk.filter(chunk.column("shape_ok"))
            shaped = shaped.filter(pc.invert(pc.is_in(shaped.column("import_row_number"), value_set=passed_over)))
            numbers = shaped.column("import_row_number").to_pylist()
            for number, yen in zip(numbers, amounts(shaped, judge).to_pylist(), strict=True):
                yield number, yen, number in suspects

    return frozenset(number for number, _ in Sums().totals(rows())) | certain


def _candidates(staged: Path, judge: Judge, chunk_rows: int) -> dict[int, bool]:
    """Return the numbers of rows that may be totals by their reference, each with whether that is a word for one."""
    identity = judge.record_type.identity
    numbers: dict[int, bool] = {}

    def candidates(_number: int, chunk: pa.RecordBatch) -> list[tuple[int, bool]]:
        cells = chunk.column(identity)
        chosen = chunk.filter(pc.and_(chunk.column("shape_ok"), pc.match_substring_regex(cells, _MAY_BE_BLANK_OR_WORD)))
        found = zip(chosen.column("import_row_number").to_pylist(), chosen.column(identity).to_pylist(), strict=True)
        return [(number, bool(cell.strip())) for number, cell in found if _is_blank_or_word(cell)]

    with closing(map_chunks(staged, candidates, chunk_rows, ["import_row_number", "shape_ok", identity])) as chunks:
        for found in chunks:
            numbers.update(found)
    return numbers


def _suspects(staged: Path, judge: Judge, chunk_rows: int, candidates: Collection[int]) -> set[int]:
    """Return the numbers of those rows that say only a sum, whichever it is."""
    suspects: set[int] = set()
    if not candidates:
        return suspects
    wanted = pa.array(candidates, pa.int32())
    for chunk in read_chunks(staged, chunk_rows, ["import_row_number", *judge.record_type.column_names]):
        rows = chunk.filter(pc.is_in(chunk.column("import_row_number"), value_set=wanted))
        suspects.update(rows.filter(pa.array(say_only_a_sum(rows, judge))).column("import_row_number").to_pylist())
    return suspects


def _is_blank_or_word(cell: str) -> bool:
    letters = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", cell))).lower()
    return not cell.strip() or _WORD.fullmatch(letters) is not None


def say_only_a_sum(rows: pa.Table | pa.RecordBatch, judge: Judge) -> npt.NDArray[np.bool_]:
    """Return in which rows no cell but the amount says more than a blank one would, or that it is a total."""
    kind = judge.record_type
    text, _ = kind.normalised({name: _cells(rows, name) for name in kind.column_names}, judge.context)
    blank, _ = kind.normalised(dict.fromkeys(kind.column_names, pa.array([""])), judge.context)
    only = np.ones(rows.num_rows, np.bool_)
    for name in kind.column_names:
        if name != kind.amount:
            says_more = only & pc.not_equal(text[name].cells, blank[name].cells[0]).to_numpy(zero_copy_only=False)
            for at in np.flatnonzero(says_more).tolist():
                only[at] = _is_blank_or_word(rows.column(name)[at].as_py())
    return only


def amounts(rows: pa.Table | pa.RecordBatch, judge: Judge) -> pa.Array:
    """Return the amounts, null where they cannot be read."""
    column = judge.record_type.by_name[judge.record_type.amount]
    text = column.normalised(_cells(rows, column.name), judge.context)
    return pc.if_else(pc.match_substring_regex(text, _READABLE), text, None).cast(pa.int64())


def _cells(rows: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    cells = rows.column(name)
    return cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells

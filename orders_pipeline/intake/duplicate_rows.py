"""Rows of one file that name the same order, found over the whole file before any row of it is accepted.

Two passes, so that memory stays small: the first keeps eight bytes a row, the second only looks at rows whose reference
came twice. References that other files brought are looked up in the database (`repeated_orders.py`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orders_pipeline.infrastructure.parquet_file import map_chunks, map_in_turn, read_chunks
from orders_pipeline.intake.csv_file import TO_DECIDE, UNCLEAR, skipped_references
from orders_pipeline.records.judgement import Judge

Numbers: TypeAlias = "npt.NDArray[Any]"

_HASH = "hash"  # of a row's reference, beside its cells
KEYS = ("orders-pipeline1", "orders-pipeline2")  # two independent hashes of 64 bits together are as good as the text


@dataclass(frozen=True)
class Duplicates:
    """The rows to reject, by ascending row number; `first` is the row in which the reference appears first."""

    row: Numbers
    conflict: Numbers
    first: Numbers

    def among(self, rows: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Return, for those of the ascending row numbers `rows` that are duplicates: position, conflict, first row."""
        _, position, found = np.intersect1d(rows, self.row, assume_unique=True, return_indices=True)
        return position, self.conflict[found], self.first[found]


NO_DUPLICATES = Duplicates(np.empty(0, np.int32), np.empty(0, np.bool_), np.empty(0, np.int32))


def find_duplicates(staged: Path, judge: Judge, chunk_rows: int) -> Duplicates:
    """Find the rows of a staged file whose case-folded reference comes more than once.

    Rows that are equal once normalised repeat their first one, which stays; where any differ, all of them conflict. So they
    do where one was skipped, or a person has to decide on one and not on another: one may say what became of the order.
    """
    skipped, skipped_rows = skipped_references(staged)
    hashes = _hashes(staged, judge, chunk_rows)
    repeated = _repeated(hashes, skipped)
    if not len(repeated):
        return NO_DUPLICATES
    with closing(_suspects(staged, judge, chunk_rows, hashes, repeated)) as parts:
        first_hash, second_hash, content, row = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _grouped(first_hash, second_hash, content, row, skipped, skipped_rows)


def _hashes(staged: Path, judge: Judge, chunk_rows: int) -> Numbers:
    """Return a hash of the reference of each row, 0 where the row is of the wrong shape or its reference breaks a rule."""

    def hashes_of(_number: int, chunk: pa.RecordBatch) -> Numbers:
        shape_ok = chunk.column("shape_ok")
        references, valid = judge.valid_identities(chunk.column(judge.record_type.identity).filter(shape_ok))
        of_rows = np.zeros(len(chunk), np.uint64)
        usable = np.flatnonzero(shape_ok.to_numpy(zero_copy_only=False))[valid]
        of_rows[usable] = hashed(references.filter(pa.array(valid)), KEYS[0])
        return of_rows

    hashes = np.empty(pq.read_metadata(staged).num_rows, np.uint64)
    filled = 0
    with closing(map_chunks(staged, hashes_of, chunk_rows, ["shape_ok", judge.record_type.identity])) as chunks:
        for part in chunks:
            hashes[filled : filled + len(part)] = part
            filled += len(part)
    return hashes


def _repeated(hashes: Numbers, skipped: Numbers) -> Numbers:
    """Return the hashes that come more than once."""
    ascending = np.append(hashes, skipped)
    ascending.sort()
    ascending = ascending[np.searchsorted(ascending, 1) :]
    return np.unique(ascending[1:][ascending[1:] == ascending[:-1]])


def _suspects(
    staged: Path, judge: Judge, chunk_rows: int, hashes: Numbers, repeated: Numbers
) -> Generator[tuple[Numbers, Numbers, Numbers, Numbers], None, None]:
    """Yield two hashes of the reference, one of the whole row, and the row number, of rows that may be duplicates."""
    names = judge.record_type.column_names
    sought = pa.array(repeated)

    def with_hashes() -> Iterator[pa.RecordBatch]:
        begin = 0
        for chunk in read_chunks(staged, chunk_rows):
            yield chunk.append_column(_HASH, pa.array(hashes[begin : begin + len(chunk)]))
            begin += len(chunk)

    def suspects(_number: int, chunk: pa.RecordBatch) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        rows = chunk.filter(pc.is_in(chunk.column(_HASH), value_set=sought))
        text, _ = judge.record_type.normalised({name: rows.column(name) for name in names}, judge.context)
        references, _ = judge.valid_identities(rows.column(judge.record_type.identity))
        chosen = [pc.fill_null(rows.column(name), "") for name in (TO_DECIDE, UNCLEAR) if name in rows.schema.names]
        content = pc.binary_join_element_wise(*(each.cells for each in text.values()), *chosen, "\x1f")
        first_hash, row = (rows.column(name).to_numpy() for name in (_HASH, "import_row_number"))
        return first_hash, hashed(references, KEYS[1]), hashed(content, KEYS[0]), row

    return map_in_turn(with_hashes(), suspects)


def hashed(cells: pa.Array, key: str) -> Numbers:
    """Return a hash of 64 bits of each cell; `key` is one of `KEYS`."""
    return pd.util.hash_array(cells.to_numpy(zero_copy_only=False), hash_key=key, categorize=False)


def _grouped(
    first_hash: Numbers, second_hash: Numbers, content: Numbers, row: Numbers, skipped: Numbers, skipped_rows: Numbers
) -> Duplicates:
    """Group suspects by reference and say of each group of two or more which rows go back, and why.

    Those whose reference is one of the `skipped` all go back, and name the row that has it.
    """
    order = np.lexsort((row, second_hash, first_hash))
    first_hash, second_hash, content, row = first_hash[order], second_hash[order], content[order], row[order]
    starts = np.ones(len(row), np.bool_)
    starts[1:] = (first_hash[1:] != first_hash[:-1]) | (second_hash[1:] != second_hash[:-1])
    group = np.cumsum(starts) - 1
    conflicts = np.bincount(group, weights=content != content[starts][group]) > 0
    is_skipped = np.isin(first_hash, skipped)
    conflict = conflicts[group] | is_skipped
    first = row[starts][group]
    if is_skipped.any():
        first[is_skipped] = skipped_rows[np.searchsorted(skipped, first_hash[is_skipped])]
    back = np.flatnonzero(conflict | ~starts)
    back = back[np.argsort(row[back])]
    return Duplicates(row[back], conflict[back], first[back])

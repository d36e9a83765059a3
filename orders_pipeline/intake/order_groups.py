"""Which rows of one file are one order: those of one reference, wherever they stand.

A pass over the references keeps some thirty bytes a row. The rows are then read again, in chunks of whole orders; only rows
that stand apart from their order are kept until it is whole. What an order is made of is said in `records/order_lines.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orders_pipeline.infrastructure.parquet_file import map_chunks, read_chunks
from orders_pipeline.intake.csv_file import skipped_runs
from orders_pipeline.intake.duplicate_rows import KEYS, hashed
from orders_pipeline.records.judgement import Judge, Mask
from orders_pipeline.records.rules import is_no_text

Numbers: TypeAlias = "npt.NDArray[Any]"

MOST_LINES = 5_000  # of an order, which is judged in one piece
LOOSE = 4  # parts of chunks that are kept as they are; others are packed until their chunk is whole
ORDER_ROW = "order_row"
_MAYBE = "maybe_references"
_IN_NO_REFERENCE = r"[^a-z0-9\-_./]+"


@dataclass(frozen=True)
class OrderGroups:
    """The rows of a staged file, in its order: their numbers, and that of the first row of the order that each is of.

    A row without a usable reference is by itself, and so is each of an order with too many. Of the first, which are `lost`,
    nobody can say which order they belong to; `alike` has those (by their numbers) that seem to name an order, and this.
    `partly_skipped` are orders of which rows were skipped that they need, each with such a row.
    """

    number: Numbers
    order_row: Numbers
    is_too_large: npt.NDArray[np.bool_]
    is_lost: npt.NDArray[np.bool_]
    alike: Sequence[tuple[int, int]]
    partly_skipped: Mapping[int, int]

    @property
    def continuing(self) -> Numbers:
        """Return the numbers of the rows that continue an order."""
        numbers: Numbers = self.number[self.number != self.order_row]
        return numbers

    def may_be_of(self, but: Collection[int]) -> list[tuple[int, int]]:
        """Return lost rows, each with an order that it may belong to: one next to it, or one that it seems to name.

        `but` are rows that are none of any order.
        """
        lost = np.flatnonzero(self.is_lost & ~np.isin(self.number, list(but)))
        known = np.flatnonzero(~self.is_lost)
        after = np.searchsorted(known, lost)
        found = [pair for pair in self.alike if pair[0] not in but]
        for places, there in ((after - 1, after > 0), (after, after < len(known))):
            orders = self.order_row[known[places[there]]]
            found += zip(self.number[lost[there]].tolist(), orders.tolist(), strict=True)
        return found


def find_orders(staged: Path, judge: Judge, chunk_rows: int, *, lines_may_be_skipped: bool = True) -> OrderGroups:
    """Group the rows of a staged file by their case-folded reference.

    Where amounts are not the sums of lines, these may not be skipped: their order would be charged for them all the same.
    """
    identity = judge.record_type.identity

    def look(_number: int, chunk: pa.RecordBatch) -> tuple[Numbers, ...]:
        cells = pc.fill_null(chunk.column(identity), "")
        references, valid = judge.valid_identities(cells)
        usable = valid & chunk.column("shape_ok").to_numpy(zero_copy_only=False)
        usable &= ~is_no_text(cells).to_numpy(zero_copy_only=False)
        number = chunk.column("import_row_number").to_numpy()
        alike, seen = _seen(chunk, references, ~usable, judge)
        return number, usable, *_hashes(references), alike, *_hashes(seen)

    with closing(map_chunks(staged, look, chunk_rows, ["import_row_number", "shape_ok", identity, _MAYBE])) as chunks:
        # of a file whose rows are all skipped there is none
        parts = [*chunks] or [look(0, pa.RecordBatch.from_pylist([], pq.read_schema(staged)))]
    found = [np.concatenate(column) for column in zip(*parts, strict=True)]
    number, usable, *hashes, alike, seen, also_seen = found
    places = np.flatnonzero(usable)
    places = places[np.lexsort([each[places] for each in reversed(hashes)])]  # stable: rows of an order stay in turn
    starts = np.ones(len(places), np.bool_)
    starts[1:] = np.logical_or.reduce([each[places[1:]] != each[places[:-1]] for each in hashes])
    group = np.cumsum(starts) - 1
    is_too_large = np.zeros(len(number), np.bool_)
    is_too_large[places] = (np.bincount(group) > MOST_LINES)[group]
    first = places[starts]
    order_row = number.copy()
    order_row[places] = np.where(is_too_large[places], number[places], number[first][group])
    first = first[np.isin(hashes[0][first], seen)]
    orders = dict(zip(zip(*(each[first].tolist() for each in hashes), strict=True), number[first].tolist(), strict=True))
    named = zip(alike.tolist(), zip(seen.tolist(), also_seen.tolist(), strict=True), strict=True)
    pairs = [(row, orders[reference]) for row, reference in named if reference in orders]
    skipped = _partly_skipped(
        staged, number[places], order_row[places], hashes[0][places], lines_may_be_skipped=lines_may_be_skipped
    )
    return OrderGroups(number, order_row, is_too_large, ~usable, pairs, skipped)


def _partly_skipped(
    staged: Path, number: Numbers, order_row: Numbers, key: Numbers, *, lines_may_be_skipped: bool
) -> dict[int, int]:
    """Return the orders of which rows were skipped that are not next to all of the others, each with such a row.

    Those next to the others are lines, which may be skipped or not.
    """
    runs: dict[int, list[tuple[int, int, int]]] = {}
    columns = skipped_runs(staged)
    wanted = np.isin(columns[0], key)  # of most orders nothing is left
    for run_of, first, last, skipped in zip(*(column[wanted].tolist() for column in columns), strict=True):
        runs.setdefault(run_of, []).append((first, last, skipped))
    found: dict[int, int] = {}
    these = np.flatnonzero(np.isin(key, np.array([*runs], np.uint64)))
    for row, order, at in zip(*(column[these].tolist() for column in (number, key, order_row)), strict=True):
        (first, last, skipped_row), *others = runs[order]
        if others or not first <= row <= last or not lines_may_be_skipped:
            found[at] = skipped_row
    return found


def _seen(chunk: pa.RecordBatch, references: pa.Array, lost: Mask, judge: Judge) -> tuple[Numbers, pa.Array]:
    """Return what lost rows seem to name, and their numbers: their cells without what no reference has."""
    number = chunk.column("import_row_number").to_numpy()
    rows, cells = [number[lost]], [references.filter(pa.array(lost))]
    if _MAYBE in chunk.schema.names:  # not in what was staged before rows were grouped
        maybe = chunk.column(_MAYBE)
        rows.append(number[pc.list_parent_indices(maybe).to_numpy()])
        cells.append(judge.valid_identities(pc.list_flatten(maybe))[0])
    left = pc.replace_substring_regex(pa.concat_arrays(cells), _IN_NO_REFERENCE, "")
    some = pc.not_equal(left, "")
    return np.concatenate(rows)[some.to_numpy(zero_copy_only=False)], left.filter(some)


def _hashes(cells: pa.Array) -> tuple[Numbers, Numbers]:
    return hashed(cells, KEYS[0]), hashed(cells, KEYS[1])


def find_repeated_rows(
    staged: Path, groups: OrderGroups, chunk_rows: int, repeated_before: Collection[int] = ()
) -> dict[int, int]:
    """Return the rows of orders that come apart and are the same there, each with the first row that it repeats.

    That is how a list looks that came twice. Rows next to each other may be the same: so much was ordered, in two lines;
    unless they correct rows that `repeated_before`, in a file where they stood apart.
    """
    starts = np.append(True, groups.order_row[1:] != groups.order_row[:-1])[: len(groups.order_row)]
    orders, runs = np.unique(groups.order_row[starts], return_counts=True)
    again = groups.order_row[np.isin(groups.number, [*repeated_before])]
    apart = np.isin(groups.order_row, np.append(orders[runs > 1], again))
    if not apart.any():
        return {}
    content = _content(staged, apart, chunk_rows)
    order_row = groups.order_row[apart]
    turn = np.lexsort((content, order_row))
    is_alike = (np.diff(order_row[turn]) == 0) & (content[turn[1:]] == content[turn[:-1]])
    wanted = np.isin(order_row, order_row[turn[1:][is_alike]])  # of most orders no row is like another
    rows: dict[int, list[list[tuple[int, int]]]] = {}  # of each order, by run: a row's number and what is in it
    columns = (order_row, groups.number[apart], content, starts[apart])
    for order, number, cells, begins in zip(*(column[wanted].tolist() for column in columns), strict=True):
        of_order = rows.setdefault(order, [])
        if begins:
            of_order.append([])
        of_order[-1].append((number, cells))
    found: dict[int, int] = {}
    for of_order in rows.values():
        whole = [row for run in of_order for row in run]
        half = len(whole) // 2  # where the list itself has an order apart, one run may end a copy and begin the next
        first_of: dict[tuple[int, ...], int] = {}
        for run in (*of_order, whole[:half], whole[half:]):
            first = first_of.setdefault(tuple(cells for _, cells in run), run[0][0])
            found |= {number: first for number, _ in run if first != run[0][0]}
        first_with = {cells: number for number, cells in reversed(whole) if number not in repeated_before}
        found |= {number: first_with[cells] for number, cells in whole if number in repeated_before and cells in first_with}
    return found


def _content(staged: Path, wanted: npt.NDArray[np.bool_], chunk_rows: int) -> Numbers:
    """Return a hash of the cells of each row that is wanted."""
    hashes, read = [], 0
    for chunk in read_chunks(staged, chunk_rows):
        rows = chunk.filter(pa.array(wanted[read : read + chunk.num_rows]))
        read += chunk.num_rows
        cells = [rows.column(field.name) for field in rows.schema if pa.types.is_string(field.type)]
        hashes.append(hashed(pc.binary_join_element_wise(*(pc.fill_null(each, "") for each in cells), "\x1f"), KEYS[0]))
    return np.concatenate(hashes)


def whole_orders(staged: Path, groups: OrderGroups, chunk_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a staged file in chunks of whole orders, these by their first row, and a column `order_row`."""
    chunk_of, sizes = _chunks(groups, chunk_rows)
    pending: dict[int, list[pa.Buffer | pa.RecordBatch]] = {}
    loose: deque[tuple[int, int]] = deque()
    read, following = 0, 0
    for chunk in read_chunks(staged, chunk_rows):
        where = chunk_of[read : read + chunk.num_rows]
        order_row = pa.array(groups.order_row[read : read + chunk.num_rows], pa.int32())
        rows = chunk.append_column(ORDER_ROW, order_row)
        read += chunk.num_rows
        parts = np.unique(where)
        for part in parts.tolist():
            these = rows if len(parts) == 1 else rows.filter(pa.array(where == part))
            sizes[part] -= these.num_rows
            loose.append((part, len(pending.setdefault(part, []))))
            pending[part].append(these)
        while following < len(sizes) and sizes[following] == 0:
            yield _in_turn([_unpacked(each) for each in pending.pop(following)])
            following += 1
        while len(loose) > LOOSE:  # of most files every chunk is whole once the next one is read
            part, place = loose.popleft()
            if part in pending:
                pending[part][place] = _packed(pending[part][place])


def _chunks(groups: OrderGroups, chunk_rows: int) -> tuple[Numbers, Numbers]:
    """Return for each row which chunk its order belongs to, and how many rows each chunk has."""
    orders, order, rows = np.unique(groups.order_row, return_inverse=True, return_counts=True)
    chunk = (np.cumsum(rows) - rows) // chunk_rows
    _, chunk = np.unique(chunk, return_inverse=True)  # one is left out where an order is larger
    return chunk[order], np.bincount(chunk, weights=rows).astype(np.int64) if len(orders) else np.empty(0, np.int64)


def _packed(rows: pa.RecordBatch) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_batch(rows)
    return sink.getvalue()


def _unpacked(rows: pa.Buffer | pa.RecordBatch) -> pa.RecordBatch:
    if isinstance(rows, pa.RecordBatch):
        return rows
    with pa.ipc.open_stream(rows) as reader:
        return reader.read_next_batch()


def _in_turn(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Return the rows of a chunk order by order."""
    (rows,) = pa.Table.from_batches(parts).combine_chunks().to_batches()
    order_row, number = (rows.column(name).to_numpy() for name in (ORDER_ROW, "import_row_number"))
    if (np.diff(order_row) >= 0).all():
        return rows
    return rows.take(pa.array(np.lexsort((number, order_row))))

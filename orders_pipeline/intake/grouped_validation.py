"""Validation of a file whose rows are lines of orders: an order is accepted with all of its rows, or rejected with them.

What orders and lines are worth is said in `records/order_lines.py`, and which rows are one order in `order_groups.py`. Files
with one order a row, and what is written of both, are in `validation.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.infrastructure.parquet_file import map_in_turn, read_chunks
from orders_pipeline.intake.duplicate_rows import NO_DUPLICATES
from orders_pipeline.intake.order_groups import (
    MOST_LINES,
    ORDER_ROW,
    OrderGroups,
    find_orders,
    find_repeated_rows,
    whole_orders,
)
from orders_pipeline.intake.repeated_orders import RepeatedOrders, none_is_settled
from orders_pipeline.intake.total_rows import find_total_rows
from orders_pipeline.intake.validation import (
    CHUNK_ROWS,
    SAME_ORDER,
    TOTAL_ROW,
    Chunk,
    Seal,
    Validated,
    accepted_schema,
    accepted_table,
    add_undecided,
    ambiguous_corrections,
    closed_rows,
    misshapen_answers,
    rejections_table,
    rows_by_code,
    write,
)
from orders_pipeline.records.corrected_rows import NO_ROW, Answer, Corrections
from orders_pipeline.records.grouping import Grouping
from orders_pipeline.records.judgement import Judge, Mask, Positions, Rows, as_json, mask_of
from orders_pipeline.records.order_lines import GroupedJudge, GroupedRows, accepted_lines
from orders_pipeline.records.orders import ORDER_LINES, ORDERS
from orders_pipeline.records.record_type import RowContext

Line: TypeAlias = tuple[Any, ...]  # cells of the columns of lines
LinesOf: TypeAlias = Callable[[Sequence[str]], Mapping[str, Sequence[Line]]]

IDENTITY = ORDERS.identity
INCOMPLETE = "R_ORDER_INCOMPLETE"
_MOST_NAMED = 10  # rows that were left out


def validate_grouped(
    staged: Path,
    accepted: Path,
    rejections: Path,
    *,
    context: RowContext,
    grouping: Grouping,
    seal: Seal,
    repeated: RepeatedOrders,
    lines_of: LinesOf | None = None,
    corrections: Corrections | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Validated:
    """Judge every staged row as `validation.validate` does, several rows of one reference being one order.

    Accepted orders are written by ascending number of their first row, with their lines. `lines_of` returns the lines that
    orders received before have, by reference; without it lines are not compared.
    """
    judge = GroupedJudge(context, grouping)
    groups = find_orders(staged, judge.rows, chunk_rows, lines_may_be_skipped=grouping.sums_lines)
    left_out: Mapping[frozenset[int], Sequence[int]] = {}
    repeated_before: frozenset[int] = frozenset()
    if corrections is not None:
        repeated = replace(repeated, settled=none_is_settled)
        corrections = replace(corrections, ambiguous=ambiguous_corrections(staged, NO_DUPLICATES, chunk_rows))
        answered = _answered(staged, judge.rows, corrections, chunk_rows)
        left_out = {whole: sorted(whole - answered) for whole in set(corrections.orders.values())}
        repeated_before = _repeated_before(staged, corrections, chunk_rows)
    repeating = groups.continuing if not grouping.sums_lines else None
    totals = find_total_rows(staged, judge.rows, chunk_rows, repeating=repeating)
    validation = _Validation(
        judge,
        seal,
        groups,
        {order: lost for lost, order in groups.may_be_of(but=totals)} | {**groups.partly_skipped},
        find_repeated_rows(staged, groups, chunk_rows, repeated_before),
        repeated,
        lines_of,
        pa.array(sorted(totals), pa.int32()),
        corrections,
        left_out,
    )
    judged = map_in_turn(whole_orders(staged, groups, chunk_rows), validation.of_chunk)
    return write(judged, accepted, accepted_schema(ORDERS, with_lines=True), rejections) + closed_rows(staged, corrections)


@dataclass(frozen=True)
class _Validation:
    """The validation of one file's chunks of whole orders, with what was found out over the whole file.

    `lost_of` has the orders that rows may belong to of which nobody can say so, and those that are partly skipped, each with
    such a row. `repeated_rows` repeat others of their order, each with the first of them. Of rows that were
    rejected together, `left_out` has those that a correcting file does not answer.
    """

    judge: GroupedJudge
    seal: Seal
    groups: OrderGroups
    lost_of: Mapping[int, int]
    repeated_rows: Mapping[int, int]
    repeated: RepeatedOrders
    lines_of: LinesOf | None
    total_rows: pa.Array
    corrections: Corrections | None
    left_out: Mapping[frozenset[int], Sequence[int]]

    def of_chunk(self, _number: int, chunk: pa.RecordBatch) -> Chunk:
        """Return the accepted orders of a chunk, the rejections of its rows, and its counts."""
        shaped = chunk.filter(chunk.column("shape_ok"))
        number, order_row = shaped.column("import_row_number"), shaped.column(ORDER_ROW).to_numpy()
        raw = {field.name: shaped.column(field.name) for field in shaped.schema if pa.types.is_string(field.type)}
        rows = self.judge.judge(number, np.diff(order_row, prepend=0) != 0, raw)
        is_too_large = np.isin(order_row, self.groups.number[self.groups.is_too_large])
        rows.findings.add(IDENTITY, "R_TOO_MANY_LINES", is_too_large, {"limit": str(MOST_LINES)})
        repeated, answers, misshapen = self._add_repeated(rows, chunk, shaped, raw)
        is_total = mask_of(pc.is_in(number, value_set=self.total_rows))
        again = {at: first for at, row in enumerate(number.to_pylist()) if (first := self.repeated_rows.get(row))}
        details = [as_json({"first_row": str(first)}) for first in again.values()]
        rows.findings.add_each(IDENTITY, "R_REF_DUP_IN_FILE", np.array([*again], np.intp), details)
        add_undecided(rows.findings, shaped)
        for position in np.flatnonzero(is_total).tolist():
            rows.findings.add_instead(TOTAL_ROW, position)
        self._add_incomplete(rows, order_row)
        same = self._same(rows, repeated)
        rows.findings.forget(np.flatnonzero(same))
        good = rows.findings.clean & ~same
        orders, lines = rows.orders.where(good[rows.first]), rows.lines.where(good)
        self.judge.confirm(orders, lines)
        counted = _counted(chunk, rows, good, is_total, int(np.count_nonzero(same)))
        counted.warnings.update(self.judge.orders.warned(orders))
        counted.answers.extend([*answers.values(), *misshapen])
        return self._accepted(rows, orders, lines, good), rejections_table(chunk, rows.findings, ORDERS), counted

    def _add_repeated(
        self, rows: GroupedRows, chunk: pa.RecordBatch, shaped: pa.RecordBatch, raw: Mapping[str, pa.Array]
    ) -> tuple[Positions, dict[int, Answer], list[Answer]]:
        """Note orders that were received before, and what is wrong with rows as corrections.

        Return the orders that are the same as settled ones, and what rows answer.
        """
        found = rows.found_in_orders(IDENTITY)
        with_lines = replace(self.repeated, differing=partial(self._differing, rows))
        same = with_lines.add_existing(rows.orders, found)
        rows.spread(found)
        answers: dict[int, Answer] = {}
        misshapen: list[Answer] = []
        if self.corrections is not None:
            text, _ = ORDERS.normalised(raw, self.judge.rows.context)
            as_sent = replace(rows.lines, text={name: each.cells for name, each in text.items()})
            named = shaped.column("corrects_row").to_pylist()
            answers = self.corrections.check(ORDERS, as_sent, raw, named, rows.findings)
            misshapen = misshapen_answers(self.corrections, chunk)
            self._add_rows_left_out(self.corrections, rows, answers)
        found = rows.found_in_orders(IDENTITY)
        self.repeated.add_shortened(rows.orders, found, _places(rows, list(answers)))
        kept = [at for at, each in answers.items() if each.keeps_reference]
        self.repeated.add_given_up(rows.orders, found, _places(rows, kept))
        rows.spread(found)
        return same, answers, misshapen

    def _differing(self, rows: GroupedRows, orders: Rows, references: Sequence[str]) -> list[Sequence[str]]:
        """Return of each order the columns in which it or its lines differ from the order that has its reference."""
        columns = self.repeated.differing(orders, references)
        received = self.lines_of(references) if self.lines_of is not None else None
        if received is None:
            return [*columns]
        cells = [rows.lines.values.get(name, rows.lines.text[name]).to_pylist() for name in ORDER_LINES.column_names]
        lines = [tuple(None if cell == "" else cell for cell in line) for line in zip(*cells, strict=True)]
        ends = np.append(rows.first, len(lines))
        places = np.searchsorted(rows.orders.number.to_numpy(), orders.number.to_numpy()).tolist()
        differing: list[Sequence[str]] = []
        for place, reference, others in zip(places, references, columns, strict=True):
            of_lines = _differing_lines(lines[ends[place] : ends[place + 1]], received.get(reference, ()))
            differing.append([name for name in ORDERS.column_names if name in {*others, *of_lines}])
        return differing

    @staticmethod
    def _same(rows: GroupedRows, orders: Positions) -> Mask:
        """Return the rows of those orders that are skipped: nothing was found of them but that they were received before."""
        same: Mask = np.zeros(rows.findings.size, np.bool_)
        if len(orders):
            same[rows.findings.alone(SAME_ORDER)] = True
            whole = np.logical_and.reduceat(same, rows.first)
            same &= (whole & np.isin(np.arange(len(whole)), orders))[rows.order_of]
        return same

    def _add_rows_left_out(self, corrections: Corrections, rows: GroupedRows, answers: Mapping[int, Answer]) -> None:
        """Note orders that correct some of the rows that were rejected together, where nothing corrects the others."""
        wholes: dict[int, set[frozenset[int]]] = {}
        bad_reference = rows.findings.bad_in(IDENTITY)
        for at, answer in answers.items():
            if not bad_reference[at] and answer.corrects_row in corrections.orders:
                wholes.setdefault(int(rows.order_of[at]), set()).add(corrections.orders[answer.corrects_row])
        for order, these in wholes.items():
            if missing := sorted({number for whole in these for number in self.left_out[whole][:_MOST_NAMED]}):
                numbers = [str(number) for number in missing if number > NO_ROW][:_MOST_NAMED]
                detail = {"missing": ", ".join(numbers)} if numbers else {}
                detail |= {"hint": "rows_elsewhere"} if missing[0] <= NO_ROW else {}
                rows.findings.add_each("", INCOMPLETE, rows.first[[order]], [as_json(detail)])

    def _add_incomplete(self, rows: GroupedRows, order_row: Positions) -> None:
        """Note rows that are rejected for other rows of their order, or for one that may be of it."""
        if not len(rows.first):
            return
        findings, number = rows.findings, rows.lines.number
        bad, bad_reference = ~findings.clean, findings.bad_in(IDENTITY)
        reference_is_bad = np.logical_or.reduceat(bad_reference, rows.first)
        held_up = np.flatnonzero(np.isin(order_row[rows.first], list(self.lost_of)))
        cause_of = {int(order): self.lost_of[int(order_row[rows.first[order]])] for order in held_up}
        wrong, at = np.unique(rows.order_of[bad], return_index=True)
        cause_of |= dict(zip(wrong.tolist(), number.filter(pa.array(bad)).take(pa.array(at)).to_pylist(), strict=True))
        incomplete = np.flatnonzero(~bad & np.isin(rows.order_of, list(cause_of)))
        for column, chosen in ((IDENTITY, reference_is_bad), ("", ~reference_is_bad)):
            at = incomplete[chosen[rows.order_of[incomplete]]]
            details = [as_json({"other_row": str(cause_of[order])}) for order in rows.order_of[at].tolist()]
            findings.add_each(column, INCOMPLETE, at, details)

    def _accepted(self, rows: GroupedRows, orders: Rows, lines: Rows, good: Mask) -> pa.Table:
        """Return accepted orders as they are written."""
        table = accepted_table(orders, ORDERS, self.seal)
        order_of = np.cumsum(good[rows.first])[rows.order_of[good]] - 1
        items = accepted_lines(lines, order_of, len(orders.number))
        added = pa.nulls(len(items)) if rows.added is None else rows.added.filter(pa.array(good[rows.first]))
        cells = [pc.list_value_length(items), added.cast(pa.int32()), items]
        return pa.table([*table.columns, *cells], schema=accepted_schema(ORDERS, with_lines=True))


def _answered(staged: Path, judge: Judge, corrections: Corrections, chunk_rows: int) -> frozenset[int]:
    """Return the rows that rows of a correcting file name under a reference that they may have, of whichever order."""
    found: set[int] = set()
    for chunk in read_chunks(staged, chunk_rows, ["shape_ok", "corrects_row", IDENTITY]):
        rows = chunk.filter(pc.and_(chunk.column("shape_ok"), pc.is_valid(chunk.column("corrects_row"))))
        references, valid = judge.valid_identities(rows.column(IDENTITY))
        for number, reference, is_valid in zip(
            rows.column("corrects_row").to_pylist(), references.to_pylist(), valid.tolist(), strict=True
        ):
            named = None if number in corrections.ambiguous else corrections.rows.get(number)
            if is_valid and named is not None and named.may_have(reference):
                found.add(number)
    return frozenset(found)


def _repeated_before(staged: Path, corrections: Corrections, chunk_rows: int) -> frozenset[int]:
    """Return the rows of a correcting file that name one which was rejected for repeating another."""
    repeats = pa.array([number for number, named in corrections.rows.items() if named.repeats], pa.int32())
    found: set[int] = set()
    for chunk in read_chunks(staged, chunk_rows, ["import_row_number", "corrects_row"]) if len(repeats) else ():
        these = pc.is_in(chunk.column("corrects_row"), value_set=repeats)
        found.update(chunk.column("import_row_number").filter(these).to_pylist())
    return frozenset(found)


def _places(rows: GroupedRows, positions: list[int]) -> list[int]:
    """Return the orders that rows are of."""
    places: list[int] = np.unique(rows.order_of[positions]).tolist()
    return places


def _differing_lines(mine: Sequence[Line], theirs: Sequence[Line]) -> list[str]:
    """Return the columns in which the lines of two orders differ, in whatever order they stand."""
    if len(mine) != len(theirs):
        return [*ORDER_LINES.column_names]
    pairs = [*zip(sorted(mine, key=repr), sorted(theirs, key=repr), strict=True)]
    return [name for at, name in enumerate(ORDER_LINES.column_names) if any(one[at] != other[at] for one, other in pairs)]


def _counted(chunk: pa.RecordBatch, rows: GroupedRows, good: Mask, is_total: Mask, same: int) -> Validated:
    """Return what one chunk came to."""
    accepted = int(np.count_nonzero(good))
    is_order = good[rows.first]
    amounts = rows.amounts.filter(pa.array(~is_total[rows.first]))
    return Validated(
        rows_accepted=accepted,
        rows_continuing=accepted - int(np.count_nonzero(is_order)),
        rows_rejected=chunk.num_rows - accepted - same,
        rows_same=same,
        amount_accepted=pc.sum(rows.amounts.filter(pa.array(is_order))).as_py() or 0,
        amount_sent=pc.sum(amounts).as_py() or 0,
        amounts_unreadable=chunk.num_rows - len(good) + amounts.null_count,
        rejections=rows_by_code(chunk, rows.findings),
        normalised=Counter(rows.changed),
    )

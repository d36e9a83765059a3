"""Orders of several rows: how an order is made of its rows, each of which is a line of it, and what is wrong with them.

Columns of the order are those of its first row; below it they are blank or the same. Item columns are each line's own. Which
rows of a file are one order is found out in `intake/order_groups.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.records.grouping import Grouping
from orders_pipeline.records.judgement import Findings, Judge, Mask, Positions, Rows, as_json, mask_of
from orders_pipeline.records.orders import ITEM_COLUMNS, MOST_LINE_YEN, ORDER_LINES, ORDERS
from orders_pipeline.records.record_type import RowContext

Cells: TypeAlias = Mapping[str, pa.Array]

LINES = "lines"  # of an accepted order: its lines, as a list
LINE_COUNT = "line_count"
AMOUNT_ADDED = "amount_added"
ACCEPTED_LINE = pa.struct(
    [pa.field("import_row_number", pa.int32()), *(column.arrow_field for column in ORDER_LINES.columns)]
)

_AMOUNT = ORDERS.amount
_NUMBER = "^-?[0-9]{1,9}$"  # so that a product fits 64 bits
_UNKNOWN = "1"  # is judged in place of an amount that cannot be known, whose order is rejected for that


@dataclass(frozen=True)
class GroupedRows:
    """Rows, and the orders that they are.

    `lines` are all rows; of each, `order_of` is the place of its order in `orders`. `first` are the positions of the orders'
    first rows, `amounts` the yen of the orders, null where unknown, and `added` those beside their lines' amounts; None
    where an amount is not made of its lines'. `findings` are of rows.
    """

    orders: Rows
    lines: Rows
    first: Positions
    order_of: Positions
    amounts: pa.Array
    added: pa.Array | None
    findings: Findings
    changed: Mapping[str, int]

    def found_in_orders(self, column: str) -> Findings:
        """Return findings of orders, with none yet, that know of which a column of the first row is bad."""
        return Findings(len(self.first), _bad={column: self.findings.bad_in(column)[self.first]})

    def spread(self, found_in_orders: Findings) -> None:
        """Note at all rows of orders what was found in these."""
        for found in found_in_orders.found:
            details = dict(zip(found.positions.tolist(), found.details, strict=True))
            rows = np.flatnonzero(np.isin(self.order_of, found.positions))
            of_rows = [details[order] for order in self.order_of[rows].tolist()]
            self.findings.add_each(found.column, found.code, rows, of_rows)


@dataclass(frozen=True)
class _Numbers:
    """Whole numbers that cells say; null where a cell is blank or no such number."""

    values: pa.Array
    is_blank: Mask

    @property
    def is_unreadable(self) -> Mask:
        """Return where something else stands."""
        return mask_of(self.values.is_null()) & ~self.is_blank


class GroupedJudge:
    """The rules of orders and of lines in one context, ready to judge rows that are grouped by order."""

    def __init__(self, context: RowContext, grouping: Grouping) -> None:
        self.grouping = grouping
        self.rows = Judge(ORDERS, context)  # each row by itself
        others = {name: how for name, how in context.translate.items() if name != _AMOUNT}
        self._untranslated = replace(context, translate=others)  # factors and what is added are other columns
        self.orders = Judge(ORDERS, self._untranslated if grouping.sums_lines else context)
        self.lines = Judge(ORDER_LINES, context if grouping.each == "line" else self._untranslated)
        self._own = tuple(
            name
            for name in ORDERS.column_names
            if name not in ITEM_COLUMNS and not (name == _AMOUNT and grouping.sums_lines)
        )

    def judge(self, number: pa.Array, starts: Mask, raw: Cells) -> GroupedRows:
        """Return the orders and lines that rows are, and what is wrong with them.

        The rows of an order stand together, and `starts` says of each whether it is the first. `raw` are all staged cells.
        """
        first, order_of = np.flatnonzero(starts), np.cumsum(starts) - 1
        findings = Findings(len(number))
        lines, changed = self._judge_lines(number, raw, findings)
        top = {name: cells.take(pa.array(first)) for name, cells in raw.items()}
        added = self._sum_of_added(raw, first, findings) if self.grouping.sums_lines else None
        blank = pa.repeat("", len(first))
        cells = {name: top[name] for name in self._own} | dict.fromkeys(ITEM_COLUMNS, blank)
        if added is not None:
            amounts = pc.add(_sums(lines.values[_AMOUNT], first), added)
            cells[_AMOUNT] = pc.fill_null(amounts.cast(pa.string()), _UNKNOWN)
        orders, found, of_orders = self.orders.judge(number.take(pa.array(first)), cells)
        for one in found.found:
            findings.add_each(one.column, one.code, first[one.positions], one.details)
        if added is None:
            amounts = orders.values[_AMOUNT]
        counts = changed | {name: of_orders[name] for name in self._own}
        rows = GroupedRows(orders, lines, first, order_of, amounts, added, findings, counts)
        self._add_conflicts(rows, number, np.flatnonzero(~starts), raw)
        return rows

    def confirm(self, orders: Rows, lines: Rows) -> None:
        """Hold orders and lines in which nothing was found against the Pandera schemas; raise RulesBroken."""
        self.orders.confirm(orders)
        self.lines.confirm(lines)

    def _judge_lines(self, number: pa.Array, raw: Cells, findings: Findings) -> tuple[Rows, dict[str, int]]:
        """Judge rows as lines, and note those that lack an amount where one is needed."""
        factors = [self._numbers(name, raw[name]) for name in self.grouping.factors]
        if factors:
            product = pc.multiply(*(factor.values for factor in factors))
            amounts = pc.fill_null(product.cast(pa.string()), "")
        else:
            amounts = raw[_AMOUNT] if self.grouping.each == "line" else pa.repeat("", len(number))
        cells = {name: raw[name] for name in ITEM_COLUMNS} | {_AMOUNT: amounts}
        lines, found, changed = self.lines.judge(number, cells)
        for one in found.found:
            findings.add_each(one.column, one.code, one.positions, one.details)
        if self.grouping.sums_lines:
            missing = mask_of(lines.values[_AMOUNT].is_null()) & ~findings.bad_in(*self.grouping.factors)
            for factor in factors:
                findings.add(_AMOUNT, "R_AMOUNT_FORMAT", missing & factor.is_unreadable, {})
            findings.add(_AMOUNT, "R_REQUIRED", missing, {})
        return lines, changed | ({_AMOUNT: 0} if factors else {})

    def _sum_of_added(self, raw: Cells, first: Positions, findings: Findings) -> pa.Array:
        """Return the yen of each order beside its lines' amounts; they may come to no more than a line may.

        What counts once stands in its first row.
        """
        total = pa.array(np.zeros(len(first), np.int64))
        every = np.arange(findings.size)
        for name in (*self.grouping.added, *self.grouping.added_each_line):
            is_of_lines = name in self.grouping.added_each_line
            at = every if is_of_lines else first
            yen = self._numbers(name, raw[name].take(pa.array(at)))
            unreadable = at[yen.is_unreadable]
            findings.add_each(_AMOUNT, "R_AMOUNT_FORMAT", unreadable, [as_json({})] * len(unreadable))
            values = pc.if_else(pa.array(yen.is_blank), 0, yen.values)
            total = pc.add(total, _sums(values, first) if is_of_lines else values)
        over = mask_of(pc.fill_null(pc.greater(pc.abs(total), MOST_LINE_YEN), False))
        findings.add_each(_AMOUNT, "R_AMOUNT_OVER_LIMIT", first[over], [as_json({})] * int(over.sum()))
        return pc.if_else(pa.array(over), None, total)

    def _numbers(self, name: str, raw: pa.Array) -> _Numbers:
        column = ORDER_LINES.by_name.get(name, ORDER_LINES.by_name[_AMOUNT])
        text = column.normalised(raw, self._untranslated)
        values = pc.if_else(pc.match_substring_regex(text, _NUMBER), text, None).cast(pa.int64())
        return _Numbers(values, mask_of(pc.equal(text, "")))

    def _add_conflicts(self, rows: GroupedRows, number: pa.Array, below: Positions, raw: Cells) -> None:
        """Note rows below the first one of their order that say something else of the order."""
        above = rows.first[rows.order_of[below]]
        names = [name for name in (*self._own, *self.grouping.added) if name != ORDERS.identity]
        differs = {name: _says_more(raw[name].take(pa.array(below)), raw[name].take(pa.array(above))) for name in names}
        suspects = np.logical_or.reduce([*differs.values()])
        if not suspects.any():
            return
        below, above = below[suspects], above[suspects]
        differs = {name: says_more[suspects] for name, says_more in differs.items()}
        conflicts = self._conflicts(rows, number, (below, above), raw, differs)
        first_rows = number.take(pa.array(above[list(conflicts)])).to_pylist()
        details = [
            as_json({"first_row": str(first_row), "columns": ", ".join(columns)})
            for first_row, columns in zip(first_rows, conflicts.values(), strict=True)
        ]
        if details:
            rows.findings.add_each(ORDERS.identity, "R_REF_CONFLICT", below[list(conflicts)], details)

    def _conflicts(
        self,
        rows: GroupedRows,
        number: pa.Array,
        pairs: tuple[Positions, Positions],
        raw: Cells,
        differs: Mapping[str, Mask],
    ) -> dict[int, list[str]]:
        """Return which of some rows below a first one are at odds with it, and in which columns.

        What is wrong with their cells by itself is noted instead.
        """
        below, above = (pa.array(each) for each in pairs)
        numbers = number.take(below)
        cells = dict.fromkeys(ITEM_COLUMNS, pa.repeat("", len(numbers))) | {_AMOUNT: pa.repeat(_UNKNOWN, len(numbers))}
        for name in self._own:
            own = raw[name].take(below)
            cells[name] = pc.if_else(pa.array(differs[name]), own, raw[name].take(above)) if name in differs else own
        judged, found, _ = self.orders.judge(numbers, cells)
        for one in found.found:
            if one.column in differs:
                kept = np.flatnonzero(differs[one.column][one.positions])
                details = [one.details[place] for place in kept.tolist()]
                rows.findings.add_each(one.column, one.code, pairs[0][one.positions[kept]], details)
        orders = pa.array(rows.order_of[pairs[0]])
        conflicts: dict[int, list[str]] = {}
        for name, says_more in differs.items():
            if name in self._own:
                theirs, own = rows.orders.text[name].take(orders), judged.text[name]
            else:
                theirs, own = (self._numbers(name, raw[name].take(each)).values for each in (above, below))
            is_other = mask_of(pc.fill_null(pc.not_equal(own, theirs), True)) & says_more
            for place in np.flatnonzero(is_other & ~rows.findings.bad_in(name)[pairs[0]]).tolist():
                conflicts.setdefault(place, []).append(name.strip('"'))
        return conflicts


def _sums(values: pa.Array, first: Positions) -> pa.Array:
    """Return the sum of each order's values, null where one is null."""
    if not len(first):
        return pa.array([], pa.int64())
    sums = np.add.reduceat(pc.fill_null(values, 0).to_numpy(), first)
    return pa.array(sums, mask=np.logical_or.reduceat(mask_of(values.is_null()), first))


def _says_more(own: pa.Array, above: pa.Array) -> Mask:
    """Return which cells are neither blank nor what stands in the first row."""
    differs = mask_of(pc.not_equal(own, above))
    if differs.any():
        differs &= mask_of(pc.not_equal(pc.utf8_trim_whitespace(own), ""))
    return differs


def accepted_lines(lines: Rows, order_of: Sequence[int] | npt.NDArray[np.intp], orders: int) -> pa.Array:
    """Return the lines of accepted orders, a list for each; `order_of` has the place of each line's order, ascending."""
    cells = [lines.number]
    for column in ORDER_LINES.columns:
        values = (
            lines.values[column.name]
            if column.is_typed
            else pc.if_else(pc.equal(lines.text[column.name], ""), None, lines.text[column.name])
        )
        cells.append(values.cast(column.arrow_field.type))
    ends = np.searchsorted(np.asarray(order_of), np.arange(orders + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.StructArray.from_arrays(cells, fields=list(ACCEPTED_LINE)))

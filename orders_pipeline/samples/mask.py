"""Masking: a real file becomes one that may be shared, with its shape, duplicates and errors, and none of its values.

The structure of the bytes stays (encoding, BOM, delimiter, quotes, line ends, blank rows, lengths), and with it what is
wrong with the file. Each cell is replaced by a masked one: how is said in `masked_cells.py`.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pyarrow as pa

from orders_pipeline.batches import batches
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.clients.row_choices import RowChoice
from orders_pipeline.intake.csv_file import Dialect
from orders_pipeline.intake.csv_file.encoding import detect_text
from orders_pipeline.intake.csv_file.header import Names
from orders_pipeline.intake.csv_file.physical_lines import TextSpan
from orders_pipeline.intake.total_rows import Sums, Which, amounts, say_only_a_sum
from orders_pipeline.records.judgement import Judge
from orders_pipeline.records.normalise import normalise_header, unnumbered
from orders_pipeline.records.orders import EXAMPLE, ITEM_COLUMNS, ORDERS
from orders_pipeline.records.record_type import RowContext
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.records.rules import CELL_ERROR, NOT_AS_SHOWN
from orders_pipeline.samples import masked_cells
from orders_pipeline.samples.cells import Cell, read_records
from orders_pipeline.samples.masked_cells import Judged, Meaning, Rewrite

_CELL_ERROR = re.compile(CELL_ERROR)  # which says nothing of anybody either
_OURS = ("_batch", "_row", "_line", "_codes")
_CHOICES = ("currency", "payment_method", "notify_channel")  # words of the catalogue, which say nothing of anybody
_MONEY = (*ITEM_COLUMNS[1:], ORDERS.amount)
_REWRITES: Mapping[str, Rewrite] = {
    "order_date": masked_cells.calendar_date,
    "email": masked_cells.email,
    "phone": masked_cells.phone,
    **dict.fromkeys(_MONEY, masked_cells.number),
}
_MONEY_ATTEMPTS = 300
_KEYS_TRIED = 20


class MaskFailed(Exception):
    """No masked file can be made that reads like the original."""

    code = "E_MASK"


@dataclass(frozen=True)
class Masked:
    """What was masked: records after the header, and cells with something in them."""

    encoding: str
    rows: int
    cells: int


def mask_file(source: Path, target: Path, *, profile: Profile, today: date | None = None) -> Masked:
    """Write `source` masked to `target`.

    Words of payment method, channel and currency, and of the profile's `skip` and `reject`, header names of the catalogue
    and our own columns stay. Amounts keep their number of digits and add up where they did; dates stay about where they are.
    Raises FileRejected where the source is no text we can read, and MaskFailed where no masked text is found to be in the
    same encoding.
    """
    dialect = Dialect(profile.delimiter, profile.quoting != "none")
    span = detect_text(source, dialect, profile.encoding)
    words = {column: each.translate for column, each in profile.columns.items()}
    context = RowContext(today or batches.today(), span.encoding, profile.notify_channel, words)
    data = source.read_bytes()
    text = data[span.start : span.end].decode(span.codec)
    for _ in range(_KEYS_TRIED):
        records, names = read_records(text, profile)
        choices = (*profile.skip, *profile.reject)
        masked = _Masking(context, span.codec, secrets.token_bytes(32), choices).mask(records, names)
        written = "".join(cell.written for record in records for cell in record).encode(span.codec)
        target.write_bytes(data[: span.start] + written + data[span.end :])
        if _reads_as(span, target, profile):
            return Masked(span.encoding, *masked)
    with contextlib.suppress(OSError):  # a file in memory has no name to remove
        target.unlink()
    raise MaskFailed("no masked text reads like the original's encoding")


def _reads_as(span: TextSpan, target: Path, profile: Profile) -> bool:
    """Return whether a file is found to be the same text by its bytes: a few characters of CP932 may be EUC-JP by chance."""
    try:
        return replace(detect_text(target, encoding=profile.encoding), end=span.end) == span
    except FileRejected:
        return False


class _Masking:
    """One run: its key, and what cells mean in the client's files; words by which the profile chooses rows stay."""

    def __init__(self, context: RowContext, codec: str, key: bytes, choices: Sequence[RowChoice]) -> None:
        self._choices = choices
        self._judge = Judge(ORDERS, context)
        self._codec = codec
        self._key = key

    def mask(self, records: Sequence[list[Cell]], names: Names) -> tuple[int, int]:
        """Replace the cells of all records, and return how many records and filled cells there are."""
        filled = [record for record in records if any(cell.value for cell in record)]
        header, rows = (filled[0], filled[1:]) if filled else ([], [])
        columns = [column or "" for column in names.columns(cell.value for cell in header)]
        ours = {at for at, cell in enumerate(header) if normalise_header(cell.value) in _OURS}
        kept = self._words_kept(header, rows)
        loose: list[Cell] = []
        orders: list[Mapping[str, Cell]] = []
        by_column: dict[str, list[Cell]] = {}
        for record in [header, *rows]:
            if record is header or names.is_header([cell.value for cell in record]):
                loose += self._not_names(record, names)
            else:
                others = (at for at in range(len(record)) if at >= len(header) or not (columns[at] or at in ours))
                loose += [record[at] for at in others if record[at].value not in kept.get(at, ())]
                orders.append(
                    {
                        f"{column} {at}": cell
                        for at, (column, cell) in enumerate(zip(columns, record, strict=False))
                        if column
                    }
                )
        orders = self._without_examples(orders)
        yen = self._yen(orders)
        totals = self._totals(orders, yen)
        all_rows, orders = orders, [order for at, order in enumerate(orders) if at not in totals]
        for row, done in zip(orders, self._mask_money(orders), strict=True):
            for place, cell in row.items():
                column = place.partition(" ")[0]
                if not (done and column in _MONEY):
                    by_column.setdefault(column, []).append(cell)
        for column, cells in by_column.items():
            self._replace(cells, self._meaning(column))
        self._replace(loose, Meaning("", _worth_nothing, masked_cells.text, fresh=True))
        self._add_up(all_rows, totals, yen)
        return len(rows), sum(bool(cell.value) for record in rows for cell in record)

    def _words_kept(self, header: Sequence[Cell], rows: Sequence[Sequence[Cell]]) -> dict[int, set[str]]:
        """Return by place the cells that are words of the profile, which say nothing of anybody."""
        kept: dict[int, set[str]] = {}
        for choice in self._choices:
            for at, cell in enumerate(header):
                if normalise_header(cell.value) == normalise_header(choice.header):
                    cells = {row[at].value for row in rows if at < len(row)}
                    kept.setdefault(at, set()).update(choice.words_in([*cells]))
        return kept

    def _without_examples(self, orders: Sequence[Mapping[str, Cell]]) -> list[Mapping[str, Cell]]:
        """Return the orders, first those that are the template's example without its cells, which say nothing of anybody."""
        if not orders:
            return []
        _, findings, _ = self._judge.judge(*_table_of(orders))
        examples = {
            at
            for one in findings.found
            if one.code == "R_EXAMPLE_ROW"
            for at in one.positions.tolist()
            if _has_no_column_twice(orders[at])
        }
        typed_over = [
            {place: cell for place, cell in orders[at].items() if place.partition(" ")[0] not in EXAMPLE}
            for at in sorted(examples)
        ]
        return typed_over + [order for at, order in enumerate(orders) if at not in examples]

    def _yen(self, orders: Sequence[Mapping[str, Cell]]) -> list[int | None]:
        """Return the yen of each order, None where the amount cannot be read."""
        yen: list[int | None] = amounts(pa.table(_table_of(orders)[1]), self._judge).to_pylist()
        return yen

    def _totals(self, orders: Sequence[Mapping[str, Cell]], yen: Sequence[int | None]) -> dict[int, Which]:
        """Return which of the orders are sums of those above, and say nothing else, each with what it sums up."""
        may_be_one = say_only_a_sum(pa.table(_table_of(orders)[1]), self._judge)
        rows = (
            (at, yen[at], may_be_one[at] and ORDERS.amount in _cells_by_column(order) and _has_no_column_twice(order))
            for at, order in enumerate(orders)
        )
        return dict(Sums().totals(rows))

    def _add_up(
        self,
        orders: Sequence[Mapping[str, Cell]],
        totals: Mapping[int, Which],
        sent: Sequence[int | None],
    ) -> None:
        """Let total rows be the sums of what the orders above have become."""
        sums = Sums()
        for at, yen in enumerate(self._yen(orders) if totals else ()):
            if at in totals:
                cell = _cells_by_column(orders[at])[ORDERS.amount]
                new = (sums.group if totals[at] == "group" else sums.all) or 0
                is_as_long = len(str(new)) == len(str(sent[at]))
                cell.value = masked_cells.with_number(cell.value, new) if is_as_long else str(new)
                sums.group = None
            elif yen is not None:
                sums.add(yen)

    def _not_names(self, header: Sequence[Cell], names: Names) -> list[Cell]:
        """Return what of a header is no name: nothing where it is one, what we do not know where it may be an order."""
        if names.is_header([cell.value for cell in header]):
            return []
        known = {*map(unnumbered, names.known), *_OURS}
        return [cell for cell in header if normalise_header(cell.value) not in known]

    def _meaning(self, column: str) -> Meaning:
        fresh = ORDERS.by_name[column].kind not in ("number", "date")
        rewrite = _behind_mark(_REWRITES.get(column, masked_cells.text))
        # by its column's own rules: those across columns say the same of all cells whose row is empty otherwise
        needed = tuple(each for each in ORDERS.columns if each.name in (column, ORDERS.payer))
        alone = replace(ORDERS, columns=needed, text_row_rules=(), typed_row_rules=())
        judge = Judge(alone, self._judge.context)
        return Meaning(column, lambda cells: self._judged(judge, column, cells), rewrite, fresh)

    def _judged(self, judge: Judge, column: str, cells: Sequence[str]) -> Judged:
        """Return each cell's codes in its column, and its text as it is compared with others'."""
        rows, findings, _ = judge.judge(*_table(len(cells), {column: cells}))
        codes: list[set[str]] = [set() for _ in cells]
        for finding in findings.found:
            if finding.column == column:
                for position in finding.positions:
                    codes[position].add(finding.code)
        text = rows.text[column]
        compared = ORDERS.folded(text) if column == ORDERS.identity else text
        return list(zip(map(frozenset, codes), compared.to_pylist(), strict=True))

    def _mask_money(self, orders: Sequence[Mapping[str, Cell]]) -> list[bool]:
        """Mask quantity, unit price and amount together where each can be read, and say in which orders that was done."""
        if not orders:
            return []
        places = [_cells_by_column(order) for order in orders]
        sent = {
            column: [order[column].value if column in order else "" for order in places]
            for column in (ITEM_COLUMNS[0], *_MONEY)
        }
        rows, findings, _ = self._judge.judge(*_table(len(orders), sent))
        bad = {
            position
            for finding in findings.found
            if finding.column in _MONEY and finding.code != "R_AMOUNT_MISMATCH"
            for position in finding.positions
        }
        values = list(zip(*(rows.values[column].to_pylist() for column in _MONEY), strict=True))
        made: dict[tuple[int | None, ...], tuple[int | None, ...]] = {}
        taken: set[tuple[int | None, ...]] = set()
        for position, order in enumerate(places):
            if position in bad:
                continue
            sums = values[position]
            if sums not in made:
                made[sums] = self._other_money(sums, taken)
                taken.add(made[sums])
            for column, value in zip(_MONEY, made[sums], strict=True):
                if value is not None:
                    order[column].value = masked_cells.with_number(order[column].value, value)
        return [position not in bad for position in range(len(orders))]

    def _other_money(self, sent: tuple[int | None, ...], taken: set[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        found = None
        for attempt in range(_MONEY_ATTEMPTS):
            drawn = masked_cells.draws(self._key, "money", sent, attempt, count=3)
            made = masked_cells.money(sent, drawn)
            if made is not None and made not in taken:
                return made
            found = found or made
        return found or sent

    def _replace(self, cells: Sequence[Cell], meaning: Meaning) -> None:
        distinct = list(dict.fromkeys(cell.value for cell in cells if cell.value and not _CELL_ERROR.match(cell.value)))
        if meaning.name in _CHOICES and distinct:
            distinct = [cell for cell, (codes, _) in zip(distinct, meaning.judge(distinct), strict=True) if codes]
        made = masked_cells.masked(distinct, meaning, self._codec, self._key) if distinct else {}
        for cell in cells:
            cell.value = made.get(cell.value, cell.value)


def _has_no_column_twice(order: Mapping[str, Cell]) -> bool:
    return len(_cells_by_column(order)) == len(order)


def _cells_by_column(order: Mapping[str, Cell]) -> dict[str, Cell]:
    return {place.partition(" ")[0]: cell for place, cell in order.items()}


def _table_of(orders: Sequence[Mapping[str, Cell]]) -> tuple[pa.Array, dict[str, pa.Array]]:
    """Return row numbers and columns of orders to judge."""
    rows = [_cells_by_column(order) for order in orders]
    names = ORDERS.column_names
    return _table(len(rows), {name: [row[name].value if name in row else "" for row in rows] for name in names})


def _table(count: int, cells: Mapping[str, Sequence[str]]) -> tuple[pa.Array, dict[str, pa.Array]]:
    """Return row numbers and columns to judge; those that are not given are empty."""
    empty = [""] * count
    columns = {name: pa.array(cells.get(name, empty), pa.string()) for name in ORDERS.column_names}
    return pa.array(range(1, count + 1), pa.int32()), columns


def _behind_mark(rewrite: Rewrite) -> Rewrite:
    """Return a rewriting that keeps the mark of a number that is stored as another."""

    def rewritten(cell: str, drawn: masked_cells.Draws, codec: str, attempt: int) -> str:
        mark = NOT_AS_SHOWN if cell.startswith(NOT_AS_SHOWN) else ""
        return mark + rewrite(cell[len(mark) :], drawn, codec, attempt)

    return rewritten


def _worth_nothing(cells: Sequence[str]) -> Judged:
    return [(frozenset(), cell) for cell in cells]

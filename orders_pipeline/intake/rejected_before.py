"""Rows rejected before: what is known of the rows that a correcting file names, back to where each came first.

Read from the database and from the staged files of their batches. What a corrected row may be is said in
`records/corrected_rows.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Row

from orders_pipeline.batches import batches
from orders_pipeline.batches.artifacts import STAGED, lent
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.parquet_file import read_chunks
from orders_pipeline.infrastructure.storage import ObjectGone, Storage
from orders_pipeline.intake import csv_file
from orders_pipeline.intake.order_groups import find_orders
from orders_pipeline.records.corrected_rows import (
    ELSEWHERE,
    NAMES_NO_ROW,
    NO_ROW,
    UNDECIDED,
    Corrections,
    NamedRow,
    Original,
)
from orders_pipeline.records.judgement import Judge
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.record_type import RowContext
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.records.rules import is_no_text

CHUNK_ROWS = 10_000
IS_THAT_ORDER = {"R_REF_EXISTS", "R_REF_SPENT", "R_CORRECTED_BEFORE"}  # no reason to have another reference
REPEATS = "R_REF_DUP_IN_FILE"
NEVER_HAD = {
    "R_COLUMNS",
    "R_QUOTE",
    "R_REF_CHANGED",
    "R_EXAMPLE_ROW",
}  # what was read as the reference was none, or is nobody's


@dataclass
class _Sent:
    """A rejected row: its codes, its cells as they were sent, the references it had or may have had."""

    batch_id: str
    number: int
    codes: set[str] = field(default_factory=set)
    reference_codes: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)  # batches that had its reference already
    original: Original = field(default_factory=lambda: Original({}, "utf-8"))
    references: frozenset[str] = frozenset()  # in the form in which they are unique
    corrects: int | None = None  # the row of the batch that this one's batch corrects

    @property
    def allows(self) -> frozenset[str] | None:
        """Return the references that a correction of this row alone may have; None for any."""
        if not self.references or (self.reference_codes and not self.reference_codes & IS_THAT_ORDER):
            return None
        return self.references

    @property
    def gives_up(self) -> frozenset[str]:
        """Return the references that nobody else may have once this row is an order under another one."""
        return frozenset() if self.codes & NEVER_HAD else self.references


@dataclass(frozen=True)
class NamedBatch:
    """The batch of a client whose rows a file corrects, and whether several of these are one order."""

    client_code: str
    batch_id: str
    is_grouped: bool


def corrections_of(
    storage: Storage, database: Database, context: RowContext, named: NamedBatch, staged: Path
) -> Corrections:
    """Return what the rows of a staged file may correct in the batch that it names.

    Raises FileRejected where the files of that batch, or of one that it corrects, are not in the storage any more.
    """
    numbers: set[int] = set()
    numbers.update(each.corrects for each in csv_file.skipped_names(staged))
    for chunk in read_chunks(staged, CHUNK_ROWS, ["corrects_row"]):
        numbers.update(pc.unique(chunk.column("corrects_row").drop_null()).to_pylist())
    judge = Judge(ORDERS, context)
    rows = rows_named(storage, database, judge, named.client_code, named.batch_id, numbers)
    orders = rejected_together(storage, database, context, named.batch_id) if named.is_grouped and rows else {}
    return Corrections(rows, orders=orders)


def rejected_together(storage: Storage, database: Database, context: RowContext, batch_id: str) -> dict[int, frozenset[int]]:
    """Return for each rejected row of a batch those that have to be corrected with it: all that may be of one order.

    Rows that only repeat others are not among them. `NO_ROW` stands for one that was not returned with the others, as it was
    skipped, `ELSEWHERE` for one that was, where this batch itself corrects some of the rows that were rejected together.
    """
    judge = Judge(ORDERS, context)
    with database.begin() as transaction:
        rejected = {row.import_row_number: row for row in transaction.rows("rejected_row_numbers", batch_id=batch_id)}
        answers = transaction.rows("corrected_rows", batch_id=batch_id)
        corrects = batches.get(transaction, batch_id).corrects
    totals = {number for number, row in rejected.items() if row.is_total}
    try:
        with lent(storage, database, batch_id, STAGED) as staged:
            groups = find_orders(staged, judge, CHUNK_ROWS)
            pairs = [*_alike(staged, judge, rejected), *groups.may_be_of(but=totals)]
    except ObjectGone:
        raise FileRejected("F_BATCH_COLUMN", {"hint": "rows_gone"}) from None
    pairs += zip(groups.number.tolist(), groups.order_row.tolist(), strict=True)
    pairs += ((number, row.other_row) for number, row in rejected.items() if row.other_row is not None)
    elsewhere: set[int] = set()
    in_part = {number for number, row in rejected.items() if row.other_row is not None and row.other_row not in rejected}
    if answers:
        corrected = {row.import_row_number: row.corrects_row for row in answers}
        before = rejected_together(storage, database, context, corrects)
        tied, skipped, elsewhere = _tied_before(corrected, before, rejected)
        pairs, in_part = [*pairs, *tied], in_part | skipped
    repeats = {number for number, row in rejected.items() if row.is_repeat}
    orders: dict[int, frozenset[int]] = {}
    for whole in {*together(rejected, pairs).values()}:
        orders |= dict.fromkeys(whole, whole - repeats | _unnamed(whole, in_part, elsewhere))
    return orders


def _unnamed(whole: frozenset[int], in_part: Collection[int], elsewhere: Collection[int]) -> frozenset[int]:
    """Return what stands for the other rows of an order, where rows of it are in part or elsewhere."""
    found = ((NO_ROW, in_part), (ELSEWHERE, elsewhere))
    return frozenset(row for row, rows in found if not whole.isdisjoint(rows))


def _tied_before(
    corrected: Mapping[int, int], before: Mapping[int, frozenset[int]], rejected: Collection[int]
) -> tuple[list[tuple[int, int]], set[int], set[int]]:
    """Return pairs of rejected rows that correct what was rejected together.

    With them come such rows of which another was skipped, and those of which another is answered by none of the file.
    """
    answered = frozenset(corrected.values())
    first: dict[frozenset[int], int] = {}
    pairs = []
    for number in corrected.keys() & rejected:
        if whole := before.get(corrected[number]):
            pairs.append((number, first.setdefault(whole, number)))
    skipped = {number for whole, number in first.items() if NO_ROW in whole}
    return pairs, skipped, {number for whole, number in first.items() if whole - answered - {NO_ROW}}


def together(rows: Collection[int], pairs: Iterable[tuple[int, int]]) -> dict[int, frozenset[int]]:
    """Return for each of some rows those that pairs tie it to, be it by way of others of them."""
    tied = [pair for pair in pairs if pair[0] != pair[1] and pair[0] in rows and pair[1] in rows]
    group = {row: row for row in rows}
    members = {row: [row] for row in rows}
    for one, other in tied:
        larger, smaller = sorted((group[one], group[other]), key=lambda each: len(members[each]), reverse=True)
        if larger != smaller:
            group |= dict.fromkeys(members[smaller], larger)
            members[larger] += members.pop(smaller)
    return {row: whole for of_one in members.values() for whole in [frozenset(of_one)] for row in of_one}


def _alike(staged: Path, judge: Judge, numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield rows that say the same in place of a reference, each with the first of them, whether it is valid or not."""
    first: dict[str, int] = {}
    for chunk in read_chunks(staged, CHUNK_ROWS, ["import_row_number", ORDERS.identity]):
        cells = pc.fill_null(chunk.column(ORDERS.identity), "")
        references, _ = judge.valid_identities(cells)
        wanted = pc.and_(pc.not_equal(references, ""), pc.invert(is_no_text(cells)))
        wanted = pc.and_(wanted, pc.is_in(chunk.column("import_row_number"), pa.array(numbers, pa.int32())))
        rows = (each.filter(wanted).to_pylist() for each in (references, chunk.column("import_row_number")))
        for reference, number in zip(*rows, strict=True):
            yield number, first.setdefault(reference, number)


def rows_named(
    storage: Storage, database: Database, judge: Judge, client_code: str, batch_id: str, numbers: Iterable[int]
) -> dict[int, NamedRow]:
    """Return what is known of those rows of a client's batch that were rejected there and may be corrected."""
    lineages: dict[int, list[_Sent]] = {number: [] for number in numbers}
    wanted = {number: [number] for number in lineages}
    corrected: str | None = batch_id
    while wanted and corrected is not None:
        with database.begin() as transaction:
            batch = batches.get(transaction, corrected)
            sent = _rejected(transaction, corrected, wanted)
        try:
            _read_cells(storage, database, judge, batch, sent)
        except ObjectGone:
            raise FileRejected("F_BATCH_COLUMN", {"hint": "rows_gone"}) from None
        following: dict[int, list[int]] = {}
        for number, each in sent.items():
            for named in wanted[number]:
                lineages[named].append(each)
                if each.corrects is not None:
                    following.setdefault(each.corrects, []).append(named)
        wanted, corrected = following, batch.corrects
    known = {number: lineage for number, lineage in lineages.items() if lineage}
    with database.begin() as transaction:
        received, closed = _answered(transaction, known)
        holders = _holders(transaction, client_code, known)
    return {number: _named(lineage, received, closed, holders) for number, lineage in known.items()}


def _rejected(transaction: Transaction, batch_id: str, numbers: Iterable[int]) -> dict[int, _Sent]:
    """Return the rows that were rejected in a batch, but for those that named no row themselves."""
    sent: dict[int, _Sent] = {}
    for row in transaction.rows("rejected_rows", batch_id=batch_id, numbers=_listed(numbers)):
        each = sent.setdefault(row.import_row_number, _Sent(batch_id, row.import_row_number))
        each.codes.add(row.code)
        if row.column_name == ORDERS.identity:
            each.reference_codes.add(row.code)
            each.held |= {row.detail["batch_id"]} if "batch_id" in row.detail else set()
        each.corrects = row.corrects_row
    return {number: each for number, each in sent.items() if NAMES_NO_ROW not in each.codes}


def _read_cells(storage: Storage, database: Database, judge: Judge, batch: Row[Any], sent: Mapping[int, _Sent]) -> None:
    """Add what rows of a batch said."""
    columns = judge.record_type.column_names
    identity = judge.record_type.identity
    misshapen = []
    with lent(storage, database, batch.batch_id, STAGED) as staged:
        rows = list(_rows_of(staged, sent, ["offset", "length", *columns]))
    references = _references(judge, [row[identity] or "" for row in rows])
    for row, good_codes, reference in zip(rows, _good_codes(judge, rows), references, strict=True):
        each = sent[row["import_row_number"]]
        cells = {name: row[name] for name in columns if row[name] != ""}
        each.original = Original(cells, batch.encoding, good_codes)
        if row[identity] is None:
            misshapen.append((each, (row["offset"], row["length"])))
        elif reference is not None:
            each.references = frozenset([reference])
    if misshapen:
        _read_misshapen(storage, database, judge, batch, misshapen)


def _good_codes(judge: Judge, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return of each row its codes that keep the rules of their columns, in the form in which they are compared."""
    good: list[dict[str, str]] = [{} for _ in rows]
    for name in judge.record_type.code_columns if rows else ():
        normal, valid = judge.valid_cells(name, pa.array([row[name] or "" for row in rows], pa.string()))
        for codes, code, is_valid in zip(good, pc.utf8_lower(normal).to_pylist(), valid.tolist(), strict=True):
            if is_valid and code:
                codes[name] = code
    return good


def _read_misshapen(
    storage: Storage, database: Database, judge: Judge, batch: Row[Any], rows: Sequence[tuple[_Sent, tuple[int, int]]]
) -> None:
    """Add the references that rows with cells too many or too few may have: those where it can stand."""
    layout = batch.source_layout
    codec = {"utf-8-sig": "utf-8"}.get(batch.encoding, batch.encoding)
    with lent(storage, database, batch.batch_id, layout["text"]) as text:
        header, *records = csv_file.read_records(text, [tuple(layout["header_span"]), *(span for _, span in rows)])
        dialect = csv_file.Dialect(layout["delimiter"], layout.get("has_quotes", True))
        names = dialect.cells_of([header.decode(codec, "replace")])
        place = layout["places"][judge.record_type.identity][0]
        sent = [dialect.cells_of([record.decode(codec, "replace")]) for record in records]
    may_be = [csv_file.cells_that_may_be(cells, place, len(cells) - len(names)) for cells in sent]
    references = iter(_references(judge, [cell for cells in may_be for cell in cells]))
    for (each, _), cells in zip(rows, may_be, strict=True):
        each.references = frozenset(reference for reference in islice(references, len(cells)) if reference is not None)


def _references(judge: Judge, cells: Sequence[str]) -> list[str | None]:
    """Return cells in the form in which references are unique, None for each that can be none."""
    if not cells:
        return []
    references, valid = judge.valid_identities(pa.array(cells, pa.string()))
    pairs = zip(references.to_pylist(), valid.tolist(), strict=True)
    return [reference if is_valid and reference else None for reference, is_valid in pairs]


def _rows_of(staged: Path, numbers: Iterable[int], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    wanted = pa.array(numbers, pa.int32())
    for chunk in read_chunks(staged, CHUNK_ROWS, ["import_row_number", *columns]):
        yield from chunk.filter(pc.is_in(chunk.column("import_row_number"), value_set=wanted)).to_pylist()


def _answered(
    transaction: Transaction, known: Mapping[int, Sequence[_Sent]]
) -> tuple[dict[tuple[str, int], str], dict[tuple[str, int], str]]:
    """Return the batches in which first rows are orders, as corrections of them, and those in which they were closed."""
    received, closed = {}, {}
    for batch_id, numbers in _first_rows(known).items():
        for row in transaction.rows("rows_received_corrected", batch_id=batch_id, numbers=numbers):
            received[batch_id, row.first_row] = row.batch_id
        for row in transaction.rows("rows_closed", batch_id=batch_id, numbers=numbers):
            closed[batch_id, row.first_row] = row.batch_id
    return received, closed


def _first_rows(known: Mapping[int, Sequence[_Sent]]) -> dict[str, str]:
    """Return the rows that came first of each batch in which some did, for a statement."""
    by_batch: dict[str, list[int]] = {}
    for lineage in known.values():
        by_batch.setdefault(lineage[-1].batch_id, []).append(lineage[-1].number)
    return {batch_id: _listed(numbers) for batch_id, numbers in by_batch.items()}


def _holders(
    transaction: Transaction, client_code: str, known: Mapping[int, Sequence[_Sent]]
) -> dict[str, tuple[str, bool]]:
    """Return the batch that holds each reference which may be given up, and whether as a correction of some row."""
    references = {each for lineage in known.values() for sent in lineage for each in sent.gives_up}
    rows = transaction.rows("holders_of_references", refs="\x1f".join(references), client_code=client_code)
    return {row.ref: (row.batch_id, row.is_correction) for row in rows}


def _named(
    lineage: Sequence[_Sent],
    received: Mapping[tuple[str, int], str],
    closed: Mapping[tuple[str, int], str],
    holders: Mapping[str, tuple[str, bool]],
) -> NamedRow:
    first = lineage[-1]
    references = None
    for each in reversed(lineage):  # once a reference is settled it stays
        references = references if references is not None else each.allows
    own = {each.batch_id for each in lineage} | {batch for each in lineage for batch in each.held}
    had = {reference for each in lineage for reference in each.gives_up}
    held = {reference: holders[reference] for reference in had if reference in holders}
    since = {
        reference: holder for reference, (holder, is_correction) in held.items() if holder not in own and not is_correction
    }
    return NamedRow(
        first=(first.batch_id, first.number),
        references=references,
        had={reference: held[reference][0] if reference in held else None for reference in had},
        originals=[each.original for each in lineage],
        received=received.get((first.batch_id, first.number)),
        taken=since,
        repeats=any(REPEATS in each.codes for each in lineage),
        closed=closed.get((first.batch_id, first.number)),
        is_to_decide=UNDECIDED in lineage[0].codes,
    )


def _listed(numbers: Iterable[int]) -> str:
    return "\x1f".join(map(str, numbers))  # an array of thousands is slow to hand over

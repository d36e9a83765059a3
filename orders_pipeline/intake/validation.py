"""Validation: a staged file becomes accepted rows and rejections, in chunks, with every error of a row at once.

What a row itself is worth is said in `records/`. Here that is joined with what other rows of the file and earlier files
say about it, and the files are written. References are looked up, and personal columns encrypted, by functions that are
handed in. Where several rows are one order they are judged in `grouped_validation.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.infrastructure.parquet_file import map_chunks, new_parquet, read_chunks
from orders_pipeline.intake.csv_file import TO_DECIDE, UNCLEAR, SkippedName, skipped_names
from orders_pipeline.intake.duplicate_rows import KEYS, Duplicates, find_duplicates, hashed
from orders_pipeline.intake.repeated_orders import Differing, Existing, RepeatedOrders, none_is_settled
from orders_pipeline.intake.total_rows import find_total_rows
from orders_pipeline.records.corrected_rows import (
    NO_ROW,
    ROW_COLUMN,
    UNDECIDED,
    Answer,
    Corrections,
    NamedRow,
    named_differently,
)
from orders_pipeline.records.judgement import NUMBER, Finding, Findings, Judge, Positions, Rows, as_json
from orders_pipeline.records.order_lines import ACCEPTED_LINE, AMOUNT_ADDED, LINE_COUNT, LINES
from orders_pipeline.records.record_type import RecordType, RowContext
from orders_pipeline.records.rejections import REJECTIONS_SCHEMA

Seal: TypeAlias = Callable[[pa.RecordBatch], pa.Array]

CHUNK_ROWS = 50_000  # a few are in memory at once: 30,000 cost a tenth more time, for 120 MB less
_SEALED_ROWS = 10_000  # at once, as Python's objects take much more memory

TOTAL_ROW, SAME_ORDER = "R_TOTAL_ROW", "R_REF_EXISTS"

# hardly an accepted cell is the same twice, and encrypted ones are random: to look for repetition only costs time
_COMPACT: Mapping[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
_LINES = (
    pa.field(LINE_COUNT, pa.int32()),
    pa.field(AMOUNT_ADDED, pa.int32()),
    pa.field(LINES, pa.list_(ACCEPTED_LINE)),
)


@dataclass(frozen=True)
class Validated:
    """What a file came to: rows, yen of accepted rows, rows by code, cells changed by normalising by column.

    `rows_same` are those that are skipped, as they are the same as orders received before.
    `warnings` are cells of accepted rows, by code. `answers` is what rows of a correction answer. `amount_sent` are the yen
    of all rows whose amount can be read, but for total rows; `amounts_unreadable` is the number of the others.
    `rows_continuing` are accepted rows that continue an order of another row. `not_closed` are skipped rows that say which
    row they correct, and close none.
    """

    rows_accepted: int = 0
    rows_rejected: int = 0
    amount_accepted: int = 0
    amount_sent: int = 0
    amounts_unreadable: int = 0
    rejections: Counter[str] = field(default_factory=Counter)
    normalised: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    rows_same: int = 0
    answers: list[Answer] = field(default_factory=list)
    rows_continuing: int = 0
    not_closed: list[int] = field(default_factory=list)

    def __add__(self, other: Validated) -> Validated:
        return Validated(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


Chunk: TypeAlias = tuple[pa.Table, pa.Table, Validated]  # accepted rows, rejections, and what these came to


def validate(
    staged: Path,
    accepted: Path,
    rejections: Path,
    *,
    record_type: RecordType,
    context: RowContext,
    seal: Seal,
    existing: Existing,
    differing: Differing = lambda rows, _: [()] * len(rows.number),
    given_up: Existing = lambda _: {},
    settled: Existing = none_is_settled,
    corrections: Corrections | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Validated:
    """Judge every staged row and write accepted rows and rejections as Parquet, each by ascending row number.

    Raises RulesBroken where a row passes that Pandera does not accept: a defect of the rules, not of the file.

    `existing` gets case-folded references and returns the batch of each that was received before. `differing` gets such
    rows with their references, and returns for each the columns that are not as received. `given_up` returns the batch of
    each reference that was given up for another one. `settled` returns the batch of each whose order nobody can lose without
    knowing of it: rows that are the same are skipped, but in a correcting file, which `corrections` is for. `seal` gets the
    personal columns of accepted rows with `import_row_number`, and returns an encrypted byte string for each. All are called
    from several threads.
    """
    judge = Judge(record_type, context)
    duplicates = find_duplicates(staged, judge, chunk_rows)
    if corrections is not None:
        corrections = replace(corrections, ambiguous=ambiguous_corrections(staged, duplicates, chunk_rows))
        settled = none_is_settled
    total_rows = pa.array(sorted(find_total_rows(staged, judge, chunk_rows)), pa.int32())
    repeated = RepeatedOrders(record_type, existing, differing, given_up, settled)
    validation = _Validation(judge, seal, duplicates, repeated, total_rows, corrections)
    judged = write(map_chunks(staged, validation.of_chunk, chunk_rows), accepted, accepted_schema(record_type), rejections)
    return judged + closed_rows(staged, corrections)


def closed_rows(staged: Path, corrections: Corrections | None) -> Validated:
    """Return what the skipped rows of a correcting file answer, and which of them close no row."""
    if corrections is None:
        return Validated()
    skipped = skipped_names(staged)
    of_named = {each: named for each in skipped if (named := corrections.rows.get(each.corrects)) is not None}
    references = [reference for named in of_named.values() for reference in named.own_references]
    numbers = dict(zip(references, hashed(pa.array(references, pa.string()), KEYS[0]).tolist(), strict=True))

    def may_close(each: SkippedName, named: NamedRow) -> bool:
        is_its_order = not named.own_references or each.order in {numbers[own] for own in named.own_references}
        return is_its_order and (each.says_so or not named.is_to_decide)  # a cell that was emptied says: charge it

    answers = corrections.closed_by(
        [(each.row, each.corrects) for each, named in of_named.items() if may_close(each, named)]
    )
    closed = {each.import_row_number for each in answers}
    return Validated(answers=answers, not_closed=[each.row for each in skipped if each.row not in closed])


def write(judged: Generator[Chunk, None, None], accepted: Path, schema: pa.Schema, rejections: Path) -> Validated:
    """Write the accepted rows and rejections of chunks, and return what they came to together."""
    total = Validated()
    with (
        new_parquet(accepted, schema, **_COMPACT) as accepted_writer,
        new_parquet(rejections, REJECTIONS_SCHEMA) as rejections_writer,
        closing(judged) as chunks,
    ):
        for accepted_rows, rejected_rows, counted in chunks:
            accepted_writer.write_table(accepted_rows)
            rejections_writer.write_table(rejected_rows)
            total += counted
    return total


@dataclass(frozen=True)
class _Validation:
    """The validation of one file's chunks, with what was found out over the whole file."""

    judge: Judge
    seal: Seal
    duplicates: Duplicates
    repeated: RepeatedOrders
    total_rows: pa.Array
    corrections: Corrections | None

    def of_chunk(self, _number: int, chunk: pa.RecordBatch) -> Chunk:
        """Return the accepted rows of a chunk, its rejections and its counts."""
        record_type = self.judge.record_type
        shaped = chunk.filter(chunk.column("shape_ok"))
        raw = {name: shaped.column(name) for name in record_type.column_names}
        rows, findings, changed = self.judge.judge(shaped.column("import_row_number"), raw)
        _add_duplicates(rows, findings, self.duplicates, record_type)
        same = self.repeated.add_existing(rows, findings)
        answers: dict[int, Answer] = {}
        misshapen: list[Answer] = []
        if self.corrections is not None:
            answers = self.corrections.check(record_type, rows, raw, shaped.column("corrects_row").to_pylist(), findings)
            misshapen = misshapen_answers(self.corrections, chunk)
        self.repeated.add_shortened(rows, findings, list(answers))
        self.repeated.add_given_up(rows, findings, [at for at, each in answers.items() if each.keeps_reference])
        add_undecided(findings, shaped)
        for position in np.flatnonzero(pc.is_in(rows.number, value_set=self.total_rows)):
            findings.add_instead(TOTAL_ROW, int(position))
        wanted = findings.clean
        if len(same):
            same = same[np.isin(same, findings.alone(SAME_ORDER))]
            findings.forget(same)
            wanted[same] = False
        good = rows.where(wanted)
        self.judge.confirm(good)
        counted = _counted(chunk, rows, good, findings, changed, record_type.amount, len(same))
        counted.warnings.update(self.judge.warned(good))
        counted.answers.extend([*answers.values(), *misshapen])
        return accepted_table(good, record_type, self.seal), rejections_table(chunk, findings, record_type), counted


def accepted_schema(record_type: RecordType, *, with_lines: bool = False) -> pa.Schema:
    """Return the schema of accepted rows: number, columns in clear, whether it is nobody's, encrypted personal columns.

    Orders of several rows have their lines behind that, as a list.
    """
    stored = [column.arrow_field for column in record_type.stored_columns]
    made = [pa.field("is_nobodys", pa.bool_()), pa.field("personal", pa.binary())]
    return pa.schema([pa.field("import_row_number", pa.int32()), *stored, *made, *(_LINES if with_lines else ())])


def _add_duplicates(rows: Rows, findings: Findings, duplicates: Duplicates, record_type: RecordType) -> None:
    positions, conflict, first = duplicates.among(rows.number.to_numpy())
    for code, chosen in (("R_REF_CONFLICT", conflict), ("R_REF_DUP_IN_FILE", ~conflict)):
        if chosen.any():
            details = [as_json({"first_row": str(row)}) for row in first[chosen]]
            findings.add_each(record_type.identity, code, positions[chosen], details)


def add_undecided(findings: Findings, shaped: pa.RecordBatch) -> None:
    """Note rows that a person has to decide on, or of which nobody can say whether one has to.

    Not so those of an order that was received before, as it is.
    """
    if UNCLEAR not in shaped.schema.names:  # not in what was staged before profiles could say so
        return
    received = np.zeros(findings.size, np.bool_)
    for one in findings.found:
        if one.code == SAME_ORDER:
            received[one.positions] = True
    unclear, why = shaped.column(UNCLEAR), shaped.column(TO_DECIDE)
    is_unclear = unclear.is_valid().to_numpy(zero_copy_only=False) & ~received
    undecided = why.is_valid().to_numpy(zero_copy_only=False) & ~received & ~is_unclear
    for position in np.flatnonzero(is_unclear).tolist():
        code, _, header = unclear[position].as_py().partition(" ")
        findings.add_each("", code, np.array([position]), [as_json({"column": header, "said": header})])
    positions = np.flatnonzero(undecided)
    if len(positions):
        details = [as_json({"said": said}) for said in why.take(pa.array(positions)).to_pylist()]
        findings.add_each("", UNDECIDED, positions, details)


def ambiguous_corrections(staged: Path, duplicates: Duplicates, chunk_rows: int) -> frozenset[int]:
    """Return the rows that several rows of a correcting file name, but for repeats of one row, and rows skipped alike."""
    pairs: list[tuple[int, int]] = []
    for chunk in read_chunks(staged, chunk_rows, ["import_row_number", "corrects_row"]):
        named = chunk.filter(pc.is_valid(chunk.column("corrects_row")))
        pairs += zip(*(named.column(name).to_pylist() for name in ("import_row_number", "corrects_row")), strict=True)
    repeats = ~duplicates.conflict
    skipped = frozenset(each.corrects for each in skipped_names(staged)) - {NO_ROW}
    return skipped.intersection(named for _, named in pairs) | named_differently(
        pairs, dict(zip(duplicates.row[repeats].tolist(), duplicates.first[repeats].tolist(), strict=True))
    )


def misshapen_answers(corrections: Corrections, chunk: pa.RecordBatch) -> list[Answer]:
    """Return what rows of a chunk answer whose shape is wrong."""
    others = chunk.filter(pc.invert(chunk.column("shape_ok")))
    numbers, named = (others.column(name).to_pylist() for name in ("import_row_number", "corrects_row"))
    return corrections.answered_by_misshapen(numbers, named)


def accepted_table(rows: Rows, record_type: RecordType, seal: Seal) -> pa.Table:
    """Return accepted rows as they are written."""
    names = record_type.personal_columns
    personal = pa.record_batch([rows.number, *(rows.text[name] for name in names)], [NUMBER, *names])
    parts = (personal.slice(begin, _SEALED_ROWS) for begin in range(0, len(rows.number), _SEALED_ROWS))
    sealed = pa.chunked_array(map(seal, parts), pa.binary())
    columns = [rows.number]
    for column in record_type.stored_columns:
        if column.is_typed:
            columns.append(rows.values[column.name].cast(column.arrow_field.type))
        else:
            cells = rows.text[column.name]
            columns.append(pc.if_else(pc.equal(cells, ""), None, cells))
    return pa.table([*columns, rows.is_nobodys, sealed], schema=accepted_schema(record_type))


def nothing_sealed(rows: pa.RecordBatch) -> pa.Array:
    """Seal nothing, where what is accepted is not kept."""
    return pa.repeat(pa.scalar(b""), len(rows))


def rejections_table(chunk: pa.RecordBatch, findings: Findings, record_type: RecordType) -> pa.Table:
    """Return a chunk's findings by row, then by column in the catalogue's order."""
    shape_ok = chunk.column("shape_ok").to_numpy(zero_copy_only=False)
    shaped, misshapen = np.flatnonzero(shape_ok), np.flatnonzero(~shape_ok)
    found = [Finding("", code, at, ["{}"] * len(at)) for code, at in _misshapen(chunk, misshapen).items()]
    found += [Finding(one.column, one.code, shaped[one.positions], one.details) for one in findings.found]
    names = ("", *record_type.column_names, ROW_COLUMN)
    counts = [len(one.positions) for one in found]
    position = np.concatenate([one.positions for one in found])
    column = np.repeat([names.index(one.column) for one in found], counts)
    code = np.repeat(np.array([one.code for one in found], object), counts)
    at = pa.array(position)
    arrays = [
        chunk.column("import_row_number").take(at),
        chunk.column("line").take(at),
        pa.array([None, *names[1:]], pa.string()).take(pa.array(column)),
        pa.array(code, pa.string()),
        pa.array([detail for one in found for detail in one.details], pa.string()),
    ]
    return pa.table(arrays, schema=REJECTIONS_SCHEMA).take(pa.array(np.lexsort((column, position))))


def _misshapen(chunk: pa.RecordBatch, positions: Positions) -> dict[str, Positions]:
    """Return why rows are not of the right shape or cannot be read, with the positions of each reason."""
    if not len(positions):
        return {"R_COLUMNS": positions}
    codes = pc.fill_null(chunk.column("unreadable").take(pa.array(positions)), "R_COLUMNS").to_numpy(zero_copy_only=False)
    return {code: positions[codes == code] for code in sorted(set(codes))}


def _counted(
    chunk: pa.RecordBatch, rows: Rows, good: Rows, findings: Findings, changed: Mapping[str, int], amount: str, same: int
) -> Validated:
    """Return what one chunk came to; `rows` are those of the right shape, `good` the accepted ones, `same` are skipped."""
    rows_read = chunk.num_rows
    sent = rows.values[amount]
    is_total = np.zeros(findings.size, np.bool_)
    for one in findings.found:
        is_total[one.positions] |= one.code == TOTAL_ROW
    return Validated(
        rows_accepted=len(good.number),
        rows_rejected=rows_read - len(good.number) - same,
        rows_same=same,
        amount_accepted=pc.sum(good.values[amount]).as_py() or 0,
        amount_sent=pc.sum(sent.filter(pa.array(~is_total))).as_py() or 0,
        amounts_unreadable=rows_read - len(sent) + sent.null_count,
        rejections=rows_by_code(chunk, findings),
        normalised=Counter(changed),
    )


def rows_by_code(chunk: pa.RecordBatch, findings: Findings) -> Counter[str]:
    """Return how many rows of a chunk each code was found in; `findings` are of rows of the right shape."""
    others = np.flatnonzero(~chunk.column("shape_ok").to_numpy(zero_copy_only=False))
    codes = Counter({code: len(positions) for code, positions in _misshapen(chunk, others).items()})
    for code in {one.code for one in findings.found}:
        codes[code] += len(np.unique(np.concatenate([one.positions for one in findings.found if one.code == code])))
    return codes

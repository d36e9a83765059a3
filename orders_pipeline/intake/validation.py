"""Validation: a staged file becomes accepted rows and rejections, in chunks, with every error of a row at once.

What a row itself is worth is said in `records/`; here come what other rows and earlier files say about it, and the
files written. Known references are looked up, and personal columns sealed, by what is handed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.infrastructure.parquet_file import map_chunks, new_parquet, read_chunks
from orders_pipeline.intake.duplicate_rows import Duplicates, find_duplicates
from orders_pipeline.intake.totals import find_total_rows
from orders_pipeline.records.corrected import ROW_COLUMN, Answer, Corrections, named_differently
from orders_pipeline.records.judgement import Finding, Findings, Judge, Mask, Rows, as_json
from orders_pipeline.records.record_type import Column, RecordType, RowContext
from orders_pipeline.records.rejections import REJECTIONS_SCHEMA

Seal: TypeAlias = Callable[[pd.DataFrame], list[bytes]]
Existing: TypeAlias = Callable[[Sequence[str]], Mapping[str, str]]
Differing: TypeAlias = Callable[[Rows, Sequence[str]], Sequence[Sequence[str]]]

CHUNK_ROWS = 30_000  # a few are in memory at once: half as many rows cost a tenth more time, for 90 MB less

TOTAL_ROW = "R_TOTAL_ROW"
_DIGITS_KEPT = 15  # of a number, by spreadsheets
_SHORTENED_LOOKED_AT = 100  # references of a chunk

# hardly an accepted cell is the same twice, and sealed ones are random: to look for repetition only costs time
_COMPACT: Mapping[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}


@dataclass(frozen=True)
class Validated:
    """What a file came to: rows, yen of accepted rows, rows by code, cells changed by normalising by column.

    `answers` is what rows of a correction answer; `amount_sent` are the yen of all rows whose amount can be read, but for a
    total row, `amounts_unreadable` the number of the others.
    """

    rows_accepted: int = 0
    rows_rejected: int = 0
    amount_accepted: int = 0
    amount_sent: int = 0
    amounts_unreadable: int = 0
    rejections: Counter[str] = field(default_factory=Counter)
    normalised: Counter[str] = field(default_factory=Counter)
    answers: list[Answer] = field(default_factory=list)

    def __add__(self, other: Validated) -> Validated:
        return Validated(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


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
    corrections: Corrections | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Validated:
    """Judge every staged row and write accepted rows and rejections as Parquet, each by ascending row number.

    Raises RulesBroken where a row passes that Pandera does not accept: a defect of the rules, not of the file.

    `existing` gets case-folded references and returns the batch of each that was received before, `differing` such rows
    with their references and returns the columns of each that are not as received, and `given_up` the batch of each that
    was received under another reference. `seal` gets the personal columns of accepted rows, indexed by row number, and
    returns a sealed byte string for each. All are called from several threads. `corrections` is for a correcting file.
    """
    judge = Judge(record_type, context)
    duplicates = find_duplicates(staged, judge, chunk_rows)
    if corrections is not None:
        corrections = replace(corrections, ambiguous=_ambiguous(staged, duplicates, chunk_rows))
    total_rows = pa.array(sorted(find_total_rows(staged, judge, chunk_rows)), pa.int32())

    def validated(_number: int, chunk: pa.RecordBatch) -> tuple[pa.Table, pa.Table, Validated]:
        shaped = chunk.filter(chunk.column("shape_ok"))
        raw = {name: shaped.column(name) for name in record_type.column_names}
        rows, findings, changed = judge.judge(shaped.column("import_row_number"), raw)
        _add_duplicates(rows, findings, duplicates, record_type)
        _add_existing(rows, findings, existing, differing, record_type)
        answers: dict[int, Answer] = {}
        misshapen: list[Answer] = []
        if corrections is not None:
            answers = corrections.check(record_type, rows, raw, shaped.column("corrects_row").to_pylist(), findings)
            others = chunk.filter(pc.invert(chunk.column("shape_ok")))
            numbers, named = (others.column(name).to_pylist() for name in ("import_row_number", "corrects_row"))
            misshapen = corrections.answered_by_misshapen(numbers, named)
        _add_shortened(rows, findings, existing, differing, list(answers), record_type)
        _add_given_up(rows, findings, given_up, [at for at, each in answers.items() if each.keeps_reference], record_type)
        for position in np.flatnonzero(pc.is_in(rows.number, value_set=total_rows)):
            findings.add_instead(TOTAL_ROW, int(position))
        good = rows.where(findings.clean)
        judge.confirm(good)
        counted = _counted(chunk.num_rows, rows, good, findings, changed, record_type.amount)
        counted.answers.extend([*answers.values(), *misshapen])
        return _accepted_table(good, record_type, seal), _rejections_table(chunk, findings, record_type), counted

    total = Validated()
    with (
        new_parquet(accepted, accepted_schema(record_type), **_COMPACT) as accepted_writer,
        new_parquet(rejections, REJECTIONS_SCHEMA) as rejections_writer,
        closing(map_chunks(staged, validated, chunk_rows)) as chunks,
    ):
        for accepted_rows, rejected_rows, counted in chunks:
            accepted_writer.write_table(accepted_rows)
            rejections_writer.write_table(rejected_rows)
            total += counted
    return total


def accepted_schema(record_type: RecordType) -> pa.Schema:
    """Return the schema of accepted rows: number, columns kept in clear, whether they are nobody's, sealed personal ones."""
    stored = [column.arrow_field for column in record_type.stored_columns]
    made = [pa.field("is_nobodys", pa.bool_()), pa.field("personal", pa.binary())]
    return pa.schema([pa.field("import_row_number", pa.int32()), *stored, *made])


def _add_duplicates(rows: Rows, findings: Findings, duplicates: Duplicates, record_type: RecordType) -> None:
    positions, conflict, first = duplicates.among(rows.number.to_numpy())
    for code, chosen in (("R_REF_CONFLICT", conflict), ("R_REF_DUP_IN_FILE", ~conflict)):
        if chosen.any():
            details = [as_json({"first_row": str(row)}) for row in first[chosen]]
            findings.add_each(record_type.identity, code, positions[chosen], details)


def _add_existing(rows: Rows, findings: Findings, existing: Existing, differing: Differing, record_type: RecordType) -> None:
    taken = _found_among(rows, findings.bad_in(record_type.identity), existing, record_type)
    if not taken:
        return
    positions = np.array(list(taken))
    chosen = np.zeros(findings.size, np.bool_)
    chosen[positions] = True
    references = record_type.folded(rows.text[record_type.identity]).filter(pa.array(chosen)).to_pylist()
    columns = differing(rows.where(chosen), references)
    _note_existing(
        findings, record_type, {at: {"batch_id": batch} for at, batch in taken.items()}, columns, lambda each: not each
    )


def _note_existing(
    findings: Findings,
    record_type: RecordType,
    taken: Mapping[int, Mapping[str, str]],
    columns: Sequence[Sequence[str]],
    is_alike: Callable[[Sequence[str]], bool],
) -> None:
    """Note that rows were received before, with a detail of each, and in which columns those that are not alike differ."""
    for code, alike in (("R_REF_EXISTS", True), ("R_REF_EXISTS_DIFFERS", False)):
        these = [(at, each) for at, each in zip(taken, columns, strict=True) if is_alike(each) == alike]
        if these:
            details = [as_json({**taken[at]} | ({} if alike else {"columns": ", ".join(each)})) for at, each in these]
            findings.add_each(record_type.identity, code, np.array([at for at, _ in these]), details)


def _add_shortened(
    rows: Rows,
    findings: Findings,
    existing: Existing,
    differing: Differing,
    corrected: Sequence[int],
    record_type: RecordType,
) -> None:
    """Note references that a spreadsheet has taken the zeros of, where a file that was received comes again that way.

    A few show how long the references were. Some rows must be what was received, but for what a spreadsheet changes; then
    the others with such a reference are not, but the same orders.
    """
    folded = record_type.folded(rows.text[record_type.identity])
    is_number = pc.match_substring_regex(folded, f"^[1-9][0-9]{{0,{_DIGITS_KEPT - 2}}}$").to_numpy(zero_copy_only=False)
    passed = findings.bad_in(record_type.identity)
    passed[corrected] = True  # what reference these may have is settled
    numbers = np.flatnonzero(is_number & ~passed)
    if not len(numbers):
        return
    references = folded.take(pa.array(numbers)).to_pylist()
    some = references[:: -(-len(references) // _SHORTENED_LOOKED_AT)]
    lengths = {len(each) for each in existing([ref.zfill(n) for ref in some for n in range(len(ref) + 1, _DIGITS_KEPT + 1)])}
    known = existing([ref.zfill(n) for ref in references for n in lengths if n > len(ref)]) if lengths else {}
    taken = {
        at: next(ref.zfill(n) for n in lengths if ref.zfill(n) in known)
        for at, ref in zip(numbers.tolist(), references, strict=True)
        if any(ref.zfill(n) in known for n in lengths)
    }
    if not taken:
        return
    chosen = np.zeros(findings.size, np.bool_)
    chosen[list(taken)] = True
    columns = differing(rows.where(chosen), list(taken.values()))
    kept = {record_type.amount, *(each.name for each in record_type.columns if each.kind == "date" or _is_name(each))}
    if any(map(kept.isdisjoint, columns)):
        details = {at: {"batch_id": known[reference], "reference": reference} for at, reference in taken.items()}
        _note_existing(findings, record_type, details, columns, kept.isdisjoint)


def _is_name(column: Column) -> bool:
    return column.kind == "text" and column.required


def _add_given_up(rows: Rows, findings: Findings, given_up: Existing, kept: Sequence[int], record_type: RecordType) -> None:
    """Note references that a row gave up which was received under another one, but for rows that keep their own."""
    passed = findings.bad_in(record_type.identity)
    passed[kept] = True
    if taken := _found_among(rows, passed, given_up, record_type):
        details = [as_json({"batch_id": batch_id}) for batch_id in taken.values()]
        findings.add_each(record_type.identity, "R_REF_SPENT", np.array(list(taken)), details)


def _found_among(rows: Rows, passed: Mask, known_of: Existing, record_type: RecordType) -> dict[int, str]:
    """Return the positions of the references, but for those passed over, that are known, each with its batch."""
    references = record_type.folded(rows.text[record_type.identity]).filter(pa.array(~passed)).to_pylist()
    known = known_of(references) if references else {}
    if not known:
        return {}
    return {at: known[name] for at, name in zip(np.flatnonzero(~passed).tolist(), references, strict=True) if name in known}


def _ambiguous(staged: Path, duplicates: Duplicates, chunk_rows: int) -> frozenset[int]:
    """Return the rows that several rows of a correcting file name, but for repeats of one row."""
    pairs: list[tuple[int, int]] = []
    for chunk in read_chunks(staged, chunk_rows, ["import_row_number", "corrects_row"]):
        named = chunk.filter(pc.is_valid(chunk.column("corrects_row")))
        pairs += zip(*(named.column(name).to_pylist() for name in ("import_row_number", "corrects_row")), strict=True)
    repeats = ~duplicates.conflict
    return named_differently(
        pairs, dict(zip(duplicates.row[repeats].tolist(), duplicates.first[repeats].tolist(), strict=True))
    )


def _accepted_table(rows: Rows, record_type: RecordType, seal: Seal) -> pa.Table:
    sealed = seal(rows.text_frame(record_type.personal_columns)) if len(rows.number) else []
    columns = [rows.number]
    for column in record_type.stored_columns:
        if column.is_typed:
            columns.append(rows.values[column.name].cast(column.arrow_field.type))
        else:
            cells = rows.text[column.name]
            columns.append(pc.if_else(pc.equal(cells, ""), None, cells))
    return pa.table([*columns, rows.is_nobodys, pa.array(sealed, pa.binary())], schema=accepted_schema(record_type))


def _rejections_table(chunk: pa.RecordBatch, findings: Findings, record_type: RecordType) -> pa.Table:
    """Return a chunk's findings by row, then by column in the catalogue's order."""
    shape_ok = chunk.column("shape_ok").to_numpy(zero_copy_only=False)
    shaped, misshapen = np.flatnonzero(shape_ok), np.flatnonzero(~shape_ok)
    found = [Finding("", "R_COLUMNS", misshapen, ["{}"] * len(misshapen))]
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


def _counted(
    rows_read: int, rows: Rows, good: Rows, findings: Findings, changed: Mapping[str, int], amount: str
) -> Validated:
    """Return what one chunk came to; `rows` are those of the right shape, `good` the accepted ones."""
    codes = Counter({"R_COLUMNS": rows_read - findings.size})
    for code in {one.code for one in findings.found}:
        codes[code] = len(np.unique(np.concatenate([one.positions for one in findings.found if one.code == code])))
    sent = rows.values[amount]
    is_total = np.zeros(findings.size, np.bool_)
    for one in findings.found:
        is_total[one.positions] |= one.code == TOTAL_ROW
    return Validated(
        rows_accepted=len(good.number),
        rows_rejected=rows_read - len(good.number),
        amount_accepted=pc.sum(good.values[amount]).as_py() or 0,
        amount_sent=pc.sum(sent.filter(pa.array(~is_total))).as_py() or 0,
        amounts_unreadable=rows_read - len(sent) + sent.null_count,
        rejections=codes,
        normalised=Counter(changed),
    )

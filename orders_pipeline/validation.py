"""Validation: a staged file becomes accepted rows and rejections, in chunks, with every error of a row at once.

What a row itself is worth is said in `records/`; here come what other rows and earlier files say about it, and the
files written. Known references are looked up, and personal columns sealed, by what is handed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.duplicates import Duplicates, find_duplicates
from orders_pipeline.parquet_file import map_chunks, new_parquet
from orders_pipeline.records.judgement import Finding, Findings, Judge, Rows, as_json
from orders_pipeline.records.record_type import RecordType
from orders_pipeline.records.rules import RowContext
from orders_pipeline.rejections import REJECTIONS_SCHEMA

Seal: TypeAlias = Callable[[pd.DataFrame], list[bytes]]
Existing: TypeAlias = Callable[[Sequence[str]], Mapping[str, str]]

CHUNK_ROWS = 15_000  # a few chunks are in memory at once; more rows gain nothing, fewer cost more than their memory

# hardly an accepted cell is the same twice, and sealed ones are random: to look for repetition only costs time
_COMPACT: Mapping[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}


@dataclass(frozen=True)
class Validated:
    """What a file came to: rows, yen of accepted rows, rows by code, cells changed by normalising by column.

    `amount_sent` are the yen of all rows whose amount can be read, `amounts_unreadable` the number of the others.
    """

    rows_accepted: int = 0
    rows_rejected: int = 0
    amount_accepted: int = 0
    amount_sent: int = 0
    amounts_unreadable: int = 0
    rejections: Counter[str] = field(default_factory=Counter)
    normalised: Counter[str] = field(default_factory=Counter)

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
    chunk_rows: int = CHUNK_ROWS,
) -> Validated:
    """Judge every staged row and write accepted rows and rejections as Parquet, each by ascending row number.

    `existing` gets case-folded references and returns the batch of each that was received before. `seal` gets the
    personal columns of accepted rows, indexed by row number, and returns a sealed byte string for each. Both are called
    from several threads.
    """
    judge = Judge(record_type, context)
    duplicates = find_duplicates(staged, judge, chunk_rows)

    def validated(_number: int, chunk: pa.RecordBatch) -> tuple[pa.Table, pa.Table, Validated]:
        shaped = chunk.filter(chunk.column("shape_ok"))
        raw = {name: shaped.column(name) for name in record_type.column_names}
        rows, findings, changed = judge.judge(shaped.column("import_row_number"), raw)
        _add_duplicates(rows, findings, duplicates, record_type)
        _add_existing(rows, findings, existing, record_type)
        good = rows.where(findings.clean)
        counted = _counted(chunk.num_rows, rows, good, findings, changed, record_type.amount)
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


def _add_existing(rows: Rows, findings: Findings, existing: Existing, record_type: RecordType) -> None:
    good = ~findings.bad_in(record_type.identity)
    references = record_type.folded(rows.text[record_type.identity]).filter(pa.array(good)).to_pylist()
    known = existing(references) if references else {}
    if not known:
        return
    taken = [(at, known[name]) for at, name in zip(np.flatnonzero(good), references, strict=True) if name in known]
    details = [as_json({"batch_id": batch_id}) for _, batch_id in taken]
    if taken:
        findings.add_each(record_type.identity, "R_REF_EXISTS", np.array([at for at, _ in taken]), details)


def _accepted_table(rows: Rows, record_type: RecordType, seal: Seal) -> pa.Table:
    sealed = seal(rows.text_frame(record_type.personal_columns)) if len(rows.number) else []
    columns = [rows.number]
    for column in record_type.stored_columns:
        if column.is_typed:
            columns.append(rows.values[column.name].cast(column.arrow_field.type))
        else:
            cells = rows.text[column.name]
            columns.append(pc.if_else(pc.equal(cells, ""), None, cells))
    return pa.table([*columns, rows.nobodys, pa.array(sealed, pa.binary())], schema=accepted_schema(record_type))


def _rejections_table(chunk: pa.RecordBatch, findings: Findings, record_type: RecordType) -> pa.Table:
    """Return a chunk's findings by row, then by column in the catalogue's order."""
    shape_ok = chunk.column("shape_ok").to_numpy(zero_copy_only=False)
    shaped, misshapen = np.flatnonzero(shape_ok), np.flatnonzero(~shape_ok)
    found = [Finding("", "R_COLUMNS", misshapen, ["{}"] * len(misshapen))]
    found += [Finding(one.column, one.code, shaped[one.positions], one.details) for one in findings.found]
    names = ("", *record_type.column_names)
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
    return Validated(
        rows_accepted=len(good.number),
        rows_rejected=rows_read - len(good.number),
        amount_accepted=pc.sum(good.values[amount]).as_py() or 0,
        amount_sent=pc.sum(sent).as_py() or 0,
        amounts_unreadable=rows_read - len(sent) + sent.null_count,
        rejections=codes,
        normalised=Counter(changed),
    )

"""The total row that people leave under their orders: no order, though defaults may fill its cells until it looks like one.

Only the last row of a file can be it, and only one that says nothing but a sum; the amounts above it are added up then,
and not for any other file.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orders_pipeline.parquet_file import map_chunks
from orders_pipeline.records.judgement import Judge

_WORD = re.compile(
    r"(?:税込|税抜)?(?:総|合|小|累|集|総合)?計(?:金額|額|行)?(?:税込|税抜)?(?:[0-9]+件)?|総額|(?:grand|sub)?totals?(?:amount)?|sum"
)
_READABLE = "^-?[0-9]{1,12}$"  # what is larger is no amount, and many of it would not fit 64 bits


def find_total_row(staged: Path, judge: Judge, chunk_rows: int) -> int | None:
    """Return the number of the last row when its amount is the sum of those above, and nothing else is in it.

    Its other cells are blank, say what a blank one would be filled with, or are words for a total.
    """
    last = _last_row(staged, [judge.record_type.identity])
    if last is None or not (_is_blank_or_word(last, judge.record_type.identity)):
        return None
    last = _last_row(staged, ["import_row_number", "shape_ok", *judge.record_type.column_names])
    if last is None or not last.column("shape_ok")[0].as_py() or not says_only_a_sum(last, judge):
        return None
    number = last.column("import_row_number")[0].as_py()
    amount = readable_amounts(last, judge)
    above = [sums for sums in _sums(staged, judge, chunk_rows, before=number) if sums is not None]
    return int(number) if above and sum(above) == pc.sum(amount).as_py() else None


def _last_row(staged: Path, columns: list[str]) -> pa.Table | None:
    with pq.ParquetFile(staged, pre_buffer=False) as file:
        for group in reversed(range(file.num_row_groups)):
            if rows := file.metadata.row_group(group).num_rows:
                return file.read_row_group(group, columns).slice(rows - 1).combine_chunks()
    return None


def _is_blank_or_word(row: pa.Table, column: str) -> bool:
    cell = row.column(column)[0].as_py() or ""
    letters = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", cell))).lower()
    return not cell.strip() or _WORD.fullmatch(letters) is not None


def says_only_a_sum(row: pa.Table, judge: Judge) -> bool:
    """Tell whether no cell of a row but the amount says more than a blank one would, or that it is a total."""
    kind = judge.record_type
    text, _ = kind.normalised({name: row.column(name).combine_chunks() for name in kind.column_names}, judge.context)
    blank, _ = kind.normalised(dict.fromkeys(kind.column_names, pa.array([""])), judge.context)
    others = (name for name in kind.column_names if name != kind.amount)
    return all(text[name] == blank[name] or _is_blank_or_word(row, name) for name in others)


def _sums(staged: Path, judge: Judge, chunk_rows: int, *, before: int) -> list[int | None]:
    def summed(_number: int, chunk: pa.RecordBatch) -> int | None:
        above = chunk.filter(pc.and_(chunk.column("shape_ok"), pc.less(chunk.column("import_row_number"), before)))
        total: int | None = pc.sum(readable_amounts(above, judge)).as_py()
        return total

    columns = ["import_row_number", "shape_ok", judge.record_type.amount]
    with closing(map_chunks(staged, summed, chunk_rows, columns)) as chunks:
        return list(chunks)


def readable_amounts(rows: pa.Table | pa.RecordBatch, judge: Judge) -> pa.Array:
    """Return the amounts that can be read."""
    column = judge.record_type.by_name[judge.record_type.amount]
    cells = rows.column(column.name)
    text = column.normalised(cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells, judge.context)
    return text.filter(pc.match_substring_regex(text, _READABLE)).cast(pa.int64())

"""Rejected rows: each with its cells, from the staged file, and all its rejections, from the database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import Row

from orders_pipeline.records.rejections import Rejection, message

STAGED_ROWS = 2_000  # looked through at a time: they and their errors are objects


@dataclass(frozen=True)
class RejectedRow:
    """A rejected row: where its record lies in the text, its cells as sent, and all its rejections."""

    number: int
    line: int
    span: tuple[int, int]  # offset and length in bytes
    cells: Mapping[str, str | None]
    rejections: Sequence[Rejection]


def as_rejection(row: Row[Any]) -> Rejection:
    """Return a rejection that the database has."""
    return Rejection(row.import_row_number, row.line, row.column_name, row.code, row.detail)


def listed(rejection: Rejection, headers: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return a rejection as lists in JSON have it, with its message and the header that the file has for its column."""
    return {
        "row": rejection.import_row_number,
        "line": rejection.line,
        "column": rejection.column,
        "header": " + ".join(headers.get(rejection.column or "", ())),
        "code": rejection.code,
        "message": message(rejection.code, "en", rejection.detail),
        "message_ja": message(rejection.code, "ja", rejection.detail),
    }


def rejected_rows(staged: Path, rejections: Iterable[Rejection]) -> Iterator[RejectedRow]:
    """Yield the rejected rows of a staged file; rejections are in the order of rows, and little of both is in memory."""
    by_row = groupby(rejections, key=lambda rejection: rejection.import_row_number or 0)
    ahead = next(by_row, None)
    with pq.ParquetFile(staged) as file:
        for chunk in file.iter_batches(STAGED_ROWS):
            last = chunk.column("import_row_number")[-1].as_py() if chunk.num_rows else 0
            wanted: dict[int, list[Rejection]] = {}
            while ahead is not None and ahead[0] <= last:
                wanted[ahead[0]] = list(ahead[1])
                ahead = next(by_row, None)
            numbers = pa.array(wanted, pa.int32())
            for cells in chunk.filter(pc.is_in(chunk.column("import_row_number"), value_set=numbers)).to_pylist():
                number = cells["import_row_number"]
                yield RejectedRow(number, cells["line"], (cells["offset"], cells["length"]), cells, wanted[number])

"""Rows, files and frames for tests: valid unless a test says otherwise, so that a test shows only what it is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orders_pipeline.records.judgement import Judge
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.record_type import RecordType, RowContext
from orders_pipeline.samples.synthetic import write_sample

TODAY = date(2026, 7, 1)

STAGED_POSITIONS = (
    pa.field("import_row_number", pa.int32()),
    pa.field("line", pa.int32()),
    pa.field("offset", pa.int64()),
    pa.field("length", pa.int32()),
    pa.field("shape_ok", pa.bool_()),
    pa.field("unreadable", pa.string()),
)


def row_context(*, today: date = TODAY, encoding: str = "utf-8", default_notify_channel: str = "email") -> RowContext:
    return RowContext(today=today, encoding=encoding, default_notify_channel=default_notify_channel)


def order_row(**overrides: str) -> dict[str, str]:
    """Return the cells of a valid order; columns that are not named are empty."""
    row = dict.fromkeys(ORDERS.column_names, "")
    row |= {
        "client_order_ref": "ORD-0001",
        "customer_code": "C-001",
        "customer_name": "見本商店",
        "email": "orders@example.com",
        "amount": "1000",
        "payment_method": "invoice",
    }
    return row | overrides


def order_rows(count: int, **overrides: str) -> list[dict[str, str]]:
    """Return valid orders that differ by their reference only."""
    return [order_row(**({"client_order_ref": f"ORD-{number:04d}"} | overrides)) for number in range(1, count + 1)]


def write_staged(
    target: Path,
    rows: Sequence[Mapping[str, str] | None],
    *,
    numbers: Iterable[int] | None = None,
    record_type: RecordType = ORDERS,
) -> Path:
    """Write rows as staging leaves them and return the path; None is a row of the wrong shape."""
    given = list(numbers) if numbers is not None else list(range(1, len(rows) + 1))
    columns: dict[str, list[object]] = {
        "import_row_number": list(given),
        "line": [number + 1 for number in given],
        "offset": [100 * number for number in given],
        "length": [100] * len(rows),
        "shape_ok": [row is not None for row in rows],
        "unreadable": [None] * len(rows),
    }
    for name in record_type.column_names:
        columns[name] = [None if row is None else row.get(name, "") for row in rows]
    text = [pa.field(name, pa.string()) for name in record_type.column_names]
    pq.write_table(pa.table(columns, schema=pa.schema([*STAGED_POSITIONS, *text])), target)
    return target


@dataclass(frozen=True)
class Judged:
    """What judging rows said: for each row its (column, code) findings, its normalised text and its typed values."""

    found: list[list[tuple[str, str]]]
    text: list[dict[str, str]]
    values: list[dict[str, Any]]

    @property
    def codes(self) -> list[list[str]]:
        return [[code for _, code in row] for row in self.found]


def raw_cells(rows: Sequence[Mapping[str, str]]) -> dict[str, pa.Array]:
    return {name: pa.array([row[name] for row in rows], pa.string()) for name in ORDERS.column_names}


def judge_rows(rows: Sequence[Mapping[str, str]], context: RowContext | None = None) -> Judged:
    """Judge rows of orders by themselves, as validation does before it looks at other rows and files."""
    numbers = pa.array(range(1, len(rows) + 1), pa.int32())
    judged, findings, _ = Judge(ORDERS, context or row_context()).judge(numbers, raw_cells(rows))
    found: list[list[tuple[str, str]]] = [[] for _ in rows]
    for finding in findings.found:
        for position in finding.positions:
            found[position].append((finding.column, finding.code))
    text = {name: cells.to_pylist() for name, cells in judged.text.items()}
    values = {name: cells.to_pylist() for name, cells in judged.values.items()}
    return Judged(
        found,
        [{name: cells[at] for name, cells in text.items()} for at in range(len(rows))],
        [{name: cells[at] for name, cells in values.items()} for at in range(len(rows))],
    )


def judge_cells(column: str, cells: Sequence[str], context: RowContext | None = None, **others: str) -> Judged:
    """Judge orders that differ in one column."""
    return judge_rows([order_row(**(others | {column: cell})) for cell in cells], context)


def accepted(column: str, cells: Sequence[str], **others: str) -> list[str]:
    """Assert that orders with each of the cells pass, and return the cells as normalised."""
    judged = judge_cells(column, cells, **others)
    assert judged.codes == [[] for _ in cells]
    return [row[column] for row in judged.text]


def refused(column: str, cells: Sequence[str], code: str, *, context: RowContext | None = None, **others: str) -> None:
    """Assert that orders with each of the cells get exactly this code, in this column."""
    judged = judge_cells(column, cells, context, **others)
    assert judged.found == [[(column, code)] for _ in cells]


def sample_file(folder: Path, rows: int = 20, seed: int = 1, bad: float = 0.0) -> Path:
    """Write a synthetic file into a folder."""
    path = folder / f"orders-{seed}.csv"
    write_sample(path, rows=rows, seed=seed, bad=bad)
    return path

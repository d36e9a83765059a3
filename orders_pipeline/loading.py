"""Loading: accepted rows become orders, rejections are kept, by COPY, in chunks that are each committed once.

What is accepted was decided in `validation.py`; the schema's own rules have the last word, as when another batch loads
the same reference first.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from sqlalchemy import Row

from orders_pipeline.database import ConstraintViolated, Database, Transaction
from orders_pipeline.drain import persist

CHUNK_ROWS = 50_000
REJECTIONS_CHUNK = 0  # the rejections' number in the ledger of chunks; chunks of orders count from 1
BATCH_COLUMNS = ("batch_id", "csv_source", "bulk_import_group", "client_code")  # the same in every row of a batch


@dataclass(frozen=True)
class Loaded:
    """What one load did: rows written now, and rows another batch had loaded first."""

    orders: int
    taken: int


def load(database: Database, batch: Row[Any], accepted: Path, rejections: Path) -> Loaded:
    """Load a validated batch from its Parquet files; chunks that are loaded already are left alone."""
    with database.begin() as transaction:
        if _begin_chunk(transaction, batch.batch_id, REJECTIONS_CHUNK, 0):
            transaction.copy("copy_rejections", _rejection_rows(rejections, batch.batch_id))
    orders = taken = 0
    for chunk_no, chunk in enumerate(pq.ParquetFile(accepted).iter_batches(CHUNK_ROWS), start=1):
        # again after a deadlock with another batch, or while the database is away: a chunk is all or nothing
        written, lost = persist(partial(_load_chunk, database, batch, chunk_no, _order_rows(batch, chunk)))
        orders += written
        taken += lost
    with database.begin() as transaction:
        transaction.execute("set_loaded", batch_id=batch.batch_id)
    return Loaded(orders, taken)


def _load_chunk(database: Database, batch: Row[Any], chunk_no: int, rows: pa.Table) -> tuple[int, int]:
    try:
        with database.begin() as transaction:
            if not _begin_chunk(transaction, batch.batch_id, chunk_no, rows.num_rows):
                return 0, 0
            transaction.copy("copy_orders", _csv(rows), rows.column_names)
            return rows.num_rows, 0
    except ConstraintViolated as error:
        if error.constraint != "orders_client_order_ref_key":
            raise
    return _load_contested_chunk(database, batch, chunk_no, rows)


def _load_contested_chunk(database: Database, batch: Row[Any], chunk_no: int, rows: pa.Table) -> tuple[int, int]:
    """Load a chunk of which another batch has taken some references since validation: those rows are given back."""
    with database.begin() as transaction:
        if not _begin_chunk(transaction, batch.batch_id, chunk_no, rows.num_rows):
            return 0, 0
        transaction.execute_with_columns("create_contested_orders", rows.column_names)
        transaction.copy("copy_contested_orders", _csv(rows), rows.column_names)
        written = transaction.execute_with_columns("insert_contested_orders", rows.column_names)
        lost = transaction.row("reject_contested_orders", batch_id=batch.batch_id)
        if lost is not None and lost.rows:
            transaction.execute("move_accepted_to_rejected", batch_id=batch.batch_id, rows=lost.rows, amount=lost.amount)
    return written, rows.num_rows - written


def _begin_chunk(transaction: Transaction, batch_id: str, chunk_no: int, rows: int) -> bool:
    return bool(transaction.execute("begin_chunk", batch_id=batch_id, chunk_no=chunk_no, rows=rows))


def _order_rows(batch: Row[Any], chunk: pa.RecordBatch) -> pa.Table:
    table = pa.Table.from_batches([chunk])
    hexed = pa.array(["\\x" + sealed.hex() for sealed in table.column("personal").to_pylist()], pa.string())
    table = table.set_column(table.column_names.index("personal"), "personal", hexed)
    for name in BATCH_COLUMNS:
        table = table.append_column(name, pa.repeat(pa.scalar(getattr(batch, name)), table.num_rows))
    return table


def _rejection_rows(path: Path, batch_id: str) -> Iterator[bytes]:
    for chunk in pq.ParquetFile(path).iter_batches(CHUNK_ROWS):
        table = pa.Table.from_batches([chunk])
        detail = pc.fill_null(table.column("detail"), "{}")
        table = table.set_column(table.schema.get_field_index("detail"), "detail", detail)
        yield from _csv(table.add_column(0, "batch_id", pa.repeat(pa.scalar(batch_id), table.num_rows)))


def _csv(table: pa.Table) -> Iterator[bytes]:
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(table, buffer, pyarrow.csv.WriteOptions(include_header=False))
    yield buffer.getvalue()

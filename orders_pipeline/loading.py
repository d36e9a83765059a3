"""Loading: accepted rows become orders, rejections are kept, by COPY, in chunks that are each committed once.

A few chunks are written at the same time, each over a connection of its own, and rejections beside them. What is
accepted was decided in `validation.py`; the schema's own rules have the last word, as when another batch loads the same
reference first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import Row

from orders_pipeline.binary_copy import binary_copy
from orders_pipeline.database import ConstraintViolated, Database, Transaction
from orders_pipeline.drain import persist
from orders_pipeline.parquet_file import map_chunks, read_chunks

CHUNK_ROWS = 10_000
REJECTIONS_CHUNK = 0  # the rejections' number in the ledger of chunks; chunks of orders count from 1
BATCH_COLUMNS = ("batch_id", "csv_source", "bulk_import_group", "client_code")  # the same in every row of a batch


@dataclass(frozen=True)
class Loaded:
    """What one load did: rows written now, and rows another batch had loaded first."""

    orders: int
    taken: int


class NotAsValidated(Exception):
    """Since validation so much has changed that the file has to be validated again; nothing of it was loaded."""


def load_rejections(database: Database, batch: Row[Any], rejections: Path, staged: Path) -> None:
    """Keep what a batch gives back, and which rows of the batch it corrects its own ones answer; once."""
    with database.begin() as transaction:
        _keep_rejections(transaction, batch, rejections, staged)


def _keep_rejections(transaction: Transaction, batch: Row[Any], rejections: Path, staged: Path) -> None:
    if _begin_chunk(transaction, batch.batch_id, REJECTIONS_CHUNK, 0):
        transaction.copy("copy_rejections", _rejection_rows(transaction, rejections, batch))
        if batch.corrects is not None:
            transaction.copy("copy_corrections", _correction_rows(transaction, staged, batch))


def load(
    database: Database,
    batch: Row[Any],
    accepted: Path,
    rejections: Path,
    staged: Path,
    most_bad_rows: int | None = None,
) -> Loaded:
    """Load a validated batch from its Parquet files; chunks that are loaded already are left alone.

    Where no more than `most_bad_rows` may be rejected it is loaded as a whole or not at all: NotAsValidated is raised when
    other batches have taken so many references meanwhile that there are more.
    """
    with database.begin() as transaction:
        types = _column_types(transaction, "orders")
    if most_bad_rows is not None and batch.rows_accepted and most_bad_rows < batch.rows_accepted + batch.rows_rejected:
        return persist(partial(_load_whole, database, batch, (accepted, rejections, staged), types, most_bad_rows))
    orders = taken = 0

    def load_chunk(chunk_no: int, rows: pa.RecordBatch) -> tuple[int, int]:
        # again after a deadlock with another batch, or while the database is away: a chunk is all or nothing
        return persist(partial(_load_chunk, database, _Chunk(batch, chunk_no, rows, types)))

    with (
        ThreadPoolExecutor(1, thread_name_prefix="rejections") as beside,
        closing(map_chunks(accepted, load_chunk, CHUNK_ROWS)) as chunks,
    ):
        keeping = beside.submit(persist, partial(load_rejections, database, batch, rejections, staged))
        for written, lost in chunks:
            orders += written
            taken += lost
        keeping.result()
    with database.begin() as transaction:
        transaction.execute("set_loaded", batch_id=batch.batch_id)
    return Loaded(orders, taken)


def _load_whole(
    database: Database, batch: Row[Any], files: tuple[Path, Path, Path], types: Mapping[str, str], most_bad_rows: int
) -> Loaded:
    accepted, rejections, staged = files
    with database.begin() as transaction:
        chunks = (_Chunk(batch, number, rows, types) for number, rows in enumerate(read_chunks(accepted, CHUNK_ROWS), 1))
        columns = (*pq.read_schema(accepted).names, *BATCH_COLUMNS)
        transaction.execute_with_columns("create_contested_orders", columns)
        rows = 0
        for chunk in chunks:
            if chunk.begin(transaction):
                transaction.copy("copy_contested_orders", chunk.data(), columns)
                rows += chunk.rows.num_rows
        written = _insert_contested(transaction, batch.batch_id, columns)
        if batch.rows_rejected + rows - written > most_bad_rows:
            raise NotAsValidated
        _keep_rejections(transaction, batch, rejections, staged)
        transaction.execute("set_loaded", batch_id=batch.batch_id)
    return Loaded(written, rows - written)


@dataclass(frozen=True)
class _Chunk:
    """Accepted rows that are loaded in one transaction; `types` are those of the table's columns."""

    batch: Row[Any]
    number: int
    rows: pa.RecordBatch
    types: Mapping[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.rows.schema.names, *BATCH_COLUMNS)

    def begin(self, transaction: Transaction) -> bool:
        return _begin_chunk(transaction, self.batch.batch_id, self.number, self.rows.num_rows)

    def data(self) -> Iterator[bytes]:
        return binary_copy([self.rows], {name: getattr(self.batch, name) for name in BATCH_COLUMNS}, self.types)


def _load_chunk(database: Database, chunk: _Chunk) -> tuple[int, int]:
    try:
        with database.begin() as transaction:
            if not chunk.begin(transaction):
                return 0, 0
            transaction.copy("copy_orders", chunk.data(), chunk.columns)
            return chunk.rows.num_rows, 0
    except ConstraintViolated as error:
        if error.constraint != "orders_client_order_ref_key":
            raise
    return _load_contested_chunk(database, chunk)


def _load_contested_chunk(database: Database, chunk: _Chunk) -> tuple[int, int]:
    """Load a chunk of which another batch has taken some references since validation: those rows are given back."""
    batch_id = chunk.batch.batch_id
    with database.begin() as transaction:
        if not chunk.begin(transaction):
            return 0, 0
        transaction.execute_with_columns("create_contested_orders", chunk.columns)
        transaction.copy("copy_contested_orders", chunk.data(), chunk.columns)
        written = _insert_contested(transaction, batch_id, chunk.columns)
    return written, chunk.rows.num_rows - written


def _insert_contested(transaction: Transaction, batch_id: str, columns: Sequence[str]) -> int:
    written = transaction.execute_with_columns("insert_contested_orders", columns)
    lost = transaction.row("reject_contested_orders", batch_id=batch_id)
    if lost is not None and lost.rows:
        transaction.execute("move_accepted_to_rejected", batch_id=batch_id, rows=lost.rows, amount=lost.amount)
    return written


def _begin_chunk(transaction: Transaction, batch_id: str, chunk_no: int, rows: int) -> bool:
    return bool(transaction.execute("begin_chunk", batch_id=batch_id, chunk_no=chunk_no, rows=rows))


def _column_types(transaction: Transaction, table: str) -> dict[str, str]:
    return {column.name: column.type for column in transaction.rows("column_types", table=table)}


def _rejection_rows(transaction: Transaction, rejections: Path, batch: Row[Any]) -> Iterator[bytes]:
    chunks = map(_with_names_of_table, read_chunks(rejections, CHUNK_ROWS))
    return binary_copy(chunks, {"batch_id": batch.batch_id}, _column_types(transaction, "rejections"))


def _with_names_of_table(rejections: pa.RecordBatch) -> pa.RecordBatch:
    at = rejections.schema.get_field_index("detail")
    whole = rejections.set_column(at, "detail", pc.fill_null(rejections.column("detail"), "{}"))
    return whole.rename_columns({"column": "column_name"})


def _correction_rows(transaction: Transaction, staged: Path, batch: Row[Any]) -> Iterator[bytes]:
    chunks = read_chunks(staged, CHUNK_ROWS, columns=["import_row_number", "corrects_row"])
    answers = (chunk.filter(pc.is_valid(chunk.column("corrects_row"))) for chunk in chunks)
    same = {"batch_id": batch.batch_id, "corrects": batch.corrects}
    return binary_copy(answers, same, _column_types(transaction, "corrections"))

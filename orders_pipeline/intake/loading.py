"""Loading: accepted rows become orders, rejections are kept, by COPY, in chunks that are each committed once.

A few chunks are written at the same time, each over a connection of its own, and rejections beside them. The lines of
orders, where their rows have some, are written with them. What is
accepted was decided in `validation.py`; the schema's own rules have the last word, as when another batch loads the same
reference first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import Row

from orders_pipeline.infrastructure.binary_copy import binary_copy
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.database_errors import ConstraintViolated, retry_while_unavailable
from orders_pipeline.infrastructure.parquet_file import map_chunks, read_chunks
from orders_pipeline.records.corrected_rows import Answer
from orders_pipeline.records.order_lines import ACCEPTED_LINE, LINE_COUNT, LINES
from orders_pipeline.records.orders import ORDERS

CHUNK_ROWS = 10_000
REJECTIONS_CHUNK = 0  # the rejections' number in the ledger of chunks; chunks of orders count from 1
BATCH_COLUMNS = ("batch_id", "csv_source", "bulk_import_group", "client_code")  # the same in every row of a batch
LINE_COLUMNS = ("order_row", *(field.name for field in ACCEPTED_LINE), "batch_id")

_ANSWER_TYPES = {
    "import_row_number": pa.int32(),
    "corrects_row": pa.int32(),
    "first_batch": pa.string(),
    "first_row": pa.int32(),
}
MOST_ROWS = 2**31 - 1
_GIVEN_UP_TYPES = {"import_row_number": pa.int32(), "reference": pa.string(), "held_by": pa.string()}


@dataclass(frozen=True)
class Loaded:
    """What one load did: orders written now, and orders that another batch had loaded first."""

    orders: int
    taken: int


class NotAsValidated(Exception):
    """Since validation so much has changed that the file has to be validated again; nothing of it was loaded."""


def load_rejections(database: Database, batch: Row[Any], rejections: Path, answers: Path | None) -> None:
    """Keep the rejections of a batch, and which rows of the batch that it corrects its own rows answer; does so once."""
    with database.begin() as transaction:
        _keep_rejections(transaction, batch, rejections, answers)


def _keep_rejections(transaction: Transaction, batch: Row[Any], rejections: Path, answers: Path | None) -> None:
    if _begin_chunk(transaction, batch.batch_id, REJECTIONS_CHUNK, 0):
        transaction.copy("copy_rejections", _rejection_rows(transaction, rejections, batch))
        if batch.corrects is not None and answers is not None:
            given = json.loads(answers.read_bytes())
            transaction.copy("copy_corrections", _correction_rows(transaction, given, batch))
            transaction.copy("copy_given_up_references", _given_up_rows(transaction, given, batch))


def load(
    database: Database,
    batch: Row[Any],
    accepted: Path,
    rejections: Path,
    answers: Path | None,
    most_bad_rows: int | None = None,
    *,
    skips_same: bool = False,
) -> Loaded:
    """Load a validated batch from its Parquet files; chunks that are loaded already are left alone.

    `answers` is what `write_answers` wrote of a correcting file. Where no more than `most_bad_rows` may be rejected it is
    loaded as a whole or not at all: NotAsValidated is raised when other batches have taken so many references meanwhile
    that there are more. It is raised for any such row of a file that `skips_same`: it may be the same order.
    """
    skips_same = skips_same and batch.corrects is None
    with database.begin() as transaction:
        types = _Types(_column_types(transaction, "orders"), _column_types(transaction, "order_lines"))
    if most_bad_rows is not None and batch.rows_accepted and most_bad_rows < batch.rows_accepted + batch.rows_rejected:
        return retry_while_unavailable(
            partial(
                _load_whole,
                database,
                batch,
                (accepted, rejections, answers),
                types,
                most_lost=0 if skips_same else most_bad_rows - batch.rows_rejected,
            )
        )
    orders = taken = 0
    if answers is not None:  # first: what rows give up is held against all orders, whoever loads them
        retry_while_unavailable(partial(load_rejections, database, batch, rejections, answers))

    def load_chunk(chunk_no: int, rows: pa.RecordBatch) -> tuple[int, int]:
        # again after a deadlock with another batch, or while the database is away: a chunk is all or nothing
        return retry_while_unavailable(partial(_load_chunk, database, _Chunk(batch, chunk_no, rows, types)))

    with (
        ThreadPoolExecutor(1, thread_name_prefix="rejections") as beside,
        closing(map_chunks(accepted, load_chunk, CHUNK_ROWS)) as chunks,
    ):
        keeping = beside.submit(retry_while_unavailable, partial(load_rejections, database, batch, rejections, answers))
        for written, lost in chunks:
            orders += written
            taken += lost
        keeping.result()
    if taken and skips_same:
        raise NotAsValidated
    with database.begin() as transaction:
        _set_loaded(transaction, batch)
    return Loaded(orders, taken)


def _set_loaded(transaction: Transaction, batch: Row[Any]) -> None:
    """Say that a batch is loaded, unless a row that it skips and so closes has become an order of another since."""
    if batch.corrects is not None:
        _hold_references(transaction, batch)
        if transaction.scalar("closes_received_rows", batch_id=batch.batch_id):
            raise NotAsValidated
    transaction.execute("set_loaded", batch_id=batch.batch_id)


def _load_whole(
    database: Database, batch: Row[Any], files: tuple[Path, Path, Path | None], types: _Types, most_lost: int
) -> Loaded:
    accepted, rejections, answers = files
    with database.begin() as transaction:
        chunks = (_Chunk(batch, number, rows, types) for number, rows in enumerate(read_chunks(accepted, CHUNK_ROWS), 1))
        columns = columns_of_orders(pq.read_schema(accepted))
        _hold_references(transaction, batch)
        _create_contested(transaction)
        orders = 0
        for chunk in chunks:
            if chunk.begin(transaction):
                chunk.copy_contested(transaction)
                orders += chunk.rows.num_rows
        written, rows_lost = _insert_contested(transaction, batch.batch_id, columns)
        if rows_lost > most_lost:
            raise NotAsValidated
        _keep_rejections(transaction, batch, rejections, answers)
        if _received_since(transaction, batch, 1, MOST_ROWS):
            raise NotAsValidated
        _set_loaded(transaction, batch)
    return Loaded(written, orders - written)


@dataclass(frozen=True)
class _Types:
    """The types of the columns of both tables, as PostgreSQL calls them."""

    orders: Mapping[str, str]
    lines: Mapping[str, str]


@dataclass(frozen=True)
class _Chunk:
    """Accepted orders that are loaded in one transaction, with their lines if they have some."""

    batch: Row[Any]
    number: int
    rows: pa.RecordBatch
    types: _Types

    @property
    def columns(self) -> tuple[str, ...]:
        return columns_of_orders(self.rows.schema)

    def begin(self, transaction: Transaction) -> bool:
        return _begin_chunk(transaction, self.batch.batch_id, self.number, self.rows.num_rows)

    def copy(self, transaction: Transaction) -> None:
        transaction.copy("copy_orders", self._orders(), self.columns)
        if self.has_lines:
            transaction.copy("copy_order_lines", self._lines(), LINE_COLUMNS)

    def copy_contested(self, transaction: Transaction) -> None:
        transaction.copy("copy_contested_orders", self._orders(), self.columns)
        if self.has_lines:
            transaction.copy("copy_contested_lines", self._lines(), LINE_COLUMNS)

    @property
    def has_lines(self) -> bool:
        return LINES in self.rows.schema.names

    def _orders(self) -> Iterator[bytes]:
        same = {name: getattr(self.batch, name) for name in BATCH_COLUMNS}
        return binary_copy([self.rows.select([*_without_lines(self.rows.schema)])], same, self.types.orders)

    def _lines(self) -> Iterator[bytes]:
        return binary_copy([lines_of(self.rows)], {"batch_id": self.batch.batch_id}, self.types.lines)


def lines_of(orders: pa.RecordBatch) -> pa.RecordBatch:
    """Return the lines of accepted orders, each with the row of its order."""
    lines = orders.column(LINES)
    cells = lines.flatten().flatten()
    order_row = orders.column("import_row_number").take(pc.list_parent_indices(lines))
    return pa.RecordBatch.from_arrays([order_row, *cells], names=list(LINE_COLUMNS[:-1]))


def _without_lines(schema: pa.Schema) -> tuple[str, ...]:
    return tuple(name for name in schema.names if name != LINES)


def columns_of_orders(schema: pa.Schema) -> tuple[str, ...]:
    """Return the table's columns that accepted orders of a schema fill."""
    return (*_without_lines(schema), *BATCH_COLUMNS)


class _ReceivedSince(Exception):
    """Rows of a chunk have come to be orders elsewhere since they were validated."""

    def __init__(self, rows: Sequence[Row[Any]]) -> None:
        super().__init__()
        self.rows = rows


def _load_chunk(database: Database, chunk: _Chunk) -> tuple[int, int]:
    try:
        with database.begin() as transaction:
            if not chunk.begin(transaction):
                return 0, 0
            _hold_references(transaction, chunk.batch)
            chunk.copy(transaction)
            _check_received_since(transaction, chunk)
            return chunk.rows.num_rows, 0
    except ConstraintViolated as error:
        if error.constraint != "orders_client_order_ref_key":
            raise
        since: list[Row[Any]] = []
    except _ReceivedSince as found:
        since = list(found.rows)
    while True:
        try:
            return _load_contested_chunk(database, chunk, since)
        except _ReceivedSince as found:
            since += found.rows


def _load_contested_chunk(database: Database, chunk: _Chunk, since: Sequence[Row[Any]]) -> tuple[int, int]:
    """Load a chunk of which another batch has taken some references since validation: those rows are rejected.

    So are the rows `since`, which came to be orders in another way.
    """
    batch_id = chunk.batch.batch_id
    with database.begin() as transaction:
        if not chunk.begin(transaction):
            return 0, 0
        _hold_references(transaction, chunk.batch)
        _create_contested(transaction)
        chunk.copy_contested(transaction)
        for row in {each.import_row_number: each for each in since}.values():
            lost = transaction.row("reject_received_since", row_number=row.import_row_number, code=row.code, other=row.other)
            if lost is not None:
                moved = {"orders": 1, "rows": lost.rows, "amount": lost.amount}
                transaction.execute("move_accepted_to_rejected", batch_id=batch_id, **moved)
        written, _ = _insert_contested(transaction, batch_id, chunk.columns)
        _check_received_since(transaction, chunk)
    return written, chunk.rows.num_rows - written


def _create_contested(transaction: Transaction) -> None:
    transaction.execute("create_contested_orders")
    transaction.execute("create_contested_lines")


def _insert_contested(transaction: Transaction, batch_id: str, columns: Sequence[str]) -> tuple[int, int]:
    """Return how many orders were written, and how many rows are rejected as another batch has their order."""
    written = transaction.execute_with_columns("insert_contested_orders", columns)
    lost = transaction.row("reject_contested_orders", batch_id=batch_id, compared=",".join(ORDERS.compared_columns))
    if LINE_COUNT in columns:
        transaction.execute("insert_contested_lines")
        transaction.execute("reject_contested_lines")
    if lost is None or not lost.orders:
        return written, 0
    moved = {"orders": lost.orders, "rows": int(lost.rows), "amount": lost.amount}
    transaction.execute("move_accepted_to_rejected", batch_id=batch_id, **moved)
    return written, int(lost.rows)


def _hold_references(transaction: Transaction, batch: Row[Any]) -> None:
    """Keep a correction's orders and others of the client from being loaded at the same time, not seeing each other."""
    if batch.corrects is None:
        transaction.rows("share_references", client_code=batch.client_code)
    else:
        transaction.rows("hold_references", client_code=batch.client_code)


def _check_received_since(transaction: Transaction, chunk: _Chunk) -> None:
    numbers = chunk.rows.column("import_row_number")
    received = _received_since(transaction, chunk.batch, numbers[0].as_py(), numbers[-1].as_py())
    if received:
        raise _ReceivedSince(received)


def _received_since(transaction: Transaction, batch: Row[Any], first_row: int, last_row: int) -> Sequence[Row[Any]]:
    same = {"batch_id": batch.batch_id, "client_code": batch.client_code}
    return transaction.rows("rows_received_since", first_row=first_row, last_row=last_row, **same)


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


def write_answers(target: Path, answers: Sequence[Answer]) -> None:
    """Write what the rows of a correcting file answer, for `load`."""
    target.write_text(json.dumps([asdict(each) for each in answers]), "utf-8")


def _correction_rows(transaction: Transaction, answers: Sequence[Mapping[str, Any]], batch: Row[Any]) -> Iterator[bytes]:
    rows = [
        {name: each[name] for name in ("import_row_number", "corrects_row")}
        | dict(zip(("first_batch", "first_row"), each["first"], strict=True))
        for each in answers
    ]
    same = {"batch_id": batch.batch_id, "corrects": batch.corrects}
    chunk = pa.RecordBatch.from_pylist(rows, pa.schema(_ANSWER_TYPES))
    return binary_copy([chunk], same, _column_types(transaction, "corrections"))


def _given_up_rows(transaction: Transaction, answers: Sequence[Mapping[str, Any]], batch: Row[Any]) -> Iterator[bytes]:
    rows = [
        {"import_row_number": each["import_row_number"], "reference": reference, "held_by": held_by}
        for each in answers
        for reference, held_by in each["gives_up"].items()
    ]
    same = {"batch_id": batch.batch_id, "client_code": batch.client_code}
    chunk = pa.RecordBatch.from_pylist(rows, pa.schema(_GIVEN_UP_TYPES))
    return binary_copy([chunk], same, _column_types(transaction, "given_up_references"))

"""The contestants of the intake benchmark: each takes a file's rows into PostgreSQL, in a process of its own.

Ours begins with the client's file. The others are given the rows that ours accepted, already typed and sealed, and begin
with these: as CSV, in Arrow or as a binary COPY takes them. What is compared with what is said in `intake.py`.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Date, LargeBinary, create_engine, make_url

from orders_pipeline.batches.artifacts import ACCEPTED, artifact
from orders_pipeline.infrastructure.binary_copy import binary_copy
from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline.infrastructure.parquet_file import read_chunks
from orders_pipeline.intake import file_import, steps
from orders_pipeline.intake.loading import LINE_COLUMNS, columns_of_orders, lines_of
from orders_pipeline.intake.validation import accepted_schema
from orders_pipeline.orchestration.run_process import LIBRARIES
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.system.composition import Endpoints, System, open_system
from orders_pipeline.system.settings import Settings

NO_SERVICE = "http://127.0.0.1:1"  # nothing is paid or notified here
STEPS = {"stage": steps.stage_batch, "validate": steps.validate_batch, "load": steps.load_batch}
BLOCK_BYTES = 1 << 20
CHUNK_ROWS = 50_000
HALVES = ("half1", "half2")
ORDER_COLUMNS = columns_of_orders(accepted_schema(ORDERS, with_lines=True))


@dataclass(frozen=True)
class Contest:
    """What a contestant is given: the client's file, the same rows typed (CSV with header), and an empty database."""

    source: str
    typed: str
    database_url: str

    @property
    def clients(self) -> Path:
        """Where the profile is with which a file of lines is read."""
        return Path(self.typed).with_name("clients.toml")

    def rows_of(self, name: str) -> Path:
        """Return where the same rows are in another form: in Arrow, or as a binary COPY takes them."""
        return Path(f"{self.typed}.{name}")

    @property
    def libpq_url(self) -> str:
        return libpq_url(SecretStr(self.database_url))


@dataclass(frozen=True)
class Result:
    """What came of a run: seconds in all and by step, the table that was filled, peak resident MB of the process."""

    seconds: float
    steps: dict[str, float]
    table: str
    peak_mb: int


def ours(contest: Contest, clients: Path | None = None) -> tuple[str, dict[str, float]]:
    """Import a file as the command line does: archived, staged, validated, sealed and loaded."""
    steps = {}
    with opened_batch(contest, clients) as (system, batch_id):
        for name, step in STEPS.items():
            started = time.perf_counter()
            step(system, batch_id)
            steps[name] = time.perf_counter() - started
    return "public.orders", steps


def ours_of_lines(contest: Contest) -> tuple[str, dict[str, float]]:
    """Import a file of lines in the same way."""
    return ours(contest, contest.clients)


@contextlib.contextmanager
def opened_batch(contest: Contest, clients: Path | None = None) -> Iterator[tuple[System, str]]:
    """Give a system with the file as its batch, its bytes archived."""
    with tempfile.TemporaryDirectory(dir=Path(contest.source).parent) as home:
        url = SecretStr(contest.database_url)
        settings = Settings(home=Path(home), database_url=url, clients_file=clients, max_rows=10**9, max_bytes=10**12)
        with open_system(settings, Endpoints(url, NO_SERVICE, NO_SERVICE)) as system:
            yield system, file_import.import_file(system, Path(contest.source), "acme", again=False)


def limit(contest: Contest) -> tuple[str, dict[str, float]]:
    """Copy the typed rows into the same table: no way into it can have less to do."""
    with (
        Path(contest.typed).open("rb") as file,
        psycopg.connect(contest.libpq_url) as connection,
        connection.cursor() as cursor,
    ):
        columns = sql.SQL(file.readline().decode())
        with cursor.copy(sql.SQL("COPY orders ({}) FROM STDIN WITH (FORMAT csv)").format(columns)) as copy:
            while block := file.read(BLOCK_BYTES):
                copy.write(block)
    return "public.orders", {}


def limit_of_lines(contest: Contest) -> tuple[str, dict[str, float]]:
    """Copy the typed orders and lines into their tables."""
    for table, columns in (("orders", ORDER_COLUMNS), ("order_lines", LINE_COLUMNS)):
        _copy_binary(contest, table, columns, table)
    return "public.orders", {}


def to_sql(contest: Contest) -> tuple[str, dict[str, float]]:
    """Insert the typed rows into the same table with pandas' `to_sql` as it is."""
    engine = create_engine(contest.database_url)
    numbers = {"quantity": "Int64", "unit_price": "Int64", "item_code": str}
    for frame in pd.read_csv(contest.typed, dtype=numbers, parse_dates=["order_date"], chunksize=CHUNK_ROWS):
        frame["personal"] = [bytes.fromhex(cell[2:]) for cell in frame["personal"]]
        types = {"personal": LargeBinary(), "order_date": Date()}  # what pandas takes for text and times otherwise
        frame.to_sql("orders", engine, if_exists="append", index=False, dtype=types)
    return "public.orders", {}


def dlt(contest: Contest, *, tuned: bool = False) -> tuple[str, dict[str, float]]:
    """Load the typed rows with dlt into a table of its own making, which has no rule and one index less."""
    import dlt as library

    def tables() -> Iterator[pa.Table]:
        with pyarrow.csv.open_csv(contest.typed) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])

    def rows() -> Iterator[list[dict[str, object]]]:
        for table in tables():
            yield table.to_pylist()

    url = make_url(contest.database_url)
    socket = url.query["host"]  # the host's name before it is only there because dlt wants one
    with tempfile.TemporaryDirectory() as folder:
        pipeline = library.pipeline(
            "benchmark",
            pipelines_dir=folder,
            destination=library.destinations.postgres(
                f"postgresql://{url.username}:-@localhost/{url.database}?host={socket}"
            ),
            dataset_name="benchmark",
        )
        resource_ = library.resource(tables if tuned else rows, name="orders", write_disposition="append")
        pipeline.run(resource_, loader_file_format="csv" if tuned else None)
    return "benchmark.orders", {}


def dlt_tuned(contest: Contest) -> tuple[str, dict[str, float]]:
    """Load with dlt from Arrow tables by COPY, the fastest way it has."""
    return dlt(contest, tuned=True)


def adbc(contest: Contest) -> tuple[str, dict[str, float]]:
    """Copy the typed rows, already in Arrow, into the same table with ADBC's `adbc_ingest`."""
    from adbc_driver_postgresql import dbapi

    url = make_url(contest.database_url)
    address = f"postgresql://{url.username}@/{url.database}?host={url.query['host']}"
    with (
        contest.rows_of("arrow").open("rb") as file,
        pa.ipc.open_stream(file) as rows,
        dbapi.connect(address) as connection,
        connection.cursor() as cursor,
    ):
        cursor.adbc_ingest("orders", rows, mode="append")
        connection.commit()
    return "public.orders", {}


def two_copies(contest: Contest) -> tuple[str, dict[str, float]]:
    """Copy the typed rows, already as a binary COPY takes them, over two connections: the most that two cores can do."""
    with ThreadPoolExecutor(len(HALVES)) as pool:
        list(pool.map(partial(_copy_binary, contest, "orders", typed_columns()), HALVES))
    return "public.orders", {}


def _copy_binary(contest: Contest, table: str, columns: Sequence[str], file_name: str) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT binary)").format(sql.Identifier(table), names)
    with (
        contest.rows_of(file_name).open("rb") as file,
        psycopg.connect(contest.libpq_url) as connection,
        connection.cursor() as cursor,
        cursor.copy(statement) as copy,
    ):
        while block := file.read(BLOCK_BYTES):
            copy.write(block)


def pgloader(contest: Contest) -> tuple[str, dict[str, float]]:
    """Load the typed rows into the same table with pgloader."""
    url = make_url(contest.database_url)
    target = f"postgresql://{url.username}@unix:{url.query['host']}:5432/{url.database}?tablename=public.orders"
    typed = Path(contest.typed)
    with typed.open() as file:
        columns = file.readline().strip()
    with tempfile.TemporaryDirectory(dir=typed.parent) as folder:
        script = Path(folder) / "orders.load"
        script.write_text(
            f"LOAD CSV FROM '{typed}' HAVING FIELDS ({columns}) INTO {target} TARGET COLUMNS ({columns})"
            " WITH skip header = 1, fields optionally enclosed by '\"', fields terminated by ',';\n"
        )
        arguments = ["pgloader", "--root-dir", folder, "--on-error-stop", str(script)]
        subprocess.run(arguments, check=True, stdout=sys.stderr)
    return "public.orders", {}


CONTESTANTS: dict[str, Callable[[Contest], tuple[str, dict[str, float]]]] = {
    "ours": ours,
    "limit": limit,
    "to_sql": to_sql,
    "two_copies": two_copies,
    "adbc": adbc,
    "dlt": dlt,
    "dlt_tuned": dlt_tuned,
    "pgloader": pgloader,
    "limit_of_lines": limit_of_lines,
    "ours_of_lines": ours_of_lines,
}
OF_LINES = ("limit_of_lines", "ours_of_lines")


def write_typed(contest: Contest) -> None:
    """Write the rows that ours accepts as `contest.typed`, and in the other forms that contestants begin with."""
    with validated_batch(contest) as (system, batch_id, accepted):
        same = same_in(batch_id)
        _write_csv_and_arrow(accepted, contest, same)
        types = types_of(system)["orders"]
        for at, name in enumerate(HALVES):
            chunks = itertools.islice(read_chunks(accepted, CHUNK_ROWS // 2), at, None, len(HALVES))
            with contest.rows_of(name).open("wb") as file:
                file.writelines(binary_copy(chunks, same, types))


def write_typed_lines(contest: Contest) -> None:
    """Write the orders and lines that ours accepts in the form of a binary COPY."""
    with validated_batch(contest, contest.clients) as (system, batch_id, accepted):
        same, types = same_in(batch_id), types_of(system)
        orders = (chunk.select([*ORDER_COLUMNS[: -len(same)]]) for chunk in read_chunks(accepted, CHUNK_ROWS))
        lines = map(lines_of, read_chunks(accepted, CHUNK_ROWS))
        with contest.rows_of("orders").open("wb") as file:
            file.writelines(binary_copy(orders, same, types["orders"]))
        with contest.rows_of("order_lines").open("wb") as file:
            file.writelines(binary_copy(lines, {"batch_id": batch_id}, types["order_lines"]))
        counted = {"batch_id": batch_id, "orders": 0, "amount": 0, "lines": 0}
        for chunk in read_chunks(accepted, CHUNK_ROWS, ["amount", "line_count"]):
            counted["orders"] += chunk.num_rows
            counted["amount"] += pc.sum(chunk.column("amount")).as_py()
            counted["lines"] += pc.sum(chunk.column("line_count")).as_py()
    Path(contest.typed).write_text(json.dumps(counted))


@contextlib.contextmanager
def validated_batch(contest: Contest, clients: Path | None = None) -> Iterator[tuple[System, str, Path]]:
    """Give a system with the file as its batch, and its accepted rows."""
    with opened_batch(contest, clients) as (system, batch_id):
        for name in ("stage", "validate"):
            STEPS[name](system, batch_id)
        with system.storage.local(artifact(batch_id, ACCEPTED)) as accepted:
            yield system, batch_id, accepted


def same_in(batch_id: str) -> dict[str, str]:
    """Return what is the same in all rows of a batch."""
    return {"batch_id": batch_id, "csv_source": "orders.csv", "bulk_import_group": batch_id, "client_code": "acme"}


def types_of(system: System) -> dict[str, dict[str, str]]:
    """Return the types of the columns of both tables, as PostgreSQL calls them."""
    with system.database.begin() as transaction:
        return {
            table: {column.name: column.type for column in transaction.rows("column_types", table=table)}
            for table in ("orders", "order_lines")
        }


def typed_columns() -> tuple[str, ...]:
    """Return the columns of the typed rows, in their order."""
    return columns_of_orders(accepted_schema(ORDERS))


def _write_csv_and_arrow(accepted: Path, contest: Contest, same: Mapping[str, str]) -> None:
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(Path(contest.typed).open("wb"))
        stream: pa.RecordBatchStreamWriter | None = None
        for chunk in read_chunks(accepted, CHUNK_ROWS):
            table = pa.Table.from_batches([chunk])
            for name, text in same.items():
                table = table.append_column(name, pa.repeat(pa.scalar(text), table.num_rows))
            amount = table["amount"].cast(pa.int32())  # as in PostgreSQL's table
            table = table.set_column(table.column_names.index("amount"), "amount", amount)
            if is_first := stream is None:
                arrow = stack.enter_context(contest.rows_of("arrow").open("wb"))
                stream = stack.enter_context(pa.ipc.new_stream(arrow, table.schema))
            stream.write_table(table)
            sealed = pa.array(["\\x" + cell.hex() for cell in table["personal"].to_pylist()], pa.string())
            table = table.set_column(table.column_names.index("personal"), "personal", sealed)
            options = pyarrow.csv.WriteOptions(include_header=is_first, quoting_style="needed", quoting_header="none")
            pyarrow.csv.write_csv(table, file, options)


def main(name: str, contest: Contest) -> Result:
    """Run one contestant and measure it, imports left out: a run of ours is forked of a process that has them."""
    theirs = {"dlt": ["dlt"], "dlt_tuned": ["dlt"], "adbc": ["adbc_driver_postgresql.dbapi"]}
    for library in LIBRARIES if name.startswith("ours") else theirs.get(name, ()):
        importlib.import_module(library)
    started = time.perf_counter()
    table, steps = CONTESTANTS[name](contest)
    seconds = time.perf_counter() - started
    used = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Result(seconds, steps, table, used // 1024)


if __name__ == "__main__":
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    given = Contest(*sys.argv[2:])
    if sys.argv[1] == "typed":
        write_typed(given)
    elif sys.argv[1] == "typed_lines":
        write_typed_lines(given)
    else:
        sys.stdout.write(json.dumps(asdict(main(sys.argv[1], given))))

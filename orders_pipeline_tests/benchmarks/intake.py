"""The intake benchmark: how long a file takes to become orders, against the least that PostgreSQL must do, and others.

    python -m orders_pipeline_tests.benchmarks.intake --rows 100000 1000000 --bad 0 0.01 0.5
    python -m orders_pipeline_tests.benchmarks.intake --memory 10000000
    python -m orders_pipeline_tests.benchmarks.intake --lines --rows 1000000

With `--lines` five rows of the file are two orders, and the least is a binary COPY of the same orders and lines.

All contestants run in turn, in fresh databases on one server, each in a process of its own, and every table is counted
afterwards. Prints Markdown. What a contestant does is in `contestants.py`; libraries it needs are no requirements.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psycopg
import pyarrow.csv
from pydantic import SecretStr
from sqlalchemy import make_url

from orders_pipeline.infrastructure import migrations
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.system import embedded
from orders_pipeline_tests.benchmarks.contestants import CONTESTANTS, OF_LINES, Contest, Result

TEMPLATE = "benchmark_template"
PART_ROWS = 1_000_000  # a sample of more rows is written in parts, for it is made in memory
INSERT_BATCH = (
    b"INSERT INTO batches (batch_id, client_code, csv_source, bulk_import_group, status) VALUES (%s, %s, %s, %s, %s)"
)


CLIENTS = """
[acme]
lines = "grouped"
columns.amount = { header = "amount", each = "line" }
"""
LINES_OF_TWO = ((2, 300), (1, 1200), (1, 500), (3, 250), (2, 80))  # quantity and price of the lines of two orders


class WrongRows(Exception):
    """A contestant's table does not hold the rows it should."""


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server with an empty, migrated database to clone."""

    url: str

    def run(self, database: str, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(libpq_url(SecretStr(self.named(database))), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def named(self, database: str) -> str:
        return make_url(self.url).set(database=database).render_as_string(hide_password=False)

    @contextlib.contextmanager
    def clone(self) -> Iterator[str]:
        """Give the name of an empty database; nothing is left to be written when the block begins."""
        name = f"benchmark_{uuid.uuid4().hex}"
        self.run("postgres", f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        self.run("postgres", "CHECKPOINT")
        try:
            yield name
        finally:
            self.run("postgres", f"DROP DATABASE {name} WITH (FORCE)")


@dataclass(frozen=True)
class Case:
    """A file to take in, what it holds and what must come of it."""

    rows: int
    bad: float
    source: Path
    typed: Path
    orders: int
    amount: int
    batch_id: str
    lines: int = 0


@contextlib.contextmanager
def started_server(folder: Path) -> Iterator[Server]:
    """Give a server that is gone at the end."""
    with contextlib.closing(embedded.join(folder, "postgres")) as membership:
        server = Server(membership.url)
        server.run("postgres", f"CREATE DATABASE {TEMPLATE}")
        with contextlib.closing(Database(SecretStr(server.named(TEMPLATE)))) as database:
            migrations.migrate(database)
        yield server
    embedded.wait_until_gone(folder)


def write_file(target: Path, rows: int, bad: float) -> None:
    """Write a client's file of `rows` rows, the share `bad` of them bad."""
    with target.open("wb") as file:
        for seed, start in enumerate(range(0, rows, PART_ROWS), start=1):
            part = target.with_suffix(".part")
            write_sample(part, rows=min(PART_ROWS, rows - start), bad=bad, seed=seed)
            with part.open("rb") as written:
                if start:
                    written.readline()
                shutil.copyfileobj(written, file)
            part.unlink()


def make_case(server: Server, folder: Path, rows: int, bad: float) -> Case:
    """Write a file, and the rows of it that are accepted, typed."""
    source, typed = folder / "orders.csv", folder / "typed.csv"
    write_file(source, rows, bad)
    with server.clone() as name:
        _run("typed", Contest(str(source), str(typed), server.named(name)), patience_s=None)
    orders = amount = 0
    batch_id = ""
    with pyarrow.csv.open_csv(typed) as reader:
        for chunk in reader:
            orders += chunk.num_rows
            amount += sum(chunk.column("amount").to_pylist())
            batch_id = chunk.column("batch_id")[0].as_py()
    return Case(rows, bad, source, typed, orders, amount, batch_id)


def make_case_of_lines(server: Server, folder: Path, rows: int) -> Case:
    """Write a file of lines, a profile that groups them, and the orders and lines that come of it."""
    source, typed, single = folder / "lines.csv", folder / "typed", folder / "orders.csv"
    (folder / "clients.toml").write_text(CLIENTS)
    orders = 2 * rows // len(LINES_OF_TWO)
    write_file(single, orders, 0.0)
    with single.open(encoding="utf-8", newline="") as read, source.open("w", encoding="utf-8", newline="") as written:
        reader = csv.DictReader(read)
        writer = csv.DictWriter(written, reader.fieldnames or (), lineterminator="\r\n")
        writer.writeheader()
        for at, order in enumerate(reader):
            for quantity, price in LINES_OF_TWO[:2] if at % 2 else LINES_OF_TWO[2:]:
                item = {"item_code": f"SKU-{price}", "quantity": str(quantity), "unit_price": str(price)}
                writer.writerow(order | item | {"amount": str(quantity * price)})
    with server.clone() as name:
        _run("typed_lines", Contest(str(source), str(typed), server.named(name)), patience_s=None)
    return Case(rows, 0.0, source, typed, **json.loads(typed.read_text()))


def contest(server: Server, case: Case, name: str, patience_s: float | None) -> Result:
    """Let one contestant take a case in, for at most `patience_s` seconds, and count what it loaded."""
    with server.clone() as database:
        url = server.named(database)
        if not name.startswith("ours"):
            with psycopg.connect(libpq_url(SecretStr(url))) as connection:
                connection.execute(INSERT_BATCH, [case.batch_id, "acme", "orders.csv", case.batch_id, "validated"])
            server.run("postgres", "CHECKPOINT")
        result = Result(**json.loads(_run(name, Contest(str(case.source), str(case.typed), url), patience_s)))
        counted = server.run(database, f"SELECT count(*), sum(amount)::bigint FROM {result.table}")
        if counted != [(case.orders, case.amount)]:
            raise WrongRows(f"{name}: {counted}, not {case.orders} orders of {case.amount} yen")
        if server.run(database, "SELECT count(*) FROM order_lines") != [(case.lines,)]:
            raise WrongRows(f"{name}: not {case.lines} lines")
        return result


def _run(name: str, given: Contest, patience_s: float | None) -> str:
    command = [sys.executable, "-m", "orders_pipeline_tests.benchmarks.contestants", name]
    arguments = [given.source, given.typed, given.database_url]
    return subprocess.run(
        [*command, *arguments], check=True, capture_output=True, timeout=patience_s, text=True
    ).stdout.rpartition("\n")[2]


def measure_memory(server: Server, folder: Path, rows: int) -> None:
    """Let ours take in a large file and print the memory it needed."""
    source = folder / "orders.csv"
    write_file(source, rows, 0.01)
    with server.clone() as database:
        output = _run("ours", Contest(str(source), "", server.named(database)), patience_s=None)
        [batch] = server.run(database, "SELECT rows_total, rows_accepted, amount_accepted FROM batches")
        loaded = server.run(database, f"SELECT {rows}::bigint, count(*), sum(amount)::bigint FROM orders")
    if loaded != [batch]:
        raise WrongRows(f"ours: {loaded}, not {batch}")
    result = Result(**json.loads(output))
    _say(f"{rows:,} rows, 1% bad: {result.peak_mb} MB resident at most, {result.seconds:.0f} seconds:")
    _say(", ".join(f"{step} {took:.0f}" for step, took in result.steps.items()))


def installed(names: Sequence[str]) -> list[str]:
    """Return the contestants that can take part, and say who cannot."""
    missing = set()
    if importlib.util.find_spec("dlt") is None:
        missing |= {"dlt", "dlt_tuned"}
    if importlib.util.find_spec("adbc_driver_postgresql") is None:
        missing.add("adbc")
    if shutil.which("pgloader") is None:
        missing.add("pgloader")
    for name in sorted(missing.intersection(names)):
        _say(f"{name} is left out: it is not installed")
    return [name for name in names if name not in missing]


def compare(server: Server, case: Case, names: Sequence[str], repeats: int, patience_s: float) -> None:
    """Run the contestants in turn, `repeats` times, and print a table."""
    results: dict[str, list[Result]] = {name: [] for name in names}
    out: dict[str, str] = {}
    for _ in range(repeats):
        for name in names:
            if name not in out:
                try:
                    results[name].append(contest(server, case, name, patience_s))
                except subprocess.TimeoutExpired:
                    out[name] = f"more than {patience_s:.0f}"
                except subprocess.CalledProcessError as failure:
                    out[name] = f"failed: {failure.stderr.strip().rpartition(chr(10))[2]}"
    _say(f"\n{case.rows:,} rows, {case.bad:.0%} bad: {case.orders:,} orders, {repeats} runs each (medians)\n")
    _say("| contestant | of the limit | lowest and highest | seconds | peak resident MB | steps, seconds |")
    _say("|---|---|---|---|---|---|")
    for name in names:
        if name in out:
            _say(f"| {name} | | | {out[name]} | | |")
        else:
            _say(_line(name, results[name], [each.seconds for each in results[names[0]]]))


def _line(name: str, results: Sequence[Result], limits: Sequence[float]) -> str:
    """Return a line of the table; a ratio is taken between neighbours in time."""
    ratios = [each.seconds / least for each, least in zip(results, limits, strict=True)]
    steps = ", ".join(f"{step} {median(each.steps[step] for each in results):.1f}" for step in results[0].steps)
    return (
        f"| {name} | {median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f}"
        f" | {median(each.seconds for each in results):.1f} | {max(each.peak_mb for each in results)} | {steps} |"
    )


def machine(server: Server) -> str:
    """Say what this was measured on."""
    [(version,)] = server.run("postgres", "SHOW server_version")
    packages = ("pandas", "pandera", "pyarrow", "psycopg", "adbc_driver_postgresql", "dlt")
    found = [name for name in packages if importlib.util.find_spec(name) is not None]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in found)
    return (
        f"{os.cpu_count()} CPUs ({platform.machine()}), load {os.getloadavg()[0]:.1f} before; Python"
        f" {platform.python_version()}, PostgreSQL {version} (its default configuration), {versions}"
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the command line and run what it asks for."""
    parser = argparse.ArgumentParser(description="Measure how long a file takes to become orders.")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--bad", type=float, nargs="+", default=[0.0, 0.01, 0.5], help="shares of bad rows")
    parser.add_argument(
        "--against", nargs="*", default=[name for name in CONTESTANTS if name not in ("ours", "limit", *OF_LINES)]
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--patience", type=float, default=900.0, help="seconds after which a contestant is stopped")
    parser.add_argument("--lines", action="store_true", help="of files of lines")
    parser.add_argument("--memory", type=int, help="only run ours, once, with this many rows")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orders-benchmark-") as folder, started_server(Path(folder)) as server:
        _say(machine(server))
        if given.memory is not None:
            measure_memory(server, Path(folder), given.memory)
            return
        if given.lines:
            for rows in given.rows:
                compare(server, make_case_of_lines(server, Path(folder), rows), OF_LINES, given.repeats, given.patience)
            return
        names = ["limit", "ours", *installed(given.against)]
        for rows in given.rows:
            for bad in given.bad:
                compare(server, make_case(server, Path(folder), rows, bad), names, given.repeats, given.patience)


if __name__ == "__main__":
    main()

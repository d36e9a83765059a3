"""The benchmark of dropped files: what Dagster adds to a file's way, whether a small one waits for big ones, and how fast
runs of many are requested.

    python -m orders_pipeline_tests.benchmarks.dropping --rows 10000 --files 5
    python -m orders_pipeline_tests.benchmarks.dropping crowd --rows 10000 --files 10 --small 100
    python -m orders_pipeline_tests.benchmarks.dropping together --rows 10 --files 40

Everything runs as `orders-pipeline up` starts it. Alone, a file's seconds are read from the events of its run: what passed
less what our own steps took is Dagster's; services notify in bulk there. In a crowd the services take 50 ms and one
notification a call, so that all batches want more of them than there is. Together, files come twice: Dagster's daemon is
new at the first time. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeAlias

import dagster as dg
from pydantic import SecretStr

from orders_pipeline.infrastructure.database_url import dagster_url
from orders_pipeline.orchestration.dagster_records import SCHEMA, dagster_instance
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.system.settings import Settings
from orders_pipeline_tests.benchmarks.intake import machine, started_server
from orders_pipeline_tests.benchmarks.settlement import CLIENT, started_services
from orders_pipeline_tests.support.commands import end, free_port, start, wait_for

LOADED = "orders"  # the step after which the rows are in the database
PATIENCE_S = 900.0
Rows: TypeAlias = list[tuple[object, ...]]


@dataclass(frozen=True)
class Way:
    """A file's seconds, from the moment it lay in the landing."""

    until_seen: float
    loading: float
    of_loading_ours: float
    whole: float
    of_whole_ours: float

    def row(self) -> list[float]:
        """Return what a line of the table says: seen, Dagster's and our part until loaded, and of the whole."""
        until_loaded, to_the_end = self.loading - self.of_loading_ours, self.whole - self.of_whole_ours
        return [self.until_seen, until_loaded, self.of_loading_ours, to_the_end, self.of_whole_ours]


def drop(instance: dg.DagsterInstance, landing: Path, rows: int, number: int) -> Way:
    """Put a file into the landing, wait for its run's end and return what its events say."""
    write_sample(landing / ".being-written", rows=rows, seed=number)
    dropped = time.time()
    (landing / ".being-written").rename(landing / f"{number}.csv")
    ended = dg.RunsFilter(job_name="process_batch", statuses=[dg.DagsterRunStatus.SUCCESS])
    wait_for(lambda: instance.get_runs_count(ended) == number, f"the run of file {number}", PATIENCE_S)
    (record,) = instance.get_run_records(ended, limit=1)
    seen = record.create_timestamp.timestamp()
    started: dict[str, float] = {}
    ours = loading = of_loading_ours = 0.0
    for entry in instance.all_logs(record.dagster_run.run_id):
        event = entry.dagster_event
        if event is not None and event.step_key and event.is_step_start:
            started[event.step_key] = entry.timestamp
        elif event is not None and event.step_key and event.is_step_success:
            ours += entry.timestamp - started[event.step_key]
            if event.step_key == LOADED:
                loading, of_loading_ours = entry.timestamp - seen, ours
    assert record.end_time is not None
    return Way(seen - dropped, loading, of_loading_ours, record.end_time - seen, ours)


def alone(landing: Path, instance: dg.DagsterInstance, rows: int, files: int) -> None:
    """Drop one file after the other and print what each took."""
    first, *others = (drop(instance, landing, rows, number + 1) for number in range(files + 1))
    head = ["seen after", "Dagster until loaded", "our steps", "Dagster in all", "our steps in all"]
    middle = [median(column) for column in zip(*(way.row() for way in others), strict=True)]
    lines = [("first file", first.row()), *((f"file {n}", way.row()) for n, way in enumerate(others, 2))]
    _say(f"\nFiles of {rows:,} rows, seconds\n")
    _say(f"| | {' | '.join(head)} |\n|{'---|' * (len(head) + 1)}")
    for title, row in [*lines, ("median but the first", middle)]:
        _say(f"| {title} | {' | '.join(f'{seconds:.1f}' for seconds in row)} |")


def crowd(landing: Path, rows_of: Callable[[str], Rows], rows: int, files: int, small: int) -> None:
    """Drop a small file by itself, and again behind big ones that all lie there before it; print what it took."""

    def finished() -> set[str]:
        return {str(name) for (name,) in rows_of("SELECT csv_source FROM batches WHERE finished_at IS NOT NULL")}

    def until_finished(name: str, seed: int) -> float:
        write_sample(landing / ".being-written", rows=small, bad=0.0, seed=seed)
        dropped = time.monotonic()
        (landing / ".being-written").rename(landing / name)
        wait_for(lambda: name in finished(), f"the end of {name}", PATIENCE_S)
        return time.monotonic() - dropped

    until_finished("first.csv", 1)  # waits for libraries
    by_itself = until_finished("alone.csv", 2)
    for number in range(files):
        write_sample(landing / f"big{number}.csv", rows=rows, bad=0.0, seed=10 + number)
    paying = "SELECT 1 FROM payments p JOIN batches b USING (batch_id) WHERE b.csv_source LIKE 'big%' LIMIT 1"
    wait_for(lambda: bool(rows_of(paying)), "a big file that is being paid", PATIENCE_S)
    beside = until_finished("small.csv", 3)
    states = rows_of("SELECT status, count(*) FROM batches WHERE csv_source LIKE 'big%' GROUP BY 1 ORDER BY 1")
    then = ", ".join(f"{count} {status}" for status, count in states)
    _say(f"\nA file of {small:,} rows, from the landing to its last report: {by_itself:.1f} s by itself, {beside:.1f} s")
    _say(f"behind {files} of {rows:,} rows, of which then were: {then}")


def together(landing: Path, instance: dg.DagsterInstance, rows: int, files: int) -> None:
    """Drop many files at once, twice, and print how long it takes until each has a run."""
    ended = dg.RunsFilter(job_name="process_batch", statuses=[dg.DagsterRunStatus.SUCCESS])

    def drop_all(title: str, before: int) -> None:
        for number in range(before, before + files):
            write_sample(landing / f"{number}.csv", rows=rows, seed=number + 1)
        wait_for(lambda: instance.get_runs_count(ended) == before + files, f"the runs of {title} files", PATIENCE_S)
        created = sorted(each.create_timestamp.timestamp() for each in instance.get_run_records(ended, limit=files))
        seconds = created[-1] - created[0]
        _say(f"{title}: {files} runs are requested in {seconds:.1f} s, {(files - 1) / seconds:.1f} a second")

    drop_all("first", 0)
    drop_all("more", files)


def main() -> None:
    """Read the command line, start everything, drop the files and print what came of them."""
    parser = argparse.ArgumentParser(description="Measure what becomes of dropped files.")
    parser.add_argument("what", choices=["alone", "crowd", "together"], nargs="?", default="alone")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=5, help="alone: after the first, which waits for libraries")
    parser.add_argument("--small", type=int, default=100, help="rows of the file in the crowd")
    given = parser.parse_args()
    services_are = (50.0,) if given.what == "crowd" else (0.0, "--bulk")
    with (
        tempfile.TemporaryDirectory(prefix="orders-benchmark-") as name,
        started_server(Path(name)) as server,
        started_services(*services_are) as services,
        server.clone() as database,
    ):
        home, url = Path(name) / "home", server.named(database)
        settings = {
            "ORDERS_HOME": str(home),
            "ORDERS_DATABASE_URL": url,
            "ORDERS_PAYMENT_URL": services.url,
            "ORDERS_NOTIFICATION_URL": services.url,
        }
        process = start(settings, "up", "--port", str(free_port()), "--json")
        try:
            assert process.stdout is not None
            landing = Path(json.loads(process.stdout.readline())["landing"]).parent.parent / CLIENT
            landing.mkdir(parents=True)
            _say(machine(server))
            if given.what == "crowd":
                crowd(landing, lambda query: server.run(database, query), given.rows, given.files, given.small)
                return
            os.environ["DAGSTER_PG_URL"] = dagster_url(SecretStr(url), SCHEMA).get_secret_value()
            with dagster_instance(Settings(home=home)) as instance:
                {"alone": alone, "together": together}[given.what](landing, instance, given.rows, given.files)
        finally:
            process.send_signal(signal.SIGINT)
            end(process)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

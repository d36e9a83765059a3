"""The benchmark of much of everything: workers, files in the landing, partitions on Dagster's pages.

    python -m orders_pipeline_tests.benchmarks.scale workers --workers 1 2 4 --files 12 --rows 20000
    python -m orders_pipeline_tests.benchmarks.scale landing --clients 1000 --files 100000 --store folder s3
    python -m orders_pipeline_tests.benchmarks.scale partitions --partitions 1 10000 90000

Workers of Celery with a slot each stage, validate and load files that then wait for approval, so that no service is called;
all of it is on this machine, the bucket too. A look is at a landing whose files are new, have waited, and are known. The
bucket is moto's, in a process of its own, which lists it slowly: of a look there, what our own process takes counts.
Partitions are counted in bytes of what a browser gets that opens a page of Dagster's web server. Prints Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import boto3
import dagster as dg
from playwright.sync_api import Browser, Request, sync_playwright
from pydantic import SecretStr

from orders_pipeline.batches.run_processes import offered_slots
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_url import dagster_url
from orders_pipeline.intake.landing.arrivals import register_arrivals
from orders_pipeline.intake.landing.decision import LEAST_AGE_S
from orders_pipeline.orchestration.dagster_records import SCHEMA, dagster_instance
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.security.encryption import new_key
from orders_pipeline.system.composition import open_landing
from orders_pipeline.system.settings import Settings
from orders_pipeline_tests.benchmarks.behind import NO_SERVICE
from orders_pipeline_tests.benchmarks.intake import Server, machine, started_server
from orders_pipeline_tests.support.commands import end, free_port, start, wait_for
from orders_pipeline_tests.support.hosts import open_broker
from orders_pipeline_tests.support.s3_server import open_s3

CLIENT = "acme"
WAITS = f'[{CLIENT}]\napproval = "always"\n'
PATIENCE_S = 1200.0
LOADED = "SELECT count(*) FROM batches WHERE status = 'awaiting_approval'"
TAKEN = """
SELECT max(end_time) - min(start_time), percentile_cont(0.5) WITHIN GROUP (ORDER BY end_time - start_time)
FROM dagster.runs WHERE status = 'SUCCESS'
"""
OBJECT = b"client_order_ref\nx\n"
BUCKET = "orders-benchmark"


# --- workers ----------------------------------------------------------------------------------------------------------


def workers(server: Server, folder: Path, counts: Sequence[int], files: int, rows: int) -> None:
    """Have so many workers load the same files, and print what they reach beside the first of them."""
    _say(f"\n{files} files of {rows:,} rows, staged, validated and loaded\n")
    _say("| workers | from the first run's start to the last one's end | rows a second | of the first | a run, median |")
    _say("|---|---|---|---|---|")
    first = 0.0
    for count in counts:
        whole_s, run_s = _loaded_by(server, folder / str(count), count, files, rows)
        rate = files * rows / whole_s
        first = first or rate
        _say(f"| {count} | {whole_s:.1f} s | {rate:,.0f} | {rate / first:.2f} | {run_s:.1f} s |")


def _loaded_by(server: Server, folder: Path, count: int, files: int, rows: int) -> tuple[float, float]:
    """Return how long the files took from the first run's start to the last one's end, and a run's median."""
    folder.mkdir()
    (folder / "clients.toml").write_text(WAITS)
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(open_broker(folder / "broker"))
        name, endpoint = stack.enter_context(server.clone()), stack.enter_context(_bucket())
        shared = {
            "ORDERS_DATABASE_URL": server.named(name),
            "ORDERS_STORAGE_URL": f"s3://{BUCKET}",
            "ORDERS_S3_ENDPOINT_URL": endpoint,
            "ORDERS_CLIENTS_FILE": str(folder / "clients.toml"),
            "ORDERS_ENCRYPTION_KEYS": new_key(),
            "ORDERS_PAYMENT_URL": NO_SERVICE,
            "ORDERS_NOTIFICATION_URL": NO_SERVICE,
            "ORDERS_RUN_LAUNCHER": "celery",
            "ORDERS_CELERY_BROKER": broker.url,
            "ORDERS_MAX_CONCURRENT_RUNS": str(count + 1),  # a place is kept for small files
            "ORDERS_MAX_ROWS": str(rows),
        }
        stack.enter_context(_running(shared, folder / "daemon", "daemon"))
        for number in range(count):
            stack.enter_context(_running(shared, folder / f"worker{number}", "worker", "--slots", "1"))
        database = stack.enter_context(contextlib.closing(Database(SecretStr(server.named(name)))))
        wait_for(lambda: len(offered_slots(database)) == count, "the workers", PATIENCE_S)
        for number in range(files):
            write_sample(folder / "orders.csv", rows=rows, bad=0.0, seed=number)
            body = (folder / "orders.csv").read_bytes()
            boto3.client("s3", endpoint_url=endpoint).put_object(
                Bucket=BUCKET, Key=f"landing/{CLIENT}/{number}.csv", Body=body
            )
        wait_for(lambda: server.run(name, LOADED) == [(files,)], "the last file", PATIENCE_S)
        time.sleep(3)  # its run ends
        [(whole_s, run_s)] = server.run(name, TAKEN)
        return float(str(whole_s)), float(str(run_s))


@contextlib.contextmanager
def _running(shared: dict[str, str], home: Path, *command: str) -> Iterator[None]:
    with home.with_suffix(".log").open("wb") as output:
        process = start(shared | {"ORDERS_HOME": str(home)}, *command, output=output)
    try:
        yield
    finally:
        process.terminate()
        end(process)


# --- the landing ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """A look at the landing: what it took, and whether a round was complete with it."""

    seconds: float
    of_our_process: float
    registered: int
    completes_a_round: bool


def landing(server: Server, folder: Path, clients: int, files: int, store: str) -> None:
    """Look through a landing of many files, and print how long that takes."""
    names = [f"client-{number % clients:04}/orders-{number // clients:04}.csv" for number in range(files)]
    _say(f"\n{files:,} files of {clients:,} clients, {store}\n")
    _say("| files | looks a round | a look, median | longest | of it our process | registered a look | most memory |")
    _say("|---|---|---|---|---|---|---|")
    with server.clone() as name, _filled(folder, store, names) as settings:
        url = SecretStr(server.named(name))
        for title, looks in (("new", None), ("have waited", 20), ("known", None)):
            if title == "have waited":
                time.sleep(LEAST_AGE_S)
            if title == "known":
                server.run(name, "UPDATE landing_files SET batch_id = (SELECT min(batch_id) FROM batches)")
                server.run(name, "DELETE FROM landing_position")
            found, memory_mb = _in_a_process(settings | {"database_url": url}, looks)
            times, registered = [each.seconds for each in found], [each.registered for each in found]
            ours = max(found, key=lambda look: look.seconds).of_our_process
            a_round = f"{len(found)}" if looks is None else "–"
            _say(
                f"| {title} | {a_round} | {median(times):.2f} s | {max(times):.2f} s | {ours:.2f} s"
                f" | {median(registered):.0f} | {memory_mb:.0f} MB |"
            )


@contextlib.contextmanager
def _filled(folder: Path, store: str, names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Give the settings of a landing in which so many files are."""
    home = {"home": folder / "home"}
    if store == "folder":
        root = folder / "landing"
        for client in {name.partition("/")[0] for name in names}:
            (root / client).mkdir(parents=True)
        for name in names:
            (root / name).write_bytes(OBJECT)
        yield home | {"landing_url": str(root)}
        shutil.rmtree(root)
        return
    with _bucket([f"landing/{name}" for name in names]) as endpoint:
        yield home | {"landing_url": f"s3://{BUCKET}/landing", "s3_endpoint_url": endpoint}


@contextlib.contextmanager
def _bucket(keys: Sequence[str] = ()) -> Iterator[str]:
    """Serve a bucket in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_serve_bucket, args=(theirs, keys))
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("")
        process.join()


def _serve_bucket(asked: Connection, keys: Sequence[str]) -> None:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with open_s3() as harness:
        harness.raw.create_bucket(Bucket=BUCKET)
        harness.fill(BUCKET, keys, OBJECT)
        asked.send(harness.server_url)
        asked.recv()


def _in_a_process(settings: dict[str, object], looks: int | None) -> tuple[list[Look], float]:
    """Return so many looks, or those of a round, and what a process needs for them that does nothing else."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_look, args=(theirs, settings, looks))
    process.start()
    found: tuple[list[Look], float] = ours.recv()
    process.join()
    return found


def _look(told: Connection, settings: dict[str, object], looks: int | None) -> None:
    given = Settings(**settings)  # type: ignore[arg-type]
    assert given.database_url is not None
    with contextlib.closing(Database(given.database_url)) as database:
        store, found = open_landing(given), []
        while looks is None or len(found) < looks:
            began, cpu = time.perf_counter(), time.process_time()
            registered = len(register_arrivals(database, store))
            took = time.perf_counter() - began, time.process_time() - cpu
            with database.begin() as transaction:
                found.append(Look(*took, registered, not transaction.scalar("landing_position")))
            if looks is None and found[-1].completes_a_round:
                break
    told.send((found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


# --- partitions -------------------------------------------------------------------------------------------------------

ADD_PARTITIONS = """
INSERT INTO dagster.dynamic_partitions (partitions_def_name, partition)
SELECT 'batch_id', '20260101-' || lpad(to_hex(n), 12, '0') FROM generate_series(1, {count}) AS n ON CONFLICT DO NOTHING
"""
ADD_EVENTS = """
INSERT INTO dagster.event_logs (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)
SELECT run_id, event, dagster_event_type, timestamp, step_key, asset_key, partitions.partition
FROM dagster.event_logs CROSS JOIN dagster.dynamic_partitions AS partitions
WHERE event_logs.id = (SELECT max(id) FROM dagster.event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION')
  AND partitions.partition NOT IN (SELECT partition FROM dagster.event_logs WHERE partition IS NOT NULL)
"""
LOCATION = "/locations/orders_pipeline.definitions"
PAGES = {
    "an asset's partitions": "/assets/orders?view=partitions",
    "the job's partitions": f"{LOCATION}/jobs/process_batch/partitions",
}
PAGE_S = 75.0  # in which a page has asked for all that it shows


def partitions(server: Server, folder: Path, counts: Sequence[int]) -> None:
    """Open Dagster's pages in a browser while there are so many partitions, and print how much it was answered."""
    _say("\nPartitions, each materialised once: what its pages are answered, and until when\n")
    _say(f"| | {' | '.join(PAGES)} |\n|{'---|' * (len(PAGES) + 1)}")
    with server.clone() as name, contextlib.ExitStack() as stack:
        port, url = free_port(), server.named(name)
        shared = {"ORDERS_DATABASE_URL": url, "ORDERS_PAYMENT_URL": NO_SERVICE, "ORDERS_NOTIFICATION_URL": NO_SERVICE}
        stack.enter_context(_running(shared, folder / "web", "web", "--port", str(port)))
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        base = f"http://127.0.0.1:{port}"
        wait_for(lambda: _is_served(base), "the web server", PATIENCE_S)
        _materialise(folder / "web", url)
        for count in counts:
            server.run(name, ADD_PARTITIONS.format(count=count))
            server.run(name, ADD_EVENTS)
            server.run(name, "UPDATE dagster.asset_keys SET cached_status_data = NULL")
            found = [_opened(browser, f"{base}{page}") for page in PAGES.values()]
            _say(f"| {count:,} | {' | '.join(found)} |")


def _is_served(base: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(urllib.request.urlopen(f"{base}/server_info", timeout=5).status == 200)
    return False


def _materialise(home: Path, url: str) -> None:
    """Record that one batch's orders were loaded."""
    os.environ["DAGSTER_PG_URL"] = dagster_url(SecretStr(url), SCHEMA).get_secret_value()
    with dagster_instance(Settings(home=home)) as instance:
        instance.add_dynamic_partitions("batch_id", ["20260101-0"])
        instance.report_runless_asset_event(dg.AssetMaterialization("orders", partition="20260101-0"))


def _opened(browser: Browser, address: str) -> str:
    """Open a page and return what it was answered: bytes as they came, and the seconds until the last it waited for."""
    page, answered = browser.new_page(), dict[str, tuple[Request, float]]()

    def note(request: Request) -> None:
        if "/graphql" in request.url:  # some is asked again and again
            answered.setdefault(request.post_data or "", (request, time.monotonic() - began))

    page.on("requestfinished", note)
    began = time.monotonic()
    page.goto(address)
    page.wait_for_timeout(PAGE_S * 1000)
    size = sum(request.sizes()["responseBodySize"] for request, _ in answered.values())
    page.close()
    return f"{size / 1e6:.2f} MB, {max(at for _, at in answered.values()):.1f} s"


# --- the command line -------------------------------------------------------------------------------------------------


def main() -> None:
    """Read the command line and run what it asks for."""
    parser = argparse.ArgumentParser(description="Measure workers, a landing or partitions.")
    parser.add_argument("what", choices=["workers", "landing", "partitions"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--files", type=int)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--store", choices=["folder", "s3"], nargs="+", default=["folder", "s3"])
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 10_000, 90_000])
    given = parser.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    with tempfile.TemporaryDirectory(prefix="orders-benchmark-") as name, started_server(Path(name)) as server:
        _say(machine(server))
        if given.what == "workers":
            workers(server, Path(name), given.workers, given.files or 12, given.rows)
        elif given.what == "landing":
            for store in given.store:
                landing(server, Path(name), given.clients, given.files or 100_000, store)
        else:
            partitions(server, Path(name), given.partitions)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

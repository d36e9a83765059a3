"""The settlement benchmark: how much of what the services can take is used, and what that makes of the way of before.

    python -m orders_pipeline_tests.benchmarks.settlement payments --latency-ms 5 50 200
    python -m orders_pipeline_tests.benchmarks.settlement notifications --sends 10000 --processes 8
    python -m orders_pipeline_tests.benchmarks.settlement whole --rows 10000

The database is a real server, the services are a sandbox process with a ledger of its own, which is compared at the end.
Ratios are to what the services allow, or to a contestant of the same run. Prints Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from orders_pipeline.batches.workers import worker_session
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.intake import file_import, steps
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.settlement.batch_settlement import Settlement, settling
from orders_pipeline.settlement.notifications.plan import make_ready, plan_notifications
from orders_pipeline.settlement.payments import settle
from orders_pipeline.settlement.payments.ledger import PaymentLedger
from orders_pipeline.system.composition import Endpoints, System, open_system
from orders_pipeline.system.settings import Settings
from orders_pipeline_tests.benchmarks.intake import Server, machine, started_server

COMMAND = [sys.executable, "-c", "from orders_pipeline.cli import main; main()"]
CONCURRENCY = 32
RATE_PER_S = 10
CLIENT = "acme"


class WrongBooks(Exception):
    """The services' ledger does not say what ours says."""


@dataclass(frozen=True)
class Services:
    """The sandbox, a process of its own."""

    url: str

    def ledger(self) -> dict[str, dict[str, int]]:
        with urllib.request.urlopen(f"{self.url}/sandbox/ledger") as answer:
            found: dict[str, dict[str, int]] = json.load(answer)
        return found


@contextlib.contextmanager
def started_services(latency_ms: float, *options: str) -> Iterator[Services]:
    """Give services that take their time over each call; they are gone at the end."""
    command = [*COMMAND, "sandbox", "--port", "0", "--latency-ms", str(latency_ms), *options, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Services(json.loads(process.stdout.readline())["url"])
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def opened(url: str, services: Services, home: Path, **settings: Any) -> Iterator[System]:
    """Give a system over a database and services."""
    given = Settings(home=home, database_url=SecretStr(url), max_rows=10**7, max_bytes=10**10, **settings)
    with open_system(given, Endpoints(SecretStr(url), services.url, services.url)) as system:
        yield system


def loaded_batch(system: System, folder: Path, rows: int) -> str:
    """Take a file in and return its batch."""
    path = folder / f"{uuid.uuid4().hex}.csv"
    write_sample(path, rows=rows, bad=0.0, seed=1)
    batch_id = file_import.import_file(system, path, CLIENT, again=False)
    for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
        step(system, batch_id)
    return batch_id


# --- payments ---------------------------------------------------------------------------------------------------------


def payments(server: Server, folder: Path, latencies_ms: Sequence[float], seconds: float, repeats: int) -> None:
    """Compare payments a second with what concurrency and latency allow, beside calls that nothing is written down of."""
    _say(f"\nPayments, {CONCURRENCY} in flight, {repeats} runs each (medians)\n")
    _say("| latency | allowed a second | ours | of the allowed | bare calls, of the allowed |")
    _say("|---|---|---|---|---|")
    for latency_ms in latencies_ms:
        allowed = CONCURRENCY / (latency_ms / 1000)
        count = int(min(allowed * seconds, 20_000))
        ours, bare = [], []
        for _ in range(repeats):
            bare.append(_bare_rate(latency_ms, count) / allowed)
            ours.append(_payment_rate(server, folder, latency_ms, count) / allowed)
        rate = median(ours) * allowed
        _say(f"| {latency_ms:g} ms | {allowed:.0f} | {rate:.0f} | {median(ours):.0%} | {median(bare):.0%} |")


def _payment_rate(server: Server, folder: Path, latency_ms: float, count: int) -> float:
    with started_services(latency_ms) as services, server.clone() as name:
        with opened(server.named(name), services, folder / name) as system:
            batch_id = loaded_batch(system, folder, count)
            settle.plan_batch(system.database, system.cipher, batch_id, Profile(payments="per_order"))
            with worker_session(system.database, batch_id, None) as worker:
                ledger = PaymentLedger(
                    system.database,
                    system.cipher,
                    worker,
                    system.payments.capabilities,
                    make_ready,
                    concurrency=CONCURRENCY,
                )
                started = time.perf_counter()
                settle.settle_batch(ledger, system.payments, threading.Event())
                took = time.perf_counter() - started
        [(paid, yen)] = server.run(name, "SELECT count(*), sum(amount)::bigint FROM payments WHERE status = 'succeeded'")
        booked = services.ledger()["payments"]
        if (booked["succeeded"], booked["amount_jpy"]) != (paid, yen) or paid != count:
            raise WrongBooks(f"{paid} payments of {yen} yen here, {booked} there")
        return count / took


def _bare_rate(latency_ms: float, count: int) -> float:
    """Return how many such calls a second the machine can make at all: the same bodies, one connection a thread."""
    with started_services(latency_ms) as services, ThreadPoolExecutor(CONCURRENCY) as pool:
        address = urlsplit(services.url)
        local = threading.local()

        def pay(number: int) -> None:
            if not hasattr(local, "connection"):
                local.connection = http.client.HTTPConnection(str(address.hostname), address.port)
            reference = str(uuid.uuid4())
            body = {
                "amount": 1000,
                "currency": "JPY",
                "customer_code": "C-1",
                "reference": reference,
                "payment_method": {"type": "invoice"},
                "allocations": [{"order_id": str(number), "amount": 1000}],
            }
            headers = {"Content-Type": "application/json", "Idempotency-Key": reference}
            local.connection.request("POST", "/v1/payments", json.dumps(body), headers)
            local.connection.getresponse().read()

        started = time.perf_counter()
        list(pool.map(pay, range(count)))
        return count / (time.perf_counter() - started)


# --- notifications ----------------------------------------------------------------------------------------------------


def notifying(server: Server, folder: Path, sends: int, processes: int, latency_ms: float, *, busy: bool) -> None:
    """Send notifications from several processes and compare with what the limit allows: 10 every 1 second + latency."""
    allowed = RATE_PER_S / (1 + latency_ms / 1000)
    with started_services(latency_ms) as services, server.clone() as name:
        with opened(server.named(name), services, folder / name) as system:
            batch_id = loaded_batch(system, folder, sends)
            plan_notifications(system.database, system.cipher, batch_id, Profile(notifications="per_order"))
        server.run(name, "UPDATE orders SET status = 'paid'")
        [(planned,)] = server.run(name, "SELECT count(*) FROM notifications")
        context = multiprocessing.get_context("spawn")
        burning = [context.Process(target=_burn, daemon=True) for _ in range(os.cpu_count() or 1 if busy else 0)]
        arguments = (server.named(name), services, folder / name, batch_id)
        workers = [context.Process(target=_notify, args=arguments) for _ in range(processes)]
        for process in (*burning, *workers):
            process.start()
        for process in workers:
            process.join()
        for process in burning:
            process.terminate()
        [(sent,)] = server.run(name, "SELECT count(*) FROM notifications WHERE status = 'sent'")
        [(took,)] = server.run(
            name, "SELECT extract(epoch FROM max(settled_at) - min(settled_at))::float FROM notifications"
        )
        told = services.ledger()["notifications"]
    if not planned == sent == told["sent"] or told["duplicates"]:
        raise WrongBooks(f"{planned} planned, {sent} sent here, {told} there")
    rate = (sent - RATE_PER_S) / float(str(took))  # the first ones leave at once
    _say(f"\n{sent:,} notifications by {processes} processes, {latency_ms:g} ms{', all cores busy' if busy else ''}:")
    _say(f"{rate:.2f} a second, {rate / allowed:.1%} of {allowed:.2f}; at most {told['worst_window']} calls in any second")


def _notify(url: str, services: Services, home: Path, batch_id: str) -> None:
    profile = Profile(notifications="per_order")
    with opened(url, services, home) as system, worker_session(system.database, batch_id, None) as worker:
        settlement = Settlement(system, worker, profile)
        settlement.finish_notifying()
        settlement.close()


def _burn() -> None:
    while True:
        sum(range(10_000))


# --- the whole way ----------------------------------------------------------------------------------------------------


def whole(server: Server, folder: Path, rows: int, latency_ms: float, sample: int) -> None:
    """Compare a file's way from bytes to the last notification with one call after another, order by order."""
    with started_services(latency_ms) as services:
        each_s = _legacy_seconds(services, sample)
    legacy = f"one call after another: {each_s * 1000:.0f} ms an order ({sample} orders), so {each_s * rows:,.0f} s"
    _say(f"\n{rows:,} orders, services that take {latency_ms:g} ms a call\n\n- {legacy}")
    for options, words in (((), "ours, a call for each digest"), (("--bulk",), "ours, 100 notifications in a call")):
        with started_services(latency_ms, *options) as services, server.clone() as name:
            with opened(server.named(name), services, folder / name) as system:
                started = time.perf_counter()
                batch_id = loaded_batch(system, folder, rows)
                loaded_s = time.perf_counter() - started
                with settling(system, batch_id, None) as work:
                    assert work is not None
                    work.start_notifying()
                    work.pay()
                    work.finish_notifying()
                took = time.perf_counter() - started
            [(open_orders,)] = server.run(name, "SELECT count(*) FROM orders WHERE status <> 'paid'")
            told = services.ledger()["notifications"]["sent"]
        if open_orders:
            raise WrongBooks(f"{open_orders} orders are not paid")
        _say(
            f"- {words}: {took:.1f} s ({loaded_s:.1f} s until loaded, {told:,} notifications): {each_s * rows / took:.0f} x"
        )
    with started_services(latency_ms, "--bulk") as services, server.clone() as name:
        _run_seconds(server.named(name), services, folder / name, 1)  # makes Dagster's tables
        as_run = _run_seconds(server.named(name), services, folder / name, rows)
    _say(f"- the last as `import` does it, a run of Dagster with reports and reconciliation: {as_run:.1f} s")


def _run_seconds(url: str, services: Services, home: Path, rows: int) -> float:
    """Return the seconds that the command takes which runs a file's batch as Dagster's job."""
    path = home.with_suffix(f".{rows}.csv")
    write_sample(path, rows=rows, bad=0.0, seed=rows)
    settings = {
        "ORDERS_HOME": str(home),
        "ORDERS_DATABASE_URL": url,
        "ORDERS_PAYMENT_URL": services.url,
        "ORDERS_NOTIFICATION_URL": services.url,
    }
    started = time.perf_counter()
    command = [*COMMAND, "import", str(path), "--client", CLIENT, "--json"]
    subprocess.run(command, env=os.environ | settings, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _legacy_seconds(services: Services, orders: int) -> float:
    """Return the seconds an order takes where each is paid and notified by itself, as fast as the limit lets one caller."""
    address = urlsplit(services.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port)

    def call(path: str, body: dict[str, Any]) -> None:
        while True:
            headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 429:
                return
            time.sleep(0.1)

    started = time.perf_counter()
    for number in range(orders):
        reference = str(uuid.uuid4())
        payment: dict[str, Any] = {
            "amount": 1000,
            "currency": "JPY",
            "customer_code": "C-1",
            "reference": reference,
            "payment_method": {"type": "invoice"},
            "allocations": [{"order_id": str(number), "amount": 1000}],
        }
        recipient = {"customer_code": "C-1", "address": "customer@example.com"}
        message = {"template_id": "order-result", "channel": "email", "recipient": recipient, "dedupe_key": reference}
        call("/v1/payments", payment)
        call("/v1/notifications", message)
    return (time.perf_counter() - started) / orders


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the command line and run what it asks for."""
    parser = argparse.ArgumentParser(description="Measure how much of what the services can take is used.")
    parser.add_argument("what", choices=["payments", "notifications", "whole"])
    parser.add_argument("--latency-ms", type=float, nargs="+", default=[50.0])
    parser.add_argument("--seconds", type=float, default=10.0, help="how long a run of payments would take at best")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sends", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--busy", action="store_true", help="keep all cores busy meanwhile")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=200, help="orders sent one call after another")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orders-benchmark-") as name, started_server(Path(name)) as server:
        _say(machine(server))
        if given.what == "payments":
            payments(server, Path(name), given.latency_ms, given.seconds, given.repeats)
        elif given.what == "notifications":
            notifying(server, Path(name), given.sends, given.processes, given.latency_ms[0], busy=given.busy)
        else:
            whole(server, Path(name), given.rows, given.latency_ms[0], given.sample)


if __name__ == "__main__":
    main()

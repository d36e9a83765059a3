"""A run that only waits for the rate of notifications leaves its place to a file that nobody has begun with, once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._daemon.types import DaemonHeartbeat

from orders_pipeline.batches.run_tags import RESUMES, WAITS_FOR_RATE
from orders_pipeline.definitions import defs
from orders_pipeline.orchestration import places, runs
from orders_pipeline.settlement import sweep
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation, check_books, check_finished
from orders_pipeline_tests.support.order_file import OrderFile

PLACES = 3
ORDERS = 40  # each of a customer of its own: four seconds of notifications
OF_A_SENSOR = {"dagster/sensor_name": "landing_sensor"}
JOB = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("somewhere"), "__repository__").get_job_origin("process_batch")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, installation: Installation) -> None:
    monkeypatch.setattr(places, "POLL_S", 0.1)
    monkeypatch.setattr(places, "WORTHWHILE_S", 0.5)
    monkeypatch.setattr(places, "TURN_S", 0.5)
    installation.instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "QUEUED_RUN_COORDINATOR", "a daemon", None))


def received(installation: Installation, tmp_path: Path, client: str) -> str:
    file = OrderFile("utf-8")
    for number in range(ORDERS):
        file.add(
            order_row(client_order_ref=f"{client}-{number}", customer_code=f"{client}-{number}", notify_channel="email")
        )
    path = tmp_path / f"{client}.csv"
    path.write_text(file.text, "utf-8")
    batch_id = installation.receive(path, client)
    installation.instance.add_dynamic_partitions("batch_id", [batch_id])
    return batch_id


def process(installation: Installation, batch_id: str, tags: dict[str, str]) -> set[str]:
    """Run the job for a batch as if it had been in the queue, and return the assets that it made."""
    ended = defs.resolve_job_def("process_batch").execute_in_process(
        instance=installation.instance,
        partition_key=batch_id,
        resources={"system": installation.system},
        run_config=runs.QUIET,
        tags=tags,
    )
    return {event.asset_key.to_user_string() for event in ended.all_events if event.is_step_materialization}


@contextlib.contextmanager
def queued(installation: Installation, tags: dict[str, str]) -> Iterator[None]:
    """Let a run wait in the queue meanwhile, as all places but one have others."""
    job, instance = defs.resolve_job_def("process_batch"), installation.instance
    others = [instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED) for _ in range(PLACES - 1)]
    waiting = instance.create_run_for_job(job, status=dg.DagsterRunStatus.QUEUED, tags=tags, remote_job_origin=JOB)
    try:
        yield
    finally:
        for run in (*others, waiting):
            instance.delete_run(run.run_id)


def test_all_is_paid_and_the_rest_is_notified_by_a_later_run(installation: Installation, tmp_path: Path) -> None:
    batch_id = received(installation, tmp_path, "places-left")
    with queued(installation, OF_A_SENSOR):
        made = process(installation, batch_id, OF_A_SENSOR)
    summary = installation.summary(batch_id)
    assert "payments" in made
    assert not made & {"notifications", "batch_report"}
    assert (summary["status"], summary["orders"]["paid"]) == ("paying", ORDERS)
    assert summary["notifications"]["sent"] < ORDERS
    (ended,) = installation.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": batch_id}))
    assert ended.is_success
    assert WAITS_FOR_RATE.items() <= ended.tags.items()
    stalled = {row.batch_id: row.run_requests for row in sweep.stalled_batches(installation.system.database)}
    assert stalled[batch_id] == 0  # a run that gave its place is none that failed
    assert {"notifications", "batch_report"} <= process(installation, batch_id, OF_A_SENSOR | RESUMES)
    assert check_finished(installation, batch_id)["notifications"]["sent"] == ORDERS
    check_books(installation, batch_id)


@pytest.mark.parametrize(
    ("own", "others"), [({}, OF_A_SENSOR), (OF_A_SENSOR, RESUMES), (OF_A_SENSOR, {"orders/size": "large"})]
)
def test_it_keeps_its_place_where_it_has_none_to_give_or_nobody_new_would_be_helped(
    installation: Installation, tmp_path: Path, own: dict[str, str], others: dict[str, str]
) -> None:
    batch_id = received(installation, tmp_path, f"places-kept-{len(own)}-{len(others)}-{'orders/size' in others}")
    with queued(installation, others):
        assert {"notifications", "batch_report"} <= process(installation, batch_id, own)
    check_finished(installation, batch_id)


def test_it_keeps_its_place_where_no_daemon_would_give_it_to_others(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "SILENT_S", -1.0)
    batch_id = received(installation, tmp_path, "places-no-daemon")
    with queued(installation, OF_A_SENSOR):
        assert "batch_report" in process(installation, batch_id, OF_A_SENSOR)
    check_finished(installation, batch_id)

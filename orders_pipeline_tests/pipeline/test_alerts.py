"""Alerts of failed runs: once each, to a real server, with nothing personal; a server that takes none hurts nobody."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from orders_pipeline.batches.artifacts import ORIGINAL, artifact
from orders_pipeline.definitions import defs
from orders_pipeline.orchestration.partitions import batch_partitions
from orders_pipeline.orchestration.runs import QUIET
from orders_pipeline.orchestration.sensors import alert_sensor
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.system.composition import System
from orders_pipeline.upkeep import alerting
from orders_pipeline_tests.support.installation import Installation
from orders_pipeline_tests.support.receiver import Receiver, crawling, receiving


class Daemon:
    """What asks the sensor again and again, as Dagster's daemon does."""

    def __init__(self, installation: Installation, **settings: object) -> None:
        self._installation, self._cursor = installation, None
        self._system: System = dataclasses.replace(
            installation.system, settings=installation.system.settings.model_copy(update=settings)
        )
        self.look()

    def look(self) -> Any:
        context = dg.build_sensor_context(
            instance=self._installation.instance,
            resources={"system": self._system},
            cursor=self._cursor,
            repository_def=defs.get_repository_def(),
        )
        tick = alert_sensor.evaluate_tick(context)
        self._cursor = tick.cursor
        return tick


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as opened:
        yield opened


@pytest.fixture
def daemon(installation: Installation, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    monkeypatch.setattr(alerting, "PAUSE_S", 0.0)
    return Daemon(installation, alert_url=SecretStr(receiver.url), dagster_url="https://dagster.example.com/")


def failed_run(installation: Installation, job: str = "reconcile", **tags: str) -> str:
    run = dg.DagsterRun(job_name=job, status=dg.DagsterRunStatus.STARTED, tags=tags)
    installation.instance.add_run(run)
    installation.instance.report_run_failed(run, "planted words")
    return run.run_id


def told(receiver: Receiver) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in receiver.got]


def test_a_run_that_failed_is_told_once_with_its_batch_code_and_link(
    installation: Installation, receiver: Receiver, daemon: Daemon, tmp_path: Path
) -> None:
    write_sample(tmp_path / "orders.csv", rows=3, seed=1, bad=0)
    batch_id = installation.receive(tmp_path / "orders.csv", "acme")
    installation.system.storage.delete(artifact(batch_id, ORIGINAL))
    installation.instance.add_dynamic_partitions(str(batch_partitions.name), [batch_id])
    ended = defs.resolve_job_def("process_batch").execute_in_process(
        instance=installation.instance,
        partition_key=batch_id,
        resources={"system": installation.system},
        run_config=QUIET,
        tags={"dagster/max_retries": "0"},
        raise_on_error=False,
    )
    assert not ended.success
    lost = failed_run(installation)
    for _ in range(2):
        daemon.look()
    of_batch, of_lost = told(receiver)
    run_id = of_batch["run_id"]
    ended = [installation.instance.get_run_record_by_id(each["run_id"]).end_time for each in (of_batch, of_lost)]  # type: ignore[union-attr]
    assert [datetime.fromisoformat(each.pop("failed_at")).timestamp() for each in (of_batch, of_lost)] == list(
        map(int, ended)
    )
    assert of_batch == {
        "event": "run.failed",
        "text": f"orders-pipeline: batch {batch_id} failed: E_STORAGE_GONE",
        "job": "process_batch",
        "batch_id": batch_id,
        "code": "E_STORAGE_GONE",
        "run_id": run_id,
        "link": f"https://dagster.example.com/runs/{run_id}",
    }
    assert of_lost == {
        "event": "run.failed",
        "text": "orders-pipeline: reconcile failed",
        "job": "reconcile",
        "batch_id": None,
        "code": None,
        "run_id": lost,
        "link": f"https://dagster.example.com/runs/{lost}",
    }
    assert {headers["content-type"] for headers, _ in receiver.got} == {"application/json"}
    assert "planted" not in str([body for _, body in receiver.got])


def test_one_that_dagster_tries_again_is_not_told(installation: Installation, receiver: Receiver, daemon: Daemon) -> None:
    failed_run(installation, **{"dagster/max_retries": "2", "dagster/will_retry": "true"})
    last = failed_run(installation)
    for _ in range(3):
        daemon.look()
    assert [each["run_id"] for each in told(receiver)] == [last]


def test_a_server_that_takes_none_is_asked_twice_and_the_next_run_is_told_all_the_same(
    installation: Installation, receiver: Receiver, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting, "TIMEOUT_S", 0.3)
    receiver.answers += [500, crawling, 503, 204]
    runs = [failed_run(installation), failed_run(installation)]
    for _ in range(2):
        daemon.look()
    assert [each["run_id"] for each in told(receiver)] == [runs[0], runs[0], runs[1], runs[1]]
    away = Daemon(installation, alert_url=SecretStr("http://127.0.0.1:9/planted"))
    failed_run(installation)
    assert "planted" not in str(away.look())
    assert installation.instance.get_run_records(limit=1)


def test_without_an_address_nothing_is_sent(installation: Installation) -> None:
    silent = Daemon(installation)
    failed_run(installation)
    assert silent.look().skip_message == "ORDERS_ALERT_URL is not set"

"""Batches that stand still: what a lost process left behind and what waited for a service goes on without a person."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEventType, DagsterRunStatus, RunsFilter
from rich.console import Console

from orders_pipeline.batches import batches
from orders_pipeline.batches.run_processes import run_process
from orders_pipeline.cli.batch_list import show_batches
from orders_pipeline.cli.console import show_summary
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.intake import steps
from orders_pipeline.orchestration import orphaned_runs, sensors
from orders_pipeline.orchestration.assets.boundary import paused
from orders_pipeline.orchestration.sensors import stalled_sensor
from orders_pipeline.reports import summaries
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.services import circuit_breaker
from orders_pipeline.settlement import sweep
from orders_pipeline.settlement.batch_settlement import settling
from orders_pipeline.settlement.payments import settle
from orders_pipeline.settlement.refunds.plan import read_plan, write_plan
from orders_pipeline.system import turns
from orders_pipeline.upkeep import cancelling
from orders_pipeline_tests.support.installation import Installation, check_finished, prepare


@pytest.fixture(autouse=True)
def _alone_and_impatient(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sweep, "PATIENCE_S", 0.0)
    monkeypatch.setattr(turns, "REMEMBERED_S", 0.0)
    monkeypatch.setattr(orphaned_runs, "BEGINNING_S", 0.0)
    yield
    installation.rows("UPDATE batches SET status = 'cancelled', finished_at = now() WHERE finished_at IS NULL")


def receive(installation: Installation, tmp_path: Path, client: str, rows: int = 20) -> str:
    path = tmp_path / "orders.csv"
    write_sample(path, rows=rows, seed=3, bad=0)
    return installation.receive(path, client)


def look(installation: Installation) -> list[dg.RunRequest]:
    """Let the sensor tick until it has seen who is idle and gone, and return what it asks for, once for each batch."""
    asked: dict[str | None, dg.RunRequest] = {}
    cursor = None
    for _ in range(2):
        context = dg.build_sensor_context(
            instance=installation.instance, resources={"system": installation.system}, cursor=cursor
        )
        result = stalled_sensor(context)
        assert isinstance(result, dg.SensorResult)
        cursor = result.cursor
        asked |= {request.partition_key: request for request in result.run_requests or []}
    return list(asked.values())


def test_a_batch_whose_process_was_lost_before_it_began_is_offered_and_finished(
    installation: Installation, tmp_path: Path
) -> None:
    batch_id = receive(installation, tmp_path, "left-behind")
    (request,) = look(installation)
    assert request.partition_key == batch_id
    assert request.tags["dagster/max_retries"] == "0"
    assert installation.run(batch_id) is None
    check_finished(installation, batch_id)
    assert look(installation) == []


def test_what_was_sent_when_a_batch_was_stopped_is_said_to_be_unanswered(installation: Installation, tmp_path: Path) -> None:
    batch_id = receive(installation, tmp_path, "unanswered", rows=3)
    for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
        step(installation.system, batch_id)
    installation.rows("UPDATE orders SET status = 'paying' WHERE batch_id = %s", batch_id)
    with installation.system.database.begin() as transaction:
        batches.stop(transaction, batch_id, "somebody")
    shown = Console(record=True, width=200, highlight=False, soft_wrap=True)
    show_summary(shown, installation.summary(batch_id))
    assert (
        "not answered   3 orders may be paid: that is found out when the batch is resumed or cancelled"
        in shown.export_text()
    )
    installation.rows("UPDATE batches SET status = 'cancelled', finished_at = now() WHERE finished_at IS NULL")


def test_a_batch_whose_run_waits_for_its_turn_is_said_to_wait(installation: Installation, tmp_path: Path) -> None:
    batch_id = receive(installation, tmp_path, "queued")
    command = f"orders-pipeline resume {batch_id}"

    def said() -> tuple[str, str]:
        """Return how the batch stands by itself and in the list of batches."""
        shown, listed = (
            Console(record=True, width=200, highlight=False, soft_wrap=True),
            Console(record=True, width=200, highlight=False, soft_wrap=True),
        )
        show_summary(shown, installation.summary(batch_id))
        show_batches(listed, summaries.recent(installation.system, 1), try_demo=False)
        return shown.export_text().split("\n")[0], listed.export_text()

    waiting = f"it is not being processed: resumes under `up` or `daemon`, or with: {command}"
    assert waiting in said()[0]
    assert "received, not being processed" in said()[1]
    installation.instance.add_dynamic_partitions("batches", [batch_id])
    job = dg.GraphDefinition("process_batch").to_job()
    run = installation.instance.create_run_for_job(job_def=job, tags={"dagster/partition": batch_id})
    assert (
        f"received, not started; its run waits for its turn: resumes under `up` or `daemon`, or with: {command}" in said()[0]
    )
    assert "received, queued" in said()[1]
    installation.instance.report_run_failed(run)
    assert waiting in said()[0]


def test_a_batch_that_waits_for_a_service_resumes_when_it_is_back(
    installation: Installation, impatient: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(circuit_breaker, "PATIENCE_S", 0.1)
    monkeypatch.setattr(circuit_breaker, "PROBE_S", 3_600.0)
    installation.sandbox.change(faults="unavailable=1")
    batch_id = receive(installation, tmp_path, "away", rows=60)
    assert "paused" in (installation.run(batch_id) or "")
    summary = installation.summary(batch_id)
    assert (summary["status"], summary["status_code"]) == ("paused", "E_PAYMENT_UNAVAILABLE")
    (left_alone,) = summary["services_left_alone"]
    assert (left_alone["service"], left_alone["code"]) == ("payment", "unavailable")
    next_try = batches.in_japan(datetime.fromisoformat(left_alone["next_try"]))
    assert f"unavailable, next try {next_try}" in shown_of_failure(installation, batch_id).values()
    (run,) = installation.instance.get_runs(RunsFilter(tags={"dagster/partition": batch_id}))
    assert run.tags["dagster/will_retry"] == "false"  # it is this sensor that comes again, when there is a point in it
    installation.rows("UPDATE service_breakers SET probe_at = now() + interval '59 minutes' WHERE opened_at IS NOT NULL")
    assert look(installation) == []
    installation.sandbox.change(faults="")
    resting = "UPDATE service_breakers SET probe_at = now(), rest_until = now() + %s * interval '1 s' WHERE failures > 0"
    installation.rows(resting, 30.0)
    assert look(installation) == []
    installation.rows(resting, 0.0)
    installation.rows("UPDATE payments SET next_attempt_at = now() WHERE settled_at IS NULL")
    assert [request.partition_key for request in look(installation)] == [batch_id]
    assert installation.run(batch_id) is None
    check_finished(installation, batch_id)
    assert installation.summary(batch_id)["services_left_alone"] == []


def test_a_batch_that_waits_for_a_person_says_so(installation: Installation, tmp_path: Path) -> None:
    batch_id = receive(installation, tmp_path, "person")
    for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
        step(installation.system, batch_id)
    settle.plan_batch(installation.system.database, installation.system.cipher, batch_id, Profile())
    assert "resumes by itself" in (paused(installation.system, batch_id).description or "")
    installation.rows(
        "UPDATE payments SET status = 'unknown', sent_at = now(), next_attempt_at = now() + interval '100 years' "
        "WHERE batch_id = %s",
        batch_id,
    )
    assert "when a person has decided" in (paused(installation.system, batch_id).description or "")


def shown_of_failure(installation: Installation, batch_id: str) -> dict[str, object]:
    """Return what the browser shows beside the failed step of a batch's newest run."""
    (run,) = installation.instance.get_runs(RunsFilter(tags={"dagster/partition": batch_id}), limit=1)
    (failed,) = installation.instance.all_logs(run.run_id, of_type=DagsterEventType.STEP_FAILURE)
    assert failed.dagster_event is not None
    shown = failed.dagster_event.step_failure_data.user_failure_data
    assert shown is not None
    return {name: value.value for name, value in shown.metadata.items()}


def orphan(installation: Installation, batch_id: str | None, **tags: str) -> dg.DagsterRun:
    """Leave a run in Dagster's records as a host that vanished does: started, with nobody behind it."""
    if batch_id is not None:
        installation.instance.add_dynamic_partitions("batches", [batch_id])
        tags |= {"dagster/partition": batch_id}
    run = installation.instance.create_run_for_job(job_def=dg.GraphDefinition("process_batch").to_job(), tags=tags)
    installation.instance.report_engine_event("started", run)
    installation.instance.handle_run_event(
        run.run_id,
        dg.DagsterEvent(event_type_value="PIPELINE_START", job_name=run.job_name, message="started"),
    )
    assert status_of(installation, run) == DagsterRunStatus.STARTED
    return run


def status_of(installation: Installation, run: dg.DagsterRun) -> DagsterRunStatus:
    found = installation.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_c28_a_run_that_nobody_is_behind_any_more_is_ended_and_left_to_dagsters_own_retry(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = receive(installation, tmp_path, "vanished")
    run = orphan(installation, batch_id, **{"dagster/max_retries": "2"})
    assert look(installation) == []
    assert status_of(installation, run) == DagsterRunStatus.FAILURE
    assert look(installation) == []  # also at the looks that follow, until Dagster's daemon had the time
    monkeypatch.setattr(sensors, "RETRY_S", 0.0)
    assert [request.partition_key for request in look(installation)] == [batch_id]


@pytest.mark.parametrize(("noted", "asked"), [({}, 0), ({"dagster/auto_retry_run_id": "another"}, 1)])
def test_c30_a_run_that_dagster_itself_has_found_failed_is_left_to_its_own_retry(
    installation: Installation, tmp_path: Path, noted: dict[str, str], asked: int
) -> None:
    batch_id = receive(installation, tmp_path, "lost-pod")
    run = orphan(installation, batch_id, **{"dagster/max_retries": "2"})
    installation.instance.report_run_failed(run)  # as its monitoring does, before or after its daemon has tried again
    installation.instance.add_run_tags(run.run_id, noted)
    assert len(look(installation)) == asked


def test_c28_a_run_of_any_job_that_nobody_is_behind_is_ended_and_one_that_has_a_process_is_not(
    installation: Installation, tmp_path: Path
) -> None:
    finished = receive(installation, tmp_path, "finished")
    assert installation.run(finished) is None
    after_the_end, alone, alive = orphan(installation, finished), orphan(installation, None), orphan(installation, None)
    with run_process(installation.system.database, alive.run_id):
        look(installation)
        assert status_of(installation, alive) == DagsterRunStatus.STARTED
    assert {status_of(installation, run) for run in (after_the_end, alone)} == {DagsterRunStatus.FAILURE}
    look(installation)
    assert status_of(installation, alive) == DagsterRunStatus.FAILURE


def test_d01_a_run_whose_session_broke_for_a_moment_is_not_ended(installation: Installation) -> None:
    run, cursor = orphan(installation, None), None
    for is_there in (False, True, False):
        with run_process(installation.system.database, run.run_id) if is_there else contextlib.nullcontext():
            context = dg.build_sensor_context(
                instance=installation.instance, resources={"system": installation.system}, cursor=cursor
            )
            result = stalled_sensor(context)
            assert isinstance(result, dg.SensorResult)
            cursor = result.cursor
    assert status_of(installation, run) == DagsterRunStatus.STARTED
    installation.instance.report_run_canceled(run)


def test_a_batch_whose_run_a_person_has_terminated_is_stopped_until_a_person_resumes_it(
    installation: Installation, tmp_path: Path
) -> None:
    batch_id = receive(installation, tmp_path, "terminated")
    installation.instance.report_run_canceled(orphan(installation, batch_id))
    assert look(installation) == []
    assert installation.summary(batch_id)["stopped"]["by"] == "Dagster UI"
    assert "was stopped at" in (installation.run(batch_id) or "")
    assert look(installation) == []
    with installation.system.database.begin() as transaction:
        batches.restart(transaction, batch_id)
    later = orphan(installation, batch_id)  # as `resume` and re-execution leave one when it fails
    installation.instance.report_run_failed(later)
    assert [request.partition_key for request in look(installation)] == [batch_id]


def test_refunds_go_on_by_themselves_of_a_batch_whose_run_was_terminated_and_whose_cancellation_waits(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = receive(installation, tmp_path, "cancelled-and-refunded", rows=3)
    prepare(installation.system, batch_id)
    with settling(installation.system, batch_id, None) as work:
        assert work is not None
        work.pay()
    installation.instance.report_run_canceled(orphan(installation, batch_id))
    with installation.system.database.begin() as transaction:
        cancelling.begin(transaction, batch_id, cancelled_by="operator", why="the wrong file")
    monkeypatch.setattr(cancelling, "finish", lambda *_: None)  # as when a payment is in doubt until a person decides
    write_plan(
        installation.system.database,
        read_plan(installation.system.database, batch_id),
        requested_by="operator",
        reason="wrong",
    )
    assert [request.partition_key for request in look(installation)] == [batch_id]
    assert "is being cancelled" in (installation.run(batch_id) or "")
    assert installation.summary(batch_id)["orders"]["refunded"] == 3


def test_c28_a_run_that_nobody_is_behind_and_dagster_does_not_retry_is_followed_by_another_at_once(
    installation: Installation, tmp_path: Path
) -> None:
    batch_id = receive(installation, tmp_path, "vanished-again")
    run = orphan(installation, batch_id, **{"dagster/max_retries": "0"})
    assert [request.partition_key for request in look(installation)] == [batch_id]
    assert status_of(installation, run) == DagsterRunStatus.FAILURE

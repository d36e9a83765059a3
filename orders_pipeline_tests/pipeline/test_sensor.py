"""The landing sensor: every version of every file becomes one batch, and a batch is offered until somebody works on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from orders_pipeline.batches.run_tags import LARGE_BYTES, tags_of
from orders_pipeline.orchestration import sensors
from orders_pipeline.orchestration.partitions import forget_failed_runs, retire
from orders_pipeline.orchestration.sensors import PATIENCE_S, landing_sensor
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline_tests.support.installation import Installation, check_finished, open_installation
from orders_pipeline_tests.support.s3_server import open_s3

pytestmark = pytest.mark.usefixtures("hasty_landing")

KMS_KEY = "arn:aws:kms:us-east-1:123456789012:key/orders"


@pytest.fixture
def client(request: pytest.FixtureRequest) -> str:
    """A client of the test's own: its folder in the landing is empty."""
    return f"c{abs(hash(request.node.name)) % 10**9}"


@pytest.fixture(autouse=True)
def _empty_landing(installation: Installation) -> Iterator[None]:
    yield
    for path in landing_of(installation).rglob("*.csv"):
        path.unlink()
    installation.rows("UPDATE batches SET status = 'cancelled', finished_at = now() WHERE finished_at IS NULL")


def landing_of(installation: Installation) -> Path:
    return Path(installation.system.settings.landing_location)


def drop(installation: Installation, client: str, name: str = "orders.csv", *, rows: int = 5, seed: int = 1) -> Path:
    path = landing_of(installation) / client / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sample(path, rows=rows, seed=seed, bad=0)
    return path


def look(installation: Installation) -> list[dg.RunRequest]:
    """Let the sensor tick once, and return what it asks for; what it asks to be added is added as the daemon does."""
    context = dg.build_sensor_context(instance=installation.instance, resources={"system": installation.system})
    result = landing_sensor(context)
    assert isinstance(result, dg.SensorResult)
    for request in result.dynamic_partitions_requests or ():
        installation.instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
    requests = list(result.run_requests or ())
    assert all(request.partition_key for request in requests)
    assert len({request.run_key for request in requests}) == len(requests)
    return requests


def later(installation: Installation, batch_id: str) -> None:
    """Let the sensor's patience with a batch's run have passed."""
    installation.rows(
        "UPDATE batches SET run_requested_at = run_requested_at - make_interval(secs => %s) WHERE batch_id = %s",
        PATIENCE_S + 1,
        batch_id,
    )


def add_run(installation: Installation, batch_id: str, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    run = dg.DagsterRun(job_name="process_batch", status=status, tags={"dagster/partition": batch_id})
    installation.instance.add_run(run)
    return run


def csv_sources(installation: Installation, requests: list[dg.RunRequest]) -> set[str]:
    wanted = [request.partition_key for request in requests]
    return {name for (name,) in installation.rows("SELECT csv_source FROM batches WHERE batch_id = ANY(%s)", wanted)}


def test_a_file_is_asked_for_once_it_was_seen_unchanged_twice_and_its_batch_runs(
    installation: Installation, client: str
) -> None:
    drop(installation, client)
    assert look(installation) == []
    (request,) = look(installation)
    assert request.tags["orders/client"] == client
    assert look(installation) == []
    installation.work_off(str(request.partition_key))
    summary = check_finished(installation, str(request.partition_key))
    assert (summary["client_code"], summary["csv_source"]) == (client, "orders.csv")
    assert look(installation) == []


@pytest.mark.parametrize(
    ("size", "tags"),
    [
        (None, {"dagster/priority": "1"}),
        (LARGE_BYTES, {"dagster/priority": "1"}),
        (LARGE_BYTES + 1, {"orders/size": "large"}),
    ],
)
def test_a_large_file_is_kept_to_the_places_of_large_ones_and_a_small_one_comes_first(size, tags) -> None:
    assert tags_of("acme", size) == {"orders/client": "acme"} | tags


def test_an_empty_landing_is_skipped_in_words(installation: Installation) -> None:
    context = dg.build_sensor_context(instance=installation.instance, resources={"system": installation.system})
    result = landing_sensor(context)
    assert isinstance(result, dg.SensorResult)
    assert result.skip_reason is not None
    assert "no new order file" in str(result.skip_reason.skip_message)


def test_o01_a_file_that_still_grows_is_waited_for(installation: Installation, client: str) -> None:
    path = drop(installation, client)
    look(installation)
    for _ in range(3):
        with path.open("a") as file:
            file.write("\r\n")
        assert look(installation) == []
    assert len(look(installation)) == 1


def test_o07_files_of_the_same_second_and_files_that_look_old_are_all_taken(installation: Installation, client: str) -> None:
    for number in range(5):
        os.utime(drop(installation, client, f"same-{number}.csv", seed=number), (1_750_000_000, 1_750_000_000))
    look(installation)
    assert csv_sources(installation, look(installation)) == {f"same-{number}.csv" for number in range(5)}
    os.utime(drop(installation, client, "late.csv", seed=9), (1_600_000_000, 1_600_000_000))
    look(installation)
    assert csv_sources(installation, look(installation)) == {"late.csv"}


def test_o05_another_version_of_a_file_is_another_batch(installation: Installation, client: str) -> None:
    drop(installation, client, seed=1)
    look(installation)
    (first,) = look(installation)
    installation.work_off(str(first.partition_key))
    drop(installation, client, seed=2)
    look(installation)
    (second,) = look(installation)
    assert second.partition_key != first.partition_key
    installation.work_off(str(second.partition_key))
    assert look(installation) == []


def test_o02_a_file_replaced_before_its_run_is_rejected_and_the_new_one_is_taken(
    installation: Installation, client: str
) -> None:
    drop(installation, client, seed=1)
    look(installation)
    (first,) = look(installation)
    drop(installation, client, seed=2, rows=7)
    installation.work_off(str(first.partition_key))
    assert installation.summary(str(first.partition_key))["status_code"] == "F_CHANGED"
    look(installation)
    (second,) = look(installation)
    installation.work_off(str(second.partition_key))
    assert check_finished(installation, str(second.partition_key))["rows"]["total"] == 7


def test_o03_a_file_removed_before_its_run_is_said_to_be_gone(installation: Installation, client: str) -> None:
    path = drop(installation, client)
    look(installation)
    (request,) = look(installation)
    path.unlink()
    installation.work_off(str(request.partition_key))
    summary = installation.summary(str(request.partition_key))
    assert (summary["status"], summary["status_code"]) == ("rejected", "F_GONE")
    assert "F_GONE" in (installation.report(summary["batch_id"], "errors") or b"").decode("utf-8-sig")


def test_o04_the_same_content_under_another_name_is_the_same_order_file(installation: Installation, client: str) -> None:
    drop(installation, client, "one.csv")
    look(installation)
    (first,) = look(installation)
    installation.work_off(str(first.partition_key))
    sent = installation.sandbox.ledger()
    drop(installation, client, "two.csv")
    look(installation)
    (second,) = look(installation)
    installation.work_off(str(second.partition_key))
    summary = installation.summary(str(second.partition_key))
    assert (summary["status"], summary["status_code"]) == ("rejected", "F_DUPLICATE_FILE")
    assert summary["duplicate_of"] == first.partition_key
    assert summary["details"] == {"F_DUPLICATE_FILE": {"batch_id": first.partition_key}}
    assert installation.sandbox.ledger() == sent


def test_c01_a_batch_whose_run_never_began_is_asked_for_again(installation: Installation, client: str) -> None:
    drop(installation, client)
    look(installation)
    (first,) = look(installation)
    later(installation, str(first.partition_key))
    (second,) = look(installation)
    assert second.partition_key == first.partition_key
    assert second.run_key != first.run_key
    assert look(installation) == []


def test_a_batch_that_cannot_be_staged_says_why_and_when_it_is_tried_again(
    installation: Installation, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "RETRY_S", 0.0)  # no daemon of Dagster is there to try the run again
    drop(installation, client)
    look(installation)
    (request,) = look(installation)
    batch_id = str(request.partition_key)
    in_the_way = Path(installation.system.storage.location(f"batches/{batch_id}"))
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.touch()
    assert (installation.run(batch_id) or "").startswith("E_STORAGE_UNAVAILABLE")
    summary = installation.summary(batch_id)
    assert (summary["status"], summary["status_code"]) == ("received", "E_STORAGE_UNAVAILABLE")
    assert datetime.fromisoformat(summary["next_try"]) > datetime.now(UTC)
    later(installation, batch_id)
    (again,) = look(installation)
    assert again.tags["dagster/max_retries"] == "0"
    later(installation, batch_id)
    assert look(installation) == []  # now it is longer
    in_the_way.unlink()
    installation.work_off(batch_id)
    summary = check_finished(installation, batch_id)
    assert (summary["status_code"], summary["next_try"]) == (None, None)


def test_partitions_of_batches_that_are_long_finished_are_retired_and_the_batches_stay(
    installation: Installation, client: str
) -> None:
    for number in range(2):
        drop(installation, client, f"{number}.csv", seed=number)
    look(installation)
    old, young = (str(request.partition_key) for request in look(installation))
    for batch_id, days in ((old, 91), (young, 89)):
        installation.rows(
            "UPDATE batches SET status = 'cancelled', finished_at = now() - make_interval(days => %s) WHERE batch_id = %s",
            days,
            batch_id,
        )
    installation.instance.add_dynamic_partitions("batch_id", ["typed-by-hand"])
    assert retire(installation.system.database, installation.instance) == 2
    left = installation.instance.get_dynamic_partitions("batch_id")
    assert (old in left, young in left, "typed-by-hand" in left) == (False, True, False)
    assert installation.summary(old)["status"] == "cancelled"
    assert retire(installation.system.database, installation.instance) == 0


def test_runs_that_failed_long_ago_go_with_all_that_is_kept_of_them(installation: Installation) -> None:
    failed, succeeded, canceled = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED
    ended = [(failed, 91), (canceled, 91), (failed, 89), (succeeded, 91)]
    runs = [add_run(installation, "some-batch", status).run_id for status, _ in ended]
    installation.instance.report_engine_event("something", run_id=runs[0], job_name="process_batch")
    for run_id, (_, days) in zip(runs, ended, strict=True):
        at = f"(now() - interval '{days} days') AT TIME ZONE 'UTC'"
        installation.rows(f"UPDATE dagster.runs SET update_timestamp = {at} WHERE run_id = %s", run_id)
    assert forget_failed_runs(installation.system.database, installation.instance) == 2
    assert [installation.instance.has_run(run_id) for run_id in runs] == [False, False, True, True]
    for table in ("event_logs", "run_tags"):
        assert installation.rows(f"SELECT count(*) FROM dagster.{table} WHERE run_id = %s", runs[0]) == [(0,)]
    assert forget_failed_runs(installation.system.database, installation.instance) == 0


def test_what_is_no_order_file_is_named_in_the_tick(installation: Installation, client: str) -> None:
    (landing_of(installation) / client).mkdir(parents=True, exist_ok=True)
    stray = landing_of(installation) / client / "orders.csv.filepart"
    stray.touch()
    ticks = []
    for _ in range(2):
        result = landing_sensor(
            dg.build_sensor_context(instance=installation.instance, resources={"system": installation.system})
        )
        assert isinstance(result, dg.SensorResult)
        assert result.skip_reason is not None
        ticks.append(stray.name in str(result.skip_reason.skip_message))
    stray.unlink()
    look(installation)
    assert ticks == [False, True]


@pytest.mark.parametrize(
    "status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
)
def test_a_batch_with_an_unfinished_run_is_not_asked_for_again_until_that_has_ended(
    installation: Installation, client: str, status: dg.DagsterRunStatus
) -> None:
    drop(installation, client)
    look(installation)
    (request,) = look(installation)
    batch_id = str(request.partition_key)
    run = add_run(installation, batch_id, status)
    later(installation, batch_id)
    assert look(installation) == []
    installation.instance.report_run_failed(run)
    later(installation, batch_id)
    assert [again.partition_key for again in look(installation)] == [batch_id]


def test_o13_a_file_outside_a_clients_folder_is_left_alone(installation: Installation) -> None:
    for key in ("orders.csv", "no client/orders.csv", "acme/orders.manifest.json"):
        path = landing_of(installation) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a,b\r\n1,2\r\n")
    look(installation)
    assert look(installation) == []
    assert installation.rows("SELECT count(*) FROM landing_files WHERE key NOT LIKE 'c%%/%%'") == [(0,)]


def test_a_database_that_is_away_fails_the_tick_with_a_code_only(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise OSError("/secret/path")

    monkeypatch.setattr("orders_pipeline.intake.landing.arrivals.register_arrivals", gone)
    with pytest.raises(dg.Failure) as failed:
        look(installation)
    assert (failed.value.description or "").startswith("E_UNEXPECTED: ")
    assert "secret" not in str(failed.value.description)


def test_over_s3_a_file_is_taken_at_first_sight_and_all_the_way(server_url: str, template: str, tmp_path: Path) -> None:
    with open_s3() as harness:
        storage = f"s3://{harness.bucket()}/kept"
        bucket = storage.split("/")[2]
        with open_installation(
            server_url, template, tmp_path, storage_url=storage, s3_endpoint_url=harness.server_url, s3_kms_key_id=KMS_KEY
        ) as installation:
            write_sample(tmp_path / "orders.csv", rows=20, seed=1, bad=0.2, encoding="cp932")
            harness.raw.upload_file(str(tmp_path / "orders.csv"), bucket, "kept/landing/acme/注文.csv")
            (request,) = look(installation)
            batch_id = str(request.partition_key)
            assert look(installation) == []
            assert installation.run(batch_id) is None
            summary = check_finished(installation, batch_id, "completed_with_errors")
            assert summary["csv_source"] == "注文.csv"
            assert summary["artifacts"]["rejected"] == f"{storage}/batches/{batch_id}/rejected.csv"
            kept = harness.raw.get_object(Bucket=bucket, Key=f"kept/batches/{batch_id}/original")["Body"].read()
            assert kept == (tmp_path / "orders.csv").read_bytes()
            written = [key for key in harness.keys(bucket) if not key.startswith("kept/landing/")]
            assert len(written) >= 6
            for key in written:
                head = harness.raw.head_object(Bucket=bucket, Key=key)
                assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", KMS_KEY), key


def test_batches_whose_runs_are_under_way_are_not_asked_for_again_and_hold_up_no_other(
    installation: Installation, client: str
) -> None:
    for number in range(3):
        drop(installation, client, f"{number}.csv", seed=number)
    look(installation)
    asked = [str(request.partition_key) for request in look(installation)]
    for batch_id in asked[:2]:
        add_run(installation, batch_id, dg.DagsterRunStatus.STARTED)
    for batch_id in asked:
        later(installation, batch_id)
    assert [request.partition_key for request in look(installation)] == asked[2:]

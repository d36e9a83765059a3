"""Control of batches through the API: each is cancelled or resumed once however often it is asked for, and a run does it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace

import dagster as dg
import pytest

from orders_pipeline.batches import batches
from orders_pipeline.batches.run_processes import run_process
from orders_pipeline.orchestration.sensors import stalled_sensor
from orders_pipeline.settlement.batch_settlement import settling
from orders_pipeline.upkeep import cancelling
from orders_pipeline_tests.support.api import Client, csv_of, problem, served
from orders_pipeline_tests.support.factories import order_rows
from orders_pipeline_tests.support.installation import Installation, check_books, prepare


@pytest.fixture
def batch_id(installation: Installation, acme: Client) -> Iterator[str]:
    """A batch that is loaded, and of which nothing is sent yet."""
    batch_id = str(acme.post("batches", csv_of(*order_rows(5))).json()["batch_id"])
    prepare(installation.system, batch_id)
    yield batch_id
    installation.rows("UPDATE batches SET status = 'cancelled', finished_at = now() WHERE finished_at IS NULL")


def asked_for(installation: Installation) -> list[str | None]:
    """Let batches have stood still for a while and the sensor look once; return the batches that it asks runs for."""
    installation.rows("UPDATE batches SET idle_since = now() - interval '1 hour' WHERE finished_at IS NULL")
    result = stalled_sensor(
        dg.build_sensor_context(instance=installation.instance, resources={"system": installation.system})
    )
    return [request.partition_key for request in result.run_requests or ()] if isinstance(result, dg.SensorResult) else []


def slug(client: Client, batch_id: str, command: str) -> tuple[int, str]:
    answer = client.post(f"batches/{batch_id}/{command}", b"", key=None)
    return answer.status_code, answer.json().get("type", "").rpartition("/")[2] or answer.json()["status"]


def test_a_batch_is_cancelled_once_and_a_run_ends_it(installation: Installation, acme: Client, batch_id: str) -> None:
    assert acme.get(f"batches/{batch_id}").json()["allowed"] == ["cancel"]
    for body in (b'{"reason": ""}', b'{"why": "x"}', b"no object"):
        problem(acme.post(f"batches/{batch_id}/cancel", body, key=None), 400, "malformed-command")
    answer = acme.post(f"batches/{batch_id}/cancel", b'{"reason": "a test"}', key=None)
    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "1"), answer.text
    assert (answer.json()["status"], answer.json()["allowed"], answer.json()["finished"]) == ("cancelling", [], False)
    assert slug(acme, batch_id, "cancel") == (202, "cancelling")
    assert slug(acme, batch_id, "resume") == (409, "not-resumable")
    assert asked_for(installation) == [batch_id]
    assert "cancelled" in (installation.run(batch_id) or "")
    batch = acme.get(f"batches/{batch_id}").json()
    assert (batch["status"], batch["finished"], batch["orders"]["cancelled"]) == ("cancelled", True, 5)
    check_books(installation, batch_id)
    assert slug(acme, batch_id, "cancel") == (202, "cancelled")
    said = installation.rows("SELECT cancelled_by, cancelled_why FROM batches WHERE batch_id = %s", batch_id)
    assert said == [(f"{acme.get('profile').json()['client_code']}/{acme.token[4:12]}", "a test")]


def test_a_cancelled_batch_says_of_which_paid_orders_nobody_is_notified(installation: Installation, acme: Client) -> None:
    batch_id = str(acme.post("batches", csv_of(*order_rows(5, notify_channel="email"))).json()["batch_id"])
    prepare(installation.system, batch_id)
    with settling(installation.system, batch_id, None) as settlement:
        assert settlement is not None
        settlement.pay()
    said = acme.post(f"batches/{batch_id}/cancel", b'{"reason": "a test"}', key=None).json()["cancellation"]
    assert (said["reason"], said["paid_not_notified"]) == ("a test", None)
    cancelling.finish(installation.system, batch_id)
    batch = acme.get(f"batches/{batch_id}").json()
    assert (batch["status"], batch["orders"]["paid"], batch["notifications"]["sent"]) == ("cancelled", 5, 0)
    assert batch["cancellation"] == said | {"paid_not_notified": {"orders": 5, "amount_jpy": batch["amount_jpy"]["paid"]}}
    for asked, count in (("cancelled", 5), ("sent", 0)):
        items = acme.get(f"batches/{batch_id}/orders", status="paid", notification=asked).json()["items"]
        assert [each["notification_status"] for each in items] == [asked] * count


def test_a_batch_that_has_ended_is_neither_cancelled_nor_resumed(
    installation: Installation, acme: Client, batch_id: str
) -> None:
    installation.work_off(batch_id)
    assert acme.get(f"batches/{batch_id}").json()["allowed"] == []
    for command in ("cancel", "resume"):
        assert slug(acme, batch_id, command) == (409, f"not-{'cancellable' if command == 'cancel' else 'resumable'}")


def test_a_batch_that_was_stopped_is_resumed_once_and_a_run_goes_on(
    installation: Installation, acme: Client, batch_id: str
) -> None:
    with installation.system.database.begin() as transaction:
        assert batches.stop(transaction, batch_id, "somebody")
    assert acme.get(f"batches/{batch_id}").json()["allowed"] == ["cancel", "resume"]
    assert asked_for(installation) == []
    assert slug(acme, batch_id, "resume") == (202, "loaded")
    assert slug(acme, batch_id, "resume") == (202, "loaded")
    assert asked_for(installation) == [batch_id]
    assert installation.run(batch_id) is None
    assert acme.get(f"batches/{batch_id}").json()["orders"]["paid"] == 5
    check_books(installation, batch_id)


def test_a_run_that_dagsters_web_server_refuses_is_the_sensors(
    installation: Installation, acme: Client, batch_id: str
) -> None:
    installation.rows(
        "UPDATE batches SET status = 'paused', run_requests = 20, run_requested_at = now() - interval '1 minute'"
    )
    settings = installation.system.settings.model_copy(update={"dagster_url": "http://127.0.0.1:1"})
    assert asked_for(installation) == []
    with served(replace(installation.system, settings=settings)) as refused:
        assert slug(Client(refused, acme.token), batch_id, "resume") == (202, "paused")
    assert batch_id in asked_for(installation)


def terminate_a_run(installation: Installation, batch_id: str) -> None:
    """Let a person have terminated the batch's newest run, and its process have stopped the batch."""
    installation.instance.add_dynamic_partitions("batches", [batch_id])
    run = installation.instance.create_run_for_job(
        job_def=dg.GraphDefinition("process_batch").to_job(), tags={"dagster/partition": batch_id}
    )
    installation.instance.report_run_canceled(run)


@pytest.mark.parametrize("dagster_url", [None, "http://127.0.0.1:1"])
@pytest.mark.parametrize("status", ["loaded", "paused"])
def test_a_batch_whose_run_was_terminated_is_resumed_by_a_persons_word_until_another_run_is_terminated(
    installation: Installation, acme: Client, batch_id: str, status: str, dagster_url: str | None
) -> None:
    installation.rows("UPDATE batches SET status = %s WHERE batch_id = %s", status, batch_id)
    terminate_a_run(installation, batch_id)
    assert asked_for(installation) == []
    assert acme.get(f"batches/{batch_id}").json()["status"] == "stopped"
    settings = installation.system.settings.model_copy(update={"dagster_url": dagster_url})
    with served(replace(installation.system, settings=settings)) as refused:
        assert slug(Client(refused, acme.token), batch_id, "resume") == (202, status)
    assert asked_for(installation) == [batch_id]
    assert acme.get(f"batches/{batch_id}").json()["status"] == status
    terminate_a_run(installation, batch_id)
    installation.rows("UPDATE batches SET run_requested_at = now() - interval '1 day' WHERE batch_id = %s", batch_id)
    assert asked_for(installation) == []
    assert acme.get(f"batches/{batch_id}").json()["status"] == "stopped"


def test_no_second_run_is_asked_for_while_one_is_at_work(installation: Installation, acme: Client, batch_id: str) -> None:
    installation.rows(
        "UPDATE batches SET status = 'paused', status_code = 'E_PAYMENT_UNAVAILABLE' WHERE batch_id = %s", batch_id
    )
    requested = "SELECT run_requests, run_requested_at IS NULL FROM batches WHERE batch_id = %s"
    before = installation.rows(requested, batch_id)
    with run_process(installation.system.database, str(uuid.uuid4()), batch_id):
        assert slug(acme, batch_id, "resume") == (202, "paused")
    assert installation.rows(requested, batch_id) == before

"""Refunds through the API: a plan, its confirmation, a run that carries it out; the service's own ledger is the judge."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import requests

from orders_pipeline.batches import batches
from orders_pipeline.batches.run_tags import PROCESS
from orders_pipeline.batches.run_tags import REFUND as REFUND_JOB
from orders_pipeline.batches.workers import worker_session
from orders_pipeline.clients.api_tokens import READ, REFUND, USUAL_SCOPES
from orders_pipeline.definitions import defs
from orders_pipeline.orchestration.partitions import batch_partitions
from orders_pipeline.orchestration.resources import _obeying
from orders_pipeline.orchestration.runs import QUIET
from orders_pipeline.orchestration.sensors import stalled_sensor
from orders_pipeline.settlement import sweep
from orders_pipeline.settlement.refunds import refunding
from orders_pipeline.settlement.refunds.plan import read_plan
from orders_pipeline_tests.support.api import Client, client_of, csv_of, described, served
from orders_pipeline_tests.support.commands import COMMAND, free_port, wait_for
from orders_pipeline_tests.support.factories import order_rows
from orders_pipeline_tests.support.installation import Installation

ORDERS = 4
REASON = "秘密の理由 the goods came back"


@pytest.fixture
def acme(installation: Installation, url: str) -> Client:
    return client_of(installation.system, url, f"acme-{uuid.uuid4().hex[:8]}", [*USUAL_SCOPES, REFUND])


@pytest.fixture
def batch_id(installation: Installation, acme: Client) -> str:
    """A batch whose orders are paid, one by one, and their customers notified."""
    rows = [
        row | {"customer_code": f"C-{number}", "amount": str(1000 + number), "notify_channel": "email"}
        for number, row in enumerate(order_rows(ORDERS))
    ]
    batch_id = str(acme.post("batches", csv_of(*rows)).json()["batch_id"])
    installation.work_off(batch_id)
    assert acme.get(f"batches/{batch_id}").json()["orders"]["paid"] == ORDERS
    return batch_id


def ask(client: Client, batch_id: str, *, key: str | None = None, **command: object) -> requests.Response:
    headers = {"Authorization": f"Bearer {client.token}"} | ({} if key is None else {"Idempotency-Key": key})
    body = {"reason": REASON} | command
    return requests.post(f"{client.url}/v1/batches/{batch_id}/refunds", json=body, headers=headers, timeout=60)


def slug(answer: requests.Response) -> str:
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    return str(answer.json()["type"].rpartition("/")[2])


def references(client: Client, batch_id: str) -> list[str]:
    return [each["client_order_ref"] for each in client.get(f"batches/{batch_id}/orders").json()["items"]]


def confirm(client: Client, batch_id: str, **command: object) -> dict[str, Any]:
    """Look at a plan and confirm it; return the refund."""
    digest = ask(client, batch_id, **command).json()["plan_digest"]
    answer = ask(client, batch_id, key=uuid.uuid4().hex, confirm=digest, **command)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def asked_for(installation: Installation, batch_id: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str | None]]:
    """A function that lets the sensor look once, and returns the jobs that it asks runs of for the batch."""
    monkeypatch.setattr(sweep, "PATIENCE_S", 0.0)

    def look() -> list[str | None]:
        context = dg.build_sensor_context(instance=installation.instance, resources={"system": installation.system})
        result = stalled_sensor(context)
        assert isinstance(result, dg.SensorResult)
        return [request.job_name for request in result.run_requests or () if request.partition_key == batch_id]

    return look


def carry_out(installation: Installation, batch_id: str) -> bool:
    """Run the job as the sensor has it run; return whether it succeeded."""
    installation.instance.add_dynamic_partitions(str(batch_partitions.name), [batch_id])
    return (
        defs.resolve_job_def(REFUND_JOB)
        .execute_in_process(
            instance=installation.instance,
            partition_key=batch_id,
            resources={"system": installation.system},
            run_config=QUIET,
            raise_on_error=False,
        )
        .success
    )


def refunded_yen(installation: Installation, batch_id: str) -> int:
    """Return what the service's own ledger says."""
    return int(installation.sandbox.ledger(batch_id)["payments"]["refunded_jpy"])


def test_a_plan_is_shown_confirmed_and_carried_out_by_a_run(
    installation: Installation, acme: Client, batch_id: str, asked_for: Callable[[], list[str | None]]
) -> None:
    yen = sum(range(1000, 1000 + ORDERS))
    shown = ask(acme, batch_id)
    assert (shown.status_code, shown.json()["plan"]["amount_jpy"]["refundable"]) == (200, yen)
    assert ask(acme, batch_id).json() == shown.json()
    assert installation.rows("SELECT count(*) FROM refund_requests WHERE batch_id = %s", batch_id) == [(0,)]

    digest = shown.json()["plan_digest"]
    assert slug(ask(acme, batch_id, confirm=digest)) == "idempotency-key-missing"
    answer = ask(acme, batch_id, key="k-1", confirm=digest)
    refund = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/refunds/{refund['refund_id']}")
    assert (refund["status"], refund["finished"], refund["amount_jpy"]["planned"]) == ("refunding", False, yen)
    assert refunded_yen(installation, batch_id) == 0  # nothing is carried out in the API's process
    again = ask(acme, batch_id, key="k-1", confirm=digest)
    assert (again.status_code, again.json(), again.headers["Idempotent-Replayed"]) == (202, refund, "true")

    assert asked_for() == [REFUND_JOB]
    assert carry_out(installation, batch_id)
    assert asked_for() == []
    seen = acme.get(answer.headers["Location"])
    refund = seen.json()
    assert (refund["status"], refund["finished"]) == ("completed", True)
    assert "Retry-After" not in seen.headers
    assert refund["refunds"] == {"planned": ORDERS, "succeeded": ORDERS, "declined": 0, "unknown": 0}
    assert refund["orders"] == {"chosen": ORDERS, "refunded": ORDERS}
    assert refund["amount_jpy"]["succeeded"] == refunded_yen(installation, batch_id) == yen
    assert refund["corrections"] == {"planned": ORDERS, "sent": ORDERS, "failed": 0}
    assert set(refund) == described("Refund")
    assert set(shown.json()) == described("RefundPlan")
    assert acme.get(answer.headers["Location"], headers={"If-None-Match": seen.headers["ETag"]}).status_code == 304
    assert acme.get(f"batches/{batch_id}").json()["orders"]["refunded"] == ORDERS
    assert REASON not in seen.text + answer.text + shown.text

    third = ask(acme, batch_id, key="k-1", confirm=digest)
    assert (third.status_code, third.json()) == (202, refund)
    assert asked_for() == []
    empty = ask(acme, batch_id)
    assert empty.json()["plan"]["refunds"] == 0
    assert slug(ask(acme, batch_id, key="k-2", confirm=empty.json()["plan_digest"])) == "nothing-to-refund"
    assert slug(ask(acme, batch_id, key="k-2", confirm=digest)) == "plan-changed"
    assert refunded_yen(installation, batch_id) == yen
    ((actor,),) = installation.rows(
        "SELECT DISTINCT actor FROM audit_events WHERE batch_id = %s AND entity = 'refund_requests' AND action = 'insert'",
        batch_id,
    )
    assert actor == installation.rows("SELECT requested_by FROM refund_requests WHERE batch_id = %s", batch_id)[0][0]
    assert actor.endswith(acme.token[4:12])
    assert acme.get("batches", idempotency_key="k-1").json()["items"] == []


def test_of_many_that_confirm_the_same_at_once_one_refund_comes(
    installation: Installation, acme: Client, batch_id: str
) -> None:
    digest = ask(acme, batch_id).json()["plan_digest"]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: ask(acme, batch_id, key="same", confirm=digest), range(20)))
    assert {answer.status_code for answer in answers} == {202}, [answer.text for answer in answers]
    assert len({answer.headers["Location"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert carry_out(installation, batch_id)
    assert refunded_yen(installation, batch_id) == sum(range(1000, 1000 + ORDERS))


def test_of_many_that_confirm_the_same_with_keys_of_their_own_one_is_first(
    installation: Installation, acme: Client, batch_id: str
) -> None:
    digest = ask(acme, batch_id).json()["plan_digest"]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: ask(acme, batch_id, key=f"k{number}", confirm=digest), range(20)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 19
    assert {slug(answer) for answer in answers if answer.status_code == 409} == {"plan-changed"}
    assert carry_out(installation, batch_id)
    assert refunded_yen(installation, batch_id) == sum(range(1000, 1000 + ORDERS))


def test_a_second_request_of_a_batch_takes_what_the_first_does_not_and_each_shows_its_own(
    installation: Installation, acme: Client, batch_id: str
) -> None:
    refs = references(acme, batch_id)
    first = confirm(acme, batch_id, orders=refs[:1])
    plan = ask(acme, batch_id).json()["plan"]
    assert (plan["orders"]["under_way"], plan["orders"]["refundable"]) == (1, ORDERS - 1)
    assert slug(
        ask(acme, batch_id, key="x", confirm=ask(acme, batch_id, orders=refs[:1]).json()["plan_digest"], orders=refs[:1])
    ) == ("nothing-to-refund")
    second = confirm(acme, batch_id)
    assert (first["orders"]["chosen"], second["orders"]["chosen"]) == (1, ORDERS - 1)
    assert carry_out(installation, batch_id)
    for refund, orders in ((first, 1), (second, ORDERS - 1)):
        now = acme.get(refund["links"]["self"]).json()
        assert (now["status"], now["orders"]["refunded"]) == ("completed", orders)
    assert refunded_yen(installation, batch_id) == sum(range(1000, 1000 + ORDERS))


def test_what_would_be_refunded_otherwise_than_shown_is_not(installation: Installation, acme: Client, batch_id: str) -> None:
    refs = references(acme, batch_id)
    digest = ask(acme, batch_id).json()["plan_digest"]
    plan = read_plan(installation.system.database, batch_id, refs[:1])
    refunding.carry_out(installation.system, plan, requested_by="operator", reason="by the command")
    assert slug(ask(acme, batch_id, key="k", confirm=digest)) == "plan-changed"
    assert refunded_yen(installation, batch_id) == 1000
    ((request_id,),) = installation.rows("SELECT request_id FROM refund_requests WHERE batch_id = %s", batch_id)
    assert acme.get(f"refunds/{request_id}").json()["status"] == "completed"  # the command's is one like any other


def test_what_the_service_declines_is_listed_and_may_be_asked_for_again(
    installation: Installation, acme: Client, batch_id: str
) -> None:
    ((charge,),) = installation.rows(
        "SELECT service_payment_id FROM payments WHERE batch_id = %s ORDER BY amount LIMIT 1", batch_id
    )
    behind = requests.post(
        f"{installation.sandbox.url}/v1/payments/{charge}/refunds",
        json={"amount": 1, "reason": "behind our back"},
        headers={"Idempotency-Key": f"behind-{batch_id}"},
        timeout=10,
    )
    assert behind.status_code == 201
    refund = confirm(acme, batch_id)
    assert carry_out(installation, batch_id)
    found = acme.get(refund["links"]["self"]).json()
    assert (found["status"], found["refunds"]["declined"], found["finished"]) == ("completed_with_errors", 1, True)
    (declined,) = found["not_refunded"]
    assert (declined["status"], declined["orders"], declined["needs_a_person"]) == (
        "declined",
        references(acme, batch_id)[:1],
        False,
    )
    assert ask(acme, batch_id).json()["plan"]["orders"]["refundable"] == 1


@pytest.mark.usefixtures("impatient")
def test_a_refund_waits_for_the_service_and_the_run_says_so(
    installation: Installation, acme: Client, batch_id: str, asked_for: Callable[[], list[str | None]]
) -> None:
    refund = confirm(acme, batch_id)
    installation.sandbox.change(faults="unavailable=1,retry_after=0")
    assert not carry_out(installation, batch_id)
    assert acme.get(refund["links"]["self"]).json()["status"] == "refunding"
    installation.sandbox.change(faults={})
    installation.rows("UPDATE refunds SET next_attempt_at = now() WHERE batch_id = %s", batch_id)
    installation.rows("UPDATE service_breakers SET probe_at = now() WHERE opened_at IS NOT NULL")
    assert asked_for() == [REFUND_JOB]
    assert carry_out(installation, batch_id)
    assert acme.get(refund["links"]["self"]).json()["status"] == "completed"
    assert refunded_yen(installation, batch_id) == sum(range(1000, 1000 + ORDERS))


def test_a_stopped_batch_stays_so_while_its_refunds_are_carried_out(
    installation: Installation, acme: Client, batch_id: str, asked_for: Callable[[], list[str | None]]
) -> None:
    installation.rows("UPDATE batches SET status = 'paying', finished_at = NULL WHERE batch_id = %s", batch_id)
    with installation.system.database.begin() as transaction:
        assert batches.stop(transaction, batch_id, "somebody")
    refund = confirm(acme, batch_id)
    assert asked_for() == [REFUND_JOB]
    assert carry_out(installation, batch_id)
    assert acme.get(refund["links"]["self"]).json()["status"] == "completed"
    assert acme.get(f"batches/{batch_id}").json()["status"] == "stopped"
    installation.rows("UPDATE batches SET status = 'cancelled', finished_at = now() WHERE batch_id = %s", batch_id)


def test_a_batch_that_is_being_paid_is_refunded_later(installation: Installation, acme: Client, batch_id: str) -> None:
    digest = ask(acme, batch_id).json()["plan_digest"]
    with worker_session(installation.system.database, batch_id, "a-run"):
        answer = ask(acme, batch_id, key="k", confirm=digest)
        assert (slug(answer), answer.json()["retryable"], answer.headers["Retry-After"]) == ("being-paid", True, "10")
    assert ask(acme, batch_id, key="k", confirm=digest).status_code == 202


def test_nothing_is_written_down_while_all_paying_is_stopped(
    installation: Installation, acme: Client, batch_id: str
) -> None:
    digest = ask(acme, batch_id).json()["plan_digest"]
    installation.rows("UPDATE installation SET stopped_at = now(), stopped_by = 'service'")
    try:
        assert slug(ask(acme, batch_id, key="k", confirm=digest)) == "paying-stopped"
    finally:
        installation.rows("UPDATE installation SET stopped_at = NULL, stopped_by = NULL")
    assert installation.rows("SELECT count(*) FROM refund_requests WHERE batch_id = %s", batch_id) == [(0,)]


def test_another_clients_refund_and_batch_are_not_there(
    installation: Installation, acme: Client, batch_id: str, url: str
) -> None:
    refund = confirm(acme, batch_id)
    other = client_of(installation.system, url, "other", [REFUND])
    assert slug(ask(other, batch_id)) == slug(ask(other, "20200101-000000000000")) == "not-found"
    theirs, missing = (other.get(f"refunds/{each}") for each in (refund["refund_id"], uuid.uuid4()))
    alike = [each.text.replace(each.headers["Request-Id"], "") for each in (theirs, missing)]
    assert (theirs.status_code, alike[0]) == (404, alike[1])
    assert slug(other.get("refunds/nothing")) == "not-found"
    reader = client_of(installation.system, url, acme.get("profile").json()["client_code"], [READ])
    assert slug(ask(reader, batch_id)) == slug(reader.get(f"refunds/{refund['refund_id']}")) == "missing-scope"
    nobody = requests.get(f"{url}/v1/refunds/{refund['refund_id']}", timeout=10)
    assert slug(nobody) == "unauthorized"


def test_a_key_is_of_one_request(installation: Installation, acme: Client, batch_id: str) -> None:
    digest = ask(acme, batch_id).json()["plan_digest"]
    assert ask(acme, batch_id, key="k", confirm=digest).status_code == 202
    assert slug(ask(acme, batch_id, key="k", confirm=digest, reason="another")) == "idempotency-key-reused"
    assert slug(acme.post("batches", csv_of(*order_rows(1)), key="k")) == "idempotency-key-reused"


@pytest.mark.parametrize(
    ("body", "found", "pointers"),
    [
        (b"", "malformed-command", ["#"]),
        (b"[]", "malformed-command", ["#"]),
        (b'{"reason": 1}', "malformed-command", ["#/reason"]),
        (b'{"reason": " "}', "malformed-command", ["#/reason"]),
        (b'{"reason": "a\\u0000b"}', "malformed-command", ["#/reason"]),
        (b'{"reason": "x", "orders": []}', "malformed-command", ["#/orders"]),
        (b'{"reason": "x", "orders": ["a", "b c"]}', "malformed-command", ["#/orders/1"]),
        (b'{"reason": "x", "planted": 1}', "malformed-command", []),
        (b'{"reason": "%s"}' % (b"x" * 501), "malformed-command", ["#/reason"]),
        (b'{"reason": "x", "orders": ["PLANTED-1"]}', "unknown-orders", ["#/orders/0"]),
        (b'{"reason": "%s"}' % (b"x" * (1 << 20)), "too-large", []),
    ],
)
def test_a_command_that_is_another_is_said_to_be_where_it_is(
    acme: Client, batch_id: str, body: bytes, found: str, pointers: list[str]
) -> None:
    answer = acme.post(f"batches/{batch_id}/refunds", body, key=None, media_type="application/json")
    assert slug(answer) == found
    assert [each["pointer"] for each in answer.json()["errors"]] == pointers
    assert "planted" not in answer.text.lower()


@pytest.mark.parametrize(("job", "status"), [(REFUND_JOB, "stopped"), (PROCESS, "received")])
def test_who_has_a_refund_carried_out_by_hand_resumes_nothing_else(
    installation: Installation, acme: Client, job: str, status: str
) -> None:
    batch_id = str(acme.post("batches", csv_of(*order_rows(1))).json()["batch_id"])
    with installation.system.database.begin() as transaction:
        assert batches.stop(transaction, batch_id, "somebody")
    context: Any = SimpleNamespace(run=dg.DagsterRun(job), instance=installation.instance)
    with _obeying(context, installation.system, batch_id):
        assert acme.get(f"batches/{batch_id}").json()["status"] == status
    installation.rows("UPDATE batches SET status = 'cancelled', finished_at = now() WHERE batch_id = %s", batch_id)


def test_a_hint_that_is_refused_leaves_the_refund_to_the_sensor_and_one_is_given_once(
    installation: Installation, acme: Client, batch_id: str, asked_for: Callable[[], list[str | None]]
) -> None:
    settings = installation.system.settings.model_copy(update={"dagster_url": "http://127.0.0.1:1"})
    with served(replace(installation.system, settings=settings)) as refusing:
        confirm(Client(refusing, acme.token), batch_id)
    assert asked_for() == [REFUND_JOB]


def test_an_api_that_is_killed_after_it_wrote_a_refund_down_loses_nothing_of_it(
    installation: Installation, acme: Client, batch_id: str, asked_for: Callable[[], list[str | None]]
) -> None:
    """The process dies before its answer leaves; the sensor has it carried out, and the repeated request finds it."""
    port = free_port()
    code = (
        "import os, signal, sys\n"
        "from orders_pipeline.web import refunds\n"
        "refunds._ask_for = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.argv = ['orders-pipeline', 'serve', '--port', sys.argv[1]]\n"
        "from orders_pipeline.cli import main\n"
        "main()\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ORDERS_", "DAGSTER_"))}
    process = subprocess.Popen(
        [COMMAND[0], "-c", code, str(port)], env=environment | installation.environment(), start_new_session=True
    )
    try:
        own = Client(f"http://127.0.0.1:{port}", acme.token)
        wait_for(lambda: _answers(own), "the API")
        digest = ask(own, batch_id).json()["plan_digest"]
        with pytest.raises(requests.ConnectionError):
            ask(own, batch_id, key="k", confirm=digest)
        assert process.wait(30) == -signal.SIGKILL
    finally:
        if process.poll() is None:
            process.kill()
    assert refunded_yen(installation, batch_id) == 0
    assert asked_for() == [REFUND_JOB]
    replayed = ask(acme, batch_id, key="k", confirm=digest)
    assert (replayed.status_code, replayed.headers["Idempotent-Replayed"]) == (202, "true")
    assert carry_out(installation, batch_id)
    assert acme.get(replayed.headers["Location"]).json()["status"] == "completed"
    assert refunded_yen(installation, batch_id) == sum(range(1000, 1000 + ORDERS))


def _answers(client: Client) -> bool:
    try:
        return requests.get(f"{client.url}/healthz", timeout=5).ok
    except requests.ConnectionError:
        time.sleep(0.1)
        return False

"""Approval: a batch whose client's profile asks for it waits, readable and unpaid, until somebody else says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from dagster import DagsterRunStatus, RunsFilter
from rich.console import Console

from orders_pipeline.batches import batches
from orders_pipeline.cli import main
from orders_pipeline.cli.console import show_summary
from orders_pipeline.clients.api_tokens import APPROVE, CONTROL, READ, READ_REJECTED, WRITE
from orders_pipeline.clients.profiles import Clients, Profile
from orders_pipeline.infrastructure.database_errors import ConstraintViolated
from orders_pipeline.intake import file_import
from orders_pipeline.orchestration.sensors import landing_sensor, stalled_sensor
from orders_pipeline.reports import preview
from orders_pipeline.settlement.payments import settle
from orders_pipeline.upkeep import approval
from orders_pipeline_tests.support.api import Client, client_of, csv_of, served
from orders_pipeline_tests.support.factories import order_row, order_rows
from orders_pipeline_tests.support.installation import Installation, check_books, check_finished, prepare
from orders_pipeline_tests.support.order_file import OrderFile

ALWAYS = Profile(approval="always")
SKIPS = Profile(approval="always", same_orders="skip")
SENDER, APPROVER = "sender", "approver"


@pytest.fixture
def installation(_module_installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """An installation whose clients need approval, each in its own way, and where `sender` imports."""
    monkeypatch.setattr(file_import, "os_user", lambda: SENDER)
    clients = Clients({"always": ALWAYS, "above": Profile(approval_above=5_000), "never": Profile(), "skips": SKIPS})
    yield replace(_module_installation, system=replace(_module_installation.system, clients=clients))
    _module_installation.rows("UPDATE batches SET status = 'cancelled', finished_at = now() WHERE finished_at IS NULL")


def receive(installation: Installation, tmp_path: Path, client: str, reference: str, orders: int = 3, bad: int = 1) -> str:
    """Bring a file of orders of 2,000 yen each, and some bad rows."""
    return installation.receive(written(tmp_path, reference, orders, bad), client)


def written(tmp_path: Path, reference: str, orders: int, bad: int = 1) -> Path:
    file = OrderFile("utf-8")
    for number in range(orders + bad):
        name = f"{reference}-{number}"
        file.add(order_row(client_order_ref=name, customer_code=name, amount="2000" if number < orders else "x"))
    path = tmp_path / f"{reference}.csv"
    path.write_bytes(file.text.encode())
    return path


def approve(installation: Installation, batch_id: str, by: str = APPROVER) -> None:
    with installation.system.database.begin() as transaction:
        approval.approve(transaction, batch_id, by)


def stalled(installation: Installation) -> list[str | None]:
    """Let the sensors look when nobody has worked on anything for long; return for which batches they ask runs."""
    installation.rows(
        "UPDATE batches SET idle_since = now() - interval '1 day', run_requested_at = run_requested_at - interval '1 day'"
        " WHERE finished_at IS NULL"
    )
    asked = []
    for sensor in (stalled_sensor, landing_sensor):
        context = dg.build_sensor_context(instance=installation.instance, resources={"system": installation.system})
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        asked += [request.partition_key for request in result.run_requests or ()]
    return asked


def runs_of(installation: Installation, batch_id: str) -> list[DagsterRunStatus]:
    return [run.status for run in installation.instance.get_runs(RunsFilter(tags={"dagster/partition": batch_id}))]


def test_a_batch_waits_readable_and_unpaid_and_is_paid_once_it_is_approved(
    installation: Installation, tmp_path: Path
) -> None:
    charged = installation.sandbox.ledger()
    batch_id = receive(installation, tmp_path, "always", "A")
    assert installation.run(batch_id) is None
    for _ in range(2):
        summary = installation.summary(batch_id)
        assert (summary["status"], summary["status_code"]) == ("awaiting_approval", None)
        assert summary["approval"] == {
            "needed_because": "always",
            "requested_at": summary["approval"]["requested_at"],
            "decided_by": None,
            "decided_at": None,
            "decision": None,
            "reason": None,
        }
        assert (summary["orders"]["pending"], summary["payments"]["planned"]) == (3, 0)
        assert (installation.report(batch_id, "rejected") or b"").count(batch_id.encode()) == 1
        assert b"R_AMOUNT_FORMAT" in (installation.report(batch_id, "errors") or b"")
        assert json.loads(installation.report(batch_id, "result") or b"")["approval"] == summary["approval"]
        assert runs_of(installation, batch_id) == [DagsterRunStatus.SUCCESS] * len(runs_of(installation, batch_id))
        assert stalled(installation) == []
        assert installation.run(batch_id) is None  # who asks for another run anyway
    assert installation.sandbox.ledger() == charged

    approve(installation, batch_id)
    approve(installation, batch_id)
    assert stalled(installation) == [batch_id]
    assert installation.run(batch_id) is None
    summary = check_finished(installation, batch_id, "completed_with_errors")
    assert summary["orders"]["paid"] == 3
    assert (summary["approval"]["decision"], summary["approval"]["decided_by"]) == ("approved", APPROVER)
    assert json.loads(installation.report(batch_id, "result") or b"")["approval"] == summary["approval"]
    changes = installation.rows(
        "SELECT changes::text FROM audit_events WHERE batch_id = %s AND entity = 'batches' AND action = 'update'", batch_id
    )
    assert sum('"approval_decided_by"' in text and f'"{APPROVER}"' in text for (text,) in changes) == 1


@pytest.mark.parametrize(
    ("client", "orders", "waits"),
    [("above", 2, False), ("above", 3, True), ("never", 3, False), ("always", 0, False)],
)
def test_whether_a_batch_waits_is_said_by_its_clients_profile_and_the_yen_of_its_accepted_rows(
    installation: Installation, tmp_path: Path, client: str, orders: int, waits: bool
) -> None:
    path = written(tmp_path, f"B{client}{orders}", orders)
    foretold = preview.preview(installation.system, path, client, again=False)["status"]
    batch_id = installation.receive(path, client)
    installation.work_off(batch_id)
    assert foretold == installation.summary(batch_id)["status"]
    summary = installation.summary(batch_id)
    assert (summary["status"] == "awaiting_approval", summary["approval"] is not None) == (waits, waits)
    if waits:
        assert summary["approval"]["needed_because"] == "amount"
        approve(installation, batch_id)
        installation.work_off(batch_id)
        summary = installation.summary(batch_id)
    assert summary["orders"]["paid"] == orders


def test_who_sent_a_batch_neither_approves_nor_refuses_it_whatever_they_call_themselves(
    installation: Installation, tmp_path: Path
) -> None:
    batch_id = receive(installation, tmp_path, "always", "C")
    with pytest.raises(approval.NotAwaitingApproval), installation.system.database.begin() as transaction:
        approval.approve(transaction, batch_id, APPROVER)
    installation.work_off(batch_id)
    for names in ((SENDER,), (SENDER.upper(),), (APPROVER, SENDER), (f"operator/{SENDER}",)):
        with pytest.raises(approval.OwnBatch), installation.system.database.begin() as transaction:
            approval.approve(transaction, batch_id, *names)
        with pytest.raises(approval.OwnBatch), installation.system.database.begin() as transaction:
            approval.refuse(transaction, batch_id, *names, why="wrong")
    with (
        pytest.raises(ConstraintViolated, match="batches_approval_by_another"),
        installation.system.database.begin() as transaction,
    ):
        transaction.execute("approve_batch", batch_id=batch_id, decided_by=SENDER)
    assert installation.summary(batch_id)["status"] == "awaiting_approval"


def test_who_sent_a_batch_on_the_page_as_who_runs_the_system_does_not_approve_it_by_command(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_import, "os_user", lambda: f"operator/{SENDER}")
    batch_id = receive(installation, tmp_path, "always", "P")
    installation.work_off(batch_id)
    with pytest.raises(approval.OwnBatch):
        approve(installation, batch_id, SENDER)


def test_no_row_is_skipped_for_an_order_that_somebody_may_yet_refuse(installation: Installation, tmp_path: Path) -> None:
    first = receive(installation, tmp_path, "skips", "S", bad=0)
    prepare(installation.system, first)
    second = receive(installation, tmp_path, "skips", "S", bad=1)
    prepare(installation.system, second)
    assert installation.summary(first)["status"] == "loaded"
    assert installation.summary(second)["rows"] == {"total": 4, "accepted": 0, "rejected": 4, "blank": 0, "skipped": 0}


def test_what_waits_says_since_when_however_many_runs_come(installation: Installation, tmp_path: Path) -> None:
    batch_id = receive(installation, tmp_path, "always", "N")
    installation.work_off(batch_id)
    since = installation.rows("SELECT approval_requested_at FROM batches WHERE batch_id = %s", batch_id)
    installation.work_off(batch_id)
    assert installation.rows("SELECT approval_requested_at FROM batches WHERE batch_id = %s", batch_id) == since


def test_what_waits_is_cancelled_and_stopped_by_nobody(installation: Installation, tmp_path: Path) -> None:
    batch_id = receive(installation, tmp_path, "always", "D")
    installation.work_off(batch_id)
    with installation.system.database.begin() as transaction:
        assert not batches.stop(transaction, batch_id, "somebody")
        batches.restart(transaction, batch_id)
    assert installation.summary(batch_id)["status"] == "awaiting_approval"
    assert stalled(installation) == []
    result = invoke(installation, "cancel", batch_id, "--why", "the wrong file", "--yes", "--json")
    assert result.exit_code == 0, result.output
    assert check_books(installation, batch_id)["status"] == "cancelled"


def invoke(installation: Installation, *arguments: str) -> Result:
    settings = installation.environment()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in settings.items():
            environment.setenv(name, value)
        return CliRunner().invoke(main, list(arguments))


def test_a_person_approves_by_command_and_the_batch_goes_on_to_its_end(installation: Installation, tmp_path: Path) -> None:
    batch_id = receive(installation, tmp_path, "always", "E", bad=0)
    installation.work_off(batch_id)
    shown = Console(record=True, width=200, highlight=False, soft_wrap=True)
    show_summary(shown, installation.summary(batch_id))
    assert f"approves it: orders-pipeline approve {batch_id}, or orders-pipeline refuse {batch_id}" in shown.export_text()
    own = invoke(installation, "approve", batch_id, "--who", "Sender", "--json")
    assert (own.exit_code, json.loads(own.stdout)["error"]["code"]) == (2, "E_OWN_BATCH")
    waits = invoke(installation, "resume", batch_id, "--json")
    assert (waits.exit_code, json.loads(waits.stdout)["status"]) == (1, "awaiting_approval")
    result = invoke(installation, "approve", batch_id, "--who", APPROVER, "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["status"], summary["approval"]["decided_by"]) == ("completed", APPROVER)
    check_finished(installation, batch_id)
    assert invoke(installation, "approve", batch_id, "--who", APPROVER).exit_code == 0
    late = invoke(installation, "refuse", batch_id, "--why", "wrong", "--json")
    assert (late.exit_code, json.loads(late.stdout)["error"]["code"]) == (2, "E_NOT_AWAITING_APPROVAL")
    shown = Console(record=True, width=200, highlight=False, soft_wrap=True)
    show_summary(shown, summary)
    assert f"by {APPROVER}" in shown.export_text()


def test_a_person_refuses_by_command_and_the_file_may_come_again(installation: Installation, tmp_path: Path) -> None:
    charged = installation.sandbox.ledger()
    batch_id = receive(installation, tmp_path, "always", "F")
    installation.work_off(batch_id)
    assert invoke(installation, "refuse", batch_id, "--why", " ").exit_code == 2
    result = invoke(installation, "refuse", batch_id, "--why", "the wrong month", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["status"], summary["cancelled"]["why"], summary["orders"]["cancelled"]) == (
        *("cancelled", "the wrong month"),
        3,
    )
    assert summary["approval"]["decision"] == "refused"
    assert b"P_CANCELLED" in (installation.report(batch_id, "errors") or b"")
    assert installation.report(batch_id, "rejected")
    assert invoke(installation, "refuse", batch_id, "--why", "again").exit_code == 0
    assert invoke(installation, "approve", batch_id).exit_code == 2
    assert installation.summary(batch_id)["cancelled"]["why"] == "the wrong month"
    assert installation.sandbox.ledger() == charged
    again = receive(installation, tmp_path, "always", "F")
    assert again != batch_id
    installation.work_off(again)
    assert installation.summary(again)["status"] == "awaiting_approval"


def test_a_correction_waits_by_itself(installation: Installation, tmp_path: Path) -> None:
    batch_id = receive(installation, tmp_path, "always", "G", orders=1, bad=2)
    installation.work_off(batch_id)
    path = tmp_path / "corrected.csv"
    path.write_bytes((installation.report(batch_id, "rejected") or b"").replace(b",x,", b",700,"))
    correction = installation.receive(path, "always")
    installation.work_off(correction)
    summary = installation.summary(correction)
    assert (summary["corrects"], summary["status"]) == (batch_id, "awaiting_approval")
    approve(installation, correction)
    installation.work_off(correction)
    assert installation.summary(correction)["orders"]["paid"] == 2
    assert installation.summary(batch_id)["status"] == "awaiting_approval"


def test_what_is_approved_is_what_was_checked(installation: Installation, tmp_path: Path) -> None:
    batch_id = receive(installation, tmp_path, "always", "H")
    installation.work_off(batch_id)
    approve(installation, batch_id)
    installation.rows("UPDATE orders SET amount = amount + 1 WHERE batch_id = %s", batch_id)
    with pytest.raises(ConstraintViolated, match="payments_are_of_what_was_approved"):
        settle.plan_batch(installation.system.database, installation.system.cipher, batch_id, ALWAYS)
    installation.rows("UPDATE orders SET amount = 2000 WHERE batch_id = %s", batch_id)
    installation.work_off(batch_id)
    check_finished(installation, batch_id, "completed_with_errors")


def test_a_profile_that_changes_meanwhile_changes_nothing_of_what_waits(installation: Installation, tmp_path: Path) -> None:
    batch_id = receive(installation, tmp_path, "always", "I")
    prepare(installation.system, batch_id)
    changed = replace(installation, system=replace(installation.system, clients=Clients({"always": Profile()})))
    changed.work_off(batch_id)
    assert changed.summary(batch_id)["status"] == "awaiting_approval"


def test_a_run_that_was_terminated_before_does_not_stop_what_is_approved(installation: Installation, tmp_path: Path) -> None:
    batch_id = receive(installation, tmp_path, "always", "J")
    installation.work_off(batch_id)
    installation.instance.add_dynamic_partitions("batches", [batch_id])
    tags: dict[str, Any] = {"dagster/partition": batch_id}
    run = installation.instance.create_run_for_job(job_def=dg.GraphDefinition("process_batch").to_job(), tags=tags)
    installation.instance.report_run_canceled(run)
    assert stalled(installation) == []
    approve(installation, batch_id)
    assert stalled(installation) == [batch_id]
    assert installation.summary(batch_id)["status"] == "loaded"


@pytest.fixture(scope="module")
def url(_module_installation: Installation) -> Iterator[str]:
    clients = Clients({"always": ALWAYS, "above": Profile(approval_above=5_000), "never": Profile()})
    with served(replace(_module_installation.system, clients=clients)) as url:
        yield url


def program(installation: Installation, url: str, *scopes: str, client: str = "always") -> Client:
    return client_of(installation.system, url, client, [READ, *scopes])


def answered(client: Client, batch_id: str, command: str, body: bytes = b'{"reason": "the wrong month"}') -> tuple[int, str]:
    answer = client.post(f"batches/{batch_id}/{command}", body, key=None, media_type="application/json")
    return answer.status_code, answer.json().get("type", "").rpartition("/")[2] or answer.json()["status"]


def test_a_batch_is_approved_through_the_api_by_another_token_than_sent_it(installation: Installation, url: str) -> None:
    sender, approver = (program(installation, url, *scopes, APPROVE) for scopes in ((WRITE, READ_REJECTED, CONTROL), ()))
    rows = [*order_rows(3, client_order_ref="", amount="2000"), order_row(client_order_ref="K-BAD", amount="x")]
    for number, row in enumerate(rows[:3]):
        row["client_order_ref"] = f"K-{number}"
    batch = sender.post("batches", csv_of(*rows)).json()
    batch_id = batch["batch_id"]
    assert (batch["approval"], batch["allowed"]) == (None, ["cancel"])
    assert answered(approver, batch_id, "approve") == (409, "not-awaiting-approval")
    installation.work_off(batch_id)
    batch = sender.get(f"batches/{batch_id}").json()
    assert (batch["status"], batch["finished"], batch["allowed"]) == ("awaiting_approval", False, ["cancel"])
    assert {phase["state"] for phase in batch["progress"]["phases"]} == {"done", "waiting"}
    assert set(batch["approval"]) == {"needed_because", "requested_at", "decided_by", "decided_at", "decision", "reason"}
    assert sender.get(batch["links"]["files"]["rejected.csv"]).text.count(batch_id) == 1
    assert [each["batch_id"] for each in sender.get("batches", status="awaiting_approval").json()["items"]] == [batch_id]
    assert approver.get(f"batches/{batch_id}").json()["allowed"] == ["approve", "refuse", "cancel"]
    for command in ("approve", "refuse"):
        assert answered(sender, batch_id, command) == (409, "own-batch")
        assert answered(program(installation, url, WRITE, CONTROL), batch_id, command) == (403, "missing-scope")
        assert answered(program(installation, url, APPROVE, client="never"), batch_id, command) == (404, "not-found")
    assert answered(sender, batch_id, "resume") == (202, "awaiting_approval")
    for body in (b"", b"{}", b'{"reason": " "}', b'{"reason": "x", "more": 1}'):
        assert answered(approver, batch_id, "refuse", body) == (400, "malformed-command")
    assert answered(approver, batch_id, "approve", b"") == (202, "loaded")
    assert answered(approver, batch_id, "approve", b"") == (202, "loaded")
    assert answered(approver, batch_id, "refuse") == (409, "not-awaiting-approval")
    assert stalled(installation) == [batch_id]
    installation.work_off(batch_id)
    assert answered(approver, batch_id, "approve", b"") == (202, "completed_with_errors")
    batch = sender.get(f"batches/{batch_id}").json()
    assert (batch["orders"]["paid"], batch["approval"]["decision"], batch["allowed"]) == (3, "approved", [])
    assert batch["approval"]["decided_by"] == f"always/{approver.token[4:12]}"
    actors = installation.rows(
        "SELECT DISTINCT actor FROM audit_events WHERE batch_id = %s AND changes::text LIKE '%%\"approval_decision\"%%'"
        " AND changes::text LIKE '%%approved%%'",
        batch_id,
    )
    assert actors == [(batch["approval"]["decided_by"],)]


def test_a_batch_is_refused_through_the_api_and_a_run_ends_it(installation: Installation, url: str) -> None:
    charged = installation.sandbox.ledger()
    sender, approver = program(installation, url, WRITE), program(installation, url, APPROVE)
    body = csv_of(order_row(client_order_ref="L-1"))
    batch_id = sender.post("batches", body).json()["batch_id"]
    installation.work_off(batch_id)
    assert answered(approver, batch_id, "refuse") == (202, "cancelling")
    assert answered(approver, batch_id, "refuse") == (202, "cancelling")
    assert answered(approver, batch_id, "approve") == (409, "not-awaiting-approval")
    assert stalled(installation) == [batch_id]
    assert "cancelled" in (installation.run(batch_id) or "")
    batch = sender.get(f"batches/{batch_id}").json()
    assert (batch["status"], batch["approval"]["decision"], batch["orders"]["cancelled"]) == ("cancelled", "refused", 1)
    assert installation.summary(batch_id)["cancelled"]["why"] == batch["approval"]["reason"] == "the wrong month"
    assert installation.sandbox.ledger() == charged
    assert sender.post("batches", body).status_code == 202  # its references, and its bytes, may come again


def test_what_is_approved_at_once_is_not_waited_for_as_for_the_run_before(installation: Installation, url: str) -> None:
    batch_id = (
        program(installation, url, WRITE).post("batches", csv_of(order_row(client_order_ref="M-1"))).json()["batch_id"]
    )
    installation.rows("UPDATE batches SET run_requests = 1, run_requested_at = now() WHERE batch_id = %s", batch_id)
    installation.work_off(batch_id)
    assert answered(program(installation, url, APPROVE), batch_id, "approve", b"") == (202, "loaded")
    asked = []
    for _ in range(2):
        result = stalled_sensor(
            dg.build_sensor_context(instance=installation.instance, resources={"system": installation.system})
        )
        assert isinstance(result, dg.SensorResult)
        asked += [request.partition_key for request in result.run_requests or ()]
    assert asked == [batch_id]

"""Giving money back as its users meet it: plan, question, refunds, corrections; and what the service's books say then."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result

from orders_pipeline.cli import main
from orders_pipeline.clients.profiles import Clients, Profile
from orders_pipeline.intake import steps
from orders_pipeline.orchestration import checks
from orders_pipeline.sandbox.ledger import page_parameters
from orders_pipeline.settlement.refunds import refunding
from orders_pipeline.settlement.refunds.plan import read_plan, write_plan
from orders_pipeline_tests.support.commands import COMMAND, PATIENCE_S, end, start, wait_for
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import CALLS_A_SECOND, Installation, prepare, work_off
from orders_pipeline_tests.support.order_file import OrderFile
from orders_pipeline_tests.support.scenario import Scenario

CUSTOMERS, EACH = 4, 3  # customers, each with so many orders of 1,000 yen and more
SAID = ("--why", "the goods came back", "--who", "operator", "--yes")


@pytest.fixture(autouse=True)
def _house_settings(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in installation.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def batch(installation: Installation, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., str]:
    """A function that has a file of a client of the test's own paid and notified, and returns its batch."""
    client = f"c{abs(hash(request.node.nodeid)) % 10**12}"

    def taken(customers: int = CUSTOMERS) -> str:
        made = OrderFile("utf-8")
        for number in range(customers * EACH):
            made.add(
                order_row(
                    client_order_ref=f"R-{number}",
                    customer_code=f"C-{number % customers}",
                    email=f"c{number % customers}@example.com",
                    notify_channel="email",
                    amount=str(1000 + number),
                )
            )
        batch_id = installation.receive(made.write(tmp_path / "orders.csv"), client)
        Scenario(installation, installation.system, client).work_off(batch_id)
        return batch_id

    return taken


def refund(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["refund", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def resolve(resolved_id: str, *decision: str) -> Result:
    return CliRunner().invoke(main, ["resolve", resolved_id, *decision, "--why", "seen at the service"])


def answer(*arguments: str, status: int = 0) -> dict[str, Any]:
    result = refund(*arguments, "--json")
    assert result.exit_code == status, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def their_payments(installation: Installation, batch_id: str) -> dict[str, tuple[int, str]]:
    """Return what the service has refunded of each payment of a batch, and the payment's state there."""
    parameters = page_parameters(limit=10_000) | {"from_us": 0, "to_us": 2**62}
    found = [each for _, each in installation.sandbox.service.ledger.payments("created", parameters)]
    return {each.id: (each.refunded, each.status) for each in found if each.batch_id == batch_id and each.status != "failed"}


def check_refunds(installation: Installation, batch_id: str) -> dict[str, Any]:
    """Assert that our books and the service's agree on every yen refunded; return the batch's summary."""
    ours = installation.rows(
        "SELECT service_payment_id, (SELECT coalesce(sum(refunds.amount), 0) FROM refunds "
        "WHERE refunds.payment_id = payments.payment_id AND refunds.status = 'succeeded')::int, status "
        "FROM payments WHERE batch_id = %s AND status <> 'declined'",
        batch_id,
    )
    assert {charge: (yen, status) for charge, yen, status in ours} == their_payments(installation, batch_id)
    summary, theirs = installation.summary(batch_id), installation.sandbox.ledger(batch_id)
    ((refunded,),) = installation.rows(
        "SELECT coalesce(sum(amount), 0) FROM orders WHERE batch_id = %s AND status = 'refunded'", batch_id
    )
    assert theirs["payments"]["refunded_jpy"] == refunded
    assert theirs["payments"]["amount_jpy"] == summary["amount_jpy"]["paid"] + refunded
    assert theirs["notifications"]["sent"] == summary["notifications"]["sent"]
    assert theirs["notifications"]["duplicates"] == 0
    assert installation.sandbox.ledger()["notifications"]["worst_window"] <= CALLS_A_SECOND
    with installation.system.database.begin() as transaction:
        assert all(each.passed for each in checks.payment_checks(transaction, batch_id))
    assert summary["status"] in ("completed", "completed_with_errors")
    return summary


def refunds_at_service(installation: Installation, batch_id: str) -> int:
    return sum(yen > 0 for yen, _ in their_payments(installation, batch_id).values())


def test_a_whole_batch_is_refunded_and_a_second_run_sends_nothing(
    installation: Installation, batch: Callable[..., str]
) -> None:
    batch_id = batch()
    yen = installation.summary(batch_id)["amount_jpy"]["paid"]
    result = answer(batch_id, *SAID)
    assert result["plan"]["orders"] == {
        "chosen": CUSTOMERS * EACH,
        "refundable": CUSTOMERS * EACH,
        "under_way": 0,
        "refunded": 0,
        "not_paid": 0,
        "notified": CUSTOMERS * EACH,
    }
    assert result["refunds"] == {"planned": CUSTOMERS, "succeeded": CUSTOMERS, "declined": 0, "unknown": 0}
    assert result["amount_jpy"] == {"planned": yen, "succeeded": yen, "declined": 0, "unknown": 0}
    assert result["corrections"] == {"planned": CUSTOMERS, "sent": CUSTOMERS, "failed": 0}
    assert result["not_refunded"] == []
    summary = check_refunds(installation, batch_id)
    assert (summary["status"], summary["orders"]["refunded"]) == ("completed", CUSTOMERS * EACH)
    assert json.loads(installation.report(batch_id, "result") or b"")["amount_jpy"]["refunded"] == yen
    templates = [each["template_id"] for each in [*installation.sandbox.service.recent_notifications][-CUSTOMERS:]]
    assert templates == ["order-refund"] * CUSTOMERS
    theirs = installation.sandbox.ledger(batch_id)
    again = answer(batch_id, *SAID)
    assert again["plan"]["orders"]["refunded"] == CUSTOMERS * EACH
    assert (again["refunds"], again["corrections"]) == (result["refunds"], result["corrections"])
    assert installation.sandbox.ledger(batch_id) == theirs


def test_who_asked_for_it_why_and_when_is_kept(installation: Installation, batch: Callable[..., str]) -> None:
    batch_id = batch(1)
    answer(batch_id, *SAID)
    ((who, why, when),) = installation.rows(
        "SELECT requested_by, reason, created_at FROM refunds WHERE batch_id = %s", batch_id
    )
    assert (who, why) == ("operator", "the goods came back")
    assert when is not None


def test_one_order_of_a_payment_for_several_is_refunded_singly(
    installation: Installation, batch: Callable[..., str]
) -> None:
    batch_id = batch()
    result = answer(batch_id, "--order", "r-1", *SAID)
    assert result["amount_jpy"]["succeeded"] == 1001
    summary = check_refunds(installation, batch_id)
    assert (summary["orders"]["refunded"], summary["payments"]["succeeded"]) == (1, CUSTOMERS)
    assert answer(batch_id, "--order", "R-1", "--order", "R-5", *SAID)["plan"]["orders"]["refunded"] == 1
    answer(batch_id, *SAID)
    assert check_refunds(installation, batch_id)["amount_jpy"]["paid"] == 0


def test_a_plan_is_shown_and_nothing_happens(installation: Installation, batch: Callable[..., str]) -> None:
    batch_id = batch()
    theirs = installation.sandbox.ledger(batch_id)
    plan = answer(batch_id, "--order", "R-0", "--plan")
    assert plan["plan"]["amount_jpy"]["refundable"] == 1000
    assert "1 order, 1,000 yen, in 1 refund" in refund(batch_id, "--order", "R-0", "--plan").stdout
    assert installation.sandbox.ledger(batch_id) == theirs
    assert installation.rows("SELECT count(*) FROM refunds WHERE batch_id = %s", batch_id) == [(0,)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--yes",),
        ("--why", " ", "--yes"),
        ("--why", "x", "--who", " ", "--yes"),
        ("--why", "x" * 501, "--yes"),
        ("--why", "x"),
    ],
)
def test_without_a_reason_or_anybody_to_ask_nothing_is_begun(arguments: tuple[str, ...]) -> None:
    assert refund("20260701-000000000000", *arguments).exit_code == 2


def test_what_is_not_there_is_said_so(installation: Installation, batch: Callable[..., str]) -> None:
    batch_id = batch(1)
    wrong = refund(batch_id, "--order", "R-0", "--order", "R-99", *SAID)
    assert (wrong.exit_code, "E_UNKNOWN_ORDER: 1 of the named orders" in wrong.stderr) == (2, True)
    assert "R-99" in wrong.stderr
    assert "E_UNKNOWN_BATCH" in refund("20260701-000000000000", *SAID).stderr
    assert refunds_at_service(installation, batch_id) == 0


@pytest.mark.parametrize(("said", "status"), [("n", 1), ("y", 0)])
def test_at_a_terminal_it_is_asked_for(
    installation: Installation, batch: Callable[..., str], said: str, status: int
) -> None:
    batch_id = batch(1)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "refund", batch_id, "--why", "x"],
        env=dict(os.environ) | installation.environment(),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(ours, f"{said}\n".encode())
    ended = end(process)
    for each in (ours, theirs):
        os.close(each)
    assert ended.returncode == status, ended.stderr
    assert "to refund      3 orders, 3,003 yen, in 1 refund" in ended.stdout
    assert refunds_at_service(installation, batch_id) == (1 if said == "y" else 0)


def test_a_refund_that_the_service_declines_leaves_its_orders_paid_and_is_listed(
    installation: Installation, batch: Callable[..., str]
) -> None:
    batch_id = batch()
    charge = next(iter(their_payments(installation, batch_id)))
    given_back = requests.post(
        f"{installation.sandbox.url}/v1/payments/{charge}/refunds",
        json={"amount": 1, "reason": "behind our back"},
        headers={"Idempotency-Key": f"behind-{batch_id}"},
        timeout=10,
    )
    assert given_back.status_code == 201
    result = answer(batch_id, *SAID, status=3)
    assert (result["refunds"]["succeeded"], result["refunds"]["declined"]) == (CUSTOMERS - 1, 1)
    (left,) = result["not_refunded"]
    assert (left["status"], left["code"], len(left["orders"])) == ("declined", "validation", EACH)
    assert installation.summary(batch_id)["orders"]["paid"] == EACH
    assert result["corrections"]["sent"] == CUSTOMERS - 1
    assert "declined" in refund(batch_id, *SAID).stdout  # tried again, under another key


def test_of_orders_that_were_not_paid_nothing_is_refunded(installation: Installation, batch: Callable[..., str]) -> None:
    installation.sandbox.change(faults="decline=0.5,seed=3")
    batch_id = batch(8)
    declined = installation.summary(batch_id)["orders"]["declined"]
    assert 0 < declined < 8 * EACH
    result = answer(batch_id, *SAID)
    assert result["plan"]["orders"]["not_paid"] == result["plan"]["not_paid"]["declined"] == declined
    summary = check_refunds(installation, batch_id)
    assert (summary["orders"]["paid"], summary["orders"]["declined"]) == (0, declined)


@pytest.mark.usefixtures("impatient")
def test_a_service_that_answers_unclearly_refunds_every_yen_once(
    installation: Installation, batch: Callable[..., str]
) -> None:
    batch_id = batch(12)
    kinds = ("reset_after", "reset_before", "error_after", "error_before", "malformed", "wrong_body", "rate_limited")
    faults = ",".join(f"{kind}=0.1" for kind in kinds)
    installation.sandbox.change(faults=f"{faults},booked_late=0.1,late_s=0.3,seed=5,retry_after=0,max_per_key=3")
    while refund(batch_id, *SAID).exit_code == 1:  # a drain gives up after some tries; a later one goes on
        continue
    summary = check_refunds(installation, batch_id)
    assert summary["orders"]["refunded"] == 12 * EACH
    assert installation.rows("SELECT count(*) FROM refunds WHERE batch_id = %s", batch_id) == [(12,)]


@pytest.mark.usefixtures("impatient")
def test_while_the_service_takes_nothing_the_refund_stays_open_and_can_be_resumed(
    installation: Installation, batch: Callable[..., str]
) -> None:
    batch_id = batch(2)
    installation.sandbox.change(faults="unavailable=1,retry_after=0", notification_faults={})
    result = answer(batch_id, *SAID, status=1)
    assert (result["refunds"]["planned"], result["refunds"]["succeeded"]) == (2, 0)
    assert installation.summary(batch_id)["orders"]["paid"] == 2 * EACH
    installation.sandbox.change(faults={})
    result = answer(batch_id, *SAID)
    assert result["plan"]["orders"]["under_way"] == 2 * EACH
    assert check_refunds(installation, batch_id)["orders"]["refunded"] == 2 * EACH


def test_c12_to_c16_a_refund_that_is_killed_is_resumed_and_refunds_once(
    installation: Installation, batch: Callable[..., str]
) -> None:
    batch_id = batch(12)
    installation.sandbox.change(latency_ms=300, notification_latency_ms=0)
    environment = installation.environment(ORDERS_PAYMENT_CONCURRENCY="2")
    process = start(environment, "refund", batch_id, *SAID)
    wait_for(lambda: refunds_at_service(installation, batch_id) >= 3 or process.poll() is not None, "three refunds")
    os.killpg(process.pid, signal.SIGKILL)
    end(process)
    assert 3 <= refunds_at_service(installation, batch_id) < 12
    assert (
        "(sent, not answered yet); resumes by itself; at once with: orders-pipeline resume"
        in CliRunner().invoke(main, ["status", batch_id]).output
    )
    planned = installation.rows("SELECT refund_id FROM refunds WHERE batch_id = %s ORDER BY 1", batch_id)
    installation.sandbox.change(latency_ms=0)
    result = answer(batch_id, *SAID)
    assert result["refunds"]["succeeded"] == len(planned) == 12
    assert installation.rows("SELECT refund_id FROM refunds WHERE batch_id = %s ORDER BY 1", batch_id) == planned
    assert check_refunds(installation, batch_id)["orders"]["refunded"] == 12 * EACH
    assert result["corrections"] == {"planned": 12, "sent": 12, "failed": 0}


def test_what_became_of_a_refund_is_said_by_a_person_where_nobody_else_can_know(
    installation: Installation, batch: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = batch(1)
    monkeypatch.setenv("ORDERS_PAYMENT_CAPABILITIES", "none")
    monkeypatch.setenv("ORDERS_PAYMENT_TIMEOUT_S", "0.5")
    installation.sandbox.change(faults="timeout_after=1,max_per_key=1,hang_s=1", notification_faults={})
    (left,) = answer(batch_id, "--order", "R-1", *SAID, status=1)["not_refunded"]
    assert (left["status"], left["needs_a_person"], left["orders"]) == ("unknown", True, ["R-1"])
    how = f"decide with: orders-pipeline resolve {left['refund_id']}"
    assert how in refund(batch_id, "--order", "R-1", *SAID).output
    assert how in CliRunner().invoke(main, ["status", batch_id]).output
    assert refunds_at_service(installation, batch_id) == 1
    for wrong in ((), ("--refunded", "ref-1", "--not-refunded"), ("--refunded", ""), ("--paid", "ref-1")):
        assert resolve(left["refund_id"], *wrong).exit_code in (1, 2)
    said = resolve(left["refund_id"], "--refunded", "ref-1")
    assert (said.exit_code, said.output) == (
        0,
        f"written down; resume with: orders-pipeline resume {batch_id}\n",
    )
    assert installation.summary(batch_id)["refunds"]["corrections"] == {"planned": 1, "sent": 0, "failed": 0, "open": 1}
    assert json.loads(installation.report(batch_id, "result") or b"")["open_refunds"] == []
    resumed = CliRunner().invoke(main, ["resume", batch_id])
    assert (resumed.exit_code, "corrections  1 planned: 1 sent\n" in resumed.output) == (0, True)
    assert check_refunds(installation, batch_id)["open_refunds"] == []


@pytest.mark.parametrize(
    "said", [(), ("--paid", "pay-1", "--not-paid"), ("--not-paid", "--refunded", "ref-1"), ("--paid", "")]
)
def test_a_decision_is_one_and_whole(said: tuple[str, ...]) -> None:
    result = resolve("00000000-0000-4000-8000-000000000000", *said)
    assert (result.exit_code, "say one of" in result.output) == (2, True)


@pytest.mark.parametrize("said", [("--paid", "pay-1"), ("--not-paid",), ("--refunded", "ref-1"), ("--not-refunded",)])
def test_a_decision_is_about_what_there_is(said: tuple[str, ...]) -> None:
    result = resolve("00000000-0000-4000-8000-000000000000", *said)
    assert (result.exit_code, "E_NOT_RESOLVABLE: there is no such" in result.output) == (2, True)


def test_two_commands_at_once_refund_once(installation: Installation, batch: Callable[..., str]) -> None:
    batch_id = batch(12)
    installation.sandbox.change(latency_ms=100, notification_latency_ms=0)
    environment = installation.environment(ORDERS_PAYMENT_CONCURRENCY="2")
    commands = [start(environment, "refund", batch_id, *SAID) for _ in range(2)]
    ended = [process.communicate(timeout=PATIENCE_S) and process.returncode for process in commands]
    # who ends first may find what the other has in its hands
    assert set(ended) <= {0, 1}
    assert 0 in ended
    assert answer(batch_id, *SAID)["refunds"]["succeeded"] == 12
    assert check_refunds(installation, batch_id)["orders"]["refunded"] == 12 * EACH


def test_the_comparison_with_the_service_finds_nothing_after_a_part_and_after_all(
    installation: Installation, batch: Callable[..., str]
) -> None:
    batch_id = batch(2)
    for orders in (("--order", "R-1"), ()):
        answer(batch_id, *orders, *SAID)
        compared = CliRunner().invoke(main, ["reconcile", batch_id, "--json"])
        assert compared.exit_code == 0, compared.output
        found = json.loads(compared.stdout)
        assert (found["payments"]["too_young"], found["findings"]["open"]) == (0, {})
        assert found["batches_closed"] == [batch_id]


def test_a_client_that_is_configured_no_more_is_paid_for_what_is_loaded_and_refunded_what_was_paid(
    installation: Installation, tmp_path: Path
) -> None:
    """What is not loaded yet is rejected, whichever step it came to."""
    without = replace(installation.system, clients=Clients({"another": Profile()}))
    batches = {}
    for done, step in enumerate((steps.stage_batch, prepare), 1):
        made = OrderFile("utf-8")
        for number in range(2):
            made.add(order_row(client_order_ref=f"R-{done}-{number}", customer_code=f"C-{number}", notify_channel="email"))
        batches[step] = installation.receive(made.write(tmp_path / f"{done}.csv"), "leaves")
        step(installation.system, batches[step])
        work_off(without, batches[step])
    given_back = installation.summary(batches[steps.stage_batch])
    assert (given_back["status"], given_back["status_code"]) == ("rejected", "F_UNKNOWN_CLIENT")
    assert installation.summary(batches[prepare])["status"] == "completed"
    said = {"requested_by": "operator", "reason": "the contract ended"}
    write_plan(installation.system.database, read_plan(installation.system.database, batches[prepare], ["R-2-0"]), **said)
    refunding.resume(without, batches[prepare])
    refunding.carry_out(without, read_plan(installation.system.database, batches[prepare]), **said)
    refunds = installation.summary(batches[prepare])["refunds"]
    assert (refunds["succeeded"], refunds["corrections"]["sent"]) == (2, 2)

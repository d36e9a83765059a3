"""Reconciliation as its users meet it: the command, the nightly asset with its check, the schedule that starts it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import requests
from click.testing import CliRunner, Result

from orders_pipeline.cli import main
from orders_pipeline.cli.reconcile import SHOWN_FINDINGS
from orders_pipeline.definitions import defs
from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline.orchestration.assets.reconciliation import LEDGERS_AGREE, reconciliation
from orders_pipeline.orchestration.schedules import daily_reconciliation
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline_tests.support.api import csv_of
from orders_pipeline_tests.support.factories import order_rows
from orders_pipeline_tests.support.installation import Installation, check_finished

HOUR_US = 3_600_000_000


@pytest.fixture(autouse=True)
def _house_settings(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in installation.environment().items():
        monkeypatch.setenv(name, value)
    yield
    installation.rows("DELETE FROM reconciliation_findings")
    let_time_pass(installation, hours=30 * 24)


def reconcile(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["reconcile", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def answer(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(reconcile(*arguments, "--json").output)
    return found


def let_time_pass(installation: Installation, hours: int = 1) -> None:
    """Make what happened on both sides older."""
    with contextlib.closing(sqlite3.connect(installation.home.parent / "services.sqlite")) as books, books:
        books.execute("UPDATE payments SET created_us = created_us - ?", (hours * HOUR_US,))
    for table, names in (("payments", ("created_at", "sent_at", "settled_at")), ("batches", ("finished_at",))):
        installation.rows(
            f"UPDATE {table} SET {', '.join(f'{name} = {name} - make_interval(hours => {hours})' for name in names)}"
        )


def paid_batch(installation: Installation, tmp_path: Path, client: str) -> str:
    """Have a batch finished on both sides, an hour ago."""
    path = tmp_path / "orders.csv"
    write_sample(path, rows=30, seed=5, bad=0)
    batch_id = str(installation.take(path, client)["batch_id"])
    check_finished(installation, batch_id)
    let_time_pass(installation)
    return batch_id


def refund_one(installation: Installation, batch_id: str) -> tuple[str, str, int]:
    """Give a charge back at the service, behind our back, and return our payment, theirs and the yen."""
    ((payment_id, charge_id, yen),) = installation.rows(
        "SELECT payment_id::text, service_payment_id, amount FROM payments WHERE batch_id = %s LIMIT 1", batch_id
    )
    given_back = requests.post(
        f"{installation.sandbox.url}/v1/payments/{charge_id}/refunds",
        json={"amount": yen, "reason": "given back"},
        headers={"Idempotency-Key": uuid.uuid4().hex},
        timeout=10,
    )
    assert given_back.status_code == 201
    return payment_id, charge_id, yen


def materialise(installation: Installation) -> dg.ExecuteInProcessResult:
    return dg.materialize([reconciliation], instance=installation.instance, resources={"system": installation.system})


def test_a_batch_as_the_pipeline_leaves_it_agrees_at_once_and_is_closed(installation, tmp_path):
    path = tmp_path / "orders.csv"
    write_sample(path, rows=30, seed=6, bad=0.1)
    batch_id = installation.receive(path, "clean")
    assert installation.run(batch_id) is None
    summary, found = installation.summary(batch_id), answer(batch_id)
    assert (found["open_findings"], found["batches_closed"]) == ([], [])  # closed at its end already
    assert found["payments"] == {
        "here": summary["payments"]["planned"],
        "there": installation.sandbox.ledger(summary["batch_id"])["payments"]["count"],
        "too_young": 0,
        "foreign": found["payments"]["foreign"],
        "foreign_unreadable": 0,
    }
    ((there, paid, differences, total),) = installation.rows(
        "SELECT amount_at_service, amount_paid, differences, rows_total FROM batch_closings WHERE batch_id = %s",
        summary["batch_id"],
    )
    assert (
        there
        == paid
        == summary["amount_jpy"]["paid"]
        == installation.sandbox.ledger(summary["batch_id"])["payments"]["amount_jpy"]
    )
    assert (differences, total) == ([], 30)


def test_the_command_says_in_words_that_the_ledgers_agree(installation, tmp_path):
    batch_id = paid_batch(installation, tmp_path, "words")
    for arguments in ((), (batch_id,), (batch_id, "--days", "3")):
        result = reconcile(*arguments)
        assert (result.exit_code, "the ledgers agree: nothing is open" in result.output) == (0, True)


def test_the_command_names_each_difference_and_ends_with_1_while_one_is_open(installation, tmp_path):
    batch_id = paid_batch(installation, tmp_path, "differs")
    payment_id, charge_id, yen = refund_one(installation, batch_id)
    result = reconcile()
    assert result.exit_code == 1
    assert "the ledgers do not agree: 1 finding is open" in result.output
    assert (
        f"C_STATE_DIFFERS  {payment_id} (succeeded, {yen:,} yen here), {charge_id} (refunded, {yen:,} yen there), since"
        in (result.output)
    )
    found = answer(batch_id)
    (finding,) = found["open_findings"]
    assert found["findings"] == {"open": {"C_STATE_DIFFERS": 1}, "accepted": 0, "new": 0, "gone": 0, "healed": 0}
    assert (finding["payment_id"], finding["service_payment_id"], finding["batch_id"]) == (payment_id, charge_id, batch_id)
    assert (finding["ours"], finding["theirs"]) == (
        {"amount": yen, "status": "succeeded"},
        {"amount": yen, "status": "refunded"},
    )
    assert 0 <= finding["age_s"] < 60


def test_the_command_says_the_sum_first_and_few_of_many_differences_those_first_that_wait(installation, tmp_path):
    path = tmp_path / "orders.csv"
    path.write_bytes(csv_of(*(row | {"customer_code": f"C-{at}"} for at, row in enumerate(order_rows(25)))))
    batch_id = str(installation.take(path, "many")["batch_id"])
    let_time_pass(installation)
    lose(installation, batch_id, ALL_TRACES)
    accepted, *waiting = [each["finding_id"] for each in answer("--days", "1")["open_findings"]]
    reconcile("--accept", str(accepted), "--why", "a test")
    lines = reconcile("--days", "1").output.splitlines()
    (verdict,) = (at for at, line in enumerate(lines) if line == "the ledgers do not agree: 24 findings are open")
    listed = [(at, line.split()[0]) for at, line in enumerate(lines) if ", since " in line]
    assert [number for _, number in listed] == [str(each) for each in waiting[:SHOWN_FINDINGS]]
    assert verdict < listed[0][0]
    assert lines[-1] == f"  and {len(waiting) + 1 - SHOWN_FINDINGS} more: see --json"
    # so that no number of accepted ones hides another from who reads JSON, which has not all either
    assert [each["finding_id"] for each in answer("--days", "1")["open_findings"]] == [*waiting, accepted]


def test_the_command_says_by_code_why_it_could_not_compare(installation):
    result = reconcile("20260701-nowhere", "--json")
    assert (result.exit_code, json.loads(result.output)["error"]["code"]) == (2, "E_UNKNOWN_BATCH")
    installation.sandbox.change(lookups=False)
    result = reconcile("--json")
    assert (result.exit_code, json.loads(result.output)["error"]["code"]) == (1, "E_PAYMENT_LIST")


def test_the_asset_compares_the_last_days_and_its_check_passes(installation, tmp_path):
    batch_id = paid_batch(installation, tmp_path, "nightly")
    result = materialise(installation)
    (materialisation,) = result.asset_materializations_for_node("reconciliation")
    metadata = {name: value.value for name, value in materialisation.metadata.items()}
    ours = installation.rows("SELECT count(*) FROM payments WHERE batch_id = %s", batch_id)[0][0]
    assert metadata["payments at the service"] == ours
    assert (metadata["open findings"], metadata["batches closed"], metadata["findings"]) == (0, 1, "none")
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == (LEDGERS_AGREE.name, True)


def test_a_difference_fails_the_check_but_not_the_run(installation, tmp_path):
    batch_id = paid_batch(installation, tmp_path, "nightly-differs")
    refund_one(installation, batch_id)
    result = materialise(installation)
    assert result.success
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, check.blocking) == (False, False)
    assert {name: value.value for name, value in check.metadata.items()} == {"C_STATE_DIFFERS": 1}


def test_a_service_that_cannot_be_asked_fails_the_run_with_a_code(installation):
    installation.sandbox.change(lookups=False)
    result = dg.materialize(
        [reconciliation], instance=installation.instance, resources={"system": installation.system}, raise_on_error=False
    )
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "E_PAYMENT_LIST" in failure.step_failure_data.user_failure_data.description


def test_every_night_at_three_in_japan_the_ledgers_are_compared():
    assert daily_reconciliation.default_status == dg.DefaultScheduleStatus.RUNNING
    assert defs.resolve_schedule_def("daily_reconciliation").job_name == "reconcile"
    keys = defs.resolve_job_def("reconcile").asset_layer.executable_asset_keys
    assert keys == {dg.AssetKey("reconciliation")}
    schedule = defs.resolve_schedule_def("daily_reconciliation")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * *", "Asia/Tokyo")


# --- charges that our ledger has lost ---------------------------------------------------------------------------------


PAID_TRACES = (
    "DELETE FROM notification_orders USING orders WHERE orders.order_id = notification_orders.order_id AND batch_id = %s",
    "DELETE FROM notifications WHERE batch_id = %s",
    "DELETE FROM payment_orders USING orders WHERE orders.order_id = payment_orders.order_id AND batch_id = %s",
    "DELETE FROM payments WHERE batch_id = %s",
    "DELETE FROM batch_closings WHERE batch_id = %s",
    "UPDATE orders SET status = 'pending' WHERE batch_id = %s",
    "UPDATE batches SET status = 'loaded', finished_at = NULL WHERE batch_id = %s",
)
ALL_TRACES = (*PAID_TRACES, "DELETE FROM orders WHERE batch_id = %s", "DELETE FROM batches WHERE batch_id = %s")


def lose(installation: Installation, batch_id: str, statements: tuple[str, ...]) -> None:
    """Put the database back to before something happened to a batch, as a backup has it: no rule is asked."""
    with psycopg.connect(libpq_url(installation.system.database.url), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(statement.encode(), [batch_id])


def charged(installation: Installation) -> int:
    return int(installation.sandbox.ledger()["payments"]["succeeded"])


def test_d14_after_a_restore_nothing_is_paid_again_and_what_was_charged_is_taken_over(installation, tmp_path):
    installation.sandbox.change(guard_orders=False)
    batch_id = paid_batch(installation, tmp_path, "restored")
    lose(installation, batch_id, PAID_TRACES)
    before = charged(installation)
    assert reconcile("--days", "1").exit_code == 1
    assert "E_LEDGERS_DIFFER" in str(installation.run(batch_id))
    assert (charged(installation), installation.summary(batch_id)["status_code"]) == (before, "E_LEDGERS_DIFFER")
    assert reconcile("--days", "1").exit_code == 0
    installation.work_off(batch_id)
    assert (charged(installation), installation.summary(batch_id)["status"]) == (before, "completed")


def test_a_difference_that_a_person_answers_for_holds_nobody_up(installation, tmp_path):
    batch_id = paid_batch(installation, tmp_path, "answered")
    lose(installation, batch_id, ALL_TRACES)
    for finding in answer("--days", "1")["open_findings"]:
        said = reconcile("--accept", str(finding["finding_id"]), "--why", "given back by hand", "--who", "ops")
        assert said.exit_code == 0, said.output
    shown = answer("--days", "1")["open_findings"]
    assert {json.dumps(each["accepted"]) for each in shown} == {'{"by": "ops", "why": "given back by hand"}'}
    agreed = reconcile("--days", "1")
    assert (agreed.exit_code, "nothing is open; " in agreed.output, " accepted\n" in agreed.output) == (0, True, True)


def test_d14_after_a_restore_that_lost_a_whole_batch_no_other_is_paid_before_it_is_explained(installation, tmp_path):
    lost = paid_batch(installation, tmp_path, "lost")
    payment_ids = {
        payment_id for (payment_id,) in installation.rows("SELECT payment_id::text FROM payments WHERE batch_id = %s", lost)
    }
    lose(installation, lost, ALL_TRACES)
    findings = answer("--days", "1")["open_findings"]
    assert {finding["payment_id"] for finding in findings} == payment_ids
    assert {(finding["code"], finding["ours"]) for finding in findings} == {("C_MISSING_HERE", None)}
    path = tmp_path / "next.csv"
    write_sample(path, rows=5, seed=77, bad=0)
    batch_id = installation.receive(path, "next")
    assert "E_LEDGERS_DIFFER" in str(installation.run(batch_id))
    assert installation.sandbox.ledger(batch_id)["payments"]["succeeded"] == 0


def test_a_charge_of_somebody_elses_holds_nobody_up(installation, tmp_path):
    body = {
        "amount": 500,
        "currency": "JPY",
        "customer_code": "C-9",
        "reference": "their-own-system-1",
        "payment_method": {"type": "invoice"},
        "allocations": [{"order_id": "x-1", "amount": 500}],
    }
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    assert (
        requests.post(f"{installation.sandbox.url}/v1/payments", json=body, headers=headers, timeout=10).status_code == 201
    )
    let_time_pass(installation)
    compared = answer("--days", "1")
    assert (compared["findings"]["open"], compared["payments"]["foreign"]) == ({}, 1)
    assert "  of others      1 payment\n" in reconcile("--days", "1").output
    path = tmp_path / "orders.csv"
    write_sample(path, rows=5, seed=78, bad=0)
    check_finished(installation, installation.take(path, "unheld")["batch_id"])


def test_only_an_open_finding_is_accepted_and_only_for_a_reason(installation):
    assert reconcile("--accept", "999999", "--why", "so", "--json").exit_code != 0
    assert reconcile("--accept", "1").exit_code == 2

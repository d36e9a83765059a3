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
import pytest
import requests
from click.testing import CliRunner, Result

from orders_pipeline.assets.reconciliation import LEDGERS_AGREE, reconciliation
from orders_pipeline.cli import main
from orders_pipeline.definitions import defs
from orders_pipeline.schedules import daily_reconciliation
from orders_pipeline.synthetic import write_sample
from orders_pipeline_tests.house import House, check_finished

HOUR_US = 3_600_000_000


@pytest.fixture(autouse=True)
def _house_settings(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in house.environment().items():
        monkeypatch.setenv(name, value)
    yield
    house.rows("DELETE FROM reconciliation_findings")
    let_time_pass(house, hours=30 * 24)


def reconcile(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["reconcile", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def answer(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(reconcile(*arguments, "--json").output)
    return found


def let_time_pass(house: House, hours: int = 1) -> None:
    """Make what happened on both sides older."""
    with contextlib.closing(sqlite3.connect(house.home.parent / "services.sqlite")) as books, books:
        books.execute("UPDATE payments SET created_us = created_us - ?", (hours * HOUR_US,))
    for table, names in (("payments", ("created_at", "sent_at", "settled_at")), ("batches", ("finished_at",))):
        house.rows(f"UPDATE {table} SET {', '.join(f'{name} = {name} - make_interval(hours => {hours})' for name in names)}")


def paid_batch(house: House, tmp_path: Path, client: str) -> str:
    """Have a batch finished on both sides, an hour ago."""
    path = tmp_path / "orders.csv"
    write_sample(path, rows=30, seed=5, bad=0)
    batch_id = str(house.take(path, client)["batch_id"])
    check_finished(house, batch_id)
    let_time_pass(house)
    return batch_id


def refund_one(house: House, batch_id: str) -> tuple[str, str, int]:
    """Give a charge back at the service, behind our back, and return our payment, theirs and the yen."""
    ((payment_id, charge_id, yen),) = house.rows(
        "SELECT payment_id::text, service_payment_id, amount FROM payments WHERE batch_id = %s LIMIT 1", batch_id
    )
    given_back = requests.post(
        f"{house.sandbox.url}/v1/payments/{charge_id}/refunds",
        json={"amount": yen, "reason": "given back"},
        headers={"Idempotency-Key": uuid.uuid4().hex},
        timeout=10,
    )
    assert given_back.status_code == 201
    return payment_id, charge_id, yen


def materialise(house: House) -> dg.ExecuteInProcessResult:
    return dg.materialize([reconciliation], instance=house.instance, resources={"system": house.system})


def test_a_batch_as_the_pipeline_leaves_it_agrees_at_once_and_is_closed(house, tmp_path):
    path = tmp_path / "orders.csv"
    write_sample(path, rows=30, seed=6, bad=0.1)
    summary = house.take(path, "clean")
    found = answer(summary["batch_id"])
    assert (found["open_findings"], found["batches_closed"]) == ([], [])  # closed at its end already
    assert found["payments"] == {
        "here": summary["payments"]["planned"],
        "there": house.sandbox.ledger(summary["batch_id"])["payments"]["count"],
        "too_young": 0,
    }
    ((there, paid, differences, total),) = house.rows(
        "SELECT amount_at_service, amount_paid, differences, rows_total FROM batch_closings WHERE batch_id = %s",
        summary["batch_id"],
    )
    assert (
        there == paid == summary["amount_jpy"]["paid"] == house.sandbox.ledger(summary["batch_id"])["payments"]["amount_jpy"]
    )
    assert (differences, total) == ([], 30)


def test_the_command_says_in_words_that_the_ledgers_agree(house, tmp_path):
    batch_id = paid_batch(house, tmp_path, "words")
    for arguments in ((), (batch_id,), (batch_id, "--days", "3")):
        result = reconcile(*arguments)
        assert (result.exit_code, "the ledgers agree: nothing is open" in result.output) == (0, True)


def test_the_command_names_each_difference_and_ends_with_1_while_one_is_open(house, tmp_path):
    batch_id = paid_batch(house, tmp_path, "differs")
    payment_id, charge_id, yen = refund_one(house, batch_id)
    result = reconcile()
    assert result.exit_code == 1
    assert "the ledgers do not agree: 1 finding is open" in result.output
    assert (
        f"C_STATE_DIFFERS  {payment_id} (succeeded, {yen:,} yen here), {charge_id} (refunded, {yen:,} yen there), since"
        in (result.output)
    )
    found = answer(batch_id)
    (finding,) = found["open_findings"]
    assert found["findings"] == {"open": {"C_STATE_DIFFERS": 1}, "new": 0, "gone": 0, "healed": 0}
    assert (finding["payment_id"], finding["service_payment_id"], finding["batch_id"]) == (payment_id, charge_id, batch_id)
    assert (finding["ours"], finding["theirs"]) == (
        {"amount": yen, "status": "succeeded"},
        {"amount": yen, "status": "refunded"},
    )
    assert 0 <= finding["age_s"] < 60


def test_the_command_says_by_code_why_it_could_not_compare(house):
    result = reconcile("20260701-nowhere", "--json")
    assert (result.exit_code, json.loads(result.output)["error"]["code"]) == (1, "E_UNKNOWN_BATCH")
    house.sandbox.change(lookups=False)
    result = reconcile("--json")
    assert (result.exit_code, json.loads(result.output)["error"]["code"]) == (1, "E_PAYMENT_LIST")


def test_the_asset_compares_the_last_days_and_its_check_passes(house, tmp_path):
    batch_id = paid_batch(house, tmp_path, "nightly")
    result = materialise(house)
    (materialisation,) = result.asset_materializations_for_node("reconciliation")
    metadata = {name: value.value for name, value in materialisation.metadata.items()}
    ours = house.rows("SELECT count(*) FROM payments WHERE batch_id = %s", batch_id)[0][0]
    assert metadata["payments at the service"] == ours
    assert (metadata["open findings"], metadata["batches closed"], metadata["findings"]) == (0, 0, "none")
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == (LEDGERS_AGREE.name, True)


def test_a_difference_fails_the_check_but_not_the_run(house, tmp_path):
    batch_id = paid_batch(house, tmp_path, "nightly-differs")
    refund_one(house, batch_id)
    result = materialise(house)
    assert result.success
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, check.blocking) == (False, False)
    assert {name: value.value for name, value in check.metadata.items()} == {"C_STATE_DIFFERS": 1}


def test_a_service_that_cannot_be_asked_fails_the_run_with_a_code(house):
    house.sandbox.change(lookups=False)
    result = dg.materialize(
        [reconciliation], instance=house.instance, resources={"system": house.system}, raise_on_error=False
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

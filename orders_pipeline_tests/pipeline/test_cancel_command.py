"""`cancel`: a batch in any unfinished state is called off for good, its file may come again, and its books are equal."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from orders_pipeline import batches, cancelling, intake
from orders_pipeline.cli import main
from orders_pipeline.synthetic import write_sample
from orders_pipeline_tests.house import House, check_books

STEPS = {
    "received": [],
    "staged": [intake.stage_batch],
    "validated": [intake.stage_batch, intake.validate_batch],
    "loaded": [intake.stage_batch, intake.validate_batch, intake.load_batch],
}


def run(house: House, monkeypatch: pytest.MonkeyPatch, *arguments: str):
    for name, value in house.environment().items():
        monkeypatch.setenv(name, value)
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize("status", STEPS)
@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_batch_that_nothing_was_sent_of_is_cancelled_and_its_file_may_come_again(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: str, is_stopped: bool
) -> None:
    path = tmp_path / "orders.csv"
    client = f"{status}-{is_stopped}".lower()
    write_sample(path, rows=20, seed=1, bad=0.2)
    batch_id = house.receive(path, client)
    for step in STEPS[status]:
        step(house.system, batch_id)
    if is_stopped:
        with house.system.database.begin() as transaction:
            assert batches.stop(transaction, batch_id, "somebody")
    result = run(house, monkeypatch, "cancel", batch_id, "--why", "the wrong file", "--yes", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["status"], summary["cancelled"]["why"]) == ("cancelled", "the wrong file")
    rows, orders, yen = summary["rows"], summary["orders"], summary["amount_jpy"]
    assert sum(orders.values()) == orders["cancelled"] == (rows["accepted"] or 0)
    assert (yen["accepted"] or 0) == yen["cancelled"]
    if status in ("validated", "loaded"):
        check_books(house, batch_id)
        codes = [line["code"] for line in csv.DictReader((house.report(batch_id, "errors") or b"").decode().splitlines())]
        assert codes.count("P_CANCELLED") == (rows["accepted"] if status == "loaded" else 0)
        assert house.report(batch_id, "rejected")
    assert "never resumed" in run(house, monkeypatch, "resume", batch_id).stderr
    assert run(house, monkeypatch, "resume", batch_id).exit_code == 2
    assert run(house, monkeypatch, "cancel", batch_id, "--why", "again", "--yes").exit_code == 0
    assert house.summary(batch_id)["cancelled"]["why"] == "the wrong file"
    assert "was cancelled" in (house.run(batch_id) or "")
    again = house.take(path, client)
    assert again["status"] == "completed_with_errors"
    assert again["rejections"] == house.summary(again["batch_id"])["rejections"]
    assert "R_REF_EXISTS" not in again["rejections"]
    check_books(house, again["batch_id"])


def test_a_cancellation_that_was_broken_off_is_ended_by_the_next_run(house: House, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    write_sample(path, rows=20, seed=2, bad=0)
    batch_id = house.receive(path, "broken-off")
    for step in STEPS["loaded"]:
        step(house.system, batch_id)
    with house.system.database.begin() as transaction:
        cancelling.begin(transaction, batch_id, cancelled_by="somebody", why="the wrong file")
    assert "was cancelled" in (house.run(batch_id) or "")
    assert house.summary(batch_id)["orders"]["cancelled"] == 20
    assert house.sandbox.ledger(batch_id)["payments"]["count"] == 0


def test_a_batch_that_has_ended_is_not_cancelled_and_a_reason_and_a_yes_are_needed(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "orders.csv"
    write_sample(path, rows=5, seed=3, bad=0)
    batch_id = house.take(path, "ended")["batch_id"]
    refused = run(house, monkeypatch, "cancel", batch_id, "--why", "late", "--yes")
    assert refused.exit_code == 2
    assert f"orders-pipeline refund {batch_id}" in refused.stderr
    for arguments in (["--yes"], ["--why", " ", "--yes"], ["--why", "late"]):
        assert run(house, monkeypatch, "cancel", batch_id, *arguments).exit_code == 2

"""`cancel`: a batch in any unfinished state is called off for good, its file may come again, and its books are equal."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from orders_pipeline.batches import batches
from orders_pipeline.batches.artifacts import ACCEPTED, artifact
from orders_pipeline.batches.run_tags import PARTITION_TAG, STATUS_TAG
from orders_pipeline.cli import main
from orders_pipeline.clients.profiles import Clients, Profile
from orders_pipeline.intake import steps
from orders_pipeline.reports import finishing
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.settlement.payments.ledger import PaymentLedger
from orders_pipeline.upkeep import cancelling
from orders_pipeline_tests.support.installation import Installation, check_books
from orders_pipeline_tests.support.soak import first_of

STEPS = {
    "received": [],
    "staged": [steps.stage_batch],
    "validated": [steps.stage_batch, steps.validate_batch],
    "loaded": [steps.stage_batch, steps.validate_batch, steps.load_batch],
}


def run(installation: Installation, monkeypatch: pytest.MonkeyPatch, *arguments: str):
    for name, value in installation.environment().items():
        monkeypatch.setenv(name, value)
    return CliRunner().invoke(main, list(arguments))


def brought_to(installation: Installation, path: Path, client: str, *, seed: int, bad: float, status: str = "loaded") -> str:
    """Write a file, do the steps of its batch up to a status and return the batch."""
    write_sample(path, rows=20, seed=seed, bad=bad)
    batch_id = installation.receive(path, client)
    for step in STEPS[status]:
        step(installation.system, batch_id)
    return batch_id


@pytest.mark.parametrize(
    ("status", "is_stopped"),
    first_of([("loaded", True), ("validated", False), ("received", False), ("loaded", False), ("staged", False)], 2),
)
def test_a_batch_that_nothing_was_sent_of_is_cancelled_and_its_file_may_come_again(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: str, is_stopped: bool
) -> None:
    path = tmp_path / "orders.csv"
    client = f"{status}-{is_stopped}".lower()
    batch_id = brought_to(installation, path, client, seed=1, bad=0.2, status=status)
    if is_stopped:
        with installation.system.database.begin() as transaction:
            assert batches.stop(transaction, batch_id, "somebody")
    result = run(installation, monkeypatch, "cancel", batch_id, "--why", "the wrong file", "--yes", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["status"], summary["cancelled"]["why"]) == ("cancelled", "the wrong file")
    rows, orders, yen = summary["rows"], summary["orders"], summary["amount_jpy"]
    assert sum(orders.values()) == orders["cancelled"] == (rows["accepted"] or 0)
    assert (yen["accepted"] or 0) == yen["cancelled"]
    if status in ("validated", "loaded"):
        check_books(installation, batch_id)
        codes = [
            line["code"] for line in csv.DictReader((installation.report(batch_id, "errors") or b"").decode().splitlines())
        ]
        assert codes.count("P_CANCELLED") == (rows["accepted"] if status == "loaded" else 0)
        assert installation.report(batch_id, "rejected")
    assert list(installation.system.storage.list(artifact(batch_id, ACCEPTED))) == []
    assert "never resumed" in run(installation, monkeypatch, "resume", batch_id).stderr
    assert run(installation, monkeypatch, "resume", batch_id).exit_code == 2
    assert run(installation, monkeypatch, "cancel", batch_id, "--why", "again", "--yes").exit_code == 0
    assert installation.summary(batch_id)["cancelled"]["why"] == "the wrong file"
    assert "was cancelled" in (installation.run(batch_id) or "")
    again = installation.take(path, client)
    assert again["status"] == "completed_with_errors"
    assert again["rejections"] == installation.summary(again["batch_id"])["rejections"]
    assert "R_REF_EXISTS" not in again["rejections"]
    check_books(installation, again["batch_id"])


def test_a_cancellation_that_was_broken_off_is_ended_by_the_next_run(installation: Installation, tmp_path: Path) -> None:
    batch_id = brought_to(installation, tmp_path / "orders.csv", "broken-off", seed=2, bad=0)
    with installation.system.database.begin() as transaction:
        cancelling.begin(transaction, batch_id, cancelled_by="somebody", why="the wrong file")
    assert "was cancelled" in (installation.run(batch_id) or "")
    (run,) = installation.instance.get_runs(dg.RunsFilter(tags={PARTITION_TAG: batch_id}))
    assert run.status is dg.DagsterRunStatus.CANCELED  # nobody who watches for failures is called
    assert run.tags[STATUS_TAG] == "cancelled"
    assert installation.summary(batch_id)["orders"]["cancelled"] == 20
    assert installation.sandbox.ledger(batch_id)["payments"]["count"] == 0


def test_a_batch_that_is_cancelled_while_its_end_is_written_has_not_ended_before_its_orders_are_cancelled(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = installation.system
    batch_id = brought_to(installation, tmp_path / "orders.csv", "meanwhile", seed=3, bad=0)
    write = finishing._write_all_reports

    def cancelled_meanwhile(*given: Any) -> Any:
        with system.database.begin() as transaction:
            cancelling.begin(transaction, batch_id, cancelled_by="somebody", why="the wrong file")
        return write(*given)

    monkeypatch.setattr(finishing, "_write_all_reports", cancelled_meanwhile)
    assert finishing.finish_batch(system.storage, system.database, batch_id)["status"] == "cancelling"
    monkeypatch.undo()
    cancelling.finish(system, batch_id)
    summary = installation.summary(batch_id)
    assert (summary["status"], summary["orders"]["cancelled"], summary["orders"]["pending"]) == ("cancelled", 20, 0)


def test_a_batch_of_a_client_that_is_not_known_any_more_is_cancelled(installation: Installation, tmp_path: Path) -> None:
    batch_id = brought_to(installation, tmp_path / "orders.csv", "gone", seed=3, bad=0.2)
    system = replace(installation.system, clients=Clients({"other": Profile()}))
    with system.database.begin() as transaction:
        cancelling.begin(transaction, batch_id, cancelled_by="somebody", why="no client of ours")
    cancelling.finish(system, batch_id)
    summary = check_books(installation, batch_id)
    assert (summary["status"], summary["orders"]["cancelled"]) == ("cancelled", summary["rows"]["accepted"])
    assert installation.report(batch_id, "errors")


def test_a_batch_that_has_ended_is_not_cancelled_and_a_reason_and_a_yes_are_needed(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "orders.csv"
    write_sample(path, rows=5, seed=3, bad=0)
    batch_id = installation.take(path, "ended")["batch_id"]
    refused = run(installation, monkeypatch, "cancel", batch_id, "--why", "late", "--yes")
    assert refused.exit_code == 2
    assert f"orders-pipeline refund {batch_id}" in refused.stderr
    open_id = installation.receive(path, "open")
    for arguments in (["--yes"], ["--why", " ", "--yes"], ["--why", "late"]):
        refused = run(installation, monkeypatch, "cancel", open_id, *arguments)
        assert (refused.exit_code, "Error: " in refused.stderr) == (2, True)
    assert installation.summary(open_id)["status"] == "received"


def test_what_is_not_there_or_has_ended_is_said_before_anything_is_asked(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for command in (["cancel", "nope"], ["refund", "nope"], ["refund", "nope", "--why", "returned"]):
        refused = run(installation, monkeypatch, *command)
        assert (refused.exit_code, refused.stderr.partition(":")[0]) == (2, "E_UNKNOWN_BATCH")
    path = tmp_path / "orders.csv"
    path.write_text("no,orders\n1,2\n")
    batch_id = installation.take(path, "never-paid")["batch_id"]
    refused = run(installation, monkeypatch, "cancel", batch_id)
    assert (refused.exit_code, refused.stderr) == (2, "E_BATCH_ENDED: the batch has ended (rejected)\n")


def test_a_batch_that_waits_for_a_decision_is_cancelled_to_its_end_without_saying_why_again(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "orders.csv"
    write_sample(path, rows=3, seed=4, bad=0)
    monkeypatch.setenv("ORDERS_PAYMENT_CAPABILITIES", "none")
    monkeypatch.setenv("ORDERS_PAYMENT_TIMEOUT_S", "0.2")
    monkeypatch.setattr(PaymentLedger, "doubt_s", 0.5)
    installation.sandbox.change(faults="timeout_before=1,hang_s=0.5")
    batch_id = json.loads(run(installation, monkeypatch, "import", str(path), "--client", "in-doubt", "--json").stdout)[
        "batch_id"
    ]
    cancelled = run(installation, monkeypatch, "cancel", batch_id, "--why", "the wrong file", "--yes")
    assert (cancelled.exit_code, "end it" in cancelled.stdout) == (1, True)
    for payment in installation.summary(batch_id)["unknown_payments"]:
        decided = run(
            installation, monkeypatch, "resolve", payment["payment_id"], "--not-paid", "--why", "seen at the service"
        )
        assert decided.stdout == f"written down; resume with: orders-pipeline cancel {batch_id}\n"
    ended = run(installation, monkeypatch, "cancel", batch_id)
    assert ended.exit_code == 0, ended.output
    assert installation.summary(batch_id)["cancelled"]["why"] == "the wrong file"


@pytest.mark.usefixtures("impatient")
def test_refunds_of_a_cancelled_batch_are_resumed_and_nothing_else_of_it(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "orders.csv"
    write_sample(path, rows=3, seed=5, bad=0)
    installation.sandbox.change(notification_faults="unavailable=1,retry_after=0")
    paid = json.loads(run(installation, monkeypatch, "import", str(path), "--client", "then-cancelled", "--json").stdout)
    batch_id = paid["batch_id"]
    assert (paid["status"], paid["orders"]["paid"]) == ("paused", 3)
    assert run(installation, monkeypatch, "cancel", batch_id, "--why", "the wrong file", "--yes").exit_code == 0
    installation.sandbox.change(faults="unavailable=1,retry_after=0", notification_faults={})
    assert run(installation, monkeypatch, "refund", batch_id, "--why", "the wrong file", "--yes").exit_code == 1
    assert f"orders-pipeline resume {batch_id}" in run(installation, monkeypatch, "status", batch_id).stdout
    installation.sandbox.change(faults={})
    resumed = run(installation, monkeypatch, "resume", batch_id)
    assert resumed.exit_code == 0, resumed.output
    summary = installation.summary(batch_id)
    assert (summary["status"], summary["orders"]["refunded"], summary["notifications"]["sent"]) == ("cancelled", 3, 0)
    assert run(installation, monkeypatch, "resume", batch_id).exit_code == 2

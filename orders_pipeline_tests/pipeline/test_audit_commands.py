"""The audit as people and Dagster meet it: commands, downloads, runs, the sensor that seals, heads in a locked bucket."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import requests
from click.testing import CliRunner

from orders_pipeline.audit.recording import os_user
from orders_pipeline.audit.sealing import HEADS, NEWEST, anchor, seal
from orders_pipeline.audit.verifying import verify
from orders_pipeline.cli import main
from orders_pipeline.definitions import defs
from orders_pipeline.infrastructure.storage import S3Storage
from orders_pipeline.orchestration import runs
from orders_pipeline.orchestration.sensors import audit_sensor
from orders_pipeline.security.encryption import Cipher
from orders_pipeline.web import server
from orders_pipeline_tests.support import commands
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation
from orders_pipeline_tests.support.order_file import OrderFile
from orders_pipeline_tests.support.s3_server import open_s3


@pytest.fixture(autouse=True)
def _house_settings(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in installation.environment().items():
        monkeypatch.setenv(name, value)


def order_file(folder: Path, *rows: dict[str, str]) -> Path:
    made = OrderFile("utf-8")
    for row in rows:
        made.add(row)
    return made.write(folder / "orders.csv")


def call(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == status, result.output
    return result.stdout


def records(installation: Installation, after: int = 0) -> list[dict[str, Any]]:
    rows = installation.rows(
        "SELECT to_json(e) FROM audit_events AS e WHERE event_id > %s AND action <> 'image' ORDER BY event_id", after
    )
    return [row for (row,) in rows]


def tamper(installation: Installation, statement: str) -> None:
    """Run a statement as somebody who may switch the triggers off."""
    installation.rows(f"DO $$ BEGIN SET LOCAL session_replication_role = replica; {statement}; END $$")


def newest(installation: Installation) -> int:
    return int(installation.rows("SELECT coalesce(max(event_id), 0) FROM audit_events")[0][0])


def test_s13_a_batch_and_all_its_commands_are_told_by_the_audit(installation, tmp_path):
    bad = order_row(client_order_ref="A-2", amount="0")
    good = order_row(client_order_ref="A-1", customer_name="見本商店", notify_channel="email", email="planted@example.com")
    output = call("import", str(order_file(tmp_path, good, bad)), "--client", "acme", "--json", status=3)
    batch_id = json.loads(output)["batch_id"]
    call("rejected", batch_id)
    call("errors", batch_id, "-o", str(tmp_path / "errors.csv"))
    with socket.create_server((server.HOST, 0)) as free:
        port = free.getsockname()[1]
    with server.serving(installation.system, port) as url:
        assert requests.get(f"{url}/batches/{batch_id}/rejected.csv", timeout=10).status_code == 200
        assert requests.get(f"{url}/batches/{batch_id}/other.csv", timeout=10).status_code == 404
        root = requests.get(url, timeout=10)
        assert (root.status_code, batch_id in root.text) == (401, False)
    found = records(installation)
    assert {each["actor"] for each in found} == {os_user()}
    assert {each["origin"] for each in found} >= {"main import", "main rejected", "main errors"}
    downloads = [(each["entity"], each["detail"]["by"]) for each in found if each["action"] == "download"]
    assert downloads == [("rejected.csv", "command"), ("errors.csv", "command"), ("rejected.csv", "browser")]
    assert {each["batch_id"] for each in found if each["category"] == "phi_access"} == {batch_id}
    purposes = {each["detail"]["purpose"] for each in found if each["action"] == "read"}
    assert purposes == {"to plan notifications", "to notify"}
    statuses = [
        change["fields"]["status"][1]
        for each in found
        if each["entity"] == "batches"
        for change in each["changes"]
        if "status" in change["fields"]
    ]
    assert statuses == ["received", "staged", "validated", "loaded", "paying", "completed_with_errors"]
    assert "planted" not in json.dumps(found)
    assert "見本" not in json.dumps(found, ensure_ascii=False)


def test_sealing_verifying_and_exporting_by_command(installation, tmp_path):
    call("audit", "seal")
    found = json.loads(call("audit", "verify", "--json"))
    assert found["intact"]
    assert found["heads"] >= 1
    assert "the audit is intact" in call("audit", "verify")
    target = tmp_path / "audit.ndjson"
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    call("audit", "export", "--from", today, "--category", "authentication", "-o", str(target))
    lines = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    assert {line["event"]["category"][0] for line in lines} == {"authentication"}
    assert all(
        line["process"]["title"].startswith("main ") or line["process"]["title"] == "orders-pipeline" for line in lines
    )
    assert call("audit", "export", "--from", "2199-01-01") == ""
    (export,) = [each for each in records(installation) if each["action"] == "export"][:1]
    assert export["detail"]["categories"] == ["authentication"]


@pytest.mark.parametrize("point", ["C21", "C21s"])
def test_c21_a_command_that_dies_while_it_seals_is_gone_on_with(installation, point):
    call("status")
    before = installation.rows("SELECT max(block_no) FROM audit_seals")
    settings = installation.environment(LOOK_UP_WAIT_S="1", CRASH=f"{point}:1")
    assert commands.call(settings, "audit", "seal").returncode == -9
    assert installation.rows("SELECT max(block_no) FROM audit_seals") == before
    call("audit", "seal")
    found = json.loads(call("audit", "verify", "--json"))
    assert (found["intact"], found["unsealed"]) == (True, 1)  # the command's own sign-in
    numbers = [number for (number,) in installation.rows("SELECT block_no FROM audit_seals ORDER BY block_no")]
    assert numbers == list(range(1, len(numbers) + 1))


def test_s14_a_broken_audit_is_a_complaint_and_a_security_event(installation):
    call("audit", "seal")
    before = newest(installation)
    changed = "UPDATE audit_events SET actor = '{}' WHERE event_id = {}"
    actor, event_id = installation.rows("SELECT actor, event_id FROM audit_events ORDER BY event_id LIMIT 1")[0]
    tamper(installation, changed.format("nobody", event_id))
    try:
        found = json.loads(call("audit", "verify", "--json", status=1))
        assert (found["broken"]["what"], found["broken"]["event_id"]) == ("record altered", event_id)
        assert f"record {event_id}" in call("audit", "verify", status=1)
    finally:
        tamper(installation, changed.format(actor, event_id))
    assert [each["action"] for each in records(installation, before) if each["category"] == "security"] == ["failure"] * 2
    call("audit", "verify")


def test_s13_a_failure_that_may_be_an_attack_is_a_security_event(installation, tmp_path, monkeypatch):
    row = order_row(client_order_ref="B-1", notify_channel="email", email="planted@example.com")
    before = newest(installation)
    batch_id = installation.receive(order_file(tmp_path, row), "other")
    decrypt = Cipher.decrypt
    monkeypatch.setattr(Cipher, "decrypt", lambda self, sealed, aad: decrypt(self, sealed[:-1] + b"\0", aad))
    assert "E_SEALED_TAMPERED" in str(installation.run(batch_id))
    found = [each for each in records(installation, before) if each["category"] == "security"]
    assert found
    assert {each["detail"]["code"] for each in found} == {"E_SEALED_TAMPERED"}


def test_the_sensor_seals_each_time_and_keeps_a_head_once_an_hour(installation):
    call("status")
    context = dg.build_sensor_context(instance=installation.instance, resources={"system": installation.system})
    assert isinstance(audit_sensor(context), dg.SkipReason)
    kept = list(installation.system.storage.kept(HEADS))
    assert verify(installation.system.database, installation.system.storage).unsealed == 0
    call("status")
    audit_sensor(context)
    assert verify(installation.system.database, installation.system.storage).unsealed == 0
    assert list(installation.system.storage.kept(HEADS)) == kept
    assert list(installation.system.storage.kept(NEWEST))  # every minute, for a while
    assert context.cursor


def test_s14_a_head_in_a_locked_bucket_stays_whoever_deletes_it(installation):
    with open_s3() as harness:
        harness.raw.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
        storage = S3Storage("locked", "orders", endpoint_url=harness.server_url, kms_key_id=None, ca_file=None)
        call("status")
        seal(installation.system.database)
        assert anchor(installation.system.database, storage)
        (key,) = storage.kept(HEADS)
        head = harness.raw.head_object(Bucket="locked", Key=f"orders/{key}")
        assert head["ObjectLockMode"] == "COMPLIANCE"
        assert head["ObjectLockRetainUntilDate"] > datetime.now(UTC) + timedelta(days=8 * 365)
        storage.delete(key)
        assert storage.head(key) is None
        assert list(storage.kept(HEADS)) == [key]
        (version,) = harness.raw.list_object_versions(Bucket="locked")["Versions"]
        with pytest.raises(harness.raw.exceptions.ClientError):
            harness.raw.delete_object(Bucket="locked", Key=version["Key"], VersionId=version["VersionId"])
        assert verify(installation.system.database, storage).broken is None


def test_s16_holds_are_placed_shown_and_released_by_command(installation, tmp_path):
    batch_id = installation.receive(order_file(tmp_path, order_row(client_order_ref="HOLD-1")), "held")
    placed = json.loads(call("audit", "hold", "--batch", batch_id, "--from", "2026-01-01", "--why", "a claim", "--json"))
    assert placed["covers"]["unsealed"] > 0
    seal(installation.system.database)
    covers = json.loads(call("audit", "hold", "--batch", batch_id, "--why", "again", "--json"))["covers"]
    assert (covers["blocks"] > 0, covers["records"] >= placed["covers"]["unsealed"]) == (True, True)
    call("audit", "release", str(placed["hold_id"] + 1), "--why", "settled")
    shown = json.loads(call("audit", "retention", "--json"))
    (hold,) = shown["holds"]
    assert (hold["hold_id"], hold["batch_id"], hold["from_day"], hold["to_day"]) == (
        placed["hold_id"],
        batch_id,
        "2026-01-01",
        None,
    )
    assert len(shown["limits"]) == 5
    assert f"hold {placed['hold_id']}  batch_id {batch_id}, from_day 2026-01-01" in call("audit", "retention")
    call("audit", "hold", "--why", " ", status=2)
    call("audit", "hold", "--from", "2026-01-02", "--to", "2026-01-01", "--why", "x", status=2)
    call("audit", "release", str(placed["hold_id"]), "--why", "settled")
    assert "E_LEGAL_HOLD" in CliRunner().invoke(main, ["audit", "release", "99", "--why", "x"]).stderr
    assert json.loads(call("audit", "retention", "--json"))["holds"] == []
    found = [each for each in records(installation) if each["entity"] == "legal_holds"]
    assert [each["action"] for each in found] == ["insert", "insert", "update", "update"]
    assert "a claim" not in json.dumps(found)


def test_a_head_is_kept_in_a_bucket_without_lock_too(installation):
    with open_s3() as harness:
        storage = S3Storage(harness.bucket(), "", endpoint_url=harness.server_url, kms_key_id=None, ca_file=None)
        call("status")
        seal(installation.system.database)
        assert anchor(installation.system.database, storage)
        assert len(list(storage.kept(HEADS))) == 1


def test_s16_the_nightly_run_moves_what_is_due_and_says_so(installation):
    installation.rows(
        "INSERT INTO audit_events (at, category, action) VALUES (now() - interval '100 days', 'phi_access', 'old')"
    )
    result = defs.resolve_job_def("retain").execute_in_process(
        instance=installation.instance, resources={"system": installation.system}, run_config=runs.QUIET
    )
    assert result.success
    (made,) = result.asset_materializations_for_node("retention")
    assert made.metadata["records moved to warm storage"].value == 1
    assert made.metadata["records gone"].value == 0
    assert [each.passed for each in result.get_asset_check_evaluations()] == [True]
    call("audit", "verify")
    storage = installation.system.storage
    (warm,) = (stored.key for stored in storage.list("audit/warm"))
    with storage.local(warm) as path:
        content = path.read_bytes()
    storage.put(warm, b"replaced")
    storage.put("errors/0123456789ab", b"words")
    old = (datetime.now(UTC) - timedelta(days=91)).timestamp()
    os.utime(Path(storage.location("errors/0123456789ab")), (old, old))
    installation.rows("UPDATE retention_limits SET warm_until = '95 days' WHERE category = 'phi_access'")
    result = defs.resolve_job_def("retain").execute_in_process(
        instance=installation.instance, resources={"system": installation.system}, run_config=runs.QUIET
    )
    installation.rows("UPDATE retention_limits SET warm_until = '1 year' WHERE category = 'phi_access'")
    storage.put(warm, content)
    (made,) = result.asset_materializations_for_node("retention")
    assert made.metadata["error details removed"].value == 1
    assert [each.passed for each in result.get_asset_check_evaluations()] == [False]
    tamper(
        installation, "UPDATE audit_events SET actor = 'nobody' WHERE event_id = (SELECT min(event_id) FROM audit_events)"
    )
    installation.rows(
        "INSERT INTO audit_events (at, category, action) VALUES (now() - interval '100 days', 'phi_access', 'old')"
    )
    result = defs.resolve_job_def("retain").execute_in_process(
        instance=installation.instance, resources={"system": installation.system}, run_config=runs.QUIET
    )
    assert [each.passed for each in result.get_asset_check_evaluations()] == [False]
    assert installation.rows("SELECT count(*) FROM audit_events WHERE action = 'old'") == [(1,)]
    assert [each["detail"] for each in records(installation) if each["category"] == "security"][-1] == {
        "code": "E_AUDIT_BROKEN"
    }
    result = defs.resolve_job_def("verify_audit").execute_in_process(
        instance=installation.instance, resources={"system": installation.system}, run_config=runs.QUIET
    )
    assert [each.passed for each in result.get_asset_check_evaluations()] == [False]
    schedule = defs.resolve_schedule_def("weekly_verification")
    assert (schedule.cron_schedule, schedule.job_name) == ("0 5 * * 0", "verify_audit")
    schedule = defs.resolve_schedule_def("daily_retention")
    assert (schedule.cron_schedule, schedule.job_name) == ("0 4 * * *", "retain")

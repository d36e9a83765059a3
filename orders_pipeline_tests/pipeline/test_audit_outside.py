"""Audit shipping as the daemon and the operator meet it: the sensor, the command, what status, doctor and metrics say."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import dagster as dg
import pytest

from orders_pipeline.clients import api_tokens
from orders_pipeline.orchestration.sensors import audit_sensor
from orders_pipeline.upkeep.audit_shipping.shipping import note_whether_wanted, unshipped
from orders_pipeline_tests.support.api import Client
from orders_pipeline_tests.support.commands import Cli
from orders_pipeline_tests.support.index_server import Index, indexing
from orders_pipeline_tests.support.installation import Installation


@pytest.fixture
def index(installation: Installation) -> Iterator[Index]:
    with indexing() as opened:
        yield opened
    installation.rows("DELETE FROM audit_shipping")


@pytest.fixture
def told(cli: Cli, index: Index, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command that knows where the audit goes."""
    monkeypatch.setenv("ORDERS_AUDIT_SHIP_URL", index.url)
    monkeypatch.setenv("ORDERS_AUDIT_SHIP_TOKEN", "ApiKey planted-token")
    return cli


def tick(installation: Installation, **settings: object) -> str:
    changed = installation.system.settings.model_copy(update=settings)
    system = dataclasses.replace(installation.system, settings=changed)
    result = audit_sensor(dg.build_sensor_context(instance=installation.instance, resources={"system": system}))
    assert isinstance(result, dg.SkipReason)
    return result.skip_message or ""


def test_the_sensor_sends_what_it_has_sealed_and_seals_while_nothing_can_be_sent(
    installation: Installation, index: Index, cli: Cli
) -> None:
    assert "sent" not in tick(installation)
    said = tick(installation, audit_ship_url=index.url)
    assert f"{len(index.documents)} documents of " in said
    assert index.documents
    cli("status")  # is in the audit
    index.failures += [503]
    said = tick(installation, audit_ship_url=index.url)
    assert said.endswith("E_AUDIT_SHIP: the index answers with 503")
    waiting = unshipped(installation.system.database)
    assert waiting is not None
    assert waiting.records > 0
    assert (
        installation.rows(
            "SELECT 1 FROM audit_events WHERE action = 'sign_in' AND event_id > (SELECT max(through_id) FROM audit_seals)"
        )
        == []
    )
    tick(installation, audit_ship_url=index.url)
    assert unshipped(installation.system.database) == dataclasses.replace(waiting, records=0, since=None)
    note_whether_wanted(installation.system)
    assert unshipped(installation.system.database) is None


def test_the_command_sends_and_says_how_much(installation: Installation, index: Index, told: Cli, cli: Cli) -> None:
    told("audit", "seal")
    sent = json.loads(told("audit", "ship", "--json").stdout)
    assert (sent["documents"], sent["waiting"]) == (len(index.documents), 0)
    assert index.asked[0][1]["authorization"] == "ApiKey planted-token"
    again = told("audit", "ship", "--again")
    assert again.exit_code == 0
    assert "sealed records wait" in again.stdout
    assert len(index.sent) == 2 * len(index.documents)
    told("audit", "seal")
    index.failures += [401]
    refused = told("audit", "ship", "--json")
    assert (refused.exit_code, json.loads(refused.stdout)["error"]["code"]) == (1, "E_AUDIT_SHIP")
    assert "planted" not in refused.output


def test_without_the_setting_the_command_says_what_to_set(cli: Cli) -> None:
    found = cli("audit", "ship", "--json")
    assert (found.exit_code, json.loads(found.stdout)["error"]["code"]) == (2, "E_SETTINGS")


def test_status_doctor_and_metrics_say_how_far_it_lags(
    installation: Installation, index: Index, told: Cli, url: str
) -> None:
    assert json.loads(told("status", "--json").stdout)["audit_shipping"] is None
    told("audit", "ship")
    told("audit", "seal")
    lag = json.loads(told("status", "--json").stdout)["audit_shipping"]
    assert (lag["records"] > 0, lag["late"]) == (True, False)
    assert "wait to be sent" not in told("status").stdout
    installation.rows("SET session_replication_role = replica")
    installation.rows("UPDATE audit_seals SET sealed_at = now() - interval '1 hour'")
    installation.rows("SET session_replication_role = origin")
    assert "audit records wait to be sent, since 20" in told("status").stdout
    checks = {each["name"]: each for each in json.loads(told("doctor", "--json").stdout)["checks"]}
    assert checks["audit shipping"]["says"].startswith("E_AUDIT_SHIP: ")
    token = api_tokens.new(installation.system.database, None, "prometheus", ["metrics"], 1, "a test").text
    lines = dict(line.rsplit(" ", 1) for line in Client(url, token).get("/metrics").text.splitlines() if line[0] != "#")
    assert float(lines["orders_audit_unshipped_records"]) >= lag["records"]
    assert float(lines["orders_audit_unshipped_seconds"]) >= 3600

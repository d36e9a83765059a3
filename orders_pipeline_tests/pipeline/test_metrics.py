"""The metrics: what is scraped is what the books say, without anybody's data; every rule and chart finds its numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from orders_pipeline.audit.sealing import seal
from orders_pipeline.clients import api_tokens
from orders_pipeline.clients.api_tokens import METRICS, SCOPES
from orders_pipeline.reports.finishing import finish_batch
from orders_pipeline.settlement.batch_settlement import settling
from orders_pipeline.web import metrics
from orders_pipeline_tests.support.api import Client, client_of, csv_of, problem, served
from orders_pipeline_tests.support.commands import Cli
from orders_pipeline_tests.support.factories import order_row, order_rows
from orders_pipeline_tests.support.installation import Installation, prepare
from orders_pipeline_tests.support.page import signed_in

MONITORING = resources.files("orders_pipeline") / "deployment" / "monitoring"
NAMES = re.compile(r"\borders_[a-z_]+")
PERSON = "planted-person"
TOLD = {"notify_channel": "email", "email": "planted@example.com"}


@pytest.fixture
def scraper(installation: Installation, url: str) -> Client:
    token = api_tokens.new(installation.system.database, None, "prometheus", [METRICS], 30, "a test")
    return Client(url, token.text)


@pytest.fixture
def scrape(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[str, float]]]:
    """Ask for the numbers as they are now, by their names and labels as Prometheus writes them."""
    monkeypatch.setattr(metrics, "REMEMBERED_S", 0.0)
    monkeypatch.setattr(metrics, "SHARE", 1e9)
    token = api_tokens.new(installation.system.database, None, "prometheus", [METRICS], 30, "a test")
    with served(installation.system) as url:
        yield lambda: samples(Client(url, token.text).get("/metrics").text)


def samples(text: str) -> dict[str, float]:
    return {
        each.name + "".join(f"{{{name}={value}}}" for name, value in each.labels.items()): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def grown(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return by how much counters have grown."""
    return {name: value - before[name] for name, value in after.items() if "_total" in name and value != before.get(name)}


def test_what_is_scraped_is_what_the_books_say_and_counts_before_the_batch_has_finished(
    installation: Installation, acme: Client, scrape: Callable[[], dict[str, float]]
) -> None:
    system, before = installation.system, scrape()
    body = csv_of(*(row | TOLD for row in (*order_rows(13), order_row(amount="x"))))
    batch_id = acme.post("batches", body).json()["batch_id"]
    received = scrape()
    assert received["orders_batches{state=received}"] == before["orders_batches{state=received}"] + 1
    assert received["orders_batches_oldest_seconds{state=received}"] > 0
    assert grown(before, received) == {}
    prepare(system, batch_id)
    with settling(system, batch_id, None) as settlement:
        assert settlement is not None
        planned = scrape()
        assert planned["orders_payments_open{state=planned}"] > 0
        assert planned["orders_payments_open_yen{state=planned}"] > 0
        settlement.start_notifying()
        settlement.pay()
        settlement.finish_notifying()
    settled, summary = scrape(), installation.summary(batch_id)
    counted = {
        "orders_payments_total{result=succeeded}": summary["payments"]["succeeded"],
        "orders_payments_yen_total{result=succeeded}": summary["amount_jpy"]["paid"],
        "orders_notifications_total{result=sent}": summary["notifications"]["sent"],
    }
    assert all(counted.values())
    assert grown(before, settled) == counted
    finish_batch(system.storage, system.database, batch_id)
    rows = {f"orders_rows_total{{result={kind}}}": summary["rows"][kind] for kind in ("accepted", "rejected")}
    assert all(rows.values())
    ended = {"orders_batches_finished_total{state=completed_with_errors}": 1}
    after = scrape()
    assert grown(before, after) == counted | rows | ended
    assert [after[f"orders_payments_open{{state={state}}}"] for state in ("planned", "sending", "unknown")] == [0, 0, 0]


def test_nobodys_data_is_in_it(installation: Installation, acme: Client, scraper: Client) -> None:
    acme.post("batches", csv_of(order_row(customer_name=PERSON)))
    labels = {
        (name, value)
        for family in text_string_to_metric_families(scraper.get("/metrics").text)
        for each in family.samples
        for name, value in each.labels.items()
    }
    assert {name for name, _ in labels} == {"state", "result", "service", "code"}
    assert not [value for _, value in labels if PERSON in value or "acme" in value]


def test_what_is_wrong_shows(installation: Installation, scrape: Callable[[], dict[str, float]]) -> None:
    for statement in (
        "INSERT INTO service_breakers (service, opened_at, probe_at) VALUES ('payment', now(), now()), ('other', NULL, NULL)"
        " ON CONFLICT (service) DO UPDATE SET opened_at = now(), probe_at = now()",
        "UPDATE rate_tokens SET free_at = now() + interval '9 seconds'",
        "UPDATE installation SET stopped_at = now(), stopped_by = 'storage'",
        "INSERT INTO landing_files (key, version, size, first_seen_at) VALUES ('a/b', '1', 1, now() - interval '2 hours')",
        "INSERT INTO landing_left_alone (key, seen_again, is_refused) VALUES ('a/c', true, true)",
        "INSERT INTO reconciliation_findings (code, service_payment_id, detail, compared_from, compared_to, first_seen_at,"
        " last_seen_at) VALUES ('C_MISSING_HERE', 'p', '{}', now(), now(), now(), now())",
        "INSERT INTO webhook_deliveries (client_code, type, batch_id, status_then, status, settled_at, created_at)"
        " SELECT 'acme', 'x', batch_id, 'x', 'failed', now() - days * interval '1 day', now() - days * interval '1 day'"
        " FROM (SELECT batch_id FROM batches LIMIT 1) AS one, unnest('{1,8}'::integer[]) AS days",
    ):
        installation.rows(statement)
    found = scrape()
    installation.rows("UPDATE installation SET stopped_at = NULL, stopped_by = NULL")
    installation.rows("UPDATE service_breakers SET opened_at = NULL, probe_at = NULL")
    assert (found["orders_breaker_open{service=payment}"], found["orders_breaker_open{service=other}"]) == (1, 0)
    assert 7 < found["orders_rate_token_wait_seconds{service=notification}"] <= 9
    assert found["orders_paying_stopped{code=E_LEDGERS_DIFFER}"] == 1
    assert found["orders_paying_stopped{code=E_STORAGE_IN_USE}"] == 0
    assert (found["orders_landing_files"], found["orders_landing_refused_files"]) == (1, 1)
    assert found["orders_landing_oldest_seconds"] >= 7200
    assert found["orders_reconciliation_findings{code=C_MISSING_HERE}"] == 1
    assert (found["orders_webhooks{state=failed}"], found["orders_webhooks{state=planned}"]) == (1, 0)
    assert found["orders_webhooks_oldest_seconds{state=failed}"] >= 86400
    assert found["orders_audit_unsealed_records"] > 0
    assert found["orders_audit_unsealed_seconds"] > 0
    seal(installation.system.database)
    sealed = scrape()
    assert sealed["orders_audit_unsealed_records"] < found["orders_audit_unsealed_records"]
    assert 0 < sealed["orders_audit_seal_age_seconds"] < 60


def test_daemon_and_runs_are_in_it_once_there_are_any(
    installation: Installation, scrape: Callable[[], dict[str, float]]
) -> None:
    assert "orders_daemon_heartbeat_seconds{daemon=SENSOR}" not in scrape()
    installation.rows(
        "INSERT INTO dagster.daemon_heartbeats (daemon_type, timestamp)"
        " VALUES ('SENSOR', (now() AT TIME ZONE 'UTC') - interval '70 s')"
    )
    installation.rows("INSERT INTO dagster.runs (run_id, status, run_body) VALUES ('r', 'QUEUED', ''), ('s', 'FAILURE', '')")
    found = scrape()
    installation.rows("DELETE FROM dagster.runs")
    installation.rows("DELETE FROM dagster.daemon_heartbeats")
    assert 70 <= found["orders_daemon_heartbeat_seconds{daemon=SENSOR}"] < 100
    assert found["orders_runs{state=QUEUED}"] == 1
    assert (found["orders_runs{state=STARTED}"], "orders_runs{state=FAILURE}" in found) == (0, False)


def test_however_many_ask_the_database_is_asked_once(
    installation: Installation, scraper: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ask = [], metrics.Metrics._ask

    def count(self: metrics.Metrics) -> None:
        asked.append(None)
        ask(self)

    monkeypatch.setattr(metrics.Metrics, "_ask", count)
    with served(installation.system) as url, ThreadPoolExecutor(8) as pool:
        again = Client(url, scraper.token)
        texts = {answer.text for answer in pool.map(lambda _: again.get("/metrics"), range(16))}
    assert (len(asked), len(texts)) == (1, 1)


def test_only_a_token_for_metrics_or_an_operator_reads_them_and_that_token_nothing_else(
    installation: Installation, url: str, scraper: Client
) -> None:
    system = installation.system
    for headers in ({}, {"Authorization": "Bearer opk_aaaaaaaa_none"}):
        assert requests.get(f"{url}/metrics", headers=headers, timeout=10).status_code == 401
    problem(client_of(system, url, "acme", SCOPES).get("/metrics"), 403, "missing-scope")
    operator = api_tokens.new(system.database, None, "on call", ["operator"], 30, "a test").text
    assert Client(url, operator).get("/metrics").status_code == 200
    assert signed_in(system, url, None).get("/metrics").status_code == 200
    assert signed_in(system, url, "acme").get("/metrics").status_code == 403
    plain = scraper.get("/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain; version=")
    assert "# TYPE orders_payments_total counter" in plain.text
    open_metrics = scraper.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert open_metrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert open_metrics.text.endswith("# EOF\n")
    for path in ("batches", "profile", "batches/20200101-000000000000"):
        assert scraper.get(path).status_code == 403
    assert scraper.post("batches", csv_of(order_row())).status_code == 403


def test_a_token_for_metrics_is_made_by_command(cli: Cli, url: str) -> None:
    token = json.loads(cli("tokens", "new", "--metrics", "--name", "prometheus", "--json").stdout)["token"]
    assert Client(url, token).get("/metrics").status_code == 200
    assert f"{token.split('_')[1]}  metrics  valid" in cli("tokens", "list").stdout
    for wrong in (["--operator"], ["--client", "acme"], ["--page"], ["--scope", "page"]):
        assert cli("tokens", "new", "--metrics", "--name", "x", *wrong).exit_code == 2


def expressions() -> dict[str, str]:
    """Return what rules and charts ask for, by their names."""
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text("utf-8"))["groups"][0]["rules"]
    charts = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))["panels"]
    return {rule["alert"]: rule["expr"] for rule in rules} | {
        f"{chart['title']} {target['refId']}": target["expr"] for chart in charts for target in chart["targets"]
    }


def test_what_rules_and_charts_ask_for_is_there(installation: Installation, scrape: Callable[[], dict[str, float]]) -> None:
    installation.rows("INSERT INTO dagster.daemon_heartbeats (daemon_type, timestamp) VALUES ('SENSOR', now())")
    found = scrape()
    installation.rows("DELETE FROM dagster.daemon_heartbeats")
    there_at_times = {"orders_breaker_open", "orders_rate_token_wait_seconds", "orders_worker_slots"}
    names = {name.partition("{")[0] for name in found} | there_at_times
    asked = expressions()
    assert len(asked) > 30
    assert {
        name: set(NAMES.findall(each)) - names for name, each in asked.items() if not set(NAMES.findall(each)) <= names
    } == {}
    states = {(each, state) for text in asked.values() for each, state in re.findall(r'(orders_\w+)\{state="(\w+)"', text)}
    assert states
    assert [f"{name}{{state={state}}}" for name, state in states if f"{name}{{state={state}}}" not in found] == []


def test_each_rule_says_what_to_do_and_where_more_is_said() -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text("utf-8"))["groups"][0]["rules"]
    page = (resources.files("orders_pipeline") / "docs" / "TROUBLESHOOT.md").read_text("utf-8")
    described = page.partition("## Alerts\n")[2].partition("\n## ")[0]
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "action", "see"}
        assert rule["annotations"]["see"] == "TROUBLESHOOT.md#alerts"
        assert f"`{rule['alert']}`" in described
    assert set(re.findall(r"`(Orders\w+)`", described)) == {rule["alert"] for rule in rules}

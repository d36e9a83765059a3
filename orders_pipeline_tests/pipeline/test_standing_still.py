"""Batches on which nobody works: the page, the API and `status` say so, and only of those for which nobody is coming."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from orders_pipeline.batches.run_processes import offering_slots, run_process
from orders_pipeline.reports import summaries
from orders_pipeline.settlement.batch_settlement import settling
from orders_pipeline.settlement.standing_still import standing_still_since
from orders_pipeline.system import daemon, turns
from orders_pipeline.system.composition import System
from orders_pipeline.web import batches as web_batches
from orders_pipeline_tests.support.api import Client, csv_of
from orders_pipeline_tests.support.commands import Cli
from orders_pipeline_tests.support.factories import order_rows
from orders_pipeline_tests.support.installation import Installation, prepare
from orders_pipeline_tests.support.page import signed_in

LAST_HEARD = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
SAID = {
    "en": [
        "Nothing has been done on it since 2 Jan 2020 12:04 JST. Nothing is lost, and nothing is charged twice.",
        "It goes on by itself as soon as the system works again.",
    ],
    "ja": ["2020年1月2日 12:04から処理が止まっています。", "二重に請求されることもありません。", "自動的に再開します。"],
}
WHO = {
    "en": ("tell your administrator", "what is missing: orders-pipeline doctor"),
    "ja": ("管理者に連絡してください", "原因の確認: orders-pipeline doctor"),
}
WHY = {
    "en": "No process has worked on it since 2 Jan 2020 12:04 JST.",
    "ja": "2020年1月2日 12:04から、処理するプロセスがありません。",
}


@pytest.fixture(autouse=True)
def _looked_up_anew(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(turns, "REMEMBERED_S", 0.0)
    monkeypatch.setattr(web_batches, "LOOK_S", 0.0)
    yield
    installation.rows("UPDATE batches SET status = 'cancelled', finished_at = now() WHERE finished_at IS NULL")
    daemon_speaks(installation, 3_600)


@pytest.fixture
def batch_id(installation: Installation, acme: Client) -> str:
    """A batch of which all is paid and some notified, whose process was last heard of long ago."""
    batch_id = str(acme.post("batches", csv_of(*order_rows(3, notify_channel="email"))).json()["batch_id"])
    prepare(installation.system, batch_id)
    with settling(installation.system, batch_id, None) as settlement:
        assert settlement is not None
        settlement.pay()
    installation.rows(
        "UPDATE batches SET received_at = %s, idle_since = NULL WHERE batch_id = %s", "2020-01-02 12:00+09", batch_id
    )
    installation.rows(
        "UPDATE workers SET ended_at = NULL, lease_until = CAST(%s AS timestamptz) + interval '30 s' WHERE batch_id = %s",
        LAST_HEARD,
        batch_id,
    )
    return batch_id


def daemon_speaks(installation: Installation, seconds_ago: float = 0) -> None:
    installation.instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - seconds_ago, "SENSOR", "a daemon", None))


def queue_run(installation: Installation, batch_id: str) -> dg.DagsterRun:
    installation.instance.add_dynamic_partitions("batches", [batch_id])
    job = dg.GraphDefinition("process_batch").to_job()
    return installation.instance.create_run_for_job(job_def=job, tags={"dagster/partition": batch_id})


def is_still(system: System, batch_id: str) -> bool:
    return batch_id in standing_still_since(system, [batch_id])


def phases(batch: dict[str, Any]) -> dict[str, tuple[str, int | None]]:
    return {each["name"]: (each["state"], each.get("eta_s")) for each in batch["progress"]["phases"]}


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_page_says_that_nobody_works_on_a_file_since_when_and_who_goes_on(
    installation: Installation, url: str, acme: Client, batch_id: str, language: str
) -> None:
    client_code = acme.get("profile").json()["client_code"]
    clerk, operator = (signed_in(installation.system, url, each, language=language) for each in (client_code, None))
    left = {"en": " left", "ja": "残り約"}[language]

    def shown() -> tuple[str, str, str]:
        lists = [clerk.get(path).text for path in ("/history", "/send")]
        assert lists[0].count("state-still") == lists[1].count("state-still")
        return clerk.get(f"/b/{batch_id}").text, operator.get("/overview").text, lists[0]

    page, overview, history = shown()
    assert [each for each in [*SAID[language], WHO[language][0]] if each not in page] == []
    assert 'data-milestone="paying still ' in page
    assert (left in page, "step-working" in page, "state-still" in history) == (False, False, True)
    waiting = overview[: overview.index('id="running"')]
    assert (batch_id in waiting, WHY[language] in waiting, overview.count(batch_id)) == (True, True, 1)
    assert WHO[language][1] in operator.get(f"/b/{batch_id}").text
    with run_process(installation.system.database, "a-run", batch_id):
        page, overview, history = shown()
    assert [each for each in SAID[language] if each in page] == []
    assert (left in page, "step-working" in page, "state-still" in history) == (True, True, False)
    assert batch_id in overview[overview.index('id="running"') :]


def test_the_api_says_so_and_promises_no_time(installation: Installation, acme: Client, batch_id: str) -> None:
    batch = acme.get(f"batches/{batch_id}").json()
    assert (batch["status"], batch["standing_still_since"]) == ("paying", "2020-01-02T03:04:05Z")
    assert phases(batch)["notify"] == ("waiting", None)
    with run_process(installation.system.database, "a-run", batch_id):
        batch = acme.get(f"batches/{batch_id}").json()
    assert batch["standing_still_since"] is None
    assert phases(batch)["notify"] == ("working", 1)
    installation.rows("UPDATE batches SET received_at = now() WHERE batch_id = %s", batch_id)
    batch = acme.get(f"batches/{batch_id}").json()  # somebody may take over in a moment, or nobody
    assert (batch["standing_still_since"], phases(batch)["notify"]) == (None, ("working", None))


def test_a_run_is_waited_for_as_long_as_there_is_who_begins_it(installation: Installation, cli: Cli, batch_id: str) -> None:
    def named() -> list[str]:
        return [each["batch_id"] for each in json.loads(cli("status", "--json").stdout)["standing_still"]]

    daemon_speaks(installation)
    assert is_still(installation.system, batch_id)  # nobody has asked for a run yet
    run = queue_run(installation, batch_id)
    assert (is_still(installation.system, batch_id), named()) == (False, [])
    celery = installation.system.settings.model_copy(update={"run_launcher": "celery"})
    on_workers = replace(installation.system, settings=celery)
    assert is_still(on_workers, batch_id)
    with offering_slots(installation.system.database, 2):
        assert not is_still(on_workers, batch_id)
    daemon_speaks(installation, daemon.SILENT_S + 1)
    assert (is_still(installation.system, batch_id), named()) == (True, [batch_id])
    assert summaries.summarise(installation.system, batch_id)["queued"]
    installation.instance.report_run_failed(run)


def test_a_run_that_has_begun_has_a_moment_until_its_process_is_known(installation: Installation, batch_id: str) -> None:
    daemon_speaks(installation)
    run = queue_run(installation, batch_id)

    def is_still_after(seconds: float) -> bool:
        began = "UPDATE dagster.runs SET status = 'STARTED', start_time = %s WHERE run_id = %s"
        installation.rows(began, time.time() - seconds, run.run_id)
        return is_still(installation.system, batch_id)

    assert (is_still_after(1), is_still_after(turns.LATELY_S + 5)) == (False, True)
    installation.instance.report_run_failed(run)


@pytest.mark.parametrize(
    ("change", "while_alone", "with_a_daemon"),
    [
        ("status = 'paused', status_code = 'E_PAYMENT_UNAVAILABLE'", True, False),
        ("status_code = 'E_STORAGE_UNAVAILABLE'", True, False),
        ("status = 'cancelling', cancelled_by = 'x', cancelled_why = 'x', cancelled_at = '2020-01-02'", True, False),
        ("status = 'stopped', stopped_from = 'paying', stopped_by = 'x', stopped_at = now()", False, False),
        ("resumed_at = now()", False, False),
        ("received_at = now()", False, False),
        ("received_at = received_at", True, True),
    ],
)
def test_what_waits_for_a_person_or_its_next_try_does_not_stand_still_while_somebody_will_try(
    installation: Installation, batch_id: str, change: str, while_alone: bool, with_a_daemon: bool
) -> None:
    installation.rows(f"UPDATE batches SET {change} WHERE batch_id = %s", batch_id)
    assert is_still(installation.system, batch_id) == while_alone
    daemon_speaks(installation)
    assert is_still(installation.system, batch_id) == with_a_daemon

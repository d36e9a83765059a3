"""S02, S06, S08, S19: what comes in at a border is only text, and what goes out says nothing of the inside."""

from __future__ import annotations

import csv
import http.client
import json
import re
import sys
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest
from dagster._core.errors import SensorExecutionError, user_code_error_boundary
from dagster._utils.error import serializable_error_info_from_exc_info
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orders_pipeline import definitions
from orders_pipeline.infrastructure.storage import ObjectDenied
from orders_pipeline.orchestration.assets.boundary import safe_errors
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.security import personal_data
from orders_pipeline.web import report_links, server
from orders_pipeline_tests.leaks.detector import Canaries, traces
from orders_pipeline_tests.support import commands
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation

HOSTILE = (
    "'; DROP TABLE orders; --",
    '" OR ""="',
    "%s %(name)s %%",
    ":order_ref ::text :x",
    r"\'; \\x00 \N \.",
    "$1 $$ $tag$",
    "{0} {x!r} ${jndi:ldap}",
)
FREE_TEXT = ("customer_name", "ship_to_address", "note")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH")


@pytest.fixture(scope="module")
def finished(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A batch with hostile text wherever text may stand, and a row to give back."""
    path = tmp_path_factory.mktemp("hostile") / "orders.csv"
    rows = [
        order_row(client_order_ref=f"S06-{number}") | dict.fromkeys(FREE_TEXT, text) for number, text in enumerate(HOSTILE)
    ]
    rows.append(dict.fromkeys(ORDERS.column_names, HOSTILE[0]))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*ORDERS.column_names, HOSTILE[0], HOSTILE[2]])
        writer.writeheader()
        writer.writerows(rows)
    return str(installation.take(path, "acme")["batch_id"])


@pytest.fixture(scope="module")
def reports_url(installation: Installation) -> Iterator[str]:
    with server.serving(installation.system, 0) as url:
        yield url


def ask(url: str, method: str, path: str, host: str | None = None) -> tuple[int, str, str]:
    """Return the status, the headers and the body of an answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method, path, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        return answer.status, str(answer.headers), answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def test_s06_hostile_text_in_a_cell_is_kept_as_it_was_sent(installation: Installation, finished: str) -> None:
    rows = installation.rows(
        "SELECT batch_id, import_row_number, personal FROM orders WHERE batch_id = %s ORDER BY 2", finished
    )
    kept = [personal_data.decrypt(installation.system.cipher, *row) for row in rows]
    assert [[each[column] for column in FREE_TEXT] for each in kept] == [[text] * 3 for text in HOSTILE]
    assert installation.summary(finished)["rows"] | {"blank": 0} == {
        "total": len(HOSTILE) + 1,
        "accepted": len(HOSTILE),
        "rejected": 1,
        "blank": 0,
        "skipped": 0,
    }


def test_s06_hostile_arguments_name_nothing_that_exists(installation: Installation, finished: str) -> None:
    before = installation.rows("SELECT count(*) FROM orders")
    for arguments in (("status", HOSTILE[0]), ("refund", finished, "--order", HOSTILE[2], "--plan")):
        ended = commands.call(installation.environment(), *arguments)
        assert ended.returncode not in {0, -9}
        assert traces(ended.stdout + ended.stderr) == {}
    assert installation.rows("SELECT count(*) FROM orders") == before


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from(METHODS), parts=st.lists(st.text(min_size=1, max_size=12), max_size=4), known=st.booleans())
def test_s02_s08_whatever_is_asked_of_the_reports_nothing_is_given_or_told(
    finished: str, reports_url: str, method: str, parts: list[str], known: bool
) -> None:
    path = "/".join(["/batches", finished, *(quote(part, safe="") for part in parts)] if known else ["", *map(quote, parts)])
    status, headers, body = ask(reports_url, method, path)
    assert status in {401, 404, 405, 400}  # the page and the API take nobody who has not signed in
    assert traces(headers, body) == {}
    assert "server:" not in headers.lower()


@pytest.mark.parametrize("name", ["rejected.csv", "errors.csv", "result.json"])
def test_s19_a_report_is_given_by_its_name_and_no_other_file_of_the_batch_is(
    finished: str, reports_url: str, name: str
) -> None:
    assert ask(reports_url, "GET", f"/batches/{finished}/{name}")[0] == 200
    for other in ("original", "staged.parquet", f"../{finished}/original", f"..%2F{finished}%2Foriginal", f"{name}%00"):
        assert ask(reports_url, "GET", f"/batches/{finished}/{other}")[0] == 404


@pytest.mark.parametrize("host", ["evil.example.com", "evil.example.com:80", ""])
def test_s08_a_page_that_calls_itself_this_machine_gets_nothing(finished: str, reports_url: str, host: str) -> None:
    assert ask(reports_url, "GET", f"/batches/{finished}/rejected.csv", host)[0] == 400


def test_s02_a_report_that_cannot_be_read_is_a_reference_and_nothing_else(
    installation: Installation, finished: str, reports_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    canaries = Canaries()
    word = canaries.plant("word")

    def fail(*_: object) -> None:
        raise OSError(5, word, f"/home/{word}")

    monkeypatch.setattr(report_links.report_files, "report", fail)
    status, headers, body = ask(reports_url, "GET", f"/batches/{finished}/rejected.csv")
    assert status == 500
    assert body.startswith("E_UNEXPECTED: ")
    assert canaries.found_in(headers, body) == set()
    assert traces(headers, body) == {}
    reference = body.split()[-1]
    explained = commands.run(installation.environment(), "explain", reference)
    assert word in explained.stdout
    assert installation.rows("SELECT category FROM audit_events WHERE detail->>'reference' = %s", reference) == [
        ("phi_access",)
    ]
    # without the database it is explained all the same, and the audit has it as soon as it can
    away = installation.environment() | {"ORDERS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    found = json.loads(commands.run(away, "explain", reference, "--json").stdout)
    assert (word in found["details"], found["audited"]) == (True, False)
    assert commands.run(installation.environment(), "status").returncode == 0
    readings = "SELECT detail->>'at' IS NOT NULL FROM audit_events WHERE detail->>'reference' = %s ORDER BY event_id"
    assert installation.rows(readings, reference) == [(False,), (True,)]


def shown_by_dagster(installation: Installation, error: Exception, *, at_boundary: bool) -> str:
    """Return what a failed tick shows of an error."""
    try:
        with user_code_error_boundary(SensorExecutionError, lambda: "a tick"):
            if at_boundary:
                with safe_errors(installation.system, of_tick=True):
                    raise error
            raise error
    except Exception:  # noqa: BLE001 - as Dagster does
        return serializable_error_info_from_exc_info(sys.exc_info()).to_string()


@pytest.mark.parametrize("at_boundary", [True, False])
def test_an_error_id_that_dagster_shows_leads_to_the_reason(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, *, at_boundary: bool
) -> None:
    assert definitions.defs  # it is what listens to what Dagster masks
    for name, value in installation.environment().items():
        monkeypatch.setenv(name, value)
    canaries = Canaries()
    word = canaries.plant("word")
    shown = shown_by_dagster(installation, ValueError(word), at_boundary=at_boundary)
    assert canaries.found_in(shown) == set()
    masked = re.search(r"(?i)error ID ([0-9a-f-]+)", shown)
    assert masked is not None
    assert word in commands.run(installation.environment(), "explain", masked[1]).stdout
    shown = [shown_by_dagster(installation, ObjectDenied(), at_boundary=True) for _ in range(5)]
    assert f"{ObjectDenied.code}: " in shown[0]
    assert len(set(shown)) == 1
    assert (installation.home / "errors.log").read_text("utf-8").count(ObjectDenied.code) == 1
    failures = "SELECT count(*) FROM audit_events WHERE category = 'security' AND detail->>'code' = %s"
    assert installation.rows(failures, ObjectDenied.code) == [(1,)]

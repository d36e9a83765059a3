"""The sandbox's Notification service and its limit of calls a second."""

from __future__ import annotations

import time

import pytest
import requests

from orders_pipeline.sandbox import SandboxServer
from orders_pipeline.sandbox.ledger import worst_window
from orders_pipeline.sandbox.service import Window
from orders_pipeline_tests.support.sandbox_calls import assert_problem, get, notification, notify, post


def test_a_notification_is_queued_once_per_dedupe_key(sandbox):
    first = notify(sandbox, 1)
    assert (first.status_code, first.json()["status"]) == (202, "queued")
    replay = notify(sandbox, 1)
    assert (replay.status_code, replay.headers["Idempotent-Replayed"], replay.text) == (202, "true", first.text)
    repeated = notify(sandbox, 1, key="another")
    assert (repeated.status_code, repeated.json()["id"]) == (200, first.json()["id"])
    assert (sandbox.ledger()["notifications"]["sent"], sandbox.ledger()["notifications"]["duplicates"]) == (1, 0)
    found = get(sandbox, "/v1/notifications", dedupe_key="d-1").json()["items"]
    assert [item["id"] for item in found] == [first.json()["id"]]
    assert len(get(sandbox, "/v1/notifications", batch_id="b-1").json()["items"]) == 1
    assert "customer1@example.com" not in str(found)


@pytest.mark.parametrize(
    ("channel", "address"), [("email", "nobody"), ("email", ""), ("sms", "12"), ("sms", "a@example.com")]
)
def test_an_address_that_does_not_fit_its_channel_is_refused(sandbox, channel, address):
    body = notification(1, channel=channel, recipient={"customer_code": "C", "address": address})
    assert_problem(notify(sandbox, 1, body=body), 422, "invalid-recipient")


def test_an_unknown_template_is_refused_where_templates_are_known(sandbox):
    sandbox.change(templates=["order-paid"])
    assert notify(sandbox, 1).status_code == 202
    assert_problem(notify(sandbox, 2, body=notification(2, template_id="other")), 404, "template-not-found")


def test_the_eleventh_call_within_a_second_of_the_first_is_refused_and_counted(sandbox):
    with requests.Session() as session:
        answers = []
        started = time.monotonic()
        for number in range(11):
            response = session.post(
                sandbox.url + "/v1/notifications",
                json=notification(number),
                headers={"Idempotency-Key": f"n-{number}"},
                timeout=10,
            )
            answers.append(response)
        assert time.monotonic() - started < 1
    assert [answer.status_code for answer in answers[:10]] == [202] * 10
    problem = assert_problem(answers[10], 429, "rate-limited")
    assert answers[10].headers["Retry-After"] == "1"
    assert 0 < problem["retry_after_s"] <= 1
    counts = sandbox.ledger()["notifications"]
    assert (counts["sent"], counts["calls"], counts["worst_window"], counts["refused"]) == (10, 11, 11, 1)
    time.sleep(problem["retry_after_s"])
    assert notify(sandbox, 10).status_code == 202


def test_only_accepted_calls_use_up_the_limit():
    window = Window()
    admitted = [window.wait_s(0.0, 2), window.wait_s(0.5, 2)]
    assert admitted == [0.0, 0.0]
    assert window.wait_s(0.9, 2) == pytest.approx(0.1)
    assert window.wait_s(1.0, 2) == 0.0
    assert window.wait_s(1.4, 2) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("arrivals", "worst"),
    [([], 0), ([5], 1), ([0, 999_999], 2), ([0, 1_000_000], 1), ([0, 1, 2, 1_000_001, 1_000_002], 3)],
)
def test_the_worst_window_counts_arrivals_less_than_a_second_apart(arrivals, worst):
    assert worst_window(arrivals) == worst


def test_a_bulk_call_answers_each_item_in_order_and_counts_as_one_call(sandbox):
    sandbox.change(bulk=True)
    notify(sandbox, 1)
    items = [notification(1), notification(2), notification(3, channel="fax"), "nonsense"]
    response = post(sandbox, "/v1/notifications/batches", {"items": items})
    results = response.json()["results"]
    assert response.status_code == 200
    assert [result["status"] for result in results] == ["queued", "queued", "failed", "failed"]
    assert [result["dedupe_key"] for result in results] == ["d-1", "d-2", "d-3", None]
    counts = sandbox.ledger("b-1")["notifications"]
    assert (counts["sent"], counts["calls"], counts["duplicates"]) == (2, 2, 0)
    for wrong in ([], [notification(n) for n in range(101)]):
        assert_problem(post(sandbox, "/v1/notifications/batches", {"items": wrong}), 422, "validation")


def test_a_service_without_bulk_does_not_know_the_route():
    with SandboxServer() as server:
        assert_problem(post(server, "/v1/notifications/batches", {"items": [notification()]}), 404, "not-found")

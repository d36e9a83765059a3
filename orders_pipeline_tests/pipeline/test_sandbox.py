"""The sandbox services over real HTTP: they keep their contract, break it on request, and keep honest books."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import requests

from orders_pipeline.sandbox import Faults, SandboxError, SandboxServer
from orders_pipeline.sandbox.faults import AFTER, BEFORE, share
from orders_pipeline.sandbox.ledger import worst_window
from orders_pipeline.sandbox.service import Window

LOST = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, requests.Timeout)


@pytest.fixture
def sandbox():
    with SandboxServer() as server:
        yield server


def payment(number: int = 1, *, orders: tuple[int, ...] | None = None, **changes) -> dict:
    orders = (number,) if orders is None else orders
    return {
        "amount": 100 * len(orders),
        "currency": "JPY",
        "customer_code": f"C-{number}",
        "reference": f"ref-{number}",
        "payment_method": {"type": "invoice"},
        "allocations": [{"order_id": order, "amount": 100} for order in orders],
        "metadata": {"batch_id": "b-1"},
        **changes,
    }


def notification(number: int = 1, **changes) -> dict:
    return {
        "template_id": "order-paid",
        "channel": "email",
        "recipient": {"customer_code": f"C-{number}", "address": f"customer{number}@example.com"},
        "locale": "ja-JP",
        "variables": {"name": "x"},
        "order_ids": [number],
        "dedupe_key": f"d-{number}",
        "metadata": {"batch_id": "b-1"},
        **changes,
    }


def post(server: SandboxServer, path: str, body, key: str | None = None, **kwargs) -> requests.Response:
    headers = {"Idempotency-Key": key} if key else {}
    kwargs["headers"] = headers | kwargs.get("headers", {})
    kwargs.setdefault("timeout", 10)
    return requests.post(server.url + path, json=body, allow_redirects=False, **kwargs)


def pay(server: SandboxServer, number: int = 1, key: str | None = None, body: dict | None = None, **kwargs):
    return post(server, "/v1/payments", body or payment(number), key or f"k-{number}", **kwargs)


def notify(server: SandboxServer, number: int = 1, key: str | None = None, body: dict | None = None, **kwargs):
    return post(server, "/v1/notifications", body or notification(number), key or f"n-{number}", **kwargs)


def get(server: SandboxServer, path: str, **params) -> requests.Response:
    return requests.get(server.url + path, params=params, timeout=10)


def assert_problem(response: requests.Response, status: int, slug: str) -> dict:
    body = response.json()
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert body["type"].endswith("/" + slug)
    assert body["status"] == status
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert {"title", "code", "retryable"} <= body.keys()
    return body


# --- payments ---------------------------------------------------------------------------------------------------------


def test_a_payment_is_booked_and_shown_as_the_contract_says(sandbox):
    response = pay(sandbox, 1)
    body = response.json()
    assert response.status_code == 201
    assert response.headers["Location"] == f"/v1/payments/{body['id']}"
    created_at = body.pop("created_at")
    assert created_at.endswith("Z")
    assert body == {
        "id": body["id"],
        "status": "succeeded",
        "amount": 100,
        "currency": "JPY",
        "reference": "ref-1",
        "idempotency_key": "k-1",
        "failure": None,
        "refunded_amount": 0,
    }
    assert get(sandbox, response.headers["Location"]).json() == body | {"created_at": created_at}


def test_the_same_key_and_body_replays_the_stored_answer_whatever_the_order_of_members(sandbox):
    first = pay(sandbox, 1)
    again = pay(sandbox, 1, body=dict(reversed(payment(1).items())))
    assert "Idempotent-Replayed" not in first.headers
    assert (again.status_code, again.headers["Idempotent-Replayed"], again.text) == (201, "true", first.text)
    assert again.headers["Location"] == first.headers["Location"]
    assert sandbox.ledger()["payments"]["count"] == 1


def test_the_same_key_with_another_body_is_refused(sandbox):
    pay(sandbox, 1, key="k")
    assert_problem(pay(sandbox, 2, key="k"), 422, "idempotency-key-reused")
    assert sandbox.ledger()["payments"]["count"] == 1


def test_the_same_key_while_the_first_is_running_is_told_to_wait(sandbox):
    sandbox.change(latency_ms=1000)
    with ThreadPoolExecutor(2) as pool:
        answers = [call.result() for call in [pool.submit(pay, sandbox, 1) for _ in range(2)]]
    refused, accepted = sorted(answers, key=lambda answer: -answer.status_code)
    assert accepted.status_code == 201
    assert assert_problem(refused, 409, "request-in-progress")["retryable"] is True
    assert refused.headers["Retry-After"] == "1"


@pytest.mark.parametrize(("key", "slug"), [(None, "idempotency-key-missing"), ("x" * 256, "malformed")])
def test_a_payment_needs_a_usable_key(sandbox, key, slug):
    assert_problem(post(sandbox, "/v1/payments", payment(), key), 400, slug)


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"amount": "100"}, "/amount", "int_type"),
        ({"amount": 100.0}, "/amount", "int_type"),
        ({"amount": True}, "/amount", "int_type"),
        ({"amount": 0}, "/amount", "greater_than_equal"),
        ({"amount": 101}, "", "allocation_sum"),
        ({"currency": "USD"}, "/currency", "literal_error"),
        ({"allocations": []}, "/allocations", "too_short"),
        ({"amount": 200, "allocations": [{"order_id": 1, "amount": 100}] * 2}, "", "order_repeated"),
        ({"allocations": [{"order_id": 1.5, "amount": 100}]}, "/allocations/0/order_id", "int_type"),
        ({"payment_method": {"type": "cash"}}, "/payment_method/type", "literal_error"),
        ({"payment_method": {"type": "card_on_file"}}, "/payment_method", "token_missing"),
        ({"reference": "\ud800"}, "/reference", "string_unicode"),
    ],
)
def test_a_wrong_member_is_pointed_at_and_nothing_is_booked(sandbox, changes, pointer, code):
    problem = assert_problem(pay(sandbox, 1, body=payment(1, **changes)), 422, "validation")
    assert {"pointer": pointer, "code": code} in problem["errors"]
    assert sandbox.ledger()["payments"]["count"] == 0


def test_exactly_the_limit_is_paid_and_one_yen_more_is_not(sandbox):
    at_limit = payment(1, amount=1_000_000, allocations=[{"order_id": 1, "amount": 1_000_000}])
    over = payment(2, amount=1_000_001, allocations=[{"order_id": 2, "amount": 1_000_001}])
    assert pay(sandbox, 1, body=at_limit).status_code == 201
    assert assert_problem(pay(sandbox, 2, body=over), 422, "amount-over-limit")["limit"] == 1_000_000


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"amount": NaN}', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_malformed(sandbox, body):
    response = requests.post(
        sandbox.url + "/v1/payments", data=body, headers={"Idempotency-Key": "k", "Content-Type": "x"}, timeout=10
    )
    assert_problem(response, 400, "malformed")


def test_an_order_is_paid_once_and_the_refusal_names_the_payment(sandbox):
    first = pay(sandbox, 1, body=payment(1, orders=(1, 2))).json()
    problem = assert_problem(pay(sandbox, 2, body=payment(2, orders=(2, 3))), 409, "order-already-paid")
    assert problem["payment_id"] == first["id"]
    assert sandbox.ledger()["orders"] == {"paid": 2, "paid_more_than_once": 0}


def test_a_declined_payment_leaves_its_orders_free_and_its_answer_is_replayed(sandbox):
    sandbox.change(faults="decline_payment=1")
    declined = pay(sandbox, 1)
    problem = assert_problem(declined, 402, "payment-declined")
    sandbox.change(faults="")
    assert pay(sandbox, 1).text == declined.text
    assert pay(sandbox, 2, body=payment(2, orders=(1,))).status_code == 201
    found = get(sandbox, "/v1/payments", reference="ref-1").json()["items"][0]
    assert (found["status"], found["failure"]["code"]) == ("failed", problem["code"])
    counts = sandbox.ledger()["payments"]
    assert (counts["count"], counts["succeeded"], counts["declined"], counts["amount_jpy"]) == (2, 1, 1, 100)


def test_a_processing_payment_succeeds_later_at_its_location(sandbox):
    sandbox.change(faults="processing=1,processing_s=0.2")
    response = pay(sandbox, 1)
    assert (response.status_code, response.json()["status"]) == (202, "processing")
    assert int(response.headers["Retry-After"]) >= 1
    deadline = time.monotonic() + 5
    while get(sandbox, response.headers["Location"]).json()["status"] == "processing":
        assert time.monotonic() < deadline
    assert sandbox.ledger()["payments"]["succeeded"] == 1


def test_payments_are_found_by_id_key_reference_and_order(sandbox):
    body = pay(sandbox, 1, body=payment(1, orders=(7, 8))).json()
    pay(sandbox, 2)
    for query in ({"idempotency_key": "k-1"}, {"reference": "ref-1"}, {"order_id": "8"}):
        assert get(sandbox, "/v1/payments", **query).json() == {"items": [body], "next": None}
    assert get(sandbox, "/v1/payments", reference="other").json() == {"items": [], "next": None}
    assert_problem(get(sandbox, "/v1/payments/pay_other"), 404, "not-found")


def test_the_list_is_paged_newest_last_and_bounded_in_time(sandbox):
    bodies = [pay(sandbox, number).json() for number in range(5)]
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        page = get(sandbox, "/v1/payments", limit=2, **({"cursor": cursor} if cursor else {})).json()
        found, cursor, pages = found + page["items"], page["next"], pages + 1
    assert (found, pages) == (bodies, 3)
    window = {"created_from": bodies[1]["created_at"], "created_to": bodies[3]["created_at"]}
    assert get(sandbox, "/v1/payments", **window).json()["items"] == bodies[1:3]


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "x"},
        {"cursor": "%%%"},
        {"created_from": "yesterday"},
        {"reference": "a", "order_id": "b"},
    ],
)
def test_a_query_that_makes_no_sense_is_refused(sandbox, query):
    assert_problem(get(sandbox, "/v1/payments", **query), 422, "validation")


def test_a_key_refunds_once_and_never_more_than_was_paid(sandbox):
    path = f"/v1/payments/{pay(sandbox, 1).json()['id']}"
    part = post(sandbox, path + "/refunds", {"amount": 40, "reason": "returned"}, "r-1")
    assert (part.status_code, part.json()["amount"], part.json()["status"]) == (201, 40, "succeeded")
    assert post(sandbox, path + "/refunds", {"amount": 40, "reason": "returned"}, "r-1").text == part.text
    assert get(sandbox, path).json()["status"] == "succeeded"
    assert_problem(post(sandbox, path + "/refunds", {"amount": 61, "reason": ""}, "r-2"), 422, "validation")
    assert post(sandbox, path + "/refunds", {"amount": 60, "reason": ""}, "r-3").status_code == 201
    assert get(sandbox, path).json()["status"] == "refunded"
    assert_problem(post(sandbox, "/v1/payments/pay_x/refunds", {"amount": 1, "reason": ""}, "r-4"), 404, "not-found")
    counts = sandbox.ledger()
    assert (counts["payments"]["amount_jpy"], counts["payments"]["refunded_jpy"]) == (100, 100)
    assert counts["orders"]["paid"] == 0
    assert pay(sandbox, 2, body=payment(2, orders=(1,))).status_code == 201


# --- headers, tokens, problems ----------------------------------------------------------------------------------------


def test_a_request_id_is_echoed_unless_it_could_carry_something(sandbox):
    assert pay(sandbox, 1, headers={"X-Request-Id": "run-1.a_b"}).headers["X-Request-Id"] == "run-1.a_b"
    assert "<" not in pay(sandbox, 2, headers={"X-Request-Id": "<b>"}).headers["X-Request-Id"]


def test_with_a_token_every_service_route_is_closed_without_it():
    with SandboxServer(token="good") as server:
        for headers in ({}, {"Authorization": "Bearer bad"}, {"Authorization": "Basic good"}):
            assert_problem(pay(server, 1, headers=headers), 401, "unauthorized")
            assert_problem(notify(server, 1, headers=headers), 401, "unauthorized")
            lookup = requests.get(server.url + "/v1/payments/x", headers=headers, timeout=10)
            assert_problem(lookup, 401, "unauthorized")
        assert pay(server, 1, headers={"Authorization": "Bearer good"}).status_code == 201
        assert get(server, "/health").json() == {"status": "ok"}


def test_problems_are_never_built_from_input(sandbox):
    planted = "leak-4711"
    answers = [
        post(sandbox, "/v1/payments", payment(1, customer_code=planted * 30, **{planted: 1}), planted),
        post(sandbox, "/v1/payments", payment(1, metadata={"batch_id": [planted]}, currency=planted), planted),
        post(sandbox, "/v1/notifications", notification(1, channel=planted), planted),
        get(sandbox, f"/v1/payments/{planted}"),
        get(sandbox, "/v1/payments", limit=planted),
        get(sandbox, f"/{planted}"),
        requests.put(sandbox.url + "/v1/payments", data=planted, timeout=10),
        post(sandbox, "/sandbox/faults", {planted: 1}),
        post(sandbox, "/sandbox/faults", {"faults": planted}),
    ]
    for answer in answers:
        assert answer.status_code >= 400
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert planted not in answer.text
        assert "server" not in answer.headers


# --- notifications ----------------------------------------------------------------------------------------------------


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


# --- faults -----------------------------------------------------------------------------------------------------------


def attempt(server: SandboxServer, number: int, timeout: float = 2) -> SimpleNamespace:
    """A try to pay, as a careless client sees it: lost, or a status with what it could read."""
    try:
        response = pay(server, number, timeout=timeout)
    except LOST:
        return SimpleNamespace(status=None, body=None)
    try:
        body = response.json()
    except ValueError:
        body = None
    return SimpleNamespace(status=response.status_code, body=body)


@pytest.mark.parametrize("kind", BEFORE)
def test_a_fault_before_the_booking_books_nothing(sandbox, kind):
    sandbox.change(faults=f"{kind}=1,hang_s=0.2")
    assert attempt(sandbox, 1).status not in {200, 201}
    assert sandbox.ledger()["payments"]["count"] == 0
    sandbox.change(faults="")
    assert attempt(sandbox, 1).status == 201


@pytest.mark.parametrize("kind", AFTER)
def test_a_fault_after_the_booking_books_once_and_the_key_finds_it_again(sandbox, kind):
    sandbox.change(faults=f"{kind}=1,hang_s=1")
    spoiled = attempt(sandbox, 1, timeout=0.5)
    right = {"status": "succeeded", "amount": 100, "reference": "ref-1"}
    assert kind == "huge" or spoiled.body is None or {name: spoiled.body.get(name) for name in right} != right
    assert sandbox.ledger()["payments"]["count"] == 1
    sandbox.change(faults="")
    again = attempt(sandbox, 1)
    assert again.status == 201
    assert right.items() <= again.body.items()
    assert sandbox.ledger()["payments"]["count"] == 1


def test_a_late_booking_comes_after_the_gateway_gave_up(sandbox):
    sandbox.change(faults="booked_late=1,late_s=0.3")
    assert attempt(sandbox, 1).status == 504
    assert sandbox.ledger()["payments"]["count"] == 0
    deadline = time.monotonic() + 5
    while sandbox.ledger()["payments"]["count"] == 0:
        assert time.monotonic() < deadline
    assert attempt(sandbox, 1).status == 201


def test_a_late_booking_does_not_follow_a_payment_made_with_its_key_meanwhile(sandbox):
    sandbox.change(faults="booked_late=1,late_s=0.3,max_per_key=1")
    assert [attempt(sandbox, 1).status, attempt(sandbox, 1).status] == [504, 201]
    time.sleep(0.5)  # nothing to wait for: the point is that nothing comes
    assert sandbox.ledger()["payments"]["count"] == 1


@pytest.mark.parametrize("retry_after", ["120", "-1", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", ""])
def test_retry_after_is_sent_as_it_was_asked_for(sandbox, retry_after):
    sandbox.change(faults={"rate_limited": 1, "retry_after": retry_after})
    response = pay(sandbox, 1)
    assert_problem(response, 429, "rate-limited")
    assert response.headers.get("Retry-After", "") == retry_after


def test_faults_depend_on_seed_key_and_attempt_alone():
    faults = Faults.model_validate("error_before=0.3,reset_after=0.2,seed=7")
    struck = [faults.fault_of(f"k-{number}", 1) for number in range(2000)]
    assert struck == [faults.fault_of(f"k-{number}", 1) for number in range(2000)]
    assert struck != [faults.fault_of(f"k-{number}", 2) for number in range(2000)]
    assert struck != [faults.model_copy(update={"seed": 8}).fault_of(f"k-{number}", 1) for number in range(2000)]
    assert struck.count("error_before") == pytest.approx(600, abs=80)
    assert struck.count("reset_after") == pytest.approx(400, abs=80)


def test_declines_follow_the_customer_the_order_or_the_payment():
    by_customer = Faults(decline=0.5, seed=3)
    assert len({by_customer.decline_code("C", f"r{n}", [str(n)]) for n in range(20)}) == 1
    by_order = Faults(decline_order=0.1, seed=3)
    bad = next(str(n) for n in range(1000) if share(3, "order", str(n)) < 0.1)
    assert by_order.decline_code("C", "r", [bad]) is not None
    assert by_order.decline_code("C", "r", ["good", bad]) is not None


@pytest.mark.parametrize("text", ["decline", "decline=2", "nonsense=0.1", "error_before=0.6,reset_after=0.6", "seed=x"])
def test_faults_that_make_no_sense_are_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        SandboxServer(faults=text)


def test_options_are_read_and_changed_at_run_time(sandbox):
    changed = post(sandbox, "/sandbox/faults", {"faults": "decline_payment=1,seed=5", "latency_ms": 1})
    assert changed.status_code == 200
    assert get(sandbox, "/sandbox/faults").json() == changed.json()
    assert (changed.json()["faults"]["seed"], changed.json()["latency_ms"]) == (5, 1)
    assert pay(sandbox, 1).status_code == 402
    assert_problem(post(sandbox, "/sandbox/faults", {"latency_ms": -1}), 422, "validation")


def test_notifications_and_look_ups_have_faults_of_their_own(sandbox):
    sandbox.change(notification_faults="unavailable=1", lookup_faults="error_before=1")
    payment_id = pay(sandbox, 1).json()["id"]
    assert notify(sandbox, 1).status_code == 503
    assert get(sandbox, f"/v1/payments/{payment_id}").status_code in {500, 502, 504}


# --- services that lack something -------------------------------------------------------------------------------------


def test_a_service_that_ignores_keys_charges_again_and_its_ledger_says_so():
    with SandboxServer(honour_keys=False, guard_orders=False) as server:
        assert [pay(server, 1).status_code for _ in range(2)] == [201, 201]
        assert [notify(server, 1).status_code for _ in range(2)] == [202, 202]
        counts = server.ledger()
        assert counts["orders"] == {"paid": 1, "paid_more_than_once": 1}
        assert counts["notifications"]["duplicates"] == 1
        assert get(server, "/v1/payments", reference="ref-1").json()["items"][0]["idempotency_key"] is None
        assert_problem(get(server, "/v1/payments", idempotency_key="k-1"), 422, "validation")


def test_a_service_that_ignores_keys_may_still_guard_orders():
    with SandboxServer(honour_keys=False) as server:
        assert [pay(server, 1).status_code for _ in range(2)] == [201, 409]


def test_a_service_without_look_ups_finds_nothing(sandbox):
    payment_id = pay(sandbox, 1).json()["id"]
    sandbox.change(lookups=False)
    for path in (f"/v1/payments/{payment_id}", "/v1/payments?reference=ref-1", "/v1/notifications?batch_id=b-1"):
        assert_problem(get(sandbox, path), 404, "not-found")


def test_look_ups_may_lag_behind(sandbox):
    sandbox.change(lookup_lag_s=60)
    payment_id = pay(sandbox, 1).json()["id"]
    assert get(sandbox, f"/v1/payments/{payment_id}").status_code == 404
    sandbox.change(lookup_lag_s=0)
    assert get(sandbox, f"/v1/payments/{payment_id}").status_code == 200


# --- the server itself ------------------------------------------------------------------------------------------------


def test_the_ledger_of_one_batch_leaves_out_the_others(sandbox):
    pay(sandbox, 1)
    pay(sandbox, 2, body=payment(2, metadata={"batch_id": "b-2"}))
    notify(sandbox, 1)
    body = get(sandbox, "/sandbox/ledger", batch_id="b-2").json()
    assert body == sandbox.ledger("b-2")
    assert (body["payments"]["count"], body["orders"]["paid"], body["notifications"]["calls"]) == (1, 1, 0)
    assert get(sandbox, "/sandbox/ledger").json()["payments"]["count"] == 2
    assert requests.delete(sandbox.url + "/sandbox/ledger", timeout=10).status_code == 204
    assert sandbox.ledger()["payments"]["count"] == 0


def test_people_get_a_page(sandbox):
    page = get(sandbox, "/")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "sandbox" in page.text


def test_a_stopped_server_starts_again_on_its_port_with_its_ledger(tmp_path):
    server = SandboxServer(tmp_path / "ledger.sqlite").start()
    first_url, first = server.url, pay(server, 1)
    server.stop()
    with pytest.raises(requests.ConnectionError):
        pay(server, 1)
    with server.start():
        assert server.url == first_url
        assert pay(server, 1).text == first.text
        with pytest.raises(SandboxError):
            SandboxServer(port=server.port).start()


def test_stopping_does_not_wait_for_calls_that_hang():
    server = SandboxServer(faults="timeout_before=1,hang_s=60").start()
    hanging = threading.Thread(target=attempt, args=(server, 1, 30))
    hanging.start()
    deadline = time.monotonic() + 5
    while not server.service._running:
        assert time.monotonic() < deadline
    started = time.monotonic()
    server.stop()
    hanging.join(5)
    assert time.monotonic() - started < 5
    assert not hanging.is_alive()


def test_the_ledger_keeps_no_addresses_and_no_tokens(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with SandboxServer(path) as server:
        method = {"type": "card_on_file", "token": "tok_secret_4711"}
        assert pay(server, 1, body=payment(1, payment_method=method)).status_code == 201
        assert notify(server, 1).status_code == 202
        assert server.received_notifications()[0]["recipient"]["address"] == "customer1@example.com"
        kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"ref-1" in kept
    assert b"tok_secret_4711" not in kept
    assert b"customer1@example.com" not in kept


def test_sixty_four_calls_wait_for_their_latency_at_the_same_time(sandbox):
    sandbox.change(latency_ms=300)
    started = time.monotonic()
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda number: pay(sandbox, number).status_code, range(64)))
    assert answers == [201] * 64
    assert time.monotonic() - started < 64 * 0.3 / 4


def test_the_latency_runs_from_the_requests_first_bytes_and_the_answer_leaves_in_one_piece(sandbox):
    sandbox.change(latency_ms=1000)
    body = json.dumps(payment()).encode()
    head = f"POST /v1/payments HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k-1\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", sandbox.port), timeout=10) as connection:
        started = time.monotonic()
        connection.sendall(head.encode())
        time.sleep(0.6)  # a client that takes its time over the body
        connection.sendall(body)
        answer = connection.recv(65536)
        took = time.monotonic() - started
    assert answer.startswith(b"HTTP/1.1 201")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["reference"] == "ref-1"
    assert 0.99 <= took < 1.6  # a timer may be a moment early

"""The sandbox's Payment service, called over HTTP as the pipeline calls it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from orders_pipeline.sandbox import SandboxServer
from orders_pipeline_tests.support.sandbox_calls import assert_problem, get, notify, pay, payment, post


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

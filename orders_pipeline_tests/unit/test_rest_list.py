"""How the Payment service's list is asked for and read: strictly, a page at a time, without repeating what it says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from orders_pipeline.services.answers import Answer, NoAnswer, NotDelivered, TooLong
from orders_pipeline.services.payment_gateway import ListedPayment, ListFailed, PaymentPage, UnreadablePayment
from orders_pipeline.services.rest_payments import RestPayments
from orders_pipeline_tests.support.service_stub import StubClient

KEY = "6a1f7a3e-0000-4000-8000-000000000001"
SINCE = datetime(2026, 7, 1, 12, 0, tzinfo=timezone(timedelta(hours=9)))
UNTIL = datetime(2026, 7, 2, 3, 0, tzinfo=UTC)
LISTED = ListedPayment("pay_1", KEY, KEY, 300, "succeeded", datetime(2026, 7, 1, 3, tzinfo=UTC))


def payment(**changes: object) -> dict[str, Any]:
    body: dict[str, Any] = {"id": "pay_1", "status": "succeeded", "amount": 300, "currency": "JPY", "reference": KEY}
    return body | {"idempotency_key": KEY, "failure": None, "created_at": "2026-07-01T03:00:00Z"} | changes


def page(*items: object) -> Answer:
    return Answer(200, {"items": list(items), "next": None})


def listing(*script: Answer | Exception) -> PaymentPage:
    return RestPayments(StubClient(*script)).list_payments(SINCE, UNTIL, limit=100)


def test_the_list_is_asked_for_by_time_and_page_as_the_contract_writes_it():
    client = StubClient(page(), page())
    rest = RestPayments(client)
    rest.list_payments(SINCE, UNTIL, limit=100)
    rest.list_payments(SINCE, UNTIL, limit=10, cursor="c1")
    times = {"created_from": "2026-07-01T03:00:00Z", "created_to": "2026-07-02T03:00:00Z"}
    assert [call["query"] for call in client.calls] == [
        times | {"limit": "100"},
        times | {"limit": "10", "cursor": "c1"},
    ]


def test_a_page_of_the_list_is_read_with_the_cursor_that_goes_on():
    body = {"items": [payment(), payment(id="pay_2", reference="x", idempotency_key=None, status="refunded")], "next": "c2"}
    first, second = listing(Answer(200, body)).items
    assert first == LISTED
    assert (second.service_payment_id, second.idempotency_key, second.status) == ("pay_2", None, "refunded")
    assert listing(Answer(200, body)).following == "c2"
    assert listing(page()) == PaymentPage([], None, [])


def test_what_a_list_may_say_besides_is_read_where_it_is_there():
    failed = payment(
        status="failed",
        refunded_amount=0,
        failure={"code": "card_expired"},
        metadata={"batch_id": "20260701-aaaaaaaaaaaa"},
        allocations=[{"order_id": "11", "amount": 100}, {"order_id": 12, "amount": 200}],
    )
    (found,) = listing(page(failed)).items
    assert (found.failure_code, found.batch_id, found.refunded_amount) == ("card_expired", "20260701-aaaaaaaaaaaa", 0)
    assert found.allocations == {"11": 100, "12": 200}


@pytest.mark.parametrize("metadata", [None, "x", {}, {"batch_id": 5}, {"batch_id": "planted text"}])
@pytest.mark.parametrize("failure", ["x", {}, {"code": "planted text"}])
def test_what_a_list_says_besides_is_left_out_where_it_is_none(metadata, failure):
    (found,) = listing(page(payment(metadata=metadata, failure=failure))).items
    assert (found.batch_id, found.failure_code) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"id": ""},
        {"id": "決済 1"},
        {"id": "x" * 129},
        {"id": 5},
        {"reference": None},
        {"reference": 5},
        {"idempotency_key": 5},
        {"status": None},
        {"status": "planted"},
        {"currency": None},
        {"currency": "USD"},
        {"amount": "300"},
        {"amount": 300.0},
        {"amount": True},
        {"amount": 0},
        {"amount": 2**53 + 1},
        {"refunded_amount": -1},
        {"refunded_amount": 301},
        {"refunded_amount": "1"},
        {"created_at": None},
        {"created_at": "planted"},
        {"created_at": "2026-07-01T03:00:00"},
        {"created_at": 5},
        {"allocations": "planted"},
        {"allocations": ["planted"]},
        {"allocations": [{"amount": 1}]},
        {"allocations": [{"order_id": "1", "amount": 0}]},
        {"allocations": [{"order_id": "1", "amount": 1}, {"order_id": 1, "amount": 1}]},
    ],
)
def test_what_the_contract_does_not_allow_is_that_payments_alone_and_says_whose_it_is(changes):
    found = listing(page(payment(id="pay_2"), payment(**changes)))
    assert [each.service_payment_id for each in found.items] == ["pay_2"]
    known = {"id": "pay_1", "reference": KEY, "idempotency_key": KEY} | dict.fromkeys(changes)
    assert found.unreadable == [UnreadablePayment(known["id"], known["reference"], known["idempotency_key"])]
    assert "planted" not in repr(found)


@pytest.mark.parametrize("item", ["planted", None, 5, ["planted"]])
def test_an_item_that_is_no_payment_at_all_fails_the_page_without_being_repeated(item):
    with pytest.raises(ListFailed, match="answer-does-not-fit") as failed:
        listing(page(payment(), item))
    assert "planted" not in str(failed.value)
    assert failed.value.may_pass


def test_one_payment_is_asked_for_by_its_reference_or_id_and_may_not_be_there():
    client = StubClient(page(payment()), Answer(200, payment()), Answer(404, {"type": "/problems/not-found"}))
    rest = RestPayments(client)
    assert rest.list_by_reference(KEY).items == rest.list_by_id("pay/1").items == [LISTED]
    assert rest.list_by_id("pay_2") == PaymentPage([], None, [])
    assert [(call["path"], call["query"]) for call in client.calls] == [
        ("/v1/payments", {"reference": KEY}),
        ("/v1/payments/pay%2F1", {}),
        ("/v1/payments/pay_2", {}),
    ]
    with pytest.raises(ListFailed, match="http-404"):
        RestPayments(StubClient(Answer(404, {}))).list_by_id("pay_1")


def test_an_answer_that_is_too_long_says_so():
    with pytest.raises(ListFailed, match="E_SERVICE_ANSWER_TOO_LONG") as failed:
        listing(TooLong(TooLong.code))
    assert (failed.value.may_pass, failed.value.is_too_long) == (True, True)


@pytest.mark.parametrize("body", [{}, {"items": {}}, {"items": [], "next": 5}, {"items": [], "next": ""}])
def test_a_body_that_is_no_page_fails(body):
    with pytest.raises(ListFailed, match="answer-does-not-fit"):
        listing(Answer(200, body))


@pytest.mark.parametrize(
    ("answer", "reason", "may_pass"),
    [
        (Answer(429, {"type": "/problems/rate-limited"}, 3.0), "rate-limited", True),
        (Answer(503, {"type": "/problems/unavailable"}, 3.0), "unavailable", True),
        (Answer(500, {}, 3.0), "http-500", True),
        (Answer(302, {}, 3.0), "http-302", False),
        (Answer(401, {}, 3.0), "http-401", False),
        (Answer(404, {}, 3.0), "http-404", False),
    ],
)
def test_a_list_that_is_refused_says_why_and_whether_it_may_pass(answer, reason, may_pass):
    with pytest.raises(ListFailed, match=reason) as failed:
        listing(answer)
    assert (failed.value.may_pass, failed.value.retry_after_s) == (may_pass, 3.0)


@pytest.mark.parametrize("failure", [NoAnswer(), NotDelivered()])
def test_a_list_without_an_answer_may_come_at_another_try(failure):
    with pytest.raises(ListFailed, match=failure.code) as failed:
        listing(failure)
    assert failed.value.may_pass


def test_a_listed_payment_shows_no_reference():
    assert "planted" not in repr(ListedPayment("pay_1", "planted", "planted", 1, "failed", UNTIL))

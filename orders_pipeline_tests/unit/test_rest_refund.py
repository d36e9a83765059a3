"""What each answer of the Payment service means for a refund: line by line of the service's contract."""

from __future__ import annotations

from typing import Any

import pytest

from orders_pipeline.services.answers import Answer, NoAnswer, NotDelivered
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.services.payment_gateway import RefundRequest
from orders_pipeline.services.rest_payments import RestPayments
from orders_pipeline_tests.support.service_stub import StubClient

KEY = "6a1f7a3e-0000-4000-8000-000000000007"
REQUEST = RefundRequest(KEY, "pay_1", 300, "planted reason")


def given(**changes: object) -> dict[str, Any]:
    return {"id": "ref_1", "payment_id": "pay_1", "amount": 300, "status": "succeeded"} | changes


def problem(status: int, word: str, retry_after_s: float | None = None) -> Answer:
    body = {"type": f"https://problems.example.com/{word}", "status": status, "code": word}
    return Answer(status, body, retry_after_s)


def refunding(*script: Answer | Exception) -> Outcome:
    return RestPayments(StubClient(*script)).refund(REQUEST)


def test_a_refund_is_sent_as_the_contract_writes_it():
    client = StubClient(Answer(201, given()))
    assert RestPayments(client).refund(REQUEST) == Outcome("succeeded", None, "ref_1")
    assert client.calls == [
        {
            "method": "POST",
            "path": "/v1/payments/pay_1/refunds",
            "idempotency_key": KEY,
            "body": {"amount": 300, "reason": "planted reason"},
        }
    ]


def test_an_id_that_a_person_typed_stays_one_part_of_the_path():
    client = StubClient(Answer(201, given()))
    RestPayments(client).refund(RefundRequest(KEY, "../pay?x=1", 300, "r"))
    assert client.calls[0]["path"] == "/v1/payments/..%2Fpay%3Fx%3D1/refunds"


def test_the_request_shows_no_reason():
    assert "planted" not in repr(REQUEST)


@pytest.mark.parametrize(
    "body",
    [
        {},
        given(payment_id="pay_2"),
        given(amount=299),
        given(amount="300"),
        given(amount=300.0),
        given(id=1),
        given(status="done"),
        given(status=["succeeded"]),
    ],
)
def test_an_answer_that_does_not_fit_is_no_answer(body):
    assert refunding(Answer(201, body)) == Outcome("unknown", "answer-does-not-fit", service_failed=True)


def test_a_refund_whose_result_comes_later_is_asked_for_again_under_its_key():
    outcome = refunding(Answer(202, given(status="processing"), 3.0))
    assert (outcome.kind, outcome.code, outcome.retry_after_s) == ("unknown", "processing", 3.0)


@pytest.mark.parametrize(
    ("status", "word"),
    [(422, "validation"), (402, "payment-declined"), (404, "not-found"), (404, "order-not-found")],
)
def test_what_the_service_refuses_for_good_is_declined(status, word):
    assert refunding(problem(status, word)) == Outcome("declined", word)


@pytest.mark.parametrize(
    ("status", "word"), [(500, "internal"), (504, "gateway-timeout"), (502, "x"), (307, "x"), (503, "x")]
)
def test_an_error_on_the_way_leaves_a_refund_unknown(status, word):
    outcome = refunding(problem(status, word))
    assert (outcome.kind, outcome.service_failed, outcome.stop) == ("unknown", True, False)


def test_a_refund_that_is_still_running_is_waited_for():
    outcome = refunding(problem(409, "request-in-progress", 1.0))
    assert (outcome.kind, outcome.retry_after_s, outcome.service_failed) == ("unknown", 1.0, False)


@pytest.mark.parametrize(("status", "word"), [(429, "rate-limited"), (503, "unavailable")])
def test_a_refund_that_was_not_accepted_is_not_sent(status, word):
    outcome = refunding(problem(status, word, 2.0))
    assert (outcome.kind, outcome.hold_s) == ("not_sent", 2.0)


@pytest.mark.parametrize(("status", "word"), [(401, "unauthorized"), (403, "forbidden")])
def test_what_a_person_must_mend_stops_the_refunds(status, word):
    outcome = refunding(problem(status, word))
    assert (outcome.kind, outcome.stop) == ("not_sent", True)


@pytest.mark.parametrize(("status", "word"), [(400, "malformed"), (405, "http-405"), (422, "too-late"), (410, "gone")])
def test_y09_a_refund_that_is_refused_as_the_contract_does_not_name_stops_nothing(status, word):
    assert refunding(problem(status, word)) == Outcome("not_sent", word, refused=True)


def test_a_key_that_stood_for_something_else_stays_unknown():
    assert refunding(problem(422, "idempotency-key-reused")) == Outcome("unknown", "idempotency-key-reused", refused=True)


def test_no_answer_is_unknown_and_no_delivery_is_not_sent():
    assert refunding(NoAnswer("x")).kind == "unknown"
    assert refunding(NotDelivered("x")).kind == "not_sent"

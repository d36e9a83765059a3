"""What each answer of the Payment service means for a payment: line by line of the service's contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from orders_pipeline.services.answers import Answer, NoAnswer, NotDelivered
from orders_pipeline.services.http_client import MAX_LIST_BYTES
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.services.payment_gateway import PaymentRequest
from orders_pipeline.services.rest_payments import RestPayments
from orders_pipeline_tests.support.service_stub import StubClient

KEY = "6a1f7a3e-0000-4000-8000-000000000001"
REFERENCE = f"0123456789ab-{KEY}"
BATCH = "20260701-aaaaaaaaaaaa"
REQUEST = PaymentRequest(
    KEY, REFERENCE, BATCH, "C-1", "card_on_file", 300, [(f"{BATCH}-1", 100), (f"{BATCH}-2", 200)], "tok_planted_value"
)
PROBLEMS = "https://problems.example.com/"


def payment(**changes: object) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": "pay_1",
        "status": "succeeded",
        "amount": 300,
        "currency": "JPY",
        "reference": REFERENCE,
        "idempotency_key": KEY,
        "failure": None,
        "created_at": "2026-07-01T03:00:00Z",
    }
    return body | changes


def without(name: str) -> dict[str, Any]:
    body = payment()
    del body[name]
    return body


def problem(status: int, word: str, *, code: object = None, retry_after_s: float | None = None) -> Answer:
    body: dict[str, Any] = {"type": PROBLEMS + word, "title": "planted title", "status": status}
    return Answer(status, body if code is None else body | {"code": code}, retry_after_s)


def page(*items: object) -> Answer:
    return Answer(200, {"items": list(items), "next": None})


def paying(*script: Answer | Exception) -> Outcome:
    return RestPayments(StubClient(*script)).pay(REQUEST)


def looking_up(*script: Answer | Exception) -> Outcome:
    return RestPayments(StubClient(*script)).look_up(REQUEST)


def test_a_payment_is_sent_as_the_contract_writes_it():
    client = StubClient(Answer(201, payment()))
    RestPayments(client).pay(REQUEST)
    assert client.calls == [
        {
            "method": "POST",
            "path": "/v1/payments",
            "idempotency_key": KEY,
            "body": {
                "amount": 300,
                "currency": "JPY",
                "customer_code": "C-1",
                "reference": REFERENCE,
                "payment_method": {"type": "card_on_file", "token": "tok_planted_value"},
                "allocations": [{"order_id": f"{BATCH}-1", "amount": 100}, {"order_id": f"{BATCH}-2", "amount": 200}],
                "metadata": {"batch_id": BATCH},
            },
        }
    ]


def test_a_payment_without_a_card_names_its_method_only():
    client = StubClient(Answer(201, payment()))
    RestPayments(client).pay(PaymentRequest(KEY, REFERENCE, "b", "C-1", "invoice", 300, [("b-11", 300)]))
    assert client.calls[0]["body"]["payment_method"] == {"type": "invoice"}


def test_the_request_shows_no_token():
    assert "planted" not in repr(REQUEST)


@pytest.mark.parametrize("status", [200, 201])
def test_a_payment_that_fits_the_request_is_succeeded(status):
    assert paying(Answer(status, payment())) == Outcome("succeeded", None, "pay_1")


def test_y14_fields_that_the_contract_does_not_know_are_ignored():
    assert paying(Answer(201, payment(surprise={"a": 1}))).kind == "succeeded"


def test_a_failed_payment_is_declined_with_the_services_code():
    answer = Answer(201, payment(status="failed", failure={"code": "card_expired", "retryable": False}))
    assert paying(answer) == Outcome("declined", "card_expired", "pay_1")


@pytest.mark.parametrize("failure", [None, "planted text", {}, {"code": "planted free text!"}, {"code": 5}])
def test_a_failed_payment_whose_reason_is_no_code_is_declined_without_one(failure):
    assert paying(Answer(201, payment(status="failed", failure=failure))) == Outcome("declined", None, "pay_1")


def test_a_payment_that_is_processing_is_asked_for_later():
    answer = Answer(202, payment(status="processing"), retry_after_s=7.0)
    assert paying(answer) == Outcome("unknown", "processing", "pay_1", 7.0)
    assert paying(Answer(202, payment(status="processing"))).retry_after_s == 1.0


@pytest.mark.parametrize(
    "body",
    [
        payment(reference="another"),
        payment(reference=None),
        payment(amount=301),
        payment(amount=299),
        payment(amount="300"),
        payment(amount=300.0),
        payment(amount=True),
        payment(currency="USD"),
        payment(currency=None),
        payment(id=None),
        payment(id=17),
        payment(status="planted"),
        payment(status=None),
        payment(status=["succeeded"]),
        *(without(name) for name in ("reference", "amount", "currency", "id", "status")),
        {},
    ],
)
@pytest.mark.parametrize("status", [200, 201, 202])
def test_y13_y14_an_answer_that_does_not_fit_the_request_is_unknown_and_never_paid(status, body):
    assert paying(Answer(status, body)) == Outcome("unknown", "answer-does-not-fit", service_failed=True)


@pytest.mark.parametrize("ask", ["pay", "look_up"])
def test_y15_who_gets_the_answer_to_another_request_hangs_up(ask):
    for body, times in ((payment(), 0), (payment(reference="another"), 1)):
        client = StubClient(Answer(200, body if ask == "pay" else {"items": [body]}))
        getattr(RestPayments(client), ask)(REQUEST)
        assert client.hung_up == times


def test_an_amount_of_one_is_not_the_same_as_true():
    request = PaymentRequest(KEY, REFERENCE, "b", "C-1", "invoice", 1, [("b-11", 1)])
    assert RestPayments(StubClient(Answer(201, payment(amount=True)))).pay(request).kind == "unknown"


def test_y01_a_request_that_was_not_delivered_is_not_sent():
    assert paying(NotDelivered()) == Outcome("not_sent", "E_SERVICE_UNREACHABLE", service_failed=True)


def test_y02_y03_a_request_without_an_answer_is_unknown():
    assert paying(NoAnswer()) == Outcome("unknown", "E_SERVICE_NO_ANSWER", service_failed=True)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (402, "payment-declined"),
        (404, "order-not-found"),
        (404, "customer-not-found"),
        (422, "validation"),
        (422, "amount-over-limit"),
    ],
)
def test_y09_a_refusal_that_the_contract_calls_final_is_declined(status, word):
    assert paying(problem(status, word)) == Outcome("declined", word)
    assert paying(problem(status, word, code="insufficient_funds")) == Outcome("declined", "insufficient_funds")


@pytest.mark.parametrize(("status", "word"), [(401, "unauthorized"), (403, "forbidden"), (407, "http-407")])
def test_y10_a_refusal_of_the_caller_stops_everything_and_leaves_the_payment_unsent(status, word):
    for answer in problem(status, word), Answer(status, {}):
        assert paying(answer) == Outcome("not_sent", answer.problem, stop=True, service_failed=True)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (400, "malformed"),
        (400, "idempotency-key-missing"),
        (402, "quota-exceeded"),
        (404, "not-found"),
        (404, "payment-method-not-found"),
        (413, "too-large"),
        (422, "card-expired"),
    ],
)
def test_y09_a_refusal_that_the_contract_does_not_name_is_not_sent_and_stops_nothing(status, word):
    assert paying(problem(status, word)) == Outcome("not_sent", word, refused=True)
    assert paying(problem(status, word, code="card_is_old")) == Outcome("not_sent", "card_is_old", refused=True)


@pytest.mark.parametrize("status", [400, 402, 404, 405, 410, 413, 414, 415, 418, 422, 431, 451])
def test_y09_a_refusal_without_a_problem_is_not_sent_and_stops_nothing(status):
    assert paying(Answer(status, {})) == Outcome("not_sent", f"http-{status}", refused=True)


@pytest.mark.parametrize("status", [408, 425])
def test_a_refusal_of_the_moment_is_a_failure_of_the_service(status):
    assert paying(Answer(status, {})) == Outcome("unknown", f"http-{status}", service_failed=True)


def test_y08_a_key_that_was_used_for_another_body_stays_in_doubt():
    # something was sent under this key before: that nothing was charged is not proven
    client = StubClient(problem(422, "idempotency-key-reused"), page())
    assert RestPayments(client).pay(REQUEST) == Outcome("unknown", "idempotency-key-reused", refused=True)


def test_a_key_that_was_used_for_this_payment_in_other_words_has_paid_it():
    client = StubClient(problem(422, "idempotency-key-reused"), page(payment()))
    assert RestPayments(client).pay(REQUEST) == Outcome("succeeded", None, "pay_1")


def test_a_conflict_that_the_contract_does_not_name_stays_in_doubt_and_is_no_wait():
    assert paying(problem(409, "order-locked")) == Outcome("unknown", "order-locked", refused=True)


def test_y07_a_request_in_progress_waits_with_the_same_key():
    assert paying(problem(409, "request-in-progress", retry_after_s=2.0)) == Outcome(
        "unknown", "request-in-progress", retry_after_s=2.0
    )


def test_an_order_already_paid_by_this_payment_is_adopted():
    client = StubClient(problem(409, "order-already-paid"), page(payment()))
    assert RestPayments(client).pay(REQUEST) == Outcome("succeeded", None, "pay_1")
    assert (client.calls[1]["method"], client.calls[1]["query"]) == ("GET", {"reference": REFERENCE})


@pytest.mark.parametrize("found", [page(), page(payment(reference="another")), Answer(500, {}), NoAnswer()])
def test_an_order_already_paid_by_something_else_stays_in_doubt(found):
    outcome = paying(problem(409, "order-already-paid"), found)
    assert outcome.kind == "unknown"
    assert outcome.service_id is None
    if found == page():
        assert outcome == Outcome("unknown", "order-already-paid", refused=True)


def test_y06_too_many_requests_is_not_sent_and_holds_everybody_back():
    outcome = paying(problem(429, "rate-limited", retry_after_s=3.0))
    assert outcome == Outcome("not_sent", "rate-limited", retry_after_s=3.0)
    assert outcome.hold_s == 3.0


def test_too_many_requests_without_a_pause_is_not_sent():
    assert paying(problem(429, "rate-limited")) == Outcome("not_sent", "rate-limited")


def test_y05_an_unavailable_service_did_not_accept_the_payment():
    outcome = paying(problem(503, "unavailable", retry_after_s=5.0))
    assert outcome == Outcome("not_sent", "unavailable", retry_after_s=5.0, service_failed=True)
    assert outcome.hold_s == 5.0


@pytest.mark.parametrize("status", [500, 502, 504, 505, 599])
@pytest.mark.parametrize("word", ["internal", "unavailable", "validation", "payment-declined", "unauthorized"])
def test_y04_a_failure_of_the_service_is_unknown_whatever_it_says(status, word):
    outcome = paying(problem(status, word, retry_after_s=4.0))
    assert outcome == Outcome("unknown", word, retry_after_s=4.0, service_failed=True)
    assert outcome.hold_s is None


def test_y05_a_503_that_is_not_the_services_own_word_is_unknown():
    # something on the way says so: the service may have the request
    assert paying(Answer(503, {})) == Outcome("unknown", "http-503", service_failed=True)


@pytest.mark.parametrize("status", [100, 203, 204, 206, 301, 302, 304, 307, 308])
def test_y12_an_answer_the_contract_does_not_know_is_unknown(status):
    assert paying(Answer(status, payment())).kind == "unknown"


@pytest.mark.parametrize("kind", ["planted free text", "/", "", 5, None, ["x"], "x" * 65, "プロブレム"])
def test_a_services_free_text_never_becomes_a_code(kind):
    outcome = paying(Answer(500, {"type": kind, "code": "planted free text"}))
    assert outcome.code == "http-500"


def test_a_look_up_asks_by_our_key():
    client = StubClient(page())
    RestPayments(client).look_up(REQUEST)
    assert client.calls == [
        {"method": "GET", "path": "/v1/payments", "query": {"reference": REFERENCE}, "most_bytes": MAX_LIST_BYTES}
    ]


def test_a_look_up_that_finds_nothing_says_absent():
    assert looking_up(page()) == Outcome("absent")


@pytest.mark.parametrize(
    ("found", "kind"),
    [("succeeded", "succeeded"), ("refunded", "succeeded"), ("failed", "declined"), ("processing", "unknown")],
)
def test_a_look_up_that_finds_the_payment_says_what_became_of_it(found, kind):
    outcome = looking_up(page(payment(status=found)))
    assert (outcome.kind, outcome.service_id) == (kind, "pay_1")


def test_y13_a_look_up_that_finds_only_another_reference_does_not_say_absent():
    assert looking_up(page(payment(reference="another"))) == Outcome("unknown", "other-reference")


def test_a_look_up_that_finds_a_charge_beside_a_failure_says_that_it_is_paid():
    for items in (payment(status="failed"), payment(id="pay_2")), (payment(id="pay_2"), payment(status="failed")):
        assert looking_up(page(*items)) == Outcome("succeeded", None, "pay_2")
    assert looking_up(page(payment(status="failed"), payment(amount=301))).kind == "unknown"


def test_a_look_up_picks_our_payment_among_others():
    assert looking_up(page(payment(reference="another", id="pay_0"), payment())).service_id == "pay_1"


@pytest.mark.parametrize(
    "answer",
    [
        page("planted"),
        page(payment(amount=301)),
        page(payment(amount="300")),
        Answer(200, {}),
        Answer(200, {"items": None}),
        Answer(200, {"items": {"0": "x"}}),
        Answer(201, {"items": []}),
        Answer(204, {"items": []}),
        Answer(500, {"items": []}),
        Answer(404, {"items": []}),
        NoAnswer(),
        NotDelivered(),
    ],
)
def test_a_look_up_without_a_clear_answer_is_unknown_and_never_absent(answer):
    assert looking_up(answer).kind == "unknown"


@pytest.mark.parametrize("status", [401, 403])
def test_a_look_up_that_is_refused_for_a_setting_stops_everything(status):
    assert looking_up(Answer(status, {})) == Outcome("unknown", f"http-{status}", stop=True, service_failed=True)


@pytest.mark.parametrize("status", [400, 404, 405, 422])
def test_a_look_up_that_is_refused_is_about_that_payment_and_stops_nothing(status):
    assert looking_up(Answer(status, {})) == Outcome("unknown", f"http-{status}", refused=True)


@pytest.mark.parametrize("status", [409, 429])
def test_a_look_up_that_comes_at_a_bad_time_is_asked_again(status):
    assert looking_up(Answer(status, {}, 2.0)) == Outcome("unknown", f"http-{status}", retry_after_s=2.0)


def test_no_outcome_shows_what_the_service_wrote():
    answers: list[Mapping[str, Any]] = [
        {"type": "planted text", "title": "planted", "detail": "planted", "code": "planted text"},
        payment(status="planted"),
    ]
    for body in answers:
        for status in (201, 400, 402, 409, 422, 500):
            script = [Answer(status, body), Answer(200, {"items": ["planted"]})]
            assert "planted" not in repr(paying(*script))

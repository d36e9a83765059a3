"""What each answer of the Notification service means, and how one claimed notification is brought to an outcome."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import Any

import pytest

from orders_pipeline.services.answers import Answer, NoAnswer, NotDelivered
from orders_pipeline.services.notification_service import Message, NotificationService
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.services.rate_limit import Stopped
from orders_pipeline.settlement.ledger import Claim
from orders_pipeline.settlement.notifications.ledger import NotificationClaim
from orders_pipeline.settlement.notifications.notify import send_many, send_one
from orders_pipeline_tests.support.service_stub import StubClient

KEY = "6a1f7a3e-0000-4000-8000-000000000002"
MESSAGE = Message(
    KEY, "b-1", "order-digest", "email", "C-1", "planted@example.com", {"order_count": 2}, ["b-1-11", "b-1-12"]
)


class CountingLimiter:
    """Lends a token at once and counts; refuses once stopped, as the real one does."""

    def __init__(self) -> None:
        self.lent = 0

    @contextlib.contextmanager
    def token(self, stop: threading.Event):
        if stop.is_set():
            raise Stopped
        self.lent += 1
        yield


def problem(status: int, word: str, *, code: str | None = None, retry_after_s: float | None = None) -> Answer:
    body = {"type": f"https://problems.example.com/{word}", "title": "planted"}
    return Answer(status, body if code is None else body | {"code": code}, retry_after_s)


def sending(answer: Answer | Exception) -> Outcome:
    return NotificationService(StubClient(answer)).send(MESSAGE)


def looking_up(answer: Answer | Exception) -> Outcome:
    return NotificationService(StubClient(answer)).look_up(MESSAGE)


def test_a_notification_is_sent_as_the_contract_writes_it():
    client = StubClient(Answer(202, {"id": "n-1", "status": "queued"}))
    NotificationService(client).send(MESSAGE)
    assert client.calls == [
        {
            "method": "POST",
            "path": "/v1/notifications",
            "idempotency_key": KEY,
            "body": {
                "template_id": "order-digest",
                "channel": "email",
                "recipient": {"customer_code": "C-1", "address": "planted@example.com"},
                "locale": "ja-JP",
                "variables": {"order_count": 2},
                "order_ids": ["b-1-11", "b-1-12"],
                "dedupe_key": KEY,
                "metadata": {"batch_id": "b-1"},
            },
        }
    ]


def test_a_message_shows_no_address():
    assert "planted" not in repr(MESSAGE) + repr(Claim(MESSAGE, 1, in_doubt=False))


@pytest.mark.parametrize("status", [200, 202])
def test_a_notification_that_was_taken_is_sent_under_the_services_id(status):
    assert sending(Answer(status, {"id": "n-1", "status": "queued"})) == Outcome("succeeded", None, "n-1")


@pytest.mark.parametrize("body", [{}, {"id": None}, {"id": 5}, {"id": ["n-1"]}])
def test_a_taken_notification_without_an_id_is_unknown(body):
    assert sending(Answer(202, body)) == Outcome("unknown", "answer-does-not-fit", service_failed=True)


@pytest.mark.parametrize(("status", "word"), [(422, "invalid-recipient"), (422, "validation")])
def test_a_refusal_that_the_contract_calls_final_fails_the_notification(status, word):
    assert sending(problem(status, word)) == Outcome("declined", word)


@pytest.mark.parametrize(("status", "word"), [(401, "unauthorized"), (403, "forbidden")])
def test_a_refusal_of_the_caller_stops_everything(status, word):
    assert sending(problem(status, word)) == Outcome("not_sent", word, stop=True, service_failed=True)


@pytest.mark.parametrize(
    ("status", "word"), [(400, "malformed"), (404, "template-not-found"), (413, "too-large"), (422, "unsubscribed")]
)
def test_n05_a_refusal_that_the_contract_does_not_call_final_stops_nothing(status, word):
    assert sending(problem(status, word)) == Outcome("not_sent", word, refused=True)


def test_a_key_that_was_used_for_another_message_is_in_doubt_so_that_it_is_looked_up():
    assert sending(problem(422, "idempotency-key-reused")) == Outcome("unknown", "idempotency-key-reused", refused=True)


@pytest.mark.parametrize("status", [400, 422])
def test_a_look_up_that_is_refused_is_about_that_message_and_stops_nothing(status):
    assert looking_up(Answer(status)) == Outcome("unknown", f"http-{status}", refused=True)


@pytest.mark.parametrize(("status", "word"), [(429, "rate-limited"), (503, "unavailable")])
def test_n02_what_was_not_accepted_is_not_sent_and_holds_everybody_back(status, word):
    outcome = sending(problem(status, word, retry_after_s=2.5))
    assert outcome == Outcome("not_sent", word, retry_after_s=2.5, service_failed=status == 503)
    assert outcome.hold_s == 2.5


@pytest.mark.parametrize("status", [500, 502, 504])
@pytest.mark.parametrize("word", ["internal", "invalid-recipient", "validation"])
def test_n01_a_failure_of_the_service_is_unknown_whatever_it_says(status, word):
    assert sending(problem(status, word)) == Outcome("unknown", word, service_failed=True)


@pytest.mark.parametrize("status", [201, 204, 301, 307, 409])
def test_an_answer_the_contract_does_not_know_is_unknown(status):
    assert sending(Answer(status, {"id": "n-1"})).kind == "unknown"


def test_a_request_that_was_not_delivered_is_not_sent_and_one_without_an_answer_unknown():
    assert sending(NotDelivered()) == Outcome("not_sent", "E_SERVICE_UNREACHABLE", service_failed=True)
    assert sending(NoAnswer()) == Outcome("unknown", "E_SERVICE_NO_ANSWER", service_failed=True)


def test_a_look_up_asks_by_our_dedupe_key():
    client = StubClient(Answer(200, {"items": []}))
    assert NotificationService(client).look_up(MESSAGE) == Outcome("absent")
    assert client.calls == [{"method": "GET", "path": "/v1/notifications", "query": {"dedupe_key": KEY}}]


def test_a_look_up_that_finds_the_notification_says_it_was_sent():
    assert looking_up(Answer(200, {"items": [{"id": "n-1"}]})) == Outcome("succeeded", None, "n-1")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, {}),
        Answer(200, {"items": "planted"}),
        Answer(200, {"items": ["planted"]}),
        Answer(200, {"items": [{}]}),
        Answer(403, {"items": []}),
        Answer(500, {"items": []}),
        Answer(429, {}, 1.0),
        NotDelivered(),
        NoAnswer(),
    ],
)
def test_a_look_up_without_a_clear_answer_is_unknown_and_never_absent(answer):
    assert looking_up(answer).kind == "unknown"


def test_y15_a_look_up_that_is_answered_with_another_message_is_unknown_and_hangs_up():
    client = StubClient(Answer(200, {"items": [{"id": "n-1", "dedupe_key": "another"}]}))
    assert NotificationService(client).look_up(MESSAGE).kind == "unknown"  # type: ignore[arg-type]
    assert client.hung_up == 1


@pytest.mark.parametrize("status", [404, 405])
def test_where_nothing_can_be_looked_up_what_is_in_doubt_is_sent_again(status):
    outcome, _ = bring(StubClient(Answer(status), Answer(202, {"id": "ntf-1"})), in_doubt=True)
    assert outcome.kind == "succeeded"


def bring(
    client: StubClient, *, in_doubt: bool, stop: threading.Event | None = None, ours: bool = True
) -> tuple[Outcome, int]:
    limiter = CountingLimiter()
    claim = Claim(MESSAGE, 1, in_doubt)
    outcome = send_one(
        NotificationService(client),
        limiter,  # type: ignore[arg-type]
        claim,
        may_send=lambda: ours,
        stop=stop or threading.Event(),
    )
    return outcome, limiter.lent


def methods(client: StubClient) -> list[str]:
    return [call["method"] for call in client.calls]


def test_a_first_try_is_one_call_on_one_token():
    client = StubClient(Answer(202, {"id": "n-1"}))
    assert bring(client, in_doubt=False) == (Outcome("succeeded", None, "n-1"), 1)
    assert methods(client) == ["POST"]


def test_what_may_have_been_sent_is_looked_up_and_not_sent_again():
    client = StubClient(Answer(200, {"items": [{"id": "n-1"}]}))
    assert bring(client, in_doubt=True) == (Outcome("succeeded", None, "n-1"), 1)
    assert methods(client) == ["GET"]


def test_what_a_look_up_does_not_find_is_sent_each_call_on_a_token_of_its_own():
    client = StubClient(Answer(200, {"items": []}), Answer(202, {"id": "n-1"}))
    assert bring(client, in_doubt=True) == (Outcome("succeeded", None, "n-1"), 2)
    assert methods(client) == ["GET", "POST"]


def test_nothing_is_sent_after_a_look_up_without_a_clear_answer():
    client = StubClient(NoAnswer())
    assert bring(client, in_doubt=True)[0].kind == "unknown"
    assert methods(client) == ["GET"]


@pytest.mark.parametrize(("in_doubt", "kind"), [(False, "not_sent"), (True, "unknown")])
def test_when_the_work_is_called_off_nothing_is_sent_and_doubt_stays_doubt(in_doubt, kind):
    stop = threading.Event()
    stop.set()
    client = StubClient()
    assert bring(client, in_doubt=in_doubt, stop=stop) == (Outcome(kind, "called-off"), 0)


@pytest.mark.parametrize(("in_doubt", "asked"), [(False, []), (True, ["GET"])])
def test_c27_what_may_be_anothers_by_now_is_not_sent(in_doubt, asked):
    client = StubClient(Answer(200, {"items": []}))
    assert bring(client, in_doubt=in_doubt, ours=False)[0] == Outcome("not_sent", "called-off")
    assert methods(client) == asked


# --- many in one call -------------------------------------------------------------------------------------------------

KEYS = [f"6a1f7a3e-0000-4000-8000-00000000001{n}" for n in range(4)]
MANY = [replace(MESSAGE, notification_id=key) for key in KEYS]


def result(key: str, status: str = "queued", **more: str) -> dict[str, str]:
    return {"dedupe_key": key, "status": status, **more}


def sending_many(answer: Answer | Exception) -> list[Outcome] | None:
    return NotificationService(StubClient(answer)).send_many(MANY)


def bring_many(
    client: StubClient, *, in_doubt: tuple[int, ...] = (), stop: threading.Event | None = None, ours: bool = True
) -> tuple[list[str], int]:
    limiter = CountingLimiter()
    claims = [Claim(message, 1, number in in_doubt) for number, message in enumerate(MANY)]
    service = NotificationService(client)
    outcomes = send_many(
        service,
        limiter,  # type: ignore[arg-type]
        claims,
        may_send=lambda: ours,
        stop=stop or threading.Event(),
    )
    return [outcome.kind for outcome in outcomes], limiter.lent


@pytest.mark.parametrize(
    ("answer", "takes_many"), [(200, True), (400, True), (422, True), (404, False), (405, False), (501, False)]
)
def test_whether_a_service_takes_many_is_asked_once_with_nothing_to_send(answer, takes_many):
    client = StubClient(problem(answer, "planted"))
    service = NotificationService(client)
    assert (service.takes_many(), service.takes_many()) == (takes_many, takes_many)
    assert [(call["path"], call["body"]) for call in client.calls] == [("/v1/notifications/batches", {"items": []})]


@pytest.mark.parametrize("answer", [Answer(500), Answer(429), Answer(401), NoAnswer(), NotDelivered()])
def test_a_service_that_does_not_say_is_sent_one_by_one_and_asked_again(answer):
    service = NotificationService(StubClient(answer, Answer(200)))
    assert (service.takes_many(), service.takes_many()) == (False, True)


def test_each_of_many_gets_its_own_result():
    items = [
        result(KEYS[0], id="n-1"),
        result(KEYS[1], "failed", code="invalid-recipient"),
        result(KEYS[2], "failed", code="unavailable"),
        result(KEYS[3], "failed", code="internal"),
    ]
    assert sending_many(Answer(200, {"results": items})) == [
        Outcome("succeeded", None, "n-1"),
        Outcome("declined", "invalid-recipient"),
        Outcome("not_sent", "unavailable"),
        Outcome("unknown", "internal"),
    ]


def test_n05_one_of_many_may_be_refused_as_the_contract_does_not_name():
    codes = ("unsubscribed", "template-not-found", "idempotency-key-reused", "rate-limited")
    items = [result(key, "failed", code=code) for key, code in zip(KEYS, codes, strict=True)]
    assert sending_many(Answer(200, {"results": items})) == [
        Outcome("not_sent", "unsubscribed", refused=True),
        Outcome("not_sent", "template-not-found", refused=True),
        Outcome("unknown", "idempotency-key-reused", refused=True),
        Outcome("not_sent", "rate-limited"),
    ]


def sent_together(client: Any, claims: list[NotificationClaim]) -> list[Outcome]:
    limiter: Any = CountingLimiter()
    return send_many(NotificationService(client), limiter, claims, may_send=lambda: True, stop=threading.Event())


def test_n05_many_that_are_refused_whole_are_halved_until_the_one_to_blame_is_alone():
    """Fifteen calls for a hundred, not a hundred and one."""
    bad, calls = f"{57:032x}", []

    class Picky:
        def call(self, _method: str, path: str, *, body: dict[str, Any], **_: Any) -> Answer:
            keys = [each["dedupe_key"] for each in body.get("items", [body])]
            calls.append(len(keys))
            if bad in keys:
                return problem(422, "unsubscribed")
            if path.endswith("/batches"):
                return Answer(200, {"results": [result(key, id=f"n-{key}") for key in keys]})
            return Answer(202, {"id": f"n-{keys[0]}"})

    claims = [Claim(replace(MESSAGE, notification_id=f"{n:032x}"), 1, in_doubt=False) for n in range(100)]
    outcomes = sent_together(Picky(), claims)
    assert outcomes[57] == Outcome("not_sent", "unsubscribed", refused=True)
    assert [outcome.service_id for at, outcome in enumerate(outcomes) if at != 57] == [
        f"n-{n:032x}" for n in range(100) if n != 57
    ]
    assert len(calls) <= 16
    assert max(calls[1:]) == 50


def test_many_that_may_have_been_sent_are_looked_up_side_by_side():
    together = threading.Barrier(4)

    class Slow:
        def call(self, _method: str, _path: str, *, query: dict[str, str], **_: Any) -> Answer:
            together.wait(10)  # breaks where one is looked up after the other
            return Answer(200, {"items": [result(query["dedupe_key"], id=f"n-{query['dedupe_key']}")]})

    claims = [Claim(replace(MESSAGE, notification_id=f"{n:032x}"), 1, in_doubt=True) for n in range(4)]
    outcomes = sent_together(Slow(), claims)
    assert not together.broken
    assert len(outcomes) == 4


@pytest.mark.parametrize(
    "item",
    [None, "planted", {}, result("planted", id="n-1"), result(KEYS[0]), result(KEYS[0], "failed"), result(KEYS[0], "?")],
)
def test_a_result_that_is_about_another_message_or_says_nothing_leaves_only_that_one_in_doubt(item):
    items = [item, *(result(key, id="n-1") for key in KEYS[1:])]
    kinds = [outcome.kind for outcome in sending_many(Answer(200, {"results": items})) or []]
    assert kinds == ["unknown", "succeeded", "succeeded", "succeeded"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(200, {}), "unknown"),
        (Answer(200, {"results": [result(KEYS[0], id="n-1")]}), "unknown"),
        (Answer(500), "unknown"),
        (Answer(302), "unknown"),
        (Answer(429, {}, 1.0), "not_sent"),
        (Answer(401), "not_sent"),
        (NoAnswer(), "unknown"),
        (NotDelivered(), "not_sent"),
    ],
)
def test_an_answer_to_the_whole_call_is_that_of_all(answer, kind):
    assert [outcome.kind for outcome in sending_many(answer) or []] == [kind] * 4


@pytest.mark.parametrize("status", [400, 404, 405, 413, 422])
def test_many_that_are_refused_whole_are_sent_one_by_one(status):
    client = StubClient(problem(status, "validation"), *(Answer(202, {"id": f"n-{n}"}) for n in range(4)))
    assert bring_many(client) == (["succeeded"] * 4, 5)


def test_what_may_have_been_sent_is_looked_up_by_itself_and_the_others_go_in_one_call():
    items = [result(KEYS[0], id="n-0"), result(KEYS[2], id="n-2"), result(KEYS[3], id="n-3")]
    client = StubClient(Answer(200, {"results": items}), Answer(200, {"items": [{"id": "n-1"}]}))
    assert bring_many(client, in_doubt=(1,)) == (["succeeded"] * 4, 2)
    assert methods(client) == ["POST", "GET"]


def test_nothing_of_many_is_sent_after_a_stop():
    stop = threading.Event()
    stop.set()
    assert bring_many(StubClient(), in_doubt=(3,), stop=stop) == (["not_sent"] * 3 + ["unknown"], 0)


def test_c27_nothing_of_many_is_sent_that_may_be_anothers_by_now():
    client = StubClient()
    assert bring_many(client, ours=False) == (["not_sent"] * 4, 1)
    assert client.calls == []

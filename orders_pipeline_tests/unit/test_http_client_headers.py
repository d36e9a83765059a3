"""What is read of an answer's headers and codes: Retry-After in every form, and only what looks like a code."""

from __future__ import annotations

import email.utils
import time
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from orders_pipeline.services.answers import Answer, safe_code
from orders_pipeline.services.http_client import ServiceClient, parse_retry_after


@pytest.fixture
def _in_tokyo(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("1", 1.0),
        (" 7 ", 7.0),
        ("007", 7.0),
        ("60", 60.0),
        ("61", 60.0),
        ("86400", 60.0),
        ("9" * 9, 60.0),
        ("9" * 400, 60.0),
    ],
)
def test_y06_seconds_are_taken_up_to_a_minute(value, seconds):
    assert parse_retry_after(value) == seconds


@pytest.mark.parametrize(
    "value",
    [None, "", " ", "-1", "-86400", "+5", "1.5", "1e3", "1_0", "soon", "５", "٣", "0x10", "5 s", "1, 2", "\x00"],
)
def test_y06_what_is_neither_seconds_nor_a_date_says_nothing(value):
    assert parse_retry_after(value) is None


@pytest.mark.parametrize(
    "value",
    [
        "Wed, 99 Foo 2026 99:99:99 GMT",
        "Wed, 21 Oct 99999999999 07:28:00 GMT",
        "Wed, 21 Oct 2026",
        "Wed, 32 Oct 2026 07:28:00 GMT",
        "2026-07-01T00:00:00Z",
    ],
)
def test_a_broken_date_is_read_without_an_error(value):
    parsed = parse_retry_after(value)
    assert parsed is None or 0.0 <= parsed <= 60.0


def test_y06_a_date_in_the_past_is_no_pause():
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_y06_a_date_far_ahead_is_a_minute():
    assert parse_retry_after("Fri, 31 Dec 2100 23:59:59 GMT") == 60.0


def in_thirty_seconds() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=30)


@pytest.mark.parametrize(
    "written",
    [
        lambda moment: email.utils.format_datetime(moment, usegmt=True),
        lambda moment: moment.strftime("%A, %d-%b-%y %H:%M:%S GMT"),
        lambda moment: moment.strftime("%a %b %e %H:%M:%S %Y"),
        email.utils.format_datetime,
    ],
    ids=["imf-fixdate", "rfc850", "asctime", "offset"],
)
@pytest.mark.usefixtures("_in_tokyo")
def test_y06_each_form_of_http_date_means_the_same_wherever_we_run(written):
    assert parse_retry_after(written(in_thirty_seconds())) == pytest.approx(30.0, abs=2.0)


@pytest.mark.parametrize("code", ["insufficient_funds", "payment-declined", "a", "X9", "x" * 64])
def test_what_looks_like_a_code_is_let_through(code):
    assert safe_code(code) == code


@pytest.mark.parametrize(
    "code", [None, 5, True, "", "-", "free text", "x" * 65, "a.b", "a/b", "a\n", "コード", "５", "a@b", ["a"]]
)
def test_a_services_free_text_is_not_a_code(code):
    assert safe_code(code) is None


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("https://problems.example.com/rate-limited", "rate-limited"),
        ("https://problems.example.com/rate-limited/", "rate-limited"),
        ("rate-limited", "rate-limited"),
        ("about:blank", "http-429"),
        ("", "http-429"),
        (None, "http-429"),
        ({"a": 1}, "http-429"),
    ],
)
def test_a_problem_is_the_last_part_of_its_type_or_the_status(kind, word):
    assert Answer(429, {"type": kind}).problem == word


def test_an_answer_without_a_body_is_named_by_its_status():
    assert (Answer(502).problem, Answer(502).code) == ("http-502", None)


def test_a_client_shows_neither_its_token_nor_its_address():
    client = ServiceClient("https://planted.example.com", SecretStr("planted"), 5.0)
    assert "planted" not in repr(client)

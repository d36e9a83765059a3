"""What no decent program sends to the API: each is told so as a problem, nothing is registered, and nothing breaks.

Here requests are bytes on a connection; what a client's library lets one send belongs in `test_api.py`.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import socket
import time
import uuid
import zipfile
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests

from orders_pipeline.clients.api_tokens import REFUND, USUAL_SCOPES
from orders_pipeline.web import protocol, uploads
from orders_pipeline_tests.support.api import Client, client_of, csv_of, exchanged, problem
from orders_pipeline_tests.support.commands import wait_for
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation

SUBMIT = "POST /v1/batches?name=a.csv HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\n"
BODY = csv_of(order_row())


@pytest.fixture
def acme(installation: Installation, url: str, caplog: pytest.LogCaptureFixture) -> Iterator[Client]:
    """A program that nothing is registered for in the end; nothing went wrong that was not foreseen."""
    client = client_of(installation.system, url, f"acme-{uuid.uuid4().hex[:8]}", [*USUAL_SCOPES, REFUND])
    with caplog.at_level(logging.INFO):
        yield client
    assert client.get("batches").json()["items"] == []
    assert not [each for each in caplog.records if each.levelno > logging.WARNING or each.exc_info]
    assert " 500 " not in caplog.text


def head(client: Client, *lines: str, start: str = SUBMIT) -> bytes:
    return "\r\n".join([f"{start}Authorization: Bearer {client.token}", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    "sent",
    [
        b"\0" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500,  # TLS
        b"GET /v1/batches?name=\xe6\xb3\xa8.csv HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/batches HTTP/1.1\r\n\r\n",
        b"GET /v1/batches HTTP/1.1\r\nHost: x\r\nX-A: a\rb\r\n\r\n",
        b"GET /v1/batches HTTP/1.1\r\nHost: x\r\nX A: a\r\n\r\n",
        b"POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n",
        b"POST /v1/batches HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ],
)
def test_what_is_no_http_is_a_problem_and_the_connection_ends(acme: Client, url: str, sent: bytes) -> None:
    answer = exchanged(url, sent)
    assert answer is not None
    found = problem(answer, 400, "malformed-request")
    assert found["title"] == "ヘッダー、パラメーターまたはパスの形式が正しくありません。"
    assert (answer.headers["Connection"], answer.headers["Cache-Control"]) == ("close", "no-store")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v1/batches HTTP/1.1\r\nHost: x\r\nX-A: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /v1/batches HTTP/1.1\r\nHost: x\r\n" + b"X-A: x\r\n" * 12_000 + b"\r\n",
        b"GET /v1/batches?" + b"&".join(b"a%d=1" % at for at in range(10_000)) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["one header", "many headers", "many parameters"],
)
def test_a_head_that_is_too_large_is_a_problem_in_one_piece_and_in_many(acme: Client, url: str, sent: bytes) -> None:
    pieces = [sent[at : at + 1_000] for at in range(0, len(sent), 1_000)]
    for answer in (exchanged(url, sent), exchanged(url, *pieces, pause_s=0.01)):
        assert answer is not None
        problem(answer, 400, "malformed-request")


def test_many_parameters_are_a_problem(acme: Client) -> None:
    query = "&".join(f"a{at}=1" for at in range(1_500))
    problem(acme.get(f"/v1/batches?{query}"), 400, "malformed-request")
    problem(acme.post(f"/v1/batches?{'name=a.csv&' * 1_000}", BODY), 400, "malformed-request")


@pytest.mark.parametrize("length", [1, len(BODY) - 1])
def test_a_body_that_is_cut_off_is_not_the_one_that_its_digest_names(acme: Client, url: str, length: int) -> None:
    digest = "Content-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
    answer = exchanged(url, head(acme, f"Content-Length: {length}", digest) + BODY)
    assert answer is not None
    problem(answer, 400, "digest-mismatch")


def test_a_body_that_ends_early_or_is_given_two_lengths_becomes_nothing(acme: Client, url: str) -> None:
    assert exchanged(url, head(acme, f"Content-Length: {len(BODY) + 1}") + BODY, ends=True) is None
    assert exchanged(url, head(acme, "Transfer-Encoding: chunked") + b"5\r\nabcde\r\n", ends=True) is None
    both = head(acme, "Content-Length: 5", "Transfer-Encoding: chunked") + b"5\r\nabcde\r\n0\r\n\r\n"
    answer = exchanged(url, both)
    assert answer is not None
    problem(answer, 400, "malformed-request")


@pytest.mark.parametrize("chunk", [b"zz\r\nabc\r\n", b"-1\r\nabc\r\n", b"f" * 40 + b"\r\n", b"3\r\nabcd\r\n"])
def test_a_chunk_that_is_none_is_a_problem(acme: Client, url: str, chunk: bytes) -> None:
    answer = exchanged(url, head(acme, "Transfer-Encoding: chunked"), b"3\r\nabc\r\n", chunk, pause_s=0.2)
    assert answer is not None
    problem(answer, 400, "malformed-request")


@pytest.mark.parametrize(
    "lines", [("Content-Length: 1000",), ("Transfer-Encoding: chunked",)], ids=["with a length", "chunked without end"]
)
def test_a_body_that_does_not_come_or_does_not_end_is_waited_for_only_so_long(
    acme: Client, url: str, monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...]
) -> None:
    monkeypatch.setattr(uploads, "SILENCE_S", 0.4)
    piece = b"x" if "Length" in lines[0] else b"1\r\nx\r\n"
    answer = exchanged(url, head(acme, *lines), piece)
    assert answer is not None
    problem(answer, 408, "too-slow")
    monkeypatch.setattr(uploads, "WHOLE_S", 1.0)
    began = time.monotonic()
    answer = exchanged(url, head(acme, *lines), *[piece] * 20, pause_s=0.1)
    assert answer is not None
    problem(answer, 408, "too-slow")
    assert time.monotonic() - began < 10
    refund = f"POST /v1/batches/20200101-000000000000/refunds HTTP/1.1\r\nHost: x\r\n{lines[0]}\r\n"
    answer = exchanged(url, head(acme, start=refund), piece)
    assert answer is not None
    problem(answer, 408, "too-slow")


def test_a_head_that_does_not_end_and_a_connection_without_a_request_are_given_up(
    acme: Client, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PATIENCE_S", 0.5)
    began = time.monotonic()
    answer = exchanged(url, b"GET /v1/batches HTTP/1.1\r\n", *[b"X-A: x\r\n"] * 10, pause_s=0.1)
    assert answer is not None
    problem(answer, 408, "too-slow")
    assert time.monotonic() - began < 10


def test_a_body_that_goes_on_behind_its_answer_is_not_read_for_ever(
    acme: Client, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PATIENCE_S", 0.5)
    monkeypatch.setattr(protocol, "LINGER_S", 0.2)
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port or 80), timeout=30) as connection:
        connection.sendall(SUBMIT.encode() + b"Transfer-Encoding: chunked\r\n\r\n")

        def is_closed() -> bool:
            try:
                connection.sendall(b"5\r\nabcde\r\n")
            except ConnectionError:
                return True
            return False

        wait_for(is_closed, "the connection to be closed")


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd.csv", "..\\a.csv", "a/b.csv", "/a.csv", "a\r\nSet-Cookie: x=1.csv", "a\0.csv", "\u2028.csv", ".csv"],
)
def test_a_name_that_is_a_path_or_breaks_a_line_is_a_problem(acme: Client, name: str) -> None:
    for path in ("batches", "checks"):
        answer = acme.post(path, BODY, name=name)
        problem(answer, 400, "malformed-request")
        assert "Set-Cookie" not in answer.headers


def bomb() -> bytes:
    """A workbook that is small, and a gigabyte when it is opened."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("[Content_Types].xml", "<Types/>")
        package.writestr("xl/workbook.xml", "<workbook/>")
        with package.open("xl/worksheets/sheet1.xml", "w") as sheet:
            for _ in range(200):
                sheet.write(b"0" * (1 << 20))
    return content.getvalue()


@pytest.mark.parametrize(
    ("body", "name"),
    [(bomb(), "a.xlsx"), (gzip.compress(BODY), "a.csv"), (gzip.compress(BODY), "a.xlsx"), (b"\xff\xfe" * 1000, "a.csv")],
    ids=["bomb", "gzip as CSV", "gzip as workbook", "no text"],
)
def test_a_file_that_is_another_thing_is_refused_by_what_it_is(acme: Client, body: bytes, name: str) -> None:
    began = time.monotonic()
    answer = acme.post("checks", body, key=None, name=name)
    assert (answer.status_code, answer.json()["status"]) == (200, "rejected"), answer.text
    assert answer.json()["status_code"].startswith("F_")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "x"])
def test_a_body_that_is_packed_is_refused(acme: Client, encoding: str) -> None:
    headers = {"Content-Encoding": encoding}
    problem(acme.post("batches", gzip.compress(BODY), headers=headers), 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"orders":' + b"[" * 5_000 + b"]" * 5_000 + b',"reason":"x"}',
        b'{"reason":' + b"1" * 500_000 + b"}",
        b'{"reason":"\\ud800"}',
        b'{"reason":"x","reason":1}',
        b"\xff",
        b"",
        b"null",
    ],
    ids=str,
)
def test_a_command_that_is_none_is_a_problem(installation: Installation, url: str, body: bytes) -> None:
    client = client_of(installation.system, url, f"acme-{uuid.uuid4().hex[:8]}", [*USUAL_SCOPES, REFUND])
    batch_id = client.post("batches", BODY).json()["batch_id"]
    problem(client.post(f"batches/{batch_id}/refunds", body, media_type="application/json"), 400, "malformed-command")


FORGED = {
    "Forwarded": "for=10.0.0.1;host=elsewhere.example;proto=https",
    "X-Forwarded-For": "10.0.0.1",
    "X-Forwarded-Host": "elsewhere.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-User": "operator",
    "X-Forwarded-Prefix": "/elsewhere",
    "X-Real-IP": "10.0.0.1",
    "X-Remote-User": "operator",
    "X-Original-URL": "/overview",
    "X-HTTP-Method-Override": "DELETE",
    "Remote-User": "operator",
    "Host": "elsewhere.example",
}


def test_what_a_proxy_would_say_is_not_believed(acme: Client, url: str, caplog: pytest.LogCaptureFixture) -> None:
    for path in ("/v1/batches", "/overview"):
        problem(requests.get(url + path, headers=FORGED, timeout=60), 401, "unauthorized")
    plain, forged = acme.get("profile"), acme.get("profile", headers=FORGED)
    assert (plain.json(), plain.headers.keys()) == (forged.json(), forged.headers.keys())
    answer = requests.get(f"{url}/history", headers=FORGED | {"Accept": "text/html"}, timeout=60, allow_redirects=False)
    assert answer.headers["Location"] == "/sign-in?next=%2Fhistory"
    assert "elsewhere" not in answer.text + json.dumps(dict(answer.headers)) + caplog.text


def test_a_path_is_asked_for_only_with_its_methods_and_is_told_which(acme: Client, url: str) -> None:
    for path, allowed in (("/v1/batches", "GET, HEAD, POST"), ("/v1/checks", "POST"), ("/healthz", "GET, HEAD")):
        answer = requests.request("DELETE", url + path, timeout=60)
        problem(answer, 405, "method-not-allowed")
        assert answer.headers["Allow"] == allowed
    assert exchanged(url, b"\xc3\xa9 / HTTP/1.1\r\nHost: x\r\n\r\n") is not None
    for method in ("TRACE", "OPTIONS", "CONNECT", "BREW"):
        problem(requests.request(method, f"{url}/v1/batches", timeout=60), 405, "method-not-allowed")


@pytest.mark.parametrize("path", ["batches", "profile", "codes", "batches/20200101-000000000000", "nothing"])
def test_head_is_answered_like_get_without_the_body(acme: Client, path: str) -> None:
    asked = {"headers": {"Authorization": f"Bearer {acme.token}"}, "timeout": 60}
    whole, answer = (requests.request(method, f"{acme.url}/v1/{path}", **asked) for method in ("GET", "HEAD"))
    passing = ("request-id", "ratelimit", "date")
    heads = [
        {name: value for name, value in each.headers.items() if name.lower() not in passing} for each in (whole, answer)
    ]
    assert (answer.status_code, heads[1], answer.content) == (whole.status_code, heads[0], b"")

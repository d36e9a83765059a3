"""The sandbox's server over real HTTP: headers, tokens, problems, its ledger, and how it starts and stops."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from orders_pipeline.sandbox import SandboxError, SandboxServer
from orders_pipeline_tests.support.sandbox_calls import (
    assert_problem,
    attempt,
    get,
    notification,
    notify,
    pay,
    payment,
    post,
)


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
        assert server.service.recent_notifications[0]["recipient"]["address"] == "customer1@example.com"
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

"""The faults that the sandbox makes on demand: what each books, sends and leaves."""

from __future__ import annotations

import time

import pytest

from orders_pipeline.sandbox import Faults, SandboxServer
from orders_pipeline.sandbox.faults import AFTER, BEFORE, share
from orders_pipeline_tests.support.sandbox_calls import assert_problem, attempt, get, notify, pay, post


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

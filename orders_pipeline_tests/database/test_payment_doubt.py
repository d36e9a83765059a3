"""Payments that may have been charged: looked up, sent again under their key, or left to a person."""

from __future__ import annotations

import pytest

from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.settlement.ledger import MAX_ATTEMPTS, UNDECIDABLE
from orders_pipeline.settlement.payments.ledger import ABSENT_ONCE
from orders_pipeline_tests.support.scripted_gateway import (
    EVERY_MODE,
    KEYED,
    KEYS_ONLY,
    LOOK_UP_ONLY,
    LOST,
    NEITHER,
    PAID,
    REFUSED,
    ScriptedGateway,
    one_try,
    planned,
    seconds_to_next,
)


@EVERY_MODE
def test_a_first_try_that_was_not_sent_goes_back_to_pending(harness, able):
    planned(harness)
    with harness.working() as worker:
        one_try(harness, worker, ScriptedGateway(able, pay=[REFUSED]))
        assert (harness.statuses("payments"), harness.statuses("orders")) == (["planned"], ["pending"])
        gateway = ScriptedGateway(able)
        one_try(harness, worker, gateway)
    assert gateway.asked == ["pay"]
    assert harness.statuses("orders") == ["paid"]


@EVERY_MODE
def test_an_unclear_first_try_leaves_the_order_unknown(harness, able):
    planned(harness)
    with harness.working() as worker:
        one_try(harness, worker, ScriptedGateway(able, pay=[LOST]))
    assert (harness.statuses("payments"), harness.statuses("orders")) == (["unknown"], ["unknown"])


@pytest.mark.parametrize("able", [KEYED, LOOK_UP_ONLY])
@pytest.mark.parametrize(("found", "state"), [(PAID, "paid"), (Outcome("declined", "x", "pay-1"), "declined")])
def test_what_is_unknown_is_looked_up_first_and_what_is_found_is_taken(harness, able, found, state):
    planned(harness)
    with harness.working() as worker:
        one_try(harness, worker, ScriptedGateway(able, pay=[LOST]))
        gateway = ScriptedGateway(able, look_up=[found])
        one_try(harness, worker, gateway)
    assert gateway.asked == ["look up"]
    assert harness.statuses("orders") == [state]


@pytest.mark.parametrize("able", [KEYED, LOOK_UP_ONLY])
def test_nothing_is_sent_after_a_look_up_without_an_answer(harness, able):
    planned(harness)
    with harness.working() as worker:
        one_try(harness, worker, ScriptedGateway(able, pay=[LOST]))
        gateway = ScriptedGateway(able, look_up=[LOST])
        one_try(harness, worker, gateway)
        one_try(harness, worker, gateway)
    assert gateway.asked == ["look up", "look up"]
    assert harness.statuses("orders") == ["unknown"]


def test_with_keys_and_look_up_what_is_absent_is_sent_again_under_the_same_key(harness):
    planned(harness)
    with harness.working() as worker:
        gateway = ScriptedGateway(KEYED, pay=[LOST, PAID])
        one_try(harness, worker, gateway)
        one_try(harness, worker, gateway)
    assert gateway.asked == ["pay", "look up", "pay"]
    assert gateway.requests[0] == gateway.requests[1]
    assert harness.statuses("orders") == ["paid"]


def test_with_keys_alone_what_is_unknown_is_sent_again_under_the_same_key(harness):
    planned(harness)
    with harness.working() as worker:
        gateway = ScriptedGateway(KEYS_ONLY, pay=[LOST, PAID])
        one_try(harness, worker, gateway)
        one_try(harness, worker, gateway)
    assert gateway.asked == ["pay", "pay"]
    assert gateway.requests[0] == gateway.requests[1]


@pytest.mark.parametrize(("able", "asked"), [(KEYED, ["pay", "look up"]), (KEYS_ONLY, ["pay"])])
def test_what_may_have_been_charged_a_day_ago_is_not_sent_again_under_its_key(harness, able, asked):
    planned(harness)
    with harness.working() as worker:
        gateway = ScriptedGateway(able, pay=[LOST, PAID])
        one_try(harness, worker, gateway)
        harness.run("UPDATE payments SET created_at = created_at - interval '2 days'")
        one_try(harness, worker, gateway)
    assert gateway.asked == asked
    assert harness.statuses("orders") == ["unknown"]


def test_y25_with_look_up_alone_absent_counts_after_two_minutes_and_twice(harness):
    planned(harness)
    with harness.working() as worker:
        gateway = ScriptedGateway(LOOK_UP_ONLY, pay=[LOST, PAID])
        one_try(harness, worker, gateway)
        assert 115 < seconds_to_next(harness) <= 121
        assert one_try(harness, worker, gateway).code == ABSENT_ONCE
        assert harness.statuses("orders") == ["unknown"]
        assert gateway.asked == ["pay", "look up"]
        one_try(harness, worker, gateway)
    assert gateway.asked == ["pay", "look up", "look up", "pay"]
    assert harness.statuses("orders") == ["paid"]


def test_with_look_up_alone_a_second_unclear_try_waits_as_long_as_the_first(harness):
    planned(harness)
    with harness.working() as worker:
        gateway = ScriptedGateway(LOOK_UP_ONLY, pay=[LOST])
        for _ in range(3):
            one_try(harness, worker, gateway)
        assert gateway.asked == ["pay", "look up", "look up", "pay"]
        assert 115 < seconds_to_next(harness) <= 121
        one_try(harness, worker, gateway)
        one_try(harness, worker, gateway)
    assert gateway.asked[4:] == ["look up", "look up", "pay"]


def test_with_neither_what_is_unknown_stays_for_a_person(harness):
    planned(harness)
    with harness.working() as worker:
        gateway = ScriptedGateway(NEITHER, pay=[LOST])
        one_try(harness, worker, gateway)
        assert harness.ledger(worker, NEITHER).wait_s() is None  # there is nothing to wait for
        one_try(harness, worker, gateway)
        assert harness.ledger(worker, NEITHER).wait_s() is None
        assert harness.value("SELECT outcome_code FROM payments") == UNDECIDABLE
        ledger = harness.ledger(worker, NEITHER)
        ledger.begin()
        assert ledger.claim(10) == []
    assert gateway.asked == ["pay"]
    assert harness.statuses("orders") == ["unknown"]


@pytest.mark.parametrize("able", [KEYED, KEYS_ONLY])
def test_a_second_try_that_was_not_sent_does_not_prove_that_the_first_did_not_charge(harness, able):
    planned(harness)
    with harness.working() as worker:
        gateway = ScriptedGateway(able, pay=[LOST, REFUSED])
        one_try(harness, worker, gateway)
        one_try(harness, worker, gateway)
    assert (harness.statuses("payments"), harness.statuses("orders")) == (["unknown"], ["unknown"])


def test_a_second_try_that_was_not_sent_after_absent_twice_goes_back_to_pending(harness):
    planned(harness)
    with harness.working() as worker:
        gateway = ScriptedGateway(LOOK_UP_ONLY, pay=[LOST, REFUSED])
        for _ in range(3):
            one_try(harness, worker, gateway)
    assert (harness.statuses("payments"), harness.statuses("orders")) == (["planned"], ["pending"])


def test_the_services_pause_is_kept(harness):
    planned(harness)
    with harness.working() as worker:
        one_try(harness, worker, ScriptedGateway(KEYED, pay=[Outcome("not_sent", "rate-limited", retry_after_s=40.0)]))
        assert 38 < seconds_to_next(harness) <= 40
        assert harness.ledger(worker).wait_s() == pytest.approx(40, abs=2)
        assert harness.ledger(worker).claim(10) == []


def test_a_payment_is_tried_a_limited_number_of_times_in_one_drain_and_anew_in_the_next(harness):
    planned(harness)
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        for _ in range(MAX_ATTEMPTS):
            one_try(harness, worker, ScriptedGateway(KEYED, pay=[REFUSED]))
        harness.due_now("payments")
        assert ledger.claim(10) == []
        assert ledger.wait_s() is None
        ledger.begin()
        assert len(ledger.claim(10)) == 1

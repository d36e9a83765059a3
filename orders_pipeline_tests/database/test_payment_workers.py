"""Payments between workers: what a lost one was sending, what one may still send, and who waits for whom."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from orders_pipeline.batches.workers import LEASE_S, LeaseLost
from orders_pipeline.services.outcomes import Outcome, called_off
from orders_pipeline.services.payment_gateway import PaymentRequest
from orders_pipeline.settlement.payments.ledger import ABSENT_ONCE, PaymentClaim
from orders_pipeline.settlement.payments.settle import settle_batch
from orders_pipeline_tests.support.ledgers import order
from orders_pipeline_tests.support.scripted_gateway import (
    KEYED,
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


def test_claimers_at_the_same_moment_never_share_a_payment(harness):
    planned(harness, 60)
    start = threading.Barrier(6)

    def claim_all(_: int) -> list[str]:
        with harness.working() as worker:
            ledger, mine = harness.ledger(worker), []
            start.wait(10)
            while claims := ledger.claim(3):
                mine += [claim.request.payment_id for claim in claims]
                ledger.record([(claim, PAID) for claim in claims])
        return mine

    with ThreadPoolExecutor(6) as pool:
        taken = [payment_id for mine in pool.map(claim_all, range(6)) for payment_id in mine]
    assert len(taken) == len(set(taken)) == 60


def test_a_claimer_does_not_wait_for_rows_another_holds(harness):
    planned(harness, 2)
    with harness.working() as worker, harness.connect() as other:
        other.execute("SELECT FROM payments ORDER BY next_attempt_at, payment_id LIMIT 1 FOR UPDATE")
        assert len(harness.ledger(worker).claim(10)) == 1


def test_c27_a_worker_that_was_given_up_writes_nothing_and_claims_nothing(harness):
    planned(harness, 2)
    with harness.working() as slow:
        ledger = harness.ledger(slow)
        (claim,) = ledger.claim(1)
        harness.give_up(slow)
        with harness.working() as other:
            harness.ledger(other).begin()
            assert sorted(harness.statuses("payments")) == ["planned", "unknown"]
            assert sorted(harness.statuses("orders")) == ["pending", "unknown"]
            ledger.record([(claim, Outcome("declined", "late"))])
            assert sorted(harness.statuses("payments")) == ["planned", "unknown"]
            harness.due_now("payments")
            claims = harness.ledger(other).claim(10)
            ledger.record([(claim, PAID)])
            assert sorted(harness.statuses("payments")) == ["sending", "unknown"]
            assert [each.in_doubt for each in claims if each.request == claim.request] == [True]
        slow.given_up.set()
        with pytest.raises(LeaseLost, match="E_LEASE_LOST"):
            ledger.claim(10)


@pytest.mark.parametrize(("able", "doubt_s"), [(KEYED, 0.5), (LOOK_UP_ONLY, 120.0)])
def test_c15_what_a_lost_worker_was_sending_is_looked_up_once_it_cannot_be_under_way(harness, able, doubt_s):
    planned(harness)
    with harness.working() as lost:
        harness.ledger(lost, able).claim(1)
        harness.give_up(lost)
        with harness.working() as worker:
            harness.ledger(worker, able).begin()
            waits_s = harness.value("SELECT extract(epoch FROM next_attempt_at - sent_at) FROM payments")
    assert float(waits_s) == pytest.approx(doubt_s)
    assert harness.value("SELECT outcome_code FROM payments") == "worker-lost"


@pytest.mark.parametrize(("able", "age"), [(LOOK_UP_ONLY, "0 hours"), (KEYED, "25 hours")])
def test_c15_where_no_key_helps_a_look_up_waits_from_when_the_lost_worker_could_last_send(harness, able, age):
    planned(harness)
    with harness.working() as lost:
        harness.run("UPDATE payments SET created_at = now() - CAST(%s AS interval)", age)
        harness.ledger(lost, able).claim(1)
        harness.run("UPDATE workers SET ended_at = now() WHERE worker_id = %s", lost.worker_id)  # its session was cut
        with harness.working() as worker:
            harness.ledger(worker, able).begin()
            waits_s = harness.value(
                "SELECT extract(epoch FROM next_attempt_at - lease_until) FROM payments, workers WHERE worker_id = %s",
                lost.worker_id,
            )
    assert float(waits_s) == pytest.approx(120.0)


def test_a_charge_that_is_known_late_counts_while_nobody_else_finds_out(harness):
    planned(harness, 2)
    with harness.working() as slow:
        ledger = harness.ledger(slow, NEITHER)
        claims = ledger.claim(2)
        harness.give_up(slow)
        with harness.working() as other:
            harness.ledger(other, NEITHER).begin()
            assert harness.statuses("payments") == ["unknown", "unknown"]
            ledger.record([(claims[0], PAID), (claims[1], Outcome("declined", "card-declined"))])
            assert sorted(harness.statuses("payments")) == ["succeeded", "unknown"]
            assert sorted(harness.statuses("orders")) == ["paid", "unknown"]


def test_what_another_worker_holds_is_waited_for_and_taken_over_when_that_is_lost(harness):
    planned(harness)
    with harness.working() as slow, harness.working() as other:
        held = harness.ledger(slow)
        (claim,) = held.claim(10)
        waiting = harness.ledger(other)
        assert waiting.claim(10) == []
        assert waiting.wait_s() == pytest.approx(1, abs=0.1)
        held.record([(claim, PAID)])
        assert waiting.wait_s() is None
    harness.orders(order(2))
    harness.plan()
    with harness.working() as slow, harness.working() as other:
        harness.ledger(slow).claim(10)
        harness.give_up(slow)
        assert harness.ledger(other).wait_s() is not None
        assert sorted(harness.statuses("payments")) == ["succeeded", "unknown"]
        assert sorted(harness.statuses("orders")) == ["paid", "unknown"]


def test_what_a_worker_holds_without_knowing_of_it_is_released_once_it_has_nothing_under_way(harness):
    planned(harness)
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.claim(10)  # as when the answer to the commit was lost
        assert ledger.wait_s() is not None
        assert harness.statuses("payments") == ["unknown"]


def test_who_waits_gives_nobody_up_whose_session_broke_for_a_moment(harness):
    planned(harness)
    with harness.working() as slow, harness.working() as other:
        held = harness.ledger(slow)
        (claim,) = held.claim(10)
        harness.break_session(slow)
        assert harness.ledger(other).wait_s() == pytest.approx(1, abs=0.1)
        assert harness.statuses("payments") == ["sending"]
        held.record([(claim, PAID)])
        assert harness.statuses("payments") == ["succeeded"]


def test_what_is_called_off_counts_as_no_try_and_is_due_again_soon(harness):
    planned(harness)
    with harness.working() as worker:
        ledger = harness.ledger(worker, LOOK_UP_ONLY)
        for _ in range(20):
            harness.due_now("payments")
            ledger.record([(claim, called_off(in_doubt=claim.in_doubt)) for claim in ledger.claim(1)])
        assert seconds_to_next(harness) <= 0.5
        one_try(harness, worker, ScriptedGateway(LOOK_UP_ONLY, pay=[LOST]))
        harness.due_now("payments")
        ledger.record([(claim, called_off(in_doubt=claim.in_doubt)) for claim in ledger.claim(1)])
        assert harness.statuses("payments") == ["unknown"]
        assert seconds_to_next(harness) <= 1.0


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("not_sent", "unauthorized", stop=True, service_failed=True),
        Outcome("not_sent", "rate-limited", retry_after_s=30.0),
    ],
    ids=["y10", "y06"],
)
def test_y06_y10_what_was_claimed_ahead_is_not_sent_once_a_service_wants_no_more(harness, outcome):
    planned(harness, 60)
    gateway, stop = ScriptedGateway(KEYED, pay=[outcome]), threading.Event()
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.concurrency = 4
        pay, record = gateway.pay, ledger.record
        number, first_is_recorded = itertools.count(), threading.Event()

        def pay_after_the_first(request: PaymentRequest) -> Outcome:
            if next(number):
                first_is_recorded.wait(10)
            return pay(request)

        def record_and_know(results: Sequence[tuple[PaymentClaim, Outcome]]) -> bool:
            may_go_on = record(results)
            threading.Timer(0.2, first_is_recorded.set).start()  # once the others that were claimed are taken back
            later.start()
            ledger.record = record  # type: ignore[method-assign]
            return may_go_on

        gateway.pay, ledger.record = pay_after_the_first, record_and_know  # type: ignore[method-assign]
        later = threading.Timer(0.8, stop.set)
        settle_batch(ledger, gateway, stop)
        later.join()
    assert 4 <= len(gateway.asked) <= 8
    assert set(harness.statuses("payments")) == {"planned"}


def test_c27_what_a_worker_claimed_is_not_sent_once_it_may_be_anothers(harness):
    planned(harness)
    gateway = ScriptedGateway(KEYED)
    with harness.working() as worker:
        worker.leased_at -= LEASE_S
        assert one_try(harness, worker, gateway) == called_off(in_doubt=False)
        assert gateway.asked == []
        assert (harness.statuses("payments"), harness.statuses("orders")) == (["planned"], ["pending"])


def test_c27_doubt_stays_doubt_where_nothing_may_be_sent(harness):
    planned(harness)
    gateway = ScriptedGateway(KEYED, pay=[LOST])
    with harness.working() as worker:
        one_try(harness, worker, gateway)
        worker.leased_at -= LEASE_S
        assert one_try(harness, worker, gateway).kind == "unknown"
        assert gateway.asked == ["pay", "look up"]


def test_what_a_lost_worker_was_sending_for_the_second_time_waits_as_long(harness):
    planned(harness)
    with harness.working() as lost:
        gateway = ScriptedGateway(LOOK_UP_ONLY, pay=[LOST])
        one_try(harness, lost, gateway)
        one_try(harness, lost, gateway)
        harness.due_now("payments")
        harness.ledger(lost, LOOK_UP_ONLY).claim(1)
        harness.give_up(lost)
        with harness.working() as worker:
            harness.ledger(worker, LOOK_UP_ONLY).begin()
            waits_s = harness.value("SELECT extract(epoch FROM next_attempt_at - sent_at) FROM payments")
            assert float(waits_s) == pytest.approx(120.0)
            assert one_try(harness, worker, gateway).code == ABSENT_ONCE


def test_a_live_workers_claims_are_not_taken_over(harness):
    planned(harness)
    with harness.working() as first, harness.working() as second:
        harness.ledger(first).claim(1)
        harness.ledger(second).begin()
        assert harness.statuses("payments") == ["sending"]
        assert harness.ledger(second).claim(10) == []


def test_a_record_that_is_written_twice_is_written_once(harness):
    planned(harness)
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        (claim,) = ledger.claim(1)
        ledger.record([(claim, PAID)])
        ledger.record([(claim, Outcome("declined", "other"))])
    assert harness.statuses("payments") == ["succeeded"]


def test_a_group_of_results_is_recorded_each_as_its_own(harness):
    planned(harness, 4)
    outcomes = [PAID, Outcome("declined", "x"), LOST, REFUSED]
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        claims = sorted(ledger.claim(10), key=lambda claim: claim.request.customer_code)
        ledger.record(list(zip(claims, outcomes, strict=True)))
    assert harness.statuses("orders") == ["paid", "declined", "unknown", "pending"]
    covered = harness.run("SELECT status FROM orders JOIN payment_orders USING (order_id) WHERE live ORDER BY order_id")
    assert [row["status"] for row in covered] == ["paid", "unknown", "pending"]


def test_a_batch_is_drained_by_several_workers_each_payment_sent_once(harness):
    planned(harness, 40)
    gateways = [ScriptedGateway(KEYED) for _ in range(3)]

    def drain(gateway: ScriptedGateway) -> None:
        with harness.working() as worker:
            settle_batch(harness.ledger(worker), gateway, threading.Event())

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(drain, gateways))
    sent = [request.payment_id for gateway in gateways for request in gateway.requests]
    assert len(sent) == len(set(sent)) == 40
    assert set(harness.statuses("orders")) == {"paid"}

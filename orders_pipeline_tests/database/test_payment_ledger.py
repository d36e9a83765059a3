"""The ledger of payments: planned, claimed, recorded and taken over, by any number of workers, without a second charge."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from orders_pipeline.batches.workers import LEASE_S, LeaseLost
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.services.gateway import Capabilities, PaymentRequest
from orders_pipeline.services.outcomes import Outcome, called_off
from orders_pipeline.settlement.payments import settle
from orders_pipeline.settlement.payments.settle import ABSENT_ONCE, UNDECIDABLE, settle_batch, settle_one
from orders_pipeline_tests.ledger_desk import CIPHER, Desk, order

PAID = Outcome("succeeded", None, "pay-1")
LOST = Outcome("unknown", "E_SERVICE_NO_ANSWER")
REFUSED = Outcome("not_sent", "E_SERVICE_UNREACHABLE")
ABSENT = Outcome("absent")

KEYED = Capabilities(honours_keys=True, can_look_up=True)
KEYS_ONLY = Capabilities(honours_keys=True, can_look_up=False)
LOOK_UP_ONLY = Capabilities(honours_keys=False, can_look_up=True)
NEITHER = Capabilities(honours_keys=False, can_look_up=False)
EVERY_MODE = pytest.mark.parametrize(
    "able", [KEYED, KEYS_ONLY, LOOK_UP_ONLY, NEITHER], ids=["keys+look-up", "keys", "look-up", "neither"]
)


class ScriptedGateway:
    """Answers from two scripts and remembers what it was asked, in order; the last answer of a script is repeated."""

    def __init__(
        self, capabilities: Capabilities, *, pay: Sequence[Outcome] = (PAID,), look_up: Sequence[Outcome] = (ABSENT,)
    ) -> None:
        self.capabilities = capabilities
        self.asked: list[str] = []
        self.requests: list[PaymentRequest] = []
        self._pay, self._look_up = list(pay), list(look_up)

    def pay(self, request: PaymentRequest) -> Outcome:
        self.asked.append("pay")
        self.requests.append(request)
        return self._pay.pop(0) if len(self._pay) > 1 else self._pay[0]

    def look_up(self, request: PaymentRequest) -> Outcome:
        self.asked.append("look up")
        return self._look_up.pop(0) if len(self._look_up) > 1 else self._look_up[0]


def planned(desk: Desk, count: int = 1, **changes: object) -> None:
    """Have a batch with one payment an order, each of a customer of its own."""
    desk.batch()
    desk.orders(*(order(n, customer_code=f"C-{n}", notify_channel="none", **changes) for n in range(1, count + 1)))
    desk.plan()


def one_try(desk: Desk, worker, gateway: ScriptedGateway) -> Outcome:
    """Let time pass, claim the payment, settle it and record what came of it."""
    desk.due_now("payments")
    ledger = desk.ledger(worker, gateway.capabilities)
    (claim,) = ledger.claim(10)
    outcome = settle_one(gateway, claim, worker.may_send)
    ledger.record([(claim, outcome)])
    return outcome


def seconds_to_next(desk: Desk) -> float:
    return float(desk.value("SELECT extract(epoch FROM next_attempt_at - clock_timestamp()) FROM payments"))


def test_a_plan_covers_every_order_once_and_a_second_plan_nothing(desk):
    desk.batch()
    desk.orders(*(order(n, amount=400_000) for n in range(1, 6)))
    desk.plan()
    assert [row["amount"] for row in desk.run("SELECT amount FROM payments ORDER BY amount")] == [400_000, 800_000, 800_000]
    assert settle.plan_batch(desk.database, CIPHER, desk.batch_id, Profile()) == 0
    assert desk.value("SELECT count(*) FROM payment_orders") == 5


def test_two_planners_at_once_plan_every_order_once(desk):
    desk.batch()
    desk.orders(*(order(n, customer_code=f"C-{n % 7}") for n in range(1, 41)))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: desk.plan(), range(4)))
    assert desk.value("SELECT count(*) FROM payment_orders") == 40
    assert desk.value("SELECT count(*) FROM payments") == 7
    assert desk.value("SELECT count(*) FROM notifications") == 7


def test_cards_of_a_customer_are_paid_apart_and_the_claim_carries_each_ones_own(desk):
    desk.batch()
    cards = ["tok_aaaaaaaa", "tok_bbbbbbbb", "tok_aaaaaaaa"]
    desk.orders(
        *(
            order(n, payment_method="card_on_file", personal={"payment_token": card, "email": "planted@example.com"})
            for n, card in enumerate(cards, start=1)
        )
    )
    desk.plan()
    with desk.working() as worker:
        claims = desk.ledger(worker).claim(10)
    assert {(claim.request.payment_token, claim.request.amount) for claim in claims} == {
        ("tok_aaaaaaaa", 2000),
        ("tok_bbbbbbbb", 1000),
    }
    assert "tok_" not in repr(claims)


def test_a_claim_commits_the_intent_before_anything_is_sent(desk):
    planned(desk, 2)
    with desk.working() as worker:
        claims = desk.ledger(worker).claim(10)
        assert desk.statuses("payments") == ["sending", "sending"]
        assert desk.statuses("orders") == ["paying", "paying"]
        assert desk.value("SELECT bool_and(claimed_by = %s AND sent_at IS NOT NULL) FROM payments", worker.worker_id)
    assert [(claim.attempts, claim.in_doubt) for claim in claims] == [(1, False), (1, False)]


def test_a_claim_takes_no_more_than_asked_and_nothing_twice(desk):
    planned(desk, 5)
    with desk.working() as worker:
        ledger = desk.ledger(worker)
        taken = [claim.request.payment_id for size in (2, 2, 2, 2) for claim in ledger.claim(size)]
    assert len(taken) == len(set(taken)) == 5


def test_a_new_drain_leaves_alone_what_was_not_tried(desk):
    planned(desk, 3)
    with desk.working() as worker:
        ledger = desk.ledger(worker)
        ledger.record([(claim, REFUSED) for claim in ledger.claim(1)])
        untried = desk.run("SELECT payment_id, ctid::text FROM payments WHERE attempts = 0 ORDER BY payment_id")
        ledger.begin()
    assert len(untried) == 2
    moved = desk.run("SELECT payment_id, ctid::text FROM payments ORDER BY payment_id")
    assert [row for row in moved if row in untried] == untried
    assert desk.value("SELECT max(attempts) FROM payments") == 0


def test_claimers_at_the_same_moment_never_share_a_payment(desk):
    planned(desk, 60)
    start = threading.Barrier(6)

    def claim_all(_: int) -> list[str]:
        with desk.working() as worker:
            ledger, mine = desk.ledger(worker), []
            start.wait(10)
            while claims := ledger.claim(3):
                mine += [claim.request.payment_id for claim in claims]
                ledger.record([(claim, PAID) for claim in claims])
        return mine

    with ThreadPoolExecutor(6) as pool:
        taken = [payment_id for mine in pool.map(claim_all, range(6)) for payment_id in mine]
    assert len(taken) == len(set(taken)) == 60


def test_nothing_is_claimed_while_our_ledger_is_not_known_to_be_whole(desk):
    planned(desk)
    with desk.working() as worker:
        ledger = desk.ledger(worker)
        desk.run("UPDATE installation SET stopped_at = now(), stopped_by = 'service'")
        assert ledger.claim(10) == []
        assert ledger.wait_s() is None
        desk.run("UPDATE installation SET stopped_at = NULL, stopped_by = NULL")
        assert len(ledger.claim(10)) == 1


def test_a_claimer_does_not_wait_for_rows_another_holds(desk):
    planned(desk, 2)
    with desk.working() as worker, desk.connect() as other:
        other.execute("SELECT FROM payments ORDER BY next_attempt_at, payment_id LIMIT 1 FOR UPDATE")
        assert len(desk.ledger(worker).claim(10)) == 1


def test_a_success_pays_its_orders_and_is_final(desk):
    planned(desk)
    with desk.working() as worker:
        one_try(desk, worker, ScriptedGateway(KEYED))
        desk.due_now("payments")
        assert desk.ledger(worker).claim(10) == []
        assert desk.ledger(worker).wait_s() is None
    assert (desk.statuses("payments"), desk.statuses("orders")) == (["succeeded"], ["paid"])
    row = desk.run("SELECT settled_at IS NOT NULL AS settled, claimed_by, service_payment_id FROM payments")[0]
    assert row == {"settled": True, "claimed_by": None, "service_payment_id": "pay-1"}


def test_a_decline_ends_the_payment_and_frees_its_orders_from_it(desk):
    planned(desk)
    with desk.working() as worker:
        one_try(desk, worker, ScriptedGateway(KEYED, pay=[Outcome("declined", "insufficient_funds", "pay-1")]))
    assert (desk.statuses("payments"), desk.statuses("orders")) == (["declined"], ["declined"])
    assert desk.value("SELECT live FROM payment_orders") is False
    assert desk.value("SELECT outcome_code FROM payments") == "insufficient_funds"


@EVERY_MODE
def test_a_first_try_that_was_not_sent_goes_back_to_pending(desk, able):
    planned(desk)
    with desk.working() as worker:
        one_try(desk, worker, ScriptedGateway(able, pay=[REFUSED]))
        assert (desk.statuses("payments"), desk.statuses("orders")) == (["planned"], ["pending"])
        gateway = ScriptedGateway(able)
        one_try(desk, worker, gateway)
    assert gateway.asked == ["pay"]
    assert desk.statuses("orders") == ["paid"]


@EVERY_MODE
def test_an_unclear_first_try_leaves_the_order_unknown(desk, able):
    planned(desk)
    with desk.working() as worker:
        one_try(desk, worker, ScriptedGateway(able, pay=[LOST]))
    assert (desk.statuses("payments"), desk.statuses("orders")) == (["unknown"], ["unknown"])


@pytest.mark.parametrize("able", [KEYED, LOOK_UP_ONLY])
@pytest.mark.parametrize(("found", "state"), [(PAID, "paid"), (Outcome("declined", "x", "pay-1"), "declined")])
def test_what_is_unknown_is_looked_up_first_and_what_is_found_is_taken(desk, able, found, state):
    planned(desk)
    with desk.working() as worker:
        one_try(desk, worker, ScriptedGateway(able, pay=[LOST]))
        gateway = ScriptedGateway(able, look_up=[found])
        one_try(desk, worker, gateway)
    assert gateway.asked == ["look up"]
    assert desk.statuses("orders") == [state]


@pytest.mark.parametrize("able", [KEYED, LOOK_UP_ONLY])
def test_nothing_is_sent_after_a_look_up_without_an_answer(desk, able):
    planned(desk)
    with desk.working() as worker:
        one_try(desk, worker, ScriptedGateway(able, pay=[LOST]))
        gateway = ScriptedGateway(able, look_up=[LOST])
        one_try(desk, worker, gateway)
        one_try(desk, worker, gateway)
    assert gateway.asked == ["look up", "look up"]
    assert desk.statuses("orders") == ["unknown"]


def test_with_keys_and_look_up_what_is_absent_is_sent_again_under_the_same_key(desk):
    planned(desk)
    with desk.working() as worker:
        gateway = ScriptedGateway(KEYED, pay=[LOST, PAID])
        one_try(desk, worker, gateway)
        one_try(desk, worker, gateway)
    assert gateway.asked == ["pay", "look up", "pay"]
    assert gateway.requests[0] == gateway.requests[1]
    assert desk.statuses("orders") == ["paid"]


def test_with_keys_alone_what_is_unknown_is_sent_again_under_the_same_key(desk):
    planned(desk)
    with desk.working() as worker:
        gateway = ScriptedGateway(KEYS_ONLY, pay=[LOST, PAID])
        one_try(desk, worker, gateway)
        one_try(desk, worker, gateway)
    assert gateway.asked == ["pay", "pay"]
    assert gateway.requests[0] == gateway.requests[1]


@pytest.mark.parametrize(("able", "asked"), [(KEYED, ["pay", "look up"]), (KEYS_ONLY, ["pay"])])
def test_what_may_have_been_charged_a_day_ago_is_not_sent_again_under_its_key(desk, able, asked):
    planned(desk)
    with desk.working() as worker:
        gateway = ScriptedGateway(able, pay=[LOST, PAID])
        one_try(desk, worker, gateway)
        desk.run("UPDATE payments SET created_at = created_at - interval '2 days'")
        one_try(desk, worker, gateway)
    assert gateway.asked == asked
    assert desk.statuses("orders") == ["unknown"]


def test_y25_with_look_up_alone_absent_counts_after_two_minutes_and_twice(desk):
    planned(desk)
    with desk.working() as worker:
        gateway = ScriptedGateway(LOOK_UP_ONLY, pay=[LOST, PAID])
        one_try(desk, worker, gateway)
        assert 115 < seconds_to_next(desk) <= 121
        assert one_try(desk, worker, gateway).code == ABSENT_ONCE
        assert desk.statuses("orders") == ["unknown"]
        assert gateway.asked == ["pay", "look up"]
        one_try(desk, worker, gateway)
    assert gateway.asked == ["pay", "look up", "look up", "pay"]
    assert desk.statuses("orders") == ["paid"]


def test_with_look_up_alone_a_second_unclear_try_waits_as_long_as_the_first(desk):
    planned(desk)
    with desk.working() as worker:
        gateway = ScriptedGateway(LOOK_UP_ONLY, pay=[LOST])
        for _ in range(3):
            one_try(desk, worker, gateway)
        assert gateway.asked == ["pay", "look up", "look up", "pay"]
        assert 115 < seconds_to_next(desk) <= 121
        one_try(desk, worker, gateway)
        one_try(desk, worker, gateway)
    assert gateway.asked[4:] == ["look up", "look up", "pay"]


def test_with_neither_what_is_unknown_stays_for_a_person(desk):
    planned(desk)
    with desk.working() as worker:
        gateway = ScriptedGateway(NEITHER, pay=[LOST])
        one_try(desk, worker, gateway)
        assert desk.ledger(worker, NEITHER).wait_s() is None  # there is nothing to wait for
        one_try(desk, worker, gateway)
        assert desk.ledger(worker, NEITHER).wait_s() is None
        assert desk.value("SELECT outcome_code FROM payments") == UNDECIDABLE
        ledger = desk.ledger(worker, NEITHER)
        ledger.begin()
        assert ledger.claim(10) == []
    assert gateway.asked == ["pay"]
    assert desk.statuses("orders") == ["unknown"]


@pytest.mark.parametrize("able", [KEYED, KEYS_ONLY])
def test_a_second_try_that_was_not_sent_does_not_prove_that_the_first_did_not_charge(desk, able):
    planned(desk)
    with desk.working() as worker:
        gateway = ScriptedGateway(able, pay=[LOST, REFUSED])
        one_try(desk, worker, gateway)
        one_try(desk, worker, gateway)
    assert (desk.statuses("payments"), desk.statuses("orders")) == (["unknown"], ["unknown"])


def test_a_second_try_that_was_not_sent_after_absent_twice_goes_back_to_pending(desk):
    planned(desk)
    with desk.working() as worker:
        gateway = ScriptedGateway(LOOK_UP_ONLY, pay=[LOST, REFUSED])
        for _ in range(3):
            one_try(desk, worker, gateway)
    assert (desk.statuses("payments"), desk.statuses("orders")) == (["planned"], ["pending"])


def test_the_services_pause_is_kept(desk):
    planned(desk)
    with desk.working() as worker:
        one_try(desk, worker, ScriptedGateway(KEYED, pay=[Outcome("not_sent", "rate-limited", retry_after_s=40.0)]))
        assert 38 < seconds_to_next(desk) <= 40
        assert desk.ledger(worker).wait_s() == pytest.approx(40, abs=2)
        assert desk.ledger(worker).claim(10) == []


def test_a_payment_is_tried_a_limited_number_of_times_in_one_drain_and_anew_in_the_next(desk):
    planned(desk)
    with desk.working() as worker:
        ledger = desk.ledger(worker)
        for _ in range(settle.MAX_ATTEMPTS):
            one_try(desk, worker, ScriptedGateway(KEYED, pay=[REFUSED]))
        desk.due_now("payments")
        assert ledger.claim(10) == []
        assert ledger.wait_s() is None
        ledger.begin()
        assert len(ledger.claim(10)) == 1


def test_c27_a_worker_that_was_given_up_writes_nothing_and_claims_nothing(desk):
    planned(desk, 2)
    with desk.working() as slow:
        ledger = desk.ledger(slow)
        (claim,) = ledger.claim(1)
        desk.give_up(slow)
        with desk.working() as other:
            desk.ledger(other).begin()
            assert sorted(desk.statuses("payments")) == ["planned", "unknown"]
            assert sorted(desk.statuses("orders")) == ["pending", "unknown"]
            ledger.record([(claim, Outcome("declined", "late"))])
            assert sorted(desk.statuses("payments")) == ["planned", "unknown"]
            desk.due_now("payments")
            claims = desk.ledger(other).claim(10)
            ledger.record([(claim, PAID)])
            assert sorted(desk.statuses("payments")) == ["sending", "unknown"]
            assert [each.in_doubt for each in claims if each.request == claim.request] == [True]
        slow.given_up.set()
        with pytest.raises(LeaseLost, match="E_LEASE_LOST"):
            ledger.claim(10)


@pytest.mark.parametrize(("able", "doubt_s"), [(KEYED, 0.5), (LOOK_UP_ONLY, 120.0)])
def test_c15_what_a_lost_worker_was_sending_is_looked_up_once_it_cannot_be_under_way(desk, able, doubt_s):
    planned(desk)
    with desk.working() as lost:
        desk.ledger(lost, able).claim(1)
        desk.give_up(lost)
        with desk.working() as worker:
            desk.ledger(worker, able).begin()
            waits_s = desk.value("SELECT extract(epoch FROM next_attempt_at - sent_at) FROM payments")
    assert float(waits_s) == pytest.approx(doubt_s)
    assert desk.value("SELECT outcome_code FROM payments") == "worker-lost"


@pytest.mark.parametrize(("able", "age"), [(LOOK_UP_ONLY, "0 hours"), (KEYED, "25 hours")])
def test_c15_where_no_key_helps_a_look_up_waits_from_when_the_lost_worker_could_last_send(desk, able, age):
    planned(desk)
    with desk.working() as lost:
        desk.run("UPDATE payments SET created_at = now() - CAST(%s AS interval)", age)
        desk.ledger(lost, able).claim(1)
        desk.run("UPDATE workers SET ended_at = now() WHERE worker_id = %s", lost.worker_id)  # its session was cut
        with desk.working() as worker:
            desk.ledger(worker, able).begin()
            waits_s = desk.value(
                "SELECT extract(epoch FROM next_attempt_at - lease_until) FROM payments, workers WHERE worker_id = %s",
                lost.worker_id,
            )
    assert float(waits_s) == pytest.approx(120.0)


def test_a_charge_that_is_known_late_counts_while_nobody_else_finds_out(desk):
    planned(desk, 2)
    with desk.working() as slow:
        ledger = desk.ledger(slow, NEITHER)
        claims = ledger.claim(2)
        desk.give_up(slow)
        with desk.working() as other:
            desk.ledger(other, NEITHER).begin()
            assert desk.statuses("payments") == ["unknown", "unknown"]
            ledger.record([(claims[0], PAID), (claims[1], Outcome("declined", "card-declined"))])
            assert sorted(desk.statuses("payments")) == ["succeeded", "unknown"]
            assert sorted(desk.statuses("orders")) == ["paid", "unknown"]


def test_what_another_worker_holds_is_waited_for_and_taken_over_when_that_is_lost(desk):
    planned(desk)
    with desk.working() as slow, desk.working() as other:
        held = desk.ledger(slow)
        (claim,) = held.claim(10)
        waiting = desk.ledger(other)
        assert waiting.claim(10) == []
        assert waiting.wait_s() == pytest.approx(1, abs=0.1)
        held.record([(claim, PAID)])
        assert waiting.wait_s() is None
    desk.orders(order(2))
    desk.plan()
    with desk.working() as slow, desk.working() as other:
        desk.ledger(slow).claim(10)
        desk.give_up(slow)
        assert desk.ledger(other).wait_s() is not None
        assert sorted(desk.statuses("payments")) == ["succeeded", "unknown"]
        assert sorted(desk.statuses("orders")) == ["paid", "unknown"]


def test_what_a_worker_holds_without_knowing_of_it_is_released_once_it_has_nothing_under_way(desk):
    planned(desk)
    with desk.working() as worker:
        ledger = desk.ledger(worker)
        ledger.claim(10)  # as when the answer to the commit was lost
        assert ledger.wait_s() is not None
        assert desk.statuses("payments") == ["unknown"]


def test_who_waits_gives_nobody_up_whose_session_broke_for_a_moment(desk):
    planned(desk)
    with desk.working() as slow, desk.working() as other:
        held = desk.ledger(slow)
        (claim,) = held.claim(10)
        desk.break_session(slow)
        assert desk.ledger(other).wait_s() == pytest.approx(1, abs=0.1)
        assert desk.statuses("payments") == ["sending"]
        held.record([(claim, PAID)])
        assert desk.statuses("payments") == ["succeeded"]


def test_what_is_given_back_counts_as_no_try_and_is_due_again_soon(desk):
    planned(desk)
    with desk.working() as worker:
        ledger = desk.ledger(worker, LOOK_UP_ONLY)
        for _ in range(20):
            desk.due_now("payments")
            ledger.record([(claim, called_off(in_doubt=claim.in_doubt)) for claim in ledger.claim(1)])
        assert seconds_to_next(desk) <= 0.5
        one_try(desk, worker, ScriptedGateway(LOOK_UP_ONLY, pay=[LOST]))
        desk.due_now("payments")
        ledger.record([(claim, called_off(in_doubt=claim.in_doubt)) for claim in ledger.claim(1)])
        assert desk.statuses("payments") == ["unknown"]
        assert seconds_to_next(desk) <= 1.0


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("not_sent", "unauthorized", stop=True, service_failed=True),
        Outcome("not_sent", "rate-limited", retry_after_s=30.0),
    ],
    ids=["y10", "y06"],
)
def test_y06_y10_what_was_claimed_ahead_is_not_sent_once_a_service_wants_no_more(desk, outcome):
    planned(desk, 60)
    gateway, stop = ScriptedGateway(KEYED, pay=[outcome]), threading.Event()
    with desk.working() as worker:
        ledger = desk.ledger(worker)
        ledger.concurrency = 4
        pay = gateway.pay

        def slowly(request: PaymentRequest) -> Outcome:
            time.sleep(0.1)
            return pay(request)

        gateway.pay = slowly  # type: ignore[method-assign]
        threading.Timer(1.0, stop.set).start()
        settle_batch(ledger, gateway, stop)
    assert 4 <= len(gateway.asked) <= 8
    assert set(desk.statuses("payments")) == {"planned"}


def test_c27_what_a_worker_claimed_is_not_sent_once_it_may_be_anothers(desk):
    planned(desk)
    gateway = ScriptedGateway(KEYED)
    with desk.working() as worker:
        worker.leased_at -= LEASE_S
        assert one_try(desk, worker, gateway) == called_off(in_doubt=False)
        assert gateway.asked == []
        assert (desk.statuses("payments"), desk.statuses("orders")) == (["planned"], ["pending"])


def test_c27_doubt_stays_doubt_where_nothing_may_be_sent(desk):
    planned(desk)
    gateway = ScriptedGateway(KEYED, pay=[LOST])
    with desk.working() as worker:
        one_try(desk, worker, gateway)
        worker.leased_at -= LEASE_S
        assert one_try(desk, worker, gateway).kind == "unknown"
        assert gateway.asked == ["pay", "look up"]


def test_what_a_lost_worker_was_sending_for_the_second_time_waits_as_long(desk):
    planned(desk)
    with desk.working() as lost:
        gateway = ScriptedGateway(LOOK_UP_ONLY, pay=[LOST])
        one_try(desk, lost, gateway)
        one_try(desk, lost, gateway)
        desk.due_now("payments")
        desk.ledger(lost, LOOK_UP_ONLY).claim(1)
        desk.give_up(lost)
        with desk.working() as worker:
            desk.ledger(worker, LOOK_UP_ONLY).begin()
            waits_s = desk.value("SELECT extract(epoch FROM next_attempt_at - sent_at) FROM payments")
            assert float(waits_s) == pytest.approx(120.0)
            assert one_try(desk, worker, gateway).code == ABSENT_ONCE


def test_a_live_workers_claims_are_not_taken_over(desk):
    planned(desk)
    with desk.working() as first, desk.working() as second:
        desk.ledger(first).claim(1)
        desk.ledger(second).begin()
        assert desk.statuses("payments") == ["sending"]
        assert desk.ledger(second).claim(10) == []


def test_a_record_that_is_written_twice_is_written_once(desk):
    planned(desk)
    with desk.working() as worker:
        ledger = desk.ledger(worker)
        (claim,) = ledger.claim(1)
        ledger.record([(claim, PAID)])
        ledger.record([(claim, Outcome("declined", "other"))])
    assert desk.statuses("payments") == ["succeeded"]


def test_a_group_of_results_is_recorded_each_as_its_own(desk):
    planned(desk, 4)
    outcomes = [PAID, Outcome("declined", "x"), LOST, REFUSED]
    with desk.working() as worker:
        ledger = desk.ledger(worker)
        claims = sorted(ledger.claim(10), key=lambda claim: claim.request.customer_code)
        ledger.record(list(zip(claims, outcomes, strict=True)))
    assert desk.statuses("orders") == ["paid", "declined", "unknown", "pending"]
    covered = desk.run("SELECT status FROM orders JOIN payment_orders USING (order_id) WHERE live ORDER BY order_id")
    assert [row["status"] for row in covered] == ["paid", "unknown", "pending"]


def test_a_batch_is_drained_by_several_workers_each_payment_sent_once(desk):
    planned(desk, 40)
    gateways = [ScriptedGateway(KEYED) for _ in range(3)]

    def drain(gateway: ScriptedGateway) -> None:
        with desk.working() as worker:
            settle_batch(desk.ledger(worker), gateway, threading.Event())

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(drain, gateways))
    sent = [request.payment_id for gateway in gateways for request in gateway.requests]
    assert len(sent) == len(set(sent)) == 40
    assert set(desk.statuses("orders")) == {"paid"}


def test_another_batchs_payments_are_left_alone(desk):
    planned(desk)
    desk.batch("20260701-000000000002")
    with desk.working() as worker:
        assert desk.ledger(worker).claim(10) == []
        assert desk.ledger(worker).wait_s() is None


def test_a_waiting_time_is_never_negative(desk):
    planned(desk)
    with desk.working() as worker:
        assert desk.ledger(worker).wait_s() == 0.0


def test_q08_a_state_that_this_version_does_not_know_is_left_alone(desk):
    desk.batch()
    desk.orders(order(1), order(2, customer_code="C-2"))
    desk.plan()
    rule = desk.value("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'payments_status_known'")
    desk.run("ALTER TABLE payments DROP CONSTRAINT payments_status_known")
    try:
        desk.run("UPDATE payments SET status = 'of a later version' WHERE customer_code = 'C-2'")
        with desk.working() as worker:
            assert [claim.request.customer_code for claim in desk.ledger(worker).claim(10)] == ["C-1"]
    finally:  # other tests have the same database
        desk.run(f"ALTER TABLE payments ADD CONSTRAINT payments_status_known {rule} NOT VALID")

"""The ledger of payments: planned, claimed, recorded and taken over, by any number of workers, without a second charge."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from orders_pipeline.batches.workers import LEASE_S, LeaseLost
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.services.outcomes import Outcome, called_off
from orders_pipeline.services.payment_gateway import Capabilities, PaymentRequest
from orders_pipeline.settlement.ledger import MAX_ATTEMPTS, UNDECIDABLE
from orders_pipeline.settlement.payments import settle
from orders_pipeline.settlement.payments.ledger import ABSENT_ONCE, PaymentClaim
from orders_pipeline.settlement.payments.settle import settle_batch, settle_one
from orders_pipeline_tests.support.ledgers import CIPHER, Harness, order

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


def planned(harness: Harness, count: int = 1, **changes: object) -> None:
    """Have a batch with one payment an order, each of a customer of its own."""
    harness.batch()
    harness.orders(*(order(n, customer_code=f"C-{n}", notify_channel="none", **changes) for n in range(1, count + 1)))
    harness.plan()


def one_try(harness: Harness, worker, gateway: ScriptedGateway) -> Outcome:
    """Let time pass, claim the payment, settle it and record what came of it."""
    harness.due_now("payments")
    ledger = harness.ledger(worker, gateway.capabilities)
    (claim,) = ledger.claim(10)
    outcome = settle_one(gateway, claim, worker.may_send)
    ledger.record([(claim, outcome)])
    return outcome


def seconds_to_next(harness: Harness) -> float:
    return float(harness.value("SELECT extract(epoch FROM next_attempt_at - clock_timestamp()) FROM payments"))


def test_a_plan_covers_every_order_once_and_a_second_plan_nothing(harness):
    harness.batch()
    harness.orders(*(order(n, amount=400_000) for n in range(1, 6)))
    harness.plan()
    assert [row["amount"] for row in harness.run("SELECT amount FROM payments ORDER BY amount")] == [
        400_000,
        800_000,
        800_000,
    ]
    assert settle.plan_batch(harness.database, CIPHER, harness.batch_id, Profile()) == 0
    assert harness.value("SELECT count(*) FROM payment_orders") == 5


def test_two_planners_at_once_plan_every_order_once(harness):
    harness.batch()
    harness.orders(*(order(n, customer_code=f"C-{n % 7}") for n in range(1, 41)))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: harness.plan(), range(4)))
    assert harness.value("SELECT count(*) FROM payment_orders") == 40
    assert harness.value("SELECT count(*) FROM payments") == 7
    assert harness.value("SELECT count(*) FROM notifications") == 7


def test_cards_of_a_customer_are_paid_apart_and_the_claim_carries_each_ones_own(harness):
    harness.batch()
    cards = ["tok_aaaaaaaa", "tok_bbbbbbbb", "tok_aaaaaaaa"]
    harness.orders(
        *(
            order(n, payment_method="card_on_file", personal={"payment_token": card, "email": "planted@example.com"})
            for n, card in enumerate(cards, start=1)
        )
    )
    harness.plan()
    with harness.working() as worker:
        claims = harness.ledger(worker).claim(10)
    assert {(claim.request.payment_token, claim.request.amount) for claim in claims} == {
        ("tok_aaaaaaaa", 2000),
        ("tok_bbbbbbbb", 1000),
    }
    assert "tok_" not in repr(claims)


def test_a_claim_commits_the_intent_before_anything_is_sent(harness):
    planned(harness, 2)
    with harness.working() as worker:
        claims = harness.ledger(worker).claim(10)
        assert harness.statuses("payments") == ["sending", "sending"]
        assert harness.statuses("orders") == ["paying", "paying"]
        assert harness.value("SELECT bool_and(claimed_by = %s AND sent_at IS NOT NULL) FROM payments", worker.worker_id)
    assert [(claim.attempts, claim.in_doubt) for claim in claims] == [(1, False), (1, False)]


def test_a_claim_takes_no_more_than_asked_and_nothing_twice(harness):
    planned(harness, 5)
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        taken = [claim.request.payment_id for size in (2, 2, 2, 2) for claim in ledger.claim(size)]
    assert len(taken) == len(set(taken)) == 5


def test_a_new_drain_leaves_alone_what_was_not_tried(harness):
    planned(harness, 3)
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.record([(claim, REFUSED) for claim in ledger.claim(1)])
        untried = harness.run("SELECT payment_id, ctid::text FROM payments WHERE attempts = 0 ORDER BY payment_id")
        ledger.begin()
    assert len(untried) == 2
    moved = harness.run("SELECT payment_id, ctid::text FROM payments ORDER BY payment_id")
    assert [row for row in moved if row in untried] == untried
    assert harness.value("SELECT max(attempts) FROM payments") == 0


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


def test_nothing_is_claimed_while_our_ledger_is_not_known_to_be_whole(harness):
    planned(harness)
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        harness.run("UPDATE installation SET stopped_at = now(), stopped_by = 'service'")
        assert ledger.claim(10) == []
        assert ledger.wait_s() is None
        harness.run("UPDATE installation SET stopped_at = NULL, stopped_by = NULL")
        assert len(ledger.claim(10)) == 1


def test_a_claimer_does_not_wait_for_rows_another_holds(harness):
    planned(harness, 2)
    with harness.working() as worker, harness.connect() as other:
        other.execute("SELECT FROM payments ORDER BY next_attempt_at, payment_id LIMIT 1 FOR UPDATE")
        assert len(harness.ledger(worker).claim(10)) == 1


def test_a_success_pays_its_orders_and_is_final(harness):
    planned(harness)
    with harness.working() as worker:
        one_try(harness, worker, ScriptedGateway(KEYED))
        harness.due_now("payments")
        assert harness.ledger(worker).claim(10) == []
        assert harness.ledger(worker).wait_s() is None
    assert (harness.statuses("payments"), harness.statuses("orders")) == (["succeeded"], ["paid"])
    row = harness.run("SELECT settled_at IS NOT NULL AS settled, claimed_by, service_payment_id FROM payments")[0]
    assert row == {"settled": True, "claimed_by": None, "service_payment_id": "pay-1"}


def test_a_decline_ends_the_payment_and_frees_its_orders_from_it(harness):
    planned(harness)
    with harness.working() as worker:
        one_try(harness, worker, ScriptedGateway(KEYED, pay=[Outcome("declined", "insufficient_funds", "pay-1")]))
    assert (harness.statuses("payments"), harness.statuses("orders")) == (["declined"], ["declined"])
    assert harness.value("SELECT live FROM payment_orders") is False
    assert harness.value("SELECT outcome_code FROM payments") == "insufficient_funds"


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


def test_another_batchs_payments_are_left_alone(harness):
    planned(harness)
    harness.batch("20260701-000000000002")
    with harness.working() as worker:
        assert harness.ledger(worker).claim(10) == []
        assert harness.ledger(worker).wait_s() is None


def test_a_waiting_time_is_never_negative(harness):
    planned(harness)
    with harness.working() as worker:
        assert harness.ledger(worker).wait_s() == 0.0


def test_q08_a_state_that_this_version_does_not_know_is_left_alone(harness):
    harness.batch()
    harness.orders(order(1), order(2, customer_code="C-2"))
    harness.plan()
    rule = harness.value("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'payments_status_known'")
    harness.run("ALTER TABLE payments DROP CONSTRAINT payments_status_known")
    try:
        harness.run("UPDATE payments SET status = 'of a later version' WHERE customer_code = 'C-2'")
        with harness.working() as worker:
            assert [claim.request.customer_code for claim in harness.ledger(worker).claim(10)] == ["C-1"]
    finally:  # other tests have the same database
        harness.run(f"ALTER TABLE payments ADD CONSTRAINT payments_status_known {rule} NOT VALID")

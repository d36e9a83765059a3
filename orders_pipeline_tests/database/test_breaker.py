"""The breaker of a service: opened by failures in a row, seen by all processes, probed by one call at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from orders_pipeline.batches.workers import worker_session
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.services import circuit_breaker
from orders_pipeline.services.circuit_breaker import (
    FIRST_PROBE_S,
    MOST_RETRIES,
    PATIENCE_S,
    PROBE_S,
    RETRIES_PER_S,
    THRESHOLD,
    Allowance,
    Breaker,
)
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline_tests.support.ledgers import Harness, order

WELL = Outcome("succeeded", None, "pay-1")
REFUSED = Outcome("not_sent", "E_SERVICE_UNREACHABLE", service_failed=True)
LOST = Outcome("unknown", "E_SERVICE_NO_ANSWER", service_failed=True)
HELD = Outcome("not_sent", "rate-limited", retry_after_s=1.0)
FORBIDDEN = Outcome("not_sent", "forbidden", stop=True, service_failed=True)


class Line:
    """A service's line: what calls come to, and how many may be made."""

    def __init__(self, database: Database, harness: Harness) -> None:
        self._database = database
        self._desk = harness
        self._breaker = Breaker("payment")
        self._breaker.prepare(database)

    def came_to(self, *outcomes: Outcome) -> bool:
        with self._database.begin() as transaction:
            return self._breaker.observe(transaction, outcomes)

    def allows(self, wanted: int = 50) -> int:
        with self._database.begin() as transaction:
            return self._breaker.allowance(transaction, wanted).calls

    def allows_retries(self) -> bool:
        with self._database.begin() as transaction:
            return self._breaker.allowance(transaction, 50).retries

    def waits_s(self, due_s: float | None = 0.0) -> float | None:
        with self._database.begin() as transaction:
            return self._breaker.wait_s(transaction, due_s)

    def probe_in_s(self) -> float | None:
        with self._database.begin() as transaction:
            return self._breaker.wait_for_probe_s(transaction)

    def probe_now(self) -> None:
        with self._database.begin() as transaction:
            self._breaker.probe_now(transaction)

    def pass_time(self, seconds: float) -> None:
        self._desk.run(
            "UPDATE service_breakers SET opened_at = opened_at - make_interval(secs => %s),"
            " probe_at = probe_at - make_interval(secs => %s), retries_at = retries_at - make_interval(secs => %s),"
            " rest_until = rest_until - make_interval(secs => %s)",
            *[seconds] * 4,
        )


@pytest.fixture
def line(database: Database, harness: Harness) -> Line:
    return Line(database, harness)


def test_a_service_that_was_never_called_may_be_called(database):
    with database.begin() as transaction:
        assert Breaker("new").allowance(transaction, 7) == Allowance(7, retries=True)
        assert Breaker("new").wait_s(transaction, 3.0) == 3.0


def test_failures_in_a_row_open_the_breaker_and_fewer_do_not(line):
    line.came_to(*[REFUSED] * (THRESHOLD - 1))
    assert line.allows() == 50
    line.came_to(LOST)
    assert line.allows() == 0
    assert 0 < line.waits_s() <= FIRST_PROBE_S


@pytest.mark.parametrize("answer", [WELL, Outcome("declined", "card_declined", "pay-1"), Outcome("absent")])
def test_an_answer_of_any_kind_starts_the_count_anew(line, answer):
    for _ in range(3):
        line.came_to(*[REFUSED] * (THRESHOLD - 1))
        line.came_to(answer)
    assert line.allows() == 50


def test_a_third_of_the_calls_failing_opens_nothing(line):
    for _ in range(20):
        line.came_to(WELL, REFUSED, WELL)
    assert line.allows() == 50


def test_being_slowed_down_is_no_failure(line):
    for _ in range(3 * THRESHOLD):
        line.came_to(HELD)
    line.pass_time(1.0)
    assert line.allows() == 50


def test_y06_a_service_that_asks_for_a_rest_is_left_alone_by_all_processes_for_as_long(line):
    line.came_to(WELL, HELD, WELL)
    assert line.allows() == 0
    assert 0 < line.waits_s() <= 1.0
    assert line.waits_s(5.0) == 5.0
    assert line.waits_s(None) is None
    line.pass_time(1.0)
    assert line.allows() == 50
    assert line.waits_s() == 0.0


def test_an_open_breaker_gives_no_probe_while_the_service_rests(line):
    line.came_to(*[REFUSED] * THRESHOLD)
    line.pass_time(FIRST_PROBE_S)
    line.came_to(HELD)
    assert line.allows() == 0
    assert 0 < line.probe_in_s() <= 1.0
    line.pass_time(1.0)
    assert line.probe_in_s() == 0.0
    assert line.allows() == 1


def test_a_person_who_knows_that_the_service_is_back_gets_a_probe_at_once(line):
    line.came_to(*[REFUSED] * THRESHOLD, HELD)
    assert line.allows() == 0
    line.probe_now()
    assert line.allows() == 1


def test_d13_a_rest_is_over_when_the_clock_was_put_back(line):
    line.came_to(HELD)
    line.pass_time(-3_600)
    assert line.allows() == 50


def test_d13_an_open_breaker_gives_its_probe_when_the_clock_was_put_back(line):
    line.came_to(*[REFUSED] * THRESHOLD)
    line.pass_time(-3_600)
    assert line.probe_in_s() == 0.0
    assert line.waits_s() is None  # how long it has been open is not known: no reason to wait
    assert [line.allows(), line.allows()] == [1, 0]


def test_y06_y21_who_writes_down_what_calls_came_to_learns_whether_to_go_on(line):
    assert not line.came_to(WELL, REFUSED)
    assert not line.came_to(*[REFUSED] * (THRESHOLD - 1))
    assert line.came_to(REFUSED)
    assert line.came_to(REFUSED)
    assert not line.came_to(WELL)
    assert line.came_to(HELD)
    assert line.came_to(FORBIDDEN)


def test_what_a_person_must_mend_opens_the_breaker_at_once(line):
    line.came_to(FORBIDDEN)
    assert line.allows() == 0


def test_y21_one_process_at_a_time_probes_and_not_again_for_a_while(line):
    line.came_to(*[REFUSED] * THRESHOLD)
    line.pass_time(FIRST_PROBE_S)
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(lambda _: line.allows(), range(8))) == [0] * 7 + [1]
    line.came_to(REFUSED)
    line.pass_time(PROBE_S - 1)
    assert line.allows() == 0
    line.pass_time(1)
    assert line.allows() == 1


def test_y21_a_batch_with_nothing_to_send_leaves_the_probe_to_another(harness):
    nothing_due, other = harness.batch("20260701-000000000002"), "20260701-000000000001"
    harness.orders(order(1, client_order_ref="Z-1", notify_channel="none"))
    harness.plan()
    with worker_session(harness.database, nothing_due, None) as idle:
        first = harness.ledger(idle)
        first.begin()
        harness.run("UPDATE payments SET next_attempt_at = now() + interval '2 minutes'")
        harness.batch(other)
        harness.orders(order(1, notify_channel="none"))
        harness.plan()
        harness.run("UPDATE service_breakers SET failures = 10, opened_at = now(), probe_at = now()")
        with harness.working() as worker:
            assert first.claim(100) == []
            assert len(harness.ledger(worker).claim(100)) == 1


def test_nobody_who_wants_nothing_takes_the_probe(line):
    line.came_to(*[REFUSED] * THRESHOLD)
    line.pass_time(FIRST_PROBE_S)
    assert (line.allows(0), line.allows(-5), line.allows()) == (0, 0, 1)


def test_a_probe_that_goes_well_closes_the_breaker_for_everybody(line):
    line.came_to(*[REFUSED] * THRESHOLD)
    line.pass_time(FIRST_PROBE_S)
    assert line.allows() == 1
    line.came_to(WELL)
    assert line.allows() == 50


def test_work_waits_for_a_short_outage_and_gives_up_for_now_in_a_long_one(line):
    line.came_to(*[REFUSED] * THRESHOLD)
    assert line.waits_s(100.0) == 100.0
    assert line.waits_s(None) is None
    line.pass_time(PATIENCE_S)
    assert line.waits_s() is None


def test_an_open_breaker_leaves_payments_where_they_are(harness, monkeypatch):
    monkeypatch.setattr(circuit_breaker, "FIRST_PROBE_S", PROBE_S - 1)
    harness.batch()
    harness.orders(*(order(number, customer_code=f"C-{number}", notify_channel="none") for number in range(1, 40)))
    harness.plan()
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.begin()
        claims = ledger.claim(THRESHOLD)
        assert len(claims) == THRESHOLD
        ledger.record([(claim, REFUSED) for claim in claims])
        harness.due_now("payments")
        assert ledger.claim(100) == []
        assert harness.value("SELECT max(attempts) FROM payments") == 1
    assert set(harness.statuses("orders")) == {"pending"}


def test_a_service_that_rests_gets_no_payment_before_that_is_over(harness, database):
    harness.orders(*(order(number, customer_code=f"C-{number}", notify_channel="none") for number in range(1, 4)))
    harness.plan()
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.begin()
        (claim,) = ledger.claim(1)
        ledger.record([(claim, HELD)])
        harness.due_now("payments")
        assert ledger.claim(100) == []
        assert 0 < ledger.wait_s() <= 1.0
        Line(database, harness).pass_time(1.0)
        assert len(ledger.claim(100)) == 3


# --- the retry budget -------------------------------------------------------------------------------------------------


def test_a_service_that_fails_every_second_call_is_not_retried_once_its_budget_is_used_up(line):
    most = int(MOST_RETRIES)
    for _ in range(most):
        line.came_to(LOST, WELL)
    assert line.allows_retries()
    for _ in range(most):
        line.came_to(LOST, WELL)
    assert not line.allows_retries()
    assert line.allows() == 50


def test_retries_are_allowed_again_after_a_time_and_after_good_answers(line):
    for _ in range(2 * int(MOST_RETRIES)):
        line.came_to(LOST, WELL)
    assert not line.allows_retries()
    assert 0 < (line.waits_s() or 0) <= 2 * MOST_RETRIES / RETRIES_PER_S
    line.came_to(*[WELL] * 400)
    assert line.allows_retries()
    for _ in range(2 * int(MOST_RETRIES)):
        line.came_to(LOST, WELL)
    line.pass_time(2 * MOST_RETRIES / RETRIES_PER_S)
    assert line.allows_retries()


def test_a_service_that_failed_a_thousand_times_is_not_in_debt_for_longer_than_for_a_hundred(line):
    for _ in range(25):
        line.came_to(*[LOST] * 40, WELL)
    line.pass_time(2 * MOST_RETRIES / RETRIES_PER_S)
    assert line.allows_retries()


def test_good_answers_never_give_more_than_a_full_budget(line):
    line.came_to(*[WELL] * 10_000)
    line.came_to(WELL, *[LOST] * (int(MOST_RETRIES) + 1))
    assert not line.allows_retries()


@pytest.mark.parametrize("outcome", [HELD, Outcome("unknown", "processing")])
def test_what_a_service_does_by_its_contract_costs_no_retries(line, outcome):
    line.came_to(*[outcome] * 1000)
    line.pass_time(1.0)
    assert line.allows_retries()


def test_while_the_budget_is_used_up_only_first_tries_are_claimed(harness):
    harness.orders(order(1), order(2, customer_code="C-2"))
    harness.plan()
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.begin()
        (first,) = ledger.claim(1)
        ledger.record([(first, REFUSED)])
        harness.due_now("payments")
        harness.run("UPDATE service_breakers SET retries_left = -1000")
        (second,) = ledger.claim(10)
        assert second.request.payment_id != first.request.payment_id
        harness.run("UPDATE service_breakers SET retries_left = 1")
        (again,) = ledger.claim(10)
        assert again.request.payment_id == first.request.payment_id

"""The sweep: which unfinished batches are offered a run, when, and which wait for a service or a person."""

from __future__ import annotations

import uuid

import pytest

from orders_pipeline.batches import workers
from orders_pipeline.batches.workers import alone_on
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.services.breaker import THRESHOLD
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.settlement.payments import settle
from orders_pipeline.settlement.refunds.ledger import RefundLedger
from orders_pipeline.settlement.refunds.plan import read_plan, write_plan
from orders_pipeline.settlement.refusals import SEVERAL, Tried
from orders_pipeline.settlement.sweep import LONGEST_S, PATIENCE_S, stalled_batches
from orders_pipeline_tests.ledger_desk import Desk, order

REFUSED = Outcome("not_sent", "E_SERVICE_UNREACHABLE", service_failed=True)


def idle(desk: Desk, seconds: float = PATIENCE_S + 1) -> None:
    """Let nobody have worked on any batch for so long."""
    stalled_batches(desk.database)
    desk.run("UPDATE batches SET idle_since = idle_since - make_interval(secs => %s)", seconds)


def offered(desk: Desk) -> list[str]:
    return [row.batch_id for row in stalled_batches(desk.database)]


def paused(desk: Desk, batch_id: str, **changes: object) -> None:
    desk.batch(batch_id, status="paying")
    desk.orders(order(1, client_order_ref=f"R-{batch_id}", notify_channel="none"), batch_id=batch_id)
    desk.batch_id = batch_id
    desk.plan()
    desk.run("UPDATE batches SET status = 'paused' WHERE batch_id = %s", batch_id)


def open_breaker(desk: Desk) -> None:
    settle.BREAKER.prepare(desk.database)
    with desk.database.begin() as transaction:
        settle.BREAKER.observe(transaction, [REFUSED] * THRESHOLD)


@pytest.mark.parametrize("status", ["received", "staged", "validated", "loaded", "paying"])
def test_a_batch_is_offered_once_nobody_has_worked_on_it_for_a_while(desk, status):
    batch_id = desk.batch(status=status)
    assert offered(desk) == []
    idle(desk, PATIENCE_S - 1)
    assert offered(desk) == []
    idle(desk, 2)
    assert offered(desk) == [batch_id]


@pytest.mark.parametrize("status", ["completed", "rejected", "cancelled"])
def test_a_finished_batch_is_never_offered(desk, status):
    desk.batch()
    desk.run("UPDATE batches SET rows_total = 0, rows_accepted = 0, rows_rejected = 0, rows_blank = 0")
    desk.run("UPDATE batches SET status = %s, finished_at = now()", status)
    idle(desk)
    assert offered(desk) == []


def test_a_landed_file_that_was_not_begun_is_left_to_the_landing(desk):
    desk.batch(status="received")
    desk.run("UPDATE batches SET landing_key = 'acme/a.csv', landing_version = '1'")
    idle(desk)
    assert offered(desk) == []


def test_a_batch_with_a_worker_is_busy_and_a_lost_worker_is_none(desk):
    batch_id = desk.batch(status="paying")
    with desk.working() as worker:
        idle(desk)
        assert offered(desk) == []
        desk.give_up(worker)
        idle(desk)
        assert offered(desk) == [batch_id]


@pytest.mark.parametrize(("requests", "is_offered"), [(1, True), (3, True), (4, False)])
def test_c28_what_a_lost_worker_left_behind_is_offered_at_once_but_not_for_ever(desk, requests, is_offered):
    batch_id = desk.batch(status="paying")
    with desk.working() as worker:
        assert offered(desk) == []
        desk.run("UPDATE batches SET run_requests = %s, run_requested_at = now()", requests)
        desk.give_up(worker)
        assert offered(desk) == ([batch_id] if is_offered else [])


def test_a_batch_that_is_being_staged_is_busy(desk: Desk, database: Database):
    batch_id = desk.batch(status="received")
    idle(desk)
    with alone_on(database, batch_id):
        assert offered(desk) == []
    assert offered(desk) == []
    idle(desk)
    assert offered(desk) == [batch_id]


def test_requests_come_less_and_less_often(desk):
    batch_id = desk.batch(status="paying")
    idle(desk, 10 * LONGEST_S)
    for requests, seconds in [(1, 2 * PATIENCE_S), (2, 4 * PATIENCE_S), (50, LONGEST_S)]:
        desk.run("UPDATE batches SET run_requests = %s, run_requested_at = now()", requests)
        assert offered(desk) == []
        desk.run("UPDATE batches SET run_requested_at = now() - make_interval(secs => %s)", seconds - 1)
        assert offered(desk) == []
        desk.run("UPDATE batches SET run_requested_at = now() - make_interval(secs => %s)", seconds + 1)
        assert offered(desk) == [batch_id]


def test_a_landed_file_that_cannot_be_staged_is_asked_for_less_and_less_often(desk):
    desk.batch(status="received")
    desk.run("UPDATE batches SET landing_key = 'acme/a.csv', landing_version = '1'")

    def waiting() -> int:
        with desk.database.begin() as transaction:
            return len(transaction.rows("batches_without_run", patience_s=PATIENCE_S, longest_s=LONGEST_S, limit=100))

    assert waiting() == 1
    for requests, seconds in [(1, 2 * PATIENCE_S), (2, 4 * PATIENCE_S), (5000, LONGEST_S)]:
        for since, is_asked in [(seconds - 1, 0), (seconds + 1, 1)]:
            desk.run(
                "UPDATE batches SET run_requests = %s, run_requested_at = now() - make_interval(secs => %s)", requests, since
            )
            assert waiting() == is_asked


def test_a_paused_batch_is_offered_when_something_is_due_and_not_while_it_waits_for_a_person(desk):
    paused(desk, "b1")
    idle(desk)
    assert offered(desk) == ["b1"]
    desk.run("UPDATE payments SET next_attempt_at = now() + interval '100 years'")
    assert offered(desk) == []


def test_while_a_service_is_left_alone_one_batch_at_a_time_goes_to_probe(desk):
    for batch_id in ("b1", "b2", "b3"):
        paused(desk, batch_id)
    idle(desk)
    assert offered(desk) == ["b1", "b2", "b3"]
    open_breaker(desk)
    assert offered(desk) == []
    desk.run("UPDATE service_breakers SET probe_at = now()")
    assert offered(desk) == ["b1"]
    with desk.database.begin() as transaction:
        settle.BREAKER.observe(transaction, [Outcome("succeeded", None, "pay-1")])
    assert offered(desk) == ["b1", "b2", "b3"]


def test_y09_a_batch_of_which_everything_is_refused_is_offered_again_after_a_while_or_once_something_is_taken(desk):
    refused = Outcome("not_sent", "malformed", refused=True)
    for batch_id in ("b1", "b2"):
        paused(desk, batch_id)
    idle(desk)
    tried = [Tried(str(uuid.uuid4()), "payment", f"C-{number}") for number in range(SEVERAL)]
    with desk.database.begin() as transaction:
        settle.REFUSALS.judged(transaction, "b1", [(each, refused) for each in tried])
    assert offered(desk) == ["b2"]
    desk.run("UPDATE refusals SET held_until = now() - interval '1 second'")
    assert offered(desk) == ["b1", "b2"]
    desk.run("UPDATE refusals SET held_until = now() + interval '1 hour'")
    assert offered(desk) == ["b2"]
    with desk.database.begin() as transaction:
        taken = Outcome("succeeded", None, "pay-1", asked_at=workers.now())
        settle.REFUSALS.judged(transaction, "b2", [(tried[0], taken)])
    assert offered(desk) == ["b1", "b2"]


def test_a_service_that_is_away_holds_nothing_that_does_not_need_it(desk):
    open_breaker(desk)
    batch_id = desk.batch(status="staged")
    idle(desk)
    assert offered(desk) == [batch_id]


def refunding(desk: Desk, status: str = "completed") -> None:
    """Have a finished batch with a refund that was asked for and not made, and another with a correction to send."""
    for batch_id in ("b1", "b2"):
        desk.batch(batch_id)
        desk.orders(order(1, client_order_ref=f"R-{batch_id}"), batch_id=batch_id)
        desk.plan()
        with desk.working() as worker:
            ledger, notices = desk.ledger(worker), desk.notices(worker)
            ledger.record([(claim, Outcome("succeeded", None, f"pay-{batch_id}")) for claim in ledger.claim(9)])
            notices.record([(claim, Outcome("succeeded", None, "n-1")) for claim in notices.claim(9)])
        desk.run(
            "UPDATE batches SET rows_total = 1, rows_accepted = 1, rows_rejected = 0, rows_blank = 0,"
            " amount_accepted = 1000, status = %s, finished_at = CASE WHEN %s LIKE 'completed%%' THEN now() END"
            " WHERE batch_id = %s",
            *(status, status, batch_id),
        )
        plan = read_plan(desk.database, batch_id)
        write_plan(desk.database, plan, requested_by="operator", reason="returned")
        if batch_id == "b2":
            with desk.working() as worker:
                refunds = RefundLedger(desk.database, worker)
                refunds.record([(claim, Outcome("succeeded", None, "ref-1")) for claim in refunds.claim(9)])


@pytest.mark.parametrize("status", ["completed", "completed_with_errors", "paused", "cancelling"])
def test_what_was_begun_to_be_given_back_is_offered_once_nobody_is_at_work_on_it(desk, status):
    refunding(desk, status)
    assert [(row.batch_id, row.payments_due, row.notifications_due) for row in stalled_batches(desk.database)] == [
        ("b1", True, False),
        ("b2", False, True),
    ]
    with desk.working() as worker:
        assert offered(desk) == ["b1"]
        desk.give_up(worker)
        assert sorted(offered(desk)) == ["b1", "b2"]


def test_a_refund_that_waits_for_a_person_or_a_service_is_not_offered(desk):
    refunding(desk)
    open_breaker(desk)
    assert offered(desk) == ["b2"]
    desk.run("UPDATE service_breakers SET probe_at = now()")
    assert offered(desk) == ["b1", "b2"]
    desk.run("UPDATE refunds SET next_attempt_at = now() + interval '100 years' WHERE settled_at IS NULL")
    desk.run("UPDATE batches SET run_requests = 1, run_requested_at = now()")
    assert offered(desk) == []
    desk.run("UPDATE batches SET run_requested_at = now() - make_interval(secs => %s)", 2 * PATIENCE_S + 1)
    assert offered(desk) == ["b2"]

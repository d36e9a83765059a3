"""The sweep: which unfinished batches are offered a run, when, and which wait for a service or a person."""

from __future__ import annotations

import uuid

import pytest

from orders_pipeline.batches import batches, workers
from orders_pipeline.batches.batch_lock import batch_lock
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.services.circuit_breaker import THRESHOLD
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.settlement.payments.ledger import PAYMENT_BREAKER, PaymentLedger
from orders_pipeline.settlement.refunds.ledger import RefundLedger
from orders_pipeline.settlement.refunds.plan import read_plan, write_plan
from orders_pipeline.settlement.refusals import SEVERAL, Tried
from orders_pipeline.settlement.sweep import API_PATIENCE_S, LONGEST_S, PATIENCE_S, stalled_batches
from orders_pipeline_tests.support.ledgers import Harness, order

REFUSED = Outcome("not_sent", "E_SERVICE_UNREACHABLE", service_failed=True)


def idle(harness: Harness, seconds: float = PATIENCE_S + 1) -> None:
    """Let nobody have worked on any batch for so long."""
    stalled_batches(harness.database)
    harness.run("UPDATE batches SET idle_since = idle_since - make_interval(secs => %s)", seconds)


def offered(harness: Harness) -> list[str]:
    return [row.batch_id for row in stalled_batches(harness.database)]


def paused(harness: Harness, batch_id: str, **changes: object) -> None:
    harness.batch(batch_id, status="paying")
    harness.orders(order(1, client_order_ref=f"R-{batch_id}", notify_channel="none"), batch_id=batch_id)
    harness.batch_id = batch_id
    harness.plan()
    harness.run("UPDATE batches SET status = 'paused' WHERE batch_id = %s", batch_id)


def open_breaker(harness: Harness) -> None:
    PAYMENT_BREAKER.prepare(harness.database)
    with harness.database.begin() as transaction:
        PAYMENT_BREAKER.observe(transaction, [REFUSED] * THRESHOLD)


@pytest.mark.parametrize("status", ["received", "staged", "validated", "loaded", "paying"])
def test_a_batch_is_offered_once_nobody_has_worked_on_it_for_a_while(harness, status):
    batch_id = harness.batch(status=status)
    assert offered(harness) == []
    idle(harness, PATIENCE_S - 1)
    assert offered(harness) == []
    idle(harness, 2)
    assert offered(harness) == [batch_id]


@pytest.mark.parametrize("status", ["completed", "rejected", "cancelled"])
def test_a_finished_batch_is_never_offered(harness, status):
    harness.batch()
    harness.run("UPDATE batches SET rows_total = 0, rows_accepted = 0, rows_rejected = 0, rows_blank = 0")
    harness.run("UPDATE batches SET status = %s, finished_at = now()", status)
    idle(harness)
    assert offered(harness) == []


def test_a_landed_file_that_was_not_begun_is_left_to_the_landing(harness):
    harness.batch(status="received")
    harness.run("UPDATE batches SET landing_key = 'acme/a.csv', landing_version = '1'")
    idle(harness)
    assert offered(harness) == []


def test_a_batch_with_a_worker_is_busy_and_a_lost_worker_is_none(harness):
    batch_id = harness.batch(status="paying")
    with harness.working() as worker:
        idle(harness)
        assert offered(harness) == []
        harness.give_up(worker)
        idle(harness)
        assert offered(harness) == [batch_id]


@pytest.mark.parametrize(("requests", "is_offered"), [(1, True), (3, True), (4, False)])
def test_c28_what_a_lost_worker_left_behind_is_offered_at_once_but_not_for_ever(harness, requests, is_offered):
    batch_id = harness.batch(status="paying")
    with harness.working() as worker:
        assert offered(harness) == []
        harness.run("UPDATE batches SET run_requests = %s, run_requested_at = now()", requests)
        harness.give_up(worker)
        assert offered(harness) == ([batch_id] if is_offered else [])


def test_a_batch_that_is_being_staged_is_busy(harness: Harness, database: Database):
    batch_id = harness.batch(status="received")
    idle(harness)
    with batch_lock(database, batch_id):
        assert offered(harness) == []
    assert offered(harness) == []
    idle(harness)
    assert offered(harness) == [batch_id]


def test_requests_come_less_and_less_often(harness):
    batch_id = harness.batch(status="paying")
    idle(harness, 10 * LONGEST_S)
    for requests, seconds in [(1, 2 * PATIENCE_S), (2, 4 * PATIENCE_S), (50, LONGEST_S)]:
        harness.run("UPDATE batches SET run_requests = %s, run_requested_at = now()", requests)
        assert offered(harness) == []
        harness.run("UPDATE batches SET run_requested_at = now() - make_interval(secs => %s)", seconds - 1)
        assert offered(harness) == []
        harness.run("UPDATE batches SET run_requested_at = now() - make_interval(secs => %s)", seconds + 1)
        assert offered(harness) == [batch_id]


def test_a_landed_file_that_cannot_be_staged_is_asked_for_less_and_less_often(harness):
    harness.batch(status="received")
    harness.run("UPDATE batches SET landing_key = 'acme/a.csv', landing_version = '1'")

    def waiting() -> int:
        with harness.database.begin() as transaction:
            bounds = {"patience_s": PATIENCE_S, "longest_s": LONGEST_S, "limit": 100}
            return len(transaction.rows("batches_without_run", api_patience_s=1.0, **bounds))

    assert waiting() == 1
    for requests, seconds in [(1, 2 * PATIENCE_S), (2, 4 * PATIENCE_S), (5000, LONGEST_S)]:
        for since, is_asked in [(seconds - 1, 0), (seconds + 1, 1)]:
            harness.run(
                "UPDATE batches SET run_requests = %s, run_requested_at = now() - make_interval(secs => %s)", requests, since
            )
            assert waiting() == is_asked


def test_a_paused_batch_is_offered_when_something_is_due_and_not_while_it_waits_for_a_person(harness):
    paused(harness, "b1")
    idle(harness)
    assert offered(harness) == ["b1"]
    harness.run("UPDATE payments SET next_attempt_at = now() + interval '100 years'")
    assert offered(harness) == []


def resume(harness: Harness, batch_id: str) -> int:
    """Have a person resume a batch, and a run be asked for; return which request that is."""
    with harness.database.begin() as transaction:
        batches.restart(transaction, batch_id)
        return int(transaction.rows("request_run_now", batch_id=batch_id, patience_s=10.0)[0].run_requests)


def forget(harness: Harness, batch_id: str, number: int) -> None:
    with harness.database.begin() as transaction:
        transaction.execute("forget_run_request", batch_id=batch_id, number=number)


def resumed_before(harness: Harness, seconds: float) -> None:
    harness.run(
        "UPDATE batches SET resumed_at = resumed_at - make_interval(secs => %s),"
        " run_requested_at = run_requested_at - make_interval(secs => %s)",
        *(seconds, seconds),
    )


@pytest.mark.parametrize("status", ["staged", "loaded", "paying", "paused"])
def test_a_batch_that_a_person_resumed_is_offered_at_once_where_no_run_comes_of_it(harness, status):
    paused(harness, "b1")
    harness.run("UPDATE batches SET status = %s, run_requests = 9", status)
    harness.run("UPDATE payments SET next_attempt_at = now() + interval '1 hour'")
    idle(harness, 0)
    assert offered(harness) == []
    forget(harness, "b1", resume(harness, "b1"))  # as when Dagster's web server refuses
    assert offered(harness) == ["b1"]
    with harness.database.begin() as transaction:
        transaction.execute("count_run_request", batch_id="b1")
    assert offered(harness) == []


def test_a_batch_that_a_person_resumed_is_offered_soon_where_it_is_not_known_whether_a_run_comes_of_it(harness):
    paused(harness, "b1")
    harness.run("UPDATE batches SET run_requests = 9")
    harness.run("UPDATE payments SET next_attempt_at = now() + interval '1 hour'")
    idle(harness, 0)
    resume(harness, "b1")
    assert offered(harness) == []
    resumed_before(harness, API_PATIENCE_S + 1)
    with harness.working():  # it has come
        pass
    idle(harness, 0)
    assert offered(harness) == []
    harness.run("DELETE FROM workers")
    assert offered(harness) == ["b1"]
    assert offered(harness) == ["b1"]


def test_a_request_that_is_forgotten_is_no_other_one(harness):
    batch_id = harness.batch(status="loaded")
    number = resume(harness, batch_id)
    with harness.database.begin() as transaction:
        asked = transaction.scalar("count_run_request", batch_id=batch_id)  # by a sensor, meanwhile
    forget(harness, batch_id, number)
    with harness.database.begin() as transaction:
        assert transaction.scalar("count_run_request", batch_id=batch_id) == asked + 1


def test_while_a_service_is_left_alone_one_batch_at_a_time_goes_to_probe(harness):
    for batch_id in ("b1", "b2", "b3"):
        paused(harness, batch_id)
    idle(harness)
    assert offered(harness) == ["b1", "b2", "b3"]
    open_breaker(harness)
    assert offered(harness) == []
    harness.run("UPDATE service_breakers SET probe_at = now()")
    assert offered(harness) == ["b1"]
    with harness.database.begin() as transaction:
        PAYMENT_BREAKER.observe(transaction, [Outcome("succeeded", None, "pay-1")])
    assert offered(harness) == ["b1", "b2", "b3"]


def test_y09_a_batch_of_which_everything_is_refused_is_offered_again_after_a_while_or_once_something_is_taken(harness):
    refused = Outcome("not_sent", "malformed", refused=True)
    for batch_id in ("b1", "b2"):
        paused(harness, batch_id)
    idle(harness)
    tried = [Tried(str(uuid.uuid4()), "payment", f"C-{number}") for number in range(SEVERAL)]
    with harness.database.begin() as transaction:
        PaymentLedger.refusals.judged(transaction, "b1", [(each, refused) for each in tried])
    assert offered(harness) == ["b2"]
    harness.run("UPDATE refusals SET held_until = now() - interval '1 second'")
    assert offered(harness) == ["b1", "b2"]
    harness.run("UPDATE refusals SET held_until = now() + interval '1 hour'")
    assert offered(harness) == ["b2"]
    with harness.database.begin() as transaction:
        taken = Outcome("succeeded", None, "pay-1", asked_at=workers.now())
        PaymentLedger.refusals.judged(transaction, "b2", [(tried[0], taken)])
    assert offered(harness) == ["b1", "b2"]


def test_a_service_that_is_away_holds_nothing_that_does_not_need_it(harness):
    open_breaker(harness)
    batch_id = harness.batch(status="staged")
    idle(harness)
    assert offered(harness) == [batch_id]


def refunding(harness: Harness, status: str = "completed") -> None:
    """Have a finished batch with a refund that was asked for and not made, and another with a correction to send."""
    for batch_id in ("b1", "b2"):
        harness.batch(batch_id)
        harness.orders(order(1, client_order_ref=f"R-{batch_id}"), batch_id=batch_id)
        harness.plan()
        with harness.working() as worker:
            ledger, notices = harness.ledger(worker), harness.notices(worker)
            ledger.record([(claim, Outcome("succeeded", None, f"pay-{batch_id}")) for claim in ledger.claim(9)])
            notices.record([(claim, Outcome("succeeded", None, "n-1")) for claim in notices.claim(9)])
        harness.run(
            "UPDATE batches SET rows_total = 1, rows_accepted = 1, rows_rejected = 0, rows_blank = 0,"
            " amount_accepted = 1000, status = %s, finished_at = CASE WHEN %s LIKE 'completed%%' THEN now() END"
            " WHERE batch_id = %s",
            *(status, status, batch_id),
        )
        plan = read_plan(harness.database, batch_id)
        write_plan(harness.database, plan, requested_by="operator", reason="returned")
        if batch_id == "b2":
            with harness.working() as worker:
                refunds = RefundLedger(harness.database, worker)
                refunds.record([(claim, Outcome("succeeded", None, "ref-1")) for claim in refunds.claim(9)])


@pytest.mark.parametrize("status", ["completed", "completed_with_errors", "paused", "cancelling"])
def test_refunds_that_were_begun_are_offered_once_nobody_is_at_work_on_them(harness, status):
    refunding(harness, status)
    assert [(row.batch_id, row.payments_due, row.notifications_due) for row in stalled_batches(harness.database)] == [
        ("b1", True, False),
        ("b2", False, True),
    ]
    with harness.working() as worker:
        assert offered(harness) == ["b1"]
        harness.give_up(worker)
        assert sorted(offered(harness)) == ["b1", "b2"]


def test_a_refund_that_waits_for_a_person_or_a_service_is_not_offered(harness):
    refunding(harness)
    open_breaker(harness)
    assert offered(harness) == ["b2"]
    harness.run("UPDATE service_breakers SET probe_at = now()")
    assert offered(harness) == ["b1", "b2"]
    harness.run("UPDATE refunds SET next_attempt_at = now() + interval '100 years' WHERE settled_at IS NULL")
    harness.run("UPDATE batches SET run_requests = 1, run_requested_at = now()")
    assert offered(harness) == []
    harness.run("UPDATE batches SET run_requested_at = now() - make_interval(secs => %s)", 2 * PATIENCE_S + 1)
    assert offered(harness) == ["b2"]

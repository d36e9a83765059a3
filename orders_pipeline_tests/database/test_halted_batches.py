"""Batches that a person has stopped or cancelled: nothing of them is claimed, and their state is what the person said."""

from __future__ import annotations

import threading

import psycopg
import pytest

from orders_pipeline.batches import batches
from orders_pipeline.intake.received_before import ReceivedBefore
from orders_pipeline.services.payment_gateway import Capabilities
from orders_pipeline.settlement import ledger
from orders_pipeline.settlement.drain import drain
from orders_pipeline.settlement.payments.ledger import ABSENT_EARLY, ABSENT_ONCE, DoubtLedger, PaymentClaim
from orders_pipeline.settlement.payments.settle import find_out
from orders_pipeline.upkeep import cancelling
from orders_pipeline_tests.support.ledgers import ABLE, CIPHER, Harness, order, wait_for_a_blocked_session

UNFINISHED = ("received", "staged", "validated", "loaded", "paying", "paused")


@pytest.fixture
def harness(database):
    return Harness(database)


def stop(harness: Harness) -> bool:
    with harness.database.begin() as transaction:
        return batches.stop(transaction, harness.batch_id, "somebody")


def begin_cancelling(harness: Harness) -> None:
    with harness.database.begin() as transaction:
        cancelling.begin(transaction, harness.batch_id, cancelled_by="somebody", why="the wrong file")


def state(harness: Harness) -> str:
    return str(harness.value("SELECT status FROM batches WHERE batch_id = %s", harness.batch_id))


@pytest.mark.parametrize("status", UNFINISHED)
def test_a_stopped_batch_says_who_and_when_and_goes_on_from_where_it_was(harness, status):
    harness.batch(status=status)
    assert stop(harness)
    assert not stop(harness)
    with harness.database.begin() as transaction:
        shown = batches.summary(batches.progress(transaction, harness.batch_id), {}, {}, {})
        assert shown["status"] == "stopped"
        assert shown["stopped"]["by"] == "somebody"
        assert shown["stopped"]["at"]
        batches.restart(transaction, harness.batch_id)
        row = batches.get(transaction, harness.batch_id)
    assert (row.status, row.stopped_by, row.stopped_at, row.stopped_from) == (status, None, None, None)


@pytest.mark.parametrize("by_run", [True, False])
def test_a_run_that_was_terminated_stops_a_batch_unless_somebody_has_resumed_it_since_by_another(harness, by_run):
    harness.batch(status="paying")
    made_at = harness.value("SELECT now()")
    stop(harness)
    with harness.database.begin() as transaction:
        batches.restart(transaction, harness.batch_id, by_run=by_run)
    with harness.database.begin() as transaction:
        assert batches.stop(transaction, harness.batch_id, "UI", made_at) == by_run
        batches.restart(transaction, harness.batch_id, by_run=True)
        assert batches.stop(transaction, harness.batch_id, "UI", harness.value("SELECT now()"))


@pytest.mark.parametrize("status", ["paying", "paused", "completed_with_errors", "rejected", "cancelled"])
def test_what_a_process_comes_to_does_not_change_what_a_person_said(harness, status):
    harness.batch(status="paying")
    stop(harness)
    with harness.database.begin() as transaction:
        assert not batches.set_status(transaction, harness.batch_id, status)
    assert state(harness) == "stopped"
    begin_cancelling(harness)
    with harness.database.begin() as transaction:
        assert batches.set_status(transaction, harness.batch_id, status) == (status == "cancelled")


@pytest.mark.parametrize("status", ["completed_with_errors", "rejected"])
def test_a_batch_that_has_ended_is_neither_stopped_nor_cancelled(harness, status):
    harness.batch()
    harness.run("UPDATE batches SET status = %s, finished_at = now(), rows_total = 0, rows_accepted = 0", status)
    assert not stop(harness)
    with pytest.raises(batches.BatchEnded, match=rf"ended \({status}\)$"):
        begin_cancelling(harness)
    assert state(harness) == status


@pytest.mark.parametrize("halt", [stop, begin_cancelling])
def test_nothing_is_claimed_of_a_batch_that_was_halted_and_what_was_claimed_is_not_sent(harness, halt):
    harness.orders(order(1, customer_code="C-1"), order(2, customer_code="C-2"), order(3, customer_code="C-3"))
    harness.plan()
    harness.run("UPDATE notifications SET status = 'ready' WHERE customer_code = 'C-3'")
    with harness.working() as worker:
        payments, notices = harness.ledger(worker), harness.notices(worker)
        assert len(payments.claim(1)) == 1
        halt(harness)
        assert payments.may_send()
        assert payments.claim(10) == []
        assert not payments.may_send()
        assert (payments.wait_s(), notices.wait_s()) == (None, None)
        assert notices.claim(10) == []
    assert sorted(harness.statuses("payments")) == ["planned", "planned", "sending"]


def test_q06_a_claim_under_way_is_waited_for_and_none_follows_the_cancellation(harness):
    harness.orders(order(1, customer_code="C-1"))
    harness.plan()
    with harness.working() as worker, harness.database.begin() as claiming:
        assert not worker.is_halted(claiming)
        beside = threading.Thread(target=begin_cancelling, args=(harness,))
        beside.start()
        wait_for_a_blocked_session(harness)
        assert state(harness) == "loaded"
    beside.join()
    assert state(harness) == "cancelling"


def test_who_waits_for_the_next_try_holds_no_batch_while_lost_workers_are_given_up(harness, monkeypatch):
    harness.orders(order(1, customer_code="C-1"))
    harness.plan()
    locked = []

    def lock_batch(*_: object, **__: object) -> list[int]:
        locked.append(harness.run("SELECT FROM batches FOR NO KEY UPDATE NOWAIT"))  # as the sweep does
        return []

    monkeypatch.setattr(ledger, "end_lost_workers", lock_batch)
    with harness.working() as worker:
        assert harness.ledger(worker).wait_s() == 0
        assert harness.notices(worker).wait_s() is None
    assert len(locked) == 2


def test_a_halted_batch_is_drained_of_nothing_and_the_drain_ends(harness):
    harness.orders(order(1, customer_code="C-1"))
    harness.plan()
    stop(harness)
    with harness.working() as worker:
        drain(harness.ledger(worker), lambda _: pytest.fail("sent"), concurrency=2, stop=threading.Event())
    assert harness.statuses("payments") == ["planned"]


def test_the_reference_of_a_cancelled_order_is_free_again_and_no_other_is(harness):
    harness.orders(order(1), order(2))
    harness.run("UPDATE orders SET status = 'cancelled' WHERE import_row_number = 1")
    other = harness.batch("20260701-000000000002")
    assert harness.orders(order(1), batch_id=other)
    with pytest.raises(psycopg.errors.UniqueViolation):
        harness.orders(order(2), batch_id=other)
    refs = "\x1f".join(["ord-0001", "ord-0002"])
    with harness.database.begin() as transaction:
        found = transaction.rows("existing_refs", refs=refs, client_code="acme", batch_id="another")
    assert {row.ref: row.batch_id for row in found} == {"ord-0001": other, "ord-0002": "20260701-000000000001"}


@pytest.mark.parametrize(("halt", "is_settled"), [(None, True), (stop, False), (begin_cancelling, False)])
def test_an_order_that_was_not_sent_is_settled_only_while_its_batch_is_under_way(harness, halt, is_settled):
    harness.orders(*map(order, (1, 2, 3)))
    harness.run("UPDATE orders SET status = 'paid' WHERE import_row_number = 2")
    harness.run("UPDATE orders SET status = 'cancelled' WHERE import_row_number = 3")
    if halt is not None:
        halt(harness)
    before = ReceivedBefore(harness.database, CIPHER, "another", "acme")
    settled = {"ord-0002"} | ({"ord-0001"} if is_settled else set())
    assert before.settled(["ord-0001", "ord-0002", "ord-0003"]) == dict.fromkeys(settled, harness.batch_id)


@pytest.mark.parametrize(("paid", "counts"), [("cancelled", False), ("paid", True), ("refunded", True)])
def test_the_same_bytes_may_come_again_after_a_cancellation_unless_something_was_paid(harness, paid, counts):
    harness.orders(order(1))
    harness.run("UPDATE batches SET status = 'cancelled', finished_at = now(), source_sha256 = 'abc'")
    harness.run("UPDATE orders SET status = %s", paid)
    with harness.database.begin() as transaction:
        row = transaction.row("batch_with_same_bytes", client_code="acme", source_sha256="abc")
    assert row is not None
    assert row.counts is counts


class Asked:
    """A gateway that answers look-ups in turn."""

    def __init__(self, *kinds: str, able: Capabilities = ABLE) -> None:
        self.capabilities = able
        self._kinds = list(kinds)

    def look_up(self, _request: object) -> object:
        from orders_pipeline.services.outcomes import Outcome

        return Outcome(self._kinds.pop(0))  # type: ignore[arg-type]


def claim(**changes: object) -> PaymentClaim:
    return PaymentClaim(**({"request": None, "attempts": 1, "in_doubt": True, "last_code": None} | changes))  # type: ignore[arg-type]


def test_what_is_in_doubt_is_believed_not_to_be_charged_after_two_look_ups_that_no_request_can_be_behind():
    gateway = Asked("succeeded", "absent", "absent", "absent")
    assert find_out(gateway, claim(young_s=9.0)).kind == "succeeded"  # type: ignore[arg-type]
    early = find_out(gateway, claim(young_s=9.0))  # type: ignore[arg-type]
    assert (early.kind, early.code, early.retry_after_s) == ("unknown", ABSENT_EARLY, 9.0)
    once = find_out(gateway, claim(last_code=ABSENT_EARLY))  # type: ignore[arg-type]
    assert (once.kind, once.code) == ("unknown", ABSENT_ONCE)
    assert find_out(gateway, claim(last_code=ABSENT_ONCE)).kind == "not_sent"  # type: ignore[arg-type]


def test_what_nobody_can_look_up_waits_for_a_person():
    blind = Asked(able=Capabilities(honours_keys=True, can_look_up=False))
    assert find_out(blind, claim()).code == "undecidable"  # type: ignore[arg-type]


def test_what_is_in_doubt_is_looked_up_at_once_and_believed_later_and_nothing_planned_is_claimed(harness):
    harness.orders(order(1, customer_code="C-1"), order(2, customer_code="C-2"))
    harness.plan()
    harness.run(
        "UPDATE payments SET status = 'unknown', sent_at = now(), next_attempt_at = now(), attempts = 3"
        " WHERE customer_code = 'C-1'"
    )
    begin_cancelling(harness)
    with harness.working() as worker:
        ledger = DoubtLedger(harness.database, CIPHER, worker, ABLE, lambda *_: None, concurrency=4)
        ledger.begin()
        (found,) = ledger.claim(10)
        assert 100 < found.young_s <= 120
        ledger.record([(found, find_out(Asked("absent"), found))])  # type: ignore[arg-type]
        assert ledger.claim(10) == []
        assert 100 < (ledger.wait_s() or 0) <= 120
        ledger.begin()  # by whoever comes after a crash: nothing is waited for anew
        assert 100 < (ledger.wait_s() or 0) <= 120
    assert sorted(harness.statuses("payments")) == ["planned", "unknown"]

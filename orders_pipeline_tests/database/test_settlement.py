"""A batch's settlement and its cancellation, without Dagster: what is planned, sent and called off, and when nothing is."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from pydantic import SecretStr

from orders_pipeline.batches import batches
from orders_pipeline.batches.workers import worker_session
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure import interrupts
from orders_pipeline.sandbox import SandboxServer
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.services.payment_gateway import PaymentRequest
from orders_pipeline.services.rest_payments import RestPayments
from orders_pipeline.settlement.batch_settlement import Settlement, settling
from orders_pipeline.settlement.notifications.ledger import ResultLedger
from orders_pipeline.settlement.payments import settle
from orders_pipeline.settlement.payments.ledger import ABSENT_ONCE, PaymentClaim, PaymentLedger
from orders_pipeline.settlement.refunds import refunding
from orders_pipeline.settlement.refunds.plan import read_plan
from orders_pipeline.system.composition import System
from orders_pipeline.system.ledger_marks import MARKS, LedgerMark
from orders_pipeline.system.restore_guard import RestoreGuard
from orders_pipeline.upkeep import cancelling
from orders_pipeline_tests.support.ledgers import Harness, order

KEYS = SecretStr(f"test:{base64.b64encode(b'k' * 32).decode()}")  # the harness's
DOUBTFUL = Outcome("unknown", "E_SERVICE_NO_ANSWER", service_failed=True)


@pytest.fixture
def system(open_test_system: Callable[..., AbstractContextManager[System]]) -> Iterator[System]:
    with open_test_system(encryption_keys=KEYS, notification_rate_per_s=100) as opened:
        yield opened


@pytest.fixture
def harness(system: System) -> Harness:
    """A harness with a batch of two customers."""
    harness = Harness(system.database)
    harness.orders(order(1), order(2, customer_code="C-2"))
    return harness


def later_mark(system: System) -> None:
    """Have the storage know of a later mark, as after a restore of the database."""
    assert system.restore_guard.advance()
    state = Harness(system.database).run("SELECT * FROM installation")[0]
    later = LedgerMark(state["generation"], state["mark"] + 2, state["installation_id"])
    system.storage.put(later.key, b"{}")


def charged(sandbox: SandboxServer, harness: Harness) -> int:
    return int(sandbox.ledger(harness.batch_id)["payments"]["count"])


def test_who_is_paid_while_others_are_notified_is_notified_too(system, harness, monkeypatch):
    found_nothing = threading.Event()
    wait_s = ResultLedger.wait_s
    monkeypatch.setattr(ResultLedger, "wait_s", lambda ledger: (wait_s(ledger), found_nothing.set())[0])
    with settling(system, harness.batch_id, None) as work:
        work.start_notifying()
        assert found_nothing.wait(30)
        work.pay()
        work.finish_notifying()
    assert harness.statuses("orders") == ["paid", "paid"]
    assert harness.statuses("notifications") == ["sent", "sent"]


def leave_alone_for_long(harness: Harness) -> None:
    """Have the notification service left alone for ten minutes, and its next probe due."""
    harness.run(
        "INSERT INTO service_breakers (service, failures, opened_at, probe_at)"
        " VALUES ('notification', 10, now() - interval '10 minutes', now()) ON CONFLICT (service) DO UPDATE"
        " SET failures = excluded.failures, opened_at = excluded.opened_at, probe_at = excluded.probe_at"
    )


def test_results_alone_probe_a_service_that_was_left_alone_for_long(system, harness):
    with settling(system, harness.batch_id, None) as work:
        work.pay()
    leave_alone_for_long(harness)
    with settling(system, harness.batch_id, None) as work:
        work.finish_notifying()
    assert harness.statuses("notifications") == ["sent", "sent"]


def test_corrections_probe_a_service_that_was_left_alone_for_long(system, harness):
    with settling(system, harness.batch_id, None) as work:
        work.pay()
        work.finish_notifying()
    leave_alone_for_long(harness)
    plan = read_plan(system.database, harness.batch_id)
    came_to = refunding.carry_out(system, plan, requested_by="operator", reason="returned")
    assert came_to["corrections"] == {"planned": 2, "sent": 2, "failed": 0}


@pytest.mark.parametrize("status", ["validated", "completed"])
def test_a_batch_with_nothing_to_settle_is_left_alone(system, harness, status):
    finished = "now()" if status == "completed" else "NULL"
    harness.tamper(f"UPDATE batches SET status = '{status}', finished_at = {finished}")
    with settling(system, harness.batch_id, None) as work:
        assert work is None
    assert harness.value("SELECT status FROM batches") == status
    assert harness.statuses("payments") == []


def test_a_batch_that_a_person_stops_at_this_moment_is_not_planned(system, harness, monkeypatch):
    def stop_meanwhile(_: RestoreGuard) -> bool:
        with harness.database.begin() as transaction:
            assert batches.stop(transaction, harness.batch_id, "somebody")
        return True

    monkeypatch.setattr(RestoreGuard, "is_whole", stop_meanwhile)
    with settling(system, harness.batch_id, None) as work:
        assert work is None
    assert harness.statuses("payments") == []


def test_nothing_is_planned_over_a_storage_that_another_database_works_with(system, harness):
    content = {"since": "2026-01-01T00:00:00+00:00", "at": "2026-01-01T00:00:00+00:00", "database": "1|somewhere"}
    system.storage.put(LedgerMark(1, 5, uuid.uuid4()).key, json.dumps(content).encode())
    with settling(system, harness.batch_id, None) as work:
        assert work is None
    assert harness.statuses("payments") == []


def test_a_database_that_is_older_than_the_storage_pays_nothing(system, harness, sandbox):
    later_mark(system)
    with settling(system, harness.batch_id, None) as work:
        work.pay()
    assert harness.statuses("payments") == []  # what the service has of them is not known yet
    assert charged(sandbox, harness) == 0


def test_how_far_the_ledger_is_is_kept_before_anything_is_paid(system, harness, monkeypatch):
    kept: list[list[str]] = []
    pay = RestPayments.pay

    def watched(gateway: RestPayments, request: PaymentRequest) -> Outcome:
        kept.append([stored.key for stored in system.storage.list(MARKS)])
        return pay(gateway, request)

    monkeypatch.setattr(RestPayments, "pay", watched)
    with settling(system, harness.batch_id, None) as work:
        work.pay()
    assert len(kept) == 2
    assert all(kept)


def test_a_database_that_is_started_anew_while_it_pays_goes_on(system, harness, monkeypatch):
    begin = PaymentLedger.begin

    def started_anew(ledger: PaymentLedger) -> None:
        harness.run("UPDATE installation SET seen_as = 'the server before it was restarted'")
        begin(ledger)

    monkeypatch.setattr(PaymentLedger, "begin", started_anew)
    with settling(system, harness.batch_id, None) as work:
        work.pay()
    assert harness.statuses("payments") == ["succeeded", "succeeded"]


@pytest.fixture
def asked(open_test_system: Callable[..., AbstractContextManager[System]]) -> Iterator[System]:
    """A system whose Payment service can be asked for a payment only: it has no list and ignores keys."""
    with open_test_system(encryption_keys=KEYS, payment_capabilities="look-up") as opened:
        yield opened


def put_back(system: System, harness: Harness, *, is_planned: bool = True) -> None:
    """Have a payment charged, and put the database back to before it was sent."""
    with harness.working() as worker:
        (claim,) = harness.ledger(worker).claim(1)
        assert system.payments.pay(claim.request).kind == "succeeded"
    harness.tamper(
        "UPDATE payments SET status = 'planned', claimed_by = NULL, sent_at = NULL, attempts = 0",
        "UPDATE orders SET status = 'pending'",
        *(() if is_planned else ("DELETE FROM payment_orders", "DELETE FROM payments")),
    )
    harness.run("UPDATE installation SET seen_as = 'another'")


def test_what_a_database_sent_that_was_replaced_while_it_pays_is_looked_up(asked, monkeypatch):
    monkeypatch.setattr(PaymentLedger, "doubt_s", 0.0)
    harness = Harness(asked.database)
    harness.orders(order(1), order(2, customer_code="C-2"))
    harness.plan()
    able, look_again = asked.payments.capabilities, asked.restore_guard.advance
    with harness.working() as worker:
        ledger = PaymentLedger(
            asked.database, asked.cipher, worker, able, lambda *_: None, concurrency=2, look_again=look_again
        )
        ledger.begin()
        put_back(asked, harness)
        claims = ledger.claim(2)
        assert [claim.in_doubt for claim in claims] == [True, True]
        found = [settle.settle_one(asked.payments, claim, lambda: True) for claim in claims]
        assert sorted((outcome.kind, outcome.code) for outcome in found) == [
            ("succeeded", None),
            ("unknown", ABSENT_ONCE),
        ]


def test_the_key_of_a_lost_charge_that_somebody_answers_for_is_as_old_as_the_charge(system, harness):
    harness.plan()
    harness.run(
        "INSERT INTO reconciliation_findings (code, payment_id, detail, compared_from, compared_to, first_seen_at,"
        " last_seen_at) SELECT 'C_MISSING_HERE', payment_id, '{}', created_at - interval '2 days', now(), now(), now()"
        " FROM payments WHERE customer_code = 'C-2'"
    )
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.begin()
        claims = {claim.request.customer_code: claim for claim in ledger.claim(2)}
    assert {code: (claim.in_doubt, claim.is_old) for code, claim in claims.items()} == {
        "C-1": (False, False),
        "C-2": (True, True),
    }


def test_what_a_replaced_database_sent_last_may_still_be_under_way(asked):
    harness = Harness(asked.database)
    harness.orders(order(1), order(2, customer_code="C-2"))
    harness.plan()
    put_back(asked, harness)
    assert asked.restore_guard.is_whole()
    with harness.working() as worker:
        ledger = harness.ledger(worker, asked.payments.capabilities)
        ledger.begin()
        assert ledger.claim(2) == []
        assert 100 < (ledger.wait_s() or 0) <= 120


@pytest.mark.parametrize(("declined", "payments"), [("final", 1), ("retry_orders", 3)])
def test_the_profile_says_whether_declined_orders_are_tried_alone(system, harness, sandbox, declined, payments):
    harness.run("UPDATE orders SET customer_code = 'C-1'")
    harness.plan()
    sandbox.change(faults={"decline": 1.0})
    with worker_session(system.database, harness.batch_id, None) as worker:
        settlement = Settlement(system, worker, Profile(declined_payments=declined))
        settlement.pay()
        settlement.close()
    assert harness.statuses("payments") == ["declined"] * payments


# Cancelling


def begin_cancelling(harness: Harness) -> None:
    harness.run(
        "UPDATE batches SET rows_total = 2, rows_accepted = 2, rows_rejected = 0, rows_blank = 0, amount_accepted = 2000"
    )
    with harness.database.begin() as transaction:
        cancelling.begin(transaction, harness.batch_id, cancelled_by="somebody", why="the wrong file")


def in_doubt(harness: Harness) -> list[PaymentClaim]:
    """Send a payment, as far as we know."""
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        claims = ledger.claim(1)
        ledger.record([(claim, DOUBTFUL) for claim in claims])
    return claims


def test_a_cancelled_batch_covers_nothing_and_notifies_nobody(system, harness):
    harness.plan()
    begin_cancelling(harness)
    cancelling.finish(system, harness.batch_id)
    assert [harness.statuses(table) for table in ("orders", "payments", "notifications")] == [["cancelled"] * 2] * 3
    assert harness.value("SELECT count(*) FROM payment_orders WHERE live") == 0
    assert harness.value("SELECT status FROM batches") == "cancelled"


def test_what_was_charged_without_our_knowing_is_found_out_before_a_batch_is_cancelled(system, harness):
    harness.plan()
    (claim,) = in_doubt(harness)
    assert system.payments.pay(claim.request).kind == "succeeded"
    begin_cancelling(harness)
    cancelling.finish(system, harness.batch_id)
    assert sorted(harness.statuses("orders")) == ["cancelled", "paid"]
    assert sorted(harness.statuses("payments")) == ["cancelled", "succeeded"]


@pytest.mark.parametrize("is_planned", [True, False])
def test_what_another_database_may_have_paid_is_looked_up_before_a_batch_is_cancelled(asked, monkeypatch, is_planned):
    monkeypatch.setattr(PaymentLedger, "doubt_s", 0.0)
    harness = Harness(asked.database)
    harness.orders(order(1), order(2, customer_code="C-2"))
    harness.plan()
    put_back(asked, harness, is_planned=is_planned)
    begin_cancelling(harness)
    cancelling.finish(asked, harness.batch_id)
    assert sorted(harness.statuses("orders")) == ["cancelled", "paid"]
    assert harness.value("SELECT status FROM batches") == "cancelled"


def test_orders_that_another_database_paid_alone_are_found_before_a_batch_is_cancelled(asked, sandbox, monkeypatch):
    monkeypatch.setattr(PaymentLedger, "doubt_s", 0.0)
    harness = Harness(asked.database)
    harness.orders(order(1), order(2))
    harness.plan()
    sandbox.change(faults={"decline": 1.0})
    with harness.working() as worker:
        ledger = harness.ledger(worker, asked.payments.capabilities, retry_declined_orders=True)
        ledger.record([(claim, asked.payments.pay(claim.request)) for claim in ledger.claim(1)])
        sandbox.change(faults={})
        ledger.record([(claim, asked.payments.pay(claim.request)) for claim in ledger.claim(2)])
    assert harness.statuses("orders") == ["paid", "paid"]
    harness.tamper(
        "DELETE FROM payment_orders",
        "DELETE FROM payments",
        "UPDATE orders SET status = 'pending'",
        "UPDATE notifications SET status = 'waiting'",
    )
    harness.run("UPDATE installation SET seen_as = 'another'")
    begin_cancelling(harness)
    cancelling.finish(asked, harness.batch_id)
    assert harness.statuses("orders") == ["paid", "paid"]
    assert harness.value("SELECT status FROM batches") == "cancelled"


def test_who_may_have_been_notified_is_found_out_before_a_batch_is_cancelled_and_nobody_is_notified_then(system, harness):
    harness.plan()
    with harness.working() as worker:
        ledger, notices = harness.ledger(worker), harness.notices(worker)
        ledger.record([(claim, Outcome("succeeded", None, "pay-1")) for claim in ledger.claim(2)])
        claims = notices.claim(2)
        told = claims[0].request
        assert system.notifications.send(told).kind == "succeeded"
        notices.record([(claim, DOUBTFUL) for claim in claims])
    begin_cancelling(harness)
    cancelling.finish(system, harness.batch_id)
    states = {row["customer_code"]: row["status"] for row in harness.run("SELECT customer_code, status FROM notifications")}
    assert states.pop(told.customer_code) == "sent"
    assert list(states.values()) == ["cancelled"]


def test_what_only_a_person_can_find_out_keeps_a_batch_from_being_cancelled(system, harness):
    harness.plan()
    in_doubt(harness)
    harness.run("UPDATE payments SET next_attempt_at = now() + interval '1 year' WHERE status = 'unknown'")
    begin_cancelling(harness)
    cancelling.finish(system, harness.batch_id)
    assert sorted(harness.statuses("payments")) == ["planned", "unknown"]
    assert harness.value("SELECT status FROM batches") == "cancelling"


def test_a_database_that_is_older_than_the_storage_cancels_nothing(system, harness):
    harness.plan()
    later_mark(system)
    begin_cancelling(harness)
    cancelling.finish(system, harness.batch_id)
    assert harness.statuses("payments") == ["planned", "planned"]
    assert harness.value("SELECT status FROM batches") == "cancelling"


def test_who_is_at_work_on_a_batch_is_waited_for_before_it_is_cancelled(system, harness):
    harness.plan()
    begin_cancelling(harness)
    other = worker_session(system.database, harness.batch_id, None)
    other.__enter__()
    waited = []

    def leave() -> None:
        waited.append(harness.statuses("payments"))
        other.__exit__(None, None, None)

    cancelling.finish(system, harness.batch_id, leave)
    assert waited == [["planned", "planned"]]
    assert harness.statuses("payments") == ["cancelled", "cancelled"]


def test_who_is_lost_is_not_waited_for_before_a_batch_is_cancelled(system, harness):
    harness.plan()
    begin_cancelling(harness)

    def wait() -> None:
        raise AssertionError

    with harness.working() as lost:
        harness.give_up(lost)
        cancelling.finish(system, harness.batch_id, wait)
    assert harness.statuses("payments") == ["cancelled", "cancelled"]


def test_a_cancellation_that_waits_for_others_can_be_interrupted(system, harness, monkeypatch):
    harness.plan()
    begin_cancelling(harness)
    monkeypatch.setattr(interrupts, "requested", threading.Event())
    with harness.working() as other:
        later = threading.Timer(1.0, harness.give_up, [other])  # so that a wait that is not interrupted ends

        def interrupt() -> None:
            interrupts.requested.set()
            later.start()

        with pytest.raises(KeyboardInterrupt):
            cancelling.finish(system, harness.batch_id, interrupt)
        later.cancel()
    assert harness.statuses("payments") == ["planned", "planned"]

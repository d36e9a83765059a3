"""Refunds in the ledger: planned once, sent under one key, recorded by who holds them.

Orders and payments follow, and customers who were told otherwise are corrected.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from orders_pipeline.batches.batch_lock import BatchBusy
from orders_pipeline.batches.workers import LeaseLost, Worker, worker_session
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.services.notification_service import Message
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.services.payment_gateway import Capabilities, RefundRequest
from orders_pipeline.settlement.drain import drain, one_by_one
from orders_pipeline.settlement.ledger import UNDECIDABLE
from orders_pipeline.settlement.notifications.ledger import CorrectionLedger
from orders_pipeline.settlement.refunds.ledger import RefundClaim, RefundLedger, refund_one
from orders_pipeline.settlement.refunds.plan import RefundPlan, UnknownOrders, read_plan, write_plan
from orders_pipeline_tests.support.commands import wait_for
from orders_pipeline_tests.support.ledgers import CIPHER, Harness, order, wait_for_a_blocked_session

PAID = Outcome("succeeded", None, "pay_1")
GIVEN = Outcome("succeeded", None, "ref_1")
SENT = Outcome("succeeded", None, "n-1")
DOUBTFUL = Outcome("unknown", "E_SERVICE_NO_ANSWER", service_failed=True)
PAY_BY_ORDER = Profile(payments="per_order")


@dataclass
class Provider:
    """A provider that answers refunds from a script and remembers their keys."""

    script: list[Outcome]
    capabilities: Capabilities = field(default_factory=Capabilities)
    keys: list[str] = field(default_factory=list)

    def refund(self, request: RefundRequest) -> Outcome:
        self.keys.append(request.refund_id)
        return self.script.pop(0)


def paid(harness: Harness, *orders: dict[str, Any], told: bool = False, profile: Profile | None = None) -> list[int]:
    """Have a batch whose orders are paid and, on demand, whose customers are notified; return the orders' ids."""
    harness.batch()
    order_ids = harness.orders(*orders)
    harness.plan(profile)
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.record([(claim, PAID) for claim in ledger.claim(100)])
        if told:
            notices = harness.notices(worker, profile)
            notices.record([(claim, SENT) for claim in notices.claim(100)])
    return order_ids


def three(**changes: object) -> list[dict[str, Any]]:
    return [order(number, **changes) for number in (1, 2, 3)]


def written(harness: Harness, *refs: str, plan: RefundPlan | None = None) -> list[str]:
    plan = plan or read_plan(harness.database, harness.batch_id, refs)
    return write_plan(harness.database, plan, requested_by="operator", reason="returned")


def claimed(harness: Harness, worker: Worker) -> tuple[RefundLedger, list[RefundClaim]]:
    ledger = RefundLedger(harness.database, worker)
    ledger.begin()
    return ledger, ledger.claim(100)


def refund_orders(harness: Harness, *refs: str, outcome: Outcome = GIVEN) -> None:
    written(harness, *refs)
    with harness.working() as worker:
        ledger, claims = claimed(harness, worker)
        ledger.record([(claim, outcome) for claim in claims])


def due_now(harness: Harness) -> None:
    """Let time pass for what waits for its next try, but not the years for which a person is waited for."""
    harness.run("UPDATE refunds SET next_attempt_at = next_attempt_at - interval '1 hour'")


def states(harness: Harness) -> list[str]:
    return [row["status"] for row in harness.run("SELECT status FROM refunds ORDER BY created_at, amount")]


@pytest.fixture
def aggregated(harness: Harness) -> Harness:
    """A harness with three orders in one payment of 6,000 yen."""
    paid(harness, order(1, amount=1000), order(2, amount=2000), order(3, amount=3000))
    assert harness.value("SELECT count(*) FROM payments") == 1
    return harness


def test_a_plan_parts_what_can_be_refunded_from_what_cannot(harness):
    ids = paid(harness, *(order(number, amount=1000 * number) for number in range(1, 6)), told=True, profile=PAY_BY_ORDER)
    for order_id, status in zip(ids[2:], ("pending", "declined", "unknown"), strict=True):
        harness.run("UPDATE orders SET status = %s WHERE order_id = %s", status, order_id)
    refund_orders(harness, "ORD-0001")
    plan = read_plan(harness.database, harness.batch_id).as_dict()
    assert plan == {
        "orders": {"chosen": 5, "refundable": 1, "under_way": 0, "refunded": 1, "not_paid": 3, "notified": 1},
        "not_paid": {"pending": 1, "paying": 0, "declined": 1, "unknown": 1},
        "refunds": 1,
        "amount_jpy": {"refundable": 2000, "under_way": 0, "refunded": 1000, "not_paid": 12000},
    }


def test_a_plan_changes_nothing(aggregated):
    read_plan(aggregated.database, aggregated.batch_id)
    assert aggregated.value("SELECT count(*) FROM refunds") == 0


def test_orders_are_named_in_any_case_and_the_others_are_left_alone(aggregated):
    plan = read_plan(aggregated.database, aggregated.batch_id, ["ord-0002"])
    assert [each.amount for each in plan.refundable] == [2000]


def test_named_orders_that_are_not_there_are_counted_and_only_what_looks_like_a_reference_is_repeated(aggregated):
    with pytest.raises(UnknownOrders) as refused:
        read_plan(aggregated.database, aggregated.batch_id, ["ORD-0001", "ORD-0009", "見本\x1b[2J"])
    assert str(refused.value) == "E_UNKNOWN_ORDER: 2 of the named orders are not in this batch: ORD-0009, ..."


def test_one_refund_is_written_for_each_payment_with_who_and_why(aggregated):
    written(aggregated, "ORD-0001", "ORD-0003")
    (refund,) = aggregated.run("SELECT amount, status, requested_by, reason, created_at FROM refunds")
    assert (refund["amount"], refund["status"]) == (4000, "planned")
    assert (refund["requested_by"], refund["reason"]) == ("operator", "returned")
    assert refund["created_at"] is not None


def test_planning_again_finds_the_same_refunds(aggregated):
    assert written(aggregated) == written(aggregated)
    assert aggregated.value("SELECT count(*) FROM refunds") == 1


def test_two_plans_at_once_give_nothing_back_twice(aggregated):
    plan = read_plan(aggregated.database, aggregated.batch_id)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: written(aggregated, plan=plan), range(2))
    assert first == second
    assert aggregated.value("SELECT count(*) FROM refunds") == 1


def test_no_more_is_written_down_than_was_shown_and_is_paid_still(harness):
    first, _, third = paid(harness, *three(), profile=PAY_BY_ORDER)
    harness.run("UPDATE orders SET status = 'unknown' WHERE order_id = %s", first)
    plan = read_plan(harness.database, harness.batch_id)
    harness.run("UPDATE orders SET status = 'paid' WHERE order_id = %s", first)
    harness.run("UPDATE orders SET status = 'unknown' WHERE order_id = %s", third)
    written(harness, plan=plan)
    assert harness.value("SELECT count(*) FROM refunds") == 1


def test_a_refund_that_was_begun_for_two_orders_is_gone_on_with_as_a_whole(aggregated):
    refund_ids = written(aggregated, "ORD-0001", "ORD-0002")
    plan = read_plan(aggregated.database, aggregated.batch_id, ["ORD-0001"])
    assert plan.as_dict()["amount_jpy"]["under_way"] == 3000
    assert written(aggregated, plan=plan) == refund_ids


def test_a_batch_that_is_being_paid_is_not_refunded_at_the_same_time(aggregated):
    with worker_session(aggregated.database, aggregated.batch_id, "a-run"), pytest.raises(BatchBusy):
        written(aggregated)
    assert len(written(aggregated)) == 1


def test_a_part_leaves_the_payment_standing_and_the_rest_ends_it(aggregated):
    refund_orders(aggregated, "ORD-0001")
    assert aggregated.statuses("orders") == ["refunded", "paid", "paid"]
    assert aggregated.statuses("payments") == ["succeeded"]
    refund_orders(aggregated)
    assert aggregated.statuses("orders") == ["refunded"] * 3
    assert aggregated.statuses("payments") == ["refunded"]
    assert [row["amount"] for row in aggregated.run("SELECT amount FROM refunds ORDER BY amount")] == [1000, 5000]


def test_the_yen_of_payments_and_of_paid_orders_stay_the_same(harness):
    paid(harness, order(1, amount=600_000), order(2, amount=400_000), order(3, amount=500_000))
    for refs in (("ORD-0002",), ("ORD-0003",), ()):
        refund_orders(harness, *refs)
        with harness.database.begin() as transaction:
            totals = transaction.row("payment_totals", batch_id=harness.batch_id)
            progress = transaction.row("batch_progress", batch_id=harness.batch_id)
        assert totals.succeeded == progress.amount_paid
    assert progress.amount_paid == 0
    assert progress.orders_refunded == 3


def test_two_parts_recorded_at_once_end_the_payment(harness):
    paid(harness, order(1), order(2))
    with harness.working() as one, harness.working() as other:
        written(harness, "ORD-0001")
        mine, claims = claimed(harness, one)
        written(harness, "ORD-0002")
        theirs, their_claims = claimed(harness, other)
        with harness.connect() as blocking, ThreadPoolExecutor(2) as pool:
            blocking.execute("SELECT FROM payments FOR UPDATE")
            recorded = [
                pool.submit(ledger.record, [(claim, GIVEN) for claim in each])
                for ledger, each in ((mine, claims), (theirs, their_claims))
            ]
            wait_for_a_blocked_session(harness)
            blocking.commit()
            for each in recorded:
                each.result(timeout=30)
    assert harness.statuses("payments") == ["refunded"]


def test_parts_of_several_payments_recorded_at_once_in_any_order_end_them(harness):
    """Payments are locked in one order: else each of two workers waits for the other."""
    paid(harness, *(order(number, customer_code=f"C-{number % 2}") for number in (1, 2, 3, 4)))
    members = (
        "SELECT payment_id, array_agg(client_order_ref) AS refs FROM payment_orders JOIN orders USING (order_id)"
        " GROUP BY payment_id ORDER BY payment_id"
    )
    payments = harness.run(members)
    (first, second), (third, fourth) = (each["refs"] for each in payments)
    with harness.working() as one, harness.working() as other:
        recorders = []
        for worker, refs in ((one, (first, third)), (other, (fourth, second))):
            ids = [refund_id for ref in refs for refund_id in written(harness, ref)]
            ledger, claims = claimed(harness, worker)
            claims.sort(key=lambda claim: ids.index(claim.request.refund_id))
            recorders.append((ledger, [(claim, GIVEN) for claim in claims]))
        with harness.connect() as holding, harness.connect() as holding_too, ThreadPoolExecutor(2) as pool:
            for connection, payment in zip((holding, holding_too), payments, strict=True):
                connection.execute("SELECT FROM payments WHERE payment_id = %s FOR UPDATE", [payment["payment_id"]])
            recorded = [pool.submit(ledger.record, results) for ledger, results in recorders]
            wait_for(lambda: waiting_beside(harness) == 2, "both to wait")
            holding.commit()
            wait_for(lambda: waiting_beside(harness, holding.info.backend_pid) == 2, "both to wait for the other payment")
            holding_too.commit()
            for each in recorded:
                each.result(timeout=30)
    assert harness.statuses("payments") == ["refunded", "refunded"]


def waiting_beside(harness: Harness, pid: int = 0) -> int:
    """Return how many sessions wait for a lock, but not for that session's."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND %s <> ALL(pg_blocking_pids(pid))"
    return int(harness.value(waiting, pid))


def finished_requests(harness: Harness) -> list[bool]:
    rows = harness.run("SELECT finished_at IS NOT NULL AS is_finished FROM refund_requests ORDER BY created_at")
    return [row["is_finished"] for row in rows]


def test_a_request_is_finished_with_the_last_of_its_refunds_and_another_of_the_batch_by_itself(harness):
    paid(harness, *three(), profile=PAY_BY_ORDER)
    written(harness, "ORD-0001", "ORD-0002")
    written(harness)  # what is left
    assert harness.run("SELECT request_id, count(*) FROM refunds GROUP BY 1 ORDER BY 2")[1]["count"] == 2
    with harness.working() as worker:
        ledger, claims = claimed(harness, worker)
        requests = {
            str(row["refund_id"]): row["place"]
            for row in harness.run(
                "SELECT refund_id, dense_rank() OVER (ORDER BY refund_requests.created_at) AS place"
                " FROM refunds JOIN refund_requests USING (request_id)"
            )
        }
        first = [claim for claim in claims if requests[claim.request.refund_id] == 1]
        (second,) = [claim for claim in claims if claim not in first]
        ledger.record([(first[0], GIVEN)])
        assert finished_requests(harness) == [False, False]
        ledger.record([(first[1], Outcome("declined", "too-late"))])
        assert finished_requests(harness) == [True, False]
        ledger.record([(second, DOUBTFUL)])
        assert finished_requests(harness) == [True, False]
    assert written(harness, "ORD-0003")  # it is open: nothing more is asked for
    assert len(finished_requests(harness)) == 2


def test_of_two_workers_that_record_the_last_refunds_of_a_request_at_once_one_finishes_it(harness):
    paid(harness, order(1), order(2), profile=PAY_BY_ORDER)
    written(harness)
    with harness.working() as worker:
        ledger, claims = claimed(harness, worker)
        with harness.connect() as blocking, ThreadPoolExecutor(2) as pool:
            blocking.execute("SELECT FROM refund_requests FOR UPDATE")
            recorded = [pool.submit(ledger.record, [(claim, GIVEN)]) for claim in claims]
            wait_for(lambda: waiting_beside(harness) == 2, "both to wait", timeout_s=20)
            blocking.commit()
            for each in recorded:
                each.result(timeout=30)
    assert finished_requests(harness) == [True]


def test_a_plan_is_another_as_soon_as_anything_else_would_be_refunded(harness):
    paid(harness, *three(), profile=PAY_BY_ORDER)
    whole = read_plan(harness.database, harness.batch_id).digest
    assert read_plan(harness.database, harness.batch_id, ["ord-0003", "ORD-0001", "ORD-0002"]).digest == whole
    assert read_plan(harness.database, harness.batch_id, ["ORD-0001"]).digest != whole
    written(harness, "ORD-0001")
    assert read_plan(harness.database, harness.batch_id).digest != whole


def test_the_intent_is_committed_before_anything_is_sent(aggregated):
    with aggregated.working() as worker:
        written(aggregated)
        _, (claim,) = claimed(aggregated, worker)
        assert states(aggregated) == ["sending"]
        assert not claim.in_doubt
        assert aggregated.statuses("orders") == ["paid"] * 3


def test_c13_what_a_lost_worker_was_sending_is_sent_again_under_the_same_key(aggregated):
    written(aggregated)
    with aggregated.working() as lost:
        old, claims = claimed(aggregated, lost)
        aggregated.give_up(lost)
        with aggregated.working() as worker:
            ledger, (again,) = claimed(aggregated, worker)
            assert again.in_doubt
            assert again.request == claims[0].request
            ledger.record([(again, GIVEN)])
            old.record([(claims[0], Outcome("declined", "too-late"))])  # dropped: it is not its any more
    assert states(aggregated) == ["succeeded"]
    assert aggregated.statuses("orders") == ["refunded"] * 3


def test_a_refund_that_others_are_sending_is_left_to_them(aggregated):
    written(aggregated)
    with aggregated.working() as one, aggregated.working() as other:
        _, claims = claimed(aggregated, one)
        _, nothing = claimed(aggregated, other)
    assert (len(claims), nothing) == (1, [])


def test_what_others_are_sending_is_waited_for_and_taken_over_when_they_are_gone(aggregated):
    written(aggregated)
    with aggregated.working() as one, aggregated.working() as other:
        claimed(aggregated, one)
        ledger = RefundLedger(aggregated.database, other)
        assert ledger.wait_s() is not None
        assert ledger.claim(10) == []
        aggregated.give_up(one)
        assert ledger.wait_s() == 0
        (claim,) = ledger.claim(10)
        assert claim.in_doubt


def test_an_unclear_answer_is_asked_again_under_the_same_key_until_it_is_clear(aggregated):
    provider = Provider([DOUBTFUL, Outcome("not_sent", "rate-limited"), GIVEN])
    seen = []
    with aggregated.working() as worker:
        written(aggregated)
        for _ in range(3):
            due_now(aggregated)
            ledger, claims = claimed(aggregated, worker)
            ledger.record([(claim, refund_one(provider, claim, worker.may_send)) for claim in claims])
            seen += states(aggregated)
    # a second try that was certainly not accepted says nothing of the first
    assert seen == ["unknown", "unknown", "succeeded"]
    assert len(set(provider.keys)) == 1
    assert len(provider.keys) == 3


def test_without_keys_an_unclear_answer_waits_for_a_person_and_is_never_sent_again(aggregated):
    provider = Provider([DOUBTFUL], Capabilities(honours_keys=False))
    written(aggregated)
    for _ in range(3):
        with aggregated.working() as worker:
            due_now(aggregated)
            ledger, claims = claimed(aggregated, worker)
            ledger.record([(claim, refund_one(provider, claim, worker.may_send)) for claim in claims])
            waits = ledger.wait_s()
    assert len(provider.keys) == 1
    assert waits is None
    assert aggregated.value("SELECT outcome_code FROM refunds") == UNDECIDABLE
    assert aggregated.statuses("orders") == ["paid"] * 3


def test_y20_what_may_have_been_refunded_a_day_ago_is_not_sent_again(aggregated):
    """The service may have forgotten the key, and would give back a second time."""
    provider = Provider([DOUBTFUL])
    written(aggregated)
    for age in ("0 hours", "25 hours"):
        aggregated.run("UPDATE refunds SET created_at = created_at - CAST(%s AS interval)", age)
        with aggregated.working() as worker:
            due_now(aggregated)
            ledger, claims = claimed(aggregated, worker)
            ledger.record([(claim, refund_one(provider, claim, worker.may_send)) for claim in claims])
    assert len(provider.keys) == 1
    assert aggregated.value("SELECT outcome_code FROM refunds") == UNDECIDABLE


def test_a_declined_refund_leaves_its_orders_paid_and_may_be_tried_under_another_key(aggregated):
    refund_orders(aggregated, outcome=Outcome("declined", "validation"))
    assert aggregated.statuses("orders") == ["paid"] * 3
    assert aggregated.statuses("payments") == ["succeeded"]
    (declined,) = aggregated.run("SELECT refund_id, outcome_code FROM refunds")
    assert declined["outcome_code"] == "validation"
    (again,) = written(aggregated)
    assert again != str(declined["refund_id"])


def rows_of(message: Message) -> list[int]:
    return [int(name.rpartition("-")[2]) for name in message.order_refs]


def corrections(harness: Harness) -> list[Message]:
    with harness.working() as worker:
        ledger = CorrectionLedger(harness.database, CIPHER, worker)
        ledger.begin()
        claims = ledger.claim(100)
        ledger.record([(claim, SENT) for claim in claims])
    return [claim.request for claim in claims]


def test_a_customer_who_was_notified_is_corrected_once_in_a_digest(harness):
    paid(harness, *three(), told=True)
    refund_orders(harness, "ORD-0001", "ORD-0002")
    (message,) = corrections(harness)
    assert (message.template_id, rows_of(message)) == ("order-refund", [1, 2])
    assert message.address == "planted@example.com"
    assert {line["outcome"] for line in message.variables["orders"]} == {"refunded"}
    assert (message.variables["refunded_count"], message.variables["refunded_amount"]) == (2, 2000)
    assert corrections(harness) == []
    refund_orders(harness)
    assert [rows_of(each) for each in corrections(harness)] == [[3]]


def test_a_refund_is_never_recorded_without_the_correction_of_its_customer(harness):
    """Whatever is killed from here on, the correction is planned, shown and found by the sweep."""
    paid(harness, *three(), told=True)
    refund_orders(harness, "ORD-0001")
    assert harness.run("SELECT kind, status FROM notifications WHERE kind = 'correction'") == [
        {"kind": "correction", "status": "ready"}
    ]
    with harness.database.begin() as transaction:
        assert transaction.scalar("is_refunding", batch_id=harness.batch_id)
        totals = transaction.rows("refund_totals", batch_id=harness.batch_id)[0]
    assert (totals.succeeded, totals.open, totals.corrections_planned, totals.corrections_open) == (1, 0, 1, 1)


def test_refunds_recorded_one_after_the_other_are_one_correction_until_it_is_begun(harness):
    paid(
        harness,
        *three(),
        order(4, customer_code="C-2"),
        order(5, personal={"customer_name": "見本商店", "email": "other@example.com"}),
        told=True,
        profile=PAY_BY_ORDER,
    )
    refund_orders(harness, "ORD-0002")
    refund_orders(harness, "ORD-0001", "ORD-0004", "ORD-0005")
    told = {tuple(rows_of(message)): message.address for message in corrections(harness)}
    assert told == {(1, 2): "planted@example.com", (4,): "planted@example.com", (5,): "other@example.com"}
    refund_orders(harness, "ORD-0003")
    assert [rows_of(message) for message in corrections(harness)] == [[3]]


def test_per_order_each_is_corrected(harness):
    profile = Profile(notifications="per_order")
    paid(harness, *three(), told=True, profile=profile)
    refund_orders(harness)
    assert [len(each.order_refs) for each in corrections(harness)] == [1, 1, 1]


def test_who_was_not_notified_needs_no_correction_and_is_notified_of_the_refund_at_once(harness):
    paid(harness, *three(), order(4, customer_code="C-2", notify_channel="none"))
    refund_orders(harness)
    assert corrections(harness) == []
    with harness.working() as worker:
        (claim,) = harness.notices(worker).claim(10)
        harness.notices(worker).record([(claim, SENT)])
    assert claim.request.template_id == "order-digest"
    assert {line["outcome"] for line in claim.request.variables["orders"]} == {"refunded"}
    assert corrections(harness) == []


def test_who_may_have_been_notified_is_corrected(harness):
    paid(harness, *three())
    with harness.working() as worker:
        notices = harness.notices(worker)
        notices.record([(claim, Outcome("unknown", "x")) for claim in notices.claim(10)])
    refund_orders(harness)
    assert len(corrections(harness)) == 1


def test_a_drain_whose_worker_was_given_up_ends_and_says_so(aggregated):
    written(aggregated)
    with aggregated.working() as worker:
        ledger = RefundLedger(aggregated.database, worker)
        ledger.begin()
        worker.given_up.set()
        with pytest.raises(LeaseLost):
            drain(ledger, one_by_one(lambda _: GIVEN), concurrency=2, stop=threading.Event())
    assert states(aggregated) == ["planned"]


def test_a_customer_who_is_being_notified_while_the_order_is_refunded_gets_a_correction(harness):
    """The refund waits for who has claimed the notification, and sees then that it is on its way."""
    paid(harness, order(1))
    with harness.working() as worker:
        written(harness)
        ledger, claims = claimed(harness, worker)
        with harness.database.begin() as telling, ThreadPoolExecutor(1) as pool:
            telling.rows(
                "claim_results",
                batch_id=harness.batch_id,
                worker_id=worker.worker_id,
                max_attempts=8,
                limit=10,
                retries=True,
            )
            recording = pool.submit(ledger.record, [(claim, GIVEN) for claim in claims])
            wait_for_a_blocked_session(harness)
            telling.execute("end_worker", worker_id=0)  # anything: it goes on, and commits
            telling._connection.commit()
            recording.result(10)
        (correction,) = CorrectionLedger(harness.database, CIPHER, worker).claim(10)
    assert correction.request.template_id == "order-refund"


def test_a_declined_refund_corrects_nobody(harness):
    paid(harness, *three(), told=True)
    refund_orders(harness, outcome=Outcome("declined", "validation"))
    assert corrections(harness) == []


def test_a_drain_stops_at_what_is_left_of_it(aggregated):
    with aggregated.working() as worker:
        written(aggregated)
        ledger, claims = claimed(aggregated, worker)
        ledger.record([(claim, Outcome("not_sent", "unavailable", retry_after_s=30.0)) for claim in claims])
        assert states(aggregated) == ["planned"]
        assert 0 < (ledger.wait_s() or 0) <= 30
        worker.given_up.set()
        with pytest.raises(LeaseLost):
            ledger.claim(10)

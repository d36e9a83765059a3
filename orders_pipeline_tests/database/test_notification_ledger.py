"""The ledger of notifications: each waits until all its orders are final, then is claimed, sent and recorded once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from orders_pipeline.batches.workers import LeaseLost
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.settlement.ledger import MAX_ATTEMPTS
from orders_pipeline.settlement.notifications.plan import make_ready
from orders_pipeline_tests.support.ledgers import Harness, order, wait_for_a_blocked_session

PAID = Outcome("succeeded", None, "pay-1")
DECLINED = Outcome("declined", "x")
SENT = Outcome("succeeded", None, "n-1")


def planned(harness: Harness, *orders: dict, profile: Profile | None = None) -> None:
    harness.batch()
    harness.orders(*orders)
    harness.plan(profile)


def settle_all(harness: Harness, outcome: Outcome = PAID) -> None:
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.record([(claim, outcome) for claim in ledger.claim(1000)])


def of_three(**changes: object) -> list[dict]:
    return [order(n, **changes) for n in (1, 2, 3)]


def test_a_digest_notifies_a_customer_of_all_orders_at_once(harness):
    planned(harness, *of_three())
    assert harness.statuses("notifications") == ["waiting"]
    assert harness.value("SELECT count(*) FROM notification_orders") == 3


def test_per_order_notifies_of_each(harness):
    planned(harness, *of_three(), profile=Profile(notifications="per_order"))
    assert harness.statuses("notifications") == ["waiting"] * 3


def test_a_customer_who_wants_none_is_not_notified(harness):
    planned(harness, *of_three(notify_channel="none"))
    assert harness.statuses("notifications") == []


def test_nobody_is_notified_of_orders_that_belong_to_another_address(harness):
    planned(
        harness,
        order(1, personal={"email": "a@example.com"}),
        order(2, personal={"email": "b@example.com"}),
        order(3, personal={"email": "a@example.com"}),
        order(4, personal={"phone": "0312345678", "email": "a@example.com"}, notify_channel="sms"),
        order(5, personal={"email": "a@example.com"}, customer_code="C-2"),
        *(order(n, personal={"email": "a@example.com"}, customer_code="GUEST", is_nobodys=True) for n in (6, 7)),
    )
    settle_all(harness)
    with harness.working() as worker:
        messages = [claim.request for claim in harness.notices(worker).claim(10)]
    told = sorted((each.customer_code, each.channel, each.address, len(each.order_refs)) for each in messages)
    assert told == [
        ("C-1", "email", "a@example.com", 2),
        ("C-1", "email", "b@example.com", 1),
        ("C-1", "sms", "0312345678", 1),
        ("C-2", "email", "a@example.com", 1),
        ("GUEST", "email", "a@example.com", 1),  # who may be one are two
        ("GUEST", "email", "a@example.com", 1),
    ]


def test_a_second_plan_adds_nothing(harness):
    planned(harness, *of_three())
    harness.plan()
    assert harness.value("SELECT count(*) FROM notifications") == 1


def test_a_notification_becomes_ready_only_when_all_its_orders_are_final(harness):
    planned(harness, *of_three(amount=600_000))
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        claims = ledger.claim(10)
        assert len(claims) == 3
        ledger.record([(claims[0], PAID)])
        assert harness.statuses("notifications") == ["waiting"]
        ledger.record([(claims[1], Outcome("unknown", "x"))])
        assert harness.statuses("notifications") == ["waiting"]
        ledger.record([(claims[2], DECLINED)])
        assert harness.statuses("notifications") == ["waiting"]
        harness.due_now("payments")
        (again,) = ledger.claim(10)
        ledger.record([(again, PAID)])
    assert harness.statuses("notifications") == ["ready"]


@pytest.mark.parametrize("kind", ["unknown", "not_sent"])
def test_a_payment_that_is_not_final_releases_nothing(harness, kind):
    planned(harness, order())
    settle_all(harness, Outcome(kind, "x"))
    assert harness.statuses("notifications") == ["waiting"]


@pytest.mark.parametrize("round_no", range(5))
def test_two_workers_that_settle_the_last_two_payments_at_once_release_the_notification(harness, round_no):
    planned(harness, order(1, amount=600_000), order(2, amount=600_000))
    start = threading.Barrier(2)

    def settle_one(_: int) -> None:
        with harness.working() as worker:
            ledger = harness.ledger(worker)
            claims = ledger.claim(1)
            start.wait(10)
            ledger.record([(claim, PAID) for claim in claims])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(settle_one, range(2)))
    assert harness.statuses("orders") == ["paid", "paid"]
    assert harness.statuses("notifications") == ["ready"]


def test_the_later_of_two_overlapping_transactions_releases_the_notification(harness):
    planned(harness, order(1, amount=600_000), order(2, amount=600_000))
    with harness.working() as worker:
        first, second = harness.ledger(worker).claim(2)
        held, release = threading.Event(), threading.Event()

        def slowly(transaction, payment_ids):
            make_ready(transaction, payment_ids)
            held.set()
            release.wait(10)

        slow = harness.ledger(worker)
        slow._on_settled = slowly
        with ThreadPoolExecutor(2) as pool:
            one = pool.submit(slow.record, [(first, PAID)])
            assert held.wait(10)
            other = pool.submit(harness.ledger(worker).record, [(second, PAID)])
            wait_for_a_blocked_session(harness)
            release.set()
            one.result(10)
            other.result(10)
    assert harness.statuses("notifications") == ["ready"]


def test_two_workers_that_settle_many_shared_notifications_at_once_do_not_deadlock(harness):
    orders = [order(n, customer_code=f"C-{n % 10}", amount=600_000) for n in range(1, 41)]
    planned(harness, *orders)
    start = threading.Barrier(4)

    def settle_some(_: int) -> None:
        with harness.working() as worker:
            ledger = harness.ledger(worker)
            claims = ledger.claim(10)
            start.wait(10)
            ledger.record([(claim, PAID) for claim in claims])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(settle_some, range(4)))
    assert set(harness.statuses("orders")) == {"paid"}
    assert harness.statuses("notifications") == ["ready"] * 10


def test_what_a_crash_left_waiting_is_released_at_the_next_begin_once_its_orders_are_final(harness):
    planned(harness, order())
    with harness.working() as worker:
        ledger = harness.notices(worker)
        for status, is_told in (("pending", "waiting"), ("paying", "waiting"), ("unknown", "waiting"), ("paid", "ready")):
            harness.run("UPDATE orders SET status = %s", status)
            ledger.begin()
            assert harness.statuses("notifications") == [is_told]
        ledger.record([(claim, SENT) for claim in ledger.claim(10)])
        ledger.begin()
    assert harness.statuses("notifications") == ["sent"]


def test_a_message_says_what_became_of_each_order_and_of_the_yen(harness):
    planned(harness, order(1, amount=700_000), order(2, amount=600_000), order(3, amount=500_000))
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.record(
            [(c, DECLINED if c.request.amount == 600_000 else PAID) for c in ledger.claim(10)],
        )
        (claim,) = harness.notices(worker).claim(10)
    message = claim.request
    assert (message.template_id, message.address, message.customer_code) == ("order-digest", "planted@example.com", "C-1")
    assert message.variables == {
        "customer_name": "見本商店",
        "orders": [
            {"client_order_ref": "ORD-0001", "amount": 700_000, "outcome": "paid"},
            {"client_order_ref": "ORD-0002", "amount": 600_000, "outcome": "declined"},
            {"client_order_ref": "ORD-0003", "amount": 500_000, "outcome": "paid"},
        ],
        "order_count": 3,
        "paid_count": 2,
        "paid_amount": 1_200_000,
        "declined_count": 1,
    }
    assert "planted" not in repr(claim)


def test_a_message_names_the_first_items_of_orders_that_have_lines_and_counts_all(harness):
    harness.batch("b1")
    harness.orders(order(1, amount=1000, line_count=2), order(3, amount=700, line_count=7, amount_added=0), order(10))
    items = ", ".join(f"('b1', 3, {row}, 'B-{row}', 1, 100, 100)" for row in range(3, 10))
    harness.run(
        f"INSERT INTO order_lines VALUES ('b1', 1, 1, 'A-1', 2, 300, NULL), ('b1', 1, 2, NULL, 1, NULL, NULL), {items}"
    )
    harness.plan()
    settle_all(harness)
    with harness.working() as worker:
        (claim,) = harness.notices(worker).claim(10)
    first, second, third = claim.request.variables["orders"]
    assert (first["item_count"], first["items"]) == (2, [{"item_code": "A-1", "quantity": 2}, {"quantity": 1}])
    assert (second["item_count"], [each["item_code"] for each in second["items"]]) == (
        7,
        [f"B-{row}" for row in range(3, 8)],
    )
    assert second["items"][0] == {"item_code": "B-3", "quantity": 1, "amount": 100}
    assert third.keys() == {"client_order_ref", "amount", "outcome"}


def test_a_long_digest_names_a_hundred_orders_and_counts_all(harness):
    planned(harness, *(order(n, amount=n) for n in range(1, 151)))
    settle_all(harness)
    with harness.working() as worker:
        (claim,) = harness.notices(worker).claim(10)
    assert len(claim.request.variables["orders"]) == 100
    assert claim.request.variables["order_count"] == 150
    assert claim.request.variables["paid_amount"] == sum(range(1, 151))
    assert len(claim.request.order_refs) == 150


def ready(harness: Harness, count: int = 1) -> None:
    planned(harness, *(order(n, customer_code=f"C-{n:03}") for n in range(1, count + 1)))
    settle_all(harness)


def test_a_waiting_notification_is_not_claimed(harness):
    planned(harness, order())
    with harness.working() as worker:
        assert harness.notices(worker).claim(10) == []
        assert harness.notices(worker).wait_s() is None


def test_what_another_worker_holds_is_waited_for_and_taken_over_when_that_is_lost(harness):
    ready(harness)
    with harness.working() as slow, harness.working() as other:
        harness.notices(slow).claim(10)
        waiting = harness.notices(other)
        assert waiting.claim(10) == []
        assert waiting.wait_s() == pytest.approx(1, abs=0.1)
        harness.give_up(slow)
        assert waiting.wait_s() <= 0.5
        (claim,) = waiting.claim(10)
        waiting.record([(claim, SENT)])
        assert waiting.wait_s() is None


def test_what_a_worker_holds_without_knowing_of_it_is_released_once_it_has_nothing_under_way(harness):
    ready(harness)
    with harness.working() as worker:
        ledger = harness.notices(worker)
        ledger.claim(10)  # as when the answer to the commit was lost
        assert ledger.wait_s() is not None
        assert harness.statuses("notifications") == ["unknown"]


def test_who_waits_gives_nobody_up_whose_session_broke_for_a_moment(harness):
    ready(harness)
    with harness.working() as slow, harness.working() as other:
        held = harness.notices(slow)
        (claim,) = held.claim(10)
        harness.break_session(slow)
        assert harness.notices(other).wait_s() == pytest.approx(1, abs=0.1)
        assert harness.statuses("notifications") == ["sending"]
        held.record([(claim, SENT)])
        assert harness.statuses("notifications") == ["sent"]


def test_claimers_at_the_same_moment_never_share_a_notification(harness):
    ready(harness, 40)
    start = threading.Barrier(4)

    def claim_all(_: int) -> list[str]:
        with harness.working() as worker:
            ledger, mine = harness.notices(worker), []
            start.wait(10)
            while claims := ledger.claim(3):
                mine += [claim.request.notification_id for claim in claims]
        return mine

    with ThreadPoolExecutor(4) as pool:
        taken = [each for mine in pool.map(claim_all, range(4)) for each in mine]
    assert len(taken) == len(set(taken)) == 40


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (SENT, "sent"),
        (Outcome("declined", "invalid-recipient"), "failed"),
        (Outcome("not_sent", "rate-limited"), "ready"),
        (Outcome("unknown", "E_SERVICE_NO_ANSWER"), "unknown"),
    ],
)
def test_what_came_of_a_claim_is_recorded(harness, outcome, status):
    ready(harness)
    with harness.working() as worker:
        ledger = harness.notices(worker)
        claims = ledger.claim(10)
        assert harness.statuses("notifications") == ["sending"]
        ledger.record([(claim, outcome) for claim in claims])
        assert harness.statuses("notifications") == [status]
        harness.due_now("notifications")
        again = ledger.claim(10)
    assert [claim.in_doubt for claim in again] == {"ready": [False], "unknown": [True]}.get(status, [])
    assert harness.value("SELECT settled_at IS NOT NULL FROM notifications") is (status in ("sent", "failed"))


def test_the_same_notification_is_the_same_message_however_often_it_is_claimed(harness):
    ready(harness)
    with harness.working() as worker:
        ledger = harness.notices(worker)
        (first,) = ledger.claim(10)
        ledger.record([(first, Outcome("unknown", "x"))])
        harness.due_now("notifications")
        (second,) = ledger.claim(10)
    assert first.request == second.request
    assert second.attempts == 2


def test_the_services_pause_is_kept(harness):
    ready(harness)
    with harness.working() as worker:
        ledger = harness.notices(worker)
        (claim,) = ledger.claim(10)
        ledger.record([(claim, Outcome("not_sent", "rate-limited", retry_after_s=40.0))])
        assert ledger.claim(10) == []
        assert ledger.wait_s() == pytest.approx(40, abs=2)


@pytest.mark.parametrize("kind", ["not_sent", "unknown"])
def test_n01_a_notification_is_tried_a_limited_number_of_times_in_one_drain_and_anew_in_the_next(harness, kind):
    ready(harness)
    with harness.working() as worker:
        ledger = harness.notices(worker)
        for _ in range(MAX_ATTEMPTS):
            (claim,) = ledger.claim(10)
            ledger.record([(claim, Outcome(kind, "x"))])
            harness.due_now("notifications")
        assert ledger.claim(10) == []
        assert ledger.wait_s() is None
        ledger.begin()
        assert len(ledger.claim(10)) == 1


def test_a_worker_that_was_given_up_writes_nothing_and_its_claim_is_in_doubt_for_the_next(harness):
    ready(harness)
    with harness.working() as slow:
        ledger = harness.notices(slow)
        (claim,) = ledger.claim(10)
        harness.give_up(slow)
        with harness.working() as other:
            harness.notices(other).begin()
            assert harness.statuses("notifications") == ["unknown"]
            ledger.record([(claim, Outcome("declined", "late"))])
            assert harness.statuses("notifications") == ["unknown"]
            (again,) = harness.notices(other).claim(10)
            ledger.record([(claim, SENT)])
            assert harness.statuses("notifications") == ["unknown"]
            assert again.in_doubt
            assert again.request == claim.request
            harness.give_up(other)
        with harness.working() as third:
            harness.notices(third).begin()
            (once_more,) = harness.notices(third).claim(10)
            assert once_more.in_doubt
        slow.given_up.set()
        with pytest.raises(LeaseLost):
            ledger.claim(10)


def test_a_live_workers_claims_are_not_taken_over(harness):
    ready(harness)
    with harness.working() as first, harness.working() as second:
        harness.notices(first).claim(10)
        harness.notices(second).begin()
        assert harness.statuses("notifications") == ["sending"]


def test_n05_a_failed_notification_leaves_its_order_paid(harness):
    ready(harness)
    with harness.working() as worker:
        ledger = harness.notices(worker)
        ledger.record([(claim, Outcome("declined", "invalid-recipient")) for claim in ledger.claim(10)])
    assert (harness.statuses("notifications"), harness.statuses("orders")) == (["failed"], ["paid"])


def test_n06_what_became_of_an_order_between_its_payment_and_its_notification_is_what_the_customer_is_notified_of(harness):
    planned(harness, order(1), order(2, amount=500))
    settle_all(harness)
    harness.run("UPDATE orders SET status = 'refunded' WHERE import_row_number = 2")
    with harness.working() as worker:
        (claim,) = harness.notices(worker).claim(10)
    assert [line["outcome"] for line in claim.request.variables["orders"]] == ["paid", "refunded"]
    assert (claim.request.variables["paid_amount"], claim.request.variables["refunded_amount"]) == (1000, 500)

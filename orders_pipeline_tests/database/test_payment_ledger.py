"""The ledger of payments: planned, claimed, recorded, without a second charge."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.settlement.payments import settle
from orders_pipeline_tests.support.ledgers import CIPHER, order
from orders_pipeline_tests.support.scripted_gateway import (
    KEYED,
    REFUSED,
    ScriptedGateway,
    one_try,
    planned,
)


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


def test_nothing_is_claimed_while_our_ledger_is_not_known_to_be_whole(harness):
    planned(harness)
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        harness.run("UPDATE installation SET stopped_at = now(), stopped_by = 'service'")
        assert ledger.claim(10) == []
        assert ledger.wait_s() is None
        harness.run("UPDATE installation SET stopped_at = NULL, stopped_by = NULL")
        assert len(ledger.claim(10)) == 1


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

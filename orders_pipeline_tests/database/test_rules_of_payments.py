"""The schema's rules of payments and which orders each is for."""

from __future__ import annotations

import pytest

from orders_pipeline_tests.support.ledgers import order
from orders_pipeline_tests.support.schema_rules import breaks, refused_by


@breaks("payments_amount_within_cap")
def test_no_payment_is_above_the_cap(harness):
    orders = harness.orders(order(1, amount=600_000), order(2, amount=400_001))
    with refused_by("payments_amount_within_cap"):
        harness.payment(orders, 1_000_001)
    with refused_by("payments_amount_within_cap"):
        harness.payment([], 0)
    with refused_by("payments_amount_within_cap"):
        harness.run("UPDATE payments SET amount = 1000001 WHERE payment_id = %s", harness.payment(orders[:1], 600_000))


PAYMENTS_THAT_BREAK_A_RULE = [
    ("payments_method_known", {"payment_method": "cash"}),
    ("payments_status_known", {"status": "maybe"}),
    ("payments_settled_has_time", {"status": "succeeded", "service_payment_id": "p"}),
    ("payments_settled_has_time", {"status": "declined"}),
    ("payments_settled_has_time", {"status": "unknown", "settled_at": "2026-07-01"}),
    ("payments_succeeded_has_id", {"status": "succeeded", "settled_at": "2026-07-01"}),
    ("payments_batch_id_fkey", {"batch_id": "nowhere"}),
    ("payments_claimed_by_fkey", {"claimed_by": 999_999}),
]


@breaks(*(name for name, _ in PAYMENTS_THAT_BREAK_A_RULE))
@pytest.mark.parametrize(("name", "changes"), PAYMENTS_THAT_BREAK_A_RULE)
def test_a_payment_that_breaks_a_rule_is_refused_by_its_name(harness, name, changes):
    orders = harness.orders(order())
    with refused_by(name):
        harness.payment(orders, 1000, **changes)
    assert harness.value("SELECT count(*) FROM payments") == 0


@breaks("payments_settled_is_unclaimed")
def test_a_settled_payment_belongs_to_no_worker(harness):
    orders = harness.orders(order())
    with harness.working() as worker, refused_by("payments_settled_is_unclaimed"):
        harness.payment(orders, 1000, status="declined", settled_at="2026-07-01", claimed_by=worker.worker_id)


@breaks("payments_pkey")
def test_a_payment_id_is_used_once(harness):
    orders = harness.orders(order(1), order(2))
    payment_id = harness.payment(orders[:1], 1000)
    with refused_by("payments_pkey"):
        harness.payment(orders[1:], 1000, payment_id=payment_id)


@breaks("payments_are_allocated")
def test_a_payment_without_allocations_does_not_reach_its_commit(harness):
    harness.batch()
    with refused_by("payments_are_allocated"):
        harness.payment([], 1000)
    assert harness.value("SELECT count(*) FROM payments") == 0


@breaks("payment_orders_add_up")
@pytest.mark.parametrize("amount", [999, 1001, 3000])
def test_allocations_that_do_not_add_up_to_their_payment_are_refused(harness, amount):
    orders = harness.orders(order(1), order(2))
    with refused_by("payment_orders_add_up"):
        harness.payment(orders, amount)
    assert harness.value("SELECT count(*) FROM payments") == 0


def test_an_allocation_is_of_the_whole_order(harness):
    first, second = harness.orders(order(1), order(2))
    with harness.connect() as connection, refused_by("payment_orders_add_up"):
        connection.execute(
            "INSERT INTO payments (payment_id, batch_id, customer_code, payment_method, amount)"
            " VALUES ('00000000-0000-4000-8000-000000000001', %s, 'C-1', 'invoice', 2000)",
            [harness.batch_id],
        )
        connection.execute(
            "INSERT INTO payment_orders (payment_id, order_id, amount)"
            " SELECT '00000000-0000-4000-8000-000000000001', * FROM (VALUES (%s::bigint, 1500), (%s::bigint, 500)) AS v",
            [first, second],
        )


def test_an_allocation_is_not_added_to_a_payment_later(harness):
    first, second = harness.orders(order(1), order(2))
    payment_id = harness.payment([first], 1000)
    with refused_by("payment_orders_add_up"):
        harness.run("INSERT INTO payment_orders VALUES (%s, %s, 1000)", payment_id, second)


@breaks("payments_are_allocated")
def test_the_amount_of_a_payment_does_not_leave_its_allocations(harness):
    harness.payment(harness.orders(order()), 1000)
    with refused_by("payments_are_allocated"):
        harness.run("UPDATE payments SET amount = 999")


@breaks("payment_orders_stay")
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE payment_orders SET amount = amount",
        "UPDATE payment_orders SET order_id = order_id",
        "UPDATE payment_orders SET payment_id = payment_id",
        "DELETE FROM payment_orders",
        "TRUNCATE payment_orders",
    ],
)
def test_an_allocation_never_changes(harness, change):
    harness.payment(harness.orders(order()), 1000)
    with refused_by("payment_orders_stay"):
        harness.run(change)
    assert harness.value("SELECT count(*) FROM payment_orders") == 1


@breaks("payment_orders_one_live_payment")
def test_an_order_is_in_one_live_payment_only(harness):
    orders = harness.orders(order())
    harness.payment(orders, 1000)
    with refused_by("payment_orders_one_live_payment"):
        harness.payment(orders, 1000)
    assert harness.value("SELECT count(*) FROM payments") == 1


def test_an_order_of_a_declined_payment_may_be_in_another(harness):
    orders = harness.orders(order())
    declined = harness.payment(orders, 1000, status="declined", settled_at="2026-07-01")
    harness.run("UPDATE payment_orders SET live = false WHERE payment_id = %s", declined)
    harness.payment(orders, 1000)
    with refused_by("payment_orders_one_live_payment"):
        harness.run("UPDATE payment_orders SET live = true WHERE payment_id = %s", declined)


@breaks(
    "payment_orders_amount_positive", "payment_orders_payment_id_fkey", "payment_orders_order_id_fkey", "payment_orders_pkey"
)
def test_an_allocation_is_positive_and_between_what_exists(harness):
    (order_id,) = harness.orders(order())
    payment_id = harness.payment([order_id], 1000)
    insert = "INSERT INTO payment_orders (payment_id, order_id, amount, live) VALUES (%s, %s, %s, false)"
    for values, name in [
        ((payment_id, order_id, 0), "payment_orders_amount_positive"),
        ((payment_id, order_id, 1000), "payment_orders_pkey"),
        (("00000000-0000-4000-8000-000000000009", order_id, 1000), "payment_orders_payment_id_fkey"),
    ]:
        with refused_by(name):
            harness.run(insert, *values)
    with refused_by("payment_orders_order_id_fkey"):
        harness.run("DELETE FROM orders")

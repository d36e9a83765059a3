"""The schema's rules of refunds: never more than was paid, each order once."""

from __future__ import annotations

import uuid

import pytest

from orders_pipeline_tests.support.ledgers import Harness, order
from orders_pipeline_tests.support.schema_rules import breaks, refused_by


def paid_order(harness: Harness, number: int = 1, amount: int = 1000) -> tuple[str, int]:
    """Have a paid order and return its payment and its id."""
    (order_id,) = harness.orders(order(number, amount=amount, status="paid"))
    paid = {"status": "succeeded", "settled_at": "2026-07-01", "service_payment_id": "pay_1"}
    return harness.payment([order_id], amount, **paid), order_id


def insert_refund(harness: Harness, payment_id: str, shares: dict[int, int], **columns: object) -> str:
    """Insert a refund with its share of each order, in one transaction, and return its id."""
    row = {
        "refund_id": str(uuid.uuid4()),
        "payment_id": payment_id,
        "batch_id": harness.batch_id,
        "amount": sum(shares.values()),
        "requested_by": "operator",
        "reason": "returned",
    } | columns
    with harness.connect() as connection:
        places = ", ".join(["%s"] * len(row))
        connection.execute(f"INSERT INTO refunds ({', '.join(row)}) VALUES ({places})".encode(), list(row.values()))
        for order_id, amount in shares.items():
            connection.execute(
                b"INSERT INTO refund_orders (refund_id, order_id, amount) VALUES (%s, %s, %s)",
                [row["refund_id"], order_id, amount],
            )
    return str(row["refund_id"])


REFUNDS_THAT_BREAK_A_RULE = [
    ("refunds_status_known", {"status": "maybe"}),
    ("refunds_settled_has_time", {"status": "succeeded", "service_refund_id": "r"}),
    ("refunds_settled_has_time", {"status": "declined"}),
    ("refunds_settled_has_time", {"status": "unknown", "settled_at": "2026-07-01"}),
    ("refunds_succeeded_has_id", {"status": "succeeded", "settled_at": "2026-07-01"}),
    ("refunds_requested_by_given", {"requested_by": ""}),
    ("refunds_reason_fits", {"reason": ""}),
    ("refunds_reason_fits", {"reason": "x" * 501}),
    ("refunds_amount_within_cap", {"amount": 0}),
    ("refunds_amount_within_cap", {"amount": 1_000_001}),
    ("refunds_batch_id_fkey", {"batch_id": "nowhere"}),
    ("refunds_claimed_by_fkey", {"claimed_by": 999_999}),
    ("refunds_payment_id_fkey", {"payment_id": "00000000-0000-4000-8000-000000000009"}),
]


@breaks(*(name for name, _ in REFUNDS_THAT_BREAK_A_RULE))
@pytest.mark.parametrize(("name", "changes"), REFUNDS_THAT_BREAK_A_RULE)
def test_a_refund_that_breaks_a_rule_is_refused_by_its_name(harness, name, changes):
    payment_id, order_id = paid_order(harness)
    with refused_by(name):
        insert_refund(harness, **{"payment_id": payment_id, "shares": {order_id: 1000}} | changes)
    assert harness.value("SELECT count(*) FROM refunds") == 0


@breaks("refunds_pkey", "refunds_settled_is_unclaimed")
def test_a_refund_id_is_used_once_and_a_settled_refund_belongs_to_no_worker(harness):
    payment_id, order_id = paid_order(harness)
    with harness.working() as worker, refused_by("refunds_settled_is_unclaimed"):
        changes = {"status": "declined", "settled_at": "2026-07-01", "claimed_by": worker.worker_id}
        insert_refund(harness, payment_id, {order_id: 1000}, **changes)
    refund_id = insert_refund(harness, payment_id, {order_id: 1000})
    with refused_by("refunds_pkey"):
        insert_refund(harness, payment_id, {order_id: 1000}, refund_id=refund_id)


@breaks("refunds_within_payment")
def test_no_more_is_refunded_than_was_paid_and_only_what_was_charged_in_the_batch(harness):
    payment_id, order_id = paid_order(harness)
    refund_id = insert_refund(harness, payment_id, {order_id: 1000}, status="declined", settled_at="2026-07-01")
    harness.run("UPDATE refund_orders SET live = false")
    insert_refund(harness, payment_id, {order_id: 1000})
    harness.run("UPDATE refund_orders SET live = false")
    with refused_by("refunds_within_payment"):
        insert_refund(harness, payment_id, {order_id: 1000})
    with refused_by("refunds_within_payment"):
        harness.run("UPDATE refunds SET status = 'planned', settled_at = NULL WHERE refund_id = %s", refund_id)
    (unpaid,) = harness.orders(order(2))
    with refused_by("refunds_within_payment"):
        insert_refund(harness, harness.payment([unpaid], 1000), {unpaid: 1000})
    paid_there, there = paid_order(harness, 3)
    harness.batch("another")
    with refused_by("refunds_within_payment"):
        insert_refund(harness, paid_there, {there: 1000})


@breaks("refunds_are_allocated", "refund_orders_add_up")
def test_what_is_refunded_for_orders_adds_up_and_was_paid_for_them(harness):
    payment_id, order_id = paid_order(harness)
    _, other = paid_order(harness, 2)
    with refused_by("refunds_are_allocated"):
        insert_refund(harness, payment_id, {}, amount=1000)
    for shares, amount in [({order_id: 1000}, 999), ({order_id: 500}, 500), ({other: 1000}, 1000)]:
        with refused_by("refund_orders_add_up"):
            insert_refund(harness, payment_id, shares, amount=amount)
    refund_id = insert_refund(harness, payment_id, {order_id: 1000})
    with refused_by("refund_orders_add_up"):
        harness.run("INSERT INTO refund_orders (refund_id, order_id, amount) VALUES (%s, %s, 1000)", refund_id, other)
    with refused_by("refunds_are_allocated"):
        harness.run("UPDATE refunds SET amount = 999")


@breaks("refund_orders_stay")
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE refund_orders SET amount = amount",
        "UPDATE refund_orders SET order_id = order_id",
        "UPDATE refund_orders SET refund_id = refund_id",
        "DELETE FROM refund_orders",
        "TRUNCATE refund_orders",
    ],
)
def test_which_orders_a_refund_is_for_never_changes(harness, change):
    payment_id, order_id = paid_order(harness)
    insert_refund(harness, payment_id, {order_id: 1000})
    with refused_by("refund_orders_stay"):
        harness.run(change)


@breaks(
    "refund_orders_pkey",
    "refund_orders_one_live_refund",
    "refund_orders_refund_id_fkey",
    "refund_orders_order_id_fkey",
    "refund_orders_correction_id_fkey",
)
def test_an_order_has_one_live_refund_between_what_exists(harness):
    payment_id, order_id = paid_order(harness)
    insert_refund(harness, payment_id, {order_id: 1000}, status="declined", settled_at="2026-07-01")
    with refused_by("refund_orders_one_live_refund"):
        insert_refund(harness, payment_id, {order_id: 1000})
    with refused_by("refund_orders_correction_id_fkey"):
        harness.run("UPDATE refund_orders SET correction_id = gen_random_uuid()")
    insert = "INSERT INTO refund_orders (refund_id, order_id, amount, live) VALUES (%s, %s, 1000, false)"
    refund_id = str(harness.value("SELECT refund_id FROM refunds"))
    for values, name in [
        ((refund_id, order_id), "refund_orders_pkey"),
        (("00000000-0000-4000-8000-000000000009", order_id), "refund_orders_refund_id_fkey"),
    ]:
        with refused_by(name):
            harness.run(insert, *values)
    with harness.connect() as connection, refused_by("refund_orders_order_id_fkey"):
        connection.execute("DROP TRIGGER refund_orders_add_up ON refund_orders")  # an unknown order does not add up either
        connection.execute(insert.encode(), [refund_id, 999_999])

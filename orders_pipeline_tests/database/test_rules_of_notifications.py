"""The schema's rules of notifications: each to somebody, over a channel, about orders."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orders_pipeline_tests.support.ledgers import order
from orders_pipeline_tests.support.schema_rules import breaks, insert_notification, refused_by

NOTIFICATIONS_THAT_BREAK_A_RULE = [
    ("notifications_status_known", {"status": "maybe"}),
    ("notifications_sent_has_id", {"status": "sent"}),
    ("notifications_claimed_by_fkey", {"claimed_by": 999_999}),
    ("notifications_settled_has_time", {"status": "failed"}),
    ("notifications_settled_has_time", {"settled_at": datetime.now(UTC)}),
    ("notifications_settled_is_unclaimed", {"status": "failed", "settled_at": datetime.now(UTC), "claimed_by": 1}),
]


@breaks(*(name for name, _ in NOTIFICATIONS_THAT_BREAK_A_RULE))
@pytest.mark.parametrize(("name", "changes"), NOTIFICATIONS_THAT_BREAK_A_RULE)
def test_a_notification_that_breaks_a_rule_is_refused_by_its_name(harness, name, changes):
    harness.batch()
    with refused_by(name):
        insert_notification(harness, **changes)


@breaks("notifications_channel_known", "notifications_batch_id_fkey", "notifications_pkey")
def test_a_notification_goes_over_a_channel_that_exists_for_a_batch_that_exists(harness):
    harness.batch()
    insert_notification(harness)
    with refused_by("notifications_channel_known"):
        harness.run("UPDATE notifications SET channel = 'none'")
    with refused_by("notifications_batch_id_fkey"):
        harness.run("UPDATE notifications SET batch_id = 'nowhere'")
    with refused_by("notifications_pkey"):
        harness.run("INSERT INTO notifications SELECT * FROM notifications")


@breaks(
    "notification_orders_one_notification",
    "notification_orders_pkey",
    "notification_orders_notification_id_fkey",
    "notification_orders_order_id_fkey",
)
def test_an_order_is_in_one_notification_only(harness):
    (order_id,) = harness.orders(order())
    insert_notification(harness)
    insert_notification(harness, status="ready")
    first, second = [str(row["notification_id"]) for row in harness.run("SELECT notification_id FROM notifications")]
    insert = "INSERT INTO notification_orders VALUES (%s, %s)"
    harness.run(insert, first, order_id)
    for values, name in [
        ((second, order_id), "notification_orders_one_notification"),
        ((first, order_id), "notification_orders_pkey"),
        ((second, 999_999), "notification_orders_order_id_fkey"),
    ]:
        with refused_by(name):
            harness.run(insert, *values)
    with refused_by("notification_orders_notification_id_fkey"):
        harness.run("UPDATE notification_orders SET notification_id = gen_random_uuid()")


@breaks("notifications_kind_known")
def test_a_notification_is_of_a_result_or_a_correction(harness):
    harness.batch()
    insert_notification(harness, kind="correction")
    with refused_by("notifications_kind_known"):
        insert_notification(harness, kind="advertisement")

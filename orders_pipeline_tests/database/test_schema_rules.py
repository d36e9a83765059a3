"""Every rule of the schema by its name: a row that breaks it, and that nothing is left of the try."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import errors

from orders_pipeline.infrastructure.database_errors import ConstraintViolated
from orders_pipeline_tests.support.ledgers import Harness, order

BATCH = (
    "INSERT INTO batches (batch_id, client_code, csv_source, bulk_import_group{columns})"
    " VALUES ('b', 'acme', 'x', 'b'{values})"
)
NOTIFICATION = (
    "INSERT INTO notifications (notification_id, batch_id, customer_code, channel{columns})"
    " VALUES (gen_random_uuid(), %s, 'C-1', 'email'{values})"
)
NOBODYS = "00000000-0000-4000-8000-000000000000"
RULES_WITH_A_TEST: set[str] = set()


@contextmanager
def refused_by(name: str) -> Iterator[None]:
    with pytest.raises(psycopg.IntegrityError) as refusal:
        yield
    assert refusal.value.diag.constraint_name == name


def breaks(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Note which rules a test breaks, so that the last test knows of those that none does."""
    RULES_WITH_A_TEST.update(names)
    return lambda test: test


def insert_batch(harness: Harness, **columns: object) -> None:
    names = "".join(f", {name}" for name in columns)
    harness.run(BATCH.format(columns=names, values=", %s" * len(columns)), *columns.values())


def insert_notification(harness: Harness, **columns: object) -> None:
    names = "".join(f", {name}" for name in columns)
    harness.run(NOTIFICATION.format(columns=names, values=", %s" * len(columns)), harness.batch_id, *columns.values())


@breaks("batches_pkey")
def test_a_batch_id_is_used_once(harness):
    harness.batch("b")
    with refused_by("batches_pkey"):
        insert_batch(harness)


@breaks("batches_status_known")
def test_a_batch_has_no_state_of_its_own_invention(harness):
    with refused_by("batches_status_known"):
        insert_batch(harness, status="done")


@breaks("batches_rows_add_up")
@pytest.mark.parametrize("total", [5, 7])
def test_the_rows_of_a_batch_add_up(harness, total):
    with refused_by("batches_rows_add_up"):
        insert_batch(harness, rows_total=total, rows_accepted=3, rows_rejected=2, rows_blank=1)


@breaks("batches_landing_key")
def test_a_version_of_a_landed_file_is_one_batch(harness):
    insert_batch(harness, landing_key="acme/x", landing_version="v1")
    with refused_by("batches_landing_key"):
        harness.run(
            "INSERT INTO batches (batch_id, client_code, csv_source, bulk_import_group, landing_key, landing_version)"
            " VALUES ('b2', 'acme', 'x', 'b2', 'acme/x', 'v1')"
        )


@breaks("batches_same_bytes")
def test_the_same_bytes_of_a_client_are_one_batch(harness):
    harness.batch("b1")
    harness.batch("b2")
    harness.run("UPDATE batches SET source_sha256 = 'same' WHERE batch_id = 'b1'")
    with refused_by("batches_same_bytes"):
        harness.run("UPDATE batches SET source_sha256 = 'same' WHERE batch_id = 'b2'")
    harness.run("UPDATE batches SET source_sha256 = 'same', duplicate_of = 'b1' WHERE batch_id = 'b2'")


@breaks("batches_duplicate_of_fkey")
def test_a_duplicate_is_of_a_batch_that_exists(harness):
    with refused_by("batches_duplicate_of_fkey"):
        insert_batch(harness, duplicate_of="nowhere")


@breaks("batches_corrects_fkey", "batches_sequence_complete")
def test_a_batch_corrects_one_that_exists_and_has_a_whole_place_in_a_sequence(harness):
    with refused_by("batches_corrects_fkey"):
        insert_batch(harness, corrects="nowhere")
    with refused_by("batches_sequence_complete"):
        insert_batch(harness, sequence_number=1)


@breaks("corrections_pkey", "corrections_batch_id_fkey", "corrections_corrects_fkey", "corrections_of_another_batch")
def test_a_row_corrects_one_row_of_another_batch(harness):
    harness.batch("b1")
    harness.batch("b2")
    insert = "INSERT INTO corrections VALUES (%s, 1, %s, 1)"
    harness.run(insert, "b2", "b1")
    for batch_id, corrects, name in [
        ("b2", "b1", "corrections_pkey"),
        ("nowhere", "b1", "corrections_batch_id_fkey"),
        ("b1", "nowhere", "corrections_corrects_fkey"),
        ("b1", "b1", "corrections_of_another_batch"),
    ]:
        with refused_by(name):
            harness.run(insert, batch_id, corrects)


@breaks("service_breakers_pkey", "service_breakers_open_has_probe")
def test_a_service_has_one_breaker_and_an_open_one_its_next_probe(harness):
    harness.run("INSERT INTO service_breakers (service) VALUES ('payment')")
    with refused_by("service_breakers_pkey"):
        harness.run("INSERT INTO service_breakers (service) VALUES ('payment')")
    with refused_by("service_breakers_open_has_probe"):
        harness.run("UPDATE service_breakers SET opened_at = now()")


@breaks("refusals_pkey", "refusals_batch_id_fkey", "acceptances_pkey", "acceptances_batch_id_fkey")
def test_an_item_is_counted_once_among_the_refused_and_a_kind_once_among_what_was_taken_of_a_batch(harness):
    harness.batch("b")
    refuse = (
        "INSERT INTO refusals (item_id, batch_id, service, kind, customer_code, code)"
        " VALUES ('6a1f7a3e-0000-4000-8000-000000000001', %s, 'payment', 'payment', 'C-1', 'malformed')"
    )
    take = "INSERT INTO acceptances VALUES ('payment', %s, now())"
    for insert, name in (refuse, "refusals"), (take, "acceptances"):
        with refused_by(f"{name}_batch_id_fkey"):
            harness.run(insert, "nowhere")
        harness.run(insert, "b")
        with refused_by(f"{name}_pkey"):
            harness.run(insert, "b")


@breaks("landing_position_pkey")
def test_there_is_one_position_in_the_landing(harness):
    harness.run("INSERT INTO landing_position (after_key) VALUES ('a')")
    with refused_by("landing_position_pkey"):
        harness.run("INSERT INTO landing_position (after_key) VALUES ('b')")


@breaks(
    "resolutions_pkey",
    "resolutions_payment_id_fkey",
    "resolutions_refund_id_fkey",
    "resolutions_decision_known",
    "resolutions_of_what_is_decided",
    "resolutions_decided_by_given",
    "resolutions_reason_given",
)
def test_a_resolution_is_of_a_payment_or_refund_that_exists_by_somebody_and_for_a_reason(harness):
    (order_id,) = harness.orders(order(1))
    amount = harness.value("SELECT amount FROM orders")
    payment_id = harness.payment([order_id], amount)
    insert = "INSERT INTO resolutions (payment_id, refund_id, decision, decided_by, reason) VALUES (%s, %s, %s, %s, %s)"
    harness.run(insert, payment_id, None, "paid", "operator", "found")
    for values, name in [
        ((str(uuid.uuid4()), None, "paid", "operator", "found"), "resolutions_payment_id_fkey"),
        ((None, str(uuid.uuid4()), "refunded", "operator", "found"), "resolutions_refund_id_fkey"),
        ((payment_id, None, "refunded", "operator", "found"), "resolutions_of_what_is_decided"),
        ((None, None, "refunded", "operator", "found"), "resolutions_of_what_is_decided"),
        ((payment_id, None, "perhaps", "operator", "found"), "resolutions_decision_known"),
        ((payment_id, None, "paid", "", "found"), "resolutions_decided_by_given"),
        ((payment_id, None, "paid", "operator", ""), "resolutions_reason_given"),
    ]:
        with refused_by(name):
            harness.run(insert, *values)
    with refused_by("resolutions_pkey"):
        harness.run("INSERT INTO resolutions OVERRIDING SYSTEM VALUE SELECT * FROM resolutions")


@breaks("batch_stages_stage_known", "batch_stages_pkey", "batch_stages_batch_id_fkey")
def test_a_stage_is_known_and_counted_once_for_a_batch_that_exists(harness):
    harness.batch("b")
    insert = "INSERT INTO batch_stages VALUES (%s, %s, 1.0)"
    harness.run(insert, "b", "pay")
    for values, name in [
        (("b", "pay"), "batch_stages_pkey"),
        (("b", "dance"), "batch_stages_stage_known"),
        (("nowhere", "pay"), "batch_stages_batch_id_fkey"),
    ]:
        with refused_by(name):
            harness.run(insert, *values)


@breaks("landing_files_pkey", "landing_files_batch_id_fkey")
def test_the_landing_ledger_holds_a_version_once_and_batches_that_exist(harness):
    insert = "INSERT INTO landing_files (key, version, size, batch_id) VALUES ('k', 'v', 1, %s)"
    with refused_by("landing_files_batch_id_fkey"):
        harness.run(insert, "nowhere")
    harness.run(insert, None)
    with refused_by("landing_files_pkey"):
        harness.run(insert, None)


@breaks("workers_batch_id_fkey", "workers_pkey")
def test_a_worker_works_on_a_batch_that_exists_under_a_number_never_used_again(harness):
    insert = "INSERT INTO workers (batch_id, lease_until) VALUES (%s, now()) RETURNING worker_id"
    with refused_by("workers_batch_id_fkey"):
        harness.run(insert, "nowhere")
    harness.batch("b")
    first = harness.value(insert, "b")
    harness.run("DELETE FROM workers")
    assert harness.value(insert, "b") > first
    with pytest.raises(errors.GeneratedAlways):
        harness.run("INSERT INTO workers (worker_id, batch_id, lease_until) VALUES (1, 'b', now())")
    with refused_by("workers_pkey"):
        harness.run(
            "INSERT INTO workers (worker_id, batch_id, lease_until) OVERRIDING SYSTEM VALUE"
            " SELECT worker_id, batch_id, lease_until FROM workers"
        )


@breaks("service_shares_pkey", "service_shares_worker_id_fkey", "service_shares_held_positive")
def test_a_worker_that_exists_has_one_share_of_the_calls(harness):
    insert = "INSERT INTO service_shares (worker_id, service, wanted, held) VALUES (%s, 'payment', 1, %s)"
    harness.batch("b")
    worker_id = harness.value("INSERT INTO workers (batch_id, lease_until) VALUES ('b', now()) RETURNING worker_id")
    with refused_by("service_shares_held_positive"):
        harness.run(insert, worker_id, -1)
    harness.run(insert, worker_id, 1)
    with refused_by("service_shares_pkey"):
        harness.run(insert, worker_id, 1)
    with refused_by("service_shares_worker_id_fkey"):
        harness.run(insert, worker_id + 1, 1)


@breaks("batches_stopped_by_somebody", "batches_cancelled_by_somebody")
def test_a_batch_is_stopped_and_cancelled_by_somebody_at_some_time(harness):
    harness.batch("b")
    for change, name in [
        ("status = 'stopped'", "batches_stopped_by_somebody"),
        ("stopped_at = now(), stopped_from = 'paying', stopped_by = ''", "batches_stopped_by_somebody"),
        ("cancelled_at = now(), cancelled_by = 'operator', cancelled_why = ''", "batches_cancelled_by_somebody"),
        ("cancelled_at = now(), cancelled_why = 'sent twice', cancelled_by = ''", "batches_cancelled_by_somebody"),
    ]:
        with refused_by(name):
            harness.run(f"UPDATE batches SET {change}")
    harness.run(
        "UPDATE batches SET status = 'stopped', stopped_at = now(), stopped_from = 'paying', stopped_by = 'operator'"
    )
    harness.run("UPDATE batches SET cancelled_at = now(), cancelled_by = 'operator', cancelled_why = 'sent twice'")


@breaks("batches_file_sha256_by_name")
def test_the_digests_of_a_batchs_files_are_listed_by_their_names(harness):
    harness.batch("b")
    with refused_by("batches_file_sha256_by_name"):
        harness.run("UPDATE batches SET file_sha256 = '[]'")


@breaks("batch_locks_pkey", "landing_left_alone_pkey")
@pytest.mark.parametrize(
    ("insert", "name"),
    [
        ("INSERT INTO batch_locks (batch_id, lock_no) VALUES ('b', 1)", "batch_locks_pkey"),
        ("INSERT INTO landing_left_alone (key) VALUES ('acme/notes.txt')", "landing_left_alone_pkey"),
    ],
)
def test_a_batch_has_one_lock_and_a_file_is_left_alone_once(harness, insert, name):
    harness.run(insert)
    with refused_by(name):
        harness.run(insert)


@breaks("batch_summaries_pkey", "batch_summaries_batch_id_fkey")
def test_a_batch_that_exists_has_one_summary(harness):
    insert = "INSERT INTO batch_summaries (batch_id, schema_rank, summary) VALUES (%s, 1, '{}')"
    with refused_by("batch_summaries_batch_id_fkey"):
        harness.run(insert, "nowhere")
    harness.batch("b")
    harness.run(insert, "b")
    with refused_by("batch_summaries_pkey"):
        harness.run(insert, "b")


@breaks("forget_summaries_insert", "forget_summaries_update")
def test_a_summary_is_forgotten_once_anything_of_its_batch_changes(harness):
    harness.batch("b")
    for change in ("INSERT INTO batch_stages VALUES ('b', 'pay', 1.0)", "UPDATE batch_stages SET seconds = 2.0"):
        harness.run("INSERT INTO batch_summaries (batch_id, schema_rank, summary) VALUES ('b', 1, '{}')")
        harness.run(change)
        assert harness.value("SELECT count(*) FROM batch_summaries") == 0


@breaks("given_up_references_pkey", "given_up_references_batch_id_fkey")
def test_a_row_of_a_batch_that_exists_gives_up_a_reference_once(harness):
    insert = (
        "INSERT INTO given_up_references (batch_id, import_row_number, client_code, reference) VALUES (%s, 1, 'acme', 'r-1')"
    )
    with refused_by("given_up_references_batch_id_fkey"):
        harness.run(insert, "nowhere")
    harness.batch("b")
    harness.run(insert, "b")
    with refused_by("given_up_references_pkey"):
        harness.run(insert, "b")


ORDERS_THAT_BREAK_A_RULE = [
    ("orders_import_row_number_positive", {"import_row_number": 0}),
    ("orders_client_order_ref_format", {"client_order_ref": ""}),
    ("orders_client_order_ref_format", {"client_order_ref": "注文1"}),
    ("orders_client_order_ref_format", {"client_order_ref": "a b"}),
    ("orders_client_order_ref_format", {"client_order_ref": "a\n"}),
    ("orders_client_order_ref_format", {"client_order_ref": "x" * 65}),
    ("orders_amount_in_range", {"amount": 0}),
    ("orders_amount_in_range", {"amount": -1}),
    ("orders_amount_in_range", {"amount": 1_000_001}),
    ("orders_item_complete", {"item_code": "I-1"}),
    ("orders_item_complete", {"quantity": 1, "unit_price": 1000}),
    ("orders_item_amount", {"item_code": "I-1", "quantity": 2, "unit_price": 501}),
    ("orders_payment_method_known", {"payment_method": "cash"}),
    ("orders_notify_channel_known", {"notify_channel": "fax"}),
    ("orders_status_known", {"status": "lost"}),
]
RULES_WITH_A_TEST.update(name for name, _ in ORDERS_THAT_BREAK_A_RULE)


@pytest.mark.parametrize(("name", "changes"), ORDERS_THAT_BREAK_A_RULE)
def test_an_order_that_breaks_a_rule_is_refused_by_its_name(harness, name, changes):
    with refused_by(name):
        harness.orders(order(**changes))
    assert harness.value("SELECT count(*) FROM orders") == 0


@pytest.mark.parametrize("column", ["customer_code", "amount", "payment_method", "notify_channel", "client_order_ref"])
def test_an_order_lacks_nothing_that_is_required(harness, column):
    with pytest.raises(errors.NotNullViolation):
        harness.orders(order(**{column: None}))


@breaks("orders_batch_row_key", "orders_pkey", "orders_batch_id_fkey")
def test_a_row_of_a_batch_is_one_order(harness):
    (order_id,) = harness.orders(order(1))
    with refused_by("orders_batch_row_key"):
        harness.orders(order(1, client_order_ref="other"))
    copied = (
        "batch_id, csv_source, bulk_import_group, client_code,"
        " customer_code, amount, payment_method, notify_channel, personal"
    )
    with refused_by("orders_pkey"):
        harness.run(
            f"INSERT INTO orders (order_id, import_row_number, client_order_ref, {copied}) OVERRIDING SYSTEM VALUE"
            f" SELECT order_id, 2, 'other', {copied} FROM orders WHERE order_id = %s",
            order_id,
        )
    with refused_by("orders_batch_id_fkey"):
        harness.run("UPDATE orders SET batch_id = 'nowhere'")


@breaks("orders_client_order_ref_key")
def test_a_reference_is_used_once_per_client_for_ever_whatever_its_case(harness):
    harness.batch("b1")
    harness.orders(order(client_order_ref="Ref-a"))
    harness.batch("b2")
    with refused_by("orders_client_order_ref_key"):
        harness.orders(order(client_order_ref="REF-A"))
    harness.batch("b3", client="other")
    harness.orders(order(client_order_ref="REF-A"))


@breaks("rejections_code_format", "rejections_have_batches_insert", "rejections_have_batches_update", "rejections_pkey")
def test_a_rejection_has_a_code_and_a_batch_that_exists(harness):
    harness.batch("b")
    insert = "INSERT INTO rejections (batch_id, code) VALUES (%s, %s)"
    for code in ("amount wrong", "X_AMOUNT", "R_", "R_amount", ""):
        with refused_by("rejections_code_format"):
            harness.run(insert, "b", code)
    with refused_by("rejections_have_batches_insert"):
        harness.run(insert, "nowhere", "R_AMOUNT")
    harness.run(insert, "b", "R_AMOUNT")
    with refused_by("rejections_have_batches_update"):
        harness.run("UPDATE rejections SET batch_id = 'nowhere'")
    with refused_by("rejections_pkey"):
        harness.run(
            "INSERT INTO rejections (rejection_id, batch_id, code) OVERRIDING SYSTEM VALUE"
            " SELECT rejection_id, batch_id, code FROM rejections"
        )


@breaks("loaded_chunks_pkey", "loaded_chunks_batch_id_fkey")
def test_a_chunk_is_loaded_once_into_a_batch_that_exists(harness):
    harness.batch("b")
    harness.run("INSERT INTO loaded_chunks VALUES ('b', 1, 10)")
    with refused_by("loaded_chunks_pkey"):
        harness.run("INSERT INTO loaded_chunks VALUES ('b', 1, 10)")
    with refused_by("loaded_chunks_batch_id_fkey"):
        harness.run("INSERT INTO loaded_chunks VALUES ('nowhere', 1, 10)")


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
RULES_WITH_A_TEST.update(name for name, _ in PAYMENTS_THAT_BREAK_A_RULE)


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


NOTIFICATIONS_THAT_BREAK_A_RULE = [
    ("notifications_status_known", {"status": "maybe"}),
    ("notifications_sent_has_id", {"status": "sent"}),
    ("notifications_claimed_by_fkey", {"claimed_by": 999_999}),
    ("notifications_settled_has_time", {"status": "failed"}),
    ("notifications_settled_has_time", {"settled_at": datetime.now(UTC)}),
    ("notifications_settled_is_unclaimed", {"status": "failed", "settled_at": datetime.now(UTC), "claimed_by": 1}),
]
RULES_WITH_A_TEST.update(name for name, _ in NOTIFICATIONS_THAT_BREAK_A_RULE)


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


@breaks("rate_tokens_pkey")
def test_a_token_exists_once(harness):
    harness.run("INSERT INTO rate_tokens VALUES ('s', 1, now())")
    with refused_by("rate_tokens_pkey"):
        harness.run("INSERT INTO rate_tokens VALUES ('s', 1, now())")


def closable_batch(harness: Harness, status: str = "paid") -> str:
    batch_id = harness.batch(status="paying")
    harness.orders(order(status=status))
    harness.run("UPDATE batches SET rows_total = 1, rows_accepted = 1, rows_rejected = 0, rows_blank = 0")
    return batch_id


@breaks("batches_completed_are_closed")
@pytest.mark.parametrize("ending", ["completed", "completed_with_errors"])
@pytest.mark.parametrize("status", ["pending", "paying", "unknown"])
def test_a_batch_with_an_open_order_is_not_completed(harness, ending, status):
    closable_batch(harness, status)
    with refused_by("batches_completed_are_closed"):
        harness.run("UPDATE batches SET status = %s", ending)


@pytest.mark.parametrize("status", ["paid", "declined", "refunded"])
def test_a_batch_whose_orders_are_all_final_is_completed(harness, status):
    closable_batch(harness, status)
    harness.run("UPDATE batches SET status = 'completed'")


@pytest.mark.parametrize("status", ["waiting", "ready", "sending", "unknown"])
def test_a_batch_with_an_open_notification_is_not_completed(harness, status):
    closable_batch(harness)
    insert_notification(harness, status=status)
    with refused_by("batches_completed_are_closed"):
        harness.run("UPDATE batches SET status = 'completed'")


@pytest.mark.parametrize(("accepted", "rejected"), [(2, 0), (0, 1)])
def test_a_batch_with_another_number_of_orders_than_accepted_rows_is_not_completed(harness, accepted, rejected):
    closable_batch(harness)
    harness.run(
        "UPDATE batches SET rows_total = %s, rows_accepted = %s, rows_rejected = %s", accepted + rejected, accepted, rejected
    )
    with refused_by("batches_completed_are_closed"):
        harness.run("UPDATE batches SET status = 'completed'")


def test_a_batch_that_was_never_counted_is_not_completed(harness):
    harness.batch(status="paying")
    with refused_by("batches_completed_are_closed"):
        harness.run("UPDATE batches SET status = 'completed'")
    with refused_by("batches_completed_are_closed"):
        insert_batch(harness, status="completed")


FINDING = (
    "INSERT INTO reconciliation_findings (code, service_payment_id, batch_id, closed_at, closed_how,"
    " detail, compared_from, compared_to, first_seen_at, last_seen_at)"
    " VALUES (%s, %s, %s, %s, %s, '{}', now(), now(), now(), now())"
)
FINDINGS_THAT_BREAK_A_RULE = [
    ("reconciliation_findings_code_known", ("C_STRANGE", "p", None, None, None)),
    ("reconciliation_findings_about_a_payment", ("C_MISSING_HERE", None, None, None, None)),
    ("reconciliation_findings_batch_id_fkey", ("C_MISSING_HERE", "p", "nowhere", None, None)),
    ("reconciliation_findings_closed_how_known", ("C_MISSING_HERE", "p", None, "2026-07-01", "forgotten")),
    ("reconciliation_findings_closed_somehow", ("C_MISSING_HERE", "p", None, "2026-07-01", None)),
    ("reconciliation_findings_closed_somehow", ("C_MISSING_HERE", "p", None, None, "gone")),
]
RULES_WITH_A_TEST.update(name for name, _ in FINDINGS_THAT_BREAK_A_RULE)


@pytest.mark.parametrize(("name", "values"), FINDINGS_THAT_BREAK_A_RULE)
def test_a_finding_that_breaks_a_rule_is_refused_by_its_name(harness, name, values):
    with refused_by(name):
        harness.run(FINDING, *values)


@breaks("reconciliation_findings_one_open", "reconciliation_findings_pkey")
def test_a_difference_is_one_open_finding(harness):
    harness.run(FINDING, "C_MISSING_HERE", "p", None, "2026-07-01", "gone")
    harness.run(FINDING, "C_MISSING_HERE", "p", None, None, None)
    with refused_by("reconciliation_findings_one_open"):
        harness.run(FINDING, "C_MISSING_HERE", "p", None, None, None)
    harness.run(FINDING, "C_CHARGED_TWICE", "p", None, None, None)
    with refused_by("reconciliation_findings_pkey"):
        harness.run("INSERT INTO reconciliation_findings OVERRIDING SYSTEM VALUE SELECT * FROM reconciliation_findings")


@breaks("reconciliation_findings_accepted_by_somebody")
@pytest.mark.parametrize("accepted", ["accepted_at = now()", "accepted_by = 'ops', accepted_why = 'so'"])
def test_a_finding_is_accepted_at_a_time_by_somebody_for_a_reason(harness, accepted):
    harness.run(FINDING, "C_MISSING_HERE", "p", None, None, None)
    with refused_by("reconciliation_findings_accepted_by_somebody"):
        harness.run(f"UPDATE reconciliation_findings SET {accepted}")


@breaks("batch_closings_pkey", "batch_closings_batch_id_fkey", "batch_closings_agree")
def test_a_closing_record_is_of_a_batch_that_exists_and_agrees_or_says_what_differs(harness):
    harness.batch("b")
    insert = (
        "INSERT INTO batch_closings (batch_id, orders_paid, orders_declined, amount_paid, amount_declined,"
        " amount_at_service, differences, figures_sha256) VALUES (%s, 1, 0, 1000, 0, %s, %s, 'x')"
    )
    harness.run(insert, "b", 1000, [])
    harness.run(insert, "b", 999, ["C_AMOUNT_DIFFERS"])
    with refused_by("batch_closings_agree"):
        harness.run(insert, "b", 999, [])
    with refused_by("batch_closings_batch_id_fkey"):
        harness.run(insert, "nowhere", 1000, [])
    with refused_by("batch_closings_pkey"):
        harness.run("INSERT INTO batch_closings OVERRIDING SYSTEM VALUE SELECT * FROM batch_closings")


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
RULES_WITH_A_TEST.update(name for name, _ in REFUNDS_THAT_BREAK_A_RULE)


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
def test_no_more_is_given_back_than_was_paid_and_only_what_was_charged_in_the_batch(harness):
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
def test_what_a_refund_gives_back_for_its_orders_adds_up_and_was_paid_for_them(harness):
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


@breaks("notifications_kind_known")
def test_a_notification_tells_a_result_or_a_correction(harness):
    harness.batch()
    insert_notification(harness, kind="correction")
    with refused_by("notifications_kind_known"):
        insert_notification(harness, kind="advertisement")


@breaks("flyway_schema_history_pk")
def test_a_migration_has_a_rank_of_its_own(harness):
    with refused_by("flyway_schema_history_pk"):
        harness.run("INSERT INTO flyway_schema_history SELECT * FROM flyway_schema_history")


def test_every_table_and_view_says_what_it_is_and_every_column_whose_type_says_nothing_what_it_holds(harness):
    silent = harness.run(
        "SELECT concat_ws('.', relname, attname) AS name FROM pg_class LEFT JOIN pg_attribute"
        " ON attrelid = pg_class.oid AND attnum > 0 AND relkind = 'r' AND NOT attisdropped"
        " AND atttypid = ANY ('{json,jsonb,bytea,interval,text[],double precision}'::regtype[])"
        " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') AND relname <> 'flyway_schema_history'"
        " AND (obj_description(pg_class.oid, 'pg_class') IS NULL"
        "      OR attnum IS NOT NULL AND col_description(attrelid, attnum) IS NULL)"
    )
    assert [row["name"] for row in silent] == []


def test_the_name_of_a_broken_rule_is_all_that_our_error_says(harness):
    harness.orders(order(client_order_ref="planted-ref"))
    with pytest.raises(ConstraintViolated) as refusal, harness.database.begin() as transaction:
        transaction.execute(
            "insert_batch",
            batch_id="other",
            client_code="planted",
            csv_source=None,
            landing_key=None,
            landing_version=None,
            source_sha256=None,
            source_bytes=None,
            again_no=0,
            via="landing",
            submitted_by=None,
        )
    assert refusal.value.sqlstate == "23502"
    harness.batch("third")
    with pytest.raises(ConstraintViolated) as refusal, harness.database.begin() as transaction:
        transaction.execute("start_worker", batch_id="planted", run_id=None, lease_s=1, lock_class=1)
    assert refusal.value.constraint == "workers_batch_id_fkey"
    assert str(refusal.value) == "E_CONSTRAINT: workers_batch_id_fkey"
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


@breaks("installation_pkey", "installation_one")
def test_a_database_is_of_one_installation(harness):
    for name, one in (("installation_pkey", True), ("installation_one", False)):
        with refused_by(name):
            harness.run("INSERT INTO installation (one) VALUES (%s)", one)


@breaks("installation_stopped_by_known", "installation_stopped_by_something", "installation_unread_for_a_reason")
def test_what_stopped_paying_is_known(harness):
    with refused_by("installation_stopped_by_known"):
        harness.run("UPDATE installation SET stopped_at = now(), stopped_by = 'somebody'")
    with refused_by("installation_stopped_by_something"):
        harness.run("UPDATE installation SET stopped_at = now()")
    with refused_by("installation_unread_for_a_reason"):
        harness.run("UPDATE installation SET unread_since = now()")


@breaks("installation_is_written")
def test_an_installation_is_written_by_the_transaction_that_says_so(harness):
    harness.run("UPDATE installation SET written_by = '1'")
    assert harness.value("SELECT CAST(xmin AS text) = CAST(CAST(written_by AS xid) AS text) FROM installation")


@breaks("known_profiles_pkey", "known_keys_pkey")
def test_a_profile_and_a_key_are_known_once(harness):
    for name, insert in (
        ("known_profiles_pkey", "INSERT INTO known_profiles VALUES ('acme', '{}')"),
        ("known_keys_pkey", "INSERT INTO known_keys VALUES ('k1', 'print', false)"),
    ):
        harness.run(insert)
        with refused_by(name):
            harness.run(insert)


@breaks("api_tokens_pkey", "api_tokens_secret_hashed", "api_tokens_scopes_known", "api_tokens_expire_in_time")
def test_a_token_is_hashed_expires_and_may_do_only_what_there_is(harness):
    insert = (
        "INSERT INTO api_tokens (token_id, client_code, name, scopes, secret_sha256, created_by, expires_at)"
        " VALUES ('t', 'acme', 'x', CAST(%s AS text[]), sha256(%s), 'me', now() + make_interval(days => %s))"
    )
    harness.run(insert, ["page"], b"", 400)
    with refused_by("api_tokens_pkey"):
        harness.run(insert, ["page"], b"", 400)
    for scopes, days, name in (
        (["batches:all"], 1, "api_tokens_scopes_known"),
        ([], 1, "api_tokens_scopes_known"),
        (["page"], 402, "api_tokens_expire_in_time"),
    ):
        with refused_by(name):
            harness.run(insert.replace("'t'", "'u'"), scopes, b"", days)
    with refused_by("api_tokens_secret_hashed"):
        harness.run("UPDATE api_tokens SET secret_sha256 = 'plain'")


@breaks("api_tokens_of_a_client_or_an_operator")
def test_a_token_is_of_a_client_or_an_operator(harness):
    insert = (
        "INSERT INTO api_tokens (token_id, client_code, name, scopes, secret_sha256, created_by, expires_at)"
        " VALUES (%s, %s, 'x', CAST(%s AS text[]), sha256(''), 'me', now())"
    )
    harness.run(insert, "t", None, ["operator", "page"])
    for client_code, scopes in ((None, ["page"]), ("acme", ["operator"])):
        with refused_by("api_tokens_of_a_client_or_an_operator"):
            harness.run(insert, "u", client_code, scopes)


@breaks(
    "api_sessions_pkey",
    "api_sessions_secret_hashed",
    "api_sessions_token_id_fkey",
    "api_sessions_scopes_some",
    "api_sessions_of_a_client_or_an_operator",
)
def test_a_session_is_hashed_and_of_somebody_who_may_do_something(harness):
    insert = (
        "INSERT INTO api_sessions (session_sha256, token_id, client_code, actor, scopes)"
        " VALUES (%s, %s, %s, 'somebody', CAST(%s AS text[]))"
    )
    harness.run(insert, b"0" * 32, None, "acme", ["page"])
    for session_sha256, token_id, client_code, scopes, name in (
        (b"0" * 32, None, "acme", ["page"], "api_sessions_pkey"),
        (b"plain", None, "acme", ["page"], "api_sessions_secret_hashed"),
        (b"1" * 32, "none", "acme", ["page"], "api_sessions_token_id_fkey"),
        (b"1" * 32, None, "acme", [], "api_sessions_scopes_some"),
        (b"1" * 32, None, None, ["page"], "api_sessions_of_a_client_or_an_operator"),
        (b"1" * 32, None, "acme", ["operator"], "api_sessions_of_a_client_or_an_operator"),
    ):
        with refused_by(name):
            harness.run(insert, session_sha256, token_id, client_code, scopes)


@breaks("api_requests_pkey", "api_requests_batch_id_fkey")
def test_a_request_made_one_batch(harness):
    harness.batch("b")
    insert = "INSERT INTO api_requests (client_code, key_sha256, fingerprint, batch_id) VALUES ('acme', sha256(''), '', %s)"
    harness.run(insert, "b")
    with refused_by("api_requests_pkey"):
        harness.run(insert, "b")
    with refused_by("api_requests_batch_id_fkey"):
        harness.run(insert.replace("acme", "shop"), "nowhere")


@breaks(
    "refund_requests_pkey",
    "refund_requests_batch_id_fkey",
    "refund_requests_requested_by_given",
    "refunds_request_id_fkey",
    "api_requests_request_id_fkey",
)
def test_a_request_for_refunds_is_somebodys_about_a_batch(harness):
    harness.batch("b")
    insert = "INSERT INTO refund_requests (request_id, batch_id, requested_by) VALUES (%s, %s, %s)"
    harness.run(insert, NOBODYS, "b", "operator")
    for name, *values in (
        ("refund_requests_pkey", NOBODYS, "b", "operator"),
        ("refund_requests_batch_id_fkey", str(uuid.uuid4()), "nowhere", "operator"),
        ("refund_requests_requested_by_given", str(uuid.uuid4()), "b", ""),
    ):
        with refused_by(name):
            harness.run(insert, *values)
    with refused_by("api_requests_request_id_fkey"):
        harness.run(
            "INSERT INTO api_requests (client_code, key_sha256, fingerprint, batch_id, request_id)"
            " VALUES ('acme', sha256(''), '', 'b', gen_random_uuid())"
        )
    (order_id,) = harness.orders(order(1), batch_id="b")
    harness.batch_id = "b"
    payment = harness.payment([order_id], 1000, status="succeeded", service_payment_id="p", settled_at=datetime.now(UTC))
    with refused_by("refunds_request_id_fkey"), harness.connect() as connection:
        connection.execute(
            "INSERT INTO refunds (refund_id, payment_id, batch_id, amount, requested_by, reason, request_id)"
            " VALUES (%(id)s, %(payment)s, 'b', 1000, 'operator', 'returned', gen_random_uuid())",
            {"id": NOBODYS, "payment": payment},
        )


@breaks(
    "webhook_deliveries_pkey",
    "webhook_deliveries_batch_id_fkey",
    "webhook_deliveries_request_id_fkey",
    "webhook_deliveries_status_known",
    "webhook_deliveries_settled_has_time",
    "webhook_deliveries_settled_is_unleased",
    "webhooks_off_pkey",
    "webhooks_follow_batches",
    "webhooks_follow_refunds",
)
def test_a_webhook_is_about_something_and_settled_or_not(harness):
    harness.batch("b")
    values = {"delivery_id": NOBODYS, "client_code": "acme", "type": "batch.completed", "batch_id": "b", "status_then": "x"}

    def insert(**changes: object) -> None:
        row = values | changes
        harness.run(
            f"INSERT INTO webhook_deliveries ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})", *row.values()
        )

    insert()
    own, now = str(uuid.uuid4()), datetime.now(UTC)
    for name, changes in (
        ("webhook_deliveries_pkey", {}),
        ("webhook_deliveries_batch_id_fkey", {"delivery_id": own, "batch_id": "nowhere"}),
        ("webhook_deliveries_request_id_fkey", {"delivery_id": own, "request_id": NOBODYS}),
        ("webhook_deliveries_status_known", {"delivery_id": own, "status": "lost", "settled_at": now}),
        ("webhook_deliveries_settled_has_time", {"delivery_id": own, "status": "delivered"}),
        (
            "webhook_deliveries_settled_is_unleased",
            {"delivery_id": own, "status": "failed", "settled_at": now, "leased_until": now},
        ),
    ):
        with refused_by(name):
            insert(**changes)
    off = "INSERT INTO webhooks_off (client_code, webhook_url) VALUES ('acme', 'https://example.com')"
    harness.run(off)
    with refused_by("webhooks_off_pkey"):
        harness.run(off)
    for name in ("webhooks_follow_batches", "webhooks_follow_refunds"):  # what they plan: test_webhooks.py
        assert harness.value("SELECT count(*) FROM pg_trigger WHERE tgname = %s", name) == 1


@breaks("batches_via_known", "batches_submitted_by_somebody")
def test_a_batch_came_in_by_a_known_way_and_through_the_api_by_somebody(harness):
    with refused_by("batches_via_known"):
        insert_batch(harness, via="post")
    for nobody in (None, ""):
        with refused_by("batches_submitted_by_somebody"):
            insert_batch(harness, via="api", submitted_by=nobody)


def wait_for_approval(harness: Harness) -> None:
    """Have a batch of two orders that needs approval, and waits for it."""
    harness.batch("b")
    harness.orders(order(1, customer_code="C-1"), order(2, customer_code="C-2"))
    harness.run(
        "UPDATE batches SET rows_total = 2, rows_accepted = 2, rows_rejected = 0, rows_blank = 0, amount_accepted = 2000,"
        " approval_above = 1999, submitted_by = 'sender', approval_requested_at = now(), status = 'awaiting_approval'"
    )


DECIDE = (
    "UPDATE batches SET status = 'loaded', approval_decision = %s, approval_decided_by = %s, approval_decided_at = now()"
    " WHERE batch_id = 'b'"
)


@breaks(
    "batches_approval_above_some_yen",
    "batches_approval_decision_known",
    "batches_approval_decided_by_somebody",
    "batches_approval_by_another",
    "batches_approval_awaited",
)
def test_a_batch_is_approved_or_refused_by_somebody_else_than_who_sent_it_once_it_waits(harness):
    with refused_by("batches_approval_above_some_yen"):
        insert_batch(harness, approval_above=-1)
    for asked in ({}, {"approval_requested_at": datetime.now(UTC)}):
        with refused_by("batches_approval_awaited"):
            insert_batch(harness, status="awaiting_approval", **asked)
    with refused_by("batches_approval_decided_by_somebody"):
        insert_batch(harness, approval_decision="approved", approval_decided_by="x", approval_decided_at=datetime.now(UTC))
    wait_for_approval(harness)
    for decision, by, name in [
        ("perhaps", "approver", "batches_approval_decision_known"),
        ("approved", "", "batches_approval_decided_by_somebody"),
        ("approved", "sender", "batches_approval_by_another"),
        ("refused", "sender", "batches_approval_by_another"),
    ]:
        with refused_by(name):
            harness.run(DECIDE, decision, by)
    harness.run(DECIDE, "approved", "approver")


@breaks("batches_settled_once_approved")
@pytest.mark.parametrize("status", ["paying", "paused", "completed", "completed_with_errors"])
def test_a_batch_that_nobody_has_approved_is_not_settled(harness, status):
    wait_for_approval(harness)
    harness.run("UPDATE orders SET status = 'paid'")
    with refused_by("batches_settled_once_approved"):
        harness.run("UPDATE batches SET status = %s", status)
    harness.run(DECIDE, "refused", "approver")
    with refused_by("batches_settled_once_approved"):
        harness.run("UPDATE batches SET status = %s", status)


@breaks("batches_approval_is_bound")
def test_what_waits_for_approval_and_what_was_said_of_it_never_change(harness):
    wait_for_approval(harness)
    changes = [
        "rows_accepted = 1, rows_rejected = 1",
        "amount_accepted = 1",
        "approval_above = NULL",
        "approval_requested_at = NULL",
        "submitted_by = NULL",
    ]
    for change in changes:
        with refused_by("batches_approval_is_bound"):
            harness.run(f"UPDATE batches SET {change}, status = 'loaded'")
    harness.run(DECIDE, "refused", "approver")
    for change in (*changes, "approval_decision = 'approved'", "approval_decided_by = 'another'"):
        with refused_by("batches_approval_is_bound"):
            harness.run(f"UPDATE batches SET {change}")


@breaks("payments_claimed_are_approved")
def test_nothing_is_claimed_of_a_batch_that_nobody_has_approved_but_what_may_have_been_charged_once_it_is_cancelled(harness):
    wait_for_approval(harness)
    harness.plan()  # as after a restore, to find what was charged before
    with harness.working() as worker:
        harness.run("UPDATE payments SET status = 'unknown', sent_at = now() WHERE customer_code = 'C-2'")
        for status in ("awaiting_approval", "loaded", "cancelling"):
            harness.run("UPDATE batches SET status = %s", status)
            with refused_by("payments_claimed_are_approved"):
                harness.run("UPDATE payments SET status = 'sending', claimed_by = %s", worker.worker_id)
            if status != "cancelling":
                with refused_by("payments_claimed_are_approved"):
                    harness.run("UPDATE payments SET claimed_by = %s WHERE status = 'unknown'", worker.worker_id)
                with pytest.raises(ConstraintViolated, match="payments_claimed_are_approved"):
                    harness.ledger(worker).claim(1)
        harness.run("UPDATE payments SET claimed_by = %s WHERE status = 'unknown'", worker.worker_id)
        harness.run("UPDATE payments SET claimed_by = NULL")
        harness.run(DECIDE, "approved", "approver")
        assert len(harness.ledger(worker).claim(9)) == 2


@breaks("payments_are_of_what_was_approved")
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE orders SET amount = 999 WHERE import_row_number = 1",
        "DELETE FROM orders WHERE import_row_number = 1",
        "UPDATE orders SET batch_id = 'b2' WHERE import_row_number = 1",
    ],
)
def test_other_orders_than_were_approved_are_not_planned(harness, change):
    harness.batch("b2")
    wait_for_approval(harness)
    harness.run(DECIDE, "approved", "approver")
    harness.run(change)
    with pytest.raises(ConstraintViolated, match="payments_are_of_what_was_approved"):
        harness.plan()


def test_every_rule_of_the_schema_has_a_test_that_breaks_it(harness):
    constraints = harness.run(
        "SELECT conname AS name FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'"
    )
    indexes = harness.run(
        "SELECT relname AS name FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
        " WHERE indisunique AND relnamespace = 'public'::regnamespace"
    )
    triggers = harness.run("SELECT tgname AS name FROM pg_trigger WHERE NOT tgisinternal")
    names = {row["name"] for row in (*constraints, *indexes, *triggers)}
    elsewhere = ("audit_", "retention_", "legal_holds_", "dagster_retention_")  # test_audit.py and test_retention.py
    assert sorted({name for name in names if not name.startswith(elsewhere)} ^ RULES_WITH_A_TEST) == []

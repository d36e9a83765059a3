"""The schema's rules of orders, rejections, references and loaded chunks."""

from __future__ import annotations

import pytest
from psycopg import errors

from orders_pipeline_tests.support.ledgers import order
from orders_pipeline_tests.support.schema_rules import breaks, refused_by

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


@breaks(*(name for name, _ in ORDERS_THAT_BREAK_A_RULE))
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

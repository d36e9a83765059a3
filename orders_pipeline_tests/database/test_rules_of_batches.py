"""The schema's rules of batches: their states, files, corrections, endings, and what is noted beside them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orders_pipeline_tests.support.ledgers import Harness, order
from orders_pipeline_tests.support.schema_rules import breaks, insert_batch, insert_notification, refused_by


def closable_batch(harness: Harness, status: str = "paid") -> str:
    batch_id = harness.batch(status="paying")
    harness.orders(order(status=status))
    harness.run("UPDATE batches SET rows_total = 1, rows_accepted = 1, rows_rejected = 0, rows_blank = 0")
    return batch_id


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


@breaks("batches_rows_skipped_some")
def test_no_fewer_than_no_rows_are_skipped(harness):
    with refused_by("batches_rows_skipped_some"):
        insert_batch(harness, rows_skipped=-1)


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


@breaks("batches_via_known", "batches_submitted_by_somebody")
def test_a_batch_came_in_by_a_known_way_and_through_the_api_by_somebody(harness):
    with refused_by("batches_via_known"):
        insert_batch(harness, via="post")
    for nobody in (None, ""):
        with refused_by("batches_submitted_by_somebody"):
            insert_batch(harness, via="api", submitted_by=nobody)


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


@breaks("totals_pkey", "totals_follow_batches")
def test_what_a_batch_came_to_is_added_to_the_totals_when_it_finishes_and_never_again(harness):
    figures = "SELECT measure, state, amount FROM totals ORDER BY 1, 2"
    for number, batch_id in enumerate(("b", "c"), 1):
        harness.batch(batch_id)
        order_ids = harness.orders(order(1, client_order_ref=f"ORD-{number}"))
        harness.payment(order_ids, 1000, status="succeeded", service_payment_id="p", settled_at=datetime.now(UTC))
        harness.run("UPDATE orders SET status = 'paid' WHERE order_id = ANY(%s)", order_ids)
        counted = "rows_total = 4, rows_accepted = 1, rows_rejected = 2, rows_blank = 1"
        harness.run(f"UPDATE batches SET {counted} WHERE batch_id = %s", batch_id)
        harness.run("UPDATE batches SET status = 'completed', finished_at = now() WHERE batch_id = %s", batch_id)
        harness.run("UPDATE batches SET status = 'completed_with_errors' WHERE batch_id = %s", batch_id)
        assert [tuple(row.values()) for row in harness.run(figures)] == [
            ("batches", "completed", number),
            ("payments", "succeeded", number),
            ("rows", "accepted", number),
            ("rows", "blank", number),
            ("rows", "rejected", 2 * number),
            ("yen", "succeeded", 1000 * number),
        ]
    with refused_by("totals_pkey"):
        harness.run("INSERT INTO totals VALUES ('rows', 'accepted', 1)")


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

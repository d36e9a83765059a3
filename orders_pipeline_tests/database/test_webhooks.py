"""Webhooks in the database: planned once with the change that they are about, and claimed for a while by who sends them."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any

import pytest
import yaml
from sqlalchemy import Row

from orders_pipeline.batches import batches
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.settlement.refunds.ledger import RefundLedger
from orders_pipeline.settlement.refunds.plan import read_plan, write_plan
from orders_pipeline.upkeep.retention import purge_rows
from orders_pipeline_tests.support.ledgers import Harness, order

URL = "https://shop.example.com/hooks"


@pytest.fixture(autouse=True)
def _shop_has_an_address(harness: Harness) -> None:
    harness.run("INSERT INTO known_profiles VALUES ('shop', jsonb_build_object('webhook_url', %s::text))", URL)
    harness.run("INSERT INTO known_profiles VALUES ('acme', jsonb_build_object('webhook_url', NULL))")


def move(harness: Harness, *statuses: str) -> None:
    """Let the harness's batch come to each state in turn."""
    for status in statuses:
        harness.run(
            "UPDATE batches SET status = %s, rows_total = 1, rows_accepted = 0, rows_rejected = 1, rows_blank = 0,"
            " amount_accepted = 0, finished_at = CASE WHEN %s = ANY(%s) THEN now() END WHERE batch_id = %s",
            *(status, status, list(batches.FINISHED), harness.batch_id),
        )


def planned(harness: Harness) -> list[tuple[str, str]]:
    rows = harness.run("SELECT type, status_then FROM webhook_deliveries ORDER BY created_at, type")
    return [(row["type"], row["status_then"]) for row in rows]


@pytest.mark.parametrize(
    ("way", "events"),
    [
        (
            ["staged", "validated", "loaded", "paying", "completed"],
            [("batch.checked", "loaded"), ("batch.completed", "completed")],
        ),
        (["staged", "rejected"], [("batch.rejected", "rejected")]),
        (
            ["loaded", "paying", "paused", "paying", "paused", "paying", "completed_with_errors"],
            [("batch.paused", "paused"), ("batch.completed", "completed_with_errors")],
        ),
        (["loaded", "paying", "cancelled"], [("batch.cancelled", "cancelled")]),
        (["staged", "validated", "staged", "validated", "loaded"], [("batch.checked", "loaded")]),
        (["paying", "paying"], []),
    ],
)
def test_what_a_batch_comes_to_is_planned_once_with_it(harness, way, events):
    harness.batch(status="received", client="shop")
    move(harness, *way)
    assert planned(harness) == events


def test_a_batch_that_waits_for_approval_is_told_so_once(harness):
    harness.batch(status="validated", client="shop")
    counted = (
        "rows_total = 1, rows_accepted = 1, rows_rejected = 0, rows_blank = 0, amount_accepted = 1000, approval_above = 0"
    )
    decided = "approval_decision = 'approved', approval_decided_by = 'somebody', approval_decided_at = now()"
    for status, more in (("loaded", counted), ("awaiting_approval", "approval_requested_at = now()"), ("loaded", decided)):
        harness.run(f"UPDATE batches SET status = %s, {more}", status)
    harness.run("UPDATE batches SET status = 'paying'")
    assert planned(harness) == [("batch.checked", "loaded"), ("batch.awaiting_approval", "awaiting_approval")]


def test_a_change_that_is_taken_back_is_told_to_nobody(harness):
    harness.batch(status="paying", client="shop")
    with harness.connect() as connection:
        connection.execute("UPDATE batches SET status = 'paused'")
        assert connection.execute("SELECT count(*) AS planned FROM webhook_deliveries").fetchall() == [{"planned": 1}]
        connection.rollback()
    assert planned(harness) == []
    with harness.database.begin() as transaction:
        batches.set_status(transaction, harness.batch_id, "paused")
    assert planned(harness) == [("batch.paused", "paused")]


def test_what_the_database_plans_is_what_the_apis_description_says(harness):
    document = yaml.safe_load((resources.files("orders_pipeline.web") / "openapi.yaml").read_text("utf-8"))
    functions = harness.value("SELECT string_agg(prosrc, '') FROM pg_proc WHERE proname LIKE 'webhooks_follow_%%'")
    assert set(re.findall(r"'((?:batch|refund)\.\w+)'", functions)) == set(document["webhooks"])


@pytest.mark.parametrize("client", ["acme", "unknown"])
def test_for_who_has_no_address_nothing_is_planned(harness, client):
    harness.batch(status="received", client=client)
    move(harness, "rejected")
    assert planned(harness) == []


def test_a_refund_is_told_once_when_its_last_part_is_settled(harness):
    harness.batch(client="shop")
    harness.orders(order(1), order(2, customer_code="C-2"))
    harness.plan()
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.record([(claim, Outcome("succeeded", None, f"p{n}")) for n, claim in enumerate(ledger.claim(9))])
    write_plan(harness.database, read_plan(harness.database, harness.batch_id), requested_by="operator", reason="returned")
    with harness.working() as worker:
        refunds = RefundLedger(harness.database, worker)
        first, second = refunds.claim(9)
        refunds.record([(first, Outcome("succeeded", None, "r1"))])
        assert planned(harness) == []
        refunds.record([(second, Outcome("declined", "too-late"))])
    assert planned(harness) == [("refund.completed", "completed_with_errors")]
    assert harness.value("SELECT request_id FROM webhook_deliveries") == harness.value(
        "SELECT request_id FROM refund_requests"
    )


def put(harness: Harness, client: str, number: int) -> None:
    if not harness.batch_id:
        harness.batch(client="shop")
    harness.run(
        "INSERT INTO webhook_deliveries (client_code, type, batch_id, status_then)"
        " SELECT %s, 'batch.completed', %s, 'completed' FROM generate_series(1, %s)",
        *(client, harness.batch_id, number),
    )


def claim(harness: Harness, limit: int = 8, of_client: int = 2) -> Sequence[Row[Any]]:
    with harness.database.begin() as transaction:
        return transaction.rows("claim_webhooks", limit=limit, of_client=of_client, lease_s=60)


def record(harness: Harness, row: Row[Any], status: str, code: str | None = None, delay_s: float = 0.0) -> int:
    with harness.database.begin() as transaction:
        return transaction.execute(
            "record_webhook",
            delivery_id=str(row.delivery_id),
            claim_no=row.claim_no,
            status=status,
            code=code,
            delay_s=delay_s,
        )


def test_what_is_due_is_claimed_by_one_and_a_client_with_much_leaves_room_for_others(harness):
    put(harness, "shop", 5)
    put(harness, "acme", 1)
    first = claim(harness)
    assert sorted(row.client_code for row in first) == ["acme", "shop", "shop"]
    assert claim(harness) == []
    record(harness, next(row for row in first if row.client_code == "shop"), "delivered")
    assert [row.client_code for row in claim(harness)] == ["shop"]


def test_many_that_claim_at_once_get_each_delivery_once(harness):
    put(harness, "shop", 40)
    barrier = threading.Barrier(8)

    def work(_: int) -> list[str]:
        barrier.wait(10)
        return [str(row.delivery_id) for _ in range(5) for row in claim(harness, limit=3, of_client=1_000)]

    with ThreadPoolExecutor(8) as pool:
        taken = [each for some in pool.map(work, range(8)) for each in some]
    assert len(taken) == len(set(taken)) == 40


def test_what_a_lost_process_had_is_sent_by_another_and_what_it_still_says_is_dropped(harness):
    put(harness, "shop", 1)
    (old,) = claim(harness)
    harness.run("UPDATE webhook_deliveries SET leased_until = now() - interval '1 second'")
    (new,) = claim(harness)
    assert (new.delivery_id, new.attempts) == (old.delivery_id, 2)
    assert record(harness, old, "failed", "gone") == 0
    assert record(harness, new, "delivered") == 1
    assert record(harness, new, "failed", "gone") == 0
    assert claim(harness) == []


def test_what_failed_waits_for_its_next_try(harness):
    put(harness, "shop", 1)
    (row,) = claim(harness)
    record(harness, row, "planned", "http-500", delay_s=300)
    assert claim(harness) == []
    harness.run("UPDATE webhook_deliveries SET next_attempt_at = next_attempt_at - interval '5 minutes'")
    assert [each.attempts for each in claim(harness)] == [2]


def test_an_address_that_wants_no_more_is_off_until_the_profile_has_another(harness):
    put(harness, "shop", 3)
    with harness.database.begin() as transaction:
        transaction.execute("switch_webhooks_off", client_code="shop", webhook_url=URL)
        transaction.execute("give_webhooks_up", client_code="shop", code="gone")
    assert claim(harness) == []
    harness.run("UPDATE batches SET status = 'paying'")
    move(harness, "paused")
    assert harness.value("SELECT count(*) FROM webhook_deliveries WHERE status = 'planned'") == 0
    harness.run('UPDATE known_profiles SET profile = profile || \'{"webhook_url": "https://new.example.com"}\'')
    move(harness, "completed")
    assert [row.type for row in claim(harness)] == ["batch.completed"]


def test_deliveries_are_forgotten_after_a_month(harness):
    put(harness, "shop", 2)
    harness.run(
        "UPDATE webhook_deliveries SET created_at = now() - interval '31 days' WHERE delivery_id ="
        " (SELECT delivery_id FROM webhook_deliveries LIMIT 1)"
    )
    assert purge_rows(harness.database)["webhooks forgotten"] == 1
    assert harness.value("SELECT count(*) FROM webhook_deliveries") == 1

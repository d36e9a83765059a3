"""Batches are registered once for the same bytes, whoever asks and however often, and move only forwards."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from types import SimpleNamespace

import pytest

from orders_pipeline.batches import batches
from orders_pipeline.batches.batches import Source, UnknownBatch, batch_id_for
from orders_pipeline.records.rejections import CODES, FileRejected
from orders_pipeline.web.page.views import waiting_rows
from orders_pipeline_tests.support.ledgers import Harness, order

SAME = Source("orders.csv", sha256="a" * 64, size=10)


def imported(harness: Harness, source: Source = SAME, *, client: str = "acme", again: bool = False) -> str:
    while True:
        with harness.database.begin() as transaction:
            batch_id, again_no = batches.plan_import(transaction, client, source.sha256 or "", again=again)
        with harness.database.begin() as transaction:
            if batches.register_import(transaction, batch_id, client, source, again_no=again_no):
                return batch_id


def landed(harness: Harness, key: str = "acme/orders.csv", version: str = "v1") -> str:
    with harness.database.begin() as transaction:
        return batches.register_landed(transaction, "acme", Source("orders.csv", key, version, size=10))


def record(harness: Harness, batch_id: str, sha256: str) -> str | None:
    with harness.database.begin() as transaction:
        return batches.record_source(transaction, batches.get(transaction, batch_id), sha256, 10, again=False)


def count(harness: Harness) -> int:
    return int(harness.value("SELECT count(*) FROM batches"))


def all_at_once(workers: int, work: Callable[[], str]) -> list[str | FileRejected]:
    start = threading.Barrier(workers)

    def one(_: int) -> str | FileRejected:
        start.wait(10)
        try:
            return work()
        except FileRejected as refused:
            return refused

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, range(workers)))


def test_the_same_bytes_are_refused_the_second_time_with_the_batch_they_are(harness):
    batch_id = imported(harness)
    with pytest.raises(FileRejected) as refused:
        imported(harness, Source("renamed.csv", sha256=SAME.sha256, size=10))
    assert (refused.value.code, refused.value.detail) == ("F_DUPLICATE_FILE", {"batch_id": batch_id})
    assert count(harness) == 1


def test_the_same_bytes_of_another_client_are_another_batch(harness):
    assert imported(harness) != imported(harness, client="other")


def test_the_same_bytes_again_on_purpose_are_another_batch_each_time(harness):
    ids = [imported(harness), imported(harness, again=True), imported(harness, again=True)]
    assert len(set(ids)) == 3
    assert [row["again_no"] for row in harness.run("SELECT again_no FROM batches ORDER BY again_no")] == [0, 1, 2]


def test_on_purpose_is_no_different_for_bytes_that_never_came(harness):
    assert imported(harness, again=True)
    with pytest.raises(FileRejected):
        imported(harness)


def test_the_same_bytes_on_another_day_are_still_one_batch(harness, monkeypatch):
    imported(harness)
    monkeypatch.setattr(batches, "today", lambda: date(2031, 1, 1))
    with pytest.raises(FileRejected):
        imported(harness)


def test_eight_that_register_the_same_bytes_at_once_make_one_batch_and_one_of_them_has_it(harness):
    results = all_at_once(8, lambda: imported(harness))
    registered = [result for result in results if isinstance(result, str)]
    refused = [result for result in results if isinstance(result, FileRejected)]
    assert (len(registered), len(refused), count(harness)) == (1, 7, 1)
    assert {each.code for each in refused} == {"F_DUPLICATE_FILE"}
    assert {each.detail.get("batch_id", registered[0]) for each in refused} == set(registered)


def refuse(harness: Harness, batch_id: str) -> None:
    with harness.database.begin() as transaction:
        batches.set_status(transaction, batch_id, "rejected", "F_CONTROL_TOTAL")


@pytest.mark.parametrize("again", [False, True])
def test_bytes_that_were_refused_are_another_batch_when_they_come_again_however_often(harness, again):
    ids = []
    for _ in range(3):
        ids.append(imported(harness, again=again))
        refuse(harness, ids[-1])
    assert len(set(ids)) == 3
    taken = imported(harness)
    with pytest.raises(FileRejected) as refused:
        imported(harness)
    assert refused.value.detail == {"batch_id": taken}
    # a database that was put back to before them would give its payments the same ids
    assert harness.value("SELECT again_no FROM batches WHERE batch_id = %s", taken) == 0


def test_eight_that_register_refused_bytes_at_once_make_one_batch(harness):
    refuse(harness, imported(harness))
    results = all_at_once(8, lambda: imported(harness))
    registered = [result for result in results if isinstance(result, str)]
    assert (len(registered), count(harness)) == (1, 2)
    assert {each.detail["batch_id"] for each in results if isinstance(each, FileRejected)} == set(registered)


def test_a_batch_that_was_refused_between_two_repeats_on_purpose_is_in_nobodys_way(harness):
    first, second = imported(harness), imported(harness, again=True)
    refuse(harness, second)
    third = imported(harness, again=True)
    assert len({first, second, third}) == 3


def test_a_landed_file_with_bytes_that_were_refused_is_no_duplicate(harness):
    refuse(harness, imported(harness))
    assert record(harness, landed(harness), str(SAME.sha256)) is None


@pytest.mark.parametrize("status", ["received", "paying", "completed", "stopped", "cancelling"])
def test_only_a_batch_of_which_nothing_was_loaded_leaves_its_bytes_free(harness, status):
    batch_id = imported(harness)
    harness.tamper(f"UPDATE batches SET stopped_from = status, stopped_by = 'x', stopped_at = now(), status = '{status}'")
    with pytest.raises(FileRejected) as refused:
        imported(harness)
    assert refused.value.detail == {"batch_id": batch_id}


def test_a_batch_that_was_cancelled_before_anything_was_paid_leaves_its_bytes_free(harness):
    imported(harness)
    harness.run("UPDATE batches SET status = 'cancelled', finished_at = now()")
    imported(harness)
    harness.run("UPDATE batches SET status = 'cancelled', finished_at = now()")
    assert record(harness, landed(harness), str(SAME.sha256)) is None
    assert count(harness) == 3
    assert harness.value("SELECT count(DISTINCT again_no) FROM batches WHERE source_sha256 = %s", SAME.sha256) == 3


def test_eight_that_see_the_same_landed_file_at_once_make_one_batch(harness):
    results = all_at_once(8, lambda: landed(harness))
    assert len(set(map(str, results))) == count(harness) == 1


def test_a_landed_version_is_one_batch_and_another_version_another(harness):
    assert landed(harness) == landed(harness)
    assert landed(harness) != landed(harness, version="v2")
    assert landed(harness) != landed(harness, key="acme/other.csv")


def test_a_landed_version_seen_again_on_another_day_is_the_batch_it_was(harness, monkeypatch):
    first = landed(harness)
    monkeypatch.setattr(batches, "today", lambda: date(2031, 1, 1))
    assert landed(harness) == first
    assert count(harness) == 1


def test_two_landed_files_with_the_same_bytes_are_one_batch_and_a_duplicate_of_it(harness):
    first, second = landed(harness), landed(harness, key="acme/copy.csv")
    assert record(harness, first, "same") is None
    assert record(harness, second, "same") == first
    assert harness.value("SELECT duplicate_of FROM batches WHERE batch_id = %s", second) == first


def test_a_landed_file_with_the_bytes_of_an_import_is_its_duplicate(harness):
    first = imported(harness)
    assert record(harness, landed(harness), str(SAME.sha256)) == first


def test_noting_the_bytes_again_after_a_crash_says_the_same(harness):
    first, second = landed(harness), landed(harness, key="acme/copy.csv")
    assert [record(harness, first, "same") for _ in range(2)] == [None, None]
    assert [record(harness, second, "same") for _ in range(3)] == [first, first, first]


def test_of_many_landed_files_with_the_same_bytes_noted_at_once_one_is_the_batch(harness):
    ids = [landed(harness, key=f"acme/{number}.csv") for number in range(6)]
    waiting = iter(ids)
    all_at_once(6, lambda: str(record(harness, next(waiting), "same")))
    rows = harness.run("SELECT batch_id, duplicate_of FROM batches")
    (original,) = [row["batch_id"] for row in rows if row["duplicate_of"] is None]
    assert {row["duplicate_of"] for row in rows} == {None, original}


def test_an_id_is_sortable_by_day_and_depends_on_client_and_file():
    day = date(2026, 7, 1)
    batch_id = batch_id_for("acme", "x", day)
    assert batch_id.startswith("20260701-")
    assert len(batch_id) == 21
    assert batch_id == batch_id_for("acme", "x", day)
    assert len({batch_id, batch_id_for("other", "x", day), batch_id_for("acme", "y", day)}) == 3


def test_the_business_day_is_japans(monkeypatch):
    assert str(batches.JAPAN) == "Asia/Tokyo"


def test_a_batch_that_does_not_exist_has_a_code_of_its_own(harness):
    with pytest.raises(UnknownBatch, match="E_UNKNOWN_BATCH"), harness.database.begin() as transaction:
        batches.get(transaction, "nowhere")


@pytest.mark.parametrize("status", sorted(batches.FINISHED - {"completed", "completed_with_errors"}))
def test_a_finished_batch_stays_finished(harness, status):
    batch_id = harness.batch()
    with harness.database.begin() as transaction:
        batches.set_status(transaction, batch_id, status, "F_EMPTY", {"limit": "1"})
        batches.set_status(transaction, batch_id, "paying")
    row = harness.run("SELECT status, status_code, status_detail, finished_at IS NOT NULL AS ended FROM batches")[0]
    assert row == {"status": status, "status_code": "F_EMPTY", "status_detail": {"limit": "1"}, "ended": True}


def test_a_paused_batch_goes_on_and_forgets_why_it_paused(harness):
    batch_id = harness.batch()
    with harness.database.begin() as transaction:
        batches.set_status(transaction, batch_id, "paused", "E_PAYMENT_UNKNOWN")
        batches.set_status(transaction, batch_id, "paying")
    assert harness.run("SELECT status, status_code, finished_at FROM batches") == [
        {"status": "paying", "status_code": None, "finished_at": None}
    ]


@pytest.mark.parametrize(
    ("orders", "rejected", "expected"),
    [
        (["paid", "paid"], 0, ("completed", None)),
        (["paid"], 1, ("completed_with_errors", None)),
        (["paid", "declined"], 0, ("completed_with_errors", None)),
        (["paid", "unknown", "pending"], 0, ("paused", "E_PAYMENT_UNKNOWN")),
        (["paid", "pending"], 0, ("paused", "E_PAYMENT_UNAVAILABLE")),
        (["paid", "paying"], 0, ("paused", "E_PAYMENT_UNAVAILABLE")),
        ([], 2, ("rejected", None)),
    ],
)
def test_the_end_of_a_batch_is_what_its_rows_amount_to(harness, orders, rejected, expected):
    batch_id = harness.batch(status="paying")
    harness.orders(*(order(n, status=status) for n, status in enumerate(orders, start=1)))
    harness.run(
        "UPDATE batches SET rows_total = %s, rows_accepted = %s, rows_rejected = %s, rows_blank = 0",
        len(orders) + rejected,
        len(orders),
        rejected,
    )
    with harness.database.begin() as transaction:
        assert batches.final_status(batches.progress(transaction, batch_id)) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("waiting", ("paused", "E_NOTIFICATION_UNAVAILABLE")),
        ("unknown", ("paused", "E_NOTIFICATION_UNAVAILABLE")),
        ("failed", ("completed_with_errors", None)),
    ],
)
def test_a_batch_waits_for_its_notifications_and_shows_those_that_failed(harness, status, expected):
    batch_id = harness.batch(status="paying")
    harness.orders(order(status="paid"))
    harness.plan()
    harness.run("UPDATE notifications SET status = %s, settled_at = CASE WHEN %s THEN now() END", status, status == "failed")
    harness.run("UPDATE batches SET rows_total = 1, rows_accepted = 1, rows_rejected = 0, rows_blank = 0")
    with harness.database.begin() as transaction:
        assert batches.final_status(batches.progress(transaction, batch_id)) == expected


def test_a_summary_counts_rows_and_yen_from_the_tables(harness):
    batch_id = harness.batch()
    harness.orders(
        order(1, status="paid", amount=5), order(2, status="declined", amount=7), order(3, status="unknown", amount=9)
    )
    with harness.database.begin() as transaction:
        shown = batches.summary(batches.progress(transaction, batch_id), {"R_AMOUNT": 1}, {"pay": 1.23456}, {})
    closed = {"refunded": 0, "cancelled": 0}
    assert shown["orders"] == {"pending": 0, "paying": 0, "paid": 1, "declined": 1, "unknown": 1} | closed
    assert shown["amount_jpy"] == {"accepted": None, "paid": 5, "declined": 7, "unknown": 9, "open": 0} | closed
    assert shown["seconds"]["pay"] == shown["seconds"]["total"] == 1.235
    harness.run("UPDATE batches SET amount_accepted = 121")  # of which some are pending, and some not loaded yet
    with harness.database.begin() as transaction:
        shown = batches.summary(batches.progress(transaction, batch_id), {}, {}, {})
    assert shown["amount_jpy"]["open"] == 100


def test_the_seconds_worked_so_far_count_once_what_is_done_at_the_same_time():
    spent = {"stage": 1.0, "load": 2.0, "pay": 40.0, "notify": 46.0}
    assert batches.elapsed(SimpleNamespace(finished_at=None), spent) == 49.0  # type: ignore[arg-type]


def test_a_trial_counts_the_rows_as_waiting_that_the_database_has_wait_once_the_file_is_sent(harness):
    batch_id = harness.batch()
    codes = [code for code in CODES if code.startswith("R_")]
    pairs = list(itertools.combinations_with_replacement(codes, 2))
    errors = [{"row": row, "code": code} for row, pair in enumerate(pairs, start=1) for code in {*pair}]
    insert = "INSERT INTO rejections (batch_id, import_row_number, code) SELECT %s, * FROM unnest(%s::int[], %s::text[])"
    harness.run(insert, batch_id, [each["row"] for each in errors], [each["code"] for each in errors])
    with harness.database.begin() as transaction:
        waiting = {
            each.import_row_number
            for each in transaction.rows("rows_to_correct_in", bulk_import_group=batch_id, batch_id=batch_id)
        }
    for row, pair in enumerate(pairs, start=1):
        assert waiting_rows([{"row": row, "code": code} for code in pair])[0] == (row in waiting), pair

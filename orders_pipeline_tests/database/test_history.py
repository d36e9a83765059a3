"""A long history behind it: what is asked for all the time stays quick, and no statement reads a whole table row by row."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from orders_pipeline.infrastructure.database import Database
from orders_pipeline.reports import errors_csv, finishing, summaries
from orders_pipeline.system.composition import Endpoints, System, open_system
from orders_pipeline.system.settings import Settings
from orders_pipeline_tests.support import history
from orders_pipeline_tests.support.databases import cloned_database
from orders_pipeline_tests.support.ledgers import Harness

BATCHES = 20
ORDERS = 2_500
ANY = dict.fromkeys(("client_code", "statuses", "since"))  # batches


@pytest.fixture(scope="module")
def long_url(server_url: str, template: str) -> Iterator[SecretStr]:
    """The URL of a database with fifty thousand orders behind it."""
    with cloned_database(server_url, template) as url:
        history.fill(url, batches=BATCHES, orders=ORDERS)
        yield url


@pytest.fixture
def harness(long_url: SecretStr) -> Iterator[Harness]:
    with contextlib.closing(Database(long_url)) as database:
        yield Harness(database)


@pytest.fixture
def system(long_url: SecretStr, tmp_path: Path) -> Iterator[System]:
    settings = Settings(home=tmp_path / "home", database_url=long_url)
    with open_system(settings, Endpoints(long_url, "http://127.0.0.1:9", "http://127.0.0.1:9")) as system:
        yield system


def newest(harness: Harness) -> str:
    return str(harness.value("SELECT batch_id FROM batches ORDER BY received_at DESC LIMIT 1"))


def counted(harness: Harness, summary: dict[str, dict[str, int]]) -> bool:
    batch = harness.run("SELECT * FROM batches JOIN batch_counts USING (batch_id) WHERE batch_id = %s", summary["batch_id"])[
        0
    ]
    return all(batch[f"orders_{state}"] == number for state, number in summary["orders"].items())


def test_a_list_of_batches_counts_finished_ones_once(harness, system):
    before = summaries.recent(system, 20)
    started = time.process_time()
    again = summaries.recent(system, 20)
    assert time.process_time() - started < 0.1
    assert again == before
    assert len(again) == 20
    assert counted(harness, again[0])
    with system.database.begin() as transaction:
        kept = transaction.rows("recent_batches", limit=20, **ANY)
    assert all(row.summary is not None for row in kept)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE orders SET status = 'refunded' WHERE batch_id = %s AND import_row_number = 1",
        "UPDATE payments SET status = 'refunded' WHERE status = 'succeeded' AND batch_id = %s",
        "UPDATE notifications SET attempts = 1 WHERE batch_id = %s",
        "UPDATE batches SET amount_accepted = 1 WHERE batch_id = %s",
        "UPDATE batch_stages SET seconds = 2 WHERE batch_id = %s",
    ],
)
def test_a_finished_batch_is_counted_again_once_anything_of_it_has_changed(harness, system, change):
    summaries.recent(system, 1)
    harness.run(change, newest(harness))
    with system.database.begin() as transaction:
        (row,) = transaction.rows("recent_batches", limit=1, **ANY)
    assert row.summary is None
    (summary,) = summaries.recent(system, 1)
    assert counted(harness, summary)


def test_what_is_changing_while_it_is_counted_is_not_kept(harness, system):
    harness.run("UPDATE batches SET amount_accepted = 2 WHERE batch_id = %s", newest(harness))
    with harness.connect() as changing:
        change = b"UPDATE orders SET status = 'unknown' WHERE batch_id = %s AND import_row_number = 2"
        changing.execute(change, [newest(harness)])
        summaries.recent(system, 1)
    (summary,) = summaries.recent(system, 1)
    assert summary["orders"]["unknown"] == 1


def test_thousands_of_declined_orders_are_reported_in_seconds(harness, system):
    batch_id = str(harness.value("SELECT batch_id FROM batches ORDER BY received_at LIMIT 1"))
    harness.tamper(
        f"UPDATE orders SET status = 'declined' WHERE batch_id = '{batch_id}'",
        f"UPDATE payments SET status = 'declined', outcome_code = 'expired' WHERE batch_id = '{batch_id}'",
        "UPDATE payment_orders SET live = false FROM payments WHERE payments.payment_id = payment_orders.payment_id"
        f" AND batch_id = '{batch_id}'",
        "DELETE FROM rejections",
    )
    started = time.monotonic()
    finishing.finish_batch(system.storage, system.database, batch_id)
    assert time.monotonic() - started < 10  # a tenth of that where the machine does nothing else
    assert len([each for each in errors_csv.errors_of(system.database, batch_id) if each["code"] == "P_DECLINED"]) == ORDERS


def test_rejections_are_read_a_few_at_a_time(harness, system):
    rows = "SELECT %s, n, 'R_AMOUNT' FROM generate_series(1, 50000) AS n"
    harness.run(f"INSERT INTO rejections (batch_id, import_row_number, code) {rows}", newest(harness))
    tracemalloc.start()
    try:
        with system.database.begin() as transaction:
            read = sum(1 for _ in transaction.stream("row_rejections", batch_id=newest(harness)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read >= 50_000
    assert most < 8 * 2**20

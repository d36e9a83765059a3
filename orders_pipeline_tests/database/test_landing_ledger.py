"""Looking at a landing folder again and again: every version of every file becomes one batch."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orders_pipeline.landing import look
from orders_pipeline.storage import Storage, open_storage
from orders_pipeline_tests.ledger_desk import Desk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "acme").mkdir()
    return tmp_path


@pytest.fixture
def landing(folder: Path) -> Storage:
    return open_storage(str(folder), s3_endpoint_url=None, s3_kms_key_id=None)


def put(folder: Path, name: str, text: str = "x", at: int = 1_780_000_000) -> None:
    (folder / name).write_text(text)
    os.utime(folder / name, (at, at))


def batches(desk: Desk) -> list[tuple[str, str, str]]:
    rows = desk.run("SELECT client_code, csv_source, landing_key FROM batches ORDER BY landing_key, landing_version")
    return [(row["client_code"], row["csv_source"], row["landing_key"]) for row in rows]


def test_a_file_becomes_a_batch_at_the_second_look_and_never_again(desk, folder, landing):
    put(folder, "acme/orders.csv")
    assert look(desk.database, landing) == []
    (batch_id,) = look(desk.database, landing)
    assert [look(desk.database, landing) for _ in range(3)] == [[], [], []]
    assert batches(desk) == [("acme", "orders.csv", "acme/orders.csv")]
    assert desk.value("SELECT batch_id FROM landing_files") == batch_id


def test_a_file_that_grows_waits_until_it_does_not(desk, folder, landing):
    for size in (1, 2, 3):
        put(folder, "acme/orders.csv", "x" * size)
        assert look(desk.database, landing) == []
    assert len(look(desk.database, landing)) == 1
    assert desk.value("SELECT count(*) FROM landing_files") == 1


def test_a_file_replaced_after_it_became_a_batch_is_another(desk, folder, landing):
    for text in ("first", "second, longer"):
        put(folder, "acme/orders.csv", text)
        look(desk.database, landing)
        assert len(look(desk.database, landing)) == 1
    assert len(batches(desk)) == 2


def test_a_file_removed_after_it_became_a_batch_leaves_the_batch(desk, folder, landing):
    put(folder, "acme/orders.csv")
    look(desk.database, landing)
    look(desk.database, landing)
    (folder / "acme/orders.csv").unlink()
    assert look(desk.database, landing) == []
    assert len(batches(desk)) == 1
    assert desk.value("SELECT count(*) FROM landing_files") == 1


def test_a_file_removed_before_it_became_a_batch_is_forgotten(desk, folder, landing):
    put(folder, "acme/orders.csv")
    look(desk.database, landing)
    (folder / "acme/orders.csv").unlink()
    look(desk.database, landing)
    assert desk.value("SELECT count(*) FROM landing_files") == 0


def test_files_of_one_second_and_files_that_come_late_are_all_found(desk, folder, landing):
    for number in range(30):
        put(folder, f"acme/{number:02}.csv")
    look(desk.database, landing)
    assert len(look(desk.database, landing)) == 30
    put(folder, "acme/late.csv", at=1_000_000_000)
    look(desk.database, landing)
    assert len(look(desk.database, landing)) == 1


def test_at_most_the_limit_is_registered_in_one_look_and_none_is_lost(desk, folder, landing):
    for number in range(5):
        put(folder, f"acme/{number}.csv", at=1_780_000_000 + number)
    look(desk.database, landing)
    assert [len(look(desk.database, landing, limit=2)) for _ in range(4)] == [2, 2, 1, 0]
    assert [key for _, _, key in batches(desk)] == [f"acme/{number}.csv" for number in range(5)]


def test_manifests_hidden_files_uploads_under_way_and_strays_become_no_batch(desk, folder, landing):
    for name in ("acme/orders.manifest.json", "acme/.hidden.csv", "acme/orders.csv.part", "stray.csv"):
        put(folder, name)
    assert [look(desk.database, landing) for _ in range(3)] == [[], [], []]
    assert desk.value("SELECT count(*) FROM landing_files") == 0


def test_a_name_is_kept_as_the_client_chose_it(desk, folder, landing):
    (folder / "acme/7月").mkdir()
    put(folder, "acme/7月/注文 'a\".csv")
    look(desk.database, landing)
    look(desk.database, landing)
    assert batches(desk) == [("acme", "注文 'a\".csv", "acme/7月/注文 'a\".csv")]


def test_two_hosts_that_look_at_once_make_one_batch_a_file(desk, folder, landing):
    for number in range(10):
        put(folder, f"acme/{number}.csv")
    look(desk.database, landing)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: look(desk.database, landing), range(3)))
    assert len(batches(desk)) == 10
    assert desk.value("SELECT count(*) FROM landing_files WHERE batch_id IS NULL") == 0

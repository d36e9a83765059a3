"""Looking at a landing again and again, all at once or a stretch at a time: every version of every file is one batch."""

from __future__ import annotations

import os
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orders_pipeline.clients.profiles import Clients, Profile
from orders_pipeline.intake.landing import arrivals
from orders_pipeline.intake.landing.arrivals import register_arrivals
from orders_pipeline.intake.landing.left_alone import NAMES_SHOWN, in_words, listed, recorded
from orders_pipeline_tests.support.landing_folder import batches, later, left_alone, put, twice

pytestmark = pytest.mark.usefixtures("hasty_landing")


def test_a_file_becomes_a_batch_at_the_second_look_and_never_again(harness, folder, landing):
    put(folder, "acme/orders.csv")
    assert register_arrivals(harness.database, landing) == []
    (batch_id,) = register_arrivals(harness.database, landing)
    assert [register_arrivals(harness.database, landing) for _ in range(3)] == [[], [], []]
    assert batches(harness) == [("acme", "orders.csv", "acme/orders.csv")]
    assert harness.value("SELECT batch_id FROM landing_files") == batch_id


def test_o01_a_file_that_grows_waits_until_it_does_not(harness, folder, landing):
    for size in (1, 2, 3):
        put(folder, "acme/orders.csv", "x" * size + "\n")
        assert register_arrivals(harness.database, landing) == []
    assert len(register_arrivals(harness.database, landing)) == 1
    assert harness.value("SELECT count(*) FROM landing_files") == 1


def test_o05_a_file_replaced_after_it_became_a_batch_is_another(harness, folder, landing):
    for text in ("first\n", "second, longer\n"):
        put(folder, "acme/orders.csv", text)
        register_arrivals(harness.database, landing)
        assert len(register_arrivals(harness.database, landing)) == 1
    assert len(batches(harness)) == 2


def test_a_file_removed_after_it_became_a_batch_leaves_the_batch(harness, folder, landing):
    put(folder, "acme/orders.csv")
    register_arrivals(harness.database, landing)
    register_arrivals(harness.database, landing)
    (folder / "acme/orders.csv").unlink()
    assert register_arrivals(harness.database, landing) == []
    assert len(batches(harness)) == 1
    assert harness.value("SELECT count(*) FROM landing_files") == 1


def test_a_file_removed_before_it_became_a_batch_is_forgotten(harness, folder, landing):
    put(folder, "acme/orders.csv")
    register_arrivals(harness.database, landing)
    (folder / "acme/orders.csv").unlink()
    register_arrivals(harness.database, landing)
    assert harness.value("SELECT count(*) FROM landing_files") == 0


def test_o07_files_of_one_second_and_files_that_come_late_are_all_found(harness, folder, landing):
    for number in range(30):
        put(folder, f"acme/{number:02}.csv")
    register_arrivals(harness.database, landing)
    assert len(register_arrivals(harness.database, landing)) == 30
    put(folder, "acme/late.csv", at=1_000_000_000)
    register_arrivals(harness.database, landing)
    assert len(register_arrivals(harness.database, landing)) == 1


def test_at_most_the_limit_is_registered_in_one_look_and_none_is_lost(harness, folder, landing, monkeypatch):
    monkeypatch.setattr(arrivals, "MAX_NEW", 2)
    for number in range(5):
        put(folder, f"acme/{number}.csv", at=1_780_000_000 + number)
    register_arrivals(harness.database, landing)
    assert [len(register_arrivals(harness.database, landing)) for _ in range(4)] == [2, 2, 1, 0]
    assert [key for _, _, key in batches(harness)] == [f"acme/{number}.csv" for number in range(5)]


def test_manifests_hidden_files_uploads_under_way_and_strays_become_no_batch(harness, folder, landing):
    strays = ("acme/.hidden.csv", "acme/orders.csv.part", "stray.csv", "acme/sub/orders.csv", "no client/orders.csv")
    for folders in ("acme/sub", "acme/.cache", "no client"):
        (folder / folders).mkdir()
    for name in ("acme/orders.manifest.json", "acme/.cache/x.csv", *strays):
        put(folder, name)
    (folder / "acme/link.csv").symlink_to(folder / "stray.csv")
    Path(os.fsdecode(os.fsencode(folder) + b"/acme/\x81\xff.csv")).write_text("x\n")
    assert [register_arrivals(harness.database, landing) for _ in range(3)] == [[], [], []]
    assert harness.value("SELECT count(*) FROM landing_files") == 0
    others = {"acme/orders.manifest.json", "acme/.cache/", "acme/link.csv", r"acme/\x81\xff.csv"}
    assert left_alone(harness) == {*strays, *others}
    with harness.database.begin() as transaction:
        for found in (recorded(transaction), listed(landing)):  # status and tick, doctor
            reasons = found["left_alone"].as_dict()["reasons"]
            assert {why: sorted(names) for why, names in reasons.items()} == {
                "not named as an order file": ["acme/.hidden.csv", "acme/orders.csv.part"],
                "a folder that is hidden or cannot be looked into": ["acme/.cache/"],
                "a link, or nothing that can be read or named": [r"acme/\x81\xff.csv", "acme/link.csv"],
                "a manifest without its order file": ["acme/orders.manifest.json"],
                "deeper than in a client's folder": ["acme/sub/orders.csv"],
                "its folder is no client code": ["no client/orders.csv"],
                "not in a client's folder": ["stray.csv"],
            }
            (said,) = in_words({"left_alone": found["left_alone"]})
            assert "left alone: 9 (" in said
            assert "; deeper than in a client's folder: acme/sub/orders.csv; " in said


def test_a_name_is_kept_as_the_client_chose_it(harness, folder, landing):
    put(folder, "acme/7月 注文 'a\".csv")
    register_arrivals(harness.database, landing)
    register_arrivals(harness.database, landing)
    assert batches(harness) == [("acme", "7月 注文 'a\".csv", "acme/7月 注文 'a\".csv")]


def test_two_hosts_that_look_at_once_make_one_batch_a_file(harness, folder, landing):
    for number in range(10):
        put(folder, f"acme/{number}.csv")
    register_arrivals(harness.database, landing)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: register_arrivals(harness.database, landing), range(3)))
    assert len(batches(harness)) == 10
    assert harness.value("SELECT count(*) FROM landing_files WHERE batch_id IS NULL") == 0


def test_a_file_is_taken_only_once_it_was_seen_for_long_enough(harness, folder, landing, monkeypatch):
    monkeypatch.setattr(arrivals, "LEAST_AGE_S", 8.0)
    put(folder, "acme/orders.csv")
    assert [register_arrivals(harness.database, landing) for _ in range(3)] == [[], [], []]
    later(harness, 8.0)
    assert len(register_arrivals(harness.database, landing)) == 1


def test_a_file_without_a_line_end_waits_until_it_has_settled(harness, folder, landing):
    put(folder, "acme/orders.csv", "head\n1,10")
    assert [register_arrivals(harness.database, landing) for _ in range(3)] == [[], [], []]
    later(harness, 59.0)
    assert register_arrivals(harness.database, landing) == []
    with harness.database.begin() as transaction:
        assert recorded(transaction)["waiting"].names == ("acme/orders.csv",)
    later(harness, 1.0)
    assert len(register_arrivals(harness.database, landing)) == 1


def test_a_client_says_for_how_long_its_files_settle(harness, folder, landing):
    (folder / "slow").mkdir()
    for name in ("acme/orders.csv", "slow/orders.csv", "unknown/orders.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        put(folder, name, "head\n1,10")
    clients = Clients({"acme": Profile(settle_s=0), "slow": Profile(settle_s=600)})
    register_arrivals(harness.database, landing, clients)
    assert len(register_arrivals(harness.database, landing, clients)) == 1
    later(harness, 100.0)
    assert len(register_arrivals(harness.database, landing, clients)) == 1
    assert {client for client, _, _ in batches(harness)} == {"acme", "unknown"}
    later(harness, 500.0)
    assert len(register_arrivals(harness.database, landing, clients)) == 1


@pytest.mark.parametrize("name", ["orders.manifest.json", "orders.csv.manifest.json"])
def test_a_manifest_ends_the_waiting(harness, folder, landing, name):
    put(folder, "acme/orders.csv", "head\n1,10")
    assert twice(harness, landing) == []
    put(folder, f"acme/{name}", "{}")
    assert len(twice(harness, landing)) == 1


def test_what_is_left_alone_is_named_from_the_second_look_on_and_until_it_is_gone(harness, folder, landing):
    put(folder, "acme/orders.csv.filepart")
    register_arrivals(harness.database, landing)
    assert left_alone(harness) == set()
    register_arrivals(harness.database, landing)
    assert left_alone(harness) == {"acme/orders.csv.filepart"}
    (folder / "acme/orders.csv.filepart").rename(folder / "acme/orders.csv")
    assert len(twice(harness, landing)) == 1
    assert left_alone(harness) == set()


@pytest.mark.parametrize("objects", [1, 100])
def test_a_manifest_is_named_as_long_as_there_is_no_order_file_to_it(harness, folder, landing, objects, monkeypatch):
    monkeypatch.setattr("orders_pipeline.infrastructure.storage.folder.PAGE_OBJECTS", objects)
    composed, apart = "acme/ガ.csv", unicodedata.normalize("NFD", "acme/ガ.csv")
    manifests = ("orders.manifest.json", "orders.csv.manifest.json", "ORDERS.XLSX.manifest.json", "a.manifest.json")
    for name in (*manifests, "notes.manifest.json"):
        put(folder, f"acme/{name}", "{}")
    put(folder, f"{composed}.manifest.json", "{}")
    put(folder, "acme/notes.pdf")
    twice(harness, landing)
    alone = {f"acme/{name}" for name in manifests} | {f"{composed}.manifest.json"}
    assert left_alone(harness) == {*alone, "acme/notes.manifest.json", "acme/notes.pdf"}
    for name in ("acme/orders.csv", "acme/ORDERS.XLSX", "acme/a.TSV", apart):
        put(folder, name)
    twice(harness, landing)
    assert left_alone(harness) == {"acme/notes.manifest.json", "acme/notes.pdf"}
    found = listed(landing)["left_alone"]
    assert found.names == ("acme/notes.manifest.json", "acme/notes.pdf")


def test_many_names_are_counted_and_some_shown_so_that_they_do_no_harm(harness, folder, landing):
    for number in range(NAMES_SHOWN):
        put(folder, f"acme/{number:02}.bak")
    put(folder, "acme/\x1b[2J\n.bak")
    put(folder, f"acme/{'x' * 200}")
    twice(harness, landing)
    with harness.database.begin() as transaction:
        found = recorded(transaction)["left_alone"]
    assert found.count == NAMES_SHOWN + 2
    assert len(found.names) == NAMES_SHOWN
    assert found.names[0] == r"acme/\x1b[2J\n.bak"
    assert "and 2 more" in str(found)

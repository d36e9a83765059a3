"""Looking at a landing again and again, all at once or a stretch at a time: every version of every file is one batch."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orders_pipeline.clients.profiles import Clients, Profile
from orders_pipeline.infrastructure.storage import Page, Storage, StoredObject, open_storage
from orders_pipeline.infrastructure.storage.interface import PAGE_OBJECTS
from orders_pipeline.intake.landing import arrivals
from orders_pipeline.intake.landing.arrivals import register_arrivals
from orders_pipeline.intake.landing.left_alone import NAMES_SHOWN, in_words, listed, recorded
from orders_pipeline_tests.support.ledgers import Harness, order

pytestmark = pytest.mark.usefixtures("hasty_landing")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "acme").mkdir()
    return tmp_path


@pytest.fixture
def landing(folder: Path) -> Storage:
    return open_storage(str(folder), s3_endpoint_url=None, s3_kms_key_id=None)


def put(folder: Path, name: str, text: str = "x\n", at: int = 1_780_000_000) -> None:
    (folder / name).write_text(text)
    os.utime(folder / name, (at, at))


def batches(harness: Harness) -> list[tuple[str, str, str]]:
    rows = harness.run("SELECT client_code, csv_source, landing_key FROM batches ORDER BY landing_key, landing_version")
    return [(row["client_code"], row["csv_source"], row["landing_key"]) for row in rows]


def left_alone(harness: Harness, why: str = "left_alone") -> set[str]:
    with harness.database.begin() as transaction:
        return set(recorded(transaction)[why].names)


def later(harness: Harness, seconds: float) -> None:
    """Let what waits have been seen for so much longer."""
    harness.run("UPDATE landing_files SET first_seen_at = first_seen_at - make_interval(secs => %s)", seconds)


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


def test_at_most_the_limit_is_registered_in_one_look_and_none_is_lost(harness, folder, landing):
    for number in range(5):
        put(folder, f"acme/{number}.csv", at=1_780_000_000 + number)
    register_arrivals(harness.database, landing)
    assert [len(register_arrivals(harness.database, landing, limit=2)) for _ in range(4)] == [2, 2, 1, 0]
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


def rewrite(path: Path, text: str) -> None:
    """Write other bytes of the same length into the same file, and put its time back."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def refuse(harness: Harness, batch_id: str, code: str | None = None, twin: str | None = None) -> None:
    harness.run(
        """UPDATE batches SET status = 'rejected', status_code = %s, duplicate_of = %s, finished_at = now()
           WHERE batch_id = %s""",
        code,
        twin,
        batch_id,
    )


def cancel(harness: Harness, batch_id: str) -> None:
    """Note that a batch was cancelled."""
    harness.run(
        """UPDATE batches SET status = 'cancelled', cancelled_by = 'ops', cancelled_why = 'wrong', cancelled_at = now(),
                              finished_at = now() WHERE batch_id = %s""",
        batch_id,
    )


def read(harness: Harness, batch_id: str, path: Path) -> None:
    """Note what the batch's bytes are, as staging does."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    harness.run("UPDATE batches SET source_sha256 = %s WHERE batch_id = %s", sha256, batch_id)


def twice(harness: Harness, landing: Storage) -> list[str]:
    return [batch_id for _ in range(2) for batch_id in register_arrivals(harness.database, landing)]


def test_a_file_is_taken_only_once_it_was_seen_for_long_enough(harness, folder, landing, monkeypatch):
    monkeypatch.setattr(arrivals, "LEAST_AGE_S", 8.0)
    put(folder, "acme/orders.csv")
    assert [register_arrivals(harness.database, landing) for _ in range(3)] == [[], [], []]
    later(harness, 8.0)
    assert len(register_arrivals(harness.database, landing)) == 1


@pytest.mark.parametrize("replace", [True, False])
def test_another_file_of_the_same_name_size_and_time_is_another_batch(harness, folder, landing, replace):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv", "first\n")
    (batch_id,) = twice(harness, landing)
    assert twice(harness, landing) == []
    if replace:
        put(folder, "acme/new.tmp", "other\n")
        (folder / "acme/new.tmp").replace(path)
    else:
        rewrite(path, "other\n")
    assert twice(harness, landing) == []  # not before it is known what the first one's bytes were
    harness.run("UPDATE batches SET source_sha256 = %s", hashlib.sha256(b"first\n").hexdigest())
    (other,) = register_arrivals(harness.database, landing)
    assert other != batch_id
    assert twice(harness, landing) == []


def test_a_file_of_which_only_metadata_changed_is_no_other_batch(harness, folder, landing):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv")
    (batch_id,) = twice(harness, landing)
    read(harness, batch_id, path)
    for change in (
        lambda: path.chmod(0o600),
        lambda: (folder / "acme/link.tmp").hardlink_to(path),
        lambda: shutil.copy2(path, folder / "acme/copy.tmp") and (folder / "acme/copy.tmp").replace(path),
    ):
        change()
        assert twice(harness, landing) == []
        assert register_arrivals(harness.database, landing) == []
    assert harness.value("SELECT count(*) FROM landing_files WHERE batch_id = %s", batch_id) == 4
    assert len(batches(harness)) == 1


def test_a_refused_file_that_is_put_again_is_taken_again_however_alike_it_is(harness, folder, landing):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv")
    (batch_id,) = twice(harness, landing)
    read(harness, batch_id, path)
    refuse(harness, batch_id)
    assert twice(harness, landing) == []
    shutil.copy2(path, folder / "acme/copy.tmp")
    (folder / "acme/copy.tmp").replace(path)
    assert len(twice(harness, landing)) == 1


def test_a_file_that_was_away_is_another_batch_when_it_is_back_unchanged(harness, folder, landing):
    put(folder, "acme/orders.csv", "head\n1,10")  # as it lies there it has settled
    twice(harness, landing)
    later(harness, 60.0)
    (first,) = register_arrivals(harness.database, landing)
    folder.rename(folder.with_name("away"))
    folder.mkdir()
    refuse(harness, first, "F_GONE")
    assert twice(harness, landing) == []
    folder.rmdir()
    folder.with_name("away").rename(folder)
    (second,) = twice(harness, landing)
    assert second != first
    read(harness, second, folder / "acme/orders.csv")
    assert twice(harness, landing) == []
    harness.run("UPDATE batches SET status = 'loaded' WHERE batch_id = %s", second)
    assert twice(harness, landing) == []
    assert len(batches(harness)) == 2


def test_a_file_whose_twin_was_refused_is_another_batch_and_named_until_then(harness, folder, landing):
    put(folder, "acme/one.csv")
    (one,) = twice(harness, landing)
    put(folder, "acme/two.csv")
    (two,) = twice(harness, landing)
    refuse(harness, two, "F_DUPLICATE_FILE", twin=one)
    assert twice(harness, landing) == []
    assert left_alone(harness, "refused") == {"acme/two.csv"}
    cancel(harness, one)
    assert twice(harness, landing) == []  # nobody asked for the same orders from under another name
    assert left_alone(harness, "refused") == {"acme/one.csv", "acme/two.csv"}
    harness.run("UPDATE batches SET status = 'rejected' WHERE batch_id = %s", one)
    assert len(twice(harness, landing)) == 1
    twice(harness, landing)
    assert left_alone(harness, "refused") == {"acme/one.csv"}
    (folder / "acme/one.csv").unlink()
    register_arrivals(harness.database, landing)
    assert left_alone(harness, "refused") == set()


@pytest.mark.parametrize("was_read", [True, False])
def test_what_is_put_there_after_a_cancellation_unpaid_is_taken_however_alike_it_is(harness, folder, landing, was_read):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv", "first\n")
    (batch_id,) = twice(harness, landing)
    if was_read:
        read(harness, batch_id, path)
    cancel(harness, batch_id)
    assert twice(harness, landing) == []  # by itself it does not come again
    put(folder, "acme/new.tmp", "first\n" if was_read else "other\n")
    (folder / "acme/new.tmp").replace(path)
    assert len(twice(harness, landing)) == 1


def test_a_cancelled_file_does_not_come_again_for_other_rights_or_links(harness, folder, landing):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv", "first\n")
    put(folder, "acme/orders.manifest.json")
    (batch_id,) = twice(harness, landing)
    read(harness, batch_id, path)
    cancel(harness, batch_id)
    (folder / "acme/orders.manifest.json").chmod(0o600)
    assert twice(harness, landing) == []
    path.chmod(0o600)
    assert twice(harness, landing) == []
    (folder / "acme/link.tmp").hardlink_to(path)
    assert twice(harness, landing) + twice(harness, landing) == []
    assert left_alone(harness, "refused") == {"acme/orders.csv"}
    put(folder, "acme/orders.manifest.json", "another\n")
    assert len(twice(harness, landing)) == 1


@pytest.mark.parametrize("was_read", [True, False])
def test_a_cancelled_file_that_is_written_to_comes_again(harness, folder, landing, was_read):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv", "first\n")
    (batch_id,) = twice(harness, landing)
    if was_read:
        read(harness, batch_id, path)
    cancel(harness, batch_id)
    rewrite(path, "other\n")
    assert len(twice(harness, landing)) == 1


def test_bytes_of_a_batch_cancelled_when_some_was_paid_do_not_come_again(harness, folder, landing):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv")
    (batch_id,) = twice(harness, landing)
    read(harness, batch_id, path)
    cancel(harness, batch_id)
    harness.orders(order(1), batch_id=batch_id)
    harness.tamper("UPDATE orders SET status = 'paid' WHERE import_row_number = 1")
    shutil.copy2(path, folder / "acme/copy.tmp")
    (folder / "acme/copy.tmp").replace(path)
    assert twice(harness, landing) == []


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


def test_a_refused_file_is_taken_again_when_its_manifest_is_mended_and_a_loaded_one_is_not(harness, folder, landing):
    put(folder, "acme/orders.csv")
    put(folder, "acme/orders.manifest.json", '{"row_count": 2}')
    (first,) = twice(harness, landing)
    put(folder, "acme/orders.manifest.json", '{"row_count": 11}')
    assert twice(harness, landing) == []  # the first one is under way, and reads what is there
    refuse(harness, first)
    (second,) = twice(harness, landing)
    assert second != first
    put(folder, "acme/orders.manifest.json", '{"row_count": 111}')
    harness.run("UPDATE batches SET status = 'loaded' WHERE batch_id = %s", second)
    assert twice(harness, landing) == []
    assert len(batches(harness)) == 2


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


@pytest.fixture
def short_look(harness: Harness, landing: Storage, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A look that ends after one page of two objects."""
    monkeypatch.setattr("orders_pipeline.infrastructure.storage.folder.PAGE_OBJECTS", 2)
    monkeypatch.setattr(arrivals, "PAGES_AT_LEAST", 1)
    return lambda: register_arrivals(harness.database, landing, look_s=0.0)


def test_a_file_renamed_before_it_became_a_batch_is_taken_once_under_its_new_name(harness, folder, landing):
    put(folder, "acme/orders.csv")
    register_arrivals(harness.database, landing)
    (folder / "acme/orders.csv").rename(folder / "acme/renamed.csv")
    register_arrivals(harness.database, landing)
    assert len(register_arrivals(harness.database, landing)) == 1
    assert batches(harness) == [("acme", "renamed.csv", "acme/renamed.csv")]
    assert harness.value("SELECT count(*) FROM landing_files") == 1


def test_a_file_renamed_to_a_name_that_was_passed_already_is_found_in_the_next_round(harness, folder, short_look):
    for name in ("b", "c", "d", "e"):
        put(folder, f"acme/{name}.csv")
    for _ in range(6):
        short_look()
    assert len(batches(harness)) == 4
    put(folder, "acme/z.csv")
    short_look()  # up to c
    (folder / "acme/z.csv").rename(folder / "acme/a.csv")
    for _ in range(6):
        short_look()
    assert [key for _, _, key in batches(harness)] == [f"acme/{name}.csv" for name in "abcde"]


def test_a_look_goes_on_where_the_last_one_stopped_and_begins_again_at_the_end(harness, folder, short_look):
    for number in range(5):
        put(folder, f"acme/{number}.csv")
    stops = []
    for _ in range(3):
        assert short_look() == []
        stops.append(harness.value("SELECT after_key FROM landing_position"))
    assert stops == ["acme/1.csv", "acme/3.csv", ""]
    assert [len(short_look()) for _ in range(4)] == [2, 2, 1, 0]


def test_what_waits_in_another_stretch_of_the_landing_is_not_forgotten(harness, folder, short_look):
    for name in ("a", "b", "c", "d", "e"):
        put(folder, f"acme/{name}.csv")
    for _ in range(3):
        short_look()
    assert harness.value("SELECT count(*) FROM landing_files") == 5
    for gone in ("a", "e"):
        (folder / f"acme/{gone}.csv").unlink()
    short_look()  # b and c: a is seen to be gone, e is not looked at
    waiting = [row["key"] for row in harness.run("SELECT key FROM landing_files WHERE batch_id IS NULL ORDER BY key")]
    assert waiting == ["acme/d.csv", "acme/e.csv"]
    short_look()
    assert [key for _, _, key in batches(harness)] == ["acme/b.csv", "acme/c.csv", "acme/d.csv"]
    assert harness.value("SELECT count(*) FROM landing_files WHERE batch_id IS NULL") == 0


def test_without_the_position_a_look_begins_again_and_misses_nothing(harness, folder, short_look):
    for number in range(5):
        put(folder, f"acme/{number}.csv")
    for _ in range(4):
        short_look()
        harness.run("DELETE FROM landing_position")
    assert len(batches(harness)) == 2
    for _ in range(8):
        short_look()
    assert len(batches(harness)) == 5


def test_the_position_of_another_landing_does_no_harm(harness, folder, landing):
    harness.run("INSERT INTO landing_position (after_key) VALUES ('zzz/elsewhere.csv')")
    put(folder, "acme/orders.csv")
    for _ in range(3):
        register_arrivals(harness.database, landing)
    assert len(batches(harness)) == 1


class Listing:
    """A landing that only lists, in no time of its own; counts the pages it was asked for."""

    def __init__(self, objects: Sequence[StoredObject]) -> None:
        self.objects = sorted(objects, key=lambda each: each.key)
        self.pages_given = 0

    def head(self, key: str) -> StoredObject | None:
        return next((stored for stored in self.objects if stored.key == key), None)

    def pages(self, after: str = "") -> Iterator[Page]:
        left = [stored for stored in self.objects if stored.key > after]
        while True:
            page, left = left[:PAGE_OBJECTS], left[PAGE_OBJECTS:]
            self.pages_given += 1
            yield Page(tuple(page), page[-1].key if left else None)
            if not left:
                return


def objects(count: int, version: str = "v1", *, settled: bool = True) -> list[StoredObject]:
    now = datetime.now(UTC)
    return [
        StoredObject(f"client-{number % 20:02}/orders-{number:06}.csv", version, 100, now, settled)
        for number in range(count)
    ]


def test_a_few_thousand_objects_are_seen_in_one_look_however_slow_it_is(harness):
    listing = Listing(objects(arrivals.PAGES_AT_LEAST * PAGE_OBJECTS - 1, settled=False))
    register_arrivals(harness.database, listing, look_s=0.0)
    assert harness.value("SELECT count(*) FROM landing_files") == len(listing.objects)


def test_o11_a_look_asks_for_no_more_pages_than_it_has_time_for(harness):
    listing = Listing(objects(20_000, settled=False))
    for looks in range(1, 5):
        register_arrivals(harness.database, listing, look_s=0.0)
        assert listing.pages_given == looks * arrivals.PAGES_AT_LEAST
    assert harness.value("SELECT count(*) FROM landing_files") == 20_000


@pytest.mark.soak
def test_o11_among_a_hundred_thousand_files_a_look_is_short_and_new_ones_are_found_wherever_they_are(harness):
    known = objects(100_000)
    batch_id = harness.batch()
    harness.run(
        "INSERT INTO landing_files (key, version, size, batch_id) SELECT *, 1, %s FROM unnest(%s::text[], %s::text[])",
        batch_id,
        [stored.key for stored in known],
        [stored.version for stored in known],
    )
    arrived = [known[0], known[50_000], known[99_999]]
    new = [StoredObject(each.key[:-4] + "-new.csv", "v1", 1, each.modified, settled=True) for each in arrived]
    listing = Listing([*known, *new])
    found, looks = [], 0
    while True:
        began = time.thread_time()
        found += register_arrivals(harness.database, listing)
        assert time.thread_time() - began < 1.0
        looks += 1
        if harness.value("SELECT after_key FROM landing_position") == "":
            break
    assert len(found) == 3
    assert listing.pages_given == 101
    assert looks <= 20


def test_a_landing_full_of_new_files_is_taken_client_by_client(harness):
    flood = [StoredObject(f"acme/{number:05}.csv", "v1", 1, datetime.now(UTC), settled=True) for number in range(3_000)]
    late = StoredObject("beta/orders.csv", "v1", 1, datetime.now(UTC), settled=True)
    register_arrivals(harness.database, Listing([*flood, late]), limit=10)
    assert ("beta", "orders.csv", "beta/orders.csv") in batches(harness)
    assert len(batches(harness)) == 10


@pytest.mark.parametrize(
    "key", ["acme/" + "あ" * 338 + ".csv", "acme/'; DROP TABLE orders; --.csv", "acme/a\nb\x01.csv", "acme/か\u3099.csv"]
)
def test_o10_a_name_of_any_kind_and_of_the_longest_length_is_kept(harness, key):
    stored = StoredObject(key, "v" * 50, 1, datetime.now(UTC), settled=True)
    assert len(register_arrivals(harness.database, Listing([stored]))) == 1
    assert batches(harness) == [("acme", unicodedata.normalize("NFC", key.removeprefix("acme/")), key)]

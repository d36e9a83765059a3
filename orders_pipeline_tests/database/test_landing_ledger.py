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
from orders_pipeline.infrastructure.storage.port import PAGE_OBJECTS
from orders_pipeline.intake import landing as landing_module
from orders_pipeline.intake.landing import look
from orders_pipeline_tests.ledger_desk import Desk, order

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


def batches(desk: Desk) -> list[tuple[str, str, str]]:
    rows = desk.run("SELECT client_code, csv_source, landing_key FROM batches ORDER BY landing_key, landing_version")
    return [(row["client_code"], row["csv_source"], row["landing_key"]) for row in rows]


def left_alone(desk: Desk, why: str = "left_alone") -> set[str]:
    with desk.database.begin() as transaction:
        return set(landing_module.left_alone(transaction)[why].names)


def later(desk: Desk, seconds: float) -> None:
    """Let what waits have been seen for so much longer."""
    desk.run("UPDATE landing_files SET first_seen_at = first_seen_at - make_interval(secs => %s)", seconds)


def test_a_file_becomes_a_batch_at_the_second_look_and_never_again(desk, folder, landing):
    put(folder, "acme/orders.csv")
    assert look(desk.database, landing) == []
    (batch_id,) = look(desk.database, landing)
    assert [look(desk.database, landing) for _ in range(3)] == [[], [], []]
    assert batches(desk) == [("acme", "orders.csv", "acme/orders.csv")]
    assert desk.value("SELECT batch_id FROM landing_files") == batch_id


def test_o01_a_file_that_grows_waits_until_it_does_not(desk, folder, landing):
    for size in (1, 2, 3):
        put(folder, "acme/orders.csv", "x" * size + "\n")
        assert look(desk.database, landing) == []
    assert len(look(desk.database, landing)) == 1
    assert desk.value("SELECT count(*) FROM landing_files") == 1


def test_o05_a_file_replaced_after_it_became_a_batch_is_another(desk, folder, landing):
    for text in ("first\n", "second, longer\n"):
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


def test_o07_files_of_one_second_and_files_that_come_late_are_all_found(desk, folder, landing):
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
    strays = ("acme/.hidden.csv", "acme/orders.csv.part", "stray.csv", "acme/sub/orders.csv", "no client/orders.csv")
    for folders in ("acme/sub", "acme/.cache", "no client"):
        (folder / folders).mkdir()
    for name in ("acme/orders.manifest.json", "acme/.cache/x.csv", *strays):
        put(folder, name)
    (folder / "acme/link.csv").symlink_to(folder / "stray.csv")
    Path(os.fsdecode(os.fsencode(folder) + b"/acme/\x81\xff.csv")).write_text("x\n")
    assert [look(desk.database, landing) for _ in range(3)] == [[], [], []]
    assert desk.value("SELECT count(*) FROM landing_files") == 0
    others = {"acme/orders.manifest.json", "acme/.cache/", "acme/link.csv", r"acme/\x81\xff.csv"}
    assert left_alone(desk) == {*strays, *others}
    with desk.database.begin() as transaction:
        for found in (landing_module.left_alone(transaction), landing_module.left_in(landing)):  # status and tick, doctor
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
            (said,) = landing_module.in_words({"left_alone": found["left_alone"]})
            assert "left alone: 9 (" in said
            assert "; deeper than in a client's folder: acme/sub/orders.csv; " in said


def test_a_name_is_kept_as_the_client_chose_it(desk, folder, landing):
    put(folder, "acme/7月 注文 'a\".csv")
    look(desk.database, landing)
    look(desk.database, landing)
    assert batches(desk) == [("acme", "7月 注文 'a\".csv", "acme/7月 注文 'a\".csv")]


def test_two_hosts_that_look_at_once_make_one_batch_a_file(desk, folder, landing):
    for number in range(10):
        put(folder, f"acme/{number}.csv")
    look(desk.database, landing)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: look(desk.database, landing), range(3)))
    assert len(batches(desk)) == 10
    assert desk.value("SELECT count(*) FROM landing_files WHERE batch_id IS NULL") == 0


def rewrite(path: Path, text: str) -> None:
    """Write other bytes of the same length into the same file, and put its time back."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def refuse(desk: Desk, batch_id: str, code: str | None = None, twin: str | None = None) -> None:
    desk.run(
        """UPDATE batches SET status = 'rejected', status_code = %s, duplicate_of = %s, finished_at = now()
           WHERE batch_id = %s""",
        code,
        twin,
        batch_id,
    )


def cancel(desk: Desk, batch_id: str) -> None:
    """Note that a batch was cancelled."""
    desk.run(
        """UPDATE batches SET status = 'cancelled', cancelled_by = 'ops', cancelled_why = 'wrong', cancelled_at = now(),
                              finished_at = now() WHERE batch_id = %s""",
        batch_id,
    )


def read(desk: Desk, batch_id: str, path: Path) -> None:
    """Note what the batch's bytes are, as staging does."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    desk.run("UPDATE batches SET source_sha256 = %s WHERE batch_id = %s", sha256, batch_id)


def twice(desk: Desk, landing: Storage) -> list[str]:
    return [batch_id for _ in range(2) for batch_id in look(desk.database, landing)]


def test_a_file_is_taken_only_once_it_was_seen_for_long_enough(desk, folder, landing, monkeypatch):
    monkeypatch.setattr(landing_module, "LEAST_AGE_S", 8.0)
    put(folder, "acme/orders.csv")
    assert [look(desk.database, landing) for _ in range(3)] == [[], [], []]
    later(desk, 8.0)
    assert len(look(desk.database, landing)) == 1


@pytest.mark.parametrize("replace", [True, False])
def test_another_file_of_the_same_name_size_and_time_is_another_batch(desk, folder, landing, replace):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv", "first\n")
    (batch_id,) = twice(desk, landing)
    assert twice(desk, landing) == []
    if replace:
        put(folder, "acme/new.tmp", "other\n")
        (folder / "acme/new.tmp").replace(path)
    else:
        rewrite(path, "other\n")
    assert twice(desk, landing) == []  # not before it is known what the first one's bytes were
    desk.run("UPDATE batches SET source_sha256 = %s", hashlib.sha256(b"first\n").hexdigest())
    (other,) = look(desk.database, landing)
    assert other != batch_id
    assert twice(desk, landing) == []


def test_a_file_of_which_only_metadata_changed_is_no_other_batch(desk, folder, landing):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv")
    (batch_id,) = twice(desk, landing)
    read(desk, batch_id, path)
    for change in (
        lambda: path.chmod(0o600),
        lambda: (folder / "acme/link.tmp").hardlink_to(path),
        lambda: shutil.copy2(path, folder / "acme/copy.tmp") and (folder / "acme/copy.tmp").replace(path),
    ):
        change()
        assert twice(desk, landing) == []
        assert look(desk.database, landing) == []
    assert desk.value("SELECT count(*) FROM landing_files WHERE batch_id = %s", batch_id) == 4
    assert len(batches(desk)) == 1


def test_a_refused_file_that_is_put_again_is_taken_again_however_alike_it_is(desk, folder, landing):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv")
    (batch_id,) = twice(desk, landing)
    read(desk, batch_id, path)
    refuse(desk, batch_id)
    assert twice(desk, landing) == []
    shutil.copy2(path, folder / "acme/copy.tmp")
    (folder / "acme/copy.tmp").replace(path)
    assert len(twice(desk, landing)) == 1


def test_a_file_that_was_away_is_another_batch_when_it_is_back_unchanged(desk, folder, landing):
    put(folder, "acme/orders.csv", "head\n1,10")  # as it lies there it has settled
    twice(desk, landing)
    later(desk, 60.0)
    (first,) = look(desk.database, landing)
    folder.rename(folder.with_name("away"))
    folder.mkdir()
    refuse(desk, first, "F_GONE")
    assert twice(desk, landing) == []
    folder.rmdir()
    folder.with_name("away").rename(folder)
    (second,) = twice(desk, landing)
    assert second != first
    read(desk, second, folder / "acme/orders.csv")
    assert twice(desk, landing) == []
    desk.run("UPDATE batches SET status = 'loaded' WHERE batch_id = %s", second)
    assert twice(desk, landing) == []
    assert len(batches(desk)) == 2


def test_a_file_whose_twin_was_refused_is_another_batch_and_named_until_then(desk, folder, landing):
    put(folder, "acme/one.csv")
    (one,) = twice(desk, landing)
    put(folder, "acme/two.csv")
    (two,) = twice(desk, landing)
    refuse(desk, two, "F_DUPLICATE_FILE", twin=one)
    assert twice(desk, landing) == []
    assert left_alone(desk, "refused") == {"acme/two.csv"}
    cancel(desk, one)
    assert twice(desk, landing) == []  # nobody asked for the same orders from under another name
    assert left_alone(desk, "refused") == {"acme/one.csv", "acme/two.csv"}
    desk.run("UPDATE batches SET status = 'rejected' WHERE batch_id = %s", one)
    assert len(twice(desk, landing)) == 1
    twice(desk, landing)
    assert left_alone(desk, "refused") == {"acme/one.csv"}
    (folder / "acme/one.csv").unlink()
    look(desk.database, landing)
    assert left_alone(desk, "refused") == set()


@pytest.mark.parametrize("was_read", [True, False])
def test_what_is_put_there_after_a_cancellation_unpaid_is_taken_however_alike_it_is(desk, folder, landing, was_read):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv", "first\n")
    (batch_id,) = twice(desk, landing)
    if was_read:
        read(desk, batch_id, path)
    cancel(desk, batch_id)
    assert twice(desk, landing) == []  # by itself it does not come again
    put(folder, "acme/new.tmp", "first\n" if was_read else "other\n")
    (folder / "acme/new.tmp").replace(path)
    assert len(twice(desk, landing)) == 1


def test_a_cancelled_file_does_not_come_again_for_other_rights_or_links(desk, folder, landing):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv", "first\n")
    put(folder, "acme/orders.manifest.json")
    (batch_id,) = twice(desk, landing)
    read(desk, batch_id, path)
    cancel(desk, batch_id)
    (folder / "acme/orders.manifest.json").chmod(0o600)
    assert twice(desk, landing) == []
    path.chmod(0o600)
    assert twice(desk, landing) == []
    (folder / "acme/link.tmp").hardlink_to(path)
    assert twice(desk, landing) + twice(desk, landing) == []
    assert left_alone(desk, "refused") == {"acme/orders.csv"}
    put(folder, "acme/orders.manifest.json", "another\n")
    assert len(twice(desk, landing)) == 1


@pytest.mark.parametrize("was_read", [True, False])
def test_a_cancelled_file_that_is_written_to_comes_again(desk, folder, landing, was_read):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv", "first\n")
    (batch_id,) = twice(desk, landing)
    if was_read:
        read(desk, batch_id, path)
    cancel(desk, batch_id)
    rewrite(path, "other\n")
    assert len(twice(desk, landing)) == 1


def test_bytes_of_a_batch_cancelled_when_some_was_paid_do_not_come_again(desk, folder, landing):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv")
    (batch_id,) = twice(desk, landing)
    read(desk, batch_id, path)
    cancel(desk, batch_id)
    desk.orders(order(1), batch_id=batch_id)
    desk.tamper("UPDATE orders SET status = 'paid' WHERE import_row_number = 1")
    shutil.copy2(path, folder / "acme/copy.tmp")
    (folder / "acme/copy.tmp").replace(path)
    assert twice(desk, landing) == []


def test_a_file_without_a_line_end_waits_until_it_has_settled(desk, folder, landing):
    put(folder, "acme/orders.csv", "head\n1,10")
    assert [look(desk.database, landing) for _ in range(3)] == [[], [], []]
    later(desk, 59.0)
    assert look(desk.database, landing) == []
    with desk.database.begin() as transaction:
        assert landing_module.left_alone(transaction)["waiting"].names == ("acme/orders.csv",)
    later(desk, 1.0)
    assert len(look(desk.database, landing)) == 1


def test_a_client_says_for_how_long_its_files_settle(desk, folder, landing):
    (folder / "slow").mkdir()
    for name in ("acme/orders.csv", "slow/orders.csv", "unknown/orders.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        put(folder, name, "head\n1,10")
    clients = Clients({"acme": Profile(settle_s=0), "slow": Profile(settle_s=600)})
    look(desk.database, landing, clients)
    assert len(look(desk.database, landing, clients)) == 1
    later(desk, 100.0)
    assert len(look(desk.database, landing, clients)) == 1
    assert {client for client, _, _ in batches(desk)} == {"acme", "unknown"}
    later(desk, 500.0)
    assert len(look(desk.database, landing, clients)) == 1


@pytest.mark.parametrize("name", ["orders.manifest.json", "orders.csv.manifest.json"])
def test_a_manifest_ends_the_waiting(desk, folder, landing, name):
    put(folder, "acme/orders.csv", "head\n1,10")
    assert twice(desk, landing) == []
    put(folder, f"acme/{name}", "{}")
    assert len(twice(desk, landing)) == 1


def test_a_refused_file_is_taken_again_when_its_manifest_is_mended_and_a_loaded_one_is_not(desk, folder, landing):
    put(folder, "acme/orders.csv")
    put(folder, "acme/orders.manifest.json", '{"row_count": 2}')
    (first,) = twice(desk, landing)
    put(folder, "acme/orders.manifest.json", '{"row_count": 11}')
    assert twice(desk, landing) == []  # the first one is under way, and reads what is there
    refuse(desk, first)
    (second,) = twice(desk, landing)
    assert second != first
    put(folder, "acme/orders.manifest.json", '{"row_count": 111}')
    desk.run("UPDATE batches SET status = 'loaded' WHERE batch_id = %s", second)
    assert twice(desk, landing) == []
    assert len(batches(desk)) == 2


def test_what_is_left_alone_is_named_from_the_second_look_on_and_until_it_is_gone(desk, folder, landing):
    put(folder, "acme/orders.csv.filepart")
    look(desk.database, landing)
    assert left_alone(desk) == set()
    look(desk.database, landing)
    assert left_alone(desk) == {"acme/orders.csv.filepart"}
    (folder / "acme/orders.csv.filepart").rename(folder / "acme/orders.csv")
    assert len(twice(desk, landing)) == 1
    assert left_alone(desk) == set()


@pytest.mark.parametrize("objects", [1, 100])
def test_a_manifest_is_named_as_long_as_there_is_no_order_file_to_it(desk, folder, landing, objects, monkeypatch):
    monkeypatch.setattr("orders_pipeline.infrastructure.storage.folder.PAGE_OBJECTS", objects)
    composed, apart = "acme/ガ.csv", unicodedata.normalize("NFD", "acme/ガ.csv")
    manifests = ("orders.manifest.json", "orders.csv.manifest.json", "ORDERS.XLSX.manifest.json", "a.manifest.json")
    for name in (*manifests, "notes.manifest.json"):
        put(folder, f"acme/{name}", "{}")
    put(folder, f"{composed}.manifest.json", "{}")
    put(folder, "acme/notes.pdf")
    twice(desk, landing)
    alone = {f"acme/{name}" for name in manifests} | {f"{composed}.manifest.json"}
    assert left_alone(desk) == {*alone, "acme/notes.manifest.json", "acme/notes.pdf"}
    for name in ("acme/orders.csv", "acme/ORDERS.XLSX", "acme/a.TSV", apart):
        put(folder, name)
    twice(desk, landing)
    assert left_alone(desk) == {"acme/notes.manifest.json", "acme/notes.pdf"}
    found = landing_module.left_in(landing)["left_alone"]
    assert found.names == ("acme/notes.manifest.json", "acme/notes.pdf")


def test_many_names_are_counted_and_some_shown_so_that_they_do_no_harm(desk, folder, landing):
    for number in range(landing_module.NAMES_SHOWN):
        put(folder, f"acme/{number:02}.bak")
    put(folder, "acme/\x1b[2J\n.bak")
    put(folder, f"acme/{'x' * 200}")
    twice(desk, landing)
    with desk.database.begin() as transaction:
        found = landing_module.left_alone(transaction)["left_alone"]
    assert found.count == landing_module.NAMES_SHOWN + 2
    assert len(found.names) == landing_module.NAMES_SHOWN
    assert found.names[0] == r"acme/\x1b[2J\n.bak"
    assert "and 2 more" in str(found)


@pytest.fixture
def short_look(desk: Desk, landing: Storage, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A look that ends after one page of two objects."""
    monkeypatch.setattr("orders_pipeline.infrastructure.storage.folder.PAGE_OBJECTS", 2)
    monkeypatch.setattr(landing_module, "PAGES_AT_LEAST", 1)
    return lambda: look(desk.database, landing, look_s=0.0)


def test_a_file_renamed_before_it_became_a_batch_is_taken_once_under_its_new_name(desk, folder, landing):
    put(folder, "acme/orders.csv")
    look(desk.database, landing)
    (folder / "acme/orders.csv").rename(folder / "acme/renamed.csv")
    look(desk.database, landing)
    assert len(look(desk.database, landing)) == 1
    assert batches(desk) == [("acme", "renamed.csv", "acme/renamed.csv")]
    assert desk.value("SELECT count(*) FROM landing_files") == 1


def test_a_file_renamed_to_a_name_that_was_passed_already_is_found_in_the_next_round(desk, folder, short_look):
    for name in ("b", "c", "d", "e"):
        put(folder, f"acme/{name}.csv")
    for _ in range(6):
        short_look()
    assert len(batches(desk)) == 4
    put(folder, "acme/z.csv")
    short_look()  # up to c
    (folder / "acme/z.csv").rename(folder / "acme/a.csv")
    for _ in range(6):
        short_look()
    assert [key for _, _, key in batches(desk)] == [f"acme/{name}.csv" for name in "abcde"]


def test_a_look_goes_on_where_the_last_one_stopped_and_begins_again_at_the_end(desk, folder, short_look):
    for number in range(5):
        put(folder, f"acme/{number}.csv")
    stops = []
    for _ in range(3):
        assert short_look() == []
        stops.append(desk.value("SELECT after_key FROM landing_position"))
    assert stops == ["acme/1.csv", "acme/3.csv", ""]
    assert [len(short_look()) for _ in range(4)] == [2, 2, 1, 0]


def test_what_waits_in_another_stretch_of_the_landing_is_not_forgotten(desk, folder, short_look):
    for name in ("a", "b", "c", "d", "e"):
        put(folder, f"acme/{name}.csv")
    for _ in range(3):
        short_look()
    assert desk.value("SELECT count(*) FROM landing_files") == 5
    for gone in ("a", "e"):
        (folder / f"acme/{gone}.csv").unlink()
    short_look()  # b and c: a is seen to be gone, e is not looked at
    waiting = [row["key"] for row in desk.run("SELECT key FROM landing_files WHERE batch_id IS NULL ORDER BY key")]
    assert waiting == ["acme/d.csv", "acme/e.csv"]
    short_look()
    assert [key for _, _, key in batches(desk)] == ["acme/b.csv", "acme/c.csv", "acme/d.csv"]
    assert desk.value("SELECT count(*) FROM landing_files WHERE batch_id IS NULL") == 0


def test_without_the_position_a_look_begins_again_and_misses_nothing(desk, folder, short_look):
    for number in range(5):
        put(folder, f"acme/{number}.csv")
    for _ in range(4):
        short_look()
        desk.run("DELETE FROM landing_position")
    assert len(batches(desk)) == 2
    for _ in range(8):
        short_look()
    assert len(batches(desk)) == 5


def test_the_position_of_another_landing_does_no_harm(desk, folder, landing):
    desk.run("INSERT INTO landing_position (after_key) VALUES ('zzz/elsewhere.csv')")
    put(folder, "acme/orders.csv")
    for _ in range(3):
        look(desk.database, landing)
    assert len(batches(desk)) == 1


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


def test_a_few_thousand_objects_are_seen_in_one_look_however_slow_it_is(desk):
    listing = Listing(objects(landing_module.PAGES_AT_LEAST * PAGE_OBJECTS - 1, settled=False))
    look(desk.database, listing, look_s=0.0)
    assert desk.value("SELECT count(*) FROM landing_files") == len(listing.objects)


def test_o11_a_look_asks_for_no_more_pages_than_it_has_time_for(desk):
    listing = Listing(objects(20_000, settled=False))
    for looks in range(1, 5):
        look(desk.database, listing, look_s=0.0)
        assert listing.pages_given == looks * landing_module.PAGES_AT_LEAST
    assert desk.value("SELECT count(*) FROM landing_files") == 20_000


@pytest.mark.soak
def test_o11_among_a_hundred_thousand_files_a_look_is_short_and_new_ones_are_found_wherever_they_are(desk):
    known = objects(100_000)
    batch_id = desk.batch()
    desk.run(
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
        found += look(desk.database, listing)
        assert time.thread_time() - began < 1.0
        looks += 1
        if desk.value("SELECT after_key FROM landing_position") == "":
            break
    assert len(found) == 3
    assert listing.pages_given == 101
    assert looks <= 20


def test_a_landing_full_of_new_files_is_taken_client_by_client(desk):
    flood = [StoredObject(f"acme/{number:05}.csv", "v1", 1, datetime.now(UTC), settled=True) for number in range(3_000)]
    late = StoredObject("beta/orders.csv", "v1", 1, datetime.now(UTC), settled=True)
    look(desk.database, Listing([*flood, late]), limit=10)
    assert ("beta", "orders.csv", "beta/orders.csv") in batches(desk)
    assert len(batches(desk)) == 10


@pytest.mark.parametrize(
    "key", ["acme/" + "あ" * 338 + ".csv", "acme/'; DROP TABLE orders; --.csv", "acme/a\nb\x01.csv", "acme/か\u3099.csv"]
)
def test_o10_a_name_of_any_kind_and_of_the_longest_length_is_kept(desk, key):
    stored = StoredObject(key, "v" * 50, 1, datetime.now(UTC), settled=True)
    assert len(look(desk.database, Listing([stored]))) == 1
    assert batches(desk) == [("acme", unicodedata.normalize("NFC", key.removeprefix("acme/")), key)]

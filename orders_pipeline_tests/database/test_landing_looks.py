"""Looks at a landing that is larger than one look: pages, where the next one goes on, and nothing missed."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import pytest

from orders_pipeline.infrastructure.storage import Page, Storage, StoredObject
from orders_pipeline.infrastructure.storage.interface import PAGE_OBJECTS
from orders_pipeline.intake.landing import arrivals
from orders_pipeline.intake.landing.arrivals import register_arrivals
from orders_pipeline_tests.support.landing_folder import batches, put
from orders_pipeline_tests.support.ledgers import Harness

pytestmark = pytest.mark.usefixtures("hasty_landing")


@pytest.fixture
def short_look(harness: Harness, landing: Storage, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A look that ends after one page of two objects."""
    monkeypatch.setattr("orders_pipeline.infrastructure.storage.folder.PAGE_OBJECTS", 2)
    monkeypatch.setattr(arrivals, "PAGES_AT_LEAST", 1)
    monkeypatch.setattr(arrivals, "LOOK_S", 0.0)
    return lambda: register_arrivals(harness.database, landing)


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


def test_a_few_thousand_objects_are_seen_in_one_look_however_slow_it_is(harness, monkeypatch):
    monkeypatch.setattr(arrivals, "LOOK_S", 0.0)
    listing = Listing(objects(arrivals.PAGES_AT_LEAST * PAGE_OBJECTS - 1, settled=False))
    register_arrivals(harness.database, listing)
    assert harness.value("SELECT count(*) FROM landing_files") == len(listing.objects)


def test_o11_a_look_asks_for_no_more_pages_than_it_has_time_for(harness, monkeypatch):
    monkeypatch.setattr(arrivals, "LOOK_S", 0.0)
    listing = Listing(objects(20_000, settled=False))
    for looks in range(1, 5):
        register_arrivals(harness.database, listing)
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


def test_a_landing_full_of_new_files_is_taken_client_by_client(harness, monkeypatch):
    monkeypatch.setattr(arrivals, "MAX_NEW", 10)
    flood = [StoredObject(f"acme/{number:05}.csv", "v1", 1, datetime.now(UTC), settled=True) for number in range(3_000)]
    late = StoredObject("beta/orders.csv", "v1", 1, datetime.now(UTC), settled=True)
    register_arrivals(harness.database, Listing([*flood, late]))
    assert ("beta", "orders.csv", "beta/orders.csv") in batches(harness)
    assert len(batches(harness)) == 10


@pytest.mark.parametrize(
    "key", ["acme/" + "あ" * 338 + ".csv", "acme/'; DROP TABLE orders; --.csv", "acme/a\nb\x01.csv", "acme/か\u3099.csv"]
)
def test_o10_a_name_of_any_kind_and_of_the_longest_length_is_kept(harness, key):
    stored = StoredObject(key, "v" * 50, 1, datetime.now(UTC), settled=True)
    assert len(register_arrivals(harness.database, Listing([stored]))) == 1
    assert batches(harness) == [("acme", unicodedata.normalize("NFC", key.removeprefix("acme/")), key)]

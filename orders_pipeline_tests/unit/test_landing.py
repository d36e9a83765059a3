"""Which files of the landing are new: decided from a listing and a ledger alone, whatever the listing looks like."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from orders_pipeline import landing
from orders_pipeline.landing import READ_TRIES, Decision, in_turn, is_order_file, new_files, patiently
from orders_pipeline.storage import ObjectChanged, ObjectDenied, ObjectGone, StorageError, StoredObject

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


def stored(key: str = "acme/orders.csv", version: str = "v1", *, at: int = 0, settled: bool = True) -> StoredObject:
    return StoredObject(key, version, 100, NOON + timedelta(seconds=at), settled)


def growing(key: str = "acme/orders.csv", version: str = "v1", *, at: int = 0) -> StoredObject:
    return stored(key, version, at=at, settled=False)


def keys(decision: Decision) -> list[str]:
    return [each.key for each in decision.ready]


def taken(listing: Iterable[StoredObject], limit: int = 100) -> list[str]:
    return [each.key for each in in_turn(listing, limit)]


def test_an_empty_landing_comes_to_nothing():
    assert new_files([], {}, []) == Decision((), (), ())


def test_an_object_that_is_whole_becomes_a_batch_at_the_first_look():
    assert new_files([stored()], {}, []) == Decision((stored(),), (), ())


def test_a_version_that_is_a_batch_already_is_left_alone():
    assert new_files([stored()], {("acme/orders.csv", "v1"): "b-1"}, []) == Decision((), (), ())


def test_a_new_version_of_a_known_file_is_another_batch():
    decision = new_files([stored(version="v2")], {("acme/orders.csv", "v1"): "b-1"}, [])
    assert [each.version for each in decision.ready] == ["v2"]


def test_a_file_that_may_still_grow_is_only_remembered_at_the_first_look():
    assert new_files([growing()], {}, []) == Decision((), (growing(),), ())


def test_a_file_that_two_looks_show_alike_becomes_a_batch():
    seen = ("acme/orders.csv", "v1")
    assert new_files([growing()], {seen: None}, [seen]) == Decision((growing(),), (), ())


def test_a_file_that_grew_between_two_looks_starts_anew_under_its_new_version():
    seen = ("acme/orders.csv", "v1")
    assert new_files([growing(version="v2")], {}, [seen]) == Decision((), (growing(version="v2"),), (seen,))


def test_a_file_removed_before_it_settled_is_forgotten():
    seen = ("acme/orders.csv", "v1")
    assert new_files([], {}, [seen]) == Decision((), (), (seen,))


def test_a_file_put_back_after_it_was_forgotten_needs_two_looks_again():
    assert new_files([growing()], {}, []).ready == ()


def test_o07_however_a_listing_is_ordered_the_same_files_are_ready_and_taken_in_the_order_of_their_arrival():
    listing = [stored("acme/c.csv", at=3), stored("acme/a.csv", at=5), stored("acme/b.csv", at=1)]
    assert taken(new_files(listing, {}, []).ready) == ["acme/b.csv", "acme/c.csv", "acme/a.csv"]
    for other in permutations(listing):
        assert taken(new_files(other, {}, []).ready) == ["acme/b.csv", "acme/c.csv", "acme/a.csv"]


def test_a_file_older_than_those_already_taken_is_still_found():
    decision = new_files([stored("acme/late.csv", at=-3600), stored()], {("acme/orders.csv", "v1"): "b-1"}, [])
    assert keys(decision) == ["acme/late.csv"]


def test_files_of_the_same_second_are_all_found():
    listing = [stored(f"acme/{number:02}.csv") for number in range(30)]
    known: dict[tuple[str, str], str | None] = {("acme/00.csv", "v1"): "b-1"}
    assert keys(new_files(listing, known, [])) == [f"acme/{number:02}.csv" for number in range(1, 30)]


def test_what_waits_and_is_listed_is_never_forgotten():
    listing = [growing(f"acme/{number}.csv", at=number) for number in range(3)]
    seen = [(each.key, each.version) for each in listing]
    decision = new_files(listing, dict.fromkeys(seen), seen)
    assert (len(decision.ready), decision.remember, decision.forget) == (3, (), ())


def test_at_most_the_limit_is_taken_the_oldest_first():
    listing = [stored(f"acme/{number}.csv", at=-number) for number in range(5)]
    assert taken(listing, 2) == ["acme/4.csv", "acme/3.csv"]


def test_a_client_that_sends_a_thousand_files_does_not_hold_up_one_that_sends_two():
    flood = [stored(f"acme/{number:04}.csv", at=-1000 + number) for number in range(1000)]
    others = [stored("beta/1.csv", at=1), stored("beta/2.csv", at=2), stored("gamma/1.csv", at=3)]
    assert taken([*flood, *others], 6) == [
        "acme/0000.csv",
        "beta/1.csv",
        "gamma/1.csv",
        "acme/0001.csv",
        "beta/2.csv",
        "acme/0002.csv",
    ]


def test_files_of_one_client_in_several_folders_are_in_one_line():
    assert taken([stored("acme/b/1.csv", at=2), stored("acme/a.csv", at=3), stored("acme/c/1.csv", at=1)]) == [
        "acme/c/1.csv",
        "acme/b/1.csv",
        "acme/a.csv",
    ]


def test_the_same_version_listed_twice_in_one_look_does_not_count_as_two_looks():
    assert new_files([growing(), growing()], {}, []).ready == ()


def test_versions_are_told_apart_by_key_and_version_together():
    known: dict[tuple[str, str], str | None] = {("acme/a.csv", "v1"): "b-1", ("acme/b.csv", "v2"): "b-2"}
    assert keys(new_files([stored("acme/a.csv", "v2"), stored("acme/b.csv", "v1")], known, [])) == [
        "acme/a.csv",
        "acme/b.csv",
    ]


@pytest.mark.parametrize("key", ["acme/orders.csv", "acme/注文 7月.csv", "acme/sub/orders.csv", "A_1-z/x", "acme/a'b.csv"])
def test_a_file_in_a_clients_folder_is_an_order_file(key):
    assert is_order_file(stored(key))


@pytest.mark.parametrize(
    "key",
    [
        "orders.csv",
        "acme/",
        "/orders.csv",
        "",
        "acme/orders.manifest.json",
        "取引先/orders.csv",
        "a b/orders.csv",
        "../orders.csv",
        f"{'c' * 33}/orders.csv",
        "acme\n/orders.csv",
        "ａｃｍｅ/orders.csv",
    ],
)
def test_manifests_and_what_lies_outside_a_clients_folder_are_not_order_files(key):
    assert not is_order_file(stored(key))
    assert new_files([stored(key)], {}, []) == Decision((), (), ())


def test_a_manifest_seen_beside_its_file_does_not_hold_the_file_back():
    listing = [stored("acme/orders.manifest.json"), stored("acme/orders.csv")]
    assert keys(new_files(listing, {}, [])) == ["acme/orders.csv"]


class Reads:
    """Something to read that fails so many times first."""

    def __init__(self, error: type[StorageError], fails: int) -> None:
        self.error, self.fails, self.asked = error, fails, 0

    def __call__(self) -> str:
        self.asked += 1
        if self.asked <= self.fails:
            raise self.error
        return "rows"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(landing.time, "sleep", taken.append)
    return taken


@pytest.mark.parametrize("error", [ObjectGone, ObjectDenied])
def test_o08_what_cannot_be_read_for_a_moment_is_read_then(pauses: list[float], error: type[StorageError]):
    assert patiently(Reads(error, READ_TRIES - 1)) == "rows"
    assert pauses == [landing.READ_PAUSE_S] * (READ_TRIES - 1)


@pytest.mark.parametrize("error", [ObjectGone, ObjectDenied])
def test_o08_what_cannot_be_read_is_given_up_after_three_tries(pauses: list[float], error: type[StorageError]):
    reads = Reads(error, 99)
    with pytest.raises(error):
        patiently(reads)
    assert reads.asked == READ_TRIES == 3


def test_a_file_that_is_another_one_now_is_not_asked_for_again(pauses: list[float]):
    reads = Reads(ObjectChanged, 99)
    with pytest.raises(ObjectChanged):
        patiently(reads)
    assert (reads.asked, pauses) == (1, [])

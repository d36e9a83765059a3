"""Which files of the landing are new: decided from a listing and a ledger alone, whatever the listing looks like."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orders_pipeline.landing import Decision, is_order_file, new_files
from orders_pipeline.storage import StoredObject

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


def stored(key: str = "acme/orders.csv", version: str = "v1", *, at: int = 0, settled: bool = True) -> StoredObject:
    return StoredObject(key, version, 100, NOON + timedelta(seconds=at), settled)


def growing(key: str = "acme/orders.csv", version: str = "v1", *, at: int = 0) -> StoredObject:
    return stored(key, version, at=at, settled=False)


def keys(decision: Decision) -> list[str]:
    return [each.key for each in decision.register]


def test_an_empty_landing_comes_to_nothing():
    assert new_files([], {}, []) == Decision((), (), ())


def test_an_object_that_is_whole_becomes_a_batch_at_the_first_look():
    assert new_files([stored()], {}, []) == Decision((stored(),), (), ())


def test_a_version_that_is_a_batch_already_is_left_alone():
    assert new_files([stored()], {("acme/orders.csv", "v1"): "b-1"}, []) == Decision((), (), ())


def test_a_new_version_of_a_known_file_is_another_batch():
    decision = new_files([stored(version="v2")], {("acme/orders.csv", "v1"): "b-1"}, [])
    assert [each.version for each in decision.register] == ["v2"]


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
    assert new_files([growing()], {}, []).register == ()


def test_files_become_batches_in_the_order_of_their_arrival_however_they_are_listed():
    listing = [stored("acme/c.csv", at=3), stored("acme/a.csv", at=5), stored("acme/b.csv", at=1)]
    assert keys(new_files(listing, {}, [])) == ["acme/b.csv", "acme/c.csv", "acme/a.csv"]
    assert new_files(listing, {}, []) == new_files(reversed(listing), {}, [])


def test_a_file_older_than_those_already_taken_is_still_found():
    decision = new_files([stored("acme/late.csv", at=-3600), stored()], {("acme/orders.csv", "v1"): "b-1"}, [])
    assert keys(decision) == ["acme/late.csv"]


def test_files_of_the_same_second_are_all_found():
    listing = [stored(f"acme/{number:02}.csv") for number in range(30)]
    known: dict[tuple[str, str], str | None] = {("acme/00.csv", "v1"): "b-1"}
    assert keys(new_files(listing, known, [])) == [f"acme/{number:02}.csv" for number in range(1, 30)]


def test_at_most_the_limit_is_taken_at_once_and_the_rest_at_the_next_look():
    listing = [stored(f"acme/{number}.csv", at=number) for number in range(5)]
    first = new_files(listing, {}, [], limit=2)
    assert keys(first) == ["acme/0.csv", "acme/1.csv"]
    known: dict[tuple[str, str], str | None] = {(each.key, each.version): "b" for each in first.register}
    assert keys(new_files(listing, known, [], limit=2)) == ["acme/2.csv", "acme/3.csv"]


def test_what_the_limit_leaves_out_is_not_forgotten():
    listing = [growing(f"acme/{number}.csv", at=number) for number in range(3)]
    seen = [(each.key, each.version) for each in listing]
    decision = new_files(listing, dict.fromkeys(seen), seen, limit=1)
    assert (len(decision.register), decision.remember, decision.forget) == (1, (), ())


def test_the_same_version_listed_twice_in_one_look_does_not_count_as_two_looks():
    assert new_files([growing(), growing()], {}, []).register == ()


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

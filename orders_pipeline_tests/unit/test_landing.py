"""Which files of the landing are new: decided from a listing and a ledger alone, whatever the listing looks like."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from orders_pipeline.infrastructure.storage import ObjectChanged, ObjectDenied, ObjectGone, Page, StorageError, StoredObject
from orders_pipeline.intake import archive
from orders_pipeline.intake.archive import READ_TRIES, patiently
from orders_pipeline.intake.landing import arrivals
from orders_pipeline.intake.landing.arrivals import in_turn, is_complete
from orders_pipeline.intake.landing.decision import LEAST_AGE_S, Decision, Seen, new_files
from orders_pipeline.intake.landing.listing import Landed, is_manifest, is_order_file, with_manifests

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
WAITS = Seen(LEAST_AGE_S)  # seen for long enough
TAKEN = Seen(60.0, "b-1", sha256="abc")
UNDER_WAY = Seen(60.0, "b-1")  # its bytes were not read yet
REFUSED = Seen(60.0, "b-1", is_void=True, sha256="abc", code="F_ENCODING")
CANCELLED = Seen(60.0, "b-1", is_void=True)  # before anything was read


def stored(
    key: str = "acme/orders.csv", version: str = "v1", manifest: str = "", *, at: int = 0, settled: bool = True
) -> Landed:
    return Landed(StoredObject(key, version, 100, NOON + timedelta(seconds=at), settled), manifest)


def growing(key: str = "acme/orders.csv", version: str = "v1", manifest: str = "", *, at: int = 0) -> Landed:
    return stored(key, version, manifest, at=at, settled=False)


def keys(decision: Decision) -> list[str]:
    return [each.key for each in decision.ready]


def taken(listing: Iterable[Landed], limit: int = 100) -> list[str]:
    return [each.key for each in in_turn(listing)][:limit]


def test_an_empty_landing_comes_to_nothing():
    assert new_files([], {}, []) == Decision((), (), ())


def test_an_object_that_is_whole_becomes_a_batch_at_the_first_look():
    assert new_files([stored()], {}, []) == Decision((stored(),), (), ())


def test_a_version_that_is_a_batch_already_is_left_alone():
    assert new_files([stored()], {("acme/orders.csv", "v1"): TAKEN}, []) == Decision((), (), ())


def test_a_new_version_of_a_known_file_is_another_batch():
    decision = new_files([stored(version="v2")], {("acme/orders.csv", "v1"): TAKEN}, [])
    assert [each.version for each in decision.ready] == ["v2"]


def test_a_file_that_may_still_grow_is_only_remembered_at_the_first_look():
    assert new_files([growing()], {}, []) == Decision((), (growing(),), ())


def test_a_file_that_two_looks_show_alike_becomes_a_batch():
    seen = ("acme/orders.csv", "v1")
    assert new_files([growing()], {seen: WAITS}, [seen]) == Decision((growing(),), (), ())


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
    decision = new_files([stored("acme/late.csv", at=-3600), stored()], {("acme/orders.csv", "v1"): TAKEN}, [])
    assert keys(decision) == ["acme/late.csv"]


def test_files_of_the_same_second_are_all_found():
    listing = [stored(f"acme/{number:02}.csv") for number in range(30)]
    known = {("acme/00.csv", "v1"): TAKEN}
    assert keys(new_files(listing, known, [])) == [f"acme/{number:02}.csv" for number in range(1, 30)]


def test_what_waits_and_is_listed_is_never_forgotten():
    listing = [growing(f"acme/{number}.csv", at=number) for number in range(3)]
    seen = [(each.key, each.version) for each in listing]
    decision = new_files(listing, dict.fromkeys(seen, WAITS), seen)
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


def test_the_same_version_listed_twice_in_one_look_does_not_count_as_two_looks():
    assert new_files([growing(), growing()], {}, []).ready == ()


def test_versions_are_told_apart_by_key_and_version_together():
    known = {("acme/a.csv", "v1"): TAKEN, ("acme/b.csv", "v2"): TAKEN}
    assert keys(new_files([stored("acme/a.csv", "v2"), stored("acme/b.csv", "v1")], known, [])) == [
        "acme/a.csv",
        "acme/b.csv",
    ]


@pytest.mark.parametrize(
    "key",
    [
        "acme/orders.csv",
        "acme/注文 7月.CSV",
        "A_1-z/x.tsv",
        "acme/a'b.Txt",
        "acme/orders.2026-07.xlsx",
        "acme/orders.part.csv",
        "acme/か\u3099.csv",
    ],
)
def test_a_file_of_a_known_kind_in_a_clients_folder_is_an_order_file(key):
    assert is_order_file(key)


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
        "acme/sub/orders.csv",
        "acme/orders",
        "acme/.csv",
        "acme/.orders.csv",
        "acme/._orders.csv",
        "acme/.orders.csv.Xy12Ab",
        "acme/~$orders.xlsx",
        "acme/Thumbs.db",
        "acme/desktop.ini",
        "acme/.DS_Store",
        "acme/orders.csv~",
        "acme/orders.csv ",
        "acme/orders.xls",
        "acme/orders.gz",
        "acme/orders.tar.gz",
        "acme/orders.csv.zip.part",
        "acme/orders.csv._COPYING_",
        *(
            f"acme/orders.csv.{suffix}"
            for suffix in (
                "part",
                "filepart",
                "tmp",
                "partial",
                "crdownload",
                "upload",
                "bak",
                "swp",
                "inprogress",
                "download",
                "old",
                "1",
            )
        ),
    ],
)
def test_unfinished_and_foreign_files_and_what_lies_elsewhere_are_not_order_files(key):
    assert not is_order_file(key)


def test_a_manifest_is_one_in_a_clients_folder():
    assert is_manifest("acme/orders.csv.manifest.json")
    assert is_manifest("acme/orders.manifest.json")
    assert not any(map(is_manifest, ("orders.manifest.json", "acme/sub/x.manifest.json", "acme/.manifest.json")))


def test_two_looks_at_the_same_moment_are_not_two_looks():
    seen = ("acme/orders.csv", "v1")
    assert new_files([growing()], {seen: Seen(LEAST_AGE_S - 0.1)}, [seen]) == Decision((), (), ())


def test_another_file_of_the_same_size_and_time_is_compared_with_the_one_before_once_that_is_read():
    seen = {("acme/orders.csv", "t-100~1-1"): TAKEN}
    other = growing(version="t-100~2-2")
    assert new_files([other], seen, []).remember == (other,)
    seen["acme/orders.csv", "t-100~2-2"] = WAITS
    assert new_files([other], seen, []).compare == ((other, TAKEN),)
    seen["acme/orders.csv", "t-100~1-1"] = UNDER_WAY
    assert new_files([other], seen, []) == Decision((), (), ())


def test_a_refused_file_put_again_with_the_same_size_and_time_is_taken():
    seen = {("acme/orders.csv", "t-100~1-1"): REFUSED, ("acme/orders.csv", "t-100~2-2"): WAITS}
    assert keys(new_files([growing(version="t-100~2-2")], seen, [])) == ["acme/orders.csv"]


def test_another_file_is_taken_where_the_one_before_was_cancelled_unread():
    seen = {("acme/orders.csv", "t-100~1-1"): CANCELLED, ("acme/orders.csv", "t-100~2-2"): WAITS}
    assert keys(new_files([growing(version="t-100~2-2")], seen, [])) == ["acme/orders.csv"]


def refused(code: str, seconds: float = 60.0, *, has_refused_twin: bool = False) -> Seen:
    return Seen(seconds, "b-1", is_void=True, sha256=None, code=code, has_refused_twin=has_refused_twin)


@pytest.mark.parametrize(
    ("landed", "before", "is_over"),
    [
        (stored(), refused("F_GONE"), True),  # it is there
        (stored(), refused("F_CHANGED"), True),
        (stored(), refused("F_DENIED"), True),
        (stored(), refused("F_DUPLICATE_FILE"), False),
        (stored(), refused("F_DUPLICATE_FILE", has_refused_twin=True), True),
        (stored(), refused("F_MANIFEST_SHARED"), True),
        (replace(stored(), shares_manifest=True), refused("F_MANIFEST_SHARED"), False),
        (stored(), REFUSED, False),
        (stored(), CANCELLED, False),
    ],
)
def test_what_lies_there_after_a_refusal_is_taken_again_once_its_reason_is_over_and_named_until_then(
    landed, before, is_over
):
    decision = new_files([landed], {("acme/orders.csv", "v1"): before}, [])
    assert [each.batch_version for each in decision.ready] == (["v1 #1"] if is_over else [])
    assert decision.refused == (() if is_over else ("acme/orders.csv",))


def test_what_is_refused_again_and_again_is_taken_less_and_less_often():
    seen = {("acme/orders.csv", "v1"): refused("F_GONE", 9e9)}
    for again in range(1, 12):
        assert [each.again for each in new_files([stored()], seen, []).ready] == [again]
        seen["acme/orders.csv", f"v1 #{again}"] = refused("F_GONE", min(60 * 2 ** (again - 1), 3600) - 1)
        assert new_files([stored()], seen, []).ready == ()
        seen["acme/orders.csv", f"v1 #{again}"] = refused("F_GONE", min(60 * 2 ** (again - 1), 3600))


def test_what_came_again_and_was_loaded_stays_one_batch():
    seen = {("acme/orders.csv", "v1"): refused("F_GONE"), ("acme/orders.csv", "v1 #1"): TAKEN}
    assert new_files([stored()], seen, []) == Decision((), (), ())


@pytest.mark.parametrize(("before", "ready"), [(REFUSED, True), (TAKEN, False), (UNDER_WAY, False)])
def test_a_mended_manifest_makes_another_batch_only_where_nothing_was_loaded(before, ready):
    for earlier in ("v1", "v1 m1"):
        decision = new_files([stored(manifest="m2")], {("acme/orders.csv", earlier): before}, [])
        assert bool(decision.ready) is ready
        assert decision.compare == ()


def page(*keys: str, upto: str | None = None) -> Page:
    return Page(tuple(stored(key, f"v of {key}").stored for key in keys), upto)


def manifests(found: Iterable[Landed]) -> dict[str, str]:
    return {each.key: each.manifest.removeprefix("v of ") for each in found}


def test_a_file_has_its_own_manifest_or_the_one_named_without_its_ending():
    listing = page(*(f"acme/{name}" for name in ("a.csv", "a.csv.manifest.json", "a.manifest.json", "a.xlsx", "b.csv")))
    assert manifests(with_manifests(listing, "", lambda _: None)) == {
        "acme/a.csv": "acme/a.csv.manifest.json",
        "acme/a.xlsx": "acme/a.manifest.json",
        "acme/b.csv": "",
    }


def test_a_manifest_is_its_files_however_the_marks_of_both_names_are_written():
    listing = page("acme/か\u3099.csv", "acme/が.manifest.json")
    assert manifests(with_manifests(listing, "", lambda _: None)) == {"acme/か\u3099.csv": "acme/が.manifest.json"}


OTHERS = ("tsv", "txt", "xlsx")


def test_a_manifest_just_outside_of_a_page_is_looked_for():
    asked: list[str] = []

    def find(key: str) -> StoredObject | None:
        asked.append(key)
        return stored(key, "m1").stored if key == "acme/b.manifest.json" else None

    listing = page("acme/a.csv", "acme/b.csv", upto="acme/b.csv")
    assert manifests(with_manifests(listing, "", find)) == {"acme/a.csv": "", "acme/b.csv": "m1"}
    assert asked[:2] == ["acme/b.csv.manifest.json", "acme/b.manifest.json"]
    assert set(asked[2:]) == {f"acme/b.{ending}" for ending in (*OTHERS, "zip", "csv.gz", "tsv.gz", "txt.gz")}


@pytest.mark.parametrize("elsewhere", [None, "acme/a.tsv"])
def test_a_manifest_of_two_files_is_known_to_be_shared(elsewhere: str | None):
    names = ["acme/a.csv", "acme/a.manifest.json", "acme/b.csv"] + ([] if elsewhere else ["acme/a.tsv"])
    listing = page(*names, upto="acme/a.manifest.json" if elsewhere else None)
    found = with_manifests(listing, "", lambda key: stored(key).stored if key == elsewhere else None)
    assert {each.key: each.shares_manifest for each in found} == {
        "acme/a.csv": True,
        "acme/b.csv": False,
        **({} if elsewhere else {"acme/a.tsv": True}),
    }


def zipped(names: int = 1) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(names):
            archive.writestr(f"xl/{number}.xml", "<row/>" * 50)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "complete"),
    [
        ("a.csv", b"h\r\n1\r\n", True),
        ("a.csv", b"h\n1\n", True),
        ("a.TXT", b"h\r1\r", True),
        ("a.csv", b"h\n1\n\x1a", True),
        ("a.csv", b"h\n1,10", False),
        ("a.csv", b"", False),
        ("a.csv", b"h\n1\n" + bytes(50), False),
        ("a.csv", "\ufeffh\n1\n".encode(), True),
        ("a.csv", "\ufeffh\n1\n".encode("utf-16-le"), True),
        ("a.csv", "\ufeffh\n1\n".encode("utf-16-be"), True),
        ("a.csv", "\ufeffh\n1上".encode("utf-16-be"), False),
        ("a.csv", "\ufeffh\n1上".encode("utf-16-le"), False),
        ("a.csv", "\ufeffh\n1\n".encode("utf-16-le")[:-1], False),
        ("a.xlsx", zipped(), True),
        ("a.XLSX", zipped(3), True),
        ("a.xlsx", zipped()[:-1], False),
        ("a.xlsx", zipped() + b"\n", False),
        ("a.xlsx", b"h\n1\n", False),
        ("a.xlsx", zipped()[5:], False),
    ],
)
def test_a_file_is_complete_when_it_ends_as_one_does(name, content, complete):
    size = arrivals.EDGE_BYTES
    assert is_complete(name, len(content), content[:size], content[-size:]) is complete


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
    monkeypatch.setattr(archive.time, "sleep", taken.append)
    return taken


@pytest.mark.parametrize("error", [ObjectGone, ObjectDenied])
def test_o08_what_cannot_be_read_for_a_moment_is_read_then(pauses: list[float], error: type[StorageError]):
    assert patiently(Reads(error, READ_TRIES - 1)) == "rows"
    assert pauses == [archive.READ_PAUSE_S] * (READ_TRIES - 1)


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

"""What every store keeps, tried on a folder and on S3 (moto's server); what is peculiar to S3 is in test_storage_s3.py."""

from __future__ import annotations

import hashlib
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orders_pipeline.infrastructure.storage import (
    KeyRefused,
    ObjectChanged,
    ObjectGone,
    S3Storage,
    Storage,
    StoredObject,
    open_storage,
)
from orders_pipeline.infrastructure.storage.interface import PAGE_OBJECTS
from orders_pipeline_tests.support.s3_server import S3Harness, open_s3


@pytest.fixture(scope="module")
def harness() -> Iterator[S3Harness]:
    with open_s3() as opened:
        yield opened


@pytest.fixture
def bucket(harness: S3Harness) -> str:
    return harness.bucket()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(str(tmp_path / "store"), s3_endpoint_url=None, s3_kms_key_id=None)
    harness, bucket = request.getfixturevalue("harness"), request.getfixturevalue("bucket")
    return open_storage(f"s3://{bucket}/store", s3_endpoint_url=harness.server_url, s3_kms_key_id=None)


@pytest.fixture
def fill(store: Storage, request: pytest.FixtureRequest):
    """A function that puts many empty objects at once."""

    def put(keys: set[str]) -> None:
        if isinstance(store, S3Storage):
            request.getfixturevalue("harness").fill(request.getfixturevalue("bucket"), [f"store/{key}" for key in keys])
            return
        for key in keys:
            path = Path(store.location(key))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return put


@pytest.mark.parametrize("size", [0, 1, 3 * 1024 * 1024 + 1])
@pytest.mark.parametrize("kind", ["bytes", "file", "pieces"])
def test_what_was_put_is_fetched_byte_for_byte(store, tmp_path, size, kind):
    content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    (tmp_path / "source").write_bytes(content)
    pieces = (content[at : at + 65537] for at in range(0, size, 65537))
    stored = store.put("client/orders.csv", {"bytes": content, "file": tmp_path / "source", "pieces": pieces}[kind])
    target = tmp_path / "copy"
    assert store.fetch(stored, target) == hashlib.sha256(content).hexdigest()
    assert target.read_bytes() == content
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_an_object_is_described_the_same_by_put_head_and_list(store):
    stored = store.put("client/orders.csv", b"rows")
    assert (stored.key, stored.size) == ("client/orders.csv", 4)
    assert abs(stored.modified - datetime.now(UTC)) < timedelta(minutes=1)
    assert store.head("client/orders.csv") == stored
    assert list(store.list()) == [stored]


def test_an_object_put_again_is_another_version(store, tmp_path):
    first = store.put("a/x", b"first")
    second = store.put("a/x", b"second")
    assert first.version != second.version
    with pytest.raises(ObjectChanged):
        store.fetch(first, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    store.fetch(second, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"second"


def test_an_object_deleted_before_it_is_read_is_gone(store, tmp_path):
    stored = store.put("a/x", b"1")
    store.delete("a/x")
    store.delete("a/x")
    assert store.head("a/x") is None
    with pytest.raises(ObjectGone):
        store.fetch(stored, tmp_path / "copy")
    with pytest.raises(ObjectGone), store.local("a/x"):
        pass
    assert not (tmp_path / "copy").exists()


def test_a_listed_size_that_is_wrong_is_a_change(store, tmp_path):
    stored = store.put("a/x", b"1234")
    wrong = StoredObject(stored.key, stored.version, 5, stored.modified, stored.settled)
    with pytest.raises(ObjectChanged):
        store.fetch(wrong, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_local_file_can_be_read(store):
    store.put("a/x", b"rows")
    with store.local("a/x") as path:
        assert path.read_bytes() == b"rows"


def test_a_listing_by_prefix_is_relative_to_the_store(store):
    for key in ("landing/c1/a.csv", "landing/c2/b.csv", "batches/b-1/staged"):
        store.put(key, b"1")
    assert sorted(stored.key for stored in store.list("landing/")) == ["landing/c1/a.csv", "landing/c2/b.csv"]
    assert sorted(stored.key for stored in store.list("landing/c1")) == ["landing/c1/a.csv"]
    assert list(store.list("nothing/")) == []


def test_more_than_a_thousand_objects_are_all_listed_once(store, fill):
    keys = {f"many/{number:04}.csv" for number in range(2001)}
    fill(keys)
    assert Counter(stored.key for stored in store.list("many/")) == Counter(keys)


def all_pages(store, after=""):
    """Return the pages behind a key, sure that they lie as pages must."""
    pages = list(store.pages(after))
    assert [page.upto is None for page in pages] == [False] * (len(pages) - 1) + [True]
    for page in pages:
        for stored in page.objects:
            assert after < stored.key
            assert page.upto is None or stored.key <= page.upto
        after = page.upto or ""
    return pages


def test_pages_have_every_object_once_in_the_order_of_keys(store, fill):
    names = {f"{number:04}.csv" for number in range(PAGE_OBJECTS)}
    # folders whose names sort otherwise than the keys in them: '-' and '.' come before '/', '0' behind it
    keys = {f"{folder}/{name}" for folder in ("a", "a-b") for name in names} | {"a.csv", "a0.csv", "a/x/y.csv", "あ/い.csv"}
    fill(keys)
    pages = all_pages(store)
    assert [stored.key for page in pages for stored in page.objects] == sorted(keys)
    assert max(len(page.objects) for page in pages) <= PAGE_OBJECTS
    assert len(pages) == 3


def test_pages_go_on_behind_any_key_whether_or_not_it_is_there(store, fill):
    keys = {"a-b/1", "a/1", "a/2", "a/sub/3", "a0/1", "b/1", "あ/1"}
    fill(keys)
    for after in ("", *keys, "a", "a/", "a/1x", "a/sub", "a/sub/", "a/sub/9", "a0", "zz", "んん"):
        found = [stored.key for page in all_pages(store, after) for stored in page.objects]
        assert found == sorted(key for key in keys if key > after), after


def test_a_listing_of_whole_pages_ends_with_an_empty_one_or_at_once(store, fill):
    fill({f"a/{number:04}" for number in range(PAGE_OBJECTS)})
    assert sum(len(page.objects) for page in all_pages(store)) == PAGE_OBJECTS


def test_pages_have_hidden_files_and_uploads_under_way_too(store, fill):
    fill({f"a/{number:04}.part" for number in range(PAGE_OBJECTS - 1)} | {"a/.hidden", "b/orders.csv"})
    pages = all_pages(store)
    assert [len(page.objects) for page in pages] == [PAGE_OBJECTS, 1]
    assert pages[0].upto == "a/0998.part"


@pytest.mark.parametrize("size", [0, 1, 7, 100])
def test_both_ends_of_an_object_are_read(store, size):
    content = bytes(range(size))
    stored = store.put("a/x.csv", content)
    assert store.edges(stored, 7) == (content[:7], content[-7:])
    store.put("a/x.csv", b"another, and longer than before by far")
    if size:
        with pytest.raises(ObjectChanged):
            store.edges(stored, 7)


@pytest.mark.parametrize(
    "key",
    [
        "c/受注データ 2026年.csv",
        "c/か\u3099.csv",
        "c/a+b %20&=?#;'\".csv",
        "c/'; drop table orders; --.csv",
        "c/=cmd|calc.csv",
        "c/tab\tand\x7f.csv",
        "c/<b>&amp;.csv",
        "c/\U0001f600.csv",
        "c/" + "x" * 200,
    ],
)
def test_odd_names_are_only_names(store, tmp_path, key):
    stored = store.put(key, key.encode())
    assert [each.key for each in store.list()] == [key]
    assert store.head(key) == stored
    store.fetch(stored, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == key.encode()
    store.delete(key)
    assert list(store.list()) == []


@pytest.mark.parametrize("key", ["", "a\0b", "a/\ud800", "x" * 1100, "/".join(["x" * 200] * 6)])
def test_a_name_that_no_store_can_hold_is_refused_without_showing_it(store, key):
    with pytest.raises(KeyRefused) as caught:
        store.put(key, b"1")
    assert str(caught.value) == "E_STORAGE_KEY: the object's name is not usable"


def test_hidden_objects_and_uploads_under_way_are_not_listed(store):
    for key in ("a/x.csv", "a/.hidden", "a/x.csv.part", ".cache/y"):
        store.put(key, b"1")
    assert [stored.key for stored in store.list()] == ["a/x.csv"]


def test_a_reader_sees_the_old_or_the_new_object_and_never_a_mixture(store, tmp_path):
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    store.put("a/x", contents[0])
    done = threading.Event()

    def replace():
        for number in range(10):
            store.put("a/x", contents[number % 2])
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    seen = 0
    while not done.is_set() or seen == 0:
        try:
            store.fetch(store.head("a/x"), tmp_path / "copy")
        except ObjectChanged:
            continue
        seen += 1
        assert (tmp_path / "copy").read_bytes() in contents
    writer.join()


def test_what_is_kept_is_listed_and_read_like_anything_else(store):
    until = datetime.now(UTC) + timedelta(days=1)
    store.keep("heads/1.json", b"kept", until)
    store.put("headlines", b"put")
    assert list(store.kept("heads/")) == ["heads/1.json"]
    assert list(store.kept("none/")) == []
    with store.local("heads/1.json") as path:
        assert path.read_bytes() == b"kept"

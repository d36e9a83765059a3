"""What is peculiar to a folder as a store: names, links, growing files; the rest is in pipeline/test_storage_every.py."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from orders_pipeline.infrastructure.storage import (
    KeyRefused,
    ObjectChanged,
    ObjectDenied,
    ObjectGone,
    ObjectReplaced,
    StorageUnavailable,
    folder_tree,
    open_storage,
)
from orders_pipeline.infrastructure.storage.folder import FolderStorage
from orders_pipeline.security.encryption import Cipher

ESCAPES = ["../x", "a/../../x", "/etc/passwd", "a//x", "a/./x", "..", "", "a/", "a\0x", "a/\ud800"]


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root) -> FolderStorage:
    return FolderStorage(root)


@pytest.mark.parametrize("key", ESCAPES)
def test_a_key_never_leads_out_of_the_folder(store, root, tmp_path, key):
    (tmp_path / "x").write_bytes(b"outside")
    store.put("a/inside", b"1")
    for use in (store.head, store.delete, store.location, lambda k: store.put(k, b"2")):
        with pytest.raises(KeyRefused) as caught:
            use(key)
        assert str(caught.value) == "E_STORAGE_KEY: the object's name is not usable"
    assert (tmp_path / "x").read_bytes() == b"outside"
    assert [stored.key for stored in store.list()] == ["a/inside"]


@pytest.mark.parametrize("key", ["link", "folder/x"])
def test_a_link_out_of_the_folder_is_neither_listed_nor_followed(store, root, tmp_path, key):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"outside")
    store.put("real", b"1")
    (root / "link").symlink_to(outside / "x")
    (root / "folder").symlink_to(outside)
    stored = store.head("real")
    assert [each.key for each in store.list()] == ["real"]
    with pytest.raises((ObjectDenied, ObjectGone)), store.local(key):
        pass
    with pytest.raises((ObjectDenied, ObjectGone)):
        store.fetch(type(stored)(key, stored.version, 7, stored.modified, settled=False), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_file_in_the_way_of_a_folder_is_no_object_that_is_gone(store):
    store.put("folder", b"1")
    with pytest.raises(StorageUnavailable):
        store.put("folder/x", b"2")


def test_writing_through_a_linked_folder_is_refused_and_over_a_link_replaces_the_link(store, root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"outside")
    store.put("real", b"1")
    (root / "folder").symlink_to(outside)
    (root / "link").symlink_to(outside / "x")
    with pytest.raises(ObjectDenied):
        store.put("folder/x", b"2")
    store.put("link", b"2")
    assert (outside / "x").read_bytes() == b"outside"
    assert (root / "link").read_bytes() == b"2"


def test_hidden_files_and_uploads_under_way_are_not_listed(store, root):
    store.put("a/real.csv", b"1")
    for name in ("a/.hidden", "a/real2.csv.part", ".cache/x", "a/.~lock"):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"1")
    assert [stored.key for stored in store.list()] == ["a/real.csv"]


def test_a_pipe_is_no_object_and_does_not_make_us_wait(store, root, tmp_path):
    store.put("real", b"1")
    os.mkfifo(root / "pipe")
    assert store.head("pipe") is None
    assert [stored.key for stored in store.list()] == ["real"]
    with pytest.raises(ObjectGone), store.local("pipe"):
        pass


@pytest.mark.parametrize("name", ["受注データ.csv".encode(), "受注データ.csv".encode("cp932")])
def test_japanese_names_are_read_in_either_encoding(store, root, tmp_path, name):
    root.mkdir()
    Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(b"rows")
    (stored,) = store.list()
    assert stored.key == "受注データ.csv"
    assert store.head(stored.key) == stored
    store.fetch(stored, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"rows"


def test_two_names_that_read_alike_are_not_one_file(store, root):
    store.put("c/注文.csv", b"read")
    Path(os.fsdecode(os.fsencode(root) + b"/c/" + "注文.csv".encode("cp932"))).write_bytes(b"another's")
    assert [(stored.key, stored.size) for stored in store.list()] == [("c/注文.csv", 4)]
    (page,) = store.pages()
    assert page.others == (r"c/\x92\x8d\x95\xb6.csv",)  # named, as are all that are left alone


def test_a_line_break_in_a_name_is_part_of_it(store, tmp_path):
    stored = store.put("c/line\nbreak.csv", b"1")
    assert list(store.list()) == [stored]
    assert store.fetch(stored, tmp_path / "copy")


def test_a_name_in_no_known_encoding_is_left_out_with_a_warning(store, root, caplog):
    store.put("real", b"1")
    Path(os.fsdecode(os.fsencode(root) + b"/\x81\xff.csv")).write_bytes(b"rows")
    assert [stored.key for stored in store.list()] == ["real"]
    assert "left out" in caplog.text
    assert "csv" not in caplog.text


def test_a_file_may_still_grow_and_its_version_tells(store, root, tmp_path):
    stored = store.put("growing.csv", b"1")
    assert stored.settled is False
    with (root / "growing.csv").open("ab") as file:
        file.write(b"2")
    assert store.head("growing.csv").version != stored.version
    with pytest.raises(ObjectChanged):
        store.fetch(stored, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_file_that_grows_while_it_is_read_is_not_taken(store, root, tmp_path, monkeypatch):
    stored = store.put("growing.csv", b"1" * 100)

    def grow_then_read(file):
        with (root / "growing.csv").open("ab") as other:
            other.write(b"2")
        yield file.read()

    monkeypatch.setattr("orders_pipeline.infrastructure.storage.folder.chunks", grow_then_read)
    with pytest.raises(ObjectChanged):
        store.fetch(stored, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_files_are_for_us_alone_and_nothing_is_left_beside_them(store, root):
    old = os.umask(0)
    try:
        store.put("a/b/c.csv", b"1")
    finally:
        os.umask(old)
    assert (root / "a/b/c.csv").stat().st_mode & 0o777 == 0o600
    assert (root / "a").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (root / "a/b").iterdir()] == ["c.csv"]


def test_a_write_that_fails_leaves_what_was_there_and_no_remains(store, root, tmp_path):
    store.put("a/x.csv", b"before")
    with pytest.raises(ObjectGone) as caught:
        store.put("a/x.csv", tmp_path / "missing")
    assert "missing" not in str(caught.value)
    assert caught.value.__cause__ is None
    (root / "a/folder").mkdir()
    with pytest.raises(StorageUnavailable):
        store.put("a/folder", b"1")
    assert sorted(path.name for path in (root / "a").iterdir()) == ["folder", "x.csv"]
    assert (root / "a/x.csv").read_bytes() == b"before"


def test_what_another_process_removes_at_once_was_written_all_the_same(store, monkeypatch):
    sync = os.fsync

    def sync_late(descriptor: int) -> None:
        store.delete("installation/mark.json")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync_late)
    assert store.put("installation/mark.json", b"{}").size > 0
    assert store.head("installation/mark.json") is None


def test_a_name_of_the_longest_length_is_kept_and_a_longer_one_refused(store):
    assert store.put("a/" + "x" * 255, b"1").size == 1
    with pytest.raises(KeyRefused):
        store.put("a/" + "x" * 256, b"1")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_we_may_not_read_is_left_out_with_a_warning(store, root, caplog):
    store.put("open/x", b"1")
    store.put("closed/x", b"1")
    (root / "closed").chmod(0)
    assert [stored.key for stored in store.list()] == ["open/x"]
    assert "cannot be read" in caplog.text
    (root / "closed").chmod(0o700)


def test_a_store_that_does_not_exist_yet_is_empty(store, root):
    assert list(store.list()) == []
    assert store.head("x") is None
    store.delete("x")
    assert not root.exists()


def test_a_prefix_lists_only_what_is_below_it(store):
    for key in ("batches/b-1/a", "batches/b-1/b", "batches/b-10/a", "landing/x"):
        store.put(key, b"1")
    assert sorted(stored.key for stored in store.list("batches/b-1/")) == ["batches/b-1/a", "batches/b-1/b"]
    assert sorted(stored.key for stored in store.list("batches/b-1")) == [
        "batches/b-1/a",
        "batches/b-1/b",
        "batches/b-10/a",
    ]
    assert list(store.list("other/")) == []


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_a_folder_is_opened_by_path_or_file_url(tmp_path, form):
    folder = tmp_path / "a b"
    store = open_storage(
        form.format(folder).replace(" ", "%20" if "file" in form else " "), s3_endpoint_url=None, s3_kms_key_id=None
    )
    store.put("x", b"1")
    assert store.location("x") == str(folder / "x")


@pytest.mark.parametrize("url", ["", "s3://", "http://planted/x", "file://planted/x", "gs://planted"])
def test_another_url_is_refused_without_showing_it(url):
    with pytest.raises(ValueError, match=r"^a storage is") as caught:
        open_storage(url, s3_endpoint_url=None, s3_kms_key_id=None)
    assert "planted" not in str(caught.value)


def test_a_folder_does_without_boto3(store):
    import subprocess

    code = "import sys, orders_pipeline.infrastructure.storage; sys.exit('boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_folders_nested_without_end_are_listed_as_far_as_a_key_can_say_and_no_further(store, root, caplog):
    depth = root / "a"
    for _ in range(600):  # keys of more than 1,024 bytes, and deeper than calls may be nested
        depth /= "b"
    depth.mkdir(parents=True)
    store.put("a/b/c/orders.csv", b"1")
    (depth / "too-deep.csv").write_bytes(b"1")
    assert [stored.key for stored in store.list()] == ["a/b/c/orders.csv"]
    assert "left out" in caplog.text


def test_a_page_looks_only_at_the_files_it_is_asked_for(store, root, monkeypatch):
    for number in range(5):
        store.put(f"a/{number}", b"1")
    monkeypatch.setattr("orders_pipeline.infrastructure.storage.folder.PAGE_OBJECTS", 2)
    pages = store.pages()
    first = next(pages)
    store.put("a/3", b"changed meanwhile")
    assert [stored.key for stored in first.objects] == ["a/0", "a/1"]
    assert [stored.size for page in pages for stored in page.objects] == [1, 17, 1]


def test_a_file_that_goes_while_the_folder_is_listed_is_not_listed(store, root, monkeypatch):
    for number in range(4):
        store.put(f"a/{number}", b"1")
    monkeypatch.setattr("orders_pipeline.infrastructure.storage.folder.PAGE_OBJECTS", 2)
    pages = store.pages()
    next(pages)
    store.delete("a/2")
    assert [stored.key for page in pages for stored in page.objects] == ["a/3"]


@pytest.mark.parametrize("use", ["local", "put", "delete", "list"])
def test_a_folder_that_becomes_a_link_on_the_way_is_not_followed(store, root, tmp_path, monkeypatch, use):
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "inner" / "x").write_bytes(b"outside")
    store.put("client/inner/x", b"inside")
    entry = folder_tree._name_there

    def swap_then_look(folder, name):
        if name == "inner" and not (root / "client").is_symlink():
            (root / "client").rename(tmp_path / "moved")
            (root / "client").symlink_to(outside)
        return entry(folder, name)

    monkeypatch.setattr(folder_tree, "_name_there", swap_then_look)
    if use == "local":
        with store.local("client/inner/x") as path:
            assert path.read_bytes() == b"inside"
    elif use == "list":
        assert [stored.size for stored in store.list("client/inner/")] == []  # nor what lies outside
    else:
        store.put("client/inner/x", b"new") if use == "put" else store.delete("client/inner/x")
    assert (outside / "inner" / "x").read_bytes() == b"outside"


def sealing_stores(root: Path) -> tuple[FolderStorage, FolderStorage]:
    """Return a store under an old key, and the same one under a new key that knows the old one."""
    old, new = {"old": b"o" * 32}, {"new": b"n" * 32}
    return FolderStorage(root, Cipher(old, "old")), FolderStorage(root, Cipher(old | new, "new"))


def test_a_file_is_sealed_anew_as_it_was(root):
    before, after = sealing_stores(root)
    stored = before.put("a/x", b"content")
    (root / "a/x").chmod(0o400)
    after.reencrypt("a/x")
    assert after.encrypted_with("a/x") == "new"
    assert after.head("a/x").modified == stored.modified
    assert (root / "a/x").stat().st_mode & 0o777 == 0o400
    with after.local("a/x") as path:
        assert path.read_bytes() == b"content"


@pytest.mark.parametrize("meanwhile", ["put", "delete"])
def test_a_file_that_was_put_or_removed_meanwhile_stays_so(root, monkeypatch, meanwhile):
    before, after = sealing_stores(root)
    before.put("a/x", b"old content")
    write = after._write

    def write_and_be_late(*arguments):
        write(*arguments)
        before.put("a/x", b"new content") if meanwhile == "put" else before.delete("a/x")

    monkeypatch.setattr(after, "_write", write_and_be_late)
    with pytest.raises(ObjectChanged if meanwhile == "put" else ObjectGone):
        after.reencrypt("a/x")
    if meanwhile == "put":
        with after.local("a/x") as path:
            assert path.read_bytes() == b"new content"
    assert [path.name for path in (root / "a").iterdir()] == (["x"] if meanwhile == "put" else [])


def test_a_file_that_is_another_one_is_not_sealed_anew(root):
    before, after = sealing_stores(root)
    before.put("a/x", b"another")
    with pytest.raises(ObjectReplaced):
        after.reencrypt("a/x", "0" * 64)
    assert after.encrypted_with("a/x") == "old"


def test_a_strict_listing_names_what_cannot_be_looked_at(store, root, monkeypatch):
    for key in ("batches/a/x", "batches/b/x", "batches/c/x", "other/x"):
        store.put(key, b"1")
    (root / "batches/a/link").symlink_to(root / "other/x")
    entries, status = folder_tree._entries, folder_tree.file_status

    def failing_entries(folder, inside, after):
        if inside.key == "batches/b/":
            raise OSError(errno.EIO, "planted")
        return entries(folder, inside, after)

    def failing_status(folder, name):
        if name == "x" and os.path.samestat((root / "batches/c").stat(), os.fstat(folder)):
            raise PermissionError(errno.EACCES, "planted")
        return status(folder, name)

    monkeypatch.setattr(folder_tree, "_entries", failing_entries)
    monkeypatch.setattr(folder_tree, "file_status", failing_status)
    left_out: dict[str, str] = {}
    assert [stored.key for stored in store.list("batches/", left_out)] == ["batches/a/x"]
    assert left_out == {
        "batches/a/link": "E_STORAGE_KEY",
        "batches/b/": "E_STORAGE_UNAVAILABLE",
        "batches/c/x": "E_STORAGE_DENIED",
    }

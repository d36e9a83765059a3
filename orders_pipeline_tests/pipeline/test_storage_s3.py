"""What is peculiar to S3 (moto's server, over HTTP): names, pages, encryption, versions, and what breaks on the way.

What every store keeps is in test_storage_every.py.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orders_pipeline.cli import doctor
from orders_pipeline.infrastructure.storage import (
    ObjectChanged,
    ObjectDenied,
    ObjectGone,
    Storage,
    StorageUnavailable,
    StoredObject,
    open_storage,
)
from orders_pipeline.infrastructure.storage.s3 import DOWNLOAD_TRIES
from orders_pipeline_tests.support.s3_server import Line, S3Harness, Trouble, open_s3

KMS_KEY = "arn:aws:kms:us-east-1:123456789012:key/orders"
CONTENT = bytes(range(256)) * 10_000


@pytest.fixture(scope="module")
def harness() -> Iterator[S3Harness]:
    with open_s3() as opened:
        yield opened


@pytest.fixture
def raw(harness: S3Harness):
    """A client beside ours, to look at and change what is there."""
    return harness.raw


@pytest.fixture
def bucket(harness: S3Harness) -> str:
    return harness.bucket()


@pytest.fixture
def s3(harness: S3Harness, bucket: str) -> Storage:
    return open_storage(f"s3://{bucket}/store", s3_endpoint_url=harness.server_url, s3_kms_key_id=None)


@pytest.fixture
def line(harness: S3Harness) -> Iterator[Line]:
    """The line that `distant` reaches the server over."""
    harness.line.asked.clear()
    yield harness.line
    harness.line.troubles.clear()


@pytest.fixture
def distant(line: Line, bucket: str) -> Storage:
    return open_storage(f"s3://{bucket}/store", s3_endpoint_url=line.url, s3_kms_key_id=None)


@pytest.mark.parametrize("key", ["a//b", "a/../b", "/a", "../../x"])
def test_s3_names_that_look_like_paths_stay_names_below_the_prefix(s3, raw, bucket, tmp_path, key):
    stored = s3.put(key, b"1")
    assert [entry["Key"] for entry in raw.list_objects_v2(Bucket=bucket)["Contents"]] == [f"store/{key}"]
    s3.fetch(stored, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"1"


def test_s3_neighbours_of_the_prefix_are_not_ours(s3, raw, bucket):
    for key in ("storeroom/x", "x", "store/", "store/folder/"):
        raw.put_object(Bucket=bucket, Key=key, Body=b"")
    assert list(s3.list()) == []


def test_s3_objects_are_settled_and_found_by_a_person(s3, bucket):
    assert s3.put("a/x", b"1").settled is True
    assert s3.location("a/x") == f"s3://{bucket}/store/a/x"


def test_s3_a_local_download_is_private_in_memory_and_gone_afterwards(s3):
    s3.put("a/x", b"1")
    with s3.local("a/x") as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.readlink().name.startswith("memfd:")
    assert not path.exists()


@pytest.mark.parametrize("form", ["bytes", "file", "parts"])
def test_s3_every_write_asks_for_the_kms_key(harness, raw, bucket, tmp_path, monkeypatch, form):
    store = open_storage(f"s3://{bucket}/store", s3_endpoint_url=harness.server_url, s3_kms_key_id=KMS_KEY)
    source = tmp_path / "source"
    source.write_bytes(b"x" * (9 * 1024 * 1024 if form == "parts" else 10))
    if form == "parts":
        monkeypatch.setattr("orders_pipeline.infrastructure.storage.s3.MULTIPART_BYTES", 8 * 1024 * 1024)
    stored = store.put("a/x", source.read_bytes() if form == "bytes" else source)
    found = raw.head_object(Bucket=bucket, Key="store/a/x")
    assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", KMS_KEY)
    assert ("-" in stored.version) == (form == "parts")
    store.fetch(stored, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_s3_without_a_bucket_is_unavailable_and_says_no_name(harness):
    store = open_storage("s3://planted-name/x", s3_endpoint_url=harness.server_url, s3_kms_key_id=None)
    for use in (lambda: list(store.list()), lambda: store.put("k", b"1")):
        with pytest.raises(StorageUnavailable) as caught:
            use()
        assert "planted" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_s3_says_whether_nothing_answers_or_the_bucket_is_missing(harness):
    missing = open_storage("s3://planted-name/x", s3_endpoint_url=harness.server_url, s3_kms_key_id=None)
    with pytest.raises(StorageUnavailable, match="has no bucket of the name that is set"):
        missing.put("k", b"1")
    away = open_storage("s3://planted-name/x", s3_endpoint_url="http://127.0.0.1:9", s3_kms_key_id=None)
    with pytest.raises(StorageUnavailable, match="nothing answers at the storage's address"):
        away.head("k")


def test_s3_the_same_bytes_put_again_later_are_another_version(s3, raw, bucket, monkeypatch, tmp_path):
    first = s3.put("a/x", b"rows")
    second = first
    while second.modified == first.modified:  # times are whole seconds
        second = s3.put("a/x", b"rows")
    assert second.version != first.version
    assert second.version.partition("@")[0] == first.version.partition("@")[0]
    assert list(s3.list()) == [second]


def test_s3_a_bucket_that_keeps_versions_shows_the_newest_and_nothing_that_was_deleted(s3, raw, bucket, tmp_path):
    raw.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    old = s3.put("a/x", b"first")
    new = s3.put("a/x", b"second")
    s3.put("a/y", b"1")
    s3.delete("a/y")
    assert list(s3.list()) == [new]
    assert s3.head("a/y") is None
    with pytest.raises(ObjectChanged):
        s3.fetch(old, tmp_path / "copy")


def test_s3_what_is_deleted_in_a_bucket_that_keeps_versions_is_gone_unless_a_lock_keeps_it(harness, raw, bucket):
    def left(bucket: str) -> tuple[int, int]:
        answer = raw.list_object_versions(Bucket=bucket)
        return len(answer.get("Versions", ())), len(answer.get("DeleteMarkers", ()))

    def delete(bucket: str, **lock: object) -> None:
        s3 = open_storage(f"s3://{bucket}/store", s3_endpoint_url=harness.server_url, s3_kms_key_id=None)
        for body in (b"first", b"second"):
            raw.put_object(Bucket=bucket, Key="store/a/x", Body=body, **lock)
        s3.put("a/xy", b"another")
        s3.delete("a/x")
        assert [stored.key for stored in s3.list()] == ["a/xy"]

    raw.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    delete(bucket)
    assert left(bucket) == (1, 0)
    locked = f"{bucket}-locked"
    raw.create_bucket(Bucket=locked, ObjectLockEnabledForBucket=True)
    until = datetime.now(UTC) + timedelta(hours=1)
    delete(locked, ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)
    assert left(locked) == (3, 1)


def test_o01_s3_an_upload_in_parts_is_not_there_before_it_is_complete(s3, raw, bucket):
    upload = raw.create_multipart_upload(Bucket=bucket, Key="store/a/x")["UploadId"]
    part = raw.upload_part(Bucket=bucket, Key="store/a/x", UploadId=upload, PartNumber=1, Body=b"rows")
    assert list(s3.list()) == []
    assert s3.head("a/x") is None
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    raw.complete_multipart_upload(Bucket=bucket, Key="store/a/x", UploadId=upload, MultipartUpload=parts)
    assert [stored.size for stored in s3.list()] == [4]


@pytest.mark.parametrize("key", ["a/\0b", "a/" + "あ" * 341])
def test_s3_a_name_that_cannot_be_used_is_left_out_with_a_warning_and_the_rest_is_listed(s3, harness, bucket, caplog, key):
    harness.fill(bucket, [f"store/{key}", "store/a/orders.csv"])
    assert [stored.key for stored in s3.list()] == ["a/orders.csv"]
    assert "left out" in caplog.text
    assert "a/" not in caplog.text


def test_o09_s3_a_broken_download_goes_on_where_it_stopped(line, distant, tmp_path):
    stored = distant.put("a/x", CONTENT)
    line.troubles.append(Trouble("GET", "a/x", times=2))
    digest = distant.fetch(stored, tmp_path / "copy")
    assert digest == hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "copy").read_bytes() == CONTENT
    first, second, third = line.ranges("GET", "a/x")
    assert first is None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) < int(third.removeprefix("bytes=").rstrip("-"))


def test_o09_s3_a_download_that_keeps_breaking_is_given_up_and_leaves_nothing(line, distant, tmp_path):
    stored = distant.put("a/x", CONTENT)
    line.troubles.append(Trouble("GET", "a/x"))
    with pytest.raises(StorageUnavailable):
        distant.fetch(stored, tmp_path / "copy")
    assert len(line.ranges("GET", "a/x")) == DOWNLOAD_TRIES
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(("then", "error"), [("replaced", ObjectChanged), ("deleted", ObjectGone)])
def test_o02_s3_an_object_replaced_or_deleted_while_it_is_read_is_never_mixed(line, distant, s3, tmp_path, then, error):
    stored = distant.put("a/x", CONTENT)
    change = {"replaced": lambda: s3.put("a/x", CONTENT[::-1]), "deleted": lambda: s3.delete("a/x")}[then]
    line.troubles.append(Trouble("GET", "a/x", times=1, then=change))
    with pytest.raises(error):
        distant.fetch(stored, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("status", "error"), [(403, ObjectDenied), (401, ObjectDenied), (404, ObjectGone), (400, StorageUnavailable)]
)
def test_s3_refusals_have_a_code_each_and_one_try(line, distant, tmp_path, status, error):
    stored = distant.put("a/x", b"1")
    line.troubles.append(Trouble("GET", "a/x", status))
    with pytest.raises(error) as caught:
        distant.fetch(stored, tmp_path / "copy")
    assert str(caught.value) == f"{error.code}: {error.text}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert len(line.ranges("GET", "a/x")) == 1


def test_s3_a_store_that_is_busy_for_a_moment_is_asked_again(line, distant):
    line.troubles.append(Trouble("PUT", "a/x", 503, times=2))
    assert distant.put("a/x", b"rows").size == 4
    assert len(line.ranges("PUT", "a/x")) == 3


def test_s3_a_listing_that_breaks_half_way_says_so_instead_of_looking_complete(line, distant, harness, bucket):
    harness.fill(bucket, [f"store/a/{number:04}" for number in range(1001)])
    pages = distant.pages()
    assert len(next(pages).objects) == 1000
    line.troubles.append(Trouble("GET", bucket, 400))
    with pytest.raises(StorageUnavailable):
        next(pages)


def test_s3_a_full_disk_here_is_told_without_a_path(distant):
    stored = distant.put("a/x", b"1")
    with pytest.raises(StorageUnavailable) as caught:
        distant.fetch(stored, Path("/planted/missing/copy"))
    assert "planted" not in repr(caught.value)


def test_s3_a_size_that_was_listed_wrongly_is_a_change(s3, tmp_path):
    stored = s3.put("a/x", b"1234")
    shorter = StoredObject(stored.key, stored.version, 3, stored.modified, settled=True)
    with pytest.raises(ObjectChanged):
        s3.fetch(shorter, tmp_path / "copy")


def test_s3_the_doctor_finds_a_bucket_that_does_not_let_the_audit_be_kept(s3, distant, line, bucket):
    assert doctor._write_and_read(s3) == "written, read and deleted"
    line.troubles.append(Trouble("GET", bucket, 403))  # for its versions and its lock, which only the audit asks
    with pytest.raises(ObjectDenied):
        doctor._write_and_read(distant)


def test_s3_without_credentials_is_denied(harness, bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    store = open_storage(f"s3://{bucket}/store", s3_endpoint_url=harness.server_url, s3_kms_key_id=None)
    with pytest.raises(ObjectDenied):
        store.head("a/x")

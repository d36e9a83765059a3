"""What every store keeps, tried on a folder and on S3 (moto's server), and what is peculiar to S3."""

from __future__ import annotations

import hashlib
import stat
import threading
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from moto.backends import get_backend
from moto.server import ThreadedMotoServer

from orders_pipeline.storage import (
    KeyRefused,
    ObjectChanged,
    ObjectDenied,
    ObjectGone,
    S3Storage,
    StorageUnavailable,
    StoredObject,
    open_storage,
)
from orders_pipeline.storage.s3 import DOWNLOAD_TRIES

KMS_KEY = "arn:aws:kms:us-east-1:123456789012:key/orders"


@pytest.fixture(scope="module")
def s3_url():
    """A moto server in a thread; credentials and region are the test's own, and proxies lead nowhere."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        patch.setenv("http_proxy", "http://127.0.0.1:9")
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def raw(s3_url):
    """A client beside ours, to look at and change what is there."""
    from botocore.config import Config

    return boto3.client("s3", endpoint_url=s3_url, config=Config(proxies={}))


@pytest.fixture
def bucket(raw):
    name = f"orders-{uuid.uuid4()}"
    raw.create_bucket(Bucket=name)
    return name


@pytest.fixture
def s3(s3_url, bucket):
    return open_storage(f"s3://{bucket}/store", s3_endpoint_url=s3_url, s3_kms_key_id=None)


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        return request.getfixturevalue("s3")
    return open_storage(str(tmp_path / "store"), s3_endpoint_url=None, s3_kms_key_id=None)


# --- every store ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 3 * 1024 * 1024 + 1])
@pytest.mark.parametrize("as_file", [False, True])
def test_what_was_put_is_fetched_byte_for_byte(store, tmp_path, size, as_file):
    content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    (tmp_path / "source").write_bytes(content)
    stored = store.put("client/orders.csv", tmp_path / "source" if as_file else content)
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


def test_more_than_a_thousand_objects_are_all_listed_once(store, request):
    keys = {f"many/{number:04}.csv" for number in range(2001)}
    if isinstance(store, S3Storage):
        moto_bucket = request.getfixturevalue("bucket")
        for key in keys:  # past the server: a request each would take half a minute
            get_backend("s3")["123456789012"]["aws"].put_object(moto_bucket, f"store/{key}", b"")
    else:
        folder = Path(store.location("many"))
        folder.mkdir(parents=True)
        for key in keys:
            Path(store.location(key)).touch()
    assert Counter(stored.key for stored in store.list("many/")) == Counter(keys)


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


@pytest.mark.parametrize("key", ["", "a\0b", "a/\ud800", "x" * 1100])
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


# --- S3 ---------------------------------------------------------------------------------------------------------------


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


def test_s3_a_local_download_is_private_and_removed_afterwards(s3):
    s3.put("a/x", b"1")
    with s3.local("a/x") as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.parent.exists()


@pytest.mark.parametrize("form", ["bytes", "file", "parts"])
def test_s3_every_write_asks_for_the_kms_key(s3_url, raw, bucket, tmp_path, monkeypatch, form):
    store = open_storage(f"s3://{bucket}/store", s3_endpoint_url=s3_url, s3_kms_key_id=KMS_KEY)
    source = tmp_path / "source"
    source.write_bytes(b"x" * (9 * 1024 * 1024 if form == "parts" else 10))
    if form == "parts":
        monkeypatch.setattr("orders_pipeline.storage.s3.MULTIPART_BYTES", 8 * 1024 * 1024)
    stored = store.put("a/x", source.read_bytes() if form == "bytes" else source)
    found = raw.head_object(Bucket=bucket, Key="store/a/x")
    assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", KMS_KEY)
    assert ("-" in stored.version) == (form == "parts")
    store.fetch(stored, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_s3_without_a_bucket_is_unavailable_and_says_no_name(s3_url, raw):
    store = open_storage("s3://planted-name/x", s3_endpoint_url=s3_url, s3_kms_key_id=None)
    for use in (lambda: list(store.list()), lambda: store.put("k", b"1")):
        with pytest.raises(StorageUnavailable) as caught:
            use()
        assert "planted" not in f"{caught.value!r} {caught.value.__cause__!r}"


class FakeS3:
    """One object behind a server that breaks: `cuts` downloads end half way, `status` answers everything."""

    content = bytes(range(256)) * 10_000

    def __init__(self) -> None:
        self.etag = '"e1"'
        self.cuts = 0
        self.status = 0
        self.replaced_after_cut = False
        self.ranges: list[str | None] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                fake.answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        if self.status:
            handler.send_response(self.status)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        wanted = handler.headers["Range"]
        self.ranges.append(wanted)
        if handler.headers["If-Match"] != self.etag:
            handler.send_response(412)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = self.content[start:]
        handler.send_response(206 if wanted else 200)
        handler.send_header("ETag", self.etag)
        handler.send_header("Last-Modified", "Sun, 22 Nov 2026 00:00:00 GMT")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if self.cuts:
            self.cuts -= 1
            handler.wfile.write(body[: len(body) // 2])
            handler.close_connection = True
            if self.replaced_after_cut:
                self.etag = '"e2"'
            return
        handler.wfile.write(body)


@pytest.fixture
def fake(s3_url):
    server = FakeS3()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture
def broken(fake):
    return open_storage("s3://orders/store", s3_endpoint_url=fake.url, s3_kms_key_id=None)


def object_of(fake: FakeS3) -> StoredObject:
    return StoredObject("a/x", "e1", len(fake.content), datetime.now(UTC), settled=True)


def test_s3_a_broken_download_goes_on_where_it_stopped(fake, broken, tmp_path):
    fake.cuts = 2
    digest = broken.fetch(object_of(fake), tmp_path / "copy")
    assert digest == hashlib.sha256(fake.content).hexdigest()
    assert (tmp_path / "copy").read_bytes() == fake.content
    assert [wanted is None for wanted in fake.ranges] == [True, False, False]


def test_s3_a_download_that_keeps_breaking_is_given_up_and_leaves_nothing(fake, broken, tmp_path):
    fake.cuts = 99
    with pytest.raises(StorageUnavailable):
        broken.fetch(object_of(fake), tmp_path / "copy")
    assert len(fake.ranges) == DOWNLOAD_TRIES
    assert not (tmp_path / "copy").exists()


def test_s3_an_object_replaced_while_it_is_read_is_never_mixed(fake, broken, tmp_path):
    fake.cuts, fake.replaced_after_cut = 1, True
    with pytest.raises(ObjectChanged):
        broken.fetch(object_of(fake), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("status", "error"), [(403, ObjectDenied), (401, ObjectDenied), (404, ObjectGone), (400, StorageUnavailable)]
)
def test_s3_refusals_have_a_code_each_and_one_try(fake, broken, tmp_path, status, error):
    fake.status = status
    with pytest.raises(error) as caught:
        broken.fetch(object_of(fake), tmp_path / "copy")
    assert str(caught.value) == f"{error.code}: {error.text}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_s3_a_full_disk_here_is_told_without_a_path(fake, broken):
    with pytest.raises(StorageUnavailable) as caught:
        broken.fetch(object_of(fake), Path("/planted/missing/copy"))
    assert "planted" not in repr(caught.value)


def test_s3_without_credentials_is_denied(fake, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    store = open_storage("s3://orders/store", s3_endpoint_url=fake.url, s3_kms_key_id=None)
    with pytest.raises(ObjectDenied):
        store.head("a/x")

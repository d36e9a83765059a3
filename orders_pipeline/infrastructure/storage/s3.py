"""The store in an S3 bucket: the only module that knows what S3 answers.

What every store does is said in `interface.py`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orders_pipeline.infrastructure.scratch import scratch_files
from orders_pipeline.infrastructure.storage.interface import (
    LEFT_OUT,
    MIB,
    BucketMissing,
    KeyRefused,
    ObjectChanged,
    ObjectDenied,
    ObjectGone,
    Page,
    StorageError,
    StorageNotPrivate,
    StorageUnavailable,
    StorageUnreachable,
    StoredObject,
    fetched_file,
    is_key,
    is_listed,
    readable,
    require_same,
)
from orders_pipeline.security.aws_client import aws_client

logger = logging.getLogger(__name__)

MULTIPART_BYTES = 64 * MIB  # from here on an upload goes in parts
DOWNLOAD_TRIES = 3
READ_TIMEOUT_S = 60
SERVICE_TRIES = 4


class S3Storage:
    """A bucket, or what lies below a prefix in it; every write is encrypted under the KMS key where there is one."""

    def __init__(
        self, bucket: str, prefix: str, *, endpoint_url: str | None, kms_key_id: str | None, ca_file: Path | None
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._endpoint_url = endpoint_url
        self._ca_file = ca_file
        self._encryption: dict[str, object] = {}
        if kms_key_id is not None:
            self._encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id}

    @functools.cached_property
    def _client(self) -> Any:  # noqa: ANN401 - boto3 makes its classes at run time
        return aws_client(
            "s3",
            self._endpoint_url,
            self._ca_file,
            tries=SERVICE_TRIES,
            read_timeout_s=READ_TIMEOUT_S,
            max_pool_connections=32,
            s3={"addressing_style": "path" if self._endpoint_url else "auto"},
        )

    def list(self, prefix: str = "", left_out: dict[str, str] | None = None) -> Iterator[StoredObject]:
        """List page by page."""
        for page in self._pages(prefix, ""):
            if left_out is not None:
                left_out |= dict.fromkeys(page.others, KeyRefused.code)
            elif page.others:
                logger.warning(LEFT_OUT)
            yield from (found for found in page.objects if is_listed(found.key))

    def pages(self, after: str = "") -> Iterator[Page]:
        """List page by page, as S3 does: keys in the order of their bytes."""
        return self._pages("", after)

    def _pages(self, prefix: str, after: str) -> Iterator[Page]:
        request = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        if after:
            request["StartAfter"] = self._prefix + after
        with _s3_errors():
            for answer in self._client.get_paginator("list_objects_v2").paginate(**request):
                entries = answer.get("Contents", ())
                keys = [entry["Key"].removeprefix(self._prefix) for entry in entries]
                after = max(keys, default=after)
                found = [
                    _described(key, entry, entry["Size"])
                    for key, entry in zip(keys, entries, strict=True)
                    if is_key(key) and not key.endswith("/")  # such an object is a folder's mark
                ]
                others = [key.encode("unicode_escape").decode() for key in keys if key and not is_key(key)]
                yield Page(tuple(found), after if answer.get("IsTruncated") else None, tuple(others))

    def head(self, key: str) -> StoredObject | None:
        """Return the object under `key`, or None."""
        try:
            with _s3_errors():
                found = self._client.head_object(Bucket=self._bucket, Key=self._full(key))
        except ObjectGone:
            return None
        return _described(key, found, found["ContentLength"])

    def edges(self, stored: StoredObject, length: int) -> tuple[bytes, bytes]:
        """Ask for both ends of this version."""
        if not stored.size:
            return b"", b""
        ranges = (f"bytes=0-{length - 1}", f"bytes=-{length}")
        with _s3_errors():
            first, last = (self._client.get_object(**self._exactly(stored), Range=each)["Body"].read() for each in ranges)
        return first, last

    def fetch(self, stored: StoredObject, target: Path) -> str:
        """Download this version, going on where a broken download stopped."""
        with _s3_errors(), fetched_file(target) as (write, digest):
            if self._download(stored, write) != stored.size:
                raise ObjectChanged
            return digest()

    def _download(self, stored: StoredObject, write: Callable[[bytes], object]) -> int:
        """Write the object's bytes and return how many there were."""
        from botocore.exceptions import HTTPClientError, IncompleteReadError  # noqa: PLC0415

        position = 0
        request = self._exactly(stored)
        for tries_left in reversed(range(DOWNLOAD_TRIES)):
            rest = {"Range": f"bytes={position}-"} if position else {}
            body = self._client.get_object(**request, **rest)["Body"]
            try:
                for chunk in body.iter_chunks(MIB):
                    write(chunk)
                    position += len(chunk)
            except (HTTPClientError, IncompleteReadError):
                if not tries_left or position >= stored.size:
                    raise
            else:
                break
        return position

    def put(self, key: str, source: Path | bytes | Iterator[bytes]) -> StoredObject:
        """Upload in one request, or in parts where it is large; readers see the old or the new object."""
        full = self._full(key)
        with _s3_errors(), readable(source) as file:
            if isinstance(source, bytes) or (isinstance(source, Path) and source.stat().st_size < MULTIPART_BYTES):
                self._client.put_object(Bucket=self._bucket, Key=full, Body=file, **self._encryption)
            else:
                self._client.upload_fileobj(file, self._bucket, full, ExtraArgs=self._encryption, Config=self._in_turn)
        found = self.head(key)
        if found is None:
            raise ObjectChanged
        return found

    @functools.cached_property
    def _in_turn(self) -> Any:  # noqa: ANN401 - boto3's
        from boto3.s3.transfer import TransferConfig  # noqa: PLC0415

        return TransferConfig(use_threads=False)  # a part at a time is in memory

    def keep(self, key: str, source: Path | bytes, until: datetime, *, seldom_read: bool = False) -> None:
        """Upload in one request, locked until then where the bucket has Object Lock."""
        options = self._encryption | {"ChecksumAlgorithm": "SHA256"}
        if seldom_read:
            options |= {"StorageClass": "GLACIER_IR"}
        if self._can_lock and until > datetime.now(UTC):
            options |= {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
        with _s3_errors(), contextlib.nullcontext(source) if isinstance(source, bytes) else source.open("rb") as body:
            self._client.put_object(Bucket=self._bucket, Key=self._full(key), Body=body, **options)

    def forget(self, key: str) -> None:
        """Remove every version of the object and the marks of its deletion."""
        full = self._full(key)
        with _s3_errors():
            for answer in self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=full):
                for entry in (*answer.get("Versions", ()), *answer.get("DeleteMarkers", ())):
                    if entry["Key"] == full:
                        self._client.delete_object(Bucket=self._bucket, Key=full, VersionId=entry["VersionId"])

    @functools.cached_property
    def _can_lock(self) -> bool:
        from botocore.exceptions import ClientError  # noqa: PLC0415

        with _s3_errors():
            try:
                answer = self._client.get_object_lock_configuration(Bucket=self._bucket)
            except ClientError as error:
                if error.response["Error"]["Code"] == "ObjectLockConfigurationNotFoundError":
                    return False
                raise
        return bool(answer["ObjectLockConfiguration"].get("ObjectLockEnabled") == "Enabled")

    def kept(self, prefix: str) -> Iterator[str]:
        """Return the keys beginning with `prefix`, also those behind a delete marker."""
        seen = ""
        with _s3_errors():
            pages = self._client.get_paginator("list_object_versions")
            for answer in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for entry in answer.get("Versions", ()):
                    if entry["Key"] != seen:
                        seen = entry["Key"]
                        yield seen.removeprefix(self._prefix)

    @contextlib.contextmanager
    def local(self, key: str, sha256: str | None = None) -> Iterator[Path]:
        """Lend a download."""
        stored = self.head(key)
        if stored is None:
            raise ObjectGone
        with scratch_files() as scratch:
            require_same(self.fetch(stored, scratch / "object"), sha256)
            yield scratch / "object"

    def encrypted_with(self, key: str) -> str | None:  # noqa: ARG002
        """Leave the object to KMS, which keeps what a key of it encrypted readable by itself."""
        return None

    def reencrypt(self, key: str, sha256: str | None = None) -> None:
        """Leave the object to KMS."""

    def delete(self, key: str) -> None:
        """Remove the object if it is there, and its versions; where these may not be removed, hide them behind a marker."""
        try:
            self.forget(key)
        except ObjectDenied:  # a lock of the bucket's own, or nobody lets us remove versions
            with _s3_errors():
                self._client.delete_object(Bucket=self._bucket, Key=self._full(key))

    def location(self, key: str) -> str:
        """Return the object's `s3://` URL."""
        return f"s3://{self._bucket}/{self._full(key)}"

    def _exactly(self, stored: StoredObject) -> dict[str, str]:
        etag = stored.version.partition("@")[0]
        return {"Bucket": self._bucket, "Key": self._full(stored.key), "IfMatch": f'"{etag}"'}

    def _full(self, key: str) -> str:
        full = self._prefix + key
        if not key or not is_key(full):
            raise KeyRefused
        return full


def _described(key: str, answer: Mapping[str, Any], size: int) -> StoredObject:
    # The ETag, because listings have no version ids; and when, for the same bytes put again are sent again
    modified = answer["LastModified"]
    version = answer["ETag"].strip('"') + f"@{int(modified.timestamp())}"
    return StoredObject(key, version, size, modified, settled=True)


_DENIED_STATUSES = {401, 403}  # their codes are many
# codes of the service and classes of boto3 that mean one of ours
_MEANS: Mapping[type[StorageError], Set[str]] = {
    ObjectGone: {"404", "NoSuchKey"},
    ObjectChanged: {"412", "PreconditionFailed", "ConditionalRequestConflict"},
    ObjectDenied: {"ExpiredToken", "InvalidToken", "NoCredentialsError", "PartialCredentialsError"},
    KeyRefused: {"KeyTooLongError", "InvalidURI"},
    StorageNotPrivate: {"SSLError"},
    BucketMissing: {"NoSuchBucket"},
    StorageUnreachable: {"EndpointConnectionError", "ConnectTimeoutError"},
}


def _s3_error(error: Exception) -> StorageError:
    """Return our error for one of boto3's, whose texts name keys, buckets and accounts."""
    response: Mapping[str, Any] = getattr(error, "response", None) or {}
    if response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _DENIED_STATUSES:
        return ObjectDenied()
    names = {str(response.get("Error", {}).get("Code", "")), type(error).__name__}
    return next((kind() for kind, meant in _MEANS.items() if names & meant), StorageUnavailable())


@contextlib.contextmanager
def _s3_errors() -> Iterator[None]:
    from boto3.exceptions import Boto3Error  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        yield
    except (BotoCoreError, ClientError, Boto3Error, OSError) as error:
        raise _s3_error(error) from None

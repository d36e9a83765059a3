"""Where files are kept: a folder or an S3 bucket behind one small interface (`interface`, `folder`, `s3`).

Which keys exist, and what files mean, belongs in the use cases.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from orders_pipeline.infrastructure.storage.folder import FolderStorage
from orders_pipeline.infrastructure.storage.interface import (
    KeyRefused,
    ObjectChanged,
    ObjectDenied,
    ObjectGone,
    ObjectReplaced,
    Page,
    Storage,
    StorageError,
    StorageUnavailable,
    StoredObject,
)
from orders_pipeline.infrastructure.storage.s3 import S3Storage
from orders_pipeline.security.encryption import Cipher

__all__ = [
    "FolderStorage",
    "KeyRefused",
    "ObjectChanged",
    "ObjectDenied",
    "ObjectGone",
    "ObjectReplaced",
    "Page",
    "S3Storage",
    "Storage",
    "StorageError",
    "StorageUnavailable",
    "StoredObject",
    "open_storage",
]


def open_storage(
    url: str,
    *,
    s3_endpoint_url: str | None,
    s3_kms_key_id: str | None,
    ca_file: Path | None = None,
    cipher: Cipher | None = None,
) -> Storage:
    """Return the store at a folder path, `file:///...` or `s3://bucket/prefix`; raise ValueError for anything else.

    With a cipher, files in a folder are encrypted; in S3 it is KMS that encrypts.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3" and parts.netloc:
        return S3Storage(parts.netloc, parts.path, endpoint_url=s3_endpoint_url, kms_key_id=s3_kms_key_id, ca_file=ca_file)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"} and parts.path:
        return FolderStorage(Path(unquote(parts.path)), cipher)
    if "://" in url or not url:
        raise ValueError("a storage is a folder, file:///folder or s3://bucket/prefix")
    return FolderStorage(Path(url), cipher)

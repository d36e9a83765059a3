"""What every store is: objects under keys, errors with codes, and the protocol the stores keep.

Keys are `/`-separated and relative to the store; they are data and never lead out of it. Error texts are fixed: no
keys, paths or hosts. The stores themselves are in `folder.py` and `s3.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Protocol

MIB = 1024 * 1024
KEY_MAX_BYTES = 1024
PAGE_OBJECTS = 1_000
LEFT_OUT = "names in the storage that cannot be used, or are no files, are left out"
METADATA = "~"  # in a version: what follows may change without a change of the bytes


class StorageError(Exception):
    """The store could not do what was asked; the text is the same for every object."""

    code = "E_STORAGE"
    text = "the storage failed"

    def __init__(self) -> None:
        super().__init__(f"{self.code}: {self.text}")


class ObjectGone(StorageError):
    """The object is not there (any more)."""

    code = "E_STORAGE_GONE"
    text = "the object is not there"


class ObjectChanged(StorageError):
    """The object is not the version that was asked for."""

    code = "E_STORAGE_CHANGED"
    text = "the object was replaced or is still being written"


class ObjectReplaced(StorageError):
    """The object is not the one that we put there."""

    code = "E_STORAGE_REPLACED"
    text = "a file of ours was changed, or another one was put in its place"


class ObjectDenied(StorageError):
    """The store does not let us at the object."""

    code = "E_STORAGE_DENIED"
    text = "the storage refuses access"


class KeyRefused(StorageError):
    """The key is not one that this store can hold."""

    code = "E_STORAGE_KEY"
    text = "the object's name is not usable"


class StorageUnavailable(StorageError):
    """The store does not work now; later it may."""

    code = "E_STORAGE_UNAVAILABLE"
    text = "the storage does not answer properly"


class StorageUnreachable(StorageUnavailable):
    """Nothing answers where the store should be."""

    text = "nothing answers at the storage's address"


class BucketMissing(StorageUnavailable):
    """The store has no such bucket."""

    text = "the storage has no bucket of the name that is set"


class StorageNotPrivate(StorageUnavailable):
    """The connection would not be private, or not with the storage."""

    code = "E_STORAGE_TLS"
    text = "the storage offers no TLS that is asked for, or its certificate is not one for this host that we trust"


@dataclass(frozen=True)
class StoredObject:
    """One version of one object; `size` in bytes, `modified` in UTC; not `settled` means it may still be growing."""

    key: str
    version: str
    size: int
    modified: datetime
    settled: bool


@dataclass(frozen=True)
class Page:
    """A stretch of a listing: all it shows up to and with the key `upto`, or to the end where that is None.

    `others` are names of what lies there and is no object: links, hidden folders, names that no store can hold.
    """

    objects: tuple[StoredObject, ...]
    upto: str | None
    others: tuple[str, ...] = ()


class Storage(Protocol):
    """What every store can do; all of it may raise StorageUnavailable or ObjectDenied."""

    def list(self, prefix: str = "", left_out: dict[str, str] | None = None) -> Iterator[StoredObject]:
        """Return all objects whose key begins with `prefix`, but for hidden and `.part` ones.

        What is no object, or cannot be looked at or into, is left out with a warning, or with a code in `left_out`.
        """

    def pages(self, after: str = "") -> Iterator[Page]:
        """List what comes behind the key `after`, in the order of keys, no further than it is asked for.

        Unlike `list` it leaves no hidden file or `.part` out. A page covers at most PAGE_OBJECTS names; the last one,
        and no other, ends at None.
        """

    def head(self, key: str) -> StoredObject | None:
        """Return the object under `key`, or None."""

    def edges(self, stored: StoredObject, length: int) -> tuple[bytes, bytes]:
        """Return the first and the last bytes of this version as they lie there; raise ObjectChanged or ObjectGone."""

    def fetch(self, stored: StoredObject, target: Path) -> str:
        """Copy exactly this version to `target` and return its SHA-256 in hex; raise ObjectChanged or ObjectGone."""

    def put(self, key: str, source: Path | bytes | Iterator[bytes]) -> StoredObject:
        """Keep a file, bytes or pieces of them under `key`, whole or not at all, in place of what was there."""

    def keep(self, key: str, source: Path | bytes, until: datetime, *, seldom_read: bool = False) -> None:
        """Put a file or bytes that nobody may replace or remove before `until`, as far as the store can see to that."""

    def forget(self, key: str) -> None:
        """Remove what was kept under `key` with all its versions; raise ObjectDenied where a lock still keeps it."""

    def kept(self, prefix: str) -> Iterator[str]:
        """Return the keys beginning with `prefix` of all that was ever kept, also where somebody has hidden it since."""

    def local(self, key: str, sha256: str | None = None) -> AbstractContextManager[Path]:
        """Lend the object's bytes as a file in memory; raise ObjectGone, or ObjectReplaced where their SHA-256 differs."""

    def encrypted_with(self, key: str) -> str | None:
        """Return the id of the key of ours that an object needs, or None where it needs none; raise DecryptionError."""

    def reencrypt(self, key: str, sha256: str | None = None) -> None:
        """Encrypt an object of ours anew; raise ObjectChanged and leave it where another one came into its place meanwhile.

        Raises ObjectReplaced where it has another SHA-256.
        """

    def delete(self, key: str) -> None:
        """Remove the object if it is there."""

    def location(self, key: str) -> str:
        """Return where a person finds the object: an absolute path or `s3://` URL."""


def is_key(key: str) -> bool:
    """Return whether every store and our own ledger can hold this key: 1 to KEY_MAX_BYTES of UTF-8, without NUL."""
    try:
        return "\0" not in key and 0 < len(key.encode("utf-8")) <= KEY_MAX_BYTES
    except UnicodeEncodeError:
        return False


def is_listed(key: str) -> bool:
    """Return whether a key is for others to see: not a folder's mark, hidden, or an upload under way."""
    return bool(key) and not key.endswith(("/", ".part")) and not any(part.startswith(".") for part in key.split("/"))


@contextlib.contextmanager
def private_file(target: Path | str, folder: int | None = None) -> Iterator[IO[bytes]]:
    """Write `target`, readable by us alone and synced at the end; remove it if that fails.

    It is a path, or a name in an opened folder.
    """
    try:
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=folder), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(target, dir_fd=folder)
        raise


@contextlib.contextmanager
def fetched_file(target: Path) -> Iterator[tuple[Callable[[bytes], object], Callable[[], str]]]:
    """Write a private file and hash it: (write, SHA-256 in hex of what was written)."""
    digest = hashlib.sha256()
    with private_file(target) as file:

        def write(chunk: bytes) -> None:
            digest.update(chunk)
            file.write(chunk)

        yield write, digest.hexdigest


def require_same(actual: str, sha256: str | None) -> None:
    """Raise ObjectReplaced where a SHA-256 is wanted and the actual one differs."""
    if sha256 is not None and actual != sha256:
        raise ObjectReplaced


@contextlib.contextmanager
def readable(source: Path | bytes | Iterator[bytes]) -> Iterator[IO[bytes]]:
    """Open what is to be put."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    else:
        yield io.BytesIO(source) if isinstance(source, bytes) else io.BufferedReader(_Pieces(source))


class _Pieces(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # BufferedReader hands in nothing else
        if not self._rest:
            self._rest = memoryview(next(filter(None, self._pieces), b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Return the rest of a file, a mebibyte at a time."""
    while chunk := file.read(MIB):
        yield chunk

"""A folder as a store, on a local disk or a mount.

Nothing else would encrypt what is kept here. With a cipher every file is encrypted and bound to its key; one that is not
is not read. How a key leads to a file is in `folder_tree.py`, what every store does in `interface.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO

from orders_pipeline.infrastructure.scratch import scratch_files
from orders_pipeline.infrastructure.storage.folder_tree import (
    FolderTree,
    file_status,
    file_version,
    folder_errors,
    key_parts,
    stored_file,
)
from orders_pipeline.infrastructure.storage.interface import (
    LEFT_OUT,
    PAGE_OBJECTS,
    ObjectChanged,
    ObjectGone,
    Page,
    StoredObject,
    chunks,
    fetched_file,
    is_listed,
    private_file,
    readable,
    require_same,
)
from orders_pipeline.security.encryption import Cipher, key_id_of_file

logger = logging.getLogger(__name__)


class FolderStorage:
    """A folder's files as objects; a file whose name cannot be a key is not listed, with a warning."""

    def __init__(self, root: Path, cipher: Cipher | None = None) -> None:
        self._tree = FolderTree(root)
        self._cipher = cipher

    def list(self, prefix: str = "", left_out: dict[str, str] | None = None) -> Iterator[StoredObject]:
        """Walk the folder."""
        folder, slash, _ = prefix.rpartition("/")
        walked = self._tree.walk(folder + slash, "")
        while names := list(islice(walked, PAGE_OBJECTS)):
            objects, others = self._tree.files(names)
            if left_out is not None:
                left_out |= {key: code for key, code in others.items() if key.startswith(prefix)}
            elif others:
                logger.warning(LEFT_OUT)
            yield from (found for found in objects if found.key.startswith(prefix) and is_listed(found.key))

    def pages(self, after: str = "") -> Iterator[Page]:
        """Walk the folder in the order of keys, looking only at the files that are asked for."""
        walked = self._tree.walk("", after)
        upto: str | None = after
        while upto is not None:
            names = list(islice(walked, PAGE_OBJECTS))
            upto = names[-1].key if len(names) == PAGE_OBJECTS else None
            objects, others = self._tree.files(names)
            yield Page(tuple(objects), upto, tuple(others))

    def head(self, key: str) -> StoredObject | None:
        """Return the object under `key`, or None."""
        try:
            with folder_errors(), self._tree.place(key) as (folder, name):
                return stored_file(key, file_status(folder, name))
        except ObjectGone:
            return None

    def edges(self, stored: StoredObject, length: int) -> tuple[bytes, bytes]:
        """Read both ends of the file."""
        with self._tree.open_file(stored.key) as source, folder_errors():
            if file_version(os.fstat(source.fileno())) != stored.version:
                raise ObjectChanged
            first = source.read(length)
            source.seek(max(stored.size - length, 0))
            return first, source.read(length)

    def fetch(self, stored: StoredObject, target: Path) -> str:
        """Copy exactly this version to `target`; raise ObjectChanged where the file is or becomes another one."""
        with self._tree.open_file(stored.key) as source:
            if file_version(os.fstat(source.fileno())) != stored.version:
                raise ObjectChanged
            with folder_errors(), fetched_file(target) as (write, digest):
                for chunk in self._in_clear(stored.key, source):
                    write(chunk)
                after = os.fstat(source.fileno())
                if file_version(after) != stored.version or source.tell() != stored.size:
                    raise ObjectChanged
                return digest()

    def put(self, key: str, source: Path | bytes | Iterator[bytes]) -> StoredObject:
        """Write beside the place, sync, then rename into it."""
        return self._written(key, source)

    def _written(
        self, key: str, source: Path | bytes | Iterator[bytes], instead_of: os.stat_result | None = None
    ) -> StoredObject:
        """Put a file, with the rights and time of the one it comes `instead_of`; raise ObjectChanged if that is gone."""
        with folder_errors():
            self._tree.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._tree.place(key, create=True) as (folder, name):
                temporary = f".{secrets.token_hex(8)}.part"
                self._write(key, source, temporary, folder)
                try:
                    # open, so that it can be described where another process removes it at once
                    with os.fdopen(os.open(temporary, os.O_RDONLY, dir_fd=folder)) as written:
                        if instead_of is not None:
                            os.chmod(temporary, stat.S_IMODE(instead_of.st_mode), dir_fd=folder)
                            os.utime(temporary, ns=(instead_of.st_atime_ns, instead_of.st_mtime_ns), dir_fd=folder)
                        with self._replacing(exclusive=instead_of is not None):
                            if instead_of is not None and file_version(file_status(folder, name)) != file_version(
                                instead_of
                            ):
                                raise ObjectChanged
                            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                        os.fsync(folder)
                        found = stored_file(key, os.fstat(written.fileno()))
                except BaseException:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(temporary, dir_fd=folder)
                    raise
        if found is None:
            raise ObjectChanged
        return found

    def _write(self, key: str, source: Path | bytes | Iterator[bytes], name: str, folder: int) -> None:
        with private_file(name, folder) as target, readable(source) as file:
            for chunk in chunks(file) if self._cipher is None else self._cipher.encrypt_file(file, _bound_to(key)):
                target.write(chunk)

    @contextlib.contextmanager
    def _replacing(self, *, exclusive: bool) -> Iterator[None]:
        """Put or remove a file: `exclusive`, where it must be certain which file is replaced."""
        if self._cipher is None:  # then nothing is encrypted anew
            yield
            return
        lock = os.open(self._tree.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(lock)

    def keep(
        self,
        key: str,
        source: Path | bytes,
        until: datetime,  # noqa: ARG002 - a folder keeps no promise
        *,
        seldom_read: bool = False,  # noqa: ARG002
    ) -> None:
        """Put it and take our own right to write it away; whoever owns the folder can still remove it."""
        self.put(key, source)
        with folder_errors(), self._tree.place(key) as (folder, name):
            os.chmod(name, 0o400, dir_fd=folder)

    def forget(self, key: str) -> None:
        """Remove the file if it is there."""
        self.delete(key)

    def kept(self, prefix: str) -> Iterator[str]:
        """Return the keys beginning with `prefix`."""
        return (stored.key for stored in self.list(prefix))

    @contextlib.contextmanager
    def local(self, key: str, sha256: str | None = None) -> Iterator[Path]:
        """Lend the file's bytes in clear."""
        with scratch_files() as scratch:
            with self._tree.open_file(key) as source:
                require_same(self._copied(key, source, scratch / "clear"), sha256)
            yield scratch / "clear"

    def _copied(self, key: str, source: IO[bytes], target: Path) -> str:
        """Write an open file of ours to `target` in clear and return its SHA-256."""
        with folder_errors(), fetched_file(target) as (write, digest):
            for chunk in self._in_clear(key, source):
                write(chunk)
            return digest()

    def encrypted_with(self, key: str) -> str | None:
        """Read the beginning of the file."""
        with self._tree.open_file(key) as file, folder_errors():
            return None if self._cipher is None else key_id_of_file(file)

    def reencrypt(self, key: str, sha256: str | None = None) -> None:
        """Encrypt the file with the current key, unless another one has come into its place when that is done."""
        with self._tree.open_file(key) as file, scratch_files() as scratch:
            status = os.fstat(file.fileno())
            require_same(self._copied(key, file, scratch / "clear"), sha256)
            self._written(key, scratch / "clear", instead_of=status)

    def _in_clear(self, key: str, file: IO[bytes]) -> Iterator[bytes]:
        return chunks(file) if self._cipher is None else self._cipher.decrypt_file(file, _bound_to(key))

    def delete(self, key: str) -> None:
        """Remove the file if it is there."""
        with (
            contextlib.suppress(ObjectGone),
            folder_errors(),
            self._tree.place(key) as (folder, name),
            self._replacing(exclusive=False),
        ):
            os.unlink(name, dir_fd=folder)

    def location(self, key: str) -> str:
        """Return the file's absolute path."""
        return str(self._tree.root.joinpath(*key_parts(key)))


def _bound_to(key: str) -> bytes:
    return f"file|{key}".encode()

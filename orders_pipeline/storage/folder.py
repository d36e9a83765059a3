"""A folder as a store, on a local disk or a mount.

No symbolic link below the folder is followed, since clients may write there. Nothing else would encrypt what is kept
here, so with a cipher every file is sealed, bound to its key, and none is read that is not. What every store does is said
in `port.py`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO

from orders_pipeline.encryption import Cipher
from orders_pipeline.scratch import scratch_files
from orders_pipeline.storage.port import (
    LEFT_OUT,
    METADATA,
    PAGE_OBJECTS,
    KeyRefused,
    ObjectChanged,
    ObjectDenied,
    ObjectGone,
    Page,
    StorageError,
    StorageUnavailable,
    StoredObject,
    chunks,
    is_key,
    is_listed,
    private_file,
    require_same,
)

logger = logging.getLogger(__name__)

_GONE = (errno.ENOENT, errno.ENOTDIR)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP)


def _folder_error(error: OSError) -> StorageError:
    if error.errno in _GONE:
        return ObjectGone()
    if error.errno in _DENIED:
        return ObjectDenied()
    return KeyRefused() if error.errno in {errno.ENAMETOOLONG, errno.EILSEQ} else StorageUnavailable()


@contextlib.contextmanager
def _folder_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _folder_error(error) from None


class FolderStorage:
    """A folder; below it no symbolic link is followed.

    File names are read as UTF-8, or as CP932 where they are not UTF-8 (as some clients' programs write them); a name
    that is neither, or is too long, is not listed, with a warning.
    """

    def __init__(self, root: Path, cipher: Cipher | None = None) -> None:
        self._root = root.resolve()
        self._cipher = cipher

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Walk the folder; what we may not read or cannot name is left out, with a warning."""
        folder, slash, _ = prefix.rpartition("/")
        start = self._path(folder) if slash else self._root
        walked = self._walked(start, folder + slash, "")
        while names := list(islice(walked, PAGE_OBJECTS)):
            objects, others = _found(names)
            if others:
                logger.warning(LEFT_OUT)
            yield from (found for found in objects if found.key.startswith(prefix) and is_listed(found.key))

    def pages(self, after: str = "") -> Iterator[Page]:
        """Walk the folder in the order of keys, looking only at the files that are asked for."""
        walked = self._walked(self._root, "", after)
        upto: str | None = after
        while upto is not None:
            names = list(islice(walked, PAGE_OBJECTS))
            upto = names[-1].key if len(names) == PAGE_OBJECTS else None
            objects, others = _found(names)
            yield Page(tuple(objects), upto, tuple(others))

    def _walked(self, start: Path, key: str, after: str) -> Iterator[_Name]:
        if start.exists():
            with _folder_errors():
                os.scandir(start).close()
            yield from _files(_Name(key, os.fsencode(start), is_folder=True), after)

    def head(self, key: str) -> StoredObject | None:
        """Return the object under `key`, or None."""
        with _folder_errors():
            try:
                return _described(key, self._path(key).lstat())
            except (FileNotFoundError, NotADirectoryError, ObjectGone):
                return None

    def edges(self, stored: StoredObject, length: int) -> tuple[bytes, bytes]:
        """Read both ends of the file."""
        with self._opened(stored.key) as source, _folder_errors():
            if _version(os.fstat(source.fileno())) != stored.version:
                raise ObjectChanged
            first = source.read(length)
            source.seek(max(stored.size - length, 0))
            return first, source.read(length)

    def fetch(self, stored: StoredObject, target: Path) -> str:
        """Copy exactly this version to `target`; raise ObjectChanged where the file is or becomes another one."""
        with self._opened(stored.key) as source:
            if _version(os.fstat(source.fileno())) != stored.version:
                raise ObjectChanged
            with _folder_errors(), private_file(target) as (write, digest):
                for chunk in self._in_clear(stored.key, source):
                    write(chunk)
                after = os.fstat(source.fileno())
                if _version(after) != stored.version or source.tell() != stored.size:
                    raise ObjectChanged
                return digest()

    def put(self, key: str, source: Path | bytes) -> StoredObject:
        """Write beside the place, sync, then rename into it."""
        with _folder_errors():
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            target = self._path(key, create=True)
            temporary = target.with_name(f".{secrets.token_hex(8)}.part")
            with (
                private_file(temporary) as (write, _),
                io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file,
            ):
                for chunk in chunks(file) if self._cipher is None else self._cipher.seal_file(file, _bound_to(key)):
                    write(chunk)
            try:
                temporary.replace(target)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            _sync_folder(target.parent)
            found = _described(key, target.lstat())
        if found is None:
            raise ObjectChanged
        return found

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
        with _folder_errors():
            self._path(key).chmod(0o400)

    def forget(self, key: str) -> None:
        """Remove the file if it is there."""
        self.delete(key)

    def kept(self, prefix: str) -> Iterator[str]:
        """Return the keys beginning with `prefix`."""
        return (stored.key for stored in self.list(prefix))

    @contextlib.contextmanager
    def local(self, key: str, sha256: str | None = None) -> Iterator[Path]:
        """Lend what the file holds."""
        with scratch_files() as scratch:
            with self._opened(key) as source:
                require_same(self._copied(key, source, scratch / "clear"), sha256)
            yield scratch / "clear"

    def _copied(self, key: str, source: IO[bytes], target: Path) -> str:
        """Write what an open file of ours holds to `target` and return its SHA-256."""
        with _folder_errors(), private_file(target) as (write, digest):
            for chunk in self._in_clear(key, source):
                write(chunk)
            return digest()

    def reseal(self, key: str) -> bool:
        """Seal a file with the current key if it is not, and is still the same when that is done."""
        with self._opened(key) as file:
            if self._cipher is None or self._cipher.has_sealed_file(file):
                return False
            status = os.fstat(file.fileno())
        with self.local(key) as clear:
            found = self.head(key)
            if found is None or found.version != _version(status):
                return False
            self.put(key, clear)
            self._path(key).chmod(stat.S_IMODE(status.st_mode))  # what is kept stays protected from being written away
        return True

    def _in_clear(self, key: str, file: IO[bytes]) -> Iterator[bytes]:
        return chunks(file) if self._cipher is None else self._cipher.open_file(file, _bound_to(key))

    def delete(self, key: str) -> None:
        """Remove the file if it is there."""
        with contextlib.suppress(ObjectGone), _folder_errors():
            self._path(key).unlink(missing_ok=True)

    def location(self, key: str) -> str:
        """Return the file's absolute path."""
        return str(self._root.joinpath(*_checked_parts(key)))

    def _path(self, key: str, *, create: bool = False) -> Path:
        """Return the file of a key; raise ObjectDenied where a folder on the way is a link."""
        *folders, name = _checked_parts(key)
        path = self._root
        for part in folders:
            path = _entry(path, part)
            if path.is_symlink():
                raise ObjectDenied
            if create:
                path.mkdir(mode=0o700, exist_ok=True)
        return _entry(path, name)

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[IO[bytes]]:
        with _folder_errors():
            # A link is refused; a pipe does not make us wait
            file = os.fdopen(os.open(self._path(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ObjectGone
            yield file


def _bound_to(key: str) -> bytes:
    return f"file|{key}".encode()


def _checked_parts(key: str) -> tuple[str, ...]:
    parts = tuple(key.split("/"))
    if not is_key(key) or any(part in {"", ".", ".."} for part in parts):
        raise KeyRefused
    return parts


def _entry(folder: Path, name: str) -> Path:
    path = folder / name
    if name.isascii() or os.path.lexists(path):
        return path
    with contextlib.suppress(UnicodeEncodeError):
        other = folder / os.fsdecode(name.encode("cp932"))
        if os.path.lexists(other):
            return other
    return path


@dataclass(frozen=True)
class _Name:
    """What a folder lists: the key it would have, and its path; without one it cannot be read or is nobody's to use."""

    key: str  # of a folder it ends in a slash
    path: bytes | None
    is_folder: bool


def _decoded(name: bytes) -> str | None:
    for encoding in ("utf-8", "cp932"):
        try:
            return name.decode(encoding)
        except UnicodeDecodeError:
            continue
    return None


def _files(start: _Name, after: str) -> Iterator[_Name]:
    """Return all names behind `after`, in the order of their keys; hidden folders are named and not entered."""
    ahead = [start]  # what is still to be walked, the next one last
    while ahead:
        name = ahead.pop()
        if not name.is_folder or name.path is None:
            yield name
            continue
        try:
            ahead.extend(sorted(_entries(name.path, name.key, after), key=lambda each: each.key, reverse=True))
        except OSError:
            if name.key > after:
                yield replace(name, path=None)


def _entries(folder: bytes, inside: str, after: str) -> Iterator[_Name]:
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            name = _decoded(entry.name)
            key = f"{inside}{entry.name.decode('utf-8', 'backslashreplace') if name is None else name}"
            key += "/" if is_folder else ""
            is_usable = name is not None and is_key(key) and not (is_folder and name.startswith("."))
            if key > after or (is_folder and after.startswith(key)):
                yield _Name(key, entry.path if is_usable else None, is_folder)


def _found(names: Iterable[_Name]) -> tuple[list[StoredObject], list[str]]:
    """Return the files among names, and the names of what is none."""
    objects, others = [], []
    for name in names:
        if name.path is None:
            others.append(name.key)
            continue
        with contextlib.suppress(OSError):  # it went while we were listing
            found = _described(name.key, os.lstat(name.path))
            if found is None:
                others.append(name.key)
            else:
                objects.append(found)
    return objects, others


def _version(status: os.stat_result) -> str:
    # what a writer changes, and behind it what another file put in the same place, or a change of its rights, changes too
    return f"{status.st_mtime_ns}-{status.st_size}{METADATA}{status.st_ino}-{status.st_ctime_ns}"


def _described(key: str, status: os.stat_result) -> StoredObject | None:
    if not stat.S_ISREG(status.st_mode):
        return None
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return StoredObject(key, _version(status), status.st_size, modified, settled=False)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

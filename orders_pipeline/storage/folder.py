"""A folder as a store, on a local disk or a mount.

No symbolic link below the folder is followed, since clients may write there. What every store does is said in
`port.py`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from orders_pipeline.storage.port import (
    KeyRefused,
    ObjectChanged,
    ObjectDenied,
    ObjectGone,
    StorageError,
    StorageUnavailable,
    StoredObject,
    chunks,
    is_listed,
    private_file,
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
    that is neither is not listed, with a warning.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Walk the folder; what we may not read or cannot name is left out, with a warning."""
        folder, slash, _ = prefix.rpartition("/")
        start = self._path(folder) if slash else self._root
        if not start.exists():
            return
        with _folder_errors():
            os.scandir(start).close()
        for path in _files(os.fsencode(start)):
            key = _decoded(os.path.relpath(path, os.fsencode(self._root)))
            if key is None:
                logger.warning("a file of the storage has a name in an unknown encoding and is left out")
            elif key.startswith(prefix) and is_listed(key):
                found = _status(path)
                described = found and _described(key, found)
                if described:
                    yield described

    def head(self, key: str) -> StoredObject | None:
        """Return the object under `key`, or None."""
        with _folder_errors():
            try:
                return _described(key, self._path(key).lstat())
            except (FileNotFoundError, NotADirectoryError, ObjectGone):
                return None

    def fetch(self, stored: StoredObject, target: Path) -> str:
        """Copy exactly this version to `target`; raise ObjectChanged where the file is or becomes another one."""
        with self._opened(stored.key) as source:
            if _version(os.fstat(source.fileno())) != stored.version:
                raise ObjectChanged
            with _folder_errors(), private_file(target) as (write, digest):
                for chunk in chunks(source):
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
            with private_file(temporary) as (write, _):
                if isinstance(source, bytes):
                    write(source)
                else:
                    with source.open("rb") as file:
                        for chunk in chunks(file):
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

    @contextlib.contextmanager
    def local(self, key: str) -> Iterator[Path]:
        """Lend the file itself."""
        with self._opened(key):
            path = self._path(key)
        yield path

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


def _checked_parts(key: str) -> tuple[str, ...]:
    parts = tuple(key.split("/"))
    if any(part in {"", ".", ".."} or "\0" in part for part in parts):
        raise KeyRefused
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        raise KeyRefused from None
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


def _decoded(path: bytes) -> str | None:
    parts = []
    for part in path.split(b"/"):
        for encoding in ("utf-8", "cp932"):
            with contextlib.suppress(UnicodeDecodeError):
                parts.append(part.decode(encoding))
                break
        else:
            return None
    return "/".join(parts)


def _files(folder: bytes) -> Iterator[bytes]:
    """Return the paths of all files that are not in hidden folders; bytes, because not every name is text."""
    for parent, names, files in os.walk(folder, onerror=_warn_unreadable):
        names[:] = [name for name in names if not name.startswith(b".")]
        yield from (os.path.join(parent, name) for name in files)  # noqa: PTH118


def _status(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:  # it went while we were listing
        return None


def _version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}"


def _described(key: str, status: os.stat_result) -> StoredObject | None:
    if not stat.S_ISREG(status.st_mode):
        return None
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return StoredObject(key, _version(status), status.st_size, modified, settled=False)


def _warn_unreadable(_error: OSError) -> None:
    logger.warning("a folder of the storage cannot be read and is left out")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

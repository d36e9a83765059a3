"""A folder as a store, on a local disk or a mount.

No symbolic link below the folder is followed, since clients may write there. Nothing else would encrypt what is kept
here, so with a cipher every file is encrypted, bound to its key, and none is read that is not. What every store does is said
in `interface.py`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path
from typing import IO

from orders_pipeline.infrastructure.scratch import scratch_files
from orders_pipeline.infrastructure.storage.interface import (
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
    fetched_file,
    is_key,
    is_listed,
    private_file,
    readable,
    require_same,
)
from orders_pipeline.security.encryption import Cipher, key_id_of_file

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

    def list(self, prefix: str = "", left_out: dict[str, str] | None = None) -> Iterator[StoredObject]:
        """Walk the folder."""
        folder, slash, _ = prefix.rpartition("/")
        walked = self._walked(folder + slash, "")
        while names := list(islice(walked, PAGE_OBJECTS)):
            objects, others = self._found(names)
            if left_out is not None:
                left_out |= {key: code for key, code in others.items() if key.startswith(prefix)}
            elif others:
                logger.warning(LEFT_OUT)
            yield from (found for found in objects if found.key.startswith(prefix) and is_listed(found.key))

    def pages(self, after: str = "") -> Iterator[Page]:
        """Walk the folder in the order of keys, looking only at the files that are asked for."""
        walked = self._walked("", after)
        upto: str | None = after
        while upto is not None:
            names = list(islice(walked, PAGE_OBJECTS))
            upto = names[-1].key if len(names) == PAGE_OBJECTS else None
            objects, others = self._found(names)
            yield Page(tuple(objects), upto, tuple(others))

    def _walked(self, key: str, after: str) -> Iterator[_Name]:
        """Return all names below a folder's key and behind `after`, in their order; raise if the folder cannot be read."""
        folders = key.split("/")[:-1]
        try:
            with _folder_errors(), self._folder(folders) as start:
                os.scandir(start).close()
        except ObjectGone:
            return
        ahead = [_Name(key, tuple(folders), is_folder=True)]  # what is still to be walked, the next one last
        while ahead:
            name = ahead.pop()
            if not name.is_folder or name.left_out is not None:
                yield name
                continue
            try:
                with self._folder(name.path) as folder:
                    entries = sorted(_entries(folder, name, after), key=lambda each: each.key, reverse=True)
                ahead.extend(entries)
            except FileNotFoundError:
                continue  # it went while we were listing
            except OSError as error:
                if name.key > after:
                    yield replace(name, left_out=_folder_error(error).code)

    def _found(self, names: Iterable[_Name]) -> tuple[Sequence[StoredObject], dict[str, str]]:
        """Return the files among names, and the names of what is none or cannot be looked at, each with a code."""
        objects, others = [], {}
        for folders, inside in groupby(names, key=lambda each: each.path[:-1]):
            try:
                with self._folder(folders) as folder:
                    for name in inside:
                        found = _looked_at(name, folder)
                        if isinstance(found, StoredObject):
                            objects.append(found)
                        elif found is not None:
                            others[name.key] = found
            except FileNotFoundError:
                continue
            except OSError as error:
                others |= {name.key: _folder_error(error).code for name in inside}
        return objects, others

    def head(self, key: str) -> StoredObject | None:
        """Return the object under `key`, or None."""
        try:
            with _folder_errors(), self._place(key) as (folder, name):
                return _described(key, _status(folder, name))
        except ObjectGone:
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
            with _folder_errors(), fetched_file(target) as (write, digest):
                for chunk in self._in_clear(stored.key, source):
                    write(chunk)
                after = os.fstat(source.fileno())
                if _version(after) != stored.version or source.tell() != stored.size:
                    raise ObjectChanged
                return digest()

    def put(self, key: str, source: Path | bytes | Iterator[bytes]) -> StoredObject:
        """Write beside the place, sync, then rename into it."""
        return self._written(key, source)

    def _written(
        self, key: str, source: Path | bytes | Iterator[bytes], instead_of: os.stat_result | None = None
    ) -> StoredObject:
        """Put a file, with the rights and time of the one it comes `instead_of`; raise ObjectChanged if that is gone."""
        with _folder_errors():
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._place(key, create=True) as (folder, name):
                temporary = f".{secrets.token_hex(8)}.part"
                self._write(key, source, temporary, folder)
                try:
                    if instead_of is not None:
                        os.chmod(temporary, stat.S_IMODE(instead_of.st_mode), dir_fd=folder)
                        os.utime(temporary, ns=(instead_of.st_atime_ns, instead_of.st_mtime_ns), dir_fd=folder)
                    with self._replacing(alone=instead_of is not None):
                        if instead_of is not None and _version(_status(folder, name)) != _version(instead_of):
                            raise ObjectChanged
                        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                except BaseException:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(temporary, dir_fd=folder)
                    raise
                os.fsync(folder)
                found = _described(key, _status(folder, name))
        if found is None:
            raise ObjectChanged
        return found

    def _write(self, key: str, source: Path | bytes | Iterator[bytes], name: str, folder: int) -> None:
        with private_file(name, folder) as target, readable(source) as file:
            for chunk in chunks(file) if self._cipher is None else self._cipher.encrypt_file(file, _bound_to(key)):
                target.write(chunk)

    @contextlib.contextmanager
    def _replacing(self, *, alone: bool) -> Iterator[None]:
        """Put or remove a file, but not while somebody is alone who must be sure what he replaces."""
        if self._cipher is None:  # nor is anything encrypted anew
            yield
            return
        lock = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
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
        with _folder_errors(), self._place(key) as (folder, name):
            os.chmod(name, 0o400, dir_fd=folder)

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
        with _folder_errors(), fetched_file(target) as (write, digest):
            for chunk in self._in_clear(key, source):
                write(chunk)
            return digest()

    def encrypted_with(self, key: str) -> str | None:
        """Read the beginning of the file."""
        with self._opened(key) as file, _folder_errors():
            return None if self._cipher is None else key_id_of_file(file)

    def reencrypt(self, key: str, sha256: str | None = None) -> None:
        """Encrypt the file with the current key, unless another one has come into its place when that is done."""
        with self._opened(key) as file, scratch_files() as scratch:
            status = os.fstat(file.fileno())
            require_same(self._copied(key, file, scratch / "clear"), sha256)
            self._written(key, scratch / "clear", instead_of=status)

    def _in_clear(self, key: str, file: IO[bytes]) -> Iterator[bytes]:
        return chunks(file) if self._cipher is None else self._cipher.decrypt_file(file, _bound_to(key))

    def delete(self, key: str) -> None:
        """Remove the file if it is there."""
        with (
            contextlib.suppress(ObjectGone),
            _folder_errors(),
            self._place(key) as (folder, name),
            self._replacing(alone=False),
        ):
            os.unlink(name, dir_fd=folder)

    def location(self, key: str) -> str:
        """Return the file's absolute path."""
        return str(self._root.joinpath(*_checked_parts(key)))

    @contextlib.contextmanager
    def _place(self, key: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """Give the opened folder of a key's file and its name there."""
        *folders, name = _checked_parts(key)
        with self._folder(folders, create=create) as folder:
            yield folder, _entry(folder, name)

    @contextlib.contextmanager
    def _folder(self, folders: Iterable[str], *, create: bool = False) -> Iterator[int]:
        """Open a folder below the root from part to part: none is a link, nor can become one on the way."""
        folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in folders:
                name = _entry(folder, part)
                if create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=folder)
                try:
                    inner = _open_folder(name, folder)
                except NotADirectoryError:
                    if create:  # a file in the way, and nothing that is gone
                        raise StorageUnavailable from None
                    raise
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[IO[bytes]]:
        with _folder_errors(), self._place(key) as (folder, name):
            # A link is refused; a pipe does not make us wait
            file = os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder), "rb")
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ObjectGone
            yield file


def _status(folder: int, name: str) -> os.stat_result:
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def _open_folder(name: str, inside: int) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=inside)
    except NotADirectoryError:
        if stat.S_ISLNK(_status(inside, name).st_mode):
            raise OSError(errno.ELOOP, "a link") from None
        raise


def _bound_to(key: str) -> bytes:
    return f"file|{key}".encode()


def _checked_parts(key: str) -> tuple[str, ...]:
    parts = tuple(key.split("/"))
    if not is_key(key) or any(part in {"", ".", ".."} for part in parts):
        raise KeyRefused
    return parts


def _entry(folder: int, name: str) -> str:
    """Return the name in an opened folder that a part of a key has there."""
    if name.isascii() or _is_there(folder, name):
        return name
    with contextlib.suppress(UnicodeEncodeError):
        other = os.fsdecode(name.encode("cp932"))
        if _is_there(folder, other):
            return other
    return name


def _is_there(folder: int, name: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        _status(folder, name)
        return True
    return False


@dataclass(frozen=True)
class _Name:
    """What a folder lists: the key it would have, and the names that lead to it; `left_out` is why it is not one."""

    key: str  # of a folder it ends in a slash
    path: tuple[str, ...]
    is_folder: bool
    left_out: str | None = None


def _decoded(name: bytes) -> str | None:
    for encoding in ("utf-8", "cp932"):
        try:
            return name.decode(encoding)
        except UnicodeDecodeError:
            continue
    return None


def _entries(folder: int, inside: _Name, after: str) -> Iterator[_Name]:
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            given = os.fsencode(entry.name)
            name = _decoded(given)
            if name is not None and os.fsencode(name) != given and _is_there(folder, name):
                name = None  # its key is that of another file
            key = f"{inside.key}{given.decode('utf-8', 'backslashreplace') if name is None else name}"
            key += "/" if is_folder else ""
            is_usable = name is not None and is_key(key) and not (is_folder and name.startswith("."))
            if key > after or (is_folder and after.startswith(key)):
                yield _Name(key, (*inside.path, entry.name), is_folder, None if is_usable else KeyRefused.code)


def _looked_at(name: _Name, folder: int) -> StoredObject | str | None:
    """Return the file in its folder, or the code of why it is none, or None where it went while we were listing."""
    if name.left_out is not None:
        return name.left_out
    try:
        return _described(name.key, _status(folder, name.path[-1])) or KeyRefused.code
    except FileNotFoundError:
        return None
    except OSError as error:
        return _folder_error(error).code


def _version(status: os.stat_result) -> str:
    # what a writer changes, and behind it what another file put in the same place, or a change of its rights, changes too
    return f"{status.st_mtime_ns}-{status.st_size}{METADATA}{status.st_ino}-{status.st_ctime_ns}"


def _described(key: str, status: os.stat_result) -> StoredObject | None:
    if not stat.S_ISREG(status.st_mode):
        return None
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return StoredObject(key, _version(status), status.st_size, modified, settled=False)

"""The files and folders below a folder as keys name them: opened without following a link, and listed in order.

No symbolic link is followed, since clients may write there. File names are read as UTF-8, or as CP932 where they are not
UTF-8, as some clients' programs write them. What the files contain is the matter of `folder.py`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import IO

from orders_pipeline.infrastructure.storage.interface import (
    METADATA,
    KeyRefused,
    ObjectDenied,
    ObjectGone,
    StorageError,
    StorageUnavailable,
    StoredObject,
    is_key,
)

_GONE = (errno.ENOENT, errno.ENOTDIR)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP)


def _folder_error(error: OSError) -> StorageError:
    if error.errno in _GONE:
        return ObjectGone()
    if error.errno in _DENIED:
        return ObjectDenied()
    return KeyRefused() if error.errno in {errno.ENAMETOOLONG, errno.EILSEQ} else StorageUnavailable()


@contextlib.contextmanager
def folder_errors() -> Iterator[None]:
    """Raise what the system says of a folder or file as the store's error."""
    try:
        yield
    except OSError as error:
        raise _folder_error(error) from None


@dataclass(frozen=True)
class ListedName:
    """What a folder lists: its key, and the names that lead to it; `left_out` is the code of why it cannot be used."""

    key: str  # of a folder it ends in a slash
    path: tuple[str, ...]
    is_folder: bool
    left_out: str | None = None


class FolderTree:
    """The files and folders below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    @contextlib.contextmanager
    def place(self, key: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """Open the folder of a key's file: (folder, the file's name there)."""
        *folders, name = key_parts(key)
        with self._folder(folders, create=create) as folder:
            yield folder, _name_there(folder, name)

    @contextlib.contextmanager
    def _folder(self, folders: Iterable[str], *, create: bool = False) -> Iterator[int]:
        """Open a folder below the root from part to part: none is a link, nor can become one on the way."""
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in folders:
                name = _name_there(folder, part)
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
    def open_file(self, key: str) -> Iterator[IO[bytes]]:
        """Open a file to read; raise ObjectGone where the key names something else."""
        with folder_errors(), self.place(key) as (folder, name):
            # a link is refused, and a pipe does not make us wait
            file = os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder), "rb")
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ObjectGone
            yield file

    def walk(self, key: str, after: str) -> Iterator[ListedName]:
        """Return all names below a folder's key and behind `after`, in their order; raise if the folder cannot be read."""
        folders = key.split("/")[:-1]
        try:
            with folder_errors(), self._folder(folders) as start:
                os.scandir(start).close()
        except ObjectGone:
            return
        ahead = [ListedName(key, tuple(folders), is_folder=True)]  # what is still to be walked, the next one last
        while ahead:
            name = ahead.pop()
            if not name.is_folder or name.left_out is not None:
                yield name
                continue
            try:
                with self._folder(name.path) as folder:
                    entries = sorted(_entries(folder, name, after), key=lambda entry: entry.key, reverse=True)
                ahead.extend(entries)
            except FileNotFoundError:
                continue  # it went while we were listing
            except OSError as error:
                if name.key > after:
                    yield replace(name, left_out=_folder_error(error).code)

    def files(self, names: Iterable[ListedName]) -> tuple[Sequence[StoredObject], dict[str, str]]:
        """Return the files among names, and the keys of what is no file or cannot be looked at, each with a code."""
        objects, others = [], {}
        for folders, inside in groupby(names, key=lambda name: name.path[:-1]):
            try:
                with self._folder(folders) as folder:
                    for name in inside:
                        file_or_code = _file_or_code(name, folder)
                        if isinstance(file_or_code, StoredObject):
                            objects.append(file_or_code)
                        elif file_or_code is not None:
                            others[name.key] = file_or_code
            except FileNotFoundError:
                continue
            except OSError as error:
                others |= {name.key: _folder_error(error).code for name in inside}
        return objects, others


def _decoded(name: bytes) -> str | None:
    for encoding in ("utf-8", "cp932"):
        try:
            return name.decode(encoding)
        except UnicodeDecodeError:
            continue
    return None


def _entries(folder: int, inside: ListedName, after: str) -> Iterator[ListedName]:
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            raw = os.fsencode(entry.name)
            name = _decoded(raw)
            if name is not None and os.fsencode(name) != raw and _is_there(folder, name):
                name = None  # the key is that of another file
            key = f"{inside.key}{raw.decode('utf-8', 'backslashreplace') if name is None else name}"
            key += "/" if is_folder else ""
            is_usable = name is not None and is_key(key) and not (is_folder and name.startswith("."))
            if key > after or (is_folder and after.startswith(key)):
                yield ListedName(key, (*inside.path, entry.name), is_folder, None if is_usable else KeyRefused.code)


def _file_or_code(name: ListedName, folder: int) -> StoredObject | str | None:
    """Return a file of an opened folder, or the code of why it is none, or None where it went while we were listing."""
    if name.left_out is not None:
        return name.left_out
    try:
        return stored_file(name.key, file_status(folder, name.path[-1])) or KeyRefused.code
    except FileNotFoundError:
        return None
    except OSError as error:
        return _folder_error(error).code


def file_status(folder: int, name: str) -> os.stat_result:
    """Return what the system knows of a name in an opened folder, be it a link."""
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def _open_folder(name: str, inside: int) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=inside)
    except NotADirectoryError:
        if stat.S_ISLNK(file_status(inside, name).st_mode):
            raise OSError(errno.ELOOP, "a link") from None
        raise


def key_parts(key: str) -> tuple[str, ...]:
    """Return the names that a key is made of; raise KeyRefused where it would lead elsewhere."""
    parts = tuple(key.split("/"))
    if not is_key(key) or any(part in {"", ".", ".."} for part in parts):
        raise KeyRefused
    return parts


def _name_there(folder: int, name: str) -> str:
    """Return the name that a part of a key has in an opened folder."""
    if name.isascii() or _is_there(folder, name):
        return name
    with contextlib.suppress(UnicodeEncodeError):
        other = os.fsdecode(name.encode("cp932"))
        if _is_there(folder, other):
            return other
    return name


def _is_there(folder: int, name: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        file_status(folder, name)
        return True
    return False


def file_version(status: os.stat_result) -> str:
    """Return a file's version: what a writer changes, then what another file in its place or other rights change too."""
    return f"{status.st_mtime_ns}-{status.st_size}{METADATA}{status.st_ino}-{status.st_ctime_ns}"


def stored_file(key: str, status: os.stat_result) -> StoredObject | None:
    """Return a key's file, or None where it is no file."""
    if not stat.S_ISREG(status.st_mode):
        return None
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return StoredObject(key, file_version(status), status.st_size, modified, settled=False)

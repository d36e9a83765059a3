"""Scratch files: in memory only, so that nothing personal lies on a disk in clear while a batch is worked on.

What is to be kept is put into a storage, which encrypts it. A file being worked on takes as much memory as it has bytes;
what repeats itself and is written only to be put away can be packed.
Where the system has no files in memory (all but Linux) they lie in a folder that is its owner's alone and is emptied.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol


class Scratch(Protocol):
    """A folder of files, empty at first: `scratch / name` is a path that opens in this process only."""

    def __truediv__(self, name: str) -> Path:
        """Return the path of a file."""


class _Memory:
    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}

    def __truediv__(self, name: str) -> Path:
        if name not in self._descriptors:
            self._descriptors[name] = os.memfd_create("orders-scratch")
        return Path(f"/proc/self/fd/{self._descriptors[name]}")

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


class _Folder:
    def __init__(self) -> None:
        base = Path(tempfile.gettempdir()) / f"orders-scratch-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
        if base.is_symlink() or base.stat().st_uid != os.getuid() or base.stat().st_mode & 0o077:
            raise PermissionError("the folder for scratch files is not ours alone")
        for left in base.iterdir():
            if not _lives(int(left.name.partition("-")[0])):
                shutil.rmtree(left, ignore_errors=True)
        self._folder = base / f"{os.getpid()}-{uuid.uuid4().hex}"
        self._folder.mkdir(mode=0o700)

    def __truediv__(self, name: str) -> Path:
        return self._folder / name

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    with contextlib.suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True


@contextmanager
def scratch_files() -> Iterator[Scratch]:
    """Give a folder that is gone at the end of the block; in memory, also with the process."""
    scratch = _Memory() if hasattr(os, "memfd_create") else _Folder()
    try:
        yield scratch
    finally:
        scratch.close()


class Packed:
    """Bytes in memory that are written once and read once, deflated meanwhile: reports take a tenth of their size."""

    PIECE_BYTES = 1 << 16

    def __init__(self) -> None:
        self._packed: list[bytes] = []
        self._last = bytearray()

    def write(self, content: bytes) -> None:
        """Add bytes at the end."""
        self._last += content
        if len(self._last) >= self.PIECE_BYTES:
            self._pack()

    def read(self) -> Iterator[bytes]:
        """Yield what was written, a piece at a time."""
        self._pack()
        return map(zlib.decompress, self._packed)

    def _pack(self) -> None:
        self._packed.append(zlib.compress(self._last, 1))
        self._last.clear()

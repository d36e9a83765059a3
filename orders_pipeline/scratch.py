"""Scratch files: in memory only, so that nothing personal lies on a disk in clear while a batch is worked on.

What is to be kept is put into a storage, which seals it. A file being worked on takes as much memory as it has bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Scratch:
    """A folder of files in memory, empty at first: `scratch / name` is a path that opens in this process only."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}

    def __truediv__(self, name: str) -> Path:
        if name not in self._descriptors:
            self._descriptors[name] = os.memfd_create("orders-scratch")
        return Path(f"/proc/self/fd/{self._descriptors[name]}")

    def close(self) -> None:
        """Forget the files."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


@contextmanager
def scratch_files() -> Iterator[Scratch]:
    """Give a folder in memory that is gone at the end of the block, and with the process."""
    scratch = Scratch()
    try:
        yield scratch
    finally:
        scratch.close()

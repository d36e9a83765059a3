"""A file that is followed: what it says is read anew when it has changed, by a process that lives longer than it may stay.

Runs, sensors and commands read such a file when they begin. What it means belongs to who reads it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
Stamp = tuple[int, int, int]


class FollowedFile(Generic[T]):
    """What a file says now; while it cannot be used, what it said last.

    `read` raises `error` for what cannot be used, and `refused` is told of it, once for each such state of the file.
    What `accepted` raises is for who asked, and the next to ask has the file read again.
    """

    def __init__(
        self,
        path: Path,
        first: T,
        read: Callable[[Path], T],
        error: type[Exception],
        *,
        accepted: Callable[[T], None] = lambda _: None,
        refused: Callable[[Exception], None],
    ) -> None:
        self._path, self._content = path, first
        self._read, self._error = read, error
        self._accepted, self._refused = accepted, refused
        self._stamp: Stamp | None = None
        self._is_read = False
        self._lock = threading.Lock()

    def now(self) -> T:
        """Return what the file says."""
        stamp = self._stamp_now()
        if self._is_read and stamp == self._stamp:
            return self._content
        with self._lock:
            if not self._is_read or stamp != self._stamp:
                self._look(stamp)
        return self._content

    def _look(self, stamp: Stamp | None) -> None:
        try:
            content = self._read(self._path)
        except self._error as why:
            self._refused(why)
        else:
            self._accepted(content)
            self._content = content
        self._stamp, self._is_read = stamp, True

    def _stamp_now(self) -> Stamp | None:
        with contextlib.suppress(OSError):
            found = self._path.stat()
            return found.st_ino, found.st_size, found.st_mtime_ns
        return None

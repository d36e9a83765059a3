"""A small disk to fill up: for tests of what a database does without room."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(owner: int) -> Iterator[Path]:
    """Give a folder of a user's on a disk of two megabytes; skip the test where none can be mounted."""
    with tempfile.TemporaryDirectory(prefix="orders-pipeline-tests-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=777", "tmpfs", folder]
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            pytest.skip("needs the right to mount a small disk")
        try:
            place = Path(folder) / "data"
            place.mkdir()
            os.chown(place, owner, -1)
            yield place
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on the disk and return the file that takes it."""
    stuffing = disk.parent / "stuffing"
    with contextlib.suppress(OSError), stuffing.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)
    return stuffing

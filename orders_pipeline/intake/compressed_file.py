"""A client's compressed file: one order file in gzip or in a ZIP archive, written out within bounds before it is read.

What is inside is read as any file is, by its ending; no name from an archive is ever used for anything else.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from orders_pipeline.clients.file_names import COMPRESSED, GZIP, TEXTS, WORKBOOK, is_zip
from orders_pipeline.records.rejections import FileRejected

_BLOCK = 64 << 10
# order files shrink to a 10th or a 40th, never to a 200th
_MAX_RATIO = 200
_RATIO_MATTERS_FROM = 1 << 20
_MOST_PARTS = 1000  # more are there to keep us busy
ENTRY_MARK, _END_MARK, _MEMBER_MARK = b"PK\x01\x02", b"PK\x05\x06", b"\x1f\x8b\x08"
_BESIDE = ("._", ".DS_Store")  # what macOS puts beside files
_ARCHIVES = (*COMPRESSED, GZIP, ".tgz", ".tar", ".7z", ".rar", ".bz2", ".xz", ".zst", ".lzh")
_DAMAGED = (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError)


def name_inside(source: Path, name: str) -> str:
    """Return a name that ends as that of the file inside; raise FileRejected(F_ARCHIVE) unless it is one order file."""
    if not is_zip(name):
        return name[: -len(GZIP)]
    if _count(source, ENTRY_MARK) > _MOST_PARTS:  # before a directory of millions is read
        raise _refused("archive_several")
    try:
        with zipfile.ZipFile(source) as archive:
            return f"inside{_ending(_entry(source, archive).filename)}"
    except _DAMAGED:
        raise _refused("archive_damaged") from None


def unpack(source: Path, name: str, target: Path, max_bytes: int) -> None:
    """Write the file inside, of which `name_inside` is known, to `target`.

    Raises FileRejected where it cannot be read, or is larger than it may be.
    """
    limit = min(max_bytes, max(_RATIO_MATTERS_FROM, _MAX_RATIO * source.stat().st_size))
    with contextlib.ExitStack() as opened:
        try:
            stream = _zipped(opened, source, limit, max_bytes) if is_zip(name) else _gzipped(opened, source)
        except _DAMAGED:
            raise _refused("archive_damaged") from None
        size = 0
        target.touch(mode=0o600)
        with target.open("wb") as file:
            for block in _blocks(stream):
                size += len(block)
                if size > limit:
                    raise _too_large(max_bytes)
                file.write(block)


def _zipped(opened: contextlib.ExitStack, source: Path, limit: int, max_bytes: int) -> IO[bytes]:
    archive = opened.enter_context(zipfile.ZipFile(source))
    entry = _entry(source, archive)
    if entry.file_size > limit:
        raise _too_large(max_bytes)
    return opened.enter_context(archive.open(entry))


def _gzipped(opened: contextlib.ExitStack, source: Path) -> gzip.GzipFile:
    if _count(source, _MEMBER_MARK) > _MOST_PARTS:
        raise _refused("archive_damaged")
    return opened.enter_context(gzip.open(source))


def _blocks(stream: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    """Read what is inside; what cannot be written of it is our own trouble, and not the file's."""
    while True:
        try:
            block = stream.read(_BLOCK)
        except _DAMAGED:
            raise _refused("archive_damaged") from None
        if not block:
            return
        yield block


def _entry(source: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """Return the one file of an archive, without folders and what macOS puts beside it."""
    found = [
        entry
        for entry in archive.infolist()
        if not entry.is_dir() and not entry.filename.rpartition("/")[2].startswith(_BESIDE)
    ]
    if _has_more(source, archive) or len(found) != 1:
        raise _refused("archive_several")
    (entry,) = found
    if entry.flag_bits & 1:
        raise _refused("archive_encrypted")
    if not _ending(entry.filename):
        is_nested = entry.filename.lower().endswith(_ARCHIVES)
        raise _refused("archive_nested" if is_nested else "archive_kind")
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise _refused("archive_damaged")
    return entry


def _ending(name: str) -> str:
    return next((ending for ending in (*TEXTS, WORKBOOK) if name.lower().endswith(ending)), "")


def _has_more(source: Path, archive: zipfile.ZipFile) -> bool:
    """Return whether anything stands before or behind an archive, such as another one."""
    end = len(_END_MARK) + 18 + len(archive.comment)
    first = min((entry.header_offset for entry in archive.infolist()), default=0)
    with source.open("rb") as file:
        file.seek(-end, os.SEEK_END)
        return first > 0 or file.read(len(_END_MARK)) != _END_MARK


def _count(source: Path, mark: bytes) -> int:
    with source.open("rb") as file:
        return count_mark(file, mark)


def count_mark(file: IO[bytes], mark: bytes) -> int:
    """Count a mark in a whole file."""
    file.seek(0)
    found, rest = 0, b""
    while block := file.read(_BLOCK):
        block = rest + block
        found += block.count(mark)
        rest = block[-(len(mark) - 1) :]
    return found


def _too_large(max_bytes: int) -> FileRejected:
    return FileRejected("F_TOO_LARGE", {"limit": str(max_bytes)})


def _refused(hint: str) -> FileRejected:
    return FileRejected("F_ARCHIVE", {"hint": hint})

"""Parquet files that appear whole or not at all: written beside their place, synced to disk, then renamed into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def new_parquet(target: Path, schema: pa.Schema, **options: object) -> Iterator[pq.ParquetWriter]:
    """Yield a writer for `target`, readable by its owner only; nothing is left of it when the block fails.

    `options` are those of Arrow's ParquetWriter.
    """
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with pq.ParquetWriter(file, schema, **options) as writer:
                yield writer
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

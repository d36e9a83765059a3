"""Parquet files, worked through in chunks, in as much memory as a few chunks take.

They are scratch files: that one appears whole or not at all and outlives the machine is the matter of the storage it is
put into. What is in the files is their writers' matter.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

Result = TypeVar("Result")

THREADS = 2  # chunks worked on at once: Arrow and libpq leave Python to others meanwhile, Python itself does not


@contextmanager
def new_parquet(target: Path, schema: pa.Schema, **options: object) -> Iterator[pq.ParquetWriter]:
    """Yield a writer for `target`, readable by its owner only; nothing is left of it when the block fails.

    `options` are those of Arrow's ParquetWriter.
    """
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file, pq.ParquetWriter(file, schema, **options) as writer:
            yield writer
    except BaseException:
        with suppress(OSError):
            target.unlink()
        raise


def read_chunks(source: Path, chunk_rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield a file's rows, in order, in chunks of at most `chunk_rows`."""
    with pq.ParquetFile(source, pre_buffer=False) as file:  # Arrow would keep all it has read, up to the whole file
        yield from file.iter_batches(chunk_rows, columns=columns)


def map_chunks(
    source: Path,
    work: Callable[[int, pa.RecordBatch], Result],
    chunk_rows: int,
    columns: Sequence[str] | None = None,
) -> Generator[Result, None, None]:
    """Yield what `work` makes of each chunk of a file and its number, as `map_in_turn` does."""
    return map_in_turn(read_chunks(source, chunk_rows, columns), work)


def map_in_turn(
    chunks: Iterable[pa.RecordBatch], work: Callable[[int, pa.RecordBatch], Result]
) -> Generator[Result, None, None]:
    """Yield what `work` makes of each chunk and its number, from 1, in their order, a few at the same time.

    When one fails, its error is raised in its turn; those begun are waited for, and no other is begun.
    """
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="chunks")
    begun: deque[Future[Result]] = deque()
    try:
        for number, chunk in enumerate(chunks, start=1):
            if len(begun) > THREADS:  # one more waits, so that none is idle while results are written
                yield begun.popleft().result()
            begun.append(pool.submit(work, number, chunk))
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

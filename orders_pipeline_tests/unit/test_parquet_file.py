"""Parquet files are whole or not there, and are worked through a few chunks at a time, in order."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orders_pipeline.infrastructure.parquet_file import THREADS, map_chunks, new_parquet, read_chunks

SCHEMA = pa.schema([("number", pa.int32()), ("name", pa.string())])


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """A file of the numbers 0 to 99, in row groups that are no multiple of a chunk."""
    path = tmp_path / "numbers.parquet"
    table = pa.table([pa.array(range(100), pa.int32()), pa.array(["x"] * 100)], schema=SCHEMA)
    pq.write_table(table, path, row_group_size=7)
    return path


def first(_number: int, chunk: pa.RecordBatch) -> int:
    return chunk.column("number")[0].as_py()


def test_chunks_are_of_the_size_asked_for_and_hold_every_row_once(numbers):
    chunks = list(read_chunks(numbers, 30))
    assert [chunk.num_rows for chunk in chunks] == [30, 30, 30, 10]
    assert [each for chunk in chunks for each in chunk.column("number").to_pylist()] == list(range(100))


def test_only_the_columns_asked_for_are_read(numbers):
    assert {tuple(chunk.schema.names) for chunk in read_chunks(numbers, 30, ["name"])} == {("name",)}


def test_results_come_in_the_order_of_the_file_whichever_is_done_first(numbers):
    second_is_done = threading.Event()

    def work(number: int, chunk: pa.RecordBatch) -> tuple[int, int]:
        if number == 1:
            assert second_is_done.wait(10)
        if number == 2:
            second_is_done.set()
        return number, first(number, chunk)

    assert list(map_chunks(numbers, work, 10)) == [(number, 10 * number - 10) for number in range(1, 11)]


def test_no_more_chunks_are_read_than_are_worked_on_at_once_and_one(numbers):
    begun = []

    def work(number: int, _chunk: pa.RecordBatch) -> None:
        begun.append(number)

    with closing(map_chunks(numbers, work, 1)) as results:
        for taken, _ in enumerate(results, start=1):
            assert len(begun) <= taken + THREADS
    assert begun


def test_a_failure_is_raised_and_the_rest_of_the_file_left_alone(numbers):
    begun = []

    def work(number: int, _chunk: pa.RecordBatch) -> None:
        begun.append(number)
        if number == 2:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        list(map_chunks(numbers, work, 10))
    assert len(begun) <= 2 + THREADS
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("chunks")]


def test_who_stops_taking_results_leaves_no_thread_behind(numbers):
    with closing(map_chunks(numbers, first, 10)) as results:
        assert next(results) == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("chunks")]


def test_nothing_is_left_of_a_file_whose_writing_failed(tmp_path):
    def write() -> None:
        with new_parquet(tmp_path / "new.parquet", SCHEMA) as writer:
            writer.write_table(SCHEMA.empty_table())
            raise ConnectionError

    with pytest.raises(ConnectionError):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_is_readable_by_its_owner_only(tmp_path):
    with new_parquet(tmp_path / "new.parquet", SCHEMA) as writer:
        writer.write_table(SCHEMA.empty_table())
    assert [(path.name, path.stat().st_mode & 0o777) for path in tmp_path.iterdir()] == [("new.parquet", 0o600)]

"""The log is written beside the work: all of it where it is read, and without holding up anything where it is not."""

from __future__ import annotations

import logging
import os

import pytest

from orders_pipeline.web import access_log


@pytest.fixture
def root(monkeypatch):
    """The root of all loggers, whose lines go into a pipe that nobody reads yet."""
    reading, writing = os.pipe()
    handler = logging.StreamHandler(os.fdopen(writing, "w"))
    logger = logging.getLogger()
    monkeypatch.setattr(logger, "handlers", [handler])
    yield logger, reading, handler
    os.close(reading)


def test_lines_that_are_read_are_all_there_in_their_order(root):
    logger, reading, handler = root
    with access_log.written_beside():
        for number in range(100):
            logger.error("line %d", number)
    assert handler in logger.handlers
    assert os.read(reading, 1 << 16).decode().splitlines() == [f"line {number}" for number in range(100)]


def test_lines_that_nobody_reads_hold_up_nothing_and_those_beyond_a_bound_are_lost(root, monkeypatch):
    logger, _, _ = root
    monkeypatch.setattr(access_log, "END_S", 0.01)
    monkeypatch.setattr(access_log, "MOST_WAITING", 100)
    with access_log.written_beside():
        for _ in range(3_000):  # three times what a pipe holds
            logger.error("x" * 65)

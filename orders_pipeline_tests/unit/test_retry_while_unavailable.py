"""Work that waits for the database while it is away."""

from __future__ import annotations

import time

import pytest

from orders_pipeline.infrastructure.database_errors import DatabaseError, DatabaseUnavailable, retry_while_unavailable


def test_the_database_is_waited_for_while_it_is_away(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    failures = [DatabaseUnavailable("57P01"), DatabaseUnavailable(None)]

    def work() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert retry_while_unavailable(work) == "done"


def test_the_wait_for_the_database_ends_after_a_minute(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))

    def away() -> None:
        raise DatabaseUnavailable("57P03")

    with pytest.raises(DatabaseUnavailable):
        retry_while_unavailable(away)
    assert 60 < clock[0] < 70


def test_an_error_that_does_not_pass_is_not_tried_again():
    tries = []

    def wrong() -> None:
        tries.append(1)
        raise DatabaseError("42601")

    with pytest.raises(DatabaseError):
        retry_while_unavailable(wrong)
    assert len(tries) == 1

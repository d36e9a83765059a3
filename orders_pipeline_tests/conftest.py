"""Fixtures of all tests: a real PostgreSQL server, databases cloned from a migrated template, real services, a system.

Unit tests use none of these; a test that asks for them in `unit/` is refused.
"""

import contextlib
import gc
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
from pydantic import SecretStr
from sqlalchemy import event
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from orders_pipeline.infrastructure.database import Database, _Connection
from orders_pipeline.intake.landing import arrivals
from orders_pipeline.sandbox import SandboxServer
from orders_pipeline.system import embedded
from orders_pipeline.system.composition import System, join_endpoints, open_system
from orders_pipeline.system.settings import Settings
from orders_pipeline_tests.mutants.mutant import SERVER
from orders_pipeline_tests.support.databases import cloned_database, make_template, run_on

TEMPLATE = "orders_template"
hypothesis.settings.register_profile("busy_machine", deadline=None)  # one example may take a second
hypothesis.settings.load_profile("busy_machine")
MEMORY_BYTES = 8 << 30  # free in /dev/shm, for the servers of all processes: 10 MB a database and 128 MB of log each
# folders, and files that wait long, break what runs, or try what no program sends and no client does
SLOW = {
    *("faults", "inputs", "leaks", "fuzz"),
    *("test_first_hour.py", "test_page_in_browser.py", "test_rehearsal.py"),
    *("test_embedded.py", "test_replaced_files.py", "test_restore_guard.py", "test_run_launcher.py", "test_shared_calls.py"),
    *("test_stalled.py", "test_api_hostile.py", "test_api_machine.py", "test_corrected_references.py"),
}
OUTSIDE_WORLD = {"server_url", "template", "database_url", "database", "sandbox", "settings", "system"}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    gc.disable()  # half of the time would be looking for what can go, and of thousands of tests none can
    try:
        return (yield)
    finally:
        gc.freeze()  # all of this stays, and need not be looked at again
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # what is quickest to tell comes first, and the smallest files last, so that no process waits long for another; the
    # longest test early: it waits for sensors of a daemon, while the other processes have the cores
    items.sort(
        key=lambda item: (
            item.path.parent.name != "unit",
            item.path.name != "test_up.py",
            item.path.parent.name == "database",
        )
    )
    for item in items:
        asked = OUTSIDE_WORLD.intersection(getattr(item, "fixturenames", ()))
        if item.path.parent.name == "unit" and asked:
            raise pytest.UsageError(f"{item.nodeid} is a unit test and asks for {', '.join(sorted(asked))}")
        if item.get_closest_marker("soak") is None and not SLOW.isdisjoint((item.path.parent.name, item.path.name)):
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def _nothing_from_outside() -> None:
    # a test run in the background ignores Ctrl-C, and commands that it starts would, too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith(("ORDERS_", "DAGSTER_"))]:
        del os.environ[name]


@pytest.fixture(scope="session")
def _nested() -> Iterator[list[str]]:
    """Names of threads that took a second connection of a pool: enough of them wait for each other for ever."""
    held: dict[ConnectionPoolEntry, tuple[int, int]] = {}
    found: list[str] = []

    def taken(connection: object, entry: ConnectionPoolEntry, _proxy: object) -> None:
        whose = threading.get_ident(), id(entry._ConnectionRecord__pool)  # type: ignore[attr-defined]
        if isinstance(connection, _Connection):  # not Dagster's own
            if whose in held.values():
                found.append(threading.current_thread().name)
            held[entry] = whose

    def given_back(_connection: object, entry: ConnectionPoolEntry) -> None:
        held.pop(entry, None)

    listeners = [("checkout", taken), ("checkin", given_back), ("detach", given_back)]
    for name, listener in listeners:
        event.listen(Pool, name, listener)
    yield found
    for name, listener in listeners:
        event.remove(Pool, name, listener)


@pytest.fixture(autouse=True)
def _no_thread_waits_for_a_second_connection(_nested: list[str]) -> Iterator[None]:
    yield
    found = sorted(set(_nested))
    _nested.clear()
    assert not found


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The URL of a PostgreSQL server for this test run, or of the one that whoever started it has."""
    if given := os.environ.get(SERVER):
        yield given
        return
    # not below pytest's own folder: the next pytest run of root closes that to the user PostgreSQL runs as
    with tempfile.TemporaryDirectory(prefix="orders-pipeline-tests-", dir=_memory()) as home:
        with contextlib.closing(embedded.join(Path(home), "postgres")) as membership:
            # the server outlives processes, and that is what is tried here
            settings = ("fsync = off", "full_page_writes = off", "max_wal_size = '128MB'")
            changes = [f"ALTER SYSTEM SET {setting}" for setting in settings]
            run_on(SecretStr(membership.url), *changes, "SELECT pg_reload_conf()")
            yield membership.url
        embedded.wait_until_gone(Path(home))


def _memory() -> str | None:
    """Return a folder in memory, where the files of a clone cost a fifth; None where there is no room."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free >= MEMORY_BYTES
    return str(memory) if roomy and os.access(memory, os.W_OK) else None


@pytest.fixture(scope="session")
def template(server_url: str) -> str:
    """The name of a database that tests clone: migrated, and with Dagster's tables, which take longer than a clone."""
    if not os.environ.get(SERVER):
        make_template(server_url, TEMPLATE)
    return TEMPLATE


@pytest.fixture
def database_url(server_url: str, template: str) -> Iterator[SecretStr]:
    """The URL of a migrated database of the test's own."""
    with cloned_database(server_url, template) as url:
        yield url


@pytest.fixture
def database(database_url: SecretStr) -> Iterator[Database]:
    """An empty, migrated database."""
    with contextlib.closing(Database(database_url)) as opened:
        yield opened


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    """The Payment and Notification services on a free port, with a ledger of their own."""
    with SandboxServer() as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, database_url: SecretStr, sandbox: SandboxServer) -> Settings:
    """Settings of a system of the test's own."""
    return Settings(home=tmp_path / "home", database_url=database_url, payment_url=sandbox.url, notification_url=sandbox.url)


@pytest.fixture
def hasty_landing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two looks at a file that may grow are enough, however short the time between them."""
    monkeypatch.setattr(arrivals, "LEAST_AGE_S", 0.0)


@pytest.fixture
def open_test_system(settings: Settings) -> Callable[..., contextlib.AbstractContextManager[System]]:
    """A function that opens the test's system, with settings changed by name."""

    @contextlib.contextmanager
    def opened(**changes: object) -> Iterator[System]:
        changed = settings.model_copy(update=changes)
        with join_endpoints(changed) as endpoints, open_system(changed, endpoints) as system:
            yield system

    return opened


@pytest.fixture
def system(open_test_system: Callable[..., contextlib.AbstractContextManager[System]]) -> Iterator[System]:
    """The test's system, opened."""
    with open_test_system() as opened:
        yield opened

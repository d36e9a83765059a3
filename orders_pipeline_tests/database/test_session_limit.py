"""Sessions: a process keeps to its pool however many threads it has, and starts only where the server lets in enough."""

from __future__ import annotations

import contextlib
import threading
import time
from types import SimpleNamespace

import psycopg
import pytest
from click.testing import CliRunner
from pydantic import SecretStr
from sqlalchemy import make_url

from orders_pipeline.audit.recording import sign_in
from orders_pipeline.batches.run_processes import offered_slots, offering_slots
from orders_pipeline.cli import doctor, main, supervised
from orders_pipeline.clients.profiles import read_clients
from orders_pipeline.infrastructure import database as database_module
from orders_pipeline.infrastructure.database import POOL_SIZE, Database
from orders_pipeline.infrastructure.database_errors import DatabaseUnavailable
from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline.orchestration import celery_launcher
from orders_pipeline.security.encryption import Cipher, EncryptionKeysError, new_key
from orders_pipeline.services.rate_limit import RateLimiter
from orders_pipeline.system import clock, session_limit
from orders_pipeline.system.clock import ClockDiffers
from orders_pipeline.system.session_limit import SharedSessions, TooFewSessions
from orders_pipeline.system.settings import Settings
from orders_pipeline_tests.support.commands import free_port
from orders_pipeline_tests.support.ledgers import order

RATE = 150
STOCK_SERVER = 97  # what PostgreSQL lets in by default


def test_a_server_as_it_is_installed_lets_in_what_the_default_settings_need():
    assert session_limit.needed(3) <= STOCK_SERVER


def test_the_embedded_server_lets_in_what_the_largest_setting_needs(database):
    assert session_limit.require(database, 64).startswith(f"{session_limit.needed(64)} needed at most")


@pytest.mark.parametrize("what", ["database", "login"])
def test_a_limit_that_is_too_small_is_told_with_the_figures(server_url, database, what):
    name = make_url(database.url.get_secret_value()).database
    limited = {"database": f"DATABASE {name}", "login": f"ROLE {make_url(server_url).username}"}[what]
    with psycopg.connect(server_url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(f"ALTER {limited} CONNECTION LIMIT 50".encode())
        try:
            with pytest.raises(TooFewSessions, match="may need 95 sessions, and the database lets in 50"):
                session_limit.require(database, 3)
        finally:
            admin.execute(f"ALTER {limited} CONNECTION LIMIT -1".encode())


def test_commands_and_the_system_do_not_start_where_too_few_are_let_in_and_doctor_says_so(
    server_url, database, tmp_path, monkeypatch
):
    name = make_url(database.url.get_secret_value()).database
    monkeypatch.setenv("ORDERS_HOME", str(tmp_path))
    monkeypatch.setenv("ORDERS_DATABASE_URL", database.url.get_secret_value())
    with psycopg.connect(server_url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 50".encode())
        try:
            for arguments, status in ((["status"], 2), (["up", "--port", str(free_port())], 2), (["doctor"], 1)):
                ended = CliRunner().invoke(main, arguments)
                said = " ".join(ended.output.split())
                assert ended.exit_code == status
                assert "E_DATABASE_SESSIONS" in said
                assert (
                    "may need 95 sessions, and the database lets in 50; lower the setting, or raise max_connections" in said
                )
        finally:  # other tests use this database
            admin.execute(f"ALTER DATABASE {name} CONNECTION LIMIT -1".encode())


def test_nothing_begins_on_an_older_server_and_everything_says_which_is_needed(database, tmp_path, monkeypatch):
    monkeypatch.setattr(database_module, "OLDEST", 99)
    monkeypatch.setenv("ORDERS_ENV", "development")
    monkeypatch.setenv("ORDERS_HOME", str(tmp_path))
    monkeypatch.setenv("ORDERS_DATABASE_URL", database.url.get_secret_value())
    for arguments, status in ((["status"], 2), (["db", "migrate"], 2), (["doctor"], 1)):
        ended = CliRunner().invoke(main, arguments)
        assert ended.exit_code == status
        assert "E_DATABASE_VERSION: PostgreSQL 99 or later is needed, and this server is 16." in ended.output


def test_threads_beyond_the_pool_wait_and_are_told_that_the_database_is_unavailable(database, monkeypatch):
    monkeypatch.setattr(database_module, "POOL_WAIT_S", 0.2)
    with contextlib.ExitStack() as stack:
        small = stack.enter_context(contextlib.closing(Database(database.url, pool_size=1)))
        stack.enter_context(small.begin())
        with pytest.raises(DatabaseUnavailable), small.begin():
            pass


def test_a_session_is_beside_the_pool(database):
    with (
        contextlib.closing(Database(database.url, pool_size=1)) as small,
        small.session() as session,
        small.begin() as one,
    ):
        assert session.scalar("server_version") == one.scalar("server_version")


def test_whatever_is_asked_of_a_session_that_is_lost_says_that_the_database_is_unavailable(database):
    with database.session() as session:
        pid = session._connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with psycopg.connect(libpq_url(database.url), autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                session.scalar("server_version")


class Pooled:
    """A database behind something that gives each statement of a session the server's process that is free."""

    def __init__(self, *processes: int) -> None:
        self.processes = list(processes)

    @contextlib.contextmanager
    def session(self):
        yield self

    begin = session

    def scalar(self, name: str) -> int:
        assert name == "server_process"
        return self.processes.pop(0)


@pytest.mark.parametrize("processes", [(1, 1), (1, 2, 3)])
def test_a_pool_by_transaction_is_refused_with_its_reason(processes):
    with pytest.raises(SharedSessions, match="reached through a pool by transaction, such as pgbouncer's"):
        session_limit.require_own(Pooled(*processes))


def test_a_session_is_answered_by_one_process_of_its_own(database):
    session_limit.require_own(database)
    session_limit.require_own(Pooled(1, 2, 1))  # a pool by session


def test_a_clock_that_differs_by_more_than_a_second_is_refused_whatever_the_way_takes(database, monkeypatch):
    assert clock.require(database).startswith("differs from the database's by less than 0.")
    real = time.time
    for off_s in (-1.5, 1.5):
        monkeypatch.setattr("time.time", lambda off_s=off_s: real() + off_s)
        with pytest.raises(ClockDiffers, match=r"differ by 1\.[45] s"):
            clock.require(database)
    looks = iter([real() - 5, real() + 5])  # a slow answer is no wrong clock
    monkeypatch.setattr("time.time", lambda: next(looks))
    clock.require(database)


def test_what_workers_offer_is_known_while_they_are_there(database):
    assert offered_slots(database) == []
    with offering_slots(database, 2), contextlib.ExitStack() as wide, offering_slots(database, 2):
        wide.enter_context(offering_slots(database, 12))
        assert offered_slots(database) == [12, 2, 2]
        wide.close()
        assert offered_slots(database) == [2, 2]  # at once, not when the server has noticed the session's end
    assert offered_slots(database) == []


def test_doctor_is_concerned_where_the_largest_worker_cannot_be_lost_and_where_nobody_hears_the_daemon(database):
    settings = Settings.model_construct(run_launcher="celery", max_concurrent_runs=3)
    patient = SimpleNamespace(settings=settings, login=database)
    with offering_slots(database, 2), offering_slots(database, 2):
        says = "4 slots of 2 workers for 3 runs at once; when the largest is lost, 1 of them wait for it"
        assert doctor._workers(patient) == doctor.Concern(says)
        need = session_limit.needed(3) + 2 * session_limit.WORKER_SESSIONS
        assert doctor._sessions(patient).startswith(f"{need} needed at most, 6 of them by workers, ")
        with offering_slots(database, 2):
            assert doctor._workers(patient).endswith("4 without the largest worker")
    assert doctor._daemon(patient).says.startswith("never heard from: ")
    assert doctor._daemon(SimpleNamespace(settings=Settings.model_construct(), login=database)) == "never heard from"


def test_a_worker_does_not_start_without_a_key_that_is_in_use(harness, monkeypatch):
    harness.orders(order(1))
    others = SimpleNamespace(database=harness.database, cipher=Cipher.from_setting(SecretStr(new_key())))
    monkeypatch.setattr(supervised, "load_settings", lambda: Settings.model_construct(run_launcher="celery"))
    monkeypatch.setattr(supervised, "opened", lambda _, require: require(others))
    monkeypatch.setattr(celery_launcher, "require_broker", lambda _: "answers")
    ended = CliRunner().invoke(main, ["worker"])
    assert (ended.exit_code, ended.output[:19]) == (2, "E_ENCRYPTION_KEYS: ")
    assert "lacks what is in use: 1 orders with " in ended.output


def test_a_worker_with_other_keys_than_who_began_before_is_refused_without_an_order_too(database):
    keys = ["first", "second"]
    first, second = (f"{name}:{new_key().partition(':')[2]}" for name in keys)
    before = Cipher.from_setting(SecretStr(f"{first},{second}"))
    sign_in(database, read_clients(None), before)
    changed = f"first:{new_key().partition(':')[2]}"
    for setting in (second, changed, f"{changed},{second}"):
        others = SimpleNamespace(database=database, cipher=Cipher.from_setting(SecretStr(setting)))
        with pytest.raises(EncryptionKeysError, match="lacks first as the others have it"):
            supervised._require_keys(others)
    for setting in (first, f"{first},{second}", f"{second},{first}"):  # as on the way from one key to another
        others = SimpleNamespace(database=database, cipher=Cipher.from_setting(SecretStr(setting)))
        supervised._require_keys(others)


def test_threads_that_wait_for_tokens_and_call_hold_no_sessions(database):
    limiter = RateLimiter(database, "service", RATE, lease_s=30.0)
    limiter.prepare()
    stop, calling, called = threading.Event(), threading.Barrier(RATE + 1), threading.Barrier(RATE + 1)

    def call() -> None:
        with limiter.token(stop):
            calling.wait(60.0)  # all at once are under way
            called.wait(60.0)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(RATE)]
    most = 0
    with psycopg.connect(libpq_url(database.url), autocommit=True) as watcher:

        def look() -> int:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
            return watcher.execute(query, ["orders-pipeline"]).fetchone()[0]

        for thread in threads:
            thread.start()
        calling.wait(60.0)
        most = look()
        called.wait(60.0)  # and all at once give their tokens back
        while any(thread.is_alive() for thread in threads):
            most = max(most, look())
            time.sleep(0.01)
    assert 1 <= most <= POOL_SIZE

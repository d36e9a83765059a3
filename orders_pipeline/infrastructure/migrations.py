"""Brings the schema up to date from `sql/migrations`, as Flyway would.

File names, history table and checksums are Flyway's own, so that a team may continue with Flyway itself on the same
database. What is lacking is applied in one transaction; hosts that start together wait for each other at an advisory lock.
"""

from __future__ import annotations

import re
import time
import zlib
from dataclasses import dataclass

from orders_pipeline.infrastructure.database import SQL, Database, Transaction
from orders_pipeline.infrastructure.database_errors import DENIED, DatabaseError, RoleMissing

FILE_NAME = re.compile(r"V(?P<version>\d+(?:[._]\d+)*)__(?P<description>\w+)\.sql")


class MigrationError(Exception):
    """The migrations and the database's history do not fit each other."""

    code = "E_MIGRATION"


@dataclass(frozen=True)
class Migration:
    """One file of `sql/migrations`."""

    version: str
    description: str
    script: str
    sql: str

    @property
    def checksum(self) -> int:
        """Return Flyway's checksum: a signed CRC32 over the lines without their ends."""
        lines = re.split(r"\r\n|\r|\n", self.sql.removeprefix("\ufeff"))
        unsigned = zlib.crc32("".join(lines).encode())
        return unsigned - (1 << 32) if unsigned >= 1 << 31 else unsigned

    @property
    def order(self) -> tuple[int, ...]:
        """Return the version as numbers, so that V10 comes after V9."""
        return tuple(int(part) for part in re.split(r"[._]", self.version))


def all_migrations() -> list[Migration]:
    """Read the migrations in the order of their versions; raise MigrationError on a file that is not named as one."""
    found = []
    for file in (SQL / "migrations").iterdir():
        if not file.name.endswith(".sql"):
            continue
        match = FILE_NAME.fullmatch(file.name)
        if match is None:
            raise MigrationError(f"{file.name} is not named V<version>__<description>.sql")
        description = match["description"].replace("_", " ")
        found.append(Migration(match["version"].replace("_", "."), description, file.name, file.read_text("utf-8")))
    return sorted(found, key=lambda migration: migration.order)


def migrate(database: Database) -> list[str]:
    """Apply what the database lacks, all or nothing, and return the names of the files.

    Raises MigrationError on a misfit, or where this login may not do so.
    """
    try:
        return _migrate(database)
    except DatabaseError as error:
        if error.sqlstate == DENIED:
            raise MigrationError(
                "this login may not migrate: it must own the database, and have CREATEROLE or, where other databases of the "
                "server have them already, be granted orders_audit and orders_app WITH ADMIN OPTION"
            ) from None
        raise


def _migrate(database: Database) -> list[str]:
    with database.begin(patient=True) as transaction:
        transaction.execute("lock_migrations")
        transaction.execute("create_schema_history")
        lacking = _lacking(transaction)
        for migration in lacking:
            started = time.monotonic()
            transaction.script(migration.sql)
            transaction.execute(
                "record_migration",
                version=migration.version,
                description=migration.description,
                script=migration.script,
                checksum=migration.checksum,
                execution_time=int((time.monotonic() - started) * 1000),
            )
    return [migration.script for migration in lacking]


def pending(database: Database) -> list[str]:
    """Return the names of the files that the database lacks; raise MigrationError on a misfit, or RoleMissing."""
    with database.begin() as transaction:
        known = transaction.scalar("schema_history_exists")
        try:
            lacking = _lacking(transaction) if known else all_migrations()
        except DatabaseError as error:
            if error.sqlstate == DENIED:
                raise RoleMissing(transaction.login) from None
            raise
    return [migration.script for migration in lacking]


def require_current(database: Database) -> None:
    """Raise MigrationError when the database lacks a file."""
    lacking = pending(database)
    if lacking:
        raise MigrationError(f"the database lacks {len(lacking)} migrations; run `orders-pipeline db migrate`")


def _lacking(transaction: Transaction) -> list[Migration]:
    history = {row.version: row for row in transaction.rows("schema_history")}
    lacking = []
    for migration in all_migrations():
        applied = history.get(migration.version)
        if applied is None:
            lacking.append(migration)
        elif not applied.success:
            raise MigrationError(f"{migration.script} failed half-way before and must be repaired first")
        elif applied.checksum != migration.checksum:
            raise MigrationError(f"{migration.script} was changed after it had been applied")
    return lacking

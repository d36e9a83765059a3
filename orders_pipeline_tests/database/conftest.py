"""The harness of the database tests, and one database for all of them, emptied after each: much faster than a clone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.storage import FolderStorage, Storage, open_storage
from orders_pipeline_tests.support.databases import cloned_database, kept_connection
from orders_pipeline_tests.support.ledgers import Harness

EMPTY_EVERY_TABLE = """
DO $$
DECLARE name regclass;
BEGIN
    SET LOCAL session_replication_role = replica;  -- foreign keys and the rule that allocations stay
    FOR name IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
                AND relname NOT IN ('flyway_schema_history', 'audit_hash_key', 'retention_limits', 'dagster_retention')
    LOOP
        EXECUTE 'DELETE FROM ' || name;
    END LOOP;
    INSERT INTO installation DEFAULT VALUES;
    FOREACH name IN ARRAY '{installation,retention_limits,dagster_retention}'::regclass[] LOOP
        PERFORM audit_take_images(name);
    END LOOP;
    IF EXISTS (SELECT FROM pg_trigger WHERE tgenabled = 'D') THEN
        RAISE 'this test leaves the rules of the next one switched off';
    END IF;
END $$
"""


def empty_every_table(url: SecretStr) -> None:
    with kept_connection(url) as connection:
        connection.execute(EMPTY_EVERY_TABLE)


@pytest.fixture(scope="session")
def shared_url(server_url: str, template: str) -> Iterator[SecretStr]:
    """The URL of a migrated database that the tests of this folder use one after the other."""
    with cloned_database(server_url, template) as url:
        empty_every_table(url)  # an installation of its own for the first test, too
        yield url


@pytest.fixture
def database_url(shared_url: SecretStr) -> Iterator[SecretStr]:
    """The URL of a migrated database that is empty when the test begins."""
    yield shared_url
    empty_every_table(shared_url)


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    """An empty folder as the store."""
    return FolderStorage(tmp_path / "storage")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty landing with the folder of one client."""
    (tmp_path / "acme").mkdir()
    return tmp_path


@pytest.fixture
def landing(folder: Path) -> Storage:
    """That landing as it is looked at."""
    return open_storage(str(folder), s3_endpoint_url=None, s3_kms_key_id=None)


@pytest.fixture
def harness(database: Database) -> Harness:
    """A harness over an empty, migrated database."""
    return Harness(database)

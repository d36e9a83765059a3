"""The desk that database tests work at."""

import pytest

from orders_pipeline.database import Database
from orders_pipeline_tests.ledger_desk import Desk


@pytest.fixture
def desk(database: Database) -> Desk:
    """A desk over an empty, migrated database."""
    return Desk(database)

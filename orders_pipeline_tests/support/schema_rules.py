"""What tests of the schema's rules share: a row that breaks a rule is refused by its name, and each broken rule is noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from orders_pipeline_tests.support.ledgers import Harness

BATCH = (
    "INSERT INTO batches (batch_id, client_code, csv_source, bulk_import_group{columns})"
    " VALUES ('b', 'acme', 'x', 'b'{values})"
)
NOTIFICATION = (
    "INSERT INTO notifications (notification_id, batch_id, customer_code, channel{columns})"
    " VALUES (gen_random_uuid(), %s, 'C-1', 'email'{values})"
)
NOBODYS = "00000000-0000-4000-8000-000000000000"
RULES_WITH_A_TEST: set[str] = set()


@contextmanager
def refused_by(name: str) -> Iterator[None]:
    with pytest.raises(psycopg.IntegrityError) as refusal:
        yield
    assert refusal.value.diag.constraint_name == name


def breaks(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Note which rules a test breaks, so that the last test knows of those that none does."""
    RULES_WITH_A_TEST.update(names)
    return lambda test: test


def insert_batch(harness: Harness, **columns: object) -> None:
    names = "".join(f", {name}" for name in columns)
    harness.run(BATCH.format(columns=names, values=", %s" * len(columns)), *columns.values())


def insert_notification(harness: Harness, **columns: object) -> None:
    names = "".join(f", {name}" for name in columns)
    harness.run(NOTIFICATION.format(columns=names, values=", %s" * len(columns)), harness.batch_id, *columns.values())

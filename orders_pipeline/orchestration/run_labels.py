"""What Dagster's list of runs shows of a batch: its client, its file and how it stands, as tags of its runs.

Which tags there are is said in `batches/run_tags.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import dagster as dg

from orders_pipeline.batches import batches
from orders_pipeline.batches.run_tags import STATUS_TAG, batch_tags
from orders_pipeline.infrastructure.database import Database


@contextlib.contextmanager
def labelled(database: Database, instance: dg.DagsterInstance, run_id: str, batch_id: str) -> Iterator[None]:
    """Tag a batch's run when it begins and when it ends; one that cannot be tagged, or of no batch, goes on without.

    In between, its steps tag it when the batch's state changes.
    """

    def label() -> None:
        with contextlib.suppress(Exception):
            with database.begin() as transaction:
                batch = batches.get(transaction, batch_id)
            instance.add_run_tags(run_id, batch_tags(batch.client_code, batch.csv_source, batch.status))

    label()
    try:
        yield
    finally:
        label()


def label_status(instance: dg.DagsterInstance, run_id: str, status: str) -> None:
    """Tag a run with how its batch stands now; one that cannot be tagged goes on without."""
    with contextlib.suppress(Exception):
        instance.add_run_tags(run_id, {STATUS_TAG: status})

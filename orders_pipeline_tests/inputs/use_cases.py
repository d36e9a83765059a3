"""A case through the use cases, in process and without paying: what the default run does with every case."""

from __future__ import annotations

from pathlib import Path

import pytest

from orders_pipeline.intake import file_import, steps
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.reports import finishing
from orders_pipeline.system.composition import System
from orders_pipeline_tests.inputs.case import Case
from orders_pipeline_tests.inputs.outcome import check, system_for, write
from orders_pipeline_tests.support.installation import Installation

UNPAID = "paused"  # what a batch with accepted rows is until they are paid


def finish(system: System, batch_id: str) -> str:
    """Take a received batch as far as it goes without paying, and return its id."""
    for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
        step(system, batch_id)
    finishing.finish_batch(system.storage, system.database, batch_id)
    return batch_id


def take(system: System, path: Path, client: str) -> str:
    """Take a file as far as it goes without paying, and return its batch."""
    return finish(system, file_import.import_file(system, path, client, again=False))


def run_case(case: Case, installation: Installation, folder: Path) -> None:
    """Assert that a case's file comes to what it must."""
    system, earlier = system_for(case, installation.system, folder), ""
    for number, data in enumerate(case.before):
        path = folder / f"before-{number}.csv"
        path.write_bytes(data)
        earlier = take(system, path, case.client)
    path = write(case, folder)
    if not case.at_the_door:
        check(case, installation, path, take(system, path, case.client), UNPAID, earlier)
        return
    with pytest.raises(FileRejected) as caught:
        take(system, path, case.client)
    assert caught.value.code == case.file_code
    assert installation.rows("SELECT batch_id FROM batches WHERE client_code = %s", case.client) == []

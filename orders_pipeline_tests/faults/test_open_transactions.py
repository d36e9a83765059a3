"""D07: nothing outside the database is waited for while one of our transactions is open."""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from orders_pipeline.audit.exporting import export
from orders_pipeline.audit.records import CATEGORIES
from orders_pipeline.audit.sealing import anchor, seal
from orders_pipeline.audit.verifying import verify
from orders_pipeline.cli import doctor
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.storage import FolderStorage
from orders_pipeline.infrastructure.storage.folder_tree import FolderTree
from orders_pipeline.intake import file_import
from orders_pipeline.intake.landing import arrivals
from orders_pipeline.reports import errors_csv, finishing, summaries
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.security.encryption import new_key
from orders_pipeline.security.kms import KeyService
from orders_pipeline.services.http_client import ServiceClient
from orders_pipeline.settlement import sweep
from orders_pipeline.settlement.reconciliation.reconcile import reconcile
from orders_pipeline.settlement.refunds.plan import read_plan
from orders_pipeline.settlement.refunds.refunding import carry_out
from orders_pipeline.system import errors, settings
from orders_pipeline.system.composition import join_endpoints, open_system
from orders_pipeline.upkeep import key_rotation, retention
from orders_pipeline.upkeep.audit_shipping.bulk_index import BulkIndex
from orders_pipeline.upkeep.audit_shipping.shipping import ship
from orders_pipeline.upkeep.cancelling import begin, finish
from orders_pipeline_tests.support.index_server import indexing
from orders_pipeline_tests.support.installation import Installation, prepare

CLIENT = "acme"
OUTSIDE: dict[type, tuple[str, ...]] = {
    FolderStorage: (*("put", "head", "edges", "fetch", "local", "keep", "forget", "delete", "reencrypt", "encrypted_with"),),
    FolderTree: ("walk", "files"),  # listings, each time something is read for them
    ServiceClient: ("call",),
    KeyService: ("new_data_key", "open_data_key"),
    BulkIndex: ("send",),
}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is called outside by a thread that has a transaction open, and by whom."""
    opened, found = threading.local(), []
    begin_transaction = Database.begin

    @contextlib.contextmanager
    def begin_and_know(self: Database, **named: Any) -> Iterator[Transaction]:
        with begin_transaction(self, **named) as transaction:
            opened.count = getattr(opened, "count", 0) + 1
            try:
                yield transaction
            finally:
                opened.count -= 1

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            if getattr(opened, "count", 0):
                places = [f"{Path(each.filename).name}:{each.name}" for each in traceback.extract_stack()[-8:-1]]
                found.append(f"{function.__qualname__} from {' '.join(places)}")
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(Database, "begin", begin_and_know)
    for kind, names in OUTSIDE.items():
        for name in names:
            monkeypatch.setattr(kind, name, watched(getattr(kind, name)))
    return found


def test_d07_no_transaction_is_open_while_the_storage_or_a_service_is_called(
    installation: Installation, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = installation.system

    def file(name: str, seed: int) -> Path:
        write_sample(tmp_path / name, rows=8, seed=seed, bad=0.3)
        return tmp_path / name

    (tmp_path / "home" / "storage" / "landing" / CLIENT).mkdir(parents=True)
    batch_id = file_import.import_file(system, file("orders.csv", 1), CLIENT, again=False)
    assert installation.run(batch_id) is None  # with all that Dagster's assets and checks do
    for _ in range(2):
        arrivals.register_arrivals(system.database, system.landing)
    sweep.stalled_batches(system.database)
    cancelled = file_import.import_file(system, file("cancelled.csv", 2), CLIENT, again=False)
    prepare(system, cancelled)
    with system.database.begin() as transaction:
        begin(transaction, cancelled, cancelled_by="somebody", why="a test")
    finish(system, cancelled)
    carry_out(system, read_plan(system.database, batch_id), requested_by="somebody", reason="a test")
    finishing.finish_batch(system.storage, system.database, batch_id)
    summaries.recent(system, 10)
    assert list(errors_csv.errors_of(system.database, batch_id))
    installation.report(batch_id, "rejected")
    reconcile(system, None, None, None)
    seal(system.database)
    anchor(system.database, system.storage)
    with indexing() as index:
        assert ship(system.database, BulkIndex(index.url)).documents == len(index.documents) > 0
    retention.retain(system.database, system.storage)
    retention.purge_error_details(system.database, system.storage)
    assert verify(system.database, system.storage).broken is None
    assert list(export(system.database, system.storage, None, None, CATEGORIES))
    errors.describe(ValueError("planted"), system.settings, system)
    for name, value in installation.environment().items():
        monkeypatch.setenv(name, value)
    settings.load_settings()
    doctor.examine()
    both = f"{new_key()},{(installation.home / 'encryption_keys').read_text()}"
    changed = system.settings.model_copy(update={"encryption_keys": SecretStr(both)})
    with join_endpoints(changed) as endpoints, open_system(changed, endpoints) as again:
        assert key_rotation.rotate(again.database, again.storage, again.cipher, lambda _done, _to_do: None).is_done
    assert sorted(set(found)) == []

"""An installation: database, services, Dagster's records and a system over them, for tests that take whole batches.

Also what every such test asks in the end: whether our books and the services' own say the same, order by order.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orders_pipeline.definitions import defs
from orders_pipeline.intake import file_import, steps
from orders_pipeline.orchestration import runs
from orders_pipeline.orchestration.dagster_home import prepare_dagster_home
from orders_pipeline.orchestration.dagster_records import dagster_instance
from orders_pipeline.reports import finishing, report_files, summaries
from orders_pipeline.sandbox import SandboxServer
from orders_pipeline.sandbox.ledger import page_parameters
from orders_pipeline.settlement.batch_settlement import settling
from orders_pipeline.system.composition import System, join_endpoints, open_system
from orders_pipeline.system.settings import Settings
from orders_pipeline_tests.support.databases import cloned_database, kept_connection

CALLS_A_SECOND = 10
ENDED = ("completed", "completed_with_errors", "rejected")
CHARGED = ("succeeded", "processing")


@dataclass(frozen=True)
class Installation:
    """A system, the services it calls and Dagster's records of what it runs."""

    system: System
    sandbox: SandboxServer
    at_end: contextlib.ExitStack

    @functools.cached_property
    def instance(self) -> dg.DagsterInstance:
        """Dagster's records, opened where they are used: that takes as long as the rest."""
        return self.at_end.enter_context(dagster_instance(self.system.settings))

    @property
    def database_url(self) -> str:
        return self.system.database.url.get_secret_value()

    @property
    def home(self) -> Path:
        return self.system.settings.home

    def receive(self, path: Path, client_code: str, *, again: bool = False) -> str:
        return file_import.import_file(self.system, path, client_code, again=again)

    def run(self, batch_id: str) -> str | None:
        """Run the job for a batch and return why it failed; without Dagster that takes half the time."""
        return runs.run_batch(self.system, self.instance, defs, batch_id)

    def work_off(self, batch_id: str) -> None:
        work_off(self.system, batch_id)

    def summary(self, batch_id: str) -> dict[str, Any]:
        return summaries.summarise(self.system, batch_id)

    def take(self, path: Path, client_code: str) -> dict[str, Any]:
        """Import a file, process its batch to its end and return its summary."""
        batch_id = self.receive(path, client_code)
        work_off(self.system, batch_id)
        summary = self.summary(batch_id)
        assert summary["status"] in ENDED
        return summary

    def report(self, batch_id: str, name: str) -> bytes | None:
        with report_files.report(self.system.storage, self.system.database, batch_id, name) as path:
            return None if path is None else path.read_bytes()

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with kept_connection(self.system.database.url) as connection:
            found = connection.execute(statement.encode(), parameters)
            return found.fetchall() if found.description else []

    def environment(self, **more: str) -> dict[str, str]:
        """Return the settings of this system as variables, for commands of their own."""
        return {
            "ORDERS_HOME": str(self.home),
            "ORDERS_DATABASE_URL": self.database_url,
            "ORDERS_PAYMENT_URL": self.sandbox.url,
            "ORDERS_NOTIFICATION_URL": self.sandbox.url,
        } | more


def prepare(system: System, batch_id: str) -> None:
    """Do the steps of a batch up to its orders."""
    for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
        step(system, batch_id)


def work_off(system: System, batch_id: str) -> None:
    """Do all steps of a batch once, as its run does, but without Dagster: for tests that are not about that."""
    prepare(system, batch_id)
    with settling(system, batch_id, None) as settlement:
        if settlement is not None:
            settlement.start_notifying()
            settlement.pay()
            settlement.finish_notifying()
    finishing.finish_batch(system.storage, system.database, batch_id)


@contextlib.contextmanager
def open_installation(
    server_url: str, template: str, home: Path, *, address: str = "127.0.0.1", **settings: object
) -> Iterator[Installation]:
    """Open an installation whose services listen at `address`.

    What running batches puts into the environment is taken out again.
    """
    with (
        pytest.MonkeyPatch.context() as environment,
        cloned_database(server_url, template) as database_url,
        SandboxServer(home / "services.sqlite", host=address) as sandbox,
    ):
        environment.setenv("DAGSTER_HOME", str(home / "home" / "dagster"))
        for name in ("DAGSTER_PG_URL", "DAGSTER_REDACT_USER_CODE_ERRORS"):  # set by running batches
            environment.setenv(name, "")
        services = {"payment_url": sandbox.url, "notification_url": sandbox.url}
        chosen = Settings(**({"home": home / "home", "database_url": database_url} | services | settings))
        with join_endpoints(chosen) as endpoints, open_system(chosen, endpoints) as system, contextlib.ExitStack() as at_end:
            prepare_dagster_home(system)
            yield Installation(system, sandbox, at_end)


def check_books(
    installation: Installation, batch_id: str, *, notified_twice: int = 0, notified_unseen: int = 0
) -> dict[str, Any]:
    """Assert that our books of a batch equal the services' and that the rate was kept; return its summary.

    `notified_twice` is how many customers may be notified twice at most, by a service that ignores our keys, and
    `notified_unseen` how many before a batch was cancelled, by one that denies it.
    """
    summary, theirs = installation.summary(batch_id), installation.sandbox.ledger(batch_id)
    assert theirs["orders"] == {"paid": summary["orders"]["paid"], "paid_more_than_once": 0}
    assert theirs["payments"]["succeeded"] == summary["payments"]["succeeded"]
    assert theirs["payments"]["amount_jpy"] == summary["amount_jpy"]["paid"]
    duplicates = theirs["notifications"]["duplicates"]
    assert 0 <= theirs["notifications"]["sent"] - summary["notifications"]["sent"] - duplicates <= notified_unseen
    assert duplicates <= notified_twice
    assert installation.sandbox.ledger()["notifications"]["worst_window"] <= CALLS_A_SECOND
    assert _our_charges(installation, batch_id) == _their_charges(installation, batch_id)
    rows = summary["rows"]
    assert rows["total"] == rows["accepted"] + rows["rejected"] + rows["blank"] + rows["skipped"]
    continuing = installation.rows("SELECT rows_continuing FROM batches WHERE batch_id = %s", batch_id)[0][0]
    assert sum(summary["orders"].values()) == rows["accepted"] - continuing
    yen = dict(summary["amount_jpy"])
    assert yen.pop("accepted") == sum(yen.values())
    return summary


def check_finished(
    installation: Installation, batch_id: str, status: str = "completed", *, notified_twice: int = 0
) -> dict[str, Any]:
    """Assert that a batch has nothing open, that each customer was notified once and that the books are equal."""
    summary = check_books(installation, batch_id, notified_twice=notified_twice)
    assert summary["status"] == status
    orders, yen, notified = summary["orders"], summary["amount_jpy"], summary["notifications"]
    assert orders["pending"] == orders["paying"] == orders["unknown"] == 0
    assert yen["accepted"] == yen["paid"] + yen["declined"]
    assert notified["planned"] == notified["sent"] + notified["failed"]
    return summary


def _our_charges(installation: Installation, batch_id: str) -> list[tuple[str, str, int]]:
    """Return (order's reference, the service's payment, yen of the payment) of every order we say is paid."""
    return installation.rows(
        'SELECT order_reference(orders.batch_id, import_row_number) COLLATE "C", service_payment_id, payments.amount '
        "FROM orders "
        "JOIN payment_orders USING (order_id) JOIN payments USING (payment_id) "
        "WHERE orders.batch_id = %s AND orders.status = 'paid' AND live ORDER BY 1, 2",
        batch_id,
    )


def _their_charges(installation: Installation, batch_id: str) -> list[tuple[str, str, int]]:
    """Return the same of every order of the batch that the service says is paid, once for each charge."""
    statement = "SELECT order_reference(batch_id, import_row_number) FROM orders WHERE batch_id = %s"
    names = [name for (name,) in installation.rows(statement, batch_id)]
    ledger = installation.sandbox.service.ledger
    found = []
    for name in sorted(names):
        parameters = page_parameters(limit=100) | {"value": name}
        charges = [each for _, each in ledger.payments("order_id", parameters) if each.status in CHARGED]
        found += [(name, each.id, each.amount) for each in sorted(charges, key=lambda charge: charge.id)]
    return found

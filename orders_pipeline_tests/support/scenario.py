"""A client whose files go through all steps in this process, without Dagster: for tests of faults that strike on the way."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import psycopg

from orders_pipeline.infrastructure.database_errors import DatabaseUnavailable
from orders_pipeline.system.composition import System
from orders_pipeline_tests.support.commands import wait_for
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation, check_finished, prepare, work_off
from orders_pipeline_tests.support.order_file import OrderFile


def is_up(installation: Installation) -> bool:
    """Return whether an installation's database answers."""
    with contextlib.suppress(psycopg.OperationalError):
        return bool(installation.rows("SELECT 1"))
    return False


@dataclass
class Scenario:
    """A client with files, and the system that takes them."""

    installation: Installation
    system: System
    client: str
    tries: int = 0

    def receive(self, orders: int, notify_channel: str = "email") -> str:
        """Bring a file, each order of a customer of its own, and return its batch."""
        file = OrderFile("utf-8")
        for number in range(orders):
            reference = f"{self.client}-{number:04}"
            file.add(order_row(client_order_ref=reference, customer_code=reference, notify_channel=notify_channel))
        path = self.installation.home / f"{self.client}.csv"
        path.write_bytes(file.text.encode())
        return self.installation.receive(path, self.client)

    def prepare(self, batch_id: str) -> None:
        prepare(self.system, batch_id)

    def work_off(self, batch_id: str) -> None:
        """Do all steps of a batch once, as its run does."""
        self.tries += 1
        work_off(self.system, batch_id)

    def finish(self, batch_id: str) -> dict[str, Any]:
        """Process a batch, again while it breaks off, and return what it came to, the books being equal."""

        def is_done() -> bool:
            with contextlib.suppress(DatabaseUnavailable):
                self.work_off(batch_id)
            with contextlib.suppress(DatabaseUnavailable):  # connections of before it went and came
                return is_up(self.installation) and bool(self.installation.summary(batch_id)["status"] == "completed")
            return False

        wait_for(is_done, "the batch to be completed")
        return check_finished(self.installation, batch_id)

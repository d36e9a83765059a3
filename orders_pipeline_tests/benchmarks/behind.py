"""The benchmark of a long history: what is asked for, planned and ended behind it, against the seconds it may take.

    python -m orders_pipeline_tests.benchmarks.behind --batches 100 --orders 10000

The history is `history.fill`, which makes an eighth as many payments as orders. Behind it come two files of the run's own:
one of 10,000 orders that are all declined, and one of 100,000 orders of one customer. Prints Markdown; the seconds are those
of a first time where only that counts, and else the median of seven.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from pydantic import SecretStr

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.intake import file_import, steps
from orders_pipeline.reports import finishing, summaries
from orders_pipeline.settlement.notifications.plan import plan_notifications
from orders_pipeline.settlement.payments import settle
from orders_pipeline.system.composition import Endpoints, System, open_system
from orders_pipeline.system.settings import Settings
from orders_pipeline_tests.benchmarks.intake import Server, started_server
from orders_pipeline_tests.support import history
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.order_file import record

CLIENT = "behind"
NO_SERVICE = "http://127.0.0.1:9"
DECLINED, OF_ONE_CUSTOMER = 10_000, 100_000
DECLINE = """
SET session_replication_role = replica;
UPDATE payments SET status = 'declined', outcome_code = 'card_declined', sent_at = now(), settled_at = now()
WHERE batch_id = '{batch_id}';
UPDATE payment_orders SET live = false
FROM payments WHERE payment_orders.payment_id = payments.payment_id AND batch_id = '{batch_id}';
UPDATE orders SET status = 'declined' WHERE batch_id = '{batch_id}';
UPDATE notifications SET status = 'sent', sent_at = now(), settled_at = now(), service_notification_id = 'n-1'
WHERE batch_id = '{batch_id}';
UPDATE batches SET status = 'paying' WHERE batch_id = '{batch_id}';
"""


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextlib.contextmanager
def opened(url: str, home: Path) -> Iterator[System]:
    """Give the system of a database; no service is called."""
    endpoints = Endpoints(SecretStr(url), NO_SERVICE, NO_SERVICE)
    with open_system(Settings(home=home, database_url=endpoints.database_url, max_rows=10**6), endpoints) as system:
        yield system


def load(system: System, folder: Path, orders: int, customers: int) -> str:
    """Take in a file of so many orders and return its batch."""
    rows = [
        order_row(client_order_ref=f"{customers}-{number}", customer_code=f"C-{number % customers}")
        for number in range(orders)
    ]
    path = folder / "orders.csv"
    path.write_text("\r\n".join([record(list(rows[0])), *(record(list(row.values())) for row in rows), ""]))
    batch_id = file_import.import_file(system, path, CLIENT, again=False)
    for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
        step(system, batch_id)
    return batch_id


def plan(system: System, batch_id: str) -> None:
    settle.plan_batch(system.database, system.cipher, batch_id, Profile())
    plan_notifications(system.database, system.cipher, batch_id, Profile())


def measure(server: Server, name: str, home: Path, batches: int, orders: int) -> Iterator[tuple[str, float, float]]:
    """Yield what was done, the seconds it took and those it may take."""
    history.fill(SecretStr(server.named(name)), batches=batches, orders=orders)
    with opened(server.named(name), home) as system:
        declined = load(system, home, DECLINED, customers=DECLINED)
        plan(system, declined)
        server.run(name, DECLINE.format(batch_id=declined))
        yield (
            f"end a batch of {DECLINED:,} declined orders",
            timed(lambda: finishing.finish_batch(system.storage, system.database, declined)),
            2.0,
        )
        yield "list 20 batches", median(timed(lambda: summaries.recent(system, 20)) for _ in range(7)), 0.05
        yield "show one", median(timed(lambda: summaries.summarise(system, declined)) for _ in range(7)), 0.05
        one_customer = load(system, home, OF_ONE_CUSTOMER, customers=1)
        yield f"plan {OF_ONE_CUSTOMER:,} orders of one customer", timed(lambda: plan(system, one_customer)), 5.0
        yield (
            "list 20 batches, that one under way",
            median(timed(lambda: summaries.recent(system, 20)) for _ in range(7)),
            0.2,
        )


def main(batches: int, orders: int) -> None:
    folder = tempfile.TemporaryDirectory(prefix="behind-benchmark-")
    with folder as home, started_server(Path(home)) as server, server.clone() as name:
        sys.stdout.write(f"behind {batches:,} batches of {orders:,} orders\n\n| | seconds | may take |\n|---|---|---|\n")
        for what, seconds, limit in measure(server, name, Path(home), batches, orders):
            sys.stdout.write(f"| {what} | {seconds:.3f} | {limit:g} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--orders", type=int, default=10_000)
    arguments = parser.parse_args()
    main(arguments.batches, arguments.orders)

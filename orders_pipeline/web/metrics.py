"""Metrics: how much is done and what waits, as Prometheus asks for it; numbers of the database, and nobody's data.

They are asked of the database every ten seconds at most, however many ask here. Every process says the same, so that any
of them may be asked. What is wrong about a number, and what to do then, is said in `deployment/monitoring/`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from orders_pipeline.audit import sealing
from orders_pipeline.batches import run_processes
from orders_pipeline.batches.batches import AWAITING_APPROVAL, FINISHED, UNDER_WAY
from orders_pipeline.clients.api_tokens import METRICS
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.database_errors import DatabaseError
from orders_pipeline.settlement.reconciliation.findings import FINDINGS
from orders_pipeline.system import payment_stop
from orders_pipeline.system.composition import System
from orders_pipeline.upkeep.audit_shipping import shipping
from orders_pipeline.web.authentication import require

REMEMBERED_S = 10.0
SHARE = 0.1  # of the time, the database is asked at most
UNFINISHED = (*sorted(UNDER_WAY), AWAITING_APPROVAL, "paused", "stopped", "cancelling")
WAITING_RUNS = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")

Family = type[CounterMetricFamily] | type[GaugeMetricFamily]


@dataclass(frozen=True)
class Measure:
    """A number of many states, each of which is there from the beginning: what is not there cannot be alerted about."""

    name: str
    says: str
    label: str
    states: tuple[str, ...]
    family: Family = GaugeMetricFamily

    def of(self, amounts: Mapping[str, float]) -> Metric:
        """Return the metric with the amount of each state."""
        metric = self.family(self.name, self.says, labels=[self.label])
        for state, amount in (dict.fromkeys(self.states, 0) | dict(amounts)).items():
            metric.add_metric([state], float(amount))
        return metric


PAYMENT_RESULTS, OPEN_PAYMENTS = ("succeeded", "declined", "cancelled"), ("planned", "sending", "unknown")
# what `settled_totals` counts, by the names it has there
TOTALS = {
    "batches": Measure(
        "orders_batches_finished", "Batches that have finished.", "state", tuple(sorted(FINISHED)), CounterMetricFamily
    ),
    "rows": Measure(
        "orders_rows",
        "Rows of finished batches.",
        "result",
        ("accepted", "rejected", "blank", "skipped"),
        CounterMetricFamily,
    ),
    "payments": Measure(
        "orders_payments",
        "Payments by what they came to; refunded ones have succeeded. One of several orders that is declined is tried again "
        "order by order, and each of these payments counts too.",
        "result",
        PAYMENT_RESULTS,
        CounterMetricFamily,
    ),
    "yen": Measure("orders_payments_yen", "Yen of these payments.", "result", PAYMENT_RESULTS, CounterMetricFamily),
    "notifications": Measure(
        "orders_notifications",
        "Notifications of results by what they came to.",
        "result",
        ("sent", "failed", "cancelled"),
        CounterMetricFamily,
    ),
    "open payments": Measure(
        "orders_payments_open",
        "Payments that are not settled; those of `sending` are taken by a process.",
        "state",
        OPEN_PAYMENTS,
    ),
    "open yen": Measure("orders_payments_open_yen", "Yen of payments that are not settled.", "state", OPEN_PAYMENTS),
    "open notifications": Measure(
        "orders_notifications_open",
        "Notifications of results that are not settled.",
        "state",
        ("waiting", "ready", "sending", "unknown"),
    ),
}


class Metrics(Collector):
    """The metrics of the system, remembered for a while."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._lock = threading.Lock()
        self._found: list[Metric] = []
        self._until = 0.0
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what there is, is not asked for before somebody asks here."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Return the metrics; who comes while they are being asked for gets those before."""
        if time.monotonic() >= self._until and self._lock.acquire(blocking=not self._found):
            try:
                if time.monotonic() >= self._until:
                    self._ask()
            finally:
                self._lock.release()
        return self._found

    def show(self, request: Request) -> Response:
        """Answer who may read them, in the format that is asked for."""
        require(self._system, request, METRICS)
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"Content-Type": media_type})

    def _ask(self) -> None:
        began = time.monotonic()
        found = [*_measured(self._system), *_of_dagster(self._system)]
        seconds = time.monotonic() - began
        found.append(_one("orders_metrics_seconds", "How long asking for all of this took.", seconds))
        self._found, self._until = found, time.monotonic() + max(REMEMBERED_S, seconds / SHARE)


def _one(name: str, says: str, amount: float) -> Metric:
    return GaugeMetricFamily(name, says, value=amount)


def _measured(system: System) -> Iterator[Metric]:
    with system.database.begin() as transaction:
        yield from _of_batches(transaction)
        yield from _of_services(transaction)
        yield from _of_what_waits(transaction)
    if system.settings.run_launcher == "celery":
        slots = sum(run_processes.offered_slots(system.database))
        yield _one("orders_worker_slots", "How many runs all workers together take at once.", slots)
    yield from _of_the_audit(system.database)


def _of_batches(transaction: Transaction) -> Iterator[Metric]:
    totals: dict[str, dict[str, float]] = {measure: {} for measure in TOTALS}
    for row in transaction.rows("settled_totals"):
        totals[row.measure][row.state] = row.amount
    for measure, amounts in totals.items():
        yield TOTALS[measure].of(amounts)
    rows = transaction.rows("unfinished_batches")
    yield Measure("orders_batches", "Batches that have not finished.", "state", UNFINISHED).of(
        {row.state: row.batches for row in rows}
    )
    yield Measure("orders_batches_oldest_seconds", "Since when the oldest of these has been here.", "state", UNFINISHED).of(
        {row.state: row.oldest_s for row in rows}
    )


def _of_services(transaction: Transaction) -> Iterator[Metric]:
    is_open = {row.service: row.is_open for row in transaction.rows("breakers")}
    yield Measure("orders_breaker_open", "Whether a service's circuit breaker is open.", "service", ()).of(is_open)
    waits = {row.service: row.wait_s for row in transaction.rows("rate_token_waits")}
    yield Measure("orders_rate_token_wait_seconds", "Until a service may be called again.", "service", ()).of(waits)
    stop = payment_stop.current(transaction)
    codes = tuple(sorted({code for code, _ in payment_stop.REASONS.values()}))
    yield Measure("orders_paying_stopped", "Whether all paying and refunding is stopped, and why.", "code", codes).of(
        {} if stop is None else {stop.code: 1}
    )
    findings = {row.code: row.findings for row in transaction.rows("count_findings")}
    yield Measure(
        "orders_reconciliation_findings",
        "Differences to the service's ledger that nobody accepted.",
        "code",
        tuple(FINDINGS),
    ).of(findings)


def _of_what_waits(transaction: Transaction) -> Iterator[Metric]:
    (landing,) = transaction.rows("landing_waits")
    yield _one("orders_landing_files", "Order files in the landing that are no batch yet.", landing.files)
    yield _one("orders_landing_oldest_seconds", "Since when the oldest of these is known.", landing.oldest_s)
    yield _one("orders_landing_refused_files", "Order files in the landing that were refused.", landing.refused)
    webhooks, states = transaction.rows("unfinished_webhooks"), ("planned", "failed")
    yield Measure("orders_webhooks", "Webhooks that wait, or were given up.", "state", states).of(
        {row.status: row.webhooks for row in webhooks}
    )
    yield Measure("orders_webhooks_oldest_seconds", "Since when the oldest of these was to be sent.", "state", states).of(
        {row.status: row.oldest_s for row in webhooks}
    )


def _of_the_audit(database: Database) -> Iterator[Metric]:
    unsealed = sealing.unsealed(database)
    yield _one("orders_audit_unsealed_records", "Audit records that are not sealed yet.", unsealed.records)
    yield _one("orders_audit_unsealed_seconds", "Since when the oldest of these waits.", _age(unsealed.since))
    with database.begin() as transaction:
        last = transaction.row("last_seal")
    yield _one(
        "orders_audit_seal_age_seconds", "How old the newest seal is.", _age(None if last is None else last.sealed_at)
    )
    waiting = shipping.unshipped(database) or shipping.Unshipped(0, None)
    yield _one("orders_audit_unshipped_records", "Sealed audit records that were not sent outside.", waiting.records)
    yield _one("orders_audit_unshipped_seconds", "Since when the oldest of these is sealed.", _age(waiting.since))


def _age(since: datetime | None) -> float:
    return 0.0 if since is None else max((datetime.now(UTC) - since).total_seconds(), 0.0)


def _of_dagster(system: System) -> list[Metric]:
    """Return what Dagster's records say, if they are there; as who logs in: the tables are none of ours."""
    with (
        contextlib.suppress(DatabaseError),
        contextlib.closing(Database(system.endpoints.database_url, pool_size=1)) as login,
        login.begin() as transaction,
    ):
        if transaction.scalar("dagster_heartbeats_exist") and transaction.scalar("dagster_runs_exist"):
            runs = transaction.rows("unfinished_runs")
            heartbeats = {row.daemon: row.age_s for row in transaction.rows("daemon_heartbeats")}
            return [
                Measure("orders_runs", "Dagster's runs that wait or are under way.", "state", WAITING_RUNS).of(
                    {row.status: row.runs for row in runs}
                ),
                Measure("orders_runs_oldest_seconds", "Since when the oldest of these is there.", "state", WAITING_RUNS).of(
                    {row.status: row.oldest_s for row in runs}
                ),
                Measure("orders_daemon_heartbeat_seconds", "Since when a part of the daemon said nothing.", "daemon", ()).of(
                    heartbeats
                ),
            ]
    return []

"""The calls that a service is sent at once: never more than its bound, over all that pay and refund, and fairly shared."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from orders_pipeline.batches import heartbeat
from orders_pipeline.batches.shared_calls import SharedCalls
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.services.payment_gateway import Capabilities, PaymentRequest
from orders_pipeline.settlement.drain import drain, one_by_one
from orders_pipeline.settlement.payments.ledger import PAYMENT_BREAKER
from orders_pipeline.settlement.payments.settle import settle_batch
from orders_pipeline.settlement.refunds.ledger import RefundLedger
from orders_pipeline.settlement.refunds.plan import read_plan, write_plan
from orders_pipeline_tests.support.ledgers import Harness, order

MOST = 8


class CountingGateway:
    """A service that takes its time and notes how many calls it has at once."""

    capabilities = Capabilities()

    def __init__(self, call_s: float = 0.02) -> None:
        self.most = 0
        self.call_s = call_s
        self.ended: dict[str, float] = {}
        self._now = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(self.call_s)
        yield
        with self._lock:
            self._now -= 1

    def pay(self, request: PaymentRequest) -> Outcome:
        with self.call():
            self.ended[request.batch_id] = time.monotonic()
        return Outcome("succeeded", None, f"pay-{request.payment_id}")


def loaded(harness: Harness, batch_id: str, count: int) -> Harness:
    own = Harness(harness.database)
    own.batch(batch_id)
    own.orders(*(order(n, client_order_ref=f"{batch_id}-{n}", notify_channel="none") for n in range(1, count + 1)))
    own.plan(Profile(payments="per_order"))
    return own


def pay(harness: Harness, gateway: CountingGateway) -> None:
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.concurrency = MOST
        settle_batch(ledger, gateway, threading.Event())  # type: ignore[arg-type]


def refund(harness: Harness, gateway: CountingGateway) -> None:
    write_plan(harness.database, read_plan(harness.database, harness.batch_id), requested_by="operator", reason="returned")

    def give(claim: object) -> Outcome:
        with gateway.call():
            return Outcome("succeeded", None, "ref-1")

    with harness.working() as worker:
        ledger = RefundLedger(harness.database, worker)
        ledger.begin()
        bound = SharedCalls(harness.database, PAYMENT_BREAKER.service, worker, MOST)
        drain(ledger, one_by_one(give), concurrency=MOST, bound=bound, stop=threading.Event())


def test_batches_and_refunds_together_never_send_more_than_the_bound_and_a_small_one_is_not_last(harness):
    paid, *batches = [loaded(harness, f"20260701-00000000000{n}", count) for n, count in enumerate((40, 150, 150, 10))]
    gateway = CountingGateway()
    pay(paid, gateway)
    assert gateway.most == MOST
    with ThreadPoolExecutor(4) as pool:
        for work in [pool.submit(pay, batch, gateway) for batch in batches] + [pool.submit(refund, paid, gateway)]:
            work.result(120)
    assert gateway.most == MOST
    assert {state for batch in batches for state in batch.statuses("orders")} == {"paid"}
    assert set(paid.statuses("orders")) == {"refunded"}
    assert gateway.ended[batches[2].batch_id] < min(gateway.ended[batch.batch_id] for batch in batches[:2])
    assert harness.value("SELECT count(*) FROM service_shares") == 0


def test_a_worker_that_is_gone_leaves_its_share_to_the_others(harness):
    harness.batch()
    with harness.working() as worker:
        with harness.working() as other:
            assert SharedCalls(harness.database, "payment", other, MOST).allow(0, MOST) == MOST
            waiting = SharedCalls(harness.database, "payment", worker, MOST)
            assert waiting.allow(0, MOST) == 0
        assert waiting.allow(0, MOST) == MOST


def break_sessions(harness: Harness) -> None:
    harness.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def test_what_is_under_way_when_all_sessions_break_is_still_counted(harness, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.2)
    paid, *batches = [loaded(harness, f"20260701-00000000000{n}", count) for n, count in enumerate((15, 30, 30))]
    pay(paid, CountingGateway())
    gateway = CountingGateway(0.3)
    with contextlib.ExitStack() as stack:
        for each in (paid, *batches):  # each a process of its own
            each.database = stack.enter_context(contextlib.closing(Database(harness.database.url)))
        pool = stack.enter_context(ThreadPoolExecutor(3))
        works = [pool.submit(pay, batch, gateway) for batch in batches] + [pool.submit(refund, paid, gateway)]
        while not all(work.done() for work in works):
            if gateway.most:
                break_sessions(harness)
            time.sleep(1.0)  # while calls are under way, and before others may take them for gone
        for work in works:
            work.result()
    assert gateway.most <= MOST
    assert harness.value("SELECT count(*) FROM service_shares") == 0


def test_what_a_worker_holds_that_does_not_come_back_goes_to_the_others_after_a_while(harness, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 3600.0)
    harness.batch()
    with harness.working() as gone, harness.working() as worker:
        assert SharedCalls(harness.database, "payment", gone, MOST).allow(0, MOST) == MOST
        waiting = SharedCalls(harness.database, "payment", worker, MOST)
        break_sessions(harness)
        assert waiting.allow(0, MOST) == 0
        monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.0)
        monkeypatch.setattr("orders_pipeline.batches.shared_calls.RECONNECT_S", 0.0)
        assert waiting.allow(0, MOST) == MOST


def test_what_a_worker_holds_that_was_given_up_is_counted_until_it_leaves(harness, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.05)
    harness.batch()
    with harness.working() as worker:
        waiting = SharedCalls(harness.database, "payment", worker, MOST)
        with harness.working() as slow:
            assert SharedCalls(harness.database, "payment", slow, MOST).allow(0, MOST) == MOST
            harness.run("UPDATE workers SET ended_at = now() WHERE worker_id = %s", slow.worker_id)
            assert slow.given_up.wait(10)
            monkeypatch.setattr("orders_pipeline.batches.shared_calls.RECONNECT_S", -1.0)
            assert [waiting.allow(0, MOST) for _ in range(2)] == [0, 0]
        assert waiting.allow(0, MOST) == MOST


def test_who_has_more_than_a_fair_share_gives_it_back_as_its_calls_end(harness):
    harness.batch()
    with harness.working() as first, harness.working() as second:
        one, two = (SharedCalls(harness.database, "payment", worker, MOST) for worker in (first, second))
        assert (one.allow(0, MOST), two.allow(0, MOST)) == (MOST, 0)
        time.sleep(0.06)
        assert one.allow(MOST, MOST) == MOST // 2  # it begins no more, but holds what is under way
        assert two.allow(0, MOST) == 0
        time.sleep(0.06)
        assert one.allow(MOST // 2 + 1, MOST) == MOST // 2
        assert two.allow(0, MOST) == MOST // 2 - 1


@pytest.mark.parametrize("most", [1, 2])
def test_batches_that_are_more_than_the_calls_there_may_be_take_turns(harness, most, monkeypatch):
    monkeypatch.setattr("orders_pipeline_tests.database.test_shared_calls.MOST", most)
    batches = [loaded(harness, f"20260701-00000000000{n}", 5) for n in range(3)]
    gateway = CountingGateway()
    with ThreadPoolExecutor(3) as pool:
        for work in [pool.submit(pay, batch, gateway) for batch in batches]:
            work.result(60)
    assert gateway.most <= most

"""Y09, N05: items that a service refuses with answers that its contract does not name, beside others that it takes.

Real answers over HTTP from the sandbox, and its own ledger to compare with. Whose matter a refusal is, case by case, is in
database/test_refusals.py; what each answer means by itself in unit/test_rest.py and unit/test_notification_service.py.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from orders_pipeline.reports import errors_csv
from orders_pipeline.sandbox.options import Options
from orders_pipeline.settlement import ledger as ledgers
from orders_pipeline.settlement.payments.ledger import PaymentLedger
from orders_pipeline.settlement.refunds.plan import read_plan
from orders_pipeline.settlement.refunds.refunding import carry_out
from orders_pipeline.system.composition import open_system
from orders_pipeline_tests.support.commands import wait_for
from orders_pipeline_tests.support.installation import Installation, check_books, check_finished, open_installation
from orders_pipeline_tests.support.scenario import Scenario
from orders_pipeline_tests.support.soak import first_of

ANSWERS = ["400:malformed", "400", "404:payment-method-not-found", "413", "422:card-expired"]
Open = Callable[..., contextlib.AbstractContextManager[Scenario]]


@pytest.fixture(scope="module")
def _module_installation(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with open_installation(server_url, template, tmp_path_factory.mktemp("installation")) as opened:
        yield opened


@pytest.fixture
def open_scenario(
    _module_installation: Installation, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    """A function that opens a scenario whose services misbehave so; what was refused is tried again almost at once."""
    monkeypatch.setattr(ledgers, "BACKOFF_S", 0.02)
    monkeypatch.setattr(PaymentLedger, "doubt_s", 0.3)
    installation = _module_installation
    client = f"{zlib.crc32(request.node.name.encode())}"

    @contextlib.contextmanager
    def opened(name: str = "a", **options: Any) -> Iterator[Scenario]:
        installation.sandbox.change(notification_faults={}, **options)
        with open_system(installation.system.settings, installation.system.endpoints) as system:
            yield Scenario(installation, system, f"{client}{name}")

    yield opened
    installation.sandbox.service.options = Options()
    for table in ("service_breakers", "refusals", "acceptances"):
        installation.rows(f"DELETE FROM {table}")


@pytest.mark.parametrize("answer", ANSWERS)
def test_y09_one_payment_that_is_refused_among_fifty_is_declined_and_the_batch_ends(
    open_scenario: Open, answer: str
) -> None:
    with open_scenario() as scenario:
        code = answer.partition(":")[2] or f"http-{answer}"
        scenario.installation.sandbox.change(faults={"refuse_customer": f"{scenario.client}-0017", "refuse_as": answer})
        batch_id = scenario.receive(50, notify_channel="none")
        scenario.work_off(batch_id)
        summary = check_finished(scenario.installation, batch_id, "completed_with_errors")
        assert (summary["orders"]["paid"], summary["orders"]["declined"]) == (49, 1)
        assert summary["refused"] == summary["services_left_alone"] == []
        (row,) = errors_csv.errors_of(scenario.system.database, batch_id)
        assert (row["code"], code in row["message"]) == ("P_DECLINED", True)
        assert scenario.installation.rows(
            "SELECT count(*) FROM service_breakers WHERE failures > 0 OR opened_at IS NOT NULL"
        ) == [(0,)]


def test_y09_payments_that_are_refused_hold_up_no_other_client(open_scenario: Open) -> None:
    with open_scenario(latency_ms=20.0) as bad, open_scenario("b", latency_ms=20.0) as good:
        for scenario in bad, good:  # with as many under way as a batch has, none is sent after another was refused
            few = scenario.system.settings.model_copy(update={"payment_concurrency": 4})
            scenario.system = replace(scenario.system, settings=few)
        bad.installation.sandbox.change(faults={"refuse": 0.3, "seed": 4})
        refused, taken = bad.receive(60, notify_channel="none"), good.receive(60, notify_channel="none")
        good.installation.sandbox.change(faults={"refuse": 0.3, "seed": 4})
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda each: each[0].work_off(each[1]), ((bad, refused), (good, taken))))
        for batch_id in (refused, taken):
            summary = check_finished(bad.installation, batch_id, "completed_with_errors")
            assert summary["orders"]["declined"] + summary["orders"]["paid"] == 60
            assert summary["orders"]["declined"]


def test_y09_payments_that_are_refused_all_at_once_wait_for_another_that_is_taken(open_scenario: Open) -> None:
    with open_scenario(latency_ms=100.0) as scenario, open_scenario("b") as other:
        installation, batch_id = scenario.installation, scenario.receive(30, notify_channel="none")
        installation.sandbox.change(faults={"refuse": 0.6, "seed": 4})
        scenario.work_off(batch_id)
        summary = check_books(installation, batch_id)
        assert (summary["status_code"], summary["orders"]["declined"]) == ("E_PAYMENT_REFUSED", 0)
        installation.sandbox.change(faults={"refuse_customer": f"{scenario.client}-0000"})
        other.finish(other.receive(1, notify_channel="none"))
        installation.sandbox.change(faults={"refuse": 0.6, "seed": 4})
        scenario.work_off(batch_id)
        assert check_finished(installation, batch_id, "completed_with_errors")["orders"]["paid"] == summary["orders"]["paid"]


@pytest.mark.parametrize("orders", first_of([40, 1, 3], 2))
def test_y09_where_everything_is_refused_nothing_is_declined_and_all_goes_on_once_it_is_taken(
    open_scenario: Open, orders: int
) -> None:
    with open_scenario(faults="refuse=1,refuse_as=404") as scenario:
        installation, batch_id = scenario.installation, scenario.receive(orders, notify_channel="none")
        attempts = installation.sandbox.service._attempts
        attempts.clear()
        scenario.work_off(batch_id)
        assert sum(attempts.values()) <= 3 * 40
        summary = check_books(installation, batch_id)
        assert (summary["status"], summary["status_code"]) == ("paused", "E_PAYMENT_REFUSED")
        assert summary["orders"]["pending"] == orders
        (refused,) = summary["refused"]
        assert (refused["service"], refused["code"]) == ("payment", "http-404")
        assert installation.rows("SELECT 1 FROM service_breakers WHERE opened_at IS NOT NULL") == []
        installation.sandbox.change(faults="")
        assert scenario.finish(batch_id)["orders"]["paid"] == orders


def test_y09_what_waits_alone_is_declined_once_somebody_else_was_served(open_scenario: Open) -> None:
    with open_scenario() as scenario, open_scenario("b") as other:
        installation, batch_id = scenario.installation, scenario.receive(1, notify_channel="none")
        installation.sandbox.change(faults={"refuse_customer": f"{scenario.client}-0000"})
        scenario.work_off(batch_id)
        assert installation.summary(batch_id)["status_code"] == "E_PAYMENT_REFUSED"
        other.finish(other.receive(1, notify_channel="none"))
        scenario.work_off(batch_id)
        assert check_finished(installation, batch_id, "completed_with_errors")["orders"]["declined"] == 1


def test_y09_a_service_that_begins_to_refuse_in_the_middle_declines_nobody(open_scenario: Open) -> None:
    with open_scenario(latency_ms=10.0) as scenario:
        installation, batch_id = scenario.installation, scenario.receive(80, notify_channel="none")
        payments = installation.sandbox.service.ledger
        booked, calls = payments.book_payment, iter(range(1000))

        def book(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == 30:
                installation.sandbox.service.options = installation.sandbox.service.options.model_copy(
                    update={"faults": Options(faults={"refuse": 1}).faults}  # type: ignore[arg-type]
                )
            return booked(*args, **kwargs)

        payments.book_payment = book  # type: ignore[method-assign]
        try:
            scenario.work_off(batch_id)
        finally:
            del payments.book_payment  # type: ignore[attr-defined]
        summary = check_books(installation, batch_id)
        assert summary["status_code"] == "E_PAYMENT_REFUSED"
        assert summary["orders"]["declined"] == 0
        assert summary["orders"]["paid"] >= 30
        installation.sandbox.change(faults="")
        assert scenario.finish(batch_id)["orders"]["paid"] == 80


@pytest.mark.parametrize(
    "fault", first_of(["reset_after", "rate_limited", "error_after", "reset_before", "error_before"], 2)
)
def test_y09_a_refusal_among_other_faults_is_declined_only_once_nothing_can_be_under_way(
    open_scenario: Open, fault: str
) -> None:
    with open_scenario() as scenario:
        installation = scenario.installation
        faults = {fault: 0.3, "max_per_key": 2, "seed": 5, "retry_after": "0", "refuse_customer": f"{scenario.client}-0003"}
        installation.sandbox.change(faults=faults)
        batch_id = scenario.receive(20)

        def is_over() -> bool:
            scenario.work_off(batch_id)
            return bool(installation.summary(batch_id)["status"] != "paused")

        wait_for(is_over, "the batch to end")
        assert check_finished(installation, batch_id, "completed_with_errors")["orders"]["declined"] == 1


def test_b07_an_order_that_is_paid_in_another_way_is_a_persons(open_scenario: Open) -> None:
    with open_scenario() as scenario:
        installation = scenario.installation
        installation.sandbox.change(
            faults={"refuse_customer": f"{scenario.client}-0004", "refuse_as": "409:order-already-paid"}
        )
        batch_id = scenario.receive(10)
        scenario.work_off(batch_id)
        summary = installation.summary(batch_id)
        assert (summary["status"], summary["status_code"]) == ("paused", "E_PAYMENT_UNKNOWN")
        assert (summary["orders"]["paid"], summary["orders"]["unknown"]) == (9, 1)
        (unknown,) = summary["unknown_payments"]
        assert (unknown["code"], unknown["needs_a_person"]) == ("order-already-paid", True)


def refund_orders(scenario: Scenario, batch_id: str) -> dict[str, Any]:
    plan = read_plan(scenario.system.database, batch_id, ())
    refunds: dict[str, Any] = carry_out(scenario.system, plan, requested_by="operator", reason="back")["refunds"]
    return refunds


def test_y09_a_refund_that_is_refused_is_declined_and_the_others_are_made(open_scenario: Open) -> None:
    with open_scenario() as scenario:
        installation, batch_id = scenario.installation, scenario.receive(6, notify_channel="none")
        scenario.finish(batch_id)
        ((bad,), *_) = installation.rows("SELECT service_payment_id FROM payments WHERE batch_id = %s", batch_id)
        installation.sandbox.change(faults={"refuse_customer": bad, "refuse_as": "422:too-late"})
        refunds = refund_orders(scenario, batch_id)
        assert (refunds["planned"], refunds["succeeded"], refunds["declined"]) == (6, 5, 1)
        assert installation.rows("SELECT DISTINCT outcome_code FROM refunds WHERE status = 'declined'") == [("too-late",)]
        assert installation.summary(batch_id)["orders"]["paid"] == 1


def test_y09_where_every_refund_is_refused_none_is_declined_and_payments_go_on(open_scenario: Open) -> None:
    with open_scenario() as scenario, open_scenario("b") as other:
        installation, batch_id = scenario.installation, scenario.receive(4, notify_channel="none")
        scenario.finish(batch_id)
        installation.sandbox.change(faults={"refuse_amount": 1000, "refuse_as": "405"})
        refunds = refund_orders(scenario, batch_id)
        assert (refunds["planned"], refunds["succeeded"], refunds["declined"]) == (4, 0, 0)
        assert [each["code"] for each in installation.summary(batch_id)["refused"]] == ["http-405"]
        installation.sandbox.change(faults="")
        assert other.finish(other.receive(2, notify_channel="none"))["orders"]["paid"] == 2
        assert refund_orders(scenario, batch_id)["succeeded"] == 4


@pytest.mark.parametrize(
    ("answer", "bulk"),
    [("400:malformed", None), ("422:unsubscribed", None), ("422:unsubscribed", "each"), ("413", "whole"), ("404", "whole")],
)
def test_n05_one_customer_who_cannot_be_notified_is_one_failed_notification(
    open_scenario: Open, answer: str, bulk: str | None
) -> None:
    with open_scenario(bulk=bulk is not None, rate_per_s=10) as scenario:
        installation = scenario.installation
        refuse = {"refuse_customer": f"{scenario.client}-0005", "refuse_as": answer, "refuse_whole": bulk == "whole"}
        installation.sandbox.change(notification_faults=refuse)
        batch_id = scenario.receive(12)
        scenario.work_off(batch_id)
        summary = check_finished(installation, batch_id, "completed_with_errors")
        assert (summary["notifications"]["sent"], summary["notifications"]["failed"]) == (11, 1)


def test_n05_many_customers_who_cannot_be_notified_in_one_call_are_so_many_failed_notifications(open_scenario: Open) -> None:
    with open_scenario(bulk=True) as scenario:
        installation = scenario.installation
        installation.sandbox.change(notification_faults={"refuse": 0.5, "refuse_as": "422:unsubscribed", "seed": 4})
        batch_id = scenario.receive(40)
        scenario.work_off(batch_id)
        told = check_finished(installation, batch_id, "completed_with_errors")["notifications"]
        assert told["failed"] >= 12
        assert told["sent"] == 40 - told["failed"]


def test_n05_a_template_that_nobody_knows_fails_no_notification_and_all_are_sent_once_it_is_there(
    open_scenario: Open,
) -> None:
    with open_scenario(templates=("another",)) as scenario:
        installation, batch_id = scenario.installation, scenario.receive(3)
        scenario.work_off(batch_id)
        summary = check_books(installation, batch_id)
        assert (summary["status"], summary["status_code"]) == ("paused", "E_NOTIFICATION_REFUSED")
        assert (summary["orders"]["paid"], summary["notifications"]["failed"]) == (3, 0)
        assert [each["code"] for each in summary["refused"]] == ["template-not-found"]
        installation.sandbox.change(templates=())
        assert scenario.finish(batch_id)["notifications"]["sent"] == 3

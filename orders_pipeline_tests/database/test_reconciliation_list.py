"""The service's list: paged, asked for again when it fails, read to its end or not believed at all; what it heals."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from orders_pipeline.batches import batches
from orders_pipeline.sandbox import SandboxServer
from orders_pipeline.services import payment_listing
from orders_pipeline.services.http_client import ServiceClient
from orders_pipeline.services.payment_gateway import Capabilities, ListedPayment, ListFailed, PaymentPage
from orders_pipeline.services.rest_payments import RestPayments
from orders_pipeline.settlement.reconciliation.reconcile import NoList, reconcile
from orders_pipeline.system.composition import System
from orders_pipeline_tests.support.ledgers import Harness, order, wait_for_a_blocked_session
from orders_pipeline_tests.support.soak import first_of
from orders_pipeline_tests.support.threaded_server import answering
from orders_pipeline_tests.support.two_ledgers import DAY, Books, found


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[SandboxServer]:
    with SandboxServer(tmp_path / "services.sqlite") as server:
        yield server


@pytest.fixture
def books(system: System, sandbox: SandboxServer, tmp_path: Path) -> Books:
    return Books(Harness(system.database), system, sandbox, tmp_path / "services.sqlite")


def unknown_payment(books: Books) -> str:
    """Have a payment whose result never came back, though it was booked, long ago."""
    books.harness.batch()
    books.harness.orders(order(1, customer_code="C-1"), order(2, customer_code="C-1"))
    books.harness.plan()
    payment_id = str(books.harness.value("SELECT payment_id FROM payments"))
    books.charge(books.reference(payment_id), 2000, orders=books.order_names(), key=payment_id)
    books.harness.run("UPDATE payments SET status = 'unknown', sent_at = now(), next_attempt_at = now() + interval '9 days'")
    books.harness.run("UPDATE orders SET status = 'unknown'")
    books.let_time_pass()
    return payment_id


def test_an_unknown_payment_is_healed_by_what_the_service_says_and_orders_and_notifications_follow(books):
    payment_id = unknown_payment(books)
    result = books.compare()
    assert (result.healed, result.findings) == (1, [])
    query = {"reference": books.reference(payment_id)}
    (theirs,) = requests.get(f"{books.sandbox.url}/v1/payments", query, timeout=10).json()["items"]
    (ours,) = books.harness.run("SELECT * FROM payments")
    assert (ours["status"], ours["service_payment_id"], ours["claimed_by"]) == ("succeeded", theirs["id"], None)
    assert (books.harness.statuses("orders"), books.harness.statuses("notifications")) == (["paid", "paid"], ["ready"])
    (finding,) = books.findings()
    assert (finding["code"], finding["closed_how"], str(finding["payment_id"])) == ("C_STATE_DIFFERS", "healed", payment_id)
    assert finding["detail"]["ours"] == {"amount": 2000, "status": "unknown"}
    assert books.compare().healed == 0


def test_an_unknown_payment_that_failed_there_is_declined_and_its_orders_are_planned_alone(books):
    payment_id = unknown_payment(books)
    books.at_service(
        "UPDATE payments SET status = 'failed', failure_code = 'card_expired' WHERE idempotency_key = ?", payment_id
    )
    assert books.compare().healed == 1
    declined, *again = books.harness.run("SELECT * FROM payments ORDER BY created_at")
    assert (declined["status"], declined["outcome_code"]) == ("declined", "card_expired")
    assert [(each["status"], each["amount"]) for each in again] == [("planned", 1000), ("planned", 1000)]
    assert books.harness.statuses("orders") == ["pending", "pending"]
    assert books.harness.statuses("notifications") == ["waiting"]


def test_an_unknown_payment_that_a_live_worker_has_claimed_is_left_alone_until_it_lets_go(books):
    payment_id = unknown_payment(books)
    with books.harness.working() as worker:
        books.harness.run("UPDATE payments SET claimed_by = %s", worker.worker_id)
        result = books.compare()
        assert (result.healed, [code for code, *_ in found(result)]) == (0, ["C_STATE_DIFFERS"])
        assert books.harness.statuses("payments") == ["unknown"]
        books.harness.run("UPDATE payments SET claimed_by = NULL")
    assert books.compare().healed == 1
    (finding,) = books.findings()
    assert (finding["closed_how"], str(finding["payment_id"])) == ("healed", payment_id)


def test_an_unknown_payment_that_a_worker_claims_at_this_moment_is_not_healed(books):
    payment_id = unknown_payment(books)
    with books.harness.working() as worker, ThreadPoolExecutor(1) as pool:
        with books.harness.connect() as connection:
            connection.execute("UPDATE payments SET claimed_by = %s", [worker.worker_id])
            comparing = pool.submit(books.compare)
            wait_for_a_blocked_session(books.harness)
        assert comparing.result().healed == 0
    (ours,) = books.harness.run("SELECT payment_id, status, claimed_by FROM payments")
    assert (str(ours["payment_id"]), ours["status"], ours["claimed_by"]) == (payment_id, "unknown", worker.worker_id)
    assert books.harness.statuses("orders") == ["unknown", "unknown"]


@pytest.mark.parametrize(
    "change",
    ["amount = 1999", "status = 'refunded'", "created_us = created_us + 3600000000", "reference = 'x'"],
    ids=["another amount", "given back", "young", "key only"],
)
def test_an_unknown_payment_is_not_healed_by_what_is_not_exactly_it(books, change):
    payment_id = unknown_payment(books)
    books.at_service(f"UPDATE payments SET {change} WHERE idempotency_key = ?", payment_id)
    assert books.compare().healed == 0
    assert (books.harness.statuses("payments"), books.harness.statuses("orders")) == (["unknown"], ["unknown", "unknown"])


def test_an_unknown_payment_is_not_healed_by_a_charge_for_other_orders(books):
    payment_id = unknown_payment(books)
    page = PaymentPage([listed(books, payment_id, service_payment_id="pay_x", allocations={"7": 2000})], None)
    now = datetime.now(UTC)
    assert reconcile(replace(books.system, payments=ListingGateway(page)), None, now - DAY, now).healed == 0


def test_an_unknown_payment_with_two_charges_is_not_healed(books):
    payment_id = unknown_payment(books)
    books.charge(books.reference(payment_id), 2000)
    books.let_time_pass()
    result = books.compare()
    assert result.healed == 0
    assert sorted(code for code, *_ in found(result)) == ["C_CHARGED_TWICE", "C_STATE_DIFFERS"]


def test_more_payments_than_a_page_holds_are_all_compared(books, monkeypatch):
    monkeypatch.setattr(payment_listing, "PAGE", 3)
    books.pay(*range(1001, 1011))
    books.let_time_pass()
    result = books.compare()
    assert (result.here, result.there, result.findings) == (10, 10, [])


@pytest.mark.parametrize(
    "fault",
    [
        *("error_before", "rate_limited", "unavailable", "reset_before", "malformed", "truncated"),
        *("empty", "html", "wrong_types", "wrong_body", "huge"),
    ],
)
def test_a_list_that_fails_at_first_is_asked_for_again(books, monkeypatch, fault):
    monkeypatch.setattr(payment_listing, "PAUSE_S", 0.01)
    books.pay(1000)
    books.let_time_pass()
    books.sandbox.change(lookup_faults=f"{fault}=1,max_per_key=2,retry_after=")
    result = books.compare()
    assert (result.here, result.there, result.findings) == (1, 1, [])


class ListingGateway:
    """Answers with given pages."""

    def __init__(self, *pages: PaymentPage | ListFailed, able: bool = True) -> None:
        self.capabilities = Capabilities(can_list=able)
        self.pages = list(pages)
        self.limits: list[int] = []

    def list_payments(self, created_from: datetime, created_to: datetime, *, limit: int, cursor: str | None = None) -> Any:
        self.limits.append(limit)
        page = self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]
        if isinstance(page, ListFailed):
            raise page
        return page


def listed(books: Books, payment_id: str, **changes: Any) -> ListedPayment:
    row = books.harness.run("SELECT * FROM payments WHERE payment_id = %s", payment_id)[0]
    listed = ListedPayment(row["service_payment_id"], payment_id, payment_id, row["amount"], "succeeded", row["created_at"])
    return replace(listed, **changes)


def test_shares_of_orders_are_compared_where_the_list_gives_them(books):
    (payment_id,) = books.pay(1000)
    books.let_time_pass()
    (name,) = books.order_names()
    for allocations, codes in [({name: 1000}, []), ({"7": 1000}, ["C_AMOUNT_DIFFERS"])]:
        page = PaymentPage([listed(books, payment_id, allocations=allocations)], None)
        system = replace(books.system, payments=ListingGateway(page))
        assert [code for code, *_ in found(reconcile(system, books.harness.batch_id, None, None))] == codes


@pytest.mark.parametrize(("is_listed", "code"), [(True, "C_CHARGED_TWICE"), (False, "C_MISSING_HERE")])
def test_a_charge_of_somebody_elses_for_an_order_of_ours_is_a_difference_of_its_batch(books, is_listed, code):
    (payment_id,) = books.pay(1000, finish=False)
    books.let_time_pass()
    (name,) = books.order_names()
    ours = listed(books, payment_id)
    other = replace(ours, service_payment_id="pay_other", reference="x", idempotency_key=None, allocations={name: 1000})
    stranger = replace(other, service_payment_id="pay_stranger", allocations={"somebody-1": 1000})
    if not is_listed:
        books.harness.run("UPDATE payments SET status = 'planned', settled_at = NULL, service_payment_id = NULL")
    items = [other, stranger, *([ours] if is_listed else [])]
    system = replace(books.system, payments=ListingGateway(PaymentPage(items, None)))
    now = datetime.now(UTC)
    result = reconcile(system, None, now - DAY, now)
    assert [
        (each["code"], each["payment_id"], each["service_payment_id"], each["batch_id"]) for each in result.findings
    ] == [(code, None, "pay_other", books.harness.batch_id)]
    assert result.foreign == 1
    with books.system.database.begin() as transaction:
        assert batches.progress(transaction, books.harness.batch_id).ledgers_differ


def test_a_list_that_goes_round_in_circles_is_given_up(books):
    (payment_id,) = books.pay(1000)
    page = PaymentPage([listed(books, payment_id)], "again")
    with pytest.raises(ListFailed, match="page-without-end"):
        reconcile(replace(books.system, payments=ListingGateway(page)), books.harness.batch_id, None, None)


def test_a_page_that_does_not_come_is_asked_for_in_smaller_pieces_and_then_given_up(books, monkeypatch):
    monkeypatch.setattr(payment_listing, "PAUSE_S", 0.0)
    books.pay(1000)
    gateway = ListingGateway(ListFailed("E_SERVICE_NO_ANSWER"))
    with pytest.raises(ListFailed):
        reconcile(replace(books.system, payments=gateway), books.harness.batch_id, None, None)
    assert gateway.limits == [100, 10, 1, 1]
    refused = ListingGateway(ListFailed("unauthorized", may_pass=False))
    with pytest.raises(ListFailed):
        reconcile(replace(books.system, payments=refused), books.harness.batch_id, None, None)
    assert refused.limits == [100]


def test_pages_that_are_too_long_come_in_pieces_and_longer_again_after_some_that_came(books, monkeypatch):
    monkeypatch.setattr(payment_listing, "PAUSE_S", 20.0)  # nothing is waited for
    (payment_id,) = books.pay(1000)
    item = listed(books, payment_id)
    too_long = ListFailed("E_SERVICE_ANSWER_TOO_LONG", is_too_long=True)
    pages = [PaymentPage([replace(item, service_payment_id=f"pay_{n}")], f"behind {n}") for n in range(12)]
    gateway = ListingGateway(too_long, too_long, *pages, too_long, PaymentPage([item], None))
    reconcile(replace(books.system, payments=gateway), books.harness.batch_id, None, None)
    assert gateway.limits == [100, 10, *[1] * 11, 10, 10, 1]


@pytest.mark.parametrize(("payments", "orders"), first_of([(120, 200), (15, 10_000), (120, 100)]))
def test_payments_that_name_thousands_of_orders_are_all_read(books, payments, orders):
    """A page holds a megabyte at most, which a single payment of 10,000 orders does not fill."""
    shares = [{"order_id": f"20260701-0123456789ab-{number}", "amount": 1} for number in range(orders)]
    names = {"status": "succeeded", "amount": orders, "currency": "JPY", "idempotency_key": None}
    listing = [
        {"id": f"pay_{n}", "reference": "web", "created_at": "2026-07-01T03:00:00Z", "allocations": shares} | names
        for n in range(payments)
    ]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            start, limit = int(query.get("cursor", 0)), int(query["limit"])
            following = str(start + limit) if start + limit < len(listing) else None
            body = json.dumps({"items": listing[start : start + limit], "next": following}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    books.pay(1000)
    with answering(server := ThreadingHTTPServer(("127.0.0.1", 0), Handler)):
        client = ServiceClient(f"http://127.0.0.1:{server.server_port}", None, 30.0)
        result = reconcile(replace(books.system, payments=RestPayments(client)), books.harness.batch_id, None, None)
    assert result.foreign == payments


def test_a_comparison_that_breaks_off_closes_and_finds_nothing(books):
    payment_id, _ = books.pay(1000, 2000)
    books.let_time_pass()
    pages = (PaymentPage([listed(books, payment_id)], "more"), ListFailed("unauthorized", may_pass=False))
    with pytest.raises(ListFailed):
        reconcile(replace(books.system, payments=ListingGateway(*pages)), books.harness.batch_id, None, None)
    assert (books.findings(), books.closings()) == ([], [])


def test_a_provider_without_a_list_is_not_compared(books):
    with pytest.raises(NoList):
        reconcile(replace(books.system, payments=ListingGateway(PaymentPage([], None), able=False)), None, None, None)

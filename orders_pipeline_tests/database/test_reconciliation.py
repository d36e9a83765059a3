"""Our payments against the service's own list: each difference made for real, found once, and closed when it is gone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orders_pipeline.batches import batches
from orders_pipeline.batches.batches import UnknownBatch
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.sandbox import SandboxServer
from orders_pipeline.services.payment_gateway import ListFailed
from orders_pipeline.services.rest_payments import RestPayments
from orders_pipeline.settlement.reconciliation import listed
from orders_pipeline.settlement.reconciliation.closings import FIGURES, sha256_of
from orders_pipeline.settlement.reconciliation.findings import accept
from orders_pipeline.settlement.reconciliation.reconcile import reconcile
from orders_pipeline.settlement.refunds.plan import read_plan, write_plan
from orders_pipeline.settlement.refunds.refunding import send_refunds
from orders_pipeline.settlement.resolve import Decision, resolve_refund
from orders_pipeline.system.composition import System
from orders_pipeline_tests.support.ledgers import Harness, order
from orders_pipeline_tests.support.two_ledgers import DAY, Books, found

SOME_ID = "6a1f7a3e-0000-4000-8000-000000000001"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[SandboxServer]:
    with SandboxServer(tmp_path / "services.sqlite") as server:
        yield server


@pytest.fixture
def books(system: System, sandbox: SandboxServer, tmp_path: Path) -> Books:
    return Books(Harness(system.database), system, sandbox, tmp_path / "services.sqlite")


def test_a_clean_batch_has_no_finding_and_gets_a_closing_record_by_equality(books):
    books.pay(1000, 2000, 3000)
    result = books.compare(books.harness.batch_id)
    assert (result.here, result.there, result.young, result.findings) == (3, 3, 0, [])
    assert result.closed == [books.harness.batch_id]
    (closing,) = books.closings()
    theirs = books.sandbox.ledger(books.harness.batch_id)["payments"]
    assert closing["amount_at_service"] == theirs["amount_jpy"] == closing["amount_paid"] == 6000
    assert (closing["rows_total"], closing["rows_accepted"], closing["orders_paid"]) == (3, 3, 3)
    assert (closing["orders_declined"], closing["differences"], closing["source_sha256"]) == (0, [], "abc")
    figures = {name: closing[name] for name in FIGURES} | {"differences": closing["differences"]}
    assert closing["figures_sha256"] == sha256_of(figures)


def test_a_closing_record_is_written_once_and_again_when_something_else_is_found(books):
    (payment_id,) = books.pay(1000)
    assert [books.compare(books.harness.batch_id).closed for _ in range(2)] == [[books.harness.batch_id], []]
    books.let_time_pass()
    books.refund(books.charge_id(payment_id), 1000)
    assert books.compare().closed == [books.harness.batch_id]
    assert books.compare(books.harness.batch_id).closed == []
    first, second = books.closings()
    assert (first["differences"], second["differences"]) == ([], ["C_STATE_DIFFERS"])
    assert (first["amount_at_service"], second["amount_at_service"]) == (1000, 0)


def test_a_batch_gets_no_closing_record_while_nobody_knows_whether_some_of_it_was_refunded(books):
    books.harness.batch()
    books.harness.orders(*(order(n, customer_code="C-1", notify_channel="none") for n in (1, 2, 3)))
    books.harness.plan()
    books.settle()
    books.finish(3000)
    books.let_time_pass()
    plan = read_plan(books.system.database, books.harness.batch_id, ["ORD-0001"])
    write_plan(books.system.database, plan, requested_by="operator", reason="returned")
    books.harness.run("UPDATE refunds SET status = 'unknown', sent_at = now() - interval '1 hour', attempts = 1")
    assert books.compare(books.harness.batch_id).closed == []
    books.refund(books.charge_id(str(books.harness.value("SELECT payment_id FROM payments"))), 1000)  # its answer was lost
    assert books.compare(books.harness.batch_id).closed == []
    books.harness.run("UPDATE refunds SET status = 'succeeded', service_refund_id = 'ref_1', settled_at = now()")
    books.harness.run("UPDATE orders SET status = 'refunded' WHERE client_order_ref = 'ORD-0001'")
    assert books.compare(books.harness.batch_id).closed == [books.harness.batch_id]
    (closing,) = books.closings()
    assert (closing["amount_at_service"], closing["amount_paid"], closing["differences"]) == (2000, 2000, [])


def test_what_is_refunded_while_the_list_is_read_is_too_young_to_say_anything(books, monkeypatch):
    books.pay(1000, 2000)
    books.let_time_pass()
    insert_page = listed._insert_page

    def refunding(session: Transaction, *rest: Any) -> int:
        inserted = insert_page(session, *rest)
        plan = read_plan(books.system.database, books.harness.batch_id)
        write_plan(books.system.database, plan, requested_by="operator", reason="returned")
        with books.harness.working() as worker:
            send_refunds(books.system, worker)
        return inserted

    monkeypatch.setattr(listed, "_insert_page", refunding)
    result = books.compare(books.harness.batch_id)
    assert (result.open, result.young, result.closed) == ({}, 2, [])


def test_the_daily_comparison_closes_what_has_finished_since(books):
    books.pay(1000, 2000)
    books.let_time_pass()
    assert books.compare().closed == [books.harness.batch_id]
    assert books.compare().closed == []


def test_a_batch_that_is_not_finished_gets_no_closing_record(books):
    books.pay(1000, 2000, finish=False)
    assert books.compare(books.harness.batch_id).closed == []
    assert books.closings() == []


def test_a_batch_gets_no_closing_record_while_a_difference_is_too_young_to_say_anything(books):
    first, second = books.pay(1000, 2000)
    books.let_time_pass()
    books.refund(books.charge_id(first), 1000)
    books.charge(books.reference(second), 2000)
    result = books.compare(books.harness.batch_id)
    assert (result.open, result.young, result.closed) == ({"C_STATE_DIFFERS": 1}, 1, [])
    books.let_time_pass()
    books.compare(books.harness.batch_id)
    assert [closing["differences"] for closing in books.closings()] == [["C_CHARGED_TWICE", "C_STATE_DIFFERS"]]


def test_c_missing_there_a_payment_of_ours_that_the_service_does_not_have(books):
    payment_id, _ = books.pay(1000, 2000)
    books.let_time_pass()
    charge_id = books.charge_id(payment_id)
    books.at_service("DELETE FROM payments WHERE id = ?", charge_id)
    assert found(books.compare()) == [("C_MISSING_THERE", payment_id, charge_id, ("succeeded", 1000), None)]
    assert books.findings()[0]["batch_id"] == books.harness.batch_id


def test_c_missing_there_a_payment_planned_long_before_it_was_charged_is_not_missed(books):
    books.pay(1000)
    books.let_time_pass()
    books.harness.run("UPDATE payments SET settled_at = settled_at + interval '40 minutes'")
    now = datetime.now(UTC)
    result = reconcile(books.system, None, now - timedelta(minutes=30), now)
    assert (result.here, result.there, result.findings) == (1, 1, [])


def test_d14_c_missing_here_charges_whose_rows_a_restored_database_does_not_have(books):
    payment_id, _ = books.pay(1000, 2000)
    charge_id = books.charge_id(payment_id)
    books.let_time_pass()
    books.lose(payment_id)
    assert found(books.compare()) == [("C_MISSING_HERE", payment_id, charge_id, None, ("succeeded", 1000))]


@pytest.mark.parametrize("reference", ["web-order-17", SOME_ID, f"0123456789ab-{SOME_ID}"])
def test_payments_of_other_callers_are_counted_and_hold_nobody_up(books, reference):
    books.pay(1000)
    for number in range(3):
        books.charge(reference, 500 + number, orders=[f"somebody-{number}"], key=reference if not number else None)
    books.let_time_pass()
    result = books.compare()
    assert (result.findings, result.here, result.there, result.foreign, result.unreadable) == ([], 1, 1, 3, 0)
    with books.system.database.begin() as transaction:
        assert not batches.progress(transaction, books.harness.batch_id).ledgers_differ


def test_c_missing_here_a_charge_that_we_say_was_never_made(books):
    (payment_id,) = books.pay(1000, finish=False)
    charge_id = books.charge_id(payment_id)
    books.let_time_pass()
    books.harness.run("UPDATE payments SET status = 'declined'")
    assert found(books.compare()) == [("C_MISSING_HERE", payment_id, charge_id, ("declined", 1000), ("succeeded", 1000))]
    assert books.harness.statuses("payments") == ["declined"]


def test_c_amount_differs_another_amount_at_the_service(books):
    payment_id, _ = books.pay(1000, 2000)
    charge_id = books.charge_id(payment_id)
    books.let_time_pass()
    books.at_service("UPDATE payments SET amount = 1001 WHERE id = ?", charge_id)
    assert found(books.compare()) == [("C_AMOUNT_DIFFERS", payment_id, charge_id, ("succeeded", 1000), ("succeeded", 1001))]


def test_y24_c_state_differs_a_refund_at_the_service_is_found_and_does_not_overwrite_ours(books):
    payment_id, _ = books.pay(1000, 2000)
    charge_id = books.charge_id(payment_id)
    books.let_time_pass()
    books.refund(charge_id, 1000)
    assert found(books.compare()) == [("C_STATE_DIFFERS", payment_id, charge_id, ("succeeded", 1000), ("refunded", 1000))]
    assert books.harness.statuses("payments") == ["succeeded", "succeeded"]
    assert books.harness.statuses("orders") == ["paid", "paid"]


def test_c_state_differs_a_payment_that_failed_there_after_all(books):
    (payment_id,) = books.pay(1000)
    charge_id = books.charge_id(payment_id)
    books.let_time_pass()
    books.at_service("UPDATE payments SET status = 'failed' WHERE id = ?", charge_id)
    assert found(books.compare()) == [("C_STATE_DIFFERS", payment_id, charge_id, ("succeeded", 1000), ("failed", 1000))]


def test_p2_c_charged_twice_two_charges_under_one_reference(books):
    (payment_id,) = books.pay(1000)
    second = books.charge(books.reference(payment_id), 1000)
    books.let_time_pass()
    result = books.compare()
    assert found(result) == [("C_CHARGED_TWICE", payment_id, second, ("succeeded", 1000), ("succeeded", 1000))]
    assert result.findings[0]["besides"] == books.charge_id(payment_id)
    books.refund(second, 1000)
    result = books.compare()
    assert (found(result), result.gone) == ([], 1)


def test_p2_c_charged_twice_a_charge_beside_the_one_we_know_which_is_not_listed_any_more(books):
    (payment_id,) = books.pay(1000)
    second = books.charge(books.reference(payment_id), 1000)
    books.let_time_pass()
    books.at_service("UPDATE payments SET created_us = 0 WHERE id = ?", books.charge_id(payment_id))
    (finding,) = books.compare().findings
    assert (finding["code"], finding["service_payment_id"]) == ("C_CHARGED_TWICE", second)
    assert finding["besides"] == books.charge_id(payment_id)


def test_p2_c_charged_twice_an_order_whose_first_payment_was_not_declined_after_all(books):
    books.sandbox.change(faults="decline_payment=1")
    (declined,) = books.pay(1000, finish=False)
    books.sandbox.change(faults="")
    books.harness.run("UPDATE orders SET status = 'pending'")
    books.harness.plan()
    books.settle()
    (paid,) = [str(r["payment_id"]) for r in books.harness.run("SELECT payment_id FROM payments WHERE status = 'succeeded'")]
    books.let_time_pass()
    assert found(books.compare()) == []
    books.at_service("UPDATE payments SET status = 'succeeded' WHERE idempotency_key = ?", declined)
    result = books.compare()
    assert {(code, ours) for code, ours, *_ in found(result)} == {
        ("C_MISSING_HERE", declined),
        ("C_CHARGED_TWICE", declined),
    }
    (twice,) = [each for each in result.findings if each["code"] == "C_CHARGED_TWICE"]
    assert twice["besides"] == books.charge_id(paid)


def test_a_finding_is_one_however_often_it_is_seen_and_has_an_age(books):
    (payment_id,) = books.pay(1000)
    books.let_time_pass()
    books.at_service("UPDATE payments SET amount = 999 WHERE id = ?", books.charge_id(payment_id))
    assert [(result.new, result.open) for result in (books.compare(), books.compare())] == [
        (1, {"C_AMOUNT_DIFFERS": 1}),
        (0, {"C_AMOUNT_DIFFERS": 1}),
    ]
    books.let_time_pass()
    result = books.compare()
    assert len(books.findings()) == 1
    assert 3600 <= result.findings[0]["age_s"] < 4000


def test_a_difference_that_is_gone_is_closed_by_the_next_comparison_and_opens_anew_when_it_comes_back(books):
    (payment_id,) = books.pay(1000)
    books.let_time_pass()
    charge_id = books.charge_id(payment_id)
    for yen in (999, 1000, 999):
        books.at_service("UPDATE payments SET amount = ? WHERE id = ?", yen, charge_id)
        result = books.compare()
    assert (result.new, result.open) == (1, {"C_AMOUNT_DIFFERS": 1})
    first, second = books.findings()
    assert (first["closed_how"], second["closed_how"]) == ("gone", None)


def test_a_finding_older_than_the_days_looked_at_is_still_compared_and_not_closed_by_looking_away(books):
    (payment_id,) = books.pay(1000)
    second = books.charge(books.reference(payment_id), 1000)
    books.let_time_pass()
    books.compare()
    books.let_time_pass(hours=10 * 24)
    result = books.compare()
    assert (found(result)[0][:3], result.gone) == (("C_CHARGED_TWICE", payment_id, second), 0)
    books.refund(second, 1000)
    assert books.compare().gone == 1


def test_what_was_accepted_and_is_another_difference_now_is_open_again(books):
    (payment_id,) = books.pay(1000)
    books.let_time_pass()
    charge_id = books.charge_id(payment_id)
    books.at_service("UPDATE payments SET amount = 990 WHERE id = ?", charge_id)
    books.compare()
    accept(books.system.database, books.findings()[0]["finding_id"], accepted_by="ops", why="a fee of 10 yen")
    assert (books.compare().open, books.compare().accepted) == ({}, 1)
    books.at_service("UPDATE payments SET amount = 900000 WHERE id = ?", charge_id)
    result = books.compare()
    assert (result.open, result.accepted, result.new) == ({"C_AMOUNT_DIFFERS": 1}, 0, 1)
    before, now_open = books.findings()
    assert (before["closed_how"], before["accepted_why"]) == ("changed", "a fee of 10 yen")
    assert (now_open["accepted_at"], now_open["detail"]["theirs"]["amount"]) == (None, 900000)


@pytest.mark.parametrize("accepted", [True, False])
def test_no_finding_makes_the_days_that_are_listed_more(books, accepted):
    """What is open is looked up, what is accepted is left; a year later the comparison of a day is still that of a day."""
    (payment_id,) = books.pay(1000)
    books.let_time_pass()
    books.at_service("UPDATE payments SET amount = 999 WHERE id = ?", books.charge_id(payment_id))
    books.compare()
    if accepted:
        accept(books.system.database, books.findings()[0]["finding_id"], accepted_by="ops", why="a fee")
    books.let_time_pass(hours=300 * 24)
    result = books.compare()
    assert result.scope.covered_from > result.scope.started_at - timedelta(days=1, minutes=1)
    assert (result.open, result.accepted) == (({}, 1) if accepted else ({"C_AMOUNT_DIFFERS": 1}, 0))
    books.at_service("UPDATE payments SET amount = 1000 WHERE id = ?", books.charge_id(payment_id))
    assert books.compare().gone == (0 if accepted else 1)


def test_an_old_finding_that_cannot_be_looked_up_now_stays_open(books):
    (payment_id,) = books.pay(1000)
    books.let_time_pass()
    books.at_service("DELETE FROM payments WHERE id = ?", books.charge_id(payment_id))
    books.compare()
    books.let_time_pass(hours=300 * 24)
    assert books.compare().open == {"C_MISSING_THERE": 1}
    last_seen = books.findings()[0]["last_seen_at"]
    capabilities = replace(books.system.payments.capabilities, can_look_up=False)
    books.system.payments.capabilities = capabilities
    now = datetime.now(UTC)
    for result in (books.compare(), reconcile(books.system, None, now - 400 * DAY, now - 390 * DAY)):
        assert (result.open, result.gone, books.findings()[0]["last_seen_at"]) == ({"C_MISSING_THERE": 1}, 0, last_seen)


def test_old_findings_are_looked_up_until_one_does_not_come(books, monkeypatch):
    payment_ids = books.pay(1000, 2000)
    books.let_time_pass()
    for payment_id in payment_ids:
        books.at_service("UPDATE payments SET amount = 999 WHERE id = ?", books.charge_id(payment_id))
    assert books.compare().open == {"C_AMOUNT_DIFFERS": 2}
    books.let_time_pass(hours=300 * 24)
    books.at_service("UPDATE payments SET status = 'cancelled' WHERE id = ?", books.charge_id(payment_ids[1]))
    for may_pass, asked_for in ((True, 1), (False, 2)):
        asked = []

        def failing(_self: Any, charge_id: str, asked: list[str] = asked, may_pass: bool = may_pass) -> None:
            asked.append(charge_id)
            raise ListFailed("planted", may_pass=may_pass)

        with monkeypatch.context() as patched:
            patched.setattr(RestPayments, "list_by_id", failing)
            assert (books.compare().open, len(asked)) == ({"C_AMOUNT_DIFFERS": 2}, asked_for)
    assert books.compare().open == {"C_AMOUNT_DIFFERS": 1, "C_UNREADABLE": 1}


@pytest.mark.parametrize("change", ["status = 'cancelled'", "amount = 0", "id = '決済1'"])
def test_a_payment_of_somebody_elses_that_cannot_be_read_is_counted(books, change):
    books.pay(1000)
    charge_id = books.charge("web-1", 500)
    books.let_time_pass()
    books.at_service(f"UPDATE payments SET {change} WHERE id = ?", charge_id)
    result = books.compare()
    assert (result.findings, result.there, result.foreign, result.unreadable) == ([], 1, 1, 1)


@pytest.mark.parametrize(
    ("change", "shown"), [("status = 'cancelled'", True), ("amount = 0", True), ("id = '決済1'", False)]
)
def test_c_unreadable_a_payment_of_ours_that_cannot_be_read_is_a_difference_of_its_own(books, change, shown):
    first, second = books.pay(1000, 2000)
    books.let_time_pass()
    charge_id = books.charge_id(first)
    books.at_service(f"UPDATE payments SET {change} WHERE id = ?", charge_id)
    unreadable = ("C_UNREADABLE", first, charge_id if shown else None, ("succeeded", 1000), ("unreadable", None))
    result = books.compare()
    assert (found(result), result.foreign) == ([unreadable], 0)
    books.at_service("DELETE FROM payments WHERE id = ?", books.charge_id(second))
    books.lose(first)
    assert {each[:2] for each in found(books.compare())} == {("C_MISSING_HERE", first), ("C_MISSING_THERE", second)}
    with books.system.database.begin() as transaction:
        assert batches.progress(transaction, books.harness.batch_id).ledgers_differ


def test_q07_what_is_younger_than_two_minutes_is_ignored_on_both_sides(books):
    payment_id, lost = books.pay(1000, 2000)
    books.lose(lost)
    books.at_service("DELETE FROM payments WHERE id = ?", books.charge_id(payment_id))
    result = books.compare()
    assert (result.findings, result.young) == ([], 2)
    assert books.compare(books.harness.batch_id).closed == []
    books.let_time_pass()
    assert [code for code, *_ in found(books.compare())] == ["C_MISSING_HERE", "C_MISSING_THERE"]


def test_a_batchs_comparison_says_nothing_of_others(books):
    books.pay(1000)
    books.charge("not one of ours", 500)
    books.let_time_pass()
    result = books.compare(books.harness.batch_id)
    assert (result.here, result.there, result.findings) == (1, 1, [])


def test_a_batch_that_is_not_there_is_not_compared(books):
    with pytest.raises(UnknownBatch):
        books.compare("20260701-nowhere")


def test_q07_a_comparison_while_payments_are_being_made_finds_nothing(books):
    books.sandbox.change(latency_ms=20)
    paying = threading.Thread(target=books.pay, args=range(1001, 1061), kwargs={"finish": False})
    paying.start()
    compared = []
    while paying.is_alive():
        compared.append(books.compare())
    paying.join()
    assert len(compared) > 1
    assert [(result.findings, result.healed) for result in compared] == [([], 0)] * len(compared)
    assert books.harness.statuses("payments") == ["succeeded"] * 60


def test_a_finding_holds_amounts_states_and_ids_only(books):
    payment_id, _ = books.pay(500, 1000)
    books.charge("planted 山田 planted@example.com", 500)
    books.let_time_pass()
    books.lose(payment_id)
    books.compare()
    (finding,) = books.findings()
    assert finding["detail"] == {"ours": None, "theirs": {"amount": 500, "status": "succeeded"}}
    assert "planted" not in json.dumps(finding, default=str)


# --- refunds, in yen ---------------------------------------------------------------------------------------------------


def paid_for(books: Books, *numbers: int) -> None:
    """Have one payment of 1,000 yen for each of some orders of a customer, an hour ago."""
    books.harness.batch()
    books.harness.orders(*(order(number, notify_channel="none") for number in numbers))
    books.harness.plan()
    books.settle()
    books.finish(1000 * len(numbers))
    books.let_time_pass()


def refund_order(books: Books, ref: str) -> None:
    plan = read_plan(books.system.database, books.harness.batch_id, [ref])
    write_plan(books.system.database, plan, requested_by="operator", reason="returned")
    with books.harness.working() as worker:
        send_refunds(books.system, worker)


def refunded(books: Books) -> list[tuple[str, int, int]]:
    """Return the open findings' codes with the yen refunded here and there."""
    return [(each["code"], each["ours"]["refunded"], each["theirs"]["refunded"]) for each in books.compare().findings]


def test_yen_refunded_only_at_the_service_are_found_and_are_not_ours_to_say(books):
    (payment_id,) = books.pay(1000)
    books.let_time_pass()
    books.refund(books.charge_id(payment_id), 400)
    assert refunded(books) == [("C_REFUND_MISSING_HERE", 0, 400)]
    (closing,) = books.closings()
    assert (closing["amount_at_service"], closing["amount_paid"]) == (600, 1000)
    assert closing["differences"] == ["C_REFUND_MISSING_HERE"]
    books.refund(books.charge_id(payment_id), 100)
    assert refunded(books) == [("C_REFUND_MISSING_HERE", 0, 500)]
    with books.system.database.begin() as transaction:
        assert not batches.progress(transaction, books.harness.batch_id).ledgers_differ


def test_yen_refunded_only_in_our_ledger_are_found(books):
    paid_for(books, 1, 2)
    refund_order(books, "ORD-0001")
    books.harness.run("UPDATE refunds SET sent_at = now() - interval '1 hour', settled_at = now() - interval '1 hour'")
    assert refunded(books) == []
    (closing,) = books.closings()
    assert (closing["amount_at_service"], closing["amount_paid"], closing["differences"]) == (1000, 1000, [])
    books.at_service("UPDATE payments SET refunded = 0")
    assert refunded(books) == [("C_REFUND_MISSING_THERE", 1000, 0)]
    assert books.closings()[-1]["amount_at_service"] == 2000
    books.at_service("UPDATE payments SET refunded = 1000")
    assert (books.compare().gone, books.findings()[0]["closed_how"]) == (1, "gone")


def test_a_refund_on_its_way_explains_what_the_service_has_refunded_and_no_more(books):
    paid_for(books, 1, 2)
    plan = read_plan(books.system.database, books.harness.batch_id, ["ORD-0001"])
    write_plan(books.system.database, plan, requested_by="operator", reason="returned")
    books.harness.run("UPDATE refunds SET status = 'unknown', sent_at = now() - interval '1 hour', attempts = 1")
    books.refund(str(books.harness.value("SELECT service_payment_id FROM payments")), 1000)
    assert refunded(books) == []
    books.refund(str(books.harness.value("SELECT service_payment_id FROM payments")), 1)
    assert refunded(books) == [("C_REFUND_MISSING_HERE", 0, 1001)]


def test_a_provider_whose_list_leaves_refunds_out_is_compared_by_state_alone(books, monkeypatch):
    paid_for(books, 1, 2)
    books.refund(str(books.harness.value("SELECT service_payment_id FROM payments")), 500)
    insert_page = listed._insert_page

    def without_refunds(*arguments: Any) -> int:
        *others, page = arguments
        items = [replace(item, refunded_amount=None) for item in page.items]
        return insert_page(*others, replace(page, items=items))

    monkeypatch.setattr(listed, "_insert_page", without_refunds)
    assert books.compare().findings == []
    books.refund(str(books.harness.value("SELECT service_payment_id FROM payments")), 1500)
    assert [each["code"] for each in books.compare().findings] == ["C_STATE_DIFFERS"]
    assert books.closings()[-1]["amount_at_service"] == 0


@pytest.mark.parametrize("refs", [["ORD-0001"], ["ORD-0001", "ORD-0002"]])
def test_a_refund_that_a_restored_database_has_lost_is_found_and_not_made_again(books, refs):
    """It waits for a person, who finds it at the service and says so; then both ledgers agree."""
    paid_for(books, 1, 2)
    for ref in refs:
        refund_order(books, ref)
    books.harness.tamper(
        "DELETE FROM refund_orders",
        "DELETE FROM refunds",
        "UPDATE orders SET status = 'paid'",
        "UPDATE payments SET status = 'succeeded'",
    )
    code = "C_REFUND_MISSING_HERE" if len(refs) == 1 else "C_STATE_DIFFERS"
    assert [each["code"] for each in books.compare().findings] == [code]
    books.harness.run("UPDATE orders SET notify_channel = 'none'")
    given_back = books.sandbox.ledger(books.harness.batch_id)["payments"]["refunded_jpy"]
    for ref in refs:
        refund_order(books, ref)
    assert books.sandbox.ledger(books.harness.batch_id)["payments"]["refunded_jpy"] == given_back
    held = books.harness.run("SELECT refund_id, status, outcome_code FROM refunds")
    assert {(each["status"], each["outcome_code"]) for each in held} == {("unknown", "made-already")}
    for number, each in enumerate(held):
        resolve_refund(books.system.database, str(each["refund_id"]), Decision(f"ref-{number}", "ops", "seen there"))
    books.harness.run("UPDATE refunds SET settled_at = now() - interval '1 hour', sent_at = now() - interval '1 hour'")
    result = books.compare()
    assert (result.findings, result.gone) == ([], 1)

"""Whether our ledger is whole: asked of storage and list, said while paying rests, and ended by one command."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orders_pipeline.batches import batches
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.storage import StorageUnavailable
from orders_pipeline.reports import summaries
from orders_pipeline.sandbox import SandboxServer
from orders_pipeline.security.encryption import DecryptionError
from orders_pipeline.services import payment_listing
from orders_pipeline.services.payment_gateway import ListFailed
from orders_pipeline.services.rest_payments import RestPayments
from orders_pipeline.settlement.batch_settlement import settling
from orders_pipeline.settlement.reconciliation.findings import accept
from orders_pipeline.settlement.reconciliation.reconcile import reconcile
from orders_pipeline.settlement.refunds.plan import read_plan
from orders_pipeline.settlement.refunds.refunding import carry_out
from orders_pipeline.settlement.resolve import Decision, resolve_refund
from orders_pipeline.system import ledger_marks, payment_stop
from orders_pipeline.system.composition import System
from orders_pipeline.system.ledger_marks import LedgerMark
from orders_pipeline.system.payment_stop import LedgersDiffer, StorageInUse
from orders_pipeline.system.restore_guard import NotStopped
from orders_pipeline.upkeep import cancelling
from orders_pipeline_tests.support.databases import cloned_database
from orders_pipeline_tests.support.ledgers import Harness, order
from orders_pipeline_tests.support.two_ledgers import Books


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[SandboxServer]:
    with SandboxServer(tmp_path / "services.sqlite") as server:
        yield server


@pytest.fixture
def books(system: System, sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Books:
    monkeypatch.setattr(payment_listing, "PAUSE_S", 0.0)
    return Books(Harness(system.database), system, sandbox, tmp_path / "services.sqlite")


@pytest.fixture
def other(system: System, server_url: str, template: str) -> Iterator[System]:
    """The same system over a database of its own, where nothing was ever paid."""
    with cloned_database(server_url, template) as url, contextlib.closing(Database(url)) as database:
        yield dataclasses.replace(system, database=database)


def start_anew(books: Books) -> None:
    """Have another running database than the one that was found whole."""
    books.harness.run("UPDATE installation SET seen_as = 'the server before it was restarted'")


def put_back(books: Books) -> None:
    """Have the storage know of a later mark, as after any restore."""
    state = books.harness.run("SELECT * FROM installation")[0]
    later = LedgerMark(state["generation"], state["mark"] + 2, state["installation_id"])
    books.system.storage.put(later.key, b"{}")


def rests(system: System) -> str | None:
    with system.database.begin() as transaction:
        found = payment_stop.current(transaction)
    return None if found is None else found.code


def refund(books: Books) -> list[str | None]:
    """Give one order back and return what the refunds that did not succeed say."""
    plan = read_plan(books.harness.database, books.harness.batch_id, ["ORD-0001"])
    return [each["code"] for each in carry_out(books.system, plan, requested_by="ops", reason="r")["not_refunded"]]


def given_back(books: Books) -> int:
    return int(books.sandbox.ledger(books.harness.batch_id)["payments"]["refunded_jpy"])


def old_refund_that_we_lost(books: Books) -> str:
    """Have a payment of long ago that the service has given half of back under a key that it forgot; return its id."""
    books.harness.batch()
    books.harness.orders(*(order(number, notify_channel="none") for number in (1, 2)))
    books.harness.plan()
    books.settle()
    books.finish(2000)
    (payment_id,) = [str(row["payment_id"]) for row in books.harness.run("SELECT payment_id FROM payments")]
    books.let_time_pass(24 * 60)
    start_anew(books)
    assert books.system.restore_guard.advance()  # whole, as far as the list of the time since tells
    books.refund(books.charge_id(payment_id), 1000)
    books.sandbox.change(honour_keys=False)
    return payment_id


def test_a_mark_that_cannot_be_looked_at_is_not_taken_for_none(books, monkeypatch):
    put_back(books)

    def fail(_folder: int, _name: str) -> None:
        raise OSError(5, "planted")

    with monkeypatch.context() as patch:
        patch.setattr("orders_pipeline.infrastructure.storage.folder_tree.file_status", fail)
        with pytest.raises(StorageUnavailable):
            books.system.restore_guard.is_behind()
    assert books.system.restore_guard.is_behind()


@pytest.mark.parametrize("is_noticed", [True, False])
def test_a_lost_refund_of_an_old_payment_is_not_made_again(books, is_noticed):
    old_refund_that_we_lost(books)
    if is_noticed:
        put_back(books)
        assert not books.system.restore_guard.is_whole()
        assert reconcile(books.system, None, None, None).resumed
    assert refund(books) == ["made-already"]
    assert given_back(books) == 1000


def test_a_refund_that_a_person_found_not_made_is_made_whatever_else_was_refunded(books):
    old_refund_that_we_lost(books)
    assert refund(books) == ["made-already"]
    refund_id = books.harness.value("SELECT refund_id FROM refunds")
    resolve_refund(books.harness.database, str(refund_id), Decision(None, "ops", "the other half was"))
    assert refund(books) == []
    assert given_back(books) == 2000
    books.harness.tamper(  # back to before that
        "UPDATE refunds SET status = 'planned', settled_at = NULL, service_refund_id = NULL, attempts = 0",
        "UPDATE orders SET status = 'paid'",
        "UPDATE payments SET status = 'succeeded'",
    )
    put_back(books)
    assert not books.system.restore_guard.is_whole()
    assert reconcile(books.system, None, None, None).resumed
    assert refund(books) == ["made-already"]
    assert given_back(books) == 2000


def test_a_refund_whose_payment_cannot_be_looked_up_now_is_not_sent(books, monkeypatch):
    old_refund_that_we_lost(books)

    def failing(*_: object) -> None:
        raise ListFailed("E_SERVICE_NO_ANSWER")

    monkeypatch.setattr(RestPayments, "list_by_id", failing)
    monkeypatch.setattr("orders_pipeline.settlement.ledger.MAX_ATTEMPTS", 1)
    assert refund(books) == ["not-looked-up"]
    assert given_back(books) == 1000


def test_where_no_payment_can_be_looked_up_a_person_decides_on_a_refund_that_may_be_made(books):
    old_refund_that_we_lost(books)
    payments = books.system.payments
    payments.capabilities = dataclasses.replace(payments.capabilities, can_look_up=False)
    assert refund(books) == ["undecidable"]
    assert given_back(books) == 1000
    refund_id = books.harness.value("SELECT refund_id FROM refunds")
    resolve_refund(books.harness.database, str(refund_id), Decision(None, "ops", "the other half was"))
    assert refund(books) == []
    assert given_back(books) == 2000


def test_two_refunds_of_one_payment_do_not_hold_each_other_up(books):
    books.harness.batch()
    books.harness.orders(*(order(number, notify_channel="none") for number in (1, 2)))
    books.harness.plan()
    books.settle()
    books.finish(2000)
    assert refund(books) == []
    plan = read_plan(books.harness.database, books.harness.batch_id, ["ORD-0002"])
    assert carry_out(books.system, plan, requested_by="ops", reason="r")["refunds"]["succeeded"] == 1
    assert given_back(books) == 2000


def test_a_refund_that_our_ledger_does_not_know_stops_paying_until_it_is_a_finding(books):
    (payment_id,) = books.pay(1000)
    assert books.system.restore_guard.advance()
    books.refund(books.charge_id(payment_id), 400)
    start_anew(books)
    assert not books.system.restore_guard.is_whole()
    assert rests(books.system) == "E_LEDGERS_DIFFER"
    assert set(reconcile(books.system, None, None, None).open) == {"C_REFUND_MISSING_HERE"}
    for _ in range(2):
        start_anew(books)
        assert books.system.restore_guard.advance()
    books.refund(books.charge_id(payment_id), 100)  # more than the finding says
    start_anew(books)
    assert not books.system.restore_guard.is_whole()


def test_what_a_person_answered_for_stops_nothing_again_when_the_database_is_started_anew(books):
    assert books.system.restore_guard.advance()
    payment_id = books.pay(1000)[0]
    books.lose(payment_id)
    start_anew(books)
    assert not books.system.restore_guard.is_whole()
    (finding,) = reconcile(books.system, None, None, None).findings
    accept(books.harness.database, finding["finding_id"], accepted_by="ops", why="given back by hand")
    start_anew(books)
    assert books.system.restore_guard.is_whole()


def test_pages_that_are_too_long_come_in_pieces_for_the_look_after_a_restart_too(books, monkeypatch):
    assert books.system.restore_guard.advance()
    books.pay(1000)
    list_payments = RestPayments.list_payments

    def only_short(self, since, until, *, limit, cursor=None):
        if limit > 1:
            raise ListFailed("answer-too-long", is_too_long=True)
        return list_payments(self, since, until, limit=limit, cursor=cursor)

    monkeypatch.setattr(RestPayments, "list_payments", only_short)
    start_anew(books)
    assert books.system.restore_guard.is_whole()


def test_a_list_that_cannot_be_read_at_the_first_start_stops_paying_until_it_is(books, monkeypatch):
    def failing(*_: object, **__: object) -> None:
        raise ListFailed("http-503")

    with monkeypatch.context() as patched:
        patched.setattr(RestPayments, "list_payments", failing)
        assert not books.system.restore_guard.is_whole()
        assert rests(books.system) == "E_PAYMENT_LIST"
    assert books.system.restore_guard.is_whole()
    assert rests(books.system) is None


def test_a_list_that_never_comes_is_said_and_ended_by_its_coming_or_by_a_person(books, monkeypatch):
    assert books.system.restore_guard.advance()
    books.harness.batch()
    books.harness.orders(order(1, notify_channel="none"))

    def failing(*_: object, **__: object) -> None:
        raise ListFailed("http-400", may_pass=False)

    with monkeypatch.context() as patched:
        patched.setattr(RestPayments, "list_payments", failing)
        start_anew(books)
        with settling(books.system, books.harness.batch_id, None) as settlement:
            settlement.pay()
        assert books.harness.statuses("payments") == []
        assert rests(books.system) == "E_PAYMENT_LIST"
        summary = summaries.summarise(books.system, books.harness.batch_id)
        assert "http-400" in summary["paying_rests"]["message"]
        with pytest.raises(LedgersDiffer) as caught:
            books.system.restore_guard.require()
        assert caught.value.code == "E_PAYMENT_LIST"
        with pytest.raises(ListFailed):
            reconcile(books.system, None, None, None)
        books.system.restore_guard.resume_by_hand("ops", "compared in the service's own console")
        assert rests(books.system) is None
        start_anew(books)
        assert not books.system.restore_guard.is_whole()
    assert reconcile(books.system, None, None, None).resumed
    assert rests(books.system) is None
    start_anew(books)
    assert books.system.restore_guard.is_whole()


def test_a_comparison_finds_a_database_whole_that_was_started_anew(books, monkeypatch):
    assert books.system.restore_guard.advance()
    start_anew(books)
    assert books.system.restore_guard.doubted() is not None
    for batch_id in (books.harness.batch(), None):  # nothing was stopped: whoever pays would have looked
        found = reconcile(books.system, batch_id, None, None)
        assert (found.stopped, found.resumed) == (False, False)
    start_anew(books)

    def failing(*_: object, **__: object) -> None:
        raise ListFailed("http-503")

    with monkeypatch.context() as patched:
        patched.setattr(RestPayments, "list_payments", failing)
        with pytest.raises(ListFailed):
            reconcile(books.system, None, None, None)
    assert rests(books.system) == "E_PAYMENT_LIST"  # so that a person may answer for it
    assert reconcile(books.system, None, None, None).resumed
    assert books.system.restore_guard.doubted() is None


@pytest.mark.parametrize(("hours", "until"), [(0, 0), (4, 3)])
def test_a_comparison_that_lets_paying_go_on_is_of_all_that_may_be_missing(books, hours, until):
    """Whatever days are asked for: what was charged an hour ago is in none of these."""
    assert books.system.restore_guard.advance()
    payment_id = books.pay(1000)[0]
    books.harness.run("UPDATE installation SET whole_at = whole_at - interval '2 hours'")
    books.let_time_pass()
    books.lose(payment_id)
    start_anew(books)
    assert not books.system.restore_guard.is_whole()
    now = datetime.now(UTC)
    result = reconcile(books.system, None, now - timedelta(hours=hours), now - timedelta(hours=until))
    assert (result.resumed, result.open) == (True, {"C_MISSING_HERE": 1})


def lose_what_was_paid(books: Books, payment_id: str) -> None:
    """Put the ledger back to before a payment was planned, and have that seen."""
    books.lose(payment_id)
    books.harness.run("UPDATE orders SET status = 'pending'")
    books.harness.run("UPDATE installation SET stopped_at = now(), stopped_by = 'service'")


def test_what_was_lost_before_a_person_answered_for_it_is_found_once_there_is_a_list(books, monkeypatch):
    (payment_id,) = books.pay(1000, finish=False)
    books.let_time_pass(4 * 24)
    books.harness.run("UPDATE installation SET whole_at = now() - interval '5 days'")
    lose_what_was_paid(books, payment_id)

    def failing(*_: object, **__: object) -> None:
        raise ListFailed("http-400", may_pass=False)

    with monkeypatch.context() as patched:
        patched.setattr(RestPayments, "list_payments", failing)
        with pytest.raises(ListFailed):
            reconcile(books.system, None, None, None)
        books.system.restore_guard.resume_by_hand("ops", "nothing was paid, as far as I know")
        assert books.system.restore_guard.advance()
    result = books.compare()  # of a day, as each night
    assert (result.open, result.healed) == ({}, 1)
    assert books.harness.value("SELECT unlisted_since FROM installation") is None
    books.let_time_pass()
    assert books.compare().open == {}  # it is looked for where it is: four days ago


@pytest.mark.parametrize("halt", ["stop", "cancel"])
def test_what_was_paid_of_a_batch_that_a_person_has_halted_since_holds_nobody_up(books, halt):
    (payment_id,) = books.pay(1000, finish=False)
    lose_what_was_paid(books, payment_id)
    with books.system.database.begin() as transaction:
        if halt == "stop":
            assert batches.stop(transaction, books.harness.batch_id, "ops")
        else:
            cancelling.begin(transaction, books.harness.batch_id, cancelled_by="ops", why="the wrong file")
    result = reconcile(books.system, None, None, None)
    assert (result.resumed, result.open, result.healed) == (True, {}, 1)
    assert books.harness.statuses("orders") == ["paid"]


def test_a_batch_that_cannot_be_planned_keeps_nobody_from_being_compared(books):
    (payment_id,) = books.pay(1000, finish=False)
    paid = books.harness.batch_id
    books.harness.batch("20260701-000000000000")
    books.harness.orders(order(1, client_order_ref="ORD-1000", payment_method="card_on_file"))
    books.harness.run("UPDATE orders SET personal = 'damaged' WHERE batch_id = %s", books.harness.batch_id)
    lose_what_was_paid(books, payment_id)
    result = reconcile(books.system, None, None, None)
    assert (result.resumed, result.open, result.healed) == (True, {}, 1)
    codes = {row["batch_id"]: row["status_code"] for row in books.harness.run("SELECT batch_id, status_code FROM batches")}
    assert codes == {books.harness.batch_id: "E_SEALED_FORMAT", paid: None}


def test_a_database_from_before_earlier_restores_is_beyond_all_that_the_storage_has_once_it_is_compared(books):
    assert books.system.restore_guard.advance()
    state = books.harness.run("SELECT * FROM installation")[0]
    later = LedgerMark(state["generation"] + 2, state["mark"], state["installation_id"])
    books.system.storage.put(later.key, b"{}")
    assert not books.system.restore_guard.is_whole()
    assert reconcile(books.system, None, None, None).resumed
    assert books.system.restore_guard.is_whole()


def test_a_copy_of_a_database_does_not_take_the_storage_from_the_one_at_work(books):
    assert books.system.restore_guard.advance()
    state = books.harness.run("SELECT * FROM installation")[0]
    later = LedgerMark(state["generation"], state["mark"] + 2, state["installation_id"])
    books.system.storage.put(later.key, b'{"database": "1|somewhere"}')
    with pytest.raises(StorageInUse):
        reconcile(books.system, None, None, None)
    assert not books.system.restore_guard.is_whole()


def test_a_charge_that_we_lost_and_that_cannot_be_read_stops_paying_until_it_is_a_finding(books):
    (payment_id,) = books.pay(1000)
    assert books.system.restore_guard.advance()
    books.at_service("UPDATE payments SET status = 'cancelled' WHERE id = ?", books.charge_id(payment_id))
    books.lose(payment_id)
    start_anew(books)
    assert not books.system.restore_guard.is_whole()
    assert reconcile(books.system, None, None, None).open == {"C_MISSING_HERE": 1}
    start_anew(books)
    assert books.system.restore_guard.is_whole()


def test_a_new_database_does_not_take_a_storage_that_another_works_with(books, other):
    assert books.system.restore_guard.advance()
    before = books.harness.run("SELECT * FROM installation")
    with settling(other, in_its_own(other), None) as settlement:
        assert settlement is None  # what it planned would have ids that are not the other's
    assert rests(other) == "E_STORAGE_IN_USE"
    for _ in range(2):
        with pytest.raises(StorageInUse):
            reconcile(other, None, None, None)
    assert books.system.restore_guard.is_whole()
    assert books.harness.run("SELECT * FROM installation") == before


def in_its_own(system: System) -> str:
    """Have a loaded batch in a system's database and return its id."""
    harness = Harness(system.database)
    harness.batch()
    harness.orders(order(1, notify_channel="none"))
    return harness.batch_id


def test_a_new_database_with_a_storage_of_its_own_goes_on(books, other):
    assert books.system.restore_guard.advance()
    assert not other.restore_guard.advance()
    for stored in list(other.storage.list(ledger_marks.MARKS)):
        other.storage.delete(stored.key)
    assert other.restore_guard.advance()
    assert rests(other) is None


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_new_database_takes_the_place_of_one_that_is_gone(books, other, monkeypatch, by_hand):
    (payment_id,) = books.pay(1000)
    assert books.system.restore_guard.advance()
    assert not other.restore_guard.is_whole()
    if not by_hand:
        monkeypatch.setattr(ledger_marks, "FRESH", ledger_marks.FRESH * 0)  # it is long ago
    answer = ("ops", "its disk is lost") if by_hand else None
    result = reconcile(other, None, None, None, by_hand=answer)
    assert (result.resumed, set(result.open)) == (True, {"C_MISSING_HERE"})
    assert [each["payment_id"] for each in result.findings] == [payment_id]
    state = Harness(other.database).run("SELECT * FROM installation")[0]
    assert state["installation_id"] == books.harness.value("SELECT installation_id FROM installation")
    assert (state["resumed_by"], state["resumed_why"]) == (answer or (None, None))
    assert not books.system.restore_guard.is_whole()


def test_a_database_that_is_at_work_says_so_in_the_storage(books, other, monkeypatch):
    books.system.restore_guard.watch()
    assert list(books.system.storage.list(ledger_marks.MARKS)) == []  # nothing was paid in it
    assert books.system.restore_guard.advance()
    (before,) = books.system.storage.list(ledger_marks.MARKS)
    books.system.restore_guard.watch()
    assert list(books.system.storage.list(ledger_marks.MARKS)) == [before]
    monkeypatch.setattr(ledger_marks, "RENEWED_AFTER", ledger_marks.RENEWED_AFTER * 0)
    books.system.restore_guard.watch()
    (after,) = books.system.storage.list(ledger_marks.MARKS)
    assert (after.key, after.modified > before.modified) == (before.key, True)
    with pytest.raises(NotStopped):
        books.system.restore_guard.require_in_use()
    other.restore_guard.require_in_use()


def test_an_anchor_that_cannot_be_decrypted_says_nothing(books, other, monkeypatch):
    assert books.system.restore_guard.advance()
    monkeypatch.setattr(ledger_marks, "FRESH", ledger_marks.FRESH * 0)

    def damaged(*_: object) -> None:
        raise DecryptionError("E_SEALED_TAMPERED")

    monkeypatch.setattr(type(other.storage), "local", damaged)
    assert not other.restore_guard.is_whole()
    assert Harness(other.database).value("SELECT stopped_by FROM installation") == "storage"


def test_a_storage_that_is_away_after_the_last_payment_fails_nothing(books, monkeypatch):
    books.harness.batch()
    books.harness.orders(order(1, notify_channel="none"))
    put = type(books.system.storage).put
    is_paid = threading.Event()

    def away(self, key, source):
        if key.startswith(ledger_marks.MARKS) and is_paid.is_set():
            raise StorageUnavailable
        is_paid.set()
        return put(self, key, source)

    monkeypatch.setattr(type(books.system.storage), "put", away)
    with settling(books.system, books.harness.batch_id, None) as settlement:
        settlement.pay()
    assert books.harness.statuses("payments") == ["succeeded"]
    monkeypatch.undo()
    marks = books.harness.value("SELECT mark FROM installation")
    books.system.restore_guard.watch()  # what could not be kept then
    assert [stored.key for stored in books.system.storage.list(ledger_marks.MARKS)][-1].endswith(f"{marks:018d}.json")

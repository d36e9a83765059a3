"""Whose matter a refusal is: the item's or the service's, seen from how others of its kind fare, over all batches."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import replace

import pytest

from orders_pipeline.batches import workers
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.services.outcomes import FOR_EVER_S, Outcome
from orders_pipeline.settlement.payments.ledger import PAYMENT_BREAKER
from orders_pipeline.settlement.refusals import (
    FIRST_HOLD_S,
    LATELY_S,
    LONGEST_HOLD_S,
    MANY,
    PATIENCE_S,
    SEVERAL,
    TRIES,
    Refusals,
    Tried,
)
from orders_pipeline.upkeep import retention
from orders_pipeline_tests.support.ledgers import Harness, order

DOUBT_S = 120.0
REFUSED = Outcome("not_sent", "malformed", refused=True)
PAID_OTHERWISE = Outcome("unknown", "order-already-paid", refused=True)


class Counter:
    """A service's counter, at which items of batches are taken or not."""

    def __init__(self, database: Database, harness: Harness, *, a_person_decides: bool = True) -> None:
        self.refusals = Refusals("payment", a_person_decides=a_person_decides)
        self._database = database
        self._desk = harness
        for batch_id in ("mine", "other"):
            harness.batch(batch_id)

    def judged(self, *results: tuple[Tried, Outcome], batch_id: str = "mine") -> list[Outcome]:
        with self._database.begin() as transaction:
            return self.refusals.judged(transaction, batch_id, results, doubt_s=DOUBT_S)

    def one(self, tried: Tried, outcome: Outcome = REFUSED) -> Outcome:
        (judged,) = self.judged((tried, outcome))
        return judged

    def takes(self, batch_id: str = "mine", kind: str = "payment") -> None:
        self.judged((item(kind=kind), taken()), batch_id=batch_id)

    def is_held(self, batch_id: str = "mine") -> bool:
        with self._database.begin() as transaction:
            return self.refusals.hold(transaction, batch_id)

    def pass_time(self, seconds: float) -> None:
        for table, columns in ("refusals", "first_at before_at last_at held_until"), ("acceptances", "asked_at"):
            changes = ", ".join(f"{name} = {name} - make_interval(secs => {seconds})" for name in columns.split())
            self._desk.run(f"UPDATE {table} SET {changes}")


def item(customer: str = "C-1", kind: str = "payment", *, in_doubt: bool = False, last_code: str | None = None) -> Tried:
    return Tried(str(uuid.uuid4()), kind, customer, in_doubt, last_code)


@pytest.fixture
def counter(database: Database, harness: Harness) -> Counter:
    return Counter(database, harness)


def taken() -> Outcome:
    """Return that something was taken that was sent just now."""
    time.sleep(0.001)  # later than the transaction before, on a clock that a database may keep less exactly
    return Outcome("succeeded", None, "pay-1", asked_at=workers.now())


def kinds(outcomes: Iterable[Outcome]) -> list[str]:
    return [outcome.kind for outcome in outcomes]


def test_what_was_refused_and_taken_of_batches_that_ended_long_ago_is_removed(
    counter: Counter, harness: Harness, database: Database
) -> None:
    for batch_id in ("mine", "other"):
        counter.takes(batch_id)
        counter.judged((item(), REFUSED), batch_id=batch_id)
    counter.takes("other", kind="refund")
    assert retention.purge_rows(database)["refusals of old batches removed"] == 0
    harness.run("UPDATE batches SET status = 'cancelled', finished_at = now() - interval '91 days' WHERE batch_id = 'mine'")
    assert retention.purge_rows(database)["refusals of old batches removed"] == 0
    counter.pass_time(91 * 86_400)
    counter.takes("other")
    assert retention.purge_rows(database)["refusals of old batches removed"] == 2
    for table in ("refusals", "acceptances"):
        assert {row["batch_id"] for row in harness.run(f"SELECT batch_id FROM {table}")} == {"other"}


def test_an_item_is_declined_when_it_was_refused_three_times_while_others_of_its_batch_were_taken(counter: Counter) -> None:
    counter.takes()
    bad = item()
    assert [counter.one(bad).kind for _ in range(TRIES)] == ["not_sent", "not_sent", "declined"]
    assert not counter.is_held()


def test_what_is_taken_of_another_batch_between_two_tries_tells_that_it_is_the_item(counter: Counter) -> None:
    bad = item()
    assert [counter.one(bad).kind for _ in range(2)] == ["not_sent"] * 2
    counter.takes("other")
    assert counter.one(bad) == Outcome("declined", "malformed", refused=True)


def test_while_nothing_is_taken_the_batch_is_held_and_nothing_is_declined(counter: Counter) -> None:
    bad = item()
    assert [counter.one(bad).kind for _ in range(TRIES)] == ["not_sent"] * 3
    assert (counter.is_held(), counter.is_held("other")) == (True, False)
    counter.pass_time(FIRST_HOLD_S)
    assert not counter.is_held()


def test_a_hold_ends_when_something_is_taken_of_whichever_batch(counter: Counter) -> None:
    bad = item()
    for _ in range(TRIES):
        counter.one(bad)
    counter.takes("other")
    assert not counter.is_held()
    assert counter.one(bad).kind == "declined"


def test_what_is_taken_of_another_kind_tells_nothing(counter: Counter) -> None:
    bad = item(kind="order-digest")
    for _ in range(TRIES):
        counter.takes(kind="order-result")
        assert counter.one(bad).kind == "not_sent"
    assert counter.is_held()


def test_what_a_look_up_finds_tells_nothing(counter: Counter) -> None:
    bad = item()
    for _ in range(TRIES):
        counter.judged((item(in_doubt=True), taken()))
        assert counter.one(bad).kind == "not_sent"


def refused(counter: Counter, items: list[Tried], times: int = TRIES) -> set[str]:
    """Have items refused so often, one by one, and return what they came to at last."""
    for _ in range(times):
        judged = [counter.one(each) for each in items]
    return set(kinds(judged))


@pytest.mark.parametrize("customers", [1, 2, SEVERAL - 1])
def test_a_service_that_begins_to_refuse_everything_declines_nobody(counter: Counter, customers: int) -> None:
    """Be they few customers, with many orders each: nothing shows that it is they."""
    counter.takes()
    items = [item(f"C-{number % customers}") for number in range(2 * SEVERAL)]
    assert refused(counter, items) == {"not_sent"}
    for _ in range(8):
        assert counter.is_held()
        counter.pass_time(PATIENCE_S)
        assert refused(counter, items, 1) == {"not_sent"}


@pytest.mark.parametrize(("others", "kind"), [(0, "declined"), (1, "not_sent")])
def test_the_last_item_of_a_batch_is_declined_unless_another_was_refused_too(
    counter: Counter, others: int, kind: str
) -> None:
    """Though nothing can be taken after it: or its batch would never end."""
    counter.takes()
    for _ in range(others):
        counter.judged((item("C-2"), REFUSED), batch_id="other")
    assert refused(counter, [item()]) == {kind}
    assert counter.is_held() == bool(others)


@pytest.mark.parametrize(
    ("others", "code", "kind"), [(2, "malformed", "declined"), (1, "malformed", "not_sent"), (2, "odd", "not_sent")]
)
def test_the_last_few_of_a_batch_are_declined_like_as_many_before(
    counter: Counter, others: int, code: str, kind: str
) -> None:
    for number in range(others):
        before = item(f"B-{number}")
        for _ in range(TRIES):
            counter.takes()
            counter.one(before, replace(REFUSED, code=code))
    counter.takes()
    assert refused(counter, [item(), item("C-2")]) == {kind}


@pytest.mark.parametrize(("items", "kind"), [(SEVERAL - 1, "declined"), (SEVERAL, "not_sent")])
def test_the_last_few_of_a_batch_are_declined_after_ten_minutes(counter: Counter, items: int, kind: str) -> None:
    counter.takes()
    last = [item(f"C-{number}") for number in range(items)]
    assert refused(counter, last) == {"not_sent"}
    counter.pass_time(FIRST_HOLD_S)
    assert refused(counter, last) == {"not_sent"}
    assert counter.is_held()
    counter.pass_time(PATIENCE_S)
    assert refused(counter, last, 1) == {kind}


def test_an_item_after_which_others_were_taken_is_held_with_many_that_were_refused_since(counter: Counter) -> None:
    first, second = item(), item("C-2")
    counter.one(first)
    counter.takes()
    counter.one(first)
    assert counter.one(first).kind == "declined"
    counter.one(second)
    counter.takes()
    refused(counter, [item(f"D-{number}") for number in range(SEVERAL)], 1)
    assert refused(counter, [second], TRIES - 1) == {"not_sent"}


def test_ten_customers_who_are_refused_in_a_row_are_not_tried_with_everything(counter: Counter) -> None:
    counter.takes()
    items = [item(f"C-{number}") for number in range(SEVERAL)]
    refused(counter, items[:-1], 1)
    assert not counter.is_held()
    counter.one(items[-1])
    assert counter.is_held()


def test_a_customer_of_whom_all_is_refused_is_not_tried_with_everything(counter: Counter) -> None:
    counter.judged(*((item(), REFUSED) for _ in range(MANY - 1)))
    assert not counter.is_held()
    counter.one(item())
    assert counter.is_held()


def test_what_was_taken_of_the_batch_long_ago_tells_nothing(counter: Counter) -> None:
    counter.takes()
    counter.pass_time(LATELY_S + 1)
    bad = item()
    assert [counter.one(bad).kind for _ in range(TRIES)] == ["not_sent"] * 3
    assert counter.is_held()


@pytest.mark.parametrize(("sent_after", "is_held"), [(True, False), (False, True)])
def test_what_was_sent_before_others_were_refused_does_not_speak_for_the_service(
    counter: Counter, sent_after: bool, is_held: bool
) -> None:
    began_at = workers.now()
    items = [item(f"C-{number}") for number in range(SEVERAL)]
    for each in items:
        counter.one(each)
    counter.judged((item(), taken() if sent_after else replace(taken(), asked_at=began_at)))
    assert counter.is_held() == is_held
    for _ in range(TRIES - 1):
        judged = counter.judged(*((each, REFUSED) for each in items))
    assert set(kinds(judged)) == {"not_sent" if is_held else "declined"}


def test_one_answer_that_takes_some_and_refuses_many_is_about_those(counter: Counter) -> None:
    began_at = workers.now()
    items = [item(f"C-{number}") for number in range(SEVERAL)]
    refused = replace(REFUSED, asked_at=began_at)
    for _ in range(TRIES):
        judged = counter.judged(*((each, refused) for each in items), (item(), replace(taken(), asked_at=began_at)))
    assert set(kinds(judged[:-1])) == {"declined"}
    assert not counter.is_held()


def test_what_was_taken_without_a_word_of_when_it_was_sent_tells_nothing(counter: Counter) -> None:
    bad = item()
    for _ in range(TRIES):
        counter.judged((item(), Outcome("succeeded", None, "pay-1")))
        assert counter.one(bad).kind == "not_sent"
    assert counter.is_held()


def test_a_hold_lasts_as_long_again_as_it_has_gone_on(counter: Counter, harness: Harness) -> None:
    bad = item()
    for _ in range(TRIES):
        counter.one(bad)
    for passed_s, held_s in (FIRST_HOLD_S, FIRST_HOLD_S), (3_600.0, 3_660.0), (86_400.0, LONGEST_HOLD_S):
        counter.pass_time(passed_s)
        counter.one(bad)
        left_s = harness.value("SELECT extract(epoch FROM held_until - last_at) FROM refusals")
        assert float(left_s) == pytest.approx(held_s, abs=5.0)


def test_a_new_drain_ends_the_hold(counter: Counter, database: Database) -> None:
    counter.judged(*((item(f"C-{number}"), REFUSED) for number in range(SEVERAL)))
    assert counter.is_held()
    with database.begin() as transaction:
        counter.refusals.end_hold(transaction, "mine")
    assert not counter.is_held()


def test_what_may_have_been_sent_before_is_declined_only_once_that_cannot_be_under_way(counter: Counter) -> None:
    counter.takes()
    bad = item(in_doubt=True, last_code="http-500")
    waiting = Outcome("unknown", "malformed", retry_after_s=DOUBT_S, refused=True)
    assert counter.one(bad) == waiting
    again = Tried(bad.item_id, bad.kind, bad.customer_code, in_doubt=True, last_code="malformed")
    for _ in range(TRIES):
        assert counter.one(again) == waiting
    counter.pass_time(DOUBT_S)
    assert counter.one(bad) == waiting  # another answer came in between
    counter.pass_time(DOUBT_S)
    counter.takes()
    assert counter.one(again) == Outcome("declined", "malformed", refused=True)


def test_what_was_done_otherwise_is_a_persons_after_three_tries(counter: Counter) -> None:
    bad = item()
    assert [counter.one(bad, PAID_OTHERWISE).retry_after_s for _ in range(TRIES)] == [None, None, FOR_EVER_S]
    assert not counter.is_held()


def test_where_no_person_decides_what_is_in_doubt_ends_like_all_else(database: Database, harness: Harness) -> None:
    counter = Counter(database, harness, a_person_decides=False)
    counter.takes()
    reused = Outcome("unknown", "idempotency-key-reused", refused=True)
    bad = item(in_doubt=True)
    assert [counter.one(bad, reused).kind for _ in range(TRIES)] == ["unknown", "unknown", "declined"]


def test_a_held_batch_claims_nothing_and_waits_for_nothing_and_another_goes_on(harness: Harness) -> None:
    for batch_id in ("held", "other"):
        harness.batch(batch_id)
        numbers = range(1, 2 * SEVERAL)
        refs = [f"{batch_id}-{number}" for number in numbers]
        harness.orders(
            *(order(n, client_order_ref=ref, customer_code=ref, notify_channel="none") for n, ref in enumerate(refs, 1)),
            batch_id=batch_id,
        )
        harness.plan()
    harness.batch_id = "held"
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.begin()
        assert not ledger.record([(claim, REFUSED) for claim in ledger.claim(SEVERAL)])
        harness.due_now("payments")
        assert (ledger.claim(100), ledger.wait_s()) == ([], None)
    assert set(harness.statuses("orders")) == {"pending"}
    harness.batch_id = "other"
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.begin()
        assert len(ledger.claim(100)) == 2 * SEVERAL - 1
    harness.batch_id = "held"
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.begin()
        assert len(ledger.claim(100)) == 2 * SEVERAL - 1


def test_a_refusal_is_an_answer_and_closes_the_breaker(harness: Harness) -> None:
    harness.orders(order(1, notify_channel="none"))
    harness.plan()
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.begin()
        harness.run("UPDATE service_breakers SET failures = 10, opened_at = now(), probe_at = now()")
        (claim,) = ledger.claim(1)
        ledger.record([(claim, REFUSED)])
        assert harness.run("SELECT 1 FROM service_breakers WHERE opened_at IS NOT NULL") == []
    assert PAYMENT_BREAKER.service == "payment"


def test_refusals_seen_by_many_processes_are_one_count(counter: Counter) -> None:
    """What each process records is in the database: two drains of a batch come to one verdict."""
    counter.takes()
    bad = item()
    counter.one(bad)
    again = Refusals("payment", a_person_decides=True)
    counter.refusals = again
    counter.one(bad)
    assert counter.one(bad).kind == "declined"

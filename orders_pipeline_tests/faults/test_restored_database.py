"""D14: a database that is put back to an earlier time, by a real copy of it, pays and refunds nothing again.

Whatever was restored with it, and whatever the service offers for a safe second try, the service's own ledger has every
order once in the end, and nobody has to refund anything by hand.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from orders_pipeline.batches import batches
from orders_pipeline.batches.workers import worker_session
from orders_pipeline.clients.profiles import Clients, Profile
from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline.intake.landing import arrivals
from orders_pipeline.sandbox.faults import Faults
from orders_pipeline.settlement.notifications.plan import make_ready
from orders_pipeline.settlement.payments import settle
from orders_pipeline.settlement.payments.ledger import PaymentLedger
from orders_pipeline.settlement.payments.settle import settle_one
from orders_pipeline.settlement.reconciliation.findings import accept
from orders_pipeline.settlement.reconciliation.reconcile import NoList, Reconciled, reconcile
from orders_pipeline.settlement.refunds.plan import read_plan
from orders_pipeline.settlement.refunds.refunding import carry_out
from orders_pipeline.system.composition import join_endpoints, open_system
from orders_pipeline.system.payment_stop import LedgersDiffer
from orders_pipeline.upkeep import approval, cancelling
from orders_pipeline_tests.support.commands import answer, wait_for
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation, check_books, check_finished
from orders_pipeline_tests.support.order_file import OrderFile
from orders_pipeline_tests.support.scenario import Scenario
from orders_pipeline_tests.support.soak import first_of

CLIENT = "acme"
pytestmark = pytest.mark.usefixtures("hasty_landing")
ORDERS = 5
# what the service offers, and how the sandbox behaves then
MODES: dict[str, tuple[str, dict[str, bool]]] = {
    "keys": ("keys,look-up,list", {"guard_orders": False}),
    "look-up": ("look-up,list", {"honour_keys": False, "guard_orders": False}),
    "no list": ("look-up", {"honour_keys": False, "guard_orders": False}),
}


@dataclass
class Backup:
    """A copy of an installation's database, and of its storage."""

    installation: Installation
    name: str
    storage: Path

    def restore(self, *, with_storage: bool) -> None:
        """Put the database back as it was, and the storage if that was restored too."""
        name = make_url(self.installation.database_url).database
        run(self.installation, f"DROP DATABASE {name} WITH (FORCE)", f"CREATE DATABASE {name} TEMPLATE {self.name}")
        if with_storage:
            live = storage_of(self.installation)
            for kept in set(live.iterdir()) - {live / "landing"}:  # what clients sent is where it was
                shutil.rmtree(kept) if kept.is_dir() else kept.unlink()
            shutil.copytree(self.storage, live, dirs_exist_ok=True)


def storage_of(installation: Installation) -> Path:
    return Path(installation.system.settings.storage_location)


def run(installation: Installation, *statements: str) -> None:
    url = make_url(installation.database_url).set(database="template1").render_as_string(hide_password=False)
    with psycopg.connect(libpq_url(SecretStr(url)), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.fixture
def back_up(installation: Installation, tmp_path: Path) -> Iterator[Callable[[], Backup]]:
    """A function that copies the installation's database and storage as they are now."""
    names = []

    storage_of(installation).mkdir(parents=True, exist_ok=True)

    def copy() -> Backup:
        name, live = f"backup_{uuid.uuid4().hex}", make_url(installation.database_url).database
        run(
            installation,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{live}'",
            f"CREATE DATABASE {name} TEMPLATE {live}",
        )
        names.append(name)
        kept = tmp_path / name
        shutil.copytree(storage_of(installation), kept, ignore=shutil.ignore_patterns("landing"))
        return Backup(installation, name, kept)

    yield copy
    for name in names:
        run(installation, f"DROP DATABASE {name}")


@pytest.fixture(params=["keys", pytest.param("look-up", marks=pytest.mark.soak)])
def scenario(
    request: pytest.FixtureRequest, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scenario]:
    """A client whose files are paid by a service that honours keys, or by one that can only be asked."""
    monkeypatch.setattr(PaymentLedger, "doubt_s", 0.5)
    capabilities, behaviour = MODES[request.param]
    installation.sandbox.change(**behaviour)
    chosen = installation.system.settings.model_copy(update={"payment_capabilities": capabilities})
    with join_endpoints(chosen) as endpoints, open_system(chosen, endpoints) as system:
        yield Scenario(installation, system, CLIENT)


def drop(scenario: Scenario, name: str = "orders.csv", *, customers: int = ORDERS) -> None:
    """Put a file into the landing."""
    file = OrderFile("utf-8")
    for number in range(ORDERS):
        reference = f"{name}-{number}"
        file.add(order_row(client_order_ref=reference, customer_code=f"C-{number % customers}", notify_channel="email"))
    folder = Path(scenario.system.settings.landing_location) / CLIENT
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(file.text.encode())


def see(scenario: Scenario) -> list[str]:
    """Look at the landing until all its files are batches, and return those."""

    def is_seen() -> bool:
        arrivals.register_arrivals(scenario.system.database, scenario.system.landing)
        ((seen,),) = scenario.installation.rows("SELECT count(*) FROM batches WHERE landing_key IS NOT NULL")
        return bool(seen == len(list((Path(scenario.system.settings.landing_location) / CLIENT).iterdir())))

    wait_for(is_seen, "the files to be batches")
    return [batch_id for (batch_id,) in scenario.installation.rows("SELECT batch_id FROM batches ORDER BY batch_id")]


def charges(scenario: Scenario) -> int:
    return int(scenario.installation.sandbox.ledger()["payments"]["succeeded"])


def check(scenario: Scenario, batch_id: str) -> None:
    """Assert that a batch is finished, and that nobody was notified twice but by a service that ignores keys."""
    honours_keys = scenario.system.payments.capabilities.honours_keys
    check_finished(scenario.installation, batch_id, notified_twice=0 if honours_keys else ORDERS)


def compare(scenario: Scenario) -> Reconciled:
    return reconcile(scenario.system, None, None, None)


def state(scenario: Scenario, batch_id: str) -> tuple[str, str | None]:
    summary = scenario.installation.summary(batch_id)
    return summary["status"], summary["status_code"]


@pytest.mark.parametrize("with_storage", first_of([False, True]))
def test_d14_a_file_that_is_seen_again_after_a_restore_is_paid_once(scenario, back_up, with_storage):
    drop(scenario, "before.csv")
    (first,) = see(scenario)
    scenario.work_off(first)
    backup = back_up()
    drop(scenario)
    (batch_id,) = set(see(scenario)) - {first}
    scenario.work_off(batch_id)
    paid = charges(scenario)
    backup.restore(with_storage=with_storage)
    if not with_storage:  # it is said before anything is to be paid
        assert answer(scenario.installation.environment(), "status")["paying_rests"]["code"] == "E_LEDGERS_DIFFER"
    assert set(see(scenario)) == {first, batch_id}
    scenario.work_off(batch_id)
    assert (charges(scenario), state(scenario, batch_id)) == (paid, ("paused", "E_LEDGERS_DIFFER"))
    result = compare(scenario)
    assert (result.resumed, result.open, result.healed) == (True, {}, ORDERS)
    scenario.work_off(batch_id)
    check(scenario, batch_id)
    assert charges(scenario) == paid
    check(scenario, first)


def test_d14_a_new_database_beside_the_old_storage_pays_nothing_again(scenario, back_up):
    backup = back_up()
    drop(scenario)
    (batch_id,) = see(scenario)
    scenario.work_off(batch_id)
    paid = charges(scenario)
    backup.restore(with_storage=False)
    scenario.installation.rows("UPDATE installation SET installation_id = gen_random_uuid()")
    see(scenario)
    scenario.work_off(batch_id)
    assert (charges(scenario), state(scenario, batch_id)) == (paid, ("paused", "E_LEDGERS_DIFFER"))
    assert compare(scenario).open == {}
    scenario.work_off(batch_id)
    check(scenario, batch_id)
    assert charges(scenario) == paid


def test_d14_what_was_paid_after_a_backup_in_the_middle_of_a_batch_is_not_paid_again(scenario, back_up):
    drop(scenario)
    (batch_id,) = see(scenario)
    scenario.prepare(batch_id)
    system = scenario.system
    settle.plan_batch(system.database, system.cipher, batch_id, system.clients.profile(CLIENT))
    assert system.restore_guard.advance()
    with worker_session(system.database, batch_id, None) as worker:
        ledger = PaymentLedger(
            system.database, system.cipher, worker, system.payments.capabilities, make_ready, concurrency=1
        )
        claims = ledger.claim(2)
        ledger.record([(claim, settle_one(system.payments, claim, worker.may_send)) for claim in claims])
    backup = back_up()
    scenario.work_off(batch_id)
    paid = charges(scenario)
    backup.restore(with_storage=True)
    scenario.work_off(batch_id)
    assert (charges(scenario), state(scenario, batch_id)) == (ORDERS, ("paused", "E_LEDGERS_DIFFER"))
    assert compare(scenario).open == {}
    scenario.work_off(batch_id)
    check(scenario, batch_id)
    assert charges(scenario) == paid


@pytest.mark.parametrize("is_compared_first", first_of([False, True]))
@pytest.mark.parametrize("decide", [approval.approve, partial(approval.refuse, why="wrong")], ids=["approved", "refused"])
def test_d14_what_was_approved_and_paid_after_the_backup_is_not_paid_again(scenario, back_up, decide, is_compared_first):
    scenario.system = replace(scenario.system, clients=Clients({CLIENT: Profile(approval="always")}))
    system = scenario.system
    drop(scenario)
    (batch_id,) = see(scenario)
    scenario.work_off(batch_id)
    backup = back_up()
    with system.database.begin() as transaction:
        approval.approve(transaction, batch_id, "approver")
    scenario.work_off(batch_id)
    paid = charges(scenario)
    backup.restore(with_storage=False)
    scenario.work_off(batch_id)
    assert (charges(scenario), state(scenario, batch_id)) == (paid, ("awaiting_approval", None))
    if is_compared_first:
        system.restore_guard.watch()  # as a sensor does
        assert compare(scenario).open == {}
    with system.database.begin() as transaction:
        decide(transaction, batch_id, "approver")
    for _ in range(2):
        scenario.work_off(batch_id) if decide is approval.approve else cancelling.finish(system, batch_id)
        assert compare(scenario).open == {}
    summary = check_books(scenario.installation, batch_id, notified_twice=ORDERS, notified_unseen=ORDERS)
    assert (charges(scenario), summary["orders"]["paid"]) == (paid, ORDERS)
    assert summary["status"] == ("completed" if decide is approval.approve else "cancelled")


def test_d14_a_batch_under_another_name_on_another_day_is_paid_once(scenario, back_up, monkeypatch):
    backup = back_up()
    before = scenario.receive(ORDERS)
    scenario.work_off(before)
    paid = charges(scenario)
    backup.restore(with_storage=False)
    monkeypatch.setattr(batches, "today", lambda: date(2030, 1, 1))
    batch_id = scenario.receive(ORDERS)
    assert batch_id != before
    scenario.work_off(batch_id)
    assert (charges(scenario), state(scenario, batch_id)) == (paid, ("paused", "E_LEDGERS_DIFFER"))
    assert compare(scenario).open == {}
    scenario.work_off(batch_id)
    assert (charges(scenario), state(scenario, batch_id)) == (paid, ("completed", None))


def test_d14_what_was_cancelled_and_came_again_before_the_restore_is_paid_once(scenario, back_up):
    backup = back_up()
    first = scenario.receive(ORDERS)
    scenario.prepare(first)
    system = scenario.system
    settle.plan_batch(system.database, system.cipher, first, system.clients.profile(CLIENT))
    with system.database.begin() as transaction:
        cancelling.begin(transaction, first, cancelled_by="ops", why="the wrong price")
    cancelling.finish(system, first)
    scenario.work_off(scenario.receive(ORDERS))
    paid = charges(scenario)
    backup.restore(with_storage=False)
    batch_id = scenario.receive(ORDERS)
    scenario.work_off(batch_id)
    result = compare(scenario)
    assert (result.open, result.healed, result.new) == ({}, ORDERS, 0)
    scenario.work_off(batch_id)
    assert (charges(scenario), state(scenario, batch_id)) == (paid, ("completed", None))


def test_d14_what_somebody_answered_for_is_looked_up_before_it_is_sent(scenario, back_up):
    backup = back_up()
    scenario.work_off(scenario.receive(ORDERS))
    paid = charges(scenario)
    backup.restore(with_storage=False)
    system = scenario.system
    assert system.restore_guard.is_behind()
    for finding in compare(scenario).findings:
        accept(system.database, finding["finding_id"], accepted_by="ops", why="the file will come again")
    scenario.installation.sandbox.change(honour_keys=False)  # a day later it has forgotten them
    batch_id = scenario.receive(ORDERS)
    wait_for(lambda: scenario.work_off(batch_id) is None and state(scenario, batch_id)[0] == "completed", "the batch")
    assert charges(scenario) == paid


def test_d14_orders_that_were_paid_alone_after_a_declined_payment_are_not_paid_again(scenario, back_up):
    drop(scenario, customers=1)
    (batch_id,) = see(scenario)
    scenario.prepare(batch_id)
    system = scenario.system
    settle.plan_batch(system.database, system.cipher, batch_id, system.clients.profile(CLIENT))
    backup = back_up()
    rows = scenario.installation.rows("SELECT order_reference(batch_id, import_row_number) FROM orders")
    faults = [Faults(decline_order=0.5, seed=seed) for seed in range(100)]
    declines_some = (len({each.decline_code("", "", [reference]) is None for (reference,) in rows}) == 2 for each in faults)
    scenario.installation.sandbox.change(faults=next(each for each, some in zip(faults, declines_some, strict=True) if some))
    scenario.work_off(batch_id)
    paid = charges(scenario)
    assert 0 < paid < ORDERS
    scenario.installation.sandbox.change(faults={})  # what declined them is over
    backup.restore(with_storage=False)
    scenario.work_off(batch_id)
    assert compare(scenario).open == {}
    scenario.work_off(batch_id)
    assert (charges(scenario), state(scenario, batch_id)) == (paid, ("completed_with_errors", None))


def test_d14_a_batch_that_the_service_has_charged_is_not_cancelled_as_unpaid_after_a_restore(scenario, back_up):
    drop(scenario)
    (batch_id,) = see(scenario)
    scenario.prepare(batch_id)
    system = scenario.system
    settle.plan_batch(system.database, system.cipher, batch_id, system.clients.profile(CLIENT))
    backup = back_up()
    scenario.work_off(batch_id)
    backup.restore(with_storage=False)
    with system.database.begin() as transaction:
        cancelling.begin(transaction, batch_id, cancelled_by="ops", why="the wrong file")
    cancelling.finish(system, batch_id)
    assert state(scenario, batch_id)[0] == "cancelling"
    assert scenario.installation.summary(batch_id)["orders"]["cancelled"] == 0
    assert compare(scenario).healed == ORDERS
    cancelling.finish(system, batch_id)
    summary = scenario.installation.summary(batch_id)
    assert (summary["status"], summary["orders"]["paid"], summary["orders"]["cancelled"]) == ("cancelled", ORDERS, 0)
    assert charges(scenario) == ORDERS


def test_d14_what_was_refunded_after_the_backup_is_not_refunded_again(scenario, back_up):
    drop(scenario)
    (batch_id,) = see(scenario)
    scenario.work_off(batch_id)
    backup = back_up()

    def refund() -> dict[str, Any]:
        plan = read_plan(scenario.system.database, batch_id, ["orders.csv-1"])
        return carry_out(scenario.system, plan, requested_by="ops", reason="by mistake")

    def refunded() -> int:
        return int(scenario.installation.sandbox.ledger(batch_id)["payments"]["refunded_jpy"])

    assert refund()["refunds"]["succeeded"] == 1
    once = refunded()
    backup.restore(with_storage=False)
    with pytest.raises(LedgersDiffer):
        refund()
    compare(scenario)
    refund()
    assert refunded() == once > 0


def test_d14_several_processes_with_several_batches_pay_nothing_again(scenario, back_up):
    backup = back_up()
    names = [f"orders-{number}.csv" for number in range(2)]
    for name in names:
        drop(scenario, name)
    batch_ids = see(scenario)
    for batch_id in batch_ids:
        scenario.work_off(batch_id)
    paid = charges(scenario)
    backup.restore(with_storage=True)
    assert see(scenario) == batch_ids
    for _ in range(2):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(scenario.work_off, batch_ids))
        assert charges(scenario) == paid
        compare(scenario)
    for batch_id in batch_ids:
        scenario.work_off(batch_id)
        check(scenario, batch_id)
    assert charges(scenario) == paid


@pytest.mark.parametrize("scenario", ["no list"], indirect=True)
@pytest.mark.parametrize("is_seen_first", first_of([False, True]))
def test_d14_without_a_list_what_is_planned_is_looked_up_first(scenario, back_up, is_seen_first):
    backup = back_up()
    drop(scenario)
    (batch_id,) = see(scenario)
    scenario.work_off(batch_id)
    backup.restore(with_storage=False)
    if is_seen_first:
        see(scenario)
        scenario.work_off(batch_id)
        assert (charges(scenario), state(scenario, batch_id)) == (ORDERS, ("paused", "E_LEDGERS_DIFFER"))
    assert not scenario.system.restore_guard.is_whole()
    with pytest.raises(NoList):
        compare(scenario)
    scenario.system.restore_guard.resume_by_hand("ops", "compared in the service's own console")
    see(scenario)
    wait_for(lambda: scenario.work_off(batch_id) is None and state(scenario, batch_id)[0] == "completed", "the batch")
    assert charges(scenario) == ORDERS


def test_d14_a_database_that_lost_nothing_goes_on_wherever_it_runs(scenario, back_up):
    drop(scenario)
    (batch_id,) = see(scenario)
    scenario.work_off(batch_id)
    back_up().restore(with_storage=False)
    drop(scenario, "next.csv")
    (following,) = set(see(scenario)) - {batch_id}
    scenario.work_off(following)
    check(scenario, following)

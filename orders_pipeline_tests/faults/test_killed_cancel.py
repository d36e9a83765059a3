"""Q06: a cancellation that is killed at any point ends when it is given again; nothing is sent after it."""

from __future__ import annotations

import pytest

from orders_pipeline.batches.workers import worker_session
from orders_pipeline.settlement.notifications.plan import make_ready, plan_notifications
from orders_pipeline.settlement.payments import settle
from orders_pipeline.settlement.payments.ledger import PaymentLedger
from orders_pipeline_tests.faults.crash_points import CANCEL_POINTS, VARIABLE, WAIT
from orders_pipeline_tests.support import commands
from orders_pipeline_tests.support.installation import Installation, check_books
from orders_pipeline_tests.support.scenario import Scenario
from orders_pipeline_tests.support.soak import SOAK

ORDERS = 6
SENT = 3  # by a process that wrote down only the first
KILLED = -9
QUICK = ["K2", "K4"]  # nothing is called off yet; half of it is


def half_paid(installation: Installation) -> str:
    """Return a batch of which one payment is recorded, some more were charged, and the others are planned."""
    scenario = Scenario(installation, installation.system, "acme")
    batch_id = scenario.receive(ORDERS)
    scenario.prepare(batch_id)
    system = installation.system
    profile = system.clients.profile("acme")
    settle.plan_batch(system.database, system.cipher, batch_id, profile)
    plan_notifications(system.database, system.cipher, batch_id, profile)
    with worker_session(system.database, batch_id, None) as worker:
        able = system.payments.capabilities
        ledger = PaymentLedger(system.database, system.cipher, worker, able, make_ready, concurrency=1)
        claims = ledger.claim(SENT)
        sent = [(claim, settle.settle_one(system.payments, claim, worker.may_send)) for claim in claims]
        ledger.record(sent[:1])
    return batch_id


@pytest.mark.parametrize("point", [*QUICK, *(pytest.param(each, marks=SOAK) for each in CANCEL_POINTS if each not in QUICK)])
def test_q06_a_cancellation_that_is_killed_is_given_again_and_nothing_is_sent_after_it(
    installation: Installation, point: str
) -> None:
    batch_id = half_paid(installation)
    charged = installation.sandbox.ledger(batch_id)
    settings = installation.environment(**{WAIT: "0.5"})
    cancel = ["cancel", batch_id, "--why", "the wrong file", "--yes"]
    assert commands.call(settings | {VARIABLE: f"{point}:1"}, *cancel).returncode == KILLED
    if point != "K1":  # else nobody knows yet that it was asked for
        assert commands.call(settings, "resume", batch_id).returncode in (1, 2)
        assert installation.sandbox.ledger(batch_id) == charged
    assert commands.call(settings, *cancel).returncode == 0
    summary = check_books(installation, batch_id)
    assert (summary["status"], summary["cancelled"]["why"]) == ("cancelled", "the wrong file")
    assert (summary["orders"]["paid"], summary["orders"]["cancelled"]) == (SENT, ORDERS - SENT)
    assert summary["amount_jpy"]["accepted"] == summary["amount_jpy"]["paid"] + summary["amount_jpy"]["cancelled"]
    assert installation.sandbox.ledger(batch_id) == charged
    assert installation.report(batch_id, "errors")
    assert commands.call(settings, *cancel).returncode == 0
    assert installation.sandbox.ledger(batch_id) == charged

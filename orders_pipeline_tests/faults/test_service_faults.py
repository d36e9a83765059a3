"""Y02 to Y25 and N01 to N07: services that fail in every way they can, while orders are paid and customers notified.

Real answers over HTTP from the sandbox, and its own ledger to compare with. What each answer means by itself is in
unit/test_rest.py and unit/test_notification_service.py, what a client makes of broken HTTP in pipeline/test_http_client.py.
"""

from __future__ import annotations

import contextlib
import email.utils
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from orders_pipeline.batches import heartbeat, workers
from orders_pipeline.batches.workers import worker_session
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.sandbox.options import Options
from orders_pipeline.services import circuit_breaker
from orders_pipeline.settlement import ledger as ledgers
from orders_pipeline.settlement.notifications.plan import make_ready, plan_notifications
from orders_pipeline.settlement.payments import settle
from orders_pipeline.settlement.payments.ledger import PAYMENT_BREAKER, PaymentLedger
from orders_pipeline.system.composition import open_system
from orders_pipeline_tests.support.installation import Installation, check_books, check_finished, open_installation
from orders_pipeline_tests.support.scenario import Scenario
from orders_pipeline_tests.support.soak import SOAK, first_of

TIMEOUT_S = 0.6
MODES: Mapping[str, dict[str, Any]] = {
    "keys": {"guard_orders": False},
    "keys,look-up": {"guard_orders": False},
    "look-up": {"honour_keys": False, "guard_orders": False},
}
BAD_ANSWERS = {
    "y02": ("timeout_before", "timeout_after"),
    "y03": ("reset_before", "reset_after"),
    "y04": ("error_before", "error_after"),
    "y05": ("unavailable",),
    "y06": ("rate_limited",),
    "y12": ("malformed", "truncated", "empty", "html"),
    "y13": ("wrong_body",),
    "y14": ("wrong_types",),
    "y16": ("dribble",),
    "y17": ("huge",),
    "y18": ("redirect",),
    "y19": ("booked_late",),
}
EACH_BAD_ANSWER = [
    pytest.param(kind, id=f"{number}-{kind}", marks=[SOAK] if place else [])
    for number, kinds in BAD_ANSWERS.items()
    for place, kind in enumerate(reversed(kinds))  # what was booked before it went wrong is the harder half
]
Open = Callable[..., contextlib.AbstractContextManager[Scenario]]


@pytest.fixture(scope="module")
def _module_installation(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with open_installation(server_url, template, tmp_path_factory.mktemp("installation")) as opened:
        yield opened


@pytest.fixture
def open_scenario(
    _module_installation: Installation, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    """A function that opens a scenario with services that offer so much; failed calls are tried again almost at once."""
    monkeypatch.setattr(ledgers, "BACKOFF_S", 0.02)
    monkeypatch.setattr(ledgers, "MAX_BACKOFF_S", 0.1)
    monkeypatch.setattr(PaymentLedger, "doubt_s", TIMEOUT_S + 0.3)
    for name, seconds in (("FIRST_PROBE_S", 0.05), ("PROBE_S", 0.1), ("PATIENCE_S", 5.0)):
        monkeypatch.setattr(circuit_breaker, name, seconds)
    installation = _module_installation
    client = f"{request.node.name[5:8]}-{zlib.crc32(request.node.name.encode())}"

    @contextlib.contextmanager
    def opened(capabilities: str = "keys,look-up", **options: Any) -> Iterator[Scenario]:
        installation.sandbox.change(**MODES.get(capabilities, {}), **options)
        changes = {
            "payment_capabilities": capabilities,
            "payment_timeout_s": TIMEOUT_S,
            "notification_timeout_s": TIMEOUT_S,
            "payment_concurrency": 4,
        }
        with open_system(installation.system.settings.model_copy(update=changes), installation.system.endpoints) as system:
            yield Scenario(installation, system, client)

    yield opened
    installation.sandbox.service.options = Options()
    installation.rows("DELETE FROM service_breakers")


def once(kind: str) -> str:
    """Return the faults under which the first try of each key goes wrong in one way."""
    return f"{kind}=1,max_per_key=1,hang_s=1.2,late_s=0.4,retry_after=0"


def test_c27_what_a_worker_had_claimed_before_it_slept_past_its_lease_is_not_sent_by_it(
    open_scenario: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where keys are ignored only the worker's own clock keeps it from charging what another has charged meanwhile."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 3600.0)  # it was stopped, and so was its heartbeat
    with open_scenario("look-up", faults="", notification_faults={}) as scenario:
        system, batch_id = scenario.system, scenario.receive(3)
        scenario.prepare(batch_id)
        settle.plan_batch(system.database, system.cipher, batch_id, Profile())
        PAYMENT_BREAKER.prepare(system.database)
        with worker_session(system.database, batch_id, None) as slow:
            able = system.payments.capabilities
            ledger = PaymentLedger(system.database, system.cipher, slow, able, make_ready, concurrency=4)
            claims = ledger.claim(3)
            assert len(claims) == 3
            slow.leased_at -= workers.LEASE_S
            scenario.installation.rows("UPDATE workers SET lease_until = now() WHERE worker_id = %s", slow.worker_id)
            scenario.finish(batch_id)
            outcomes = [settle.settle_one(system.payments, claim, slow.may_send) for claim in claims]
            ledger.record(list(zip(claims, outcomes, strict=True)))
        assert check_finished(scenario.installation, batch_id)["orders"]["paid"] == 3


@pytest.mark.parametrize("mode", first_of(MODES))
@pytest.mark.parametrize("kind", EACH_BAD_ANSWER)
def test_y02_to_y19_a_first_try_that_goes_wrong_costs_nobody_a_second_charge(
    open_scenario: Open, kind: str, mode: str
) -> None:
    with open_scenario(mode, faults=once(kind), notification_faults={}) as scenario:
        assert scenario.finish(scenario.receive(3))["orders"]["paid"] == 3


DATE_IN_30_S = "in 30 s"
RETRY_AFTER = [
    ("2", 1.5, 2.0),
    (DATE_IN_30_S, 10.0, 30.0),
    ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0, 0.2),
    ("86400", 59.0, 60.0),
    ("", 0.0, 0.2),
    ("-5", 0.0, 0.2),
    ("soon", 0.0, 0.2),
]


@pytest.mark.parametrize(("fault", "number"), first_of([("rate_limited", "y06"), ("unavailable", "y05")]))
@pytest.mark.parametrize(("said", "at_least_s", "at_most_s"), RETRY_AFTER)
def test_y05_y06_a_pause_is_kept_in_whatever_form_it_is_asked_for(
    open_scenario: Open, fault: str, number: str, said: str, at_least_s: float, at_most_s: float
) -> None:
    said = email.utils.formatdate(time.time() + 30, usegmt=True) if said == DATE_IN_30_S else said
    # a date holds a comma, which the short form of faults cannot say
    faults = {fault: 1, "retry_after": said}
    with open_scenario(faults=faults, notification_faults={}) as scenario:
        system, batch_id = scenario.system, scenario.receive(1)
        scenario.prepare(batch_id)
        settle.plan_batch(system.database, system.cipher, batch_id, Profile())
        plan_notifications(system.database, system.cipher, batch_id, Profile())
        PAYMENT_BREAKER.prepare(system.database)
        with worker_session(system.database, batch_id, None) as worker:
            able = system.payments.capabilities
            ledger = PaymentLedger(system.database, system.cipher, worker, able, make_ready, concurrency=1)
            (claim,) = ledger.claim(1)
            outcome = settle.settle_one(system.payments, claim, worker.may_send)
            ledger.record([(claim, outcome)])
            waits_s = ledger.wait_s() or 0.0
        assert at_least_s <= waits_s <= at_most_s
        assert outcome.kind == "not_sent"
        assert scenario.installation.summary(batch_id)["orders"]["pending"] == 1  # it is no failure of the order


def test_y15_the_answer_to_another_request_pays_nothing_and_its_connection_is_left(open_scenario: Open) -> None:
    with open_scenario(faults="wrong_body=1,max_per_key=2", notification_faults={}) as scenario:
        assert scenario.finish(scenario.receive(3))["orders"]["paid"] == 3


def let_a_day_pass(scenario: Scenario, batch_id: str) -> None:
    scenario.installation.rows(
        "UPDATE payments SET created_at = created_at - interval '25 hours', next_attempt_at = now() WHERE batch_id = %s",
        batch_id,
    )


@pytest.mark.parametrize(("capabilities", "paid"), [("keys", 0), ("keys,look-up", 3)])
def test_y20_a_key_that_the_service_may_have_forgotten_is_not_sent_again(
    open_scenario: Open, monkeypatch: pytest.MonkeyPatch, capabilities: str, paid: int
) -> None:
    monkeypatch.setattr(ledgers, "MAX_ATTEMPTS", 1)
    with open_scenario(
        capabilities, faults="reset_after=1", lookup_faults="unavailable=1", notification_faults={}
    ) as scenario:
        batch_id = scenario.receive(3)
        scenario.work_off(batch_id)
        assert scenario.installation.sandbox.ledger(batch_id)["payments"]["count"] == 3
        let_a_day_pass(scenario, batch_id)
        scenario.installation.sandbox.change(faults="", lookup_faults="", honour_keys=False)  # it has forgotten them
        scenario.installation.rows("DELETE FROM service_breakers")
        scenario.work_off(batch_id)
        scenario.work_off(batch_id)
        summary, theirs = scenario.installation.summary(batch_id), scenario.installation.sandbox.ledger(batch_id)
        assert (summary["orders"]["paid"], summary["orders"]["unknown"]) == (paid, 3 - paid)
        assert (theirs["payments"]["count"], theirs["orders"]["paid_more_than_once"]) == (3, 0)


def test_y21_a_service_that_is_down_for_long_is_asked_now_and_then_and_the_batch_is_finished_when_it_is_back(
    open_scenario: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    down_s, probe_s = 3.0, 0.5  # ten minutes and half a minute, faster
    monkeypatch.setattr(circuit_breaker, "PROBE_S", probe_s)
    monkeypatch.setattr(circuit_breaker, "PATIENCE_S", 0.5)
    with open_scenario(faults="unavailable=1,retry_after=0", notification_faults={}) as scenario:
        batch_id, until = scenario.receive(40, notify_channel="none"), time.monotonic() + down_s
        attempts = scenario.installation.sandbox.service._attempts
        attempts.clear()
        while time.monotonic() < until:
            scenario.work_off(batch_id)
        assert check_books(scenario.installation, batch_id)["orders"]["pending"] == 40
        claimed_before_it_opened = circuit_breaker.THRESHOLD + 4 * 4
        assert sum(attempts.values()) <= claimed_before_it_opened + down_s / probe_s + 2
        scenario.installation.sandbox.change(faults="")
        assert scenario.finish(batch_id)["orders"]["paid"] == 40


def test_y25_a_look_up_that_lags_is_not_asked_before_it_can_know(open_scenario: Open) -> None:
    lag_s = PaymentLedger.doubt_s - 0.3  # what was booked is seen after this, and nothing is looked up before
    faults = "reset_after=1,max_per_key=1"
    with open_scenario("look-up", faults=faults, notification_faults={}, lookup_lag_s=lag_s) as scenario:
        assert scenario.finish(scenario.receive(3))["orders"]["paid"] == 3


NOTICES = (
    "timeout_after",
    "reset_after",
    "error_after",
    "malformed",
    "timeout_before",
    "reset_before",
    "error_before",
    "empty",
)


@pytest.mark.parametrize("kind", first_of(("n02-rate_limited", *(f"n01-{kind}" for kind in NOTICES), "n02-unavailable"), 5))
def test_n01_n02_a_customer_is_notified_once_however_the_first_try_goes_wrong(open_scenario: Open, kind: str) -> None:
    with open_scenario(notification_faults=once(kind[4:])) as scenario:
        summary = scenario.finish(scenario.receive(3))
        assert (summary["orders"]["paid"], summary["notifications"]["sent"]) == (3, 3)


def test_n07_while_nobody_can_be_notified_payments_go_on_and_all_are_notified_later(
    open_scenario: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "PATIENCE_S", 0.2)
    with open_scenario(notification_faults="unavailable=1,retry_after=0") as scenario:
        batch_id = scenario.receive(6)
        scenario.work_off(batch_id)
        summary = check_books(scenario.installation, batch_id)
        assert (summary["status"], summary["orders"]["paid"], summary["notifications"]["sent"]) == ("paused", 6, 0)
        scenario.installation.sandbox.change(notification_faults=None)
        assert scenario.finish(batch_id)["notifications"]["sent"] == 6

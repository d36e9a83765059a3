"""C02 to C20: killed at any point, in each way a payment service may be able to help, and started again by plain commands.

Whatever the point, the service's own ledger has every order once in the end. The short set is in the default run; every
point at its first, a middle and a late hit, and random ones, are in the long run.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from orders_pipeline.synthetic import write_sample
from orders_pipeline_tests import commands
from orders_pipeline_tests.faults.crash_points import POINTS, VARIABLE
from orders_pipeline_tests.house import House, check_finished

CLIENT = "acme"
ROWS = 30
KILLED = -9
# what a service offers for a safe second try: our setting for it, and how the sandbox behaves then
MODES = {
    "keys": ("keys,look-up", {}),
    "look-up": ("look-up", {"honour_keys": False, "guard_orders": False}),
    "neither": ("none", {"honour_keys": False, "guard_orders": False, "lookups": False}),
}
IN_DOUBT = {"C12", "C14", "C15"}  # killed there, nobody can say whether the service has charged
SHORT = [
    ("C03", 1, "keys"),
    ("C06", 1, "keys"),
    ("C12", 2, "keys"),
    ("C15", 1, "look-up"),
    ("C14", 1, "neither"),
    ("C18", 2, "keys"),
]
SEEDS = 300


def batches_of(house: House) -> list[str]:
    return [batch_id for (batch_id,) in house.rows("SELECT batch_id FROM batches")]


def settings(house: House, mode: str, **more: str) -> dict[str, str]:
    return house.environment(
        ORDERS_PAYMENT_CAPABILITIES=MODES[mode][0],
        ORDERS_PAYMENT_CONCURRENCY="4",
        ORDERS_NOTIFICATION_TIMEOUT_S="2",  # what a killed process held of the rate is free after this
        LOOK_UP_WAIT_S="1",
        **more,
    )


def start_again(house: House, mode: str, path: Path) -> dict[str, object]:
    """Do what a person does after a crash, until the batch has nothing left that a command could do."""
    known = batches_of(house)
    if not known:
        return commands.answer(settings(house, mode), "import", path, "--client", CLIENT)
    summary: dict[str, object] = {}
    for _ in range(8):
        summary = commands.answer(settings(house, mode), "resume", known[0])
        unknown = summary.get("unknown_payments")
        if summary["status"] != "paused" or (isinstance(unknown, list) and any(each["needs_a_person"] for each in unknown)):
            break
    return summary


def killed_at(house: House, point: str, hit: int, mode: str, seed: int = 1) -> None:
    """Import a file, die at a point, start again, and compare with the service's ledger."""
    house.sandbox.change(latency_ms=20, **MODES[mode][1])
    path = house.home / f"orders-{point}-{hit}-{mode}-{seed}.csv"
    write_sample(path, rows=ROWS, seed=seed, bad=0.1)
    ended = commands.end(
        commands.start(settings(house, mode, **{VARIABLE: f"{point}:{hit}"}), "import", path, "--client", CLIENT)
    )
    died = ended.returncode == KILLED
    assert died or ended.returncode in (0, 3), ended.stderr
    summary = start_again(house, mode, path) if died else {}
    (batch_id,) = batches_of(house)
    assert len(batches_of(house)) == 1
    if mode == "neither" and point in IN_DOUBT and died:
        _check_that_doubt_is_said(house, batch_id, summary)
    else:
        check_finished(house, batch_id, "completed_with_errors")


def _check_that_doubt_is_said(house: House, batch_id: str, summary: dict[str, object]) -> None:
    """Nothing is charged twice, and what nobody can know is unknown, with its age, and waits for a person."""
    theirs = house.sandbox.ledger(batch_id)
    assert theirs["orders"]["paid_more_than_once"] == 0
    assert (summary["status"], summary["status_code"]) == ("paused", "E_PAYMENT_UNKNOWN")
    unknown = house.summary(batch_id)["unknown_payments"]
    assert unknown
    assert all(each["needs_a_person"] and each["since"] for each in unknown)
    orders = house.summary(batch_id)["orders"]
    assert orders["paid"] <= theirs["orders"]["paid"] <= orders["paid"] + orders["unknown"]
    assert orders["pending"] == orders["paying"] == 0


@pytest.mark.parametrize(("point", "hit", "mode"), SHORT)
def test_a_command_that_dies_at_a_point_is_gone_on_with(house: House, point: str, hit: int, mode: str) -> None:
    killed_at(house, point, hit, mode)


@pytest.mark.soak
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("hit", [1, 2, 4])
@pytest.mark.parametrize("point", POINTS)
def test_every_point_at_each_of_its_hits_in_every_mode(house: House, point: str, hit: int, mode: str) -> None:
    killed_at(house, point, hit, mode)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_points(house: House, seed: int) -> None:
    chance = random.Random(seed)
    killed_at(house, chance.choice(list(POINTS)), chance.randint(1, 12), chance.choice(list(MODES)), seed)

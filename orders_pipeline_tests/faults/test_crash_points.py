"""C02 to C20 and C25: killed at any point, in each way a payment service may be able to help, and started again by commands.

Whatever the point, the service's own ledger has every order once in the end: also where a person stops the batch and resumes
it, or cancels it by commands that die in turn, and where the database is put back to an earlier time. The short set is in
the default run; every point at its first, middle and last hit, and 300 random ones while services misbehave, are in the long
one: `pytest -m soak -n 10 --dist load orders_pipeline_tests/faults/test_crash_points.py`, which ends with its figures.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from orders_pipeline.batches import batches, workers
from orders_pipeline.infrastructure import migrations
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.reports.summaries import is_refunding
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.settlement import sweep
from orders_pipeline_tests.faults.crash_points import CANCEL_POINTS, COUNT, POINTS, VARIABLE
from orders_pipeline_tests.faults.test_restored_database import Backup, back_up  # noqa: F401 - a fixture
from orders_pipeline_tests.support import commands
from orders_pipeline_tests.support.databases import cloned_database
from orders_pipeline_tests.support.installation import Installation, check_books, check_finished, open_installation
from orders_pipeline_tests.support.soak import SOAK

CLIENT = "acme"
ROWS = 30
KILLED = -9
RESUMES = 12
# what a service offers for a safe second try: our setting for it, and how the sandbox behaves then
MODES: Mapping[str, tuple[str, dict[str, bool]]] = {
    "keys": ("keys,look-up", {"guard_orders": False}),
    "look-up": ("look-up", {"honour_keys": False, "guard_orders": False}),
    "neither": ("none", {"honour_keys": False, "guard_orders": False, "lookups": False}),
}
LISTED = ",list"  # what a service must offer besides, for a database that was put back to go on
IN_DOUBT = {"C12", "C13", "C14", "C15"}  # killed there, nobody can say whether the service has charged
SHORT = [
    ("C13", 2, "keys"),
    ("C14", 1, "neither"),
]
SEEDS = 300
MISBEHAVIOUR = ("error_before", "error_after", "timeout_after", "reset_before", "reset_after", "malformed", "wrong_body")
Strike = tuple[str, int]  # a point and its hit
SCENARIOS = ("resumed", "stopped", "cancelled", "restored")


@dataclass(frozen=True)
class Trial:
    """One import and how it is disturbed: a command is killed at each strike, one command after the other.

    In the scenario `cancelled` a command after the first is a cancellation; in `stopped` a person stops the batch after each
    strike; in `restored` the database is copied after the first strike and put back in the end.
    """

    strikes: Sequence[Strike]
    mode: str
    seed: int = 1
    faults: str = ""
    scenario: str = "resumed"


Note = Callable[[Mapping[str, Any]], None]


def batches_of(installation: Installation) -> list[str]:
    return [batch_id for (batch_id,) in installation.rows("SELECT batch_id FROM batches")]


def settings(installation: Installation, mode: str, **more: str) -> dict[str, str]:
    return installation.environment(
        ORDERS_PAYMENT_CAPABILITIES=MODES[mode][0] + (LISTED if mode != "neither" else ""),
        ORDERS_PAYMENT_CONCURRENCY="4",
        ORDERS_PAYMENT_TIMEOUT_S="1",
        ORDERS_NOTIFICATION_TIMEOUT_S="2",  # what a killed process held of the rate is free after this
        LOOK_UP_WAIT_S="2",
        **more,
    )


def go_on(installation: Installation, path: Path) -> list[str | Path]:
    """Return the command that a person gives after a crash."""
    known = batches_of(installation)
    return ["resume", known[0]] if known else ["import", path, "--client", CLIENT]


def cancel(installation: Installation) -> list[str | Path]:
    return ["cancel", batches_of(installation)[0], "--why", "the wrong file", "--yes"]


def is_killed(installation: Installation, mode: str, command: Sequence[str | Path], strike: Strike) -> bool:
    """Give a command that dies at a point, and say whether it came so far."""
    ended = commands.call(settings(installation, mode, **{VARIABLE: ":".join(map(str, strike))}), *command)
    assert ended.returncode in (KILLED, 0, 1, 3), ended.stderr
    return ended.returncode == KILLED


def is_open(installation: Installation) -> bool:
    """Tell whether there is a batch that has not ended."""
    return installation.rows("SELECT finished_at IS NULL FROM batches") == [(True,)]


def start_again(installation: Installation, mode: str, path: Path) -> dict[str, Any]:
    """Do what a person does after a crash, until the batch has nothing left that a command could do."""
    summary: dict[str, Any] = {}
    for _ in range(RESUMES):
        summary = commands.answer(settings(installation, mode), *go_on(installation, path))
        waits_for_a_person = any(each["needs_a_person"] for each in summary.get("unknown_payments", []))
        if summary["status"] != "paused" or (waits_for_a_person and not summary["orders"]["pending"]):
            break
    return summary


def stop(installation: Installation) -> None:
    """Let a person stop the batch: nobody offers it any more."""
    with installation.system.database.begin() as transaction:
        assert batches.stop(transaction, batches_of(installation)[0], "somebody")
    assert offered(installation) == []


def end_cancelling(installation: Installation, mode: str) -> dict[str, Any]:
    """Cancel until the batch is cancelled or only a person knows more, and return its summary; nothing is sent meanwhile."""
    sent = installation.sandbox.ledger()
    for _ in range(RESUMES):
        summary = commands.answer(settings(installation, mode), *cancel(installation))
        waits_for_a_person = any(each["needs_a_person"] for each in summary.get("unknown_payments", []))
        if summary["status"] == "cancelled" or waits_for_a_person:
            break
    assert commands.call(settings(installation, mode), *go_on(installation, installation.home)).returncode == 2
    assert installation.sandbox.ledger() == sent
    return summary


def put_back(installation: Installation, backup: Backup, mode: str, path: Path) -> None:
    """Put the database back; nothing more is paid until the ledgers are compared."""
    backup.restore(with_storage=False)
    charged = installation.sandbox.ledger()["payments"]["succeeded"]
    for _ in range(RESUMES):
        commands.answer(settings(installation, mode), *go_on(installation, path))
        assert installation.sandbox.ledger()["payments"]["succeeded"] == charged
        if not commands.answer(settings(installation, mode), "reconcile")["paying_stopped"]:
            break


def carry_out(installation: Installation, trial: Trial, copy: Callable[[], Backup] | None = None) -> dict[str, Any]:
    """Import a file, die at each strike, start again, compare with the service's ledger, and return the trial's figures."""
    installation.sandbox.change(latency_ms=20, faults=trial.faults, notification_faults={}, **MODES[trial.mode][1])
    path = installation.home / f"orders-{trial.seed}.csv"
    write_sample(path, rows=ROWS, seed=trial.seed, bad=0.1)
    kills, is_cancelled, backup = 0, False, None
    for strike in trial.strikes:
        is_cancelled = strike[0] in CANCEL_POINTS and is_open(installation)
        if strike[0] in POINTS or is_cancelled:
            kills += is_killed(
                installation, trial.mode, cancel(installation) if is_cancelled else go_on(installation, path), strike
            )
        if trial.scenario == "stopped" and is_open(installation):
            stop(installation)
        if copy is not None and backup is None:
            backup = copy()
    if backup is not None:
        start_again(installation, trial.mode, path)
        put_back(installation, backup, trial.mode, path)
    summary = end_cancelling(installation, trial.mode) if is_cancelled else start_again(installation, trial.mode, path)
    (batch_id,) = batches_of(installation)
    # each command has ten notifications under way at most, and a service with neither keys nor look-ups takes all
    may_repeat = 10 * len(trial.strikes) if trial.mode == "neither" else 0
    if backup is not None and trial.mode == "look-up":
        may_repeat = ROWS  # nor can one be asked that ignores keys, for what a database never knew
    if trial.mode == "neither" and installation.summary(batch_id)["orders"]["unknown"]:
        _check_that_doubt_is_said(installation, batch_id, summary)
    elif is_cancelled:
        _check_cancelled(installation, batch_id, notified_twice=may_repeat)
    else:
        check_finished(installation, batch_id, "completed_with_errors", notified_twice=may_repeat)
    ours, theirs = installation.summary(batch_id), installation.sandbox.ledger(batch_id)
    assert theirs["payments"]["refunded_jpy"] == 0
    return {
        "killed": kills,
        "orders": ours["rows"]["accepted"] or 0,  # nobody knows where it was cancelled before
        "paid": ours["orders"]["paid"],
        "unknown": ours["orders"]["unknown"],
        "our_yen": ours["amount_jpy"]["paid"],
        "their_yen": theirs["payments"]["amount_jpy"],
        "paid_twice": theirs["orders"]["paid_more_than_once"],
        "notified_twice": theirs["notifications"]["duplicates"],
    }


def _check_cancelled(installation: Installation, batch_id: str, *, notified_twice: int) -> None:
    """What was paid is paid, all else is called off, and it adds up."""
    summary = installation.summary(batch_id)
    orders, yen = summary["orders"], summary["amount_jpy"]
    assert summary["status"] == "cancelled"
    if summary["rows"]["accepted"] is None:
        assert installation.sandbox.ledger(batch_id)["payments"]["count"] == sum(orders.values()) == 0
        return
    check_books(installation, batch_id, notified_twice=notified_twice, notified_unseen=notified_twice)
    assert orders["pending"] == orders["paying"] == orders["unknown"] == 0
    assert yen["accepted"] == yen["paid"] + yen["declined"] + yen["cancelled"]


def _check_that_doubt_is_said(installation: Installation, batch_id: str, summary: Mapping[str, Any]) -> None:
    """Nothing is charged twice, and what nobody can know is unknown, with its age, and waits for a person."""
    theirs = installation.sandbox.ledger(batch_id)
    assert theirs["orders"]["paid_more_than_once"] == 0
    assert (summary["status"], summary["status_code"]) in (("paused", "E_PAYMENT_UNKNOWN"), ("cancelling", None))
    unknown = installation.summary(batch_id)["unknown_payments"]
    assert unknown
    assert all(each["needs_a_person"] and each["since"] for each in unknown)
    orders = installation.summary(batch_id)["orders"]
    assert orders["paid"] <= theirs["orders"]["paid"] <= orders["paid"] + orders["unknown"]
    assert orders["paying"] == 0
    assert orders["pending"] == 0 or summary["status"] == "cancelling"


def back_up_of(request: pytest.FixtureRequest, trial: Trial) -> Callable[[], Backup] | None:
    return request.getfixturevalue("back_up") if trial.scenario == "restored" else None


@pytest.fixture
def noted(kept_trials: Path) -> Note:
    """A function that prints and keeps what a trial was and came to."""

    def note(figures: Mapping[str, Any]) -> None:
        line = json.dumps(figures)
        print(line)  # noqa: T201 - shown with a failure
        with kept_trials.open("a") as kept:
            kept.write(line + "\n")

    return note


@pytest.fixture(scope="module")
def hits(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, int]]:
    """How often each point is passed by an import that nothing disturbs, by mode."""
    counted = {}
    for mode in MODES:
        folder = tmp_path_factory.mktemp("count")
        with open_installation(server_url, template, folder) as installation:
            installation.sandbox.change(latency_ms=20, **MODES[mode][1])
            write_sample(folder / "orders.csv", rows=ROWS, seed=1, bad=0.1)
            counting = settings(installation, mode, **{COUNT: str(folder / "hits")})
            assert commands.call(counting, "import", folder / "orders.csv", "--client", CLIENT).returncode == 3
        counted[mode] = json.loads((folder / "hits").read_text())
    return counted


@pytest.mark.parametrize(("point", "hit", "mode"), SHORT)
def test_c02_to_c20_a_command_that_dies_at_a_point_is_resumed(
    installation: Installation, noted: Note, point: str, hit: int, mode: str
) -> None:
    trial = Trial([(point, hit)], mode)
    figures = carry_out(installation, trial)
    noted(asdict(trial) | figures)
    assert figures["killed"] == 1
    assert (figures["unknown"] > 0) == (mode == "neither" and point in IN_DOUBT)


@pytest.mark.parametrize(
    ("scenario", "point", "mode"),
    [
        ("cancelled", "K4", "keys"),
        *(pytest.param("cancelled", point, mode, marks=SOAK) for point in CANCEL_POINTS for mode in MODES),
        *(pytest.param("stopped", point, mode, marks=SOAK) for point in POINTS for mode in MODES),
        *(pytest.param("restored", point, mode, marks=SOAK) for point in POINTS for mode in MODES if mode != "neither"),
    ],
)
def test_c02_to_c20_a_command_that_dies_while_a_batch_is_paid_is_followed_by_others_that_die(
    installation: Installation, noted: Note, request: pytest.FixtureRequest, scenario: str, point: str, mode: str
) -> None:
    trial = Trial([("C14", 3), (point, 1)], mode, scenario=scenario)
    noted(asdict(trial) | carry_out(installation, trial, back_up_of(request, trial)))


KILLED_REFUNDS = [("C13r", 3), ("C16r", 1)]
OTHER_KILLED_REFUNDS = [("C11r", 1), ("C12r", 2), ("C14r", 1), ("C14r", 5), ("C15r", 1), ("C17", 1), ("C17", 4), ("C18", 2)]


@pytest.mark.parametrize(
    ("point", "hit", "goes_on"),
    [
        ("C13r", 3, "sweep"),
        ("C16r", 1, "resume"),
        *(
            pytest.param(*strike, goes_on, marks=pytest.mark.soak)
            for strike in (*KILLED_REFUNDS, *OTHER_KILLED_REFUNDS)
            for goes_on in ("sweep", "resume")
        ),
    ],
)
def test_c12_to_c18_a_refund_that_dies_at_a_point_is_finished_without_being_asked_for_again(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, point: str, hit: int, goes_on: str
) -> None:
    """Every yen is refunded once and every customer corrected once, by the sweep's run or by `resume`."""
    monkeypatch.setattr(workers, "LEASE_S", 4.0)
    path = installation.home / "orders.csv"
    write_sample(path, rows=ROWS, seed=1, bad=0)
    batch_id = str(installation.take(path, CLIENT)["batch_id"])
    told = installation.sandbox.ledger(batch_id)["notifications"]["sent"]
    armed = settings(installation, "keys", **{VARIABLE: f"{point}:{hit}"})
    assert commands.call(armed, "refund", batch_id, "--why", "returned", "--yes").returncode == KILLED
    assert is_refunding(installation.summary(batch_id))
    if goes_on == "resume":
        assert commands.call(settings(installation, "keys"), "resume", batch_id).returncode == 0
    else:
        commands.wait_for(lambda: offered(installation) == [batch_id], "the sweep to see the refund")
        assert installation.run(batch_id) is None
        assert offered(installation) == []
    summary, theirs = installation.summary(batch_id), installation.sandbox.ledger(batch_id)
    assert (summary["orders"]["refunded"], summary["orders"]["paid"]) == (ROWS, 0)
    assert theirs["payments"]["refunded_jpy"] == theirs["payments"]["amount_jpy"] == summary["amount_jpy"]["refunded"]
    assert theirs["notifications"]["duplicates"] == 0
    corrections = summary["refunds"]["corrections"]
    assert corrections == {"planned": told, "sent": told, "failed": 0, "open": 0}
    assert theirs["notifications"]["sent"] == 2 * told


def offered(installation: Installation) -> list[str]:
    return [row.batch_id for row in sweep.stalled_batches(installation.system.database)]


@pytest.mark.parametrize("hit", [pytest.param(1, marks=pytest.mark.soak), 7])
def test_c24_a_migration_that_is_killed_half_way_leaves_nothing_and_is_made_again(server_url: str, hit: int) -> None:
    with cloned_database(server_url, "template0") as url, contextlib.closing(Database(url)) as database:
        environment = {"ORDERS_DATABASE_URL": url.get_secret_value(), "LOOK_UP_WAIT_S": "2"}
        killed = commands.call(environment | {VARIABLE: f"C24:{hit}"}, "db", "migrate")
        assert killed.returncode == KILLED
        assert migrations.pending(database) == [each.script for each in migrations.all_migrations()]
        assert commands.call(environment, "db", "migrate").returncode == 0
        assert migrations.pending(database) == []


@pytest.mark.soak
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("which", ["first", "middle", "last"])
@pytest.mark.parametrize("point", POINTS)
def test_c02_to_c20_every_point_at_each_of_its_hits_in_every_mode(
    installation: Installation, noted: Note, hits: Mapping[str, Mapping[str, int]], point: str, which: str, mode: str
) -> None:
    last = hits[mode][point]
    trial = Trial([(point, {"first": 1, "middle": (last + 1) // 2, "last": last}[which])], mode)
    figures = carry_out(installation, trial)
    noted(asdict(trial) | figures)
    assert figures["killed"] == 1 or which == "last"  # results are written in groups, so the last hit comes and goes


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SEEDS))
def test_c25_random_points_while_services_misbehave(
    installation: Installation, noted: Note, request: pytest.FixtureRequest, hits: Mapping[str, Mapping[str, int]], seed: int
) -> None:
    chance = random.Random(seed)
    mode, rate = chance.choice(list(MODES)), chance.choice((0.0, 0.0, 0.02, 0.06))
    points = [chance.choice(list(POINTS)) for _ in range(chance.choice((1, 1, 1, 2)))]
    strikes = [(point, chance.randint(1, hits[mode][point])) for point in points]
    faults = ",".join(f"{kind}={rate}" for kind in MISBEHAVIOUR)
    scenario = chance.choice(SCENARIOS[: 3 if mode == "neither" else 4])
    if scenario == "cancelled":
        strikes = [strikes[0], (chance.choice(list(CANCEL_POINTS)), 1)]
    faults = f"{faults},seed={seed},hang_s=3,max_per_key=3" if rate else ""
    trial = Trial(strikes, mode, seed, faults, scenario)
    noted(asdict(trial) | carry_out(installation, trial, back_up_of(request, trial)))

"""C20: a batch that needs approval is killed before it waits, while it is approved or refused, and before it is paid.

Nothing is charged before somebody has approved it, and nothing is lost after that: plain commands bring it to its end.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orders_pipeline.intake import file_import
from orders_pipeline_tests.faults.crash_points import (
    APPROVING_POINTS,
    CANCEL_POINTS,
    REFUSING_POINTS,
    VARIABLE,
    WAIT,
    WAITING_POINTS,
)
from orders_pipeline_tests.support import commands
from orders_pipeline_tests.support.installation import Installation, check_books, check_finished
from orders_pipeline_tests.support.scenario import Scenario
from orders_pipeline_tests.support.soak import SOAK

ORDERS = 4
KILLED = -9
# of loading a batch, of approving it and then paying it, of refusing it and then cancelling it; each at one of its hits
WAITING = [*((point, 1) for point in WAITING_POINTS), ("W1", 2), ("W2", 2), ("C09", 2), ("C10", 2)]
APPROVING = [*((point, 1) for point in APPROVING_POINTS), ("C11", 1), ("C13", 1), ("C13", ORDERS), ("C15", 1)]
REFUSING = [*((point, 1) for point in REFUSING_POINTS), *((point, 1) for point in CANCEL_POINTS if point != "K1")]
TRIALS = [
    *((strikes, "approve") for strikes in zip(WAITING, APPROVING, strict=True)),
    *((strikes, "refuse") for strikes in zip(WAITING, REFUSING, strict=False)),
    *(((WAITING[0], strike), "refuse") for strike in REFUSING[len(WAITING) :]),
]
QUICK = [TRIALS[2], TRIALS[1], TRIALS[8]]
assert {strike for strikes, _ in TRIALS for strike in strikes} == {*WAITING, *APPROVING, *REFUSING}


@pytest.mark.parametrize(
    ("strikes", "decision"), [*QUICK, *(pytest.param(*each, marks=SOAK) for each in TRIALS if each not in QUICK)]
)
def test_c20_a_batch_that_needs_approval_is_killed_and_nothing_is_charged_before_it_or_lost_after_it(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, strikes: Sequence[tuple[str, int]], decision: str
) -> None:
    monkeypatch.setattr(file_import, "os_user", lambda: "sender")
    batch_id = Scenario(installation, installation.system, "acme").receive(ORDERS)
    clients = installation.home / "clients.toml"
    clients.write_text('[acme]\napproval = "always"\n')
    settings = installation.environment(ORDERS_CLIENTS_FILE=str(clients), ORDERS_PAYMENT_CONCURRENCY="1", **{WAIT: "0.5"})
    decide = [decision, batch_id, "--who", "approver", *(["--why", "the wrong file"] if decision == "refuse" else [])]
    before, after = strikes

    def dies(strike: tuple[str, int], *command: str) -> None:
        assert commands.call(settings | {VARIABLE: "{}:{}".format(*strike)}, *command).returncode == KILLED

    def decided() -> str | None:
        return installation.summary(batch_id)["approval"]["decision"]

    dies(before, "resume", batch_id)
    for _ in range(2):
        assert commands.call(settings, "resume", batch_id).returncode == 1
        assert installation.summary(batch_id)["status"] == "awaiting_approval"
        assert installation.report(batch_id, "errors")
        assert installation.report(batch_id, "result")
    assert installation.sandbox.ledger()["payments"]["count"] == 0
    dies(after, *decide)
    was_said = decided() is not None
    if not was_said:
        assert after[0] in ("V1", "V4")
        assert commands.call(settings, "resume", batch_id).returncode == 1
        assert installation.sandbox.ledger()["payments"]["count"] == 0
    elif decision == "approve":
        assert commands.call(settings, "resume", batch_id).returncode == 0
    assert commands.call(settings, *decide).returncode == 0
    if decision == "approve":
        assert check_finished(installation, batch_id)["orders"]["paid"] == ORDERS
    else:
        summary = check_books(installation, batch_id)
        assert (summary["status"], summary["orders"]["cancelled"]) == ("cancelled", ORDERS)
        assert installation.sandbox.ledger()["payments"]["count"] == 0
    assert installation.sandbox.ledger()["orders"]["paid_more_than_once"] == 0
    assert decided() == {"approve": "approved", "refuse": "refused"}[decision]

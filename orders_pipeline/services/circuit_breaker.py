"""When a service is called: three policies that all processes keep, over one row of the service in PostgreSQL.

- The circuit breaker: after THRESHOLD failed calls in a row it is open, and nothing is claimed but one call now and then,
  the probe. A probe that goes well closes it for everybody.
- The retry budget: a service that fails often has few retries among what it gets.
- The rest: a service that asks for a pause gets it.

What counts as a failure is said by `Outcome`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.services.outcomes import Outcome

# the circuit breaker
THRESHOLD = 10  # failed calls in a row
FIRST_PROBE_S = 5.0  # most outages are short
PROBE_S = 30.0
PATIENCE_S = 45.0  # work waits this long for an open breaker before it gives up for now
# the retry budget: a failed call takes one from it
MOST_RETRIES = 100.0
RETRIES_PER_ANSWER = 0.2  # what a good answer adds
RETRIES_PER_S = 5.0
# the rest
LONGEST_REST_S = 60.0  # no longer one is heeded


@dataclass(frozen=True)
class Allowance:
    """What may be sent now: so many calls, those that were tried before among them or not."""

    calls: int
    retries: bool
    is_probe: bool = False


class Breaker:
    """The three policies of one service."""

    def __init__(self, service: str) -> None:
        self.service = service

    def prepare(self, database: Database) -> None:
        """Have the service's row in the database."""
        with database.begin() as transaction:
            transaction.execute("add_service_breaker", service=self.service)

    def allowance(self, transaction: Transaction, wanted: int) -> Allowance:
        """Return how many calls may be made now: `wanted`, none, or one as the probe; and whether retries may be among."""
        state = self._state(transaction) if wanted > 0 else None
        if state is None:
            return Allowance(max(wanted, 0), retries=True)
        if _rest_s(state) > 0:
            return Allowance(0, retries=False)
        if state.opened_at is None:
            return Allowance(wanted, _retry_in_s(state) < 0)
        if _probe_in_s(state) > 0:
            return Allowance(0, retries=False)
        probes = transaction.execute("take_probe", service=self.service, probe_s=PROBE_S)
        return Allowance(probes, retries=True, is_probe=probes > 0)

    def claimed(self, transaction: Transaction, allowed: Allowance, claims: int) -> None:
        """Return the probe where there was nothing to claim: another batch may have something to try."""
        if allowed.is_probe and not claims:
            transaction.execute("probe_now", service=self.service)

    def wait_s(self, transaction: Transaction, due_s: float | None) -> float | None:
        """Return the seconds until a call that is due in `due_s` may be made; None when that is not worth waiting for."""
        state = self._state(transaction)
        if due_s is None or state is None:
            return due_s
        due_s = max(due_s, _rest_s(state))
        if state.opened_at is None:
            return max(due_s, _retry_in_s(state))
        return max(due_s, _probe_in_s(state)) if 0 <= state.open_for_s < PATIENCE_S else None

    def wait_for_probe_s(self, transaction: Transaction) -> float | None:
        """Return the seconds until an open breaker lets a probe through; None when it is closed."""
        state = self._state(transaction)
        return None if state is None or state.opened_at is None else max(_probe_in_s(state), _rest_s(state))

    def probe_now(self, transaction: Transaction) -> None:
        """Let the next call be the probe: somebody knows that the service is back."""
        transaction.execute("probe_now", service=self.service)

    def observe(self, transaction: Transaction, outcomes: Sequence[Outcome]) -> bool:
        """Count how calls ended, and return whether the service may not be called now.

        A failure that a person must mend opens the breaker at once.
        """
        rest_s = min(max((outcome.hold_s or 0.0 for outcome in outcomes), default=0.0), LONGEST_REST_S)
        if rest_s:
            transaction.execute("let_rest", service=self.service, rest_s=rest_s)
        failed = [outcome for outcome in outcomes if outcome.service_failed]
        answers = sum(outcome.answered for outcome in outcomes)
        budget = {"change": RETRIES_PER_ANSWER * answers - len(failed), "most": MOST_RETRIES, "refill_per_s": RETRIES_PER_S}
        is_open = False
        if answers:
            transaction.execute("close_breaker", service=self.service, **budget)
        elif failed:
            is_open = transaction.scalar(
                "count_failures",
                service=self.service,
                **budget,
                failures=THRESHOLD if any(outcome.stop for outcome in failed) else len(failed),
                reason=failed[-1].code,
                threshold=THRESHOLD,
                first_probe_s=FIRST_PROBE_S,
            )
        return is_open or rest_s > 0

    def _state(self, transaction: Transaction) -> Row[Any] | None:
        return transaction.row("breaker", service=self.service, refill_per_s=RETRIES_PER_S)


def _probe_in_s(state: Row[Any]) -> float:
    """Return the seconds until an open breaker's next probe; where the database's clock was put back, it is due."""
    left = float(state.probe_in_s)
    return left if left <= PROBE_S else 0.0


def _retry_in_s(state: Row[Any]) -> float:
    """Return the seconds until the retry budget is used up no more; less than 0 where it is not."""
    return -float(state.retries_left) / RETRIES_PER_S


def _rest_s(state: Row[Any]) -> float:
    """Return how many seconds of rest are left; none where it is more than is ever heeded, by a clock that was put back."""
    left = float(state.rest_s)
    return left if 0 < left <= LONGEST_REST_S else 0.0

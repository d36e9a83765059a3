"""Breakers: a service that fails call after call is left alone, by all processes, until a single call goes well.

The state is a row in PostgreSQL. While a breaker is open nothing is claimed but one piece of work now and then, the
probe; its success closes the breaker for everybody. A service that only fails often has its retries kept to a budget, so
that they are never most of what it gets; one that asks for a rest gets it. What counts as a failure is said by `Outcome`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.services.outcomes import Outcome

THRESHOLD = 10  # failed calls in a row
FIRST_PROBE_S = 5.0  # most outages are short
PROBE_S = 30.0
PATIENCE_S = 45.0  # work waits this long for an open breaker before it gives up for now
MOST_RETRIES = 100.0  # failed calls that are tried again as if nothing were wrong
RETRIES_PER_ANSWER = 0.2  # how much of a retry a good answer gives back
RETRIES_PER_S = 5.0
LONGEST_REST_S = 60.0  # no longer one is heeded; what is left is more only when the database's clock was put back


@dataclass(frozen=True)
class Allowance:
    """What may be sent now: so many calls, those that were tried before among them or not."""

    calls: int
    retries: bool
    is_probe: bool = False


class Breaker:
    """The breaker of one service."""

    def __init__(self, service: str) -> None:
        self.service = service

    def prepare(self, database: Database) -> None:
        """Have the breaker in the database."""
        with database.begin() as transaction:
            transaction.execute("add_service_breaker", service=self.service)

    def allowance(self, transaction: Transaction, wanted: int) -> Allowance:
        """Return how many calls may be made now, up to `wanted` (all, none, or one as the probe), and whether again."""
        state = self._state(transaction) if wanted > 0 else None
        if state is None:
            return Allowance(max(wanted, 0), retries=True)
        if _rest_s(state) > 0:
            return Allowance(0, retries=False)
        if state.opened_at is None:
            return Allowance(wanted, state.retries_left > 0)
        if _probe_in_s(state) > 0:
            return Allowance(0, retries=False)
        probes = transaction.execute("take_probe", service=self.service, probe_s=PROBE_S)
        return Allowance(probes, retries=True, is_probe=probes > 0)

    def claimed(self, transaction: Transaction, allowed: Allowance, claims: int) -> None:
        """Give the probe back where there was nothing to claim: another batch may have something to try."""
        if allowed.is_probe and not claims:
            transaction.execute("hurry_probe", service=self.service)

    def wait_s(self, transaction: Transaction, due_s: float | None) -> float | None:
        """Return the seconds until a call that is due in `due_s` may be made; None when that is not worth waiting for."""
        state = self._state(transaction)
        if due_s is None or state is None:
            return due_s
        due_s = max(due_s, _rest_s(state))
        if state.opened_at is None:
            return max(due_s, -float(state.retries_left) / RETRIES_PER_S)
        return max(due_s, _probe_in_s(state)) if 0 <= state.open_for_s < PATIENCE_S else None

    def wait_for_probe_s(self, transaction: Transaction) -> float | None:
        """Return the seconds until an open breaker lets a probe through; None when it is closed."""
        state = self._state(transaction)
        return None if state is None or state.opened_at is None else max(_probe_in_s(state), _rest_s(state))

    def probe_now(self, transaction: Transaction) -> None:
        """Let the next call be the probe: somebody knows that the service is back."""
        transaction.execute("hurry_probe", service=self.service)

    def observe(self, transaction: Transaction, outcomes: Sequence[Outcome]) -> bool:
        """Learn from what calls came to, and return whether the service is to be left alone now.

        A failure that a person must mend opens the breaker at once.
        """
        rest_s = max((outcome.hold_s or 0.0 for outcome in outcomes), default=0.0)
        if rest_s:
            transaction.execute("let_rest", service=self.service, rest_s=min(rest_s, LONGEST_REST_S))
        failed = [outcome for outcome in outcomes if outcome.service_failed]
        budget: dict[str, Any] = {
            "service": self.service,
            "change": RETRIES_PER_ANSWER * sum(outcome.answered for outcome in outcomes) - len(failed),
            "most": MOST_RETRIES,
            "refill_per_s": RETRIES_PER_S,
        }
        if any(outcome.answered for outcome in outcomes):
            transaction.execute("close_breaker", **budget)
        elif failed:
            is_open = transaction.scalar(
                "count_failures",
                **budget,
                failures=THRESHOLD if any(outcome.stop for outcome in failed) else len(failed),
                reason=failed[-1].code,
                threshold=THRESHOLD,
                first_probe_s=FIRST_PROBE_S,
            )
            return bool(is_open or rest_s)
        return bool(rest_s)

    def _state(self, transaction: Transaction) -> Row[Any] | None:
        return transaction.row("breaker", service=self.service, refill_per_s=RETRIES_PER_S)


def _probe_in_s(state: Row[Any]) -> float:
    """Return how long it is until the next probe; after the clock was put back it is due."""
    left = float(state.probe_in_s)
    return left if left <= PROBE_S else 0.0


def _rest_s(state: Row[Any]) -> float:
    """Return how much longer the service wants to be left alone."""
    left = float(state.rest_s)
    return left if 0 < left <= LONGEST_REST_S else 0.0

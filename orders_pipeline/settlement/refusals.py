"""Refusals: an item that a service does not take, for a reason that its contract does not name, and whose matter that is.

Nothing was done for such an item. The others of its kind show whether the answer is about the item or about all:

- it is the item's when it was refused three times while another was taken in between. It ends there, declined with the
  service's code. So it does where others were taken only since it was first refused, and fewer than ten were refused after;
- the last one of a batch, after which nothing could be taken, is declined when others of its batch were taken before and
  nothing else was refused since. So are several, if no more than were declined of the batch with the same code. Else the
  last ones, fewer than ten, are declined after ten minutes of tries;
- else it is the service's, or ours: the batch is held. Nothing more of it is sent until something of the kind is taken, of
  whichever batch, or as long again has passed as it has lasted. Its items stay undecided; other batches are not held.

What was taken counts from the moment it was asked for: a service that begins to refuse may have taken what was under way.
One answer that takes some and refuses others is about the items.
An earlier try that may have been carried out is waited out before an item is declined. An answer that says that something
was done otherwise is a person's. All that is known is in the database. What is final or the service's for certain is said by
the services' modules; their failures are counted in `services/circuit_breaker.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row

from orders_pipeline.batches import workers
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.services.outcomes import FOR_EVER_S, Outcome

TRIES = 3
SEVERAL = 10  # items, of whichever batches, or customers of one that are refused while nobody is served: it is not they
MANY = 100  # items of one batch refused, be they of one customer, while nothing was taken
LATELY_S = 600.0
PATIENCE_S = 600.0  # a service that refuses everything is seen to by then, or has refused more than a few
FIRST_HOLD_S = 60.0
LONGEST_HOLD_S = 4 * 3_600.0


@dataclass(frozen=True)
class Tried:
    """A payment, refund or notification that was tried, as far as it matters here."""

    item_id: str
    kind: str  # of request: what is taken of one kind says nothing of another
    customer_code: str
    in_doubt: bool = False  # an earlier try may have been carried out
    last_code: str | None = None  # of the outcome before this one


@dataclass(frozen=True)
class Verdict:
    """What a refusal comes to: the outcome that is written down, and for how long its batch is held, if it is."""

    outcome: Outcome
    is_settled: bool = False
    hold_s: float | None = None


class Refusals:
    """What a service refuses; `a_person_decides` where what may have been done can be answered for by somebody."""

    def __init__(self, service: str, *, a_person_decides: bool) -> None:
        self.service = service
        self._a_person_decides = a_person_decides

    def judged(
        self, transaction: Transaction, batch_id: str, results: Sequence[tuple[Tried, Outcome]], doubt_s: float = 0.0
    ) -> list[Outcome]:
        """Learn from what a batch's items came to, and return that with a verdict in place of each refusal.

        It takes `doubt_s` until an earlier try can be under way no more. To be called first in a transaction: all that
        write down what came of a batch then wait for each other here, holding nothing.
        """
        refused = [(tried, outcome) for tried, outcome in results if outcome.refused]
        item_ids = [tried.item_id for tried, _ in refused]
        if refused:
            transaction.execute(
                "count_refusals",
                batch_id=batch_id,
                service=self.service,
                item_ids=item_ids,
                kinds=[tried.kind for tried, _ in refused],
                customer_codes=[tried.customer_code for tried, _ in refused],
                codes=[outcome.code for _, outcome in refused],
            )
        ages_s = _ages_of_acceptances(results)
        if ages_s:
            transaction.execute("note_acceptances", batch_id=batch_id, kinds=list(ages_s), ages_s=list(ages_s.values()))
        if not refused:
            return [outcome for _, outcome in results]
        rows = transaction.rows(
            "refusals_and_others", batch_id=batch_id, item_ids=item_ids, lately_s=LATELY_S, several=SEVERAL
        )
        found = {str(row.item_id): row for row in rows}
        verdicts = {
            tried.item_id: self._verdict(tried, outcome, found[tried.item_id], doubt_s) for tried, outcome in refused
        }
        decided = {item_id: each for item_id, each in verdicts.items() if each.is_settled or each.hold_s is not None}
        if decided:
            transaction.execute(
                "settle_refusals", item_ids=list(decided), holds_s=[each.hold_s for each in decided.values()]
            )
        return [verdicts[tried.item_id].outcome if outcome.refused else outcome for tried, outcome in results]

    def hold(self, transaction: Transaction, batch_id: str) -> bool:
        """Return whether a batch waits for the service to take something."""
        return bool(transaction.scalar("is_held", batch_id=batch_id, service=self.service))

    def end_hold(self, transaction: Transaction, batch_id: str) -> None:
        """Let everything of a batch be tried again."""
        transaction.execute("end_hold", batch_id=batch_id, service=self.service)

    def _verdict(self, tried: Tried, outcome: Outcome, history: Row[Any], doubt_s: float) -> Verdict:
        is_tried_enough = history.times >= TRIES
        if self._a_person_decides and tried.in_doubt and outcome.kind == "not_sent":
            outcome = replace(outcome, kind="unknown", retry_after_s=doubt_s)
            # with nothing but this answer since, what was sent before has been carried out by now or never will be
            is_tried_enough = tried.last_code == outcome.code and history.waited_s >= doubt_s
        elif self._a_person_decides and outcome.kind == "unknown" and is_tried_enough:
            return Verdict(replace(outcome, retry_after_s=FOR_EVER_S), is_settled=True)
        if is_tried_enough and _is_the_items(history):
            return Verdict(replace(outcome, kind="declined", retry_after_s=None), is_settled=True)
        if is_tried_enough or history.customers_alike >= SEVERAL or history.items_alike >= MANY:
            return Verdict(outcome, hold_s=min(max(float(history.for_s), FIRST_HOLD_S), LONGEST_HOLD_S))
        return Verdict(outcome)


def _is_the_items(history: Row[Any]) -> bool:
    """Return whether others fared so that it is about this item that it is refused."""
    if history.taken_since_last:
        return True
    if history.refused_since >= SEVERAL:
        return False
    if history.taken_since_first:
        return True
    are_few = history.refused_since <= max(history.settled_alike, 1)
    return bool(history.taken_before and (are_few or history.refused_for_s >= PATIENCE_S))


def _ages_of_acceptances(results: Sequence[tuple[Tried, Outcome]]) -> dict[str, float]:
    """Return by kind how old the newest sign is that the service takes such items, in seconds."""
    now = workers.now()
    refusing_calls = {outcome.asked_at for _, outcome in results if outcome.refused}
    ages_s: dict[str, float] = {}
    for tried, outcome in results:
        if outcome.kind == "succeeded" and outcome.asked_at is not None and not tried.in_doubt:
            age_s = 0.0 if outcome.asked_at in refusing_calls else now - outcome.asked_at
            ages_s[tried.kind] = min(age_s, ages_s.get(tried.kind, age_s))
    return ages_s

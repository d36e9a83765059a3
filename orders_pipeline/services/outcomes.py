"""Outcomes: what a call to a service, or the lack of an answer, means for the payment or notification it was for.

A provider's module turns its own words into these; ledgers and loops know nothing else of an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FOR_EVER_S = 100 * 365 * 86_400.0  # until a person has decided
CALLED_OFF = "called-off"  # the code of what was claimed and is not sent after all; it counts as no try
OutcomeKind = Literal[
    "succeeded",  # done, for certain
    "declined",  # refused for good, not done
    "not_sent",  # not done, for certain: may be sent again
    "unknown",  # may be done: look it up before anything else
    "absent",  # a look-up found nothing
]


@dataclass(frozen=True)
class Outcome:
    """What came of one call."""

    kind: OutcomeKind
    code: str | None = None  # the service's stable code or ours, never its text
    service_id: str | None = None  # the service's own id of the payment or notification
    retry_after_s: float | None = None  # the service asks for this pause before the next try
    stop: bool = False  # a person must change something first: send nothing more
    refused: bool = False  # not taken, for a reason that the contract does not name: this item, or all of them
    service_failed: bool = False  # the service did not do its part: no answer, an error of its own, or nonsense
    asked_at: float | None = field(default=None, compare=False)  # when the call began, by `workers.now`

    @property
    def answered(self) -> bool:
        """Return whether the service answered as it should, whatever it said."""
        return self.refused or self.kind in {"succeeded", "declined", "absent"}

    @property
    def hold_s(self) -> float | None:
        """Return how long the whole service asks not to be called, if it does."""
        return self.retry_after_s if self.kind == "not_sent" else None


def called_off(*, in_doubt: bool) -> Outcome:
    """Return the outcome of a claim that is returned unsent: `in_doubt` where an earlier try may have sent it."""
    return Outcome("unknown" if in_doubt else "not_sent", CALLED_OFF)

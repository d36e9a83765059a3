"""What it means for a request that its answer is a problem, or that none came: the same for all services of the platform.

Which problems settle a request for good is known to each service's own module.
"""

from __future__ import annotations

from orders_pipeline.services.answers import Answer, NoAnswer, NotDelivered
from orders_pipeline.services.outcomes import Outcome, OutcomeKind

KEY_REUSED = "idempotency-key-reused"  # something was sent under our key before, and may have been done
IN_PROGRESS = "request-in-progress"
UNFIT = "answer-does-not-fit"


def without_answer(failure: NotDelivered | NoAnswer) -> Outcome:
    """Return the outcome of a request that had no answer: not sent only if it never reached the service."""
    return Outcome("not_sent" if isinstance(failure, NotDelivered) else "unknown", failure.code, service_failed=True)


def problem_outcome(answer: Answer, final: frozenset[str], *, is_unavailable: bool) -> Outcome:
    """Return the outcome of a request by a problem; `is_unavailable` says that the service took nothing and may later.

    What is neither `final` nor certainly not taken may have been done.
    """
    problem = answer.problem
    if answer.status == 429 or is_unavailable:
        return Outcome("not_sent", problem, retry_after_s=answer.retry_after_s, service_failed=is_unavailable)
    if not answer.is_refusal:  # 5xx, redirects and whatever else
        return Outcome("unknown", problem, retry_after_s=answer.retry_after_s, service_failed=True)
    if answer.status == 409 and (problem == IN_PROGRESS or answer.retry_after_s is not None):
        return Outcome("unknown", problem, retry_after_s=answer.retry_after_s)
    if problem in final:
        return Outcome("declined", answer.code or problem)
    if answer.refuses_the_caller:
        return Outcome("not_sent", problem, stop=True, service_failed=True)
    kind: OutcomeKind = "unknown" if answer.status == 409 or problem == KEY_REUSED else "not_sent"
    return Outcome(kind, answer.code or problem, refused=True)

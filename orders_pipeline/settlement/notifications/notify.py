"""Sending notifications: each once, many in one call where the service takes that, and within its rate.

Claims and results belong in `ledger.py`, the loop in `settlement/drain.py`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from orders_pipeline.services.notification_service import BULK, NotificationService
from orders_pipeline.services.outcomes import Outcome, called_off
from orders_pipeline.services.rate_limit import RateLimiter, Stopped
from orders_pipeline.settlement.drain import drain, one_by_one
from orders_pipeline.settlement.notifications.ledger import NotificationClaim, NotificationLedger, ResultLedger

BULK_CALLS = 2  # at a time: one is answered while the next one is on its way
FEW = 8  # so many are sent one by one where all in one call are refused; more are halved, and so many looked up at a time


def look_up_results(ledger: ResultLedger, service: NotificationService, limiter: RateLimiter, stop: threading.Event) -> None:
    """Look up the results that may have been sent, and send nothing; what nobody can say stays unknown."""
    limiter.prepare()
    ledger.begin()
    for claim in ledger.claim_doubtful():
        found = called_off(in_doubt=True)
        with contextlib.suppress(Stopped), limiter.token(stop):
            found = service.look_up(claim.request)
        ledger.record([(claim, Outcome("not_sent") if found.kind == "absent" else found)])


def send_one(
    service: NotificationService,
    limiter: RateLimiter,
    claim: NotificationClaim,
    *,
    may_send: Callable[[], bool],
    stop: threading.Event,
) -> Outcome:
    """Bring one claimed notification to an outcome; what may have been sent is looked up first.

    Nothing is sent once `may_send` says no: others may have taken the claim over and send it.
    """
    try:
        if claim.in_doubt:
            with limiter.token(stop):
                found = service.look_up(claim.request)
            if found.kind != "absent":
                return found
        with limiter.token(stop):
            return service.send(claim.request) if may_send() else called_off(in_doubt=False)
    except Stopped:
        return called_off(in_doubt=claim.in_doubt)


def send_many(
    service: NotificationService,
    limiter: RateLimiter,
    claims: Sequence[NotificationClaim],
    *,
    may_send: Callable[[], bool],
    stop: threading.Event,
) -> list[Outcome]:
    """Bring claimed notifications to outcomes, in one call but for those that may have been sent before."""
    send = partial(send_one, service, limiter, may_send=may_send, stop=stop)

    def together(fresh: Sequence[NotificationClaim]) -> list[Outcome]:
        if len(fresh) < 2:
            return [send(claim) for claim in fresh]
        try:
            with limiter.token(stop):
                messages = [claim.request for claim in fresh]
                sent = service.send_many(messages) if may_send() else [called_off(in_doubt=False)] * len(fresh)
        except Stopped:
            sent = [called_off(in_doubt=False)] * len(fresh)
        if sent is not None:
            return sent
        half = len(fresh) // 2 if len(fresh) > FEW else 1
        return [outcome for start in range(0, len(fresh), half) for outcome in together(fresh[start : start + half])]

    found = iter(together([claim for claim in claims if not claim.in_doubt]))
    doubtful = [claim for claim in claims if claim.in_doubt]
    with ThreadPoolExecutor(FEW, thread_name_prefix="look-up") as pool:  # a crash may leave a whole call's
        looked_up = pool.map(send, doubtful)
        return [next(looked_up if claim.in_doubt else found) for claim in claims]


def notify_batch(
    ledgers: Sequence[NotificationLedger],
    service: NotificationService,
    limiter: RateLimiter,
    *,
    concurrency: int,
    stop: threading.Event,
    more_to_come: Callable[[], bool] = lambda: False,
) -> None:
    """Drain a batch's notifications, one ledger after the other; returns when none is left to try now and none is to come.

    Sends many in one call where the service takes that, and else one by one, `concurrency` at a time.
    """
    limiter.prepare()
    for ledger in ledgers:
        ledger.begin()
    with contextlib.suppress(Stopped):
        with limiter.token(stop):
            takes_many = service.takes_many()
        for ledger in ledgers:
            drain(
                ledger,
                partial(send_many, service, limiter, may_send=ledger.may_send, stop=stop)
                if takes_many
                else one_by_one(partial(send_one, service, limiter, may_send=ledger.may_send, stop=stop)),
                concurrency=BULK_CALLS if takes_many else concurrency,
                bundle=BULK if takes_many else 1,
                stop=stop,
                more_to_come=more_to_come,
            )

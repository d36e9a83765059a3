"""Sending webhooks: what is due is claimed for a while, sent, and recorded; any number of processes may.

A process that dies leaves its claims to others, who send them again under the same id. Nothing of a batch waits for any of
this. What a server says beside its status is neither read nor kept.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.clients.webhook_settings import key_of
from orders_pipeline.infrastructure.background import beside
from orders_pipeline.infrastructure.database_errors import DatabaseError
from orders_pipeline.services.answers import NoAnswer, NotDelivered
from orders_pipeline.services.http_client import post_outside
from orders_pipeline.services.http_connections import ADDRESS_REFUSED
from orders_pipeline.system import errors
from orders_pipeline.system.composition import System
from orders_pipeline.system.settings import Settings, SettingsError, referenced_secret
from orders_pipeline.upkeep.webhooks.addresses import may_call
from orders_pipeline.upkeep.webhooks.message import body_of, headers_of

TIMEOUT_S = 15.0
LEASE_S = 60.0
RETRY_AFTER_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)  # from one try to the next
JITTER = 0.2  # of that, at most, is added
AT_ONCE, AT_ONCE_OF_CLIENT = 8, 2  # the second over all processes
POLL_S = 1.0
REST_S = 5.0  # after the database could not be asked
END_S = 2.0  # what is under way at the end is waited for so long; then it is sent again
GONE, REDIRECTED, NO_ADDRESS, NO_SECRET, REFUSED = "gone", "redirected", "no-address", "no-secret", "address-refused"
NOT_REACHED, NO_ANSWER = "not-reached", "no-answer"
log = logging.getLogger("orders_pipeline.webhooks")


@dataclass(frozen=True)
class Outcome:
    """What a try came to; None is well. `is_final` is not tried again."""

    code: str | None
    is_final: bool = False
    retry_after_s: float = 0.0


def signing_keys(profile: Profile) -> list[bytes]:
    """Return the keys that a client's messages are signed with; raise SettingsError or ValueError where one is none."""
    secrets = (profile.webhook_secret, profile.webhook_previous_secret)
    return [key_of(referenced_secret(secret)) for secret in secrets if secret is not None]


def deliver(row: Row[Any], profile: Profile, settings: Settings) -> Outcome:
    """Send a delivery once and return what it came to."""
    if profile.webhook_url is None:
        return Outcome(NO_ADDRESS, is_final=True)
    try:
        keys = signing_keys(profile)
    except (SettingsError, ValueError):
        return Outcome(NO_SECRET)
    body = body_of(row)
    headers = headers_of(str(row.delivery_id), int(time.time()), body, keys)
    return _posted(profile.webhook_url, body, headers, settings)


def _posted(url: str, body: bytes, headers: Mapping[str, str], settings: Settings) -> Outcome:
    allowed = may_call(url, private=settings.webhook_private_addresses)
    try:
        answer = post_outside(url, body, headers, timeout_s=TIMEOUT_S, may_call=allowed, ca_file=settings.ca_file)
    except NotDelivered as failure:
        return Outcome(REFUSED if failure.why == ADDRESS_REFUSED else NOT_REACHED)
    except NoAnswer:
        return Outcome(NO_ANSWER)
    if 200 <= answer.status < 300:
        return Outcome(None, is_final=True)
    if answer.status == 410:
        return Outcome(GONE, is_final=True)
    is_elsewhere = 300 <= answer.status < 400
    return Outcome(REDIRECTED if is_elsewhere else f"http-{answer.status}", retry_after_s=answer.retry_after_s or 0.0)


@dataclass
class Sender:
    """One process's share in sending."""

    system: System
    _done: queue.SimpleQueue[tuple[Row[Any], Profile, Outcome]] = field(default_factory=queue.SimpleQueue)
    _under_way: int = 0

    def run(self, over: threading.Event) -> None:
        """Send what is due until it is over."""
        while not over.is_set():
            try:
                self._begin()
                self._record(POLL_S, over)
            except Exception as error:  # noqa: BLE001 - whatever it is, a later look may go well
                errors.report(error, self.system.settings, listed=True)
                over.wait(REST_S)
        until = time.monotonic() + END_S
        with contextlib.suppress(DatabaseError):
            while self._under_way and time.monotonic() < until:
                self._record(until - time.monotonic())

    def run_once(self) -> None:
        """Send what is due now, and return when it is recorded."""
        while self._begin() or self._under_way:
            self._record(TIMEOUT_S)

    def _begin(self) -> int:
        """Claim what is due and begin to send it; return how many that were."""
        room = AT_ONCE - self._under_way
        if not room:
            return 0
        with self.system.database.begin() as transaction:
            claimed = transaction.rows("claim_webhooks", limit=room, of_client=AT_ONCE_OF_CLIENT, lease_s=LEASE_S)
        if claimed:
            for row in claimed:
                profile = self.system.clients.profile_of_batch(row.client_code)
                threading.Thread(target=self._send, args=(row, profile), name="webhook", daemon=True).start()
            self._under_way += len(claimed)
        return len(claimed)

    def _send(self, row: Row[Any], profile: Profile) -> None:
        try:
            outcome = deliver(row, profile, self.system.settings)
        except Exception as error:  # noqa: BLE001 - the boundary of a thread, whose words would show what it sends
            errors.report(error, self.system.settings, listed=True)
            outcome = Outcome(NO_ANSWER)
        self._done.put((row, profile, outcome))

    def _record(self, longest_s: float, over: threading.Event | None = None) -> None:
        """Record what came of tries, once some are done or the time is over."""
        if not self._under_way:
            if over is not None:
                over.wait(longest_s)
            return
        with contextlib.suppress(queue.Empty):
            row, profile, outcome = self._done.get(timeout=max(longest_s, 0.0))
            self._under_way -= 1
            self._record_one(row, profile, outcome)

    def _record_one(self, row: Row[Any], profile: Profile, outcome: Outcome) -> None:
        is_last = row.attempts > len(RETRY_AFTER_S)
        status = "delivered" if outcome.code is None else "failed" if outcome.is_final or is_last else "planned"
        with self.system.database.begin() as transaction:
            transaction.execute(
                "record_webhook",
                delivery_id=str(row.delivery_id),
                claim_no=row.claim_no,
                status=status,
                code=outcome.code,
                delay_s=_delay_s(row.attempts, outcome),
            )
            if outcome.code == GONE:
                client_code = row.client_code
                transaction.execute("switch_webhooks_off", client_code=client_code, webhook_url=profile.webhook_url)
                transaction.execute("give_webhooks_up", client_code=client_code, code=GONE)
        log.info("%s %s try %d: %s", row.delivery_id, row.type, row.attempts, outcome.code or "delivered")


def _delay_s(attempts: int, outcome: Outcome) -> float:
    after = RETRY_AFTER_S[min(attempts, len(RETRY_AFTER_S)) - 1]
    return max(after * random.uniform(1.0, 1.0 + JITTER), outcome.retry_after_s)  # noqa: S311 - spreads out, hides nothing


@contextlib.contextmanager
def sending(system: System) -> Iterator[None]:
    """Send webhooks beside whatever the block does."""
    with beside(Sender(system).run, "webhooks"):
        yield

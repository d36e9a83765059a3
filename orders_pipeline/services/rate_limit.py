"""The rate limit: never more calls in any second than a service takes, over all processes and hosts.

As many token rows in PostgreSQL as calls a second are allowed; each may be used again one second after the reply to its
last use. An eleventh call on ten tokens is the second on one of them, so it starts a second after another was answered.
A token is taken as soon as it was returned, and its second is waited out here: asking then costs no time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_errors import retry_while_unavailable

APART_S = 1.0  # from the reply to one call to the next call with the same token
POLL_S = 0.5  # a token that was returned is seen before it may be used
SHORTEST_WAIT_S = 0.001
LONGER_LEASE_S = 120.0  # no process lends for so much longer: the database's clock was put back
SPARE_S = 1.0  # what a token is lent for beyond the longest call


class Stopped(Exception):
    """The work was called off while it waited for a token."""


@dataclass(frozen=True)
class _Token:
    slot: int
    lent_until: datetime  # also says whose it is: a later taker has a later time


class RateLimiter:
    """Tokens for one service, `rate_per_s` of them, each lent for at most `lease_s` seconds to a worker that dies."""

    def __init__(self, database: Database, service: str, rate_per_s: int, lease_s: float) -> None:
        self._database = database
        self._service = service
        self._rate_per_s = rate_per_s
        self._lease_s = lease_s
        self._turn = threading.Lock()

    def prepare(self) -> None:
        """Have exactly as many tokens in the database as the rate allows."""
        with self._database.begin() as transaction:
            transaction.execute("add_rate_tokens", service=self._service, rate_per_s=self._rate_per_s)
            transaction.execute("drop_rate_tokens", service=self._service, rate_per_s=self._rate_per_s)

    @contextlib.contextmanager
    def token(self, stop: threading.Event) -> Iterator[None]:
        """Hold a token for one call, waiting until one is free; raise Stopped when `stop` is set before."""
        with self._turn:  # one thread asks for all: the others would only crowd the database
            token = self._take(stop)
        try:
            yield
        finally:
            self._return(token, APART_S)

    def _take(self, stop: threading.Event) -> _Token:
        while not stop.is_set():
            asked = time.monotonic()
            token, wait_s = retry_while_unavailable(self._try_to_take)
            if token is None:
                stop.wait(max(min(wait_s, POLL_S), SHORTEST_WAIT_S))
                continue
            if stop.wait(wait_s):
                self._return(token, wait_s)
            elif time.monotonic() - asked < wait_s + SPARE_S:
                return token
            # else we slept meanwhile: when our call is made, the token may be another's
        raise Stopped

    def _try_to_take(self) -> tuple[_Token | None, float]:
        """Take a token, and return the seconds until it may be used; or those until one may be there to take."""
        with self._database.begin() as transaction:
            row = transaction.row("take_rate_token", service=self._service, lease_s=self._lease_s)
            if row is None or row.wait_s is None:  # there are none at all
                return None, POLL_S
            wait_s = max(float(row.wait_s), 0.0)
            if row.slot is not None:
                return _Token(row.slot, row.lent_until), wait_s
            if wait_s > self._lease_s + LONGER_LEASE_S:
                transaction.execute("shorten_rate_tokens", service=self._service, lease_s=self._lease_s)
            return None, wait_s

    def _return(self, token: _Token, in_s: float) -> None:
        """Return a token that may be used again so many seconds from now, however long returning it takes."""
        usable = time.monotonic() + in_s

        def return_it() -> None:
            with self._database.begin() as transaction:
                transaction.execute(
                    "return_rate_token",
                    service=self._service,
                    slot=token.slot,
                    lent_until=token.lent_until,
                    in_s=max(usable - time.monotonic(), 0.0),
                )

        retry_while_unavailable(return_it)

"""The rate limit: never more calls in any second than a service takes, over all processes and hosts.

As many token rows in PostgreSQL as calls a second are allowed; each may be used again one second after the reply to its
last use. An eleventh call on ten tokens is the second on one of them, so it starts a second after another was answered.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from orders_pipeline.database import Database
from orders_pipeline.drain import persist

POLL_S = 0.5  # a token in use shows the time of its release only once it is given back
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
            persist(lambda: self._give_back(token))

    def _take(self, stop: threading.Event) -> _Token:
        while not stop.is_set():
            asked = time.monotonic()
            taken = persist(self._try_to_take)
            if isinstance(taken, _Token):
                if time.monotonic() - asked < SPARE_S:
                    return taken
                continue  # we slept meanwhile: when our call is made, the token may be another's
            stop.wait(max(min(taken, POLL_S), SHORTEST_WAIT_S))
        raise Stopped

    def _try_to_take(self) -> _Token | float:
        """Take a token that is free, or return the seconds until one may be."""
        with self._database.begin() as transaction:
            row = transaction.row("take_rate_token", service=self._service, lease_s=self._lease_s)
            if row is not None and row.slot is None and row.wait_s > self._lease_s + LONGER_LEASE_S:
                transaction.execute("shorten_rate_tokens", service=self._service, lease_s=self._lease_s)
        if row is None or row.slot is None:
            return POLL_S if row is None else float(row.wait_s or 0.0)
        return _Token(row.slot, row.lent_until)

    def _give_back(self, token: _Token) -> None:
        with self._database.begin() as transaction:
            transaction.execute("give_back_rate_token", service=self._service, slot=token.slot, lent_until=token.lent_until)

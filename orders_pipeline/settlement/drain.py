"""Draining a ledger: claim what is due, act on it in threads, write down what came of it, until nothing is left.

The one loop behind payments, notifications and refunds. Claims and results belong in `ledger.py`; any number of processes
may drain the same ledger at once, because claims are taken in the database.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Generic, TypeAlias

from orders_pipeline.batches import workers
from orders_pipeline.batches.shared_calls import SharedCalls
from orders_pipeline.infrastructure import interrupts
from orders_pipeline.infrastructure.database_errors import DatabaseError, retry_while_unavailable
from orders_pipeline.services.outcomes import Outcome, called_off
from orders_pipeline.settlement.ledger import ClaimOf, Ledger

IDLE_S = 0.05  # how long an empty queue is watched before the ledger is asked again
LINGER_S = 0.02  # results that come within this time are written in one transaction
GROUP = 100
PREFETCH = 4  # pieces of work claimed for each thread, so that none waits while claims and results are committed


Results: TypeAlias = list[tuple[ClaimOf, Outcome]]


def drain(
    ledger: Ledger[ClaimOf],
    act: Callable[[Sequence[ClaimOf]], Sequence[Outcome]],
    *,
    concurrency: int,
    stop: threading.Event,
    bundle: int = 1,
    bound: SharedCalls | None = None,
    more_to_come: Callable[[], bool] = lambda: False,
) -> None:
    """Work until nothing is left (and no more is to come) or `stop` is set; what is in flight then is still recorded.

    `act` gets up to `bundle` claims and returns an outcome for each; `bound` may keep less than `concurrency` under way. An
    outcome that says so sets `stop` itself. What was claimed ahead and not begun is released when the work stops or the
    ledger says so.
    """
    loop = _Loop(ledger, _Crew(act, concurrency), _Room(concurrency, bundle), stop, bound)
    try:
        loop.run(more_to_come)
    except BaseException:
        stop.set()
        raise
    finally:
        loop.finish()


@dataclass(frozen=True)
class _Room:
    """How much is claimed at once: some ahead for every thread, but bundles only when one can leave, as full as can be."""

    concurrency: int
    bundle: int

    def left(self, in_flight: int, limit: int) -> int:
        """Return how many claims to take while `in_flight` bundles are claimed and `limit` may be under way."""
        if self.bundle > 1:
            return (limit - in_flight) * self.bundle
        room = PREFETCH * limit - in_flight
        return room if room >= limit else 0


class _Crew(Generic[ClaimOf]):
    """Threads that act on bundles of claims, up to a limit that may change: a fraction of what futures cost."""

    def __init__(self, act: Callable[[Sequence[ClaimOf]], Sequence[Outcome]], size: int) -> None:
        self._act = act
        self._to_do: deque[Sequence[ClaimOf]] = deque()
        self._changed = threading.Condition()
        self._limit = size
        self._busy = 0
        self._is_over = False
        self.done: deque[Results[ClaimOf] | BaseException] = deque()
        self.some_done = threading.Event()
        # daemons: who interrupts twice does not wait for them, and the claims are found in doubt
        self._threads = [threading.Thread(target=self._work, name=f"drain_{at}", daemon=True) for at in range(size)]
        for thread in self._threads:
            thread.start()

    @property
    def held(self) -> int:
        """How many are acting, or could begin to at this moment."""
        with self._changed:
            return max(self._busy, self._limit)

    def keep_to(self, limit: int) -> None:
        """Let no more begin while so many are acting."""
        with self._changed:
            self._limit = limit
            self._changed.notify_all()

    def give(self, claims: Sequence[ClaimOf]) -> None:
        with self._changed:
            self._to_do.append(claims)
            self._changed.notify()

    def take_back(self) -> None:
        """Return the claims that nobody has begun."""
        with self._changed:
            while self._to_do:
                self.done.append([(claim, called_off(in_doubt=claim.in_doubt)) for claim in self._to_do.popleft()])

    def dismiss(self) -> None:
        """Return when everything that was begun is done and no thread is left."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _next(self) -> Sequence[ClaimOf] | None:
        with self._changed:
            while not (self._to_do and self._busy < self._limit):
                if self._is_over:
                    return None
                self._changed.wait()
            self._busy += 1
            return self._to_do.popleft()

    def _work(self) -> None:
        while (claims := self._next()) is not None:
            asked_at = workers.now()
            try:
                outcomes = [replace(outcome, asked_at=asked_at) for outcome in self._act(claims)]
                self.done.append(list(zip(claims, outcomes, strict=True)))
            except BaseException as error:  # noqa: BLE001 - raised again where the loop is
                self.done.append(error)
            with self._changed:
                self._busy -= 1
                self._changed.notify()
            self.some_done.set()


class _Loop(Generic[ClaimOf]):
    def __init__(
        self, ledger: Ledger[ClaimOf], crew: _Crew[ClaimOf], room: _Room, stop: threading.Event, bound: SharedCalls | None
    ) -> None:
        self._ledger = ledger
        self._crew = crew
        self._room = room
        self._stop = stop
        self._bound = bound
        self._limit = room.concurrency
        self._wants_more = True  # the last claim got all it asked for
        self._in_flight = 0
        if bound is not None:
            self._keep_to(0)

    def run(self, more_to_come: Callable[[], bool]) -> None:
        while True:
            expecting = more_to_come()  # asked before the ledger, so that the last arrivals are seen
            if interrupts.requested.is_set():  # whether or not the interruption reached us as an exception
                self._stop.set()
            self._claim()
            if self._stop.is_set():
                self._crew.take_back()
            if self._in_flight:
                self._record()
            elif self._stop.is_set() or not self._wait(expecting):
                return

    def finish(self) -> None:
        """Write down what is still in flight, whichever moment the loop was left at."""
        self._crew.take_back()
        self._crew.dismiss()
        self._write_down(self._crew.done)
        if self._bound is not None:
            with contextlib.suppress(DatabaseError):  # who is gone holds nothing either
                self._bound.leave()

    def _claim(self) -> None:
        if self._stop.is_set():
            return
        self._share(self._room.concurrency if self._wants_more else max(self._in_flight, 1))
        room = self._room.left(self._in_flight, self._limit)
        if not room:
            return
        claims = retry_while_unavailable(lambda: self._ledger.claim(room))
        self._wants_more = len(claims) == room
        for start in range(0, len(claims), self._room.bundle):
            self._crew.give(claims[start : start + self._room.bundle])
            self._in_flight += 1

    def _share(self, wanted: int) -> None:
        bound, held = self._bound, self._crew.held
        if bound is not None:
            self._keep_to(retry_while_unavailable(lambda: bound.allow(held, min(wanted, self._room.concurrency))))

    def _keep_to(self, limit: int) -> None:
        self._limit = limit
        self._crew.keep_to(limit)

    def _record(self) -> None:
        done = list(islice(self._crew.done, self._wait_for_some()))
        self._write_down(done)
        for _ in done:  # until here an interruption loses nothing: it is all written down at the end
            self._crew.done.popleft()
            self._in_flight -= 1
        for each in done:
            if isinstance(each, BaseException):
                raise each  # what went wrong in an act, once the others are written down

    def _write_down(self, done: Iterable[Results[ClaimOf] | BaseException]) -> None:
        results = [result for each in done if not isinstance(each, BaseException) for result in each]
        if any(outcome.stop for _, outcome in results):
            self._stop.set()
            self._crew.take_back()
        if results and not retry_while_unavailable(lambda: self._ledger.record(results)):
            self._crew.take_back()

    def _wait_for_some(self) -> int:
        """Return how many acts are done, once there are some that are worth a transaction."""
        crew = self._crew
        some = bool(crew.done) or crew.some_done.wait(IDLE_S)  # a full group may have left some
        crew.some_done.clear()
        if some and len(crew.done) < min(GROUP, self._in_flight):
            time.sleep(LINGER_S)
        return min(len(crew.done), GROUP)

    def _wait(self, expecting: bool) -> bool:
        """Sleep until something may be due; return False when nothing is left."""
        if not self._limit:  # others have all there is, and know that we wait
            self._stop.wait(IDLE_S)
            return True
        due_s = retry_while_unavailable(self._ledger.wait_s)
        if due_s is None and not expecting:
            return False
        if self._bound is not None:
            self._keep_to(0)
            self._share(0)
        self._stop.wait(min(max(due_s or 0.0, IDLE_S), 1.0))
        self._wants_more = True
        return True


def one_by_one(act: Callable[[ClaimOf], Outcome]) -> Callable[[Sequence[ClaimOf]], Sequence[Outcome]]:
    """Return the act on several claims that is `act` on each."""
    return lambda claims: [act(claim) for claim in claims]

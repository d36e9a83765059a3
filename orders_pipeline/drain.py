"""Draining a ledger: claim what is due, act on it in threads, write down what came of it, until nothing is left.

The one loop behind payments and notifications. What a claim, an act and a record are belongs to them; any number of
processes may drain the same ledger at once, because claims are taken in the database.
"""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeAlias, TypeVar

from orders_pipeline import interrupts
from orders_pipeline.database import DatabaseUnavailable
from orders_pipeline.outcomes import Outcome, called_off

IDLE_S = 0.05  # how long an empty queue is watched before the ledger is asked again
LINGER_S = 0.02  # results that come within this time are written in one transaction
GROUP = 100
PREFETCH = 4  # pieces of work claimed for each thread, so that none waits while claims and results are committed
DATABASE_PATIENCE_S = 60.0

Value = TypeVar("Value")


class Claimed(Protocol):
    """A piece of work that is this process's to do."""

    @property
    def in_doubt(self) -> bool:
        """Tell whether it may have been done before."""


Claim = TypeVar("Claim", bound=Claimed)
Results: TypeAlias = list[tuple[Claim, Outcome]]


class Ledger(Protocol[Claim]):
    """Where the work and its state are written down."""

    def claim(self, limit: int) -> Sequence[Claim]:
        """Take up to `limit` due pieces of work; the intent is committed when this returns."""

    def record(self, results: Sequence[tuple[Claim, Outcome]]) -> bool:
        """Commit what came of claims and return whether those taken ahead may be acted on, too."""

    def wait_s(self) -> float | None:
        """Return the seconds until something is due, or None when nothing is left to try."""


def drain(
    ledger: Ledger[Claim],
    act: Callable[[Sequence[Claim]], Sequence[Outcome]],
    *,
    concurrency: int,
    stop: threading.Event,
    bundle: int = 1,
    more_to_come: Callable[[], bool] = lambda: False,
) -> None:
    """Work until nothing is left (and no more is to come) or `stop` is set; what is in flight then is still recorded.

    `act` gets up to `bundle` claims and returns an outcome for each. An outcome that says so sets `stop` itself. What was
    claimed ahead and not begun is given back when the work stops or the ledger says so.
    """
    loop = _Loop(ledger, _Crew(act, concurrency), _Room(concurrency, bundle), stop)
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

    def left(self, in_flight: int) -> int:
        """Return how many claims to take while `in_flight` bundles are under way."""
        if self.bundle > 1:
            return (self.concurrency - in_flight) * self.bundle
        room = PREFETCH * self.concurrency - in_flight
        return room if room >= self.concurrency else 0


class _Crew(Generic[Claim]):
    """Threads that act on bundles of claims: a fraction of what futures cost, which is felt at hundreds a second."""

    def __init__(self, act: Callable[[Sequence[Claim]], Sequence[Outcome]], size: int) -> None:
        self._act = act
        self._to_do: queue.SimpleQueue[Sequence[Claim] | None] = queue.SimpleQueue()
        self.done: deque[Results[Claim] | BaseException] = deque()
        self.some_done = threading.Event()
        # daemons: who interrupts twice does not wait for them, and the claims are found in doubt
        self._threads = [threading.Thread(target=self._work, name=f"drain_{at}", daemon=True) for at in range(size)]
        for thread in self._threads:
            thread.start()

    def give(self, claims: Sequence[Claim]) -> None:
        self._to_do.put(claims)

    def take_back(self) -> None:
        """Give back what nobody has begun."""
        with contextlib.suppress(queue.Empty):
            while (claims := self._to_do.get_nowait()) is not None:
                self.done.append([(claim, called_off(in_doubt=claim.in_doubt)) for claim in claims])

    def dismiss(self) -> None:
        """Return when everything given is done and no thread is left."""
        for _ in self._threads:
            self._to_do.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (claims := self._to_do.get()) is not None:
            try:
                self.done.append(list(zip(claims, self._act(claims), strict=True)))
            except BaseException as error:  # noqa: BLE001 - raised again where the loop is
                self.done.append(error)
            self.some_done.set()


class _Loop(Generic[Claim]):
    def __init__(self, ledger: Ledger[Claim], crew: _Crew[Claim], room: _Room, stop: threading.Event) -> None:
        self._ledger = ledger
        self._crew = crew
        self._room = room
        self._stop = stop
        self._in_flight = 0

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

    def _claim(self) -> None:
        room = self._room.left(self._in_flight)
        if self._stop.is_set() or not room:
            return
        claims = persist(lambda: self._ledger.claim(room))
        for start in range(0, len(claims), self._room.bundle):
            self._crew.give(claims[start : start + self._room.bundle])
            self._in_flight += 1

    def _record(self) -> None:
        done = list(islice(self._crew.done, self._wait_for_some()))
        self._write_down(done)
        for _ in done:  # until here an interruption loses nothing: it is all written down at the end
            self._crew.done.popleft()
            self._in_flight -= 1
        for each in done:
            if isinstance(each, BaseException):
                raise each  # what went wrong in an act, once the others are written down

    def _write_down(self, done: Iterable[Results[Claim] | BaseException]) -> None:
        results = [result for each in done if not isinstance(each, BaseException) for result in each]
        if any(outcome.stop for _, outcome in results):
            self._stop.set()
            self._crew.take_back()
        if results and not persist(lambda: self._ledger.record(results)):
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
        due_s = persist(self._ledger.wait_s)
        if due_s is None and not expecting:
            return False
        self._stop.wait(min(max(due_s or 0.0, IDLE_S), 1.0))
        return True


def one_by_one(act: Callable[[Claim], Outcome]) -> Callable[[Sequence[Claim]], Sequence[Outcome]]:
    """Return the act on several claims that is `act` on each."""
    return lambda claims: [act(claim) for claim in claims]


def persist(work: Callable[[], Value]) -> Value:
    """Do a piece of database work, again while the database is away, for up to a minute."""
    deadline = time.monotonic() + DATABASE_PATIENCE_S
    pause_s = 0.1
    while True:
        try:
            return work()
        except DatabaseUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - spreads out, hides nothing
            pause_s = min(2 * pause_s, 5.0)

"""The loop that drains a ledger, over a ledger in memory: what is claimed is recorded, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from orders_pipeline.services.outcomes import Outcome, called_off
from orders_pipeline.settlement import drain as module
from orders_pipeline.settlement.drain import PREFETCH, drain, one_by_one

DONE = Outcome("succeeded")


class Number(int):
    """A claim."""

    in_doubt = False


class ScriptedLedger:
    """Claims are numbers; what is recorded as not sent or unknown is due again at once."""

    def __init__(self, count: int, *, wait: Sequence[float | None] = ()) -> None:
        self.due = list(range(count))
        self.claimed: list[int] = []
        self.claim_times: list[float] = []
        self.recorded: list[tuple[int, Outcome]] = []
        self.groups: list[int] = []
        self.limits: list[int] = []
        self.waits = list(wait)
        self.asked_to_wait = 0
        self.says: list[bool] = []  # whether more may be acted on, after each group; yes when it is used up

    def claim(self, limit: int) -> Sequence[Number]:
        self.limits.append(limit)
        taken, self.due = [Number(each) for each in self.due[:limit]], self.due[limit:]
        self.claimed += taken
        self.claim_times += [time.monotonic()] * len(taken)
        return taken

    def record(self, results: Sequence[tuple[int, Outcome]]) -> bool:
        self.groups.append(len(results))
        self.recorded += results
        self.due += [claim for claim, outcome in results if outcome.kind in ("not_sent", "unknown")]
        return self.says.pop(0) if self.says else True

    def wait_s(self) -> float | None:
        self.asked_to_wait += 1
        if self.waits:
            return self.waits.pop(0)
        return 0.0 if self.due else None

    @property
    def open(self) -> list[int]:
        return sorted(set(self.claimed) - {claim for claim, _ in self.recorded})


def run(ledger: ScriptedLedger, act: Callable[[int], Outcome], **options: object) -> threading.Event:
    stop = threading.Event()
    drain(ledger, one_by_one(act), **({"concurrency": 4, "stop": stop} | options))  # type: ignore[arg-type]
    return stop


def test_an_empty_ledger_is_drained_at_once():
    ledger = ScriptedLedger(0)
    run(ledger, lambda _: DONE)
    assert ledger.recorded == []


def test_everything_is_claimed_acted_on_and_recorded_once():
    ledger = ScriptedLedger(200)
    acted: list[int] = []
    run(ledger, lambda claim: (acted.append(claim), DONE)[1])
    assert sorted(acted) == sorted(claim for claim, _ in ledger.recorded) == list(range(200))


def test_what_was_not_done_is_tried_again_until_it_is():
    ledger = ScriptedLedger(3)
    tries: dict[int, int] = {}

    def act(claim: int) -> Outcome:
        tries[claim] = tries.get(claim, 0) + 1
        return DONE if tries[claim] == 3 else Outcome("unknown")

    run(ledger, act)
    assert tries == {0: 3, 1: 3, 2: 3}


def test_no_more_is_in_flight_than_the_concurrency_allows():
    lock, now, most = threading.Lock(), 0, 0

    def act(_: int) -> Outcome:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.002)
        with lock:
            now -= 1
        return DONE

    ledger = ScriptedLedger(100)
    run(ledger, act, concurrency=3)
    assert most == 3
    assert max(ledger.limits) <= 3 * PREFETCH


def test_results_are_recorded_in_groups_of_limited_size():
    ledger = ScriptedLedger(400)
    run(ledger, lambda _: DONE, concurrency=100)
    assert max(ledger.groups) <= module.GROUP
    assert len(ledger.groups) < 400


def test_a_stop_claims_no_more_and_records_what_is_in_flight():
    ledger, stop = ScriptedLedger(100), threading.Event()

    def act(_: int) -> Outcome:
        stop.set()
        time.sleep(0.01)
        return DONE

    run(ledger, act, stop=stop)
    assert 0 < len(ledger.claimed) < 100
    assert ledger.open == []


def test_what_was_claimed_ahead_is_given_back_at_a_stop():
    ledger, stop = ScriptedLedger(100), threading.Event()
    acted: list[int] = []

    def act(claim: int) -> Outcome:
        acted.append(claim)
        stop.set()
        time.sleep(0.05)
        return DONE

    run(ledger, act, stop=stop)
    assert len(acted) < len(ledger.claimed)
    assert ledger.open == []
    assert sorted(claim for claim, outcome in ledger.recorded if outcome == DONE) == sorted(acted)
    assert {outcome for _, outcome in ledger.recorded} == {DONE, called_off(in_doubt=False)}


def test_what_was_claimed_ahead_is_given_back_when_the_ledger_says_so_and_done_later():
    ledger = ScriptedLedger(16)
    ledger.says = [False]
    acted: list[int] = []

    def act(claim: int) -> Outcome:
        acted.append(claim)
        time.sleep(0.05)
        return DONE

    run(ledger, act, concurrency=4)
    assert sorted(acted) == list(range(16))
    assert called_off(in_doubt=False) in {outcome for _, outcome in ledger.recorded}


def test_an_outcome_that_says_stop_stops_the_drain_and_is_recorded():
    ledger = ScriptedLedger(100)
    stop = run(ledger, lambda claim: Outcome("not_sent", "unauthorized", stop=True))
    assert stop.is_set()
    assert len(ledger.claimed) <= 16
    assert ledger.open == []


def test_nothing_claimed_ahead_is_begun_while_an_outcome_that_says_stop_is_written_down():
    ledger = ScriptedLedger(4)
    begun: list[int] = []
    begun_by: list[int] = []
    record = ledger.record

    def slowly(results: Sequence[tuple[int, Outcome]]) -> bool:
        begun_by.append(len(begun))
        time.sleep(0.1)
        begun_by.append(len(begun))
        return record(results)

    def act(claim: int) -> Outcome:
        begun.append(claim)
        time.sleep(0.03)
        return Outcome("not_sent", "unauthorized", stop=True)

    ledger.record = slowly  # type: ignore[method-assign]
    run(ledger, act, concurrency=1)
    assert begun_by[::2] == begun_by[1::2]


def test_a_stop_set_before_the_start_claims_nothing():
    ledger, stop = ScriptedLedger(5), threading.Event()
    stop.set()
    run(ledger, lambda _: DONE, stop=stop)
    assert ledger.claimed == []


def test_waiting_does_not_outlast_a_stop():
    ledger, stop = ScriptedLedger(0, wait=[60.0] * 10), threading.Event()
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    run(ledger, lambda _: DONE, stop=stop)
    assert time.monotonic() - started < 5


def test_only_what_was_not_sent_holds_everybody_back():
    assert Outcome("unknown", retry_after_s=5.0).hold_s is None
    assert Outcome("not_sent", retry_after_s=5.0).hold_s == 5.0
    assert Outcome("not_sent").hold_s is None


def test_a_ledger_with_something_due_later_is_waited_for():
    ledger = ScriptedLedger(0, wait=[0.01, 0.01, None])
    run(ledger, lambda _: DONE)
    assert ledger.asked_to_wait == 3


def test_an_empty_ledger_is_watched_as_long_as_more_is_to_come():
    ledger = ScriptedLedger(0)
    looks = 0

    def more() -> bool:
        nonlocal looks
        looks += 1
        if looks == 3:
            ledger.due = [1, 2]
        return looks < 3

    run(ledger, lambda _: DONE, more_to_come=more)
    assert sorted(claim for claim, _ in ledger.recorded) == [1, 2]


def test_what_arrives_with_the_last_word_is_still_done():
    ledger = ScriptedLedger(0)

    def more() -> bool:
        ledger.due = ledger.due or ([7] if not ledger.claimed else [])
        return False

    run(ledger, lambda _: DONE, more_to_come=more)
    assert [claim for claim, _ in ledger.recorded] == [7]


def test_an_act_that_fails_leaves_the_others_recorded():
    ledger = ScriptedLedger(8)
    all_under_way = threading.Barrier(8)

    def act(claim: int) -> Outcome:
        all_under_way.wait(5)
        if claim == 3:
            raise KeyError("planted")
        time.sleep(0.01 * (claim % 3))
        return DONE

    with pytest.raises(KeyError):
        run(ledger, act, concurrency=8)
    assert ledger.open == [3]


def test_several_acts_that_fail_leave_the_others_recorded():
    ledger = ScriptedLedger(8)

    def act(claim: int) -> Outcome:
        time.sleep(0.03 * claim)
        if claim in (0, 2, 5):
            raise KeyError("planted")
        return DONE

    stop = threading.Event()
    with pytest.raises(KeyError):
        run(ledger, act, concurrency=4, stop=stop)
    assert stop.is_set()
    assert set(ledger.open) <= {0, 2, 5}


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.015, 0.03, 0.08])
def test_an_interruption_at_any_moment_ends_with_what_is_in_flight_recorded(after_s):
    ledger = ScriptedLedger(1000)
    acted: set[int] = set()

    def act(claim: int) -> Outcome:
        acted.add(claim)
        if claim == 10:
            time.sleep(after_s)
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.004 * (claim % 5))
        return DONE

    with pytest.raises(KeyboardInterrupt):
        run(ledger, act)
    assert 10 < len(acted) < 1000
    assert acted <= {claim for claim, _ in ledger.recorded}


def test_an_interruption_while_results_are_written_writes_them_again():
    ledger = ScriptedLedger(20)
    write = ledger.record
    failures = [KeyboardInterrupt()]

    def record(results: Sequence[tuple[int, Outcome]]) -> bool:
        if failures:
            raise failures.pop()
        return write(results)

    ledger.record = record  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run(ledger, lambda _: DONE)
    assert ledger.open == []


def test_bundles_are_as_full_as_the_ledger_allows_and_no_more_are_taken_than_can_leave():
    ledger = ScriptedLedger(25)
    bundles: list[list[int]] = []

    def act(claims: Sequence[int]) -> Sequence[Outcome]:
        bundles.append(list(claims))
        return [DONE] * len(claims)

    drain(ledger, act, concurrency=2, bundle=10, stop=threading.Event())
    assert sorted(len(bundle) for bundle in bundles) == [5, 10, 10]
    assert sorted(claim for claim, _ in ledger.recorded) == list(range(25))
    assert max(ledger.limits) == 20


def test_of_a_bundle_only_what_was_not_done_is_tried_again():
    ledger = ScriptedLedger(4)
    tried: list[int] = []

    def act(claims: Sequence[int]) -> Sequence[Outcome]:
        tried.extend(claims)
        return [Outcome("unknown") if claim == 2 and tried.count(2) == 1 else DONE for claim in claims]

    drain(ledger, act, concurrency=1, bundle=4, stop=threading.Event())
    assert sorted(tried) == [0, 1, 2, 2, 3]

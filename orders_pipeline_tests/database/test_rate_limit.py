"""The rate limit over threads and processes: never an eleventh call in any sliding second, taken where calls arrive."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from orders_pipeline.infrastructure.database import Database
from orders_pipeline.services.rate_limit import RateLimiter, Stopped
from orders_pipeline_tests.support.ledgers import Harness

RATE = 10
SECONDS = 3.0
CALL_MANY_TIMES = """
import sys, threading, time
from pydantic import SecretStr
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.services.rate_limit import RateLimiter
from orders_pipeline.services.rate_limit import Stopped
url, seconds, calls = sys.argv[1], float(sys.argv[2]), []
limiter = RateLimiter(Database(SecretStr(url)), "service", 10, lease_s=5.0)
stop = threading.Event()
def call():
    try:
        while True:
            with limiter.token(stop):
                calls.append(time.monotonic())  # one clock for all processes of a machine
    except Stopped:
        pass
threads = [threading.Thread(target=call) for _ in range(5)]
[thread.start() for thread in threads]
time.sleep(seconds)
stop.set()
[thread.join() for thread in threads]
print(*calls)
"""


def limiter_of(harness: Harness, rate: int = RATE, lease_s: float = 5.0, service: str = "service") -> RateLimiter:
    limiter = RateLimiter(harness.database, service, rate, lease_s)
    limiter.prepare()
    return limiter


def usable_now(harness: Harness) -> None:
    """Let the second pass that a new token waits."""
    harness.run("UPDATE rate_tokens SET free_at = now() - interval '1 hour'")


def most_in_a_second(moments: list[float]) -> int:
    moments = sorted(moments)
    return max(sum(start <= moment < start + 1.0 for moment in moments[at:]) for at, start in enumerate(moments))


def slots(harness: Harness) -> list[int]:
    return [row["slot"] for row in harness.run("SELECT slot FROM rate_tokens WHERE service = 'service' ORDER BY slot")]


def test_there_are_as_many_tokens_as_calls_a_second_are_allowed(harness):
    limiter_of(harness)
    limiter_of(harness)
    assert slots(harness) == list(range(1, 11))
    limiter_of(harness, rate=3)
    assert slots(harness) == [1, 2, 3]
    limiter_of(harness, rate=5)
    assert slots(harness) == [1, 2, 3, 4, 5]


def test_each_service_has_tokens_of_its_own(harness):
    limiter_of(harness, rate=2)
    limiter_of(harness, rate=3, service="other")
    assert slots(harness) == [1, 2]


def test_a_new_token_is_not_used_in_its_first_second(harness):
    limiter = limiter_of(harness, rate=1)
    started = time.monotonic()
    with limiter.token(threading.Event()):
        assert time.monotonic() - started > 0.9


def test_a_token_is_used_again_a_second_after_it_was_given_back_and_not_after_it_was_taken(harness):
    limiter, stop = limiter_of(harness, rate=1), threading.Event()
    usable_now(harness)
    with limiter.token(stop):
        time.sleep(0.3)
    given_back = time.monotonic()
    with limiter.token(stop):
        assert 0.99 <= time.monotonic() - given_back < 2.0


def test_a_token_is_given_back_by_a_call_that_fails(harness):
    limiter = limiter_of(harness, rate=1, lease_s=60.0)
    usable_now(harness)
    with pytest.raises(KeyError), limiter.token(threading.Event()):
        raise KeyError
    assert harness.value("SELECT free_at < clock_timestamp() + interval '1 second' FROM rate_tokens")


def test_c19_the_token_of_a_dead_taker_is_blocked_for_its_lease_and_then_free(harness):
    limiter = limiter_of(harness, rate=1, lease_s=1.5)
    usable_now(harness)
    with harness.database.begin() as transaction:  # takes it, and is never heard of again
        assert transaction.row("take_rate_token", service="service", lease_s=1.5).slot == 1
    taken = time.monotonic()
    with limiter.token(threading.Event()):
        assert 1.4 < time.monotonic() - taken < 3.0


def test_a_token_is_taken_before_it_may_be_used_and_a_lent_one_is_not(harness):
    limiter_of(harness, rate=2)
    usable_now(harness)
    harness.run("UPDATE rate_tokens SET free_at = clock_timestamp() + interval '0.5 seconds' WHERE slot = 1")
    harness.run("UPDATE rate_tokens SET free_at = clock_timestamp() + interval '0.1 seconds', lent = true WHERE slot = 2")
    with harness.database.begin() as transaction:
        row = transaction.row("take_rate_token", service="service", lease_s=5.0)
    assert row.slot == 1
    assert 0 < row.wait_s <= 0.5
    assert harness.value("SELECT free_at > clock_timestamp() + interval '5 seconds' FROM rate_tokens WHERE slot = 1")


def test_a_token_that_a_stop_leaves_unused_is_as_good_as_before(harness):
    limiter, stop = limiter_of(harness, rate=1, lease_s=60.0), threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Stopped), limiter.token(stop):
        raise AssertionError("it may not be used for a second")
    assert harness.value("SELECT NOT lent AND free_at < clock_timestamp() + interval '1 second' FROM rate_tokens")


def test_waiting_for_a_token_ends_with_a_stop(harness):
    limiter, stop = limiter_of(harness, rate=1, lease_s=60.0), threading.Event()
    usable_now(harness)
    with limiter.token(stop):
        threading.Timer(0.1, stop.set).start()
        started = time.monotonic()
        with pytest.raises(Stopped), limiter.token(stop):
            raise AssertionError("there is no second token")
        assert time.monotonic() - started < 2.0


def test_no_token_is_taken_after_a_stop(harness):
    limiter, stop = limiter_of(harness), threading.Event()
    usable_now(harness)
    stop.set()
    with pytest.raises(Stopped), limiter.token(stop):
        raise AssertionError("stopped")
    assert harness.value("SELECT bool_and(free_at < now() - interval '30 minutes') FROM rate_tokens")


def test_all_tokens_may_be_in_use_at_once(harness):
    limiter, stop = limiter_of(harness), threading.Event()
    usable_now(harness)
    together = threading.Barrier(RATE, timeout=5)

    def hold() -> None:
        with limiter.token(stop):
            together.wait()

    threads = [threading.Thread(target=hold) for _ in range(RATE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not together.broken


def test_n03_no_second_sees_an_eleventh_call_from_two_processes_with_threads(harness):
    limiter_of(harness)
    usable_now(harness)
    url = harness.database.url.get_secret_value()
    command = [sys.executable, "-c", CALL_MANY_TIMES, url, str(SECONDS)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    calls = [[float(moment) for moment in process.communicate(timeout=30)[0].split()] for process in processes]
    together = calls[0] + calls[1]
    assert most_in_a_second(together) <= RATE
    assert all(calls), "both processes had their turn"
    assert len(together) >= RATE * (SECONDS - 1)


def test_d13_after_the_clock_was_put_back_a_token_is_waited_for_no_longer_than_a_call_can_last(database: Database) -> None:
    limiter = RateLimiter(database, "service", 1, lease_s=0.5)
    limiter.prepare()
    with database.begin() as transaction:
        transaction.script("UPDATE rate_tokens SET free_at = clock_timestamp() + interval '1 hour'")
    began = time.monotonic()
    with limiter.token(threading.Event()):
        assert 0.5 <= time.monotonic() - began < 60

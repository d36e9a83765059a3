"""Ctrl-C is heard whatever else happens: swallowed, or kept by a handler that somebody else put in place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from orders_pipeline.infrastructure import interrupts

PATIENCE_S = 20.0


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interruption_that_a_library_swallows_is_found_at_the_next_look():
    with interrupts.listening() as heard:
        heard.check()
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        assert interrupts.requested.wait(PATIENCE_S)
        with pytest.raises(KeyboardInterrupt):
            heard.check()


def test_an_interruption_that_another_handler_keeps_to_itself_is_heard_and_acted_on():
    kept: list[int] = []
    acted = threading.Event()
    with interrupts.listening() as heard:
        heard.then(acted.set)
        signal.signal(signal.SIGINT, lambda number, _: kept.append(number))
        interrupt()
        assert acted.wait(PATIENCE_S)
    assert kept == [signal.SIGINT]


def test_what_is_to_be_done_is_done_at_once_where_somebody_has_interrupted_before():
    done: list[bool] = []
    with interrupts.listening() as heard:
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        assert interrupts.requested.wait(PATIENCE_S)
        heard.then(lambda: done.append(True))
    assert done == [True]


def test_an_interruption_of_what_must_not_be_broken_off_is_raised_at_its_end():
    done = []

    @interrupts.deferred()
    def important() -> None:
        interrupt()
        assert interrupts.requested.wait(PATIENCE_S)
        done.append(True)

    with interrupts.listening():
        with pytest.raises(KeyboardInterrupt):
            important()
        with interrupts.deferred():
            done.append(True)
    assert done == [True, True]


def test_handlers_are_as_they_were_afterwards_and_nothing_is_asked_for():
    before = [signal.getsignal(each) for each in interrupts.SIGNALS]
    with interrupts.listening():
        pass
    assert [signal.getsignal(each) for each in interrupts.SIGNALS] == before
    with interrupts.listening() as heard:
        heard.check()


CLINGS = """
import os, signal, sys, threading, time
from orders_pipeline.infrastructure import interrupts
if "ignored" in sys.argv:  # as a shell starts what it runs in the background
    signal.signal(signal.SIGINT, signal.SIG_IGN)
with interrupts.listening():
    said = "ready"
    while True:
        try:
            print(said, flush=True)
            time.sleep(60)
        except BaseException:
            said = "swallowed"
"""


@pytest.mark.parametrize("arguments", [[], ["ignored"]])
def test_a_second_interruption_ends_a_process_that_clings_to_its_work(arguments):
    process = subprocess.Popen([sys.executable, "-c", CLINGS, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "swallowed\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == interrupts.STOPPED

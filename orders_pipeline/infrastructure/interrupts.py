"""Ctrl-C and SIGTERM, heard whatever else happens.

Python raises KeyboardInterrupt in whatever runs at that moment: a library that is being imported may swallow it, and
Dagster puts handlers of its own in place and forgets what they noted. But the interpreter also writes every signal's number
into a pipe, whichever handler there is, and a thread reads it here. What is then to be done is said by commands.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_S = 1.0  # after a second signal
LAG_S = 0.5
STOPPED = 1  # exit status

requested = threading.Event()  # somebody wants this process to end: begin nothing new


def is_requested() -> bool:
    """Return whether somebody has interrupted; who was interrupted just now may be ahead of the thread that hears it."""
    return requested.wait(LAG_S)


class Interrupts:
    """What a command does about being interrupted: the first time it stops in order, the second time at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._act: Callable[[], None] | None = None

    def then(self, act: Callable[[], None]) -> None:
        """Do this, in a thread of its own, as soon as somebody interrupts; now, if somebody has."""
        with self._lock:
            self._act = act
            has_happened = requested.is_set()
        if has_happened:
            act()

    def check(self) -> None:
        """Raise KeyboardInterrupt if it was asked for and got lost."""
        if requested.is_set():
            raise KeyboardInterrupt

    def end(self) -> None:
        """Let no second interruption end the process: it is about to end by itself."""
        self._over.set()

    def listen(self, reader: int) -> None:
        """Read the numbers of signals until the pipe is closed."""
        while numbers := os.read(reader, 64):
            for _ in filter(SIGNALS.__contains__, numbers):
                self._hear()

    def _hear(self) -> None:
        if requested.is_set():
            if not self._over.wait(GRACE_S):
                os._exit(STOPPED)  # as safe as a power cut: intents are committed before anything is sent
            return
        with self._lock:
            requested.set()
            act = self._act
        if act is not None:
            threading.Thread(target=act, name="stop", daemon=True).start()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Let no signal break off the block, which is short: it is heard at once, and raised where the block ends."""
    if threading.current_thread() is not threading.main_thread():  # signals never reach others
        yield
        return
    came: list[int] = []
    before = {each: signal.signal(each, lambda number, _: came.append(number)) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    for number in came[:1]:
        handle = before[signal.Signals(number)]
        if callable(handle):
            handle(number, None)


@contextlib.contextmanager
def listening() -> Iterator[Interrupts]:
    """Hear every interruption while the block runs, also where a shell started us with SIGINT ignored."""
    interrupts = Interrupts()
    requested.clear()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = {each: signal.signal(each, signal.default_int_handler) for each in SIGNALS}
    former = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    listener = threading.Thread(target=interrupts.listen, args=(reader,), name="interrupts", daemon=True)
    listener.start()
    try:
        yield interrupts
    finally:
        interrupts.end()
        signal.set_wakeup_fd(former)
        for each, handler in before.items():
            signal.signal(each, handler)
        os.close(writer)
        listener.join()
        os.close(reader)

"""Lines of the log, written by a thread of their own: who does not read them holds up no answer.

What the lines say is decided in `boundary.py`.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Iterator

MOST_WAITING = 10_000  # lines; those beyond are lost
END_S = 1.0


class _Waiting(logging.Handler):
    def __init__(self, lines: queue.Queue[logging.LogRecord | None]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(record)


@contextlib.contextmanager
def written_beside() -> Iterator[None]:
    """Have the lines of this process written by a thread as long as the block runs."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    lines: queue.Queue[logging.LogRecord | None] = queue.Queue(MOST_WAITING)

    def write() -> None:
        while (record := lines.get()) is not None:
            for handler in handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)

    thread = threading.Thread(target=write, name="log", daemon=True)
    thread.start()
    root.handlers[:] = [_Waiting(lines)]
    try:
        yield
    finally:
        root.handlers[:] = handlers
        with contextlib.suppress(queue.Full):
            lines.put_nowait(None)
        thread.join(END_S)  # it may wait for who does not read

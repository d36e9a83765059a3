"""The log of Dagster's daemon: a line for what goes wrong, with our code, and once a minute while it goes on.

Dagster itself writes a trace, with statements and values, each time it tries again. What may be said of an error is decided
in `dagster_errors.py`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from dagster._utils.log import default_date_format_string, default_format_string

from orders_pipeline.orchestration.dagster_errors import words_of
from orders_pipeline.orchestration.dagster_records import no_words_of_others

AGAIN_S = 60.0
OUTAGES = ("E_DATABASE_UNAVAILABLE", "E_BROKER", "E_DAEMON_WAITS")  # of which all suffer: whom is not said
TAKEN_OVER = "still sending heartbeats"  # Dagster's fear of two daemons at once, of which our lock lets one work
RETRIES = "Retrying failed database"  # what is missed then is said by who needs it


def keep_single() -> None:
    """Have each line that this process logs from now on there once, and no words of the database's driver.

    Dagster warns without a logger of each connection that fails; the first such warning gives the root a handler, by which
    all other lines are there a second time.
    """
    logging.basicConfig(format=default_format_string(), datefmt=default_date_format_string(), level=logging.WARNING)
    logging.getLogger("dagster").propagate = False  # it has a handler of its own
    logging.getLogger().addFilter(lambda record: not str(record.msg).startswith(RETRIES))


def keep_short() -> None:
    """Have what this process logs from now on said in a line each, and what is said again and again once a minute."""
    keep_single()
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.INFO)
    logging.setLogRecordFactory(ShortRecords(logging.getLogRecordFactory()))


class ShortRecords:
    """Makes records of what is logged: no traces, and what was said in the last minute no louder than for debugging."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make
        self._said: dict[str, float] = {}  # and when

    def __call__(self, *args: object, **named: object) -> logging.LogRecord:
        """Make a record."""
        record = self._make(*args, **named)
        if record.levelno >= logging.WARNING and not str(record.msg).startswith(RETRIES):
            if record.exc_info or "\n" in record.getMessage():
                record.msg, record.args = _in_a_line(record), ()
                record.exc_info = record.exc_text = record.stack_info = None
            if TAKEN_OVER in str(record.msg) or self._is_repeated(record.getMessage()):
                record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
        return record

    def _is_repeated(self, says: str) -> bool:
        now = time.monotonic()
        self._said = {each: at for each, at in self._said.items() if now < at + AGAIN_S}
        return self._said.setdefault(says, now) != now


def _in_a_line(record: logging.LogRecord) -> str:
    """Return what may be said of the error that a record is about; where there is none, the first line of what it says."""
    error = (record.exc_info or sys.exc_info())[1]  # Dagster logs traces as texts, too, where it deals with the error
    if not isinstance(error, Exception):
        return _first_line(record)
    try:
        with no_words_of_others():
            raise error
    except Exception as ours:  # noqa: BLE001 - what the one became, or itself
        words = words_of(ours)
    if not record.exc_info or not record.name.startswith("dagster") or words.startswith(OUTAGES):
        return words
    return f"{_first_line(record)}: {words}"  # with the sensor or the run


def _first_line(record: logging.LogRecord) -> str:
    return record.getMessage().partition("\n")[0]

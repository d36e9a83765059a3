"""What Dagster shows of errors: our sentence and reference, and for what it masks by itself an id that `explain` knows.

What may be shown of an error is decided in `system/errors.py`.
"""

from __future__ import annotations

import contextlib
import logging
import re

import dagster as dg
from dagster._core.errors import DagsterUserCodeExecutionError, DagsterUserCodeProcessError
from dagster._utils.error import USER_FACING_ERROR_ID_ATTR_NAME

from orders_pipeline.system import errors
from orders_pipeline.system.composition import open_batches, open_cipher
from orders_pipeline.system.settings import read_settings

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SENTENCE = re.compile(r"\b[EF]_[A-Z_]+: .+")
ENDED = "E_STOPPED: the run was terminated, or the system ended"


class SafeFailure(dg.Failure, dg.DagsterError):
    """A failure whose words are ours: Dagster shows them everywhere, and our reference where it speaks of an error id."""

    def __init__(self, report: errors.ErrorReport) -> None:
        super().__init__(description=report.text)
        setattr(self, USER_FACING_ERROR_ID_ATTR_NAME, report.reference)


class ListMasked(logging.Handler):
    """Lists in errors.log what is behind an error that Dagster has masked, under the id that it shows instead."""

    def emit(self, record: logging.LogRecord) -> None:
        """List it; whatever goes wrong here is no reason to fail."""
        with contextlib.suppress(Exception):
            found = _ID.search(record.getMessage())
            if found is not None and record.exc_info and record.exc_info[1] is not None:
                errors.note(read_settings(), found[0], words_of(record.exc_info[1]))


def words_of(error: BaseException) -> str:
    """Return what may be shown of an error, and keep and list the rest of it."""
    while isinstance(error, DagsterUserCodeExecutionError) and error.user_exception is not None:
        error = error.user_exception
    if isinstance(error, dg.Failure) and error.description:
        return error.description
    if isinstance(error, dg.DagsterExecutionInterruptedError | KeyboardInterrupt):
        return ENDED
    if isinstance(error, DagsterUserCodeProcessError):  # made safe, or masked, where it happened
        said = str(error)
        if (sentence := _SENTENCE.search(said)) is not None:
            return sentence[0]
        if (masked := _ID.search(said)) is not None:
            return f"{errors.UNEXPECTED}: something unforeseen happened; reference {masked[0]}"
    settings = read_settings()
    with contextlib.suppress(Exception):
        return errors.report(error, settings, open_batches(settings, open_cipher(settings)), listed=True).text
    return errors.report(error, settings, listed=True).text

"""The log of Dagster's daemon: no traces, each line once, and what goes on once a minute."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dagster._core.errors import DagsterUserCodeProcessError
from dagster._utils.error import SerializableErrorInfo
from dagster_postgres.utils import DagsterPostgresException

from orders_pipeline.infrastructure.database_errors import DatabaseUnavailable
from orders_pipeline.orchestration import daemon_log
from orders_pipeline.orchestration.daemon_log import ShortRecords

AWAY = DatabaseUnavailable(None, "the server is away")
MASKED = "01234567-89ab-cdef-0123-456789abcdef"
DAEMON = """
import logging
from dagster._utils.log import configure_loggers
from orders_pipeline.orchestration.daemon_log import keep_short
keep_short()
configure_loggers()  # as Dagster's daemon does then
logging.warning("said by no logger")
logging.getLogger("dagster.daemon.SensorDaemon").warning("said by Dagster")
logging.getLogger("orders_pipeline.daemon").warning("said by us")
try:
    raise ValueError("geheim")
except ValueError as error:
    logging.getLogger("dagster.daemon").exception("caught")
"""


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """What was logged since it was last asked."""
    monkeypatch.setenv("ORDERS_HOME", str(tmp_path))
    text, make = io.StringIO(), logging.getLogRecordFactory()
    handler = logging.StreamHandler(text)
    handler.setLevel(logging.INFO)
    logger = logging.getLogger("dagster.daemon.Test")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logging.setLogRecordFactory(ShortRecords(make))

    def new() -> list[str]:
        lines = text.getvalue().splitlines()
        text.seek(0)
        text.truncate()
        return lines

    yield new
    logging.setLogRecordFactory(make)
    logger.removeHandler(handler)


def fail(error: Exception, *, as_text: bool = False, who: str = "landing") -> None:
    """Log an error as Dagster does: with it, or its trace as a text where it is dealt with."""
    logger = logging.getLogger("dagster.daemon.Test")
    try:
        raise error
    except Exception:
        if as_text:
            logger.error("Caught error:\n%s", "a trace\nwith 'values'")  # noqa: TRY400
        else:
            logger.exception(f"Caught error of {who}")


@pytest.mark.parametrize("as_text", [True, False])
def test_an_error_is_a_line_with_its_code_and_no_trace(said: Callable[[], list[str]], as_text: bool) -> None:
    by_whom = "" if as_text else "Caught error of landing: "
    fail(AWAY, as_text=as_text)
    assert said() == ["E_DATABASE_UNAVAILABLE: the server is away"]
    fail(DagsterPostgresException("INSERT 'geheim'"), as_text=as_text)
    assert said() == ["E_DATABASE_UNAVAILABLE: Dagster's records do not answer"]
    for says in ("E_STORAGE_DENIED: no right", f"E_UNEXPECTED: something unforeseen happened; reference {MASKED}"):
        told = says if says.endswith("right") else f"Search in logs for this error ID for more details: {MASKED}."
        of_code = SerializableErrorInfo(f"SafeFailure: {told}\n", ["a trace"], "SafeFailure")
        fail(DagsterUserCodeProcessError.from_error_info(of_code), as_text=as_text)
        assert said() == [by_whom + says]
    fail(ValueError("geheim"), as_text=as_text)
    (line,) = said()
    assert line.startswith(f"{by_whom}E_UNEXPECTED: something unforeseen happened; reference ")


def test_each_that_fails_is_named_unless_all_do(said: Callable[[], list[str]]) -> None:
    refused = SerializableErrorInfo("SafeFailure: E_STORAGE_DENIED: no right\n", ["a trace"], "SafeFailure")
    for error in (DagsterUserCodeProcessError.from_error_info(refused), AWAY):
        for who in ("landing", "audit", "landing"):
            fail(error, who=who)
    of_both = [f"Caught error of {who}: E_STORAGE_DENIED: no right" for who in ("landing", "audit")]
    assert said() == [*of_both, "E_DATABASE_UNAVAILABLE: the server is away"]


def test_what_goes_on_is_said_once_a_minute(said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        fail(AWAY)
        logging.getLogger("dagster.daemon.Test").info("all is well")
    assert said() == ["E_DATABASE_UNAVAILABLE: the server is away", *["all is well"] * 5]
    monkeypatch.setattr(daemon_log, "AGAIN_S", 0.0)
    fail(AWAY)
    assert said() == ["E_DATABASE_UNAVAILABLE: the server is away"]


def test_a_daemon_that_has_ended_is_no_error(said: Callable[[], list[str]]) -> None:
    logging.getLogger("dagster.daemon.Test").error("Another %s daemon is still sending heartbeats. You likely ...", "SENSOR")
    assert said() == []


def test_each_line_is_there_once(tmp_path: Path) -> None:
    environment = {"ORDERS_HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", DAEMON], capture_output=True, text=True, env=environment, check=True)
    lines = (ended.stdout + ended.stderr).splitlines()
    assert len(lines) == 4
    for says in ("said by no logger", "said by Dagster", "said by us", "E_UNEXPECTED"):
        assert sum(says in line for line in lines) == 1
    assert not [line for line in lines if "geheim" in line or "Traceback" in line]

"""The command line as a user meets it: commands as processes of their own, and waiting for what they do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
POLL_S = 0.02
MAIN = "from orders_pipeline.cli import main; main(prog_name='orders-pipeline')"
COMMAND = [sys.executable, "-c", MAIN]
ARMED = [sys.executable, "-c", f"from orders_pipeline_tests.faults.crash_points import arm; arm(); {MAIN}"]


def start(settings: Mapping[str, str], *arguments: str | Path) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, with no settings but these; those of crash points arm one."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ORDERS_", "DAGSTER_"))}
    return subprocess.Popen(
        [*(ARMED if "LOOK_UP_WAIT_S" in settings else COMMAND), *map(str, arguments)],
        env=clean | settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for a command's end and return what it said."""
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def call(settings: Mapping[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; no traceback may leave it."""
    ended = end(start(settings, *arguments))
    assert "Traceback" not in ended.stdout + ended.stderr
    return ended


def answer(settings: Mapping[str, str], *arguments: str | Path) -> dict[str, Any]:
    """Run a command with `--json` and return its answer."""
    found: dict[str, Any] = json.loads(call(settings, *arguments, "--json").stdout)
    return found


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Return when the condition holds; fail the test when it does not come to hold."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} seconds for {what}"
        time.sleep(POLL_S)

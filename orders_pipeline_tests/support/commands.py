"""The command line as a user meets it: commands as processes of their own, and waiting for what they do.

A command that is only waited for is a fork of a process that has the product imported: to import it takes longer than
most commands do. One that is talked to while it runs is started as a user starts it.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import click
import pytest
from click.testing import CliRunner, Result

PATIENCE_S = 60.0
POLL_S = 0.02
SELDOM_S = 0.1  # after a second: a condition may cost as much as what it waits for
PROGRAM = "orders-pipeline"
COMMAND = [sys.executable, "-P", "-c", f"from orders_pipeline.cli import main; main(prog_name={PROGRAM!r})"]
Cli = Callable[..., Result]
OURS = ("ORDERS_", "DAGSTER_")
IMPORTED = [
    "orders_pipeline.definitions",
    "orders_pipeline.cli",
    "orders_pipeline.orchestration.runs",
    "orders_pipeline_tests.faults.crash_points",
    *("pandera.backends.pandas.container", "pandera.strategies.pandas_strategies"),  # which the first validation imports
]

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([*IMPORTED, __name__])


def start(
    settings: Mapping[str, str],
    *arguments: str | Path,
    cwd: Path | None = None,
    output: IO[bytes] | None = None,
    within: Sequence[str] = (),
) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, with no settings but these; what it says is for us or in `output`.

    `within` is a command that becomes the other one.
    """
    return subprocess.Popen(
        [*within, *COMMAND, *map(str, arguments)],
        env=environment_of(settings),
        stdin=subprocess.DEVNULL,
        stdout=output or subprocess.PIPE,
        stderr=output or subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=cwd,
    )


def environment_of(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command that has no settings but these."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)} | dict(settings)


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
    ended = run(settings, *arguments)
    assert "Traceback" not in ended.stdout + ended.stderr
    return ended


def run(settings: Mapping[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with no settings but these; those of crash points arm one."""
    given = [str(each) for each in arguments]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = _processes.Process(target=_become, args=(environment_of(settings), given, str(out), str(err)))
        process.start()
        process.join(PATIENCE_S)
        if process.exitcode is None:
            process.kill()
            pytest.fail(f"{given} hangs:\n{err.read_text() if err.exists() else 'it has not begun'}")
        return subprocess.CompletedProcess(given, process.exitcode, out.read_text(), err.read_text())


def _become(environment: Mapping[str, str], arguments: list[str], *outputs: str) -> None:
    """Be the command, in a process just forked."""
    from orders_pipeline.cli import main
    from orders_pipeline_tests.faults import crash_points

    gc.freeze()  # nothing of what was imported goes
    os.setsid()
    for descriptor, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    set_by_import = {name: value for name, value in os.environ.items() if name.startswith("DAGSTER_")}
    os.environ.clear()
    os.environ.update(set_by_import | environment)
    faulthandler.dump_traceback_later(PATIENCE_S - 5, file=sys.__stderr__)  # where it hangs
    if crash_points.WAIT in environment:
        crash_points.arm()
    try:
        main(arguments, prog_name=PROGRAM)
    finally:
        atexit._run_exitfuncs()  # such a process ends without them


def invoke(*arguments: str | Path) -> Result:
    """Run a command in this process, with its environment; no traceback may leave it."""
    from orders_pipeline.cli import main

    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def error_of(result: Result) -> str:
    """Return the code that a command without --json complained with."""
    found = re.match(r"([A-Z]_[A-Z_]+): \S", result.stderr)
    assert found is not None, result.stderr
    said = re.sub(r"_FILE cannot be read: \S+: ", "", result.stderr)  # somebody's own setting
    assert "/" not in said.replace("file:///folder", "").replace("s3://bucket/prefix", "")
    return found[1]


def answer(settings: Mapping[str, str], *arguments: str | Path) -> dict[str, Any]:
    """Run a command with `--json` and return its answer."""
    found: dict[str, Any] = json.loads(call(settings, *arguments, "--json").stdout)
    return found


def every() -> list[str]:
    """Return every command that the parser knows, groups and their commands in words."""
    from orders_pipeline.cli import main

    def leaves(group: click.Group, *path: str) -> Iterator[str]:
        for name, command in group.commands.items():
            if isinstance(command, click.Group):
                yield from leaves(command, *path, name)
            else:
                yield " ".join((*path, name))

    return sorted(leaves(main))


def processes_of(marker: str) -> list[int]:
    """Return the processes whose command line or environment names `marker`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if marker.encode() in (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return [pid for pid in found if pid != os.getpid()]


def free_port() -> int:
    """Return a port that is free together with the one after it, where reports are served."""
    while True:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 0)) as first:
            port = int(first.getsockname()[1])
            with socket.create_server(("127.0.0.1", port + 1)):
                return port


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Return when the condition holds; fail the test when it does not come to hold."""
    began = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - began
        assert waited_s < timeout_s, f"waited {timeout_s:.0f} seconds for {what}"
        time.sleep(POLL_S if waited_s < 1 else SELDOM_S)

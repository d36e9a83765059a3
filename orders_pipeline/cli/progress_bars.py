"""Progress bars on a terminal: of a batch, and of anything that is counted."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from orders_pipeline.infrastructure.background import beside

REFRESH_S = 0.25
REST = 20  # times as long as a count took are waited until the next: a large batch is counted less often
FIRST_STEPS = {"received": "reading the file", "staged": "checking rows", "validated": "loading rows"}


@contextlib.contextmanager
def progress(console: Console, read: Callable[[], dict[str, Any]]) -> Iterator[None]:
    """Show bars for a batch while the block runs; `read` gives the batch's summary. Shows nothing without a terminal.

    The first bar says which step is under way before rows are loaded; the others come when it is known how much there is.
    """
    if not console.is_terminal:
        yield
        return
    bars = Progress(
        TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    tasks = {
        name: bars.add_task(name, total=None, visible=False) for name in ("rows loaded", "orders paid", "customers notified")
    }
    bars.update(tasks["rows loaded"], description=FIRST_STEPS["received"], visible=True)
    with bars, beside(functools.partial(_watch, bars, tasks, read), "progress"):
        yield


@contextlib.contextmanager
def counting(console: Console, what: str, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Give a function that takes how much is done and how much is to do; `shown` says whether a terminal gets a bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not shown or not console.is_terminal) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, to_do: bars.update(task, completed=done, total=to_do)


def _watch(bars: Progress, tasks: Mapping[str, TaskID], read: Callable[[], dict[str, Any]], done: threading.Event) -> None:
    took_s = 0.0
    while True:
        last = done.wait(max(REFRESH_S, REST * took_s))
        with contextlib.suppress(Exception):  # a bar is no reason to stop anything
            started = time.monotonic()
            _show(bars, tasks, read())
            took_s = time.monotonic() - started
        if last:
            return


def _show(bars: Progress, tasks: Mapping[str, TaskID], summary: Mapping[str, Any]) -> None:
    rows, orders, notified = summary["rows"], summary["orders"], summary["notifications"]
    loaded = sum(orders.values())
    bars.update(tasks["rows loaded"], description=FIRST_STEPS.get(str(summary["status"]), "rows loaded"))
    if summary["orders_to_load"] is not None:
        bars.update(tasks["rows loaded"], total=summary["orders_to_load"], completed=loaded)
    elif rows["total"] is not None:
        bars.update(tasks["rows loaded"], total=rows["total"])
    if loaded:
        final = orders["paid"] + orders["declined"] + orders["refunded"] + orders["cancelled"]
        bars.update(tasks["orders paid"], total=loaded, completed=final, visible=True)
    if notified["planned"]:
        done = notified["sent"] + notified["failed"]
        bars.update(tasks["customers notified"], total=notified["planned"], completed=done, visible=True)

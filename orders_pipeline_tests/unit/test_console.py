"""What a terminal is shown while a batch is worked on."""

import io
import time

import pytest
from rich.console import Console

from orders_pipeline import console

ORDERS = dict.fromkeys(("pending", "paying", "paid", "declined", "unknown", "refunded", "cancelled"), 0)


def summary(status, loaded=0, told=0):
    return {
        "status": status,
        "rows": {"total": 20, "accepted": 18 if loaded else None},
        "orders": ORDERS | {"paid": loaded},
        "notifications": {"planned": told, "sent": told, "failed": 0},
    }


@pytest.mark.parametrize(
    ("read", "shown"),
    [
        (summary("received"), ["reading the file"]),
        (summary("staged"), ["checking rows"]),
        (summary("validated"), ["loading rows"]),
        (summary("paying", loaded=18), ["rows loaded", "orders paid"]),
        (summary("paying", loaded=18, told=3), ["rows loaded", "orders paid", "customers told"]),
    ],
)
def test_the_bars_say_which_step_is_under_way_and_show_none_that_has_not_begun(read, shown):
    screen = io.StringIO()
    with console.progress(Console(file=screen, force_terminal=True, width=100), lambda: read):
        time.sleep(2 * console.REFRESH_S)
    last = screen.getvalue().rsplit("\x1b[2K", len(shown))[1:]
    words = ("reading the file", "checking rows", "loading rows", "rows loaded", "orders paid", "customers told")
    assert [word for word in words if any(word in line for line in last)] == shown


def test_nothing_is_shown_without_a_terminal():
    screen = io.StringIO()
    with console.progress(Console(file=screen), lambda: summary("received")):
        pass
    assert screen.getvalue() == ""

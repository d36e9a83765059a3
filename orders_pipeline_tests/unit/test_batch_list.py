"""What `status` shows of many batches: what stands still comes first, with why and what to do."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from orders_pipeline.cli.batch_list import show_batches, show_standing_still


def batch(status: str, ago: timedelta, **changes: Any) -> dict[str, Any]:
    received = (datetime.now(UTC) - ago).isoformat()  # cut to the second, it may be a second older
    return {
        "batch_id": "B",
        "client_code": "acme",
        "csv_source": "orders.csv",
        "status": status,
        "status_code": None,
        "details": {},
        "stopped": None,
        "cancelled": None,
        "at_work": False,
        "queued": False,
        "received_at": received,
        "rows": {"total": 1200, "rejected": 3},
        "amount_jpy": {"paid": 4500},
        "notifications": {"sent": 2, "planned": 3},
        "unknown_payments": [],
        "open_refunds": [],
        "next_try": None,
    } | changes


def shown(show: Any, *arguments: Any, **named: Any) -> str:
    screen = io.StringIO()
    show(Console(file=screen, width=200, highlight=False, soft_wrap=True), *arguments, **named)
    return screen.getvalue()


@pytest.mark.parametrize(
    ("ago", "age"),
    [
        (timedelta(seconds=40), "40 s"),
        (timedelta(minutes=90), "90 min"),
        (timedelta(hours=30), "30 h"),
        (timedelta(days=9), "9 d"),
    ],
)
def test_how_old_a_batch_is_is_said_in_a_unit_that_says_enough(ago, age):
    (line,) = shown(show_batches, [batch("completed", ago)], try_demo=False).splitlines()[1:]
    assert line.split() == ["B", *age.split(), "acme", "orders.csv", "completed", "1,200", "3", "4,500", "2/3"]


def test_nothing_is_said_of_standing_still_where_nothing_does():
    assert shown(show_standing_still, []) == ""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"status_code": "E_PAYMENT_UNAVAILABLE", "next_try": "2026-11-30T12:00:00+09:00"},
            "E_PAYMENT_UNAVAILABLE: The Payment service cannot be used at the moment. Next try 2026-11-30T12:00:00+09:00",
        ),
        (
            {"status_code": "E_PAYMENT_UNKNOWN", "unknown_payments": [{"needs_a_person": True}]},
            "E_PAYMENT_UNKNOWN: It is not known yet whether some payments were charged. "
            "A person has to decide: orders-pipeline status B",
        ),
        ({"status": "awaiting_approval"}, "orders-pipeline approve B, or orders-pipeline refuse B --why TEXT"),
        (
            {"status": "loaded"},
            "it is not being processed: resumes under `up` or `daemon`, or with: orders-pipeline resume B",
        ),
        (
            {"status": "stopped", "stopped": {"by": "me", "at": "2026-11-30T12:00:00+09:00"}},
            "by me; resume with: orders-pipeline resume B",
        ),
    ],
)
def test_why_a_batch_stands_still_and_what_to_do_is_said(changes, says):
    said = shown(show_standing_still, [batch(**{"status": "paused", "ago": timedelta(hours=2)} | changes)])
    head, batch_line, why, _ = said.split("\n", 3)
    assert (head, batch_line) == ("stands still", "  B  acme  orders.csv  2 h")
    assert why.endswith(says)

"""A landing that is a folder: files put into it, and what has become of them."""

from __future__ import annotations

import os
from pathlib import Path

from orders_pipeline.infrastructure.storage import Storage
from orders_pipeline.intake.landing.arrivals import register_arrivals
from orders_pipeline.intake.landing.left_alone import recorded
from orders_pipeline_tests.support.ledgers import Harness


def put(folder: Path, name: str, text: str = "x\n", at: int = 1_780_000_000) -> None:
    (folder / name).write_text(text)
    os.utime(folder / name, (at, at))


def batches(harness: Harness) -> list[tuple[str, str, str]]:
    rows = harness.run("SELECT client_code, csv_source, landing_key FROM batches ORDER BY landing_key, landing_version")
    return [(row["client_code"], row["csv_source"], row["landing_key"]) for row in rows]


def later(harness: Harness, seconds: float) -> None:
    """Let what waits have been seen for so much longer."""
    harness.run("UPDATE landing_files SET first_seen_at = first_seen_at - make_interval(secs => %s)", seconds)


def twice(harness: Harness, landing: Storage) -> list[str]:
    return [batch_id for _ in range(2) for batch_id in register_arrivals(harness.database, landing)]


def left_alone(harness: Harness, why: str = "left_alone") -> set[str]:
    with harness.database.begin() as transaction:
        return set(recorded(transaction)[why].names)

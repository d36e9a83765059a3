"""The demonstration: a synthetic client and file, and sandbox services that decline a little.

Everything else is the real thing, called by the command `demo`.
"""

from __future__ import annotations

import json
from pathlib import Path

from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.system.composition import System
from orders_pipeline.system.settings import Settings

CLIENT = "demo"
BAD = 0.02
SERIES = "DEMO"  # references that no sample has
SANDBOX = {"latency_ms": 30, "faults": "decline=0.02,seed=7"}


def demo_settings(settings: Settings) -> Settings:
    """Return the settings with a sandbox that behaves like a real service: it takes time and declines a few payments."""
    return settings if settings.sandbox_options else settings.model_copy(update={"sandbox_options": json.dumps(SANDBOX)})


def write_demo_file(system: System, rows: int) -> Path:
    """Write the next demonstration file, as Japanese Excel would, and return its path; each one has orders of its own."""
    with system.database.begin() as transaction:
        seed = int(transaction.scalar("count_batches_of_client", client_code=CLIENT)) + 1
    folder = system.settings.home / "demo"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"orders-{seed:03d}.csv"
    write_sample(path, rows=rows, seed=seed, bad=BAD, encoding="cp932", japanese_headers=True, series=SERIES)
    return path

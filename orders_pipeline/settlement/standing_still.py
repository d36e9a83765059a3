"""Batches that stand still: they have work left, no process does it, and none is about to begin.

Which of them a run would resume belongs in `sweep.py`; how they are shown, to who shows them.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from orders_pipeline.batches.run_processes import PROCESSING_LOCK_CLASS, offered_slots
from orders_pipeline.batches.workers import LEASE_S
from orders_pipeline.settlement import sweep
from orders_pipeline.system.composition import System


def standing_still_since(system: System, batch_ids: Collection[str]) -> dict[str, datetime]:
    """Return those of some batches that stand still, and since when nobody has worked on them.

    One that a person has stopped or must approve is not among them. One that waits for a service or its next try is, where
    nobody would begin its run.
    """
    with system.database.begin() as transaction:
        idle = transaction.rows(
            "idle_batches",
            batch_ids=list(batch_ids),
            lock_class=PROCESSING_LOCK_CLASS,
            lease_s=LEASE_S,
            patience_s=sweep.PATIENCE_S,
        )
    if not idle:
        return {}
    begin = are_runs_begun(system)
    waiting = system.turns.waiting()
    return {row.batch_id: row.since for row in idle if not begin or not (row.is_tried_again or row.batch_id in waiting)}


def waiting_for_turn(system: System, batch_ids: Collection[str]) -> set[str]:
    """Return those of some batches whose run waits for its turn, and will have it."""
    return set(batch_ids) & system.turns.waiting() if batch_ids and are_runs_begun(system) else set()


def are_runs_begun(system: System) -> bool:
    """Return whether there is who begins runs: Dagster's daemon, and with Celery a worker."""
    has_workers = system.settings.run_launcher != "celery" or bool(offered_slots(system.database))
    return has_workers and system.turns.is_daemon_alive()

"""Which of the runs that only wait make room for files that nobody has begun with."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.run_coordinator.queued_run_coordinator import RunQueueConfig

from orders_pipeline.batches.run_tags import LARGE, SIZE_TAG, WAITS_FOR_RATE
from orders_pipeline.orchestration.places import _leaving

IS_LARGE = {SIZE_TAG: LARGE}
LIMITS = RunQueueConfig(
    max_concurrent_runs=4,
    tag_concurrency_limits=[{"key": "team", "limit": 9}, {"key": SIZE_TAG, "value": LARGE, "limit": 3}],
    max_user_code_failure_retries=0,
)


def runs(kinds: str) -> list[dg.DagsterRun]:
    """Return runs: capitals are of large files, w and W only wait, b and B are busy."""
    return [
        dg.DagsterRun(
            "process_batch",
            run_id=f"{kind}{at}",
            status=dg.DagsterRunStatus.STARTED,
            tags=(IS_LARGE if kind.isupper() else {}) | (WAITS_FOR_RATE if kind in "wW" else {}),
        )
        for at, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize(
    ("under_way", "newcomers", "leaving"),
    [
        ("wbbb", "n", "w"),
        ("bbbb", "n", ""),  # all have something to do
        ("wbb", "n", ""),  # a place is free
        ("wwbb", "n", "w"),  # one for one
        ("wWbb", "n", "W"),  # the same one, whoever asks
        ("wwbb", "nn", "ww"),
        ("wBBB", "N", ""),  # of large files none waits
        ("WBB", "N", "W"),  # a place is free, but none for large files
        ("WBBb", "Nn", "W"),
        ("WwBB", "Nn", "Ww"),
        ("wWbb", "", ""),
    ],
)
def test_as_many_leave_as_newcomers_would_be_helped_by_it(under_way: str, newcomers: str, leaving: str) -> None:
    found = _leaving(LIMITS, runs(under_way), runs(newcomers))
    assert sorted(run[0] for run in found) == sorted(leaving)

"""An installation of each test's own: what its services received is what the test sent. And the figures of crash trials."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite(
    "orders_pipeline_tests.support.installation",
    "orders_pipeline_tests.support.commands",
    "orders_pipeline_tests.support.scenario",
)

from orders_pipeline_tests.support.installation import Installation, open_installation  # noqa: E402


@pytest.fixture
def installation(server_url: str, template: str, tmp_path: Path) -> Iterator[Installation]:
    with open_installation(server_url, template, tmp_path) as opened:
        yield opened


@pytest.fixture(scope="session")
def kept_trials(pytestconfig: pytest.Config) -> Path:
    """The file to which crash trials add a line each: their seeds and what they came to."""
    return Path(pytestconfig.cache.mkdir("crash-trials") / "trials.jsonl")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Add up all crash trials that were kept, in this run and before."""
    kept = config.cache.mkdir("crash-trials") / "trials.jsonl"
    trials = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    if trials:
        total = {key: sum(trial[key] for trial in trials) for key in trials[0] if isinstance(trials[0][key], int)}
        total.pop("seed")
        figures = ", ".join(f"{name} {number:,}" for name, number in total.items())
        equal = sum(trial["our_yen"] == trial["their_yen"] for trial in trials)
        doubtful = sum(trial["unknown"] > 0 for trial in trials)
        terminalreporter.write_line(f"crash trials kept in {kept}: {len(trials)}; {figures}")
        terminalreporter.write_line(f"yen equal in {equal} of them; in {doubtful} a payment waits for a person")

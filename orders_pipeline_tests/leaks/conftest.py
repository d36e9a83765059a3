"""Benches to leave things at: one without protections, one as the product runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("orders_pipeline_tests.support.installation", "orders_pipeline_tests.support.commands")

from orders_pipeline_tests.leaks.bench import Bench, open_bench  # noqa: E402
from orders_pipeline_tests.support.installation import Installation, open_installation  # noqa: E402


@pytest.fixture(scope="module")
def installation(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with open_installation(server_url, template, tmp_path_factory.mktemp("installation")) as opened:
        yield opened


@pytest.fixture(scope="module")
def bare(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench as Dagster comes, with nothing switched on."""
    with open_bench(installation.system, tmp_path_factory.mktemp("bench") / "bare", protected=False) as bench:
        yield bench


@pytest.fixture(scope="module")
def guarded(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench with the product's boundary and settings around everything."""
    with open_bench(installation.system, tmp_path_factory.mktemp("bench") / "guarded", protected=True) as bench:
        yield bench

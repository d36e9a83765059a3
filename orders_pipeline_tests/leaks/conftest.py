"""Benches to leave things at: one without protections, one as the product runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("orders_pipeline_tests.house", "orders_pipeline_tests.commands")

from orders_pipeline_tests.house import House, open_house  # noqa: E402
from orders_pipeline_tests.leaks.bench import Bench, open_bench  # noqa: E402


@pytest.fixture(scope="module")
def house(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(server_url, template, tmp_path_factory.mktemp("house")) as opened:
        yield opened


@pytest.fixture(scope="module")
def bare(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench as Dagster comes, with nothing switched on."""
    with open_bench(house.system, tmp_path_factory.mktemp("bench") / "bare", protected=False) as bench:
        yield bench


@pytest.fixture(scope="module")
def guarded(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench with the product's boundary and settings around everything."""
    with open_bench(house.system, tmp_path_factory.mktemp("bench") / "guarded", protected=True) as bench:
        yield bench

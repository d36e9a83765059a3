"""A house for all cases of one module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

for name in ("house", "inputs.outcome", "inputs.use_cases", "inputs.sheet"):
    pytest.register_assert_rewrite(f"orders_pipeline_tests.{name}")

from orders_pipeline_tests.house import House, open_house  # noqa: E402


@pytest.fixture(scope="module")
def house(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The module's house; every case is a client of its own in it."""
    with open_house(server_url, template, tmp_path_factory.mktemp("house")) as opened:
        yield opened

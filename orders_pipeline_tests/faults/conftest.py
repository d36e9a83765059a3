"""A house of each test's own: what its services received is what the test sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("orders_pipeline_tests.house", "orders_pipeline_tests.commands")

from orders_pipeline_tests.house import House, open_house  # noqa: E402


@pytest.fixture
def house(server_url: str, template: str, tmp_path: Path) -> Iterator[House]:
    with open_house(server_url, template, tmp_path) as opened:
        yield opened

"""An installation for all cases of one module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

for name in ("installation", "inputs.outcome", "inputs.use_cases", "inputs.sheet"):
    pytest.register_assert_rewrite(f"orders_pipeline_tests.{name}")

from orders_pipeline_tests.support.installation import Installation, open_installation  # noqa: E402


@pytest.fixture(scope="module")
def installation(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The module's installation; every case is a client of its own in it."""
    with open_installation(server_url, template, tmp_path_factory.mktemp("installation")) as opened:
        yield opened

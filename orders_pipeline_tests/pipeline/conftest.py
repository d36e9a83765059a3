"""An installation for the batches of one module; each test brings files or clients of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from orders_pipeline.sandbox.options import Options
from orders_pipeline.services import circuit_breaker
from orders_pipeline.settlement import ledger as ledgers

pytest.register_assert_rewrite("orders_pipeline_tests.support.installation", "orders_pipeline_tests.support.commands")

from orders_pipeline_tests.support.api import Client, client_of, served  # noqa: E402
from orders_pipeline_tests.support.commands import Cli, invoke  # noqa: E402
from orders_pipeline_tests.support.installation import Installation, open_installation  # noqa: E402


@pytest.fixture(scope="module")
def _module_installation(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with open_installation(server_url, template, tmp_path_factory.mktemp("installation")) as opened:
        yield opened


@pytest.fixture
def installation(_module_installation: Installation) -> Iterator[Installation]:
    """The module's installation, with services that do nothing wrong."""
    yield _module_installation
    _module_installation.sandbox.service.options = Options()


@pytest.fixture(scope="module")
def url(_module_installation: Installation) -> Iterator[str]:
    """Where the module's installation serves the batch API."""
    with served(_module_installation.system) as url:
        yield url


@pytest.fixture
def acme(installation: Installation, url: str) -> Client:
    """A program of a client that no other test has: its references and bytes are new."""
    return client_of(installation.system, url, f"acme-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def cli(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command in this process, with the installation's settings as its environment."""
    for name, value in installation.environment().items():
        monkeypatch.setenv(name, value)
    return invoke


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have failed calls tried again at once instead of after seconds."""
    monkeypatch.setattr(ledgers, "BACKOFF_S", 0.01)
    monkeypatch.setattr(ledgers, "MAX_BACKOFF_S", 0.05)
    for name, seconds in (("FIRST_PROBE_S", 0.02), ("PROBE_S", 0.05), ("PATIENCE_S", 0.5)):
        monkeypatch.setattr(circuit_breaker, name, seconds)

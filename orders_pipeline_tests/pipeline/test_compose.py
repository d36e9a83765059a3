"""The compose file's sandbox as a process, started as the file says: what was paid outlives it, and its image may write."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import requests
import yaml

import orders_pipeline
from orders_pipeline_tests.support.commands import free_port, start, wait_for
from orders_pipeline_tests.support.sandbox_calls import get, pay

DEPLOYMENT = Path(orders_pipeline.__file__).parent / "deployment"
COMPOSE = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text("utf-8"))
SANDBOX = COMPOSE["services"]["sandbox"]


def mounts() -> dict[str, str]:
    """Return where the sandbox sees which volume."""
    return {folder: name for name, folder in (each.split(":") for each in SANDBOX["volumes"])}


@contextlib.contextmanager
def as_composed(volumes: Path, port: int) -> Iterator[Any]:
    """Run the service with its command, on loopback, and its volumes as folders; it is killed at the end."""
    command = [{"0.0.0.0": "127.0.0.1", "8080": str(port)}.get(each, each) for each in SANDBOX["command"]]
    for folder, name in mounts().items():
        (volumes / name).mkdir(exist_ok=True)
        command = [each.replace(folder, str(volumes / name)) for each in command]
    server = SimpleNamespace(url=f"http://127.0.0.1:{port}")
    process = start(SANDBOX["environment"], *command)
    try:
        wait_for(lambda: _answers(server), "the sandbox")
        yield server
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def _answers(server: Any) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return get(server, "/health").ok
    return False


def test_what_was_paid_outlives_the_sandbox(tmp_path: Path) -> None:
    port = free_port()
    with as_composed(tmp_path, port) as server:
        first = pay(server, 1)
        assert first.status_code == 201
        known = get(server, "/sandbox/ledger").json()
    with as_composed(tmp_path, port) as server:
        assert get(server, "/sandbox/ledger").json() == known
        assert pay(server, 1).json()["id"] == first.json()["id"]
        assert get(server, "/sandbox/ledger").json()["payments"]["count"] == 1


def test_the_image_has_the_folders_that_volumes_are_mounted_at_and_its_user_owns_them() -> None:
    assert set(mounts().values()) <= set(COMPOSE["volumes"])
    image = (DEPLOYMENT / "Containerfile").read_text("utf-8").rpartition("FROM ")[2]
    (user, group) = re.findall(r"^USER (\d+):(\d+)$", image, re.MULTILINE)[0]
    made = re.findall(rf"^RUN install -d -o {user} -g {group} (\S+)$", image, re.MULTILINE)
    assert set(mounts()) == set(made)

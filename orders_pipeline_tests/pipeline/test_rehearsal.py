"""The rehearsal of production: its settings are those of production, and its commands work with them as they are there."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
import requests

from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline_tests.support.commands import answer, call, end, free_port, start


def read(settings: Path) -> Mapping[str, str]:
    lines = (line.split("=", 1) for line in settings.read_text().splitlines())
    return {name: value.strip("'") for name, value in lines}


@contextlib.contextmanager
def rehearsed(folder: Path, port: int) -> Iterator[dict[str, str]]:
    """Run the command for a block, and give the places that it says; it ends in good order."""
    process = start({}, "rehearse", folder, "--port", str(port), "--json")
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGINT)
        ended = end(process)
    assert ended.returncode == 0


def test_production_is_rehearsed_over_tls_and_goes_on_where_it_was(tmp_path: Path) -> None:
    folder, port = tmp_path / "rehearsal", free_port()
    write_sample(tmp_path / "orders.csv", rows=20, bad=0.0, seed=1)
    for rehearsal in range(2):
        with rehearsed(folder, port) as places:
            settings = read(Path(places["settings"]))
            assert settings["ORDERS_ENV"] == "production"
            assert Path(places["settings"]).stat().st_mode & 0o777 == 0o600
            assert call(settings, "db", "migrate").returncode == 0
            assert [each for each in answer(settings, "doctor")["checks"] if not each["ok"]] == []
            if rehearsal == 0:
                assert call(settings, "import", tmp_path / "orders.csv", "--client", "shop").returncode == 0
            assert [each["status"] for each in answer(settings, "status")["batches"]] == ["completed"]
            asked = requests.get(f"{places['services']}/v1/payments", verify=settings["ORDERS_CA_FILE"], timeout=10)
            assert asked.status_code == 401  # without the token
            shown, _, _ = settings["ORDERS_DATABASE_URL"].partition("?")
            with pytest.raises(psycopg.OperationalError):  # nobody comes in without TLS, nor without a certificate
                psycopg.connect(f"{shown}?sslmode=disable")
            refused = call({**settings, "ORDERS_DATABASE_URL": shown}, "status")
            assert (refused.returncode, "E_DATABASE_LOGIN: the server wants a certificate" in refused.stderr) == (2, True)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    port = free_port()
    with rehearsed(tmp_path / "rehearsal", port):
        other = call({}, "rehearse", tmp_path / "other", "--port", str(port))
        assert (other.returncode, "E_SANDBOX" in other.stderr) == (2, True)

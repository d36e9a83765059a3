"""What the documents show of the API: the examples are run as they stand, against a server of its own process."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import orders_pipeline
from orders_pipeline_tests.support import commands
from orders_pipeline_tests.support.api import csv_of
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation

PAGE = Path(orders_pipeline.__file__).parent / "docs" / "API.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_the_examples_send_a_file_and_find_its_batch(installation: Installation, tmp_path: Path) -> None:
    (block,) = re.findall(r"```\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    settings = installation.environment()
    token = commands.answer(settings, "tokens", "new", "--client", "shop", "--name", "nightly")["token"]
    process = commands.start(settings, "serve", "--port", str(commands.free_port()))
    try:
        assert process.stdout is not None
        api = process.stdout.readline().split()[0]
        (tmp_path / "orders.csv").write_bytes(csv_of(order_row()))
        ran = subprocess.run(
            ["bash", "-euc", block],
            cwd=tmp_path,
            env={"API": api, "TOKEN": token},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        (batch_id,) = set(re.findall(r'"batch_id":"([^"]+)"', ran.stdout))
        assert installation.rows("SELECT via, status FROM batches WHERE batch_id = %s", batch_id) == [("api", "received")]
    finally:
        process.send_signal(signal.SIGINT)
        ended = commands.end(process)
    assert ended.returncode == 0, ended.stderr
    assert token not in ended.stderr
    assert "POST /v1/batches 202" in ended.stderr

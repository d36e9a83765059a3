"""The first hour: its commands are run as they stand, one after another, and what they print is what the page shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from orders_pipeline_tests.support.generated_pages import DOCS

BLOCK = re.compile(r"```\n(.*?)```", re.DOTALL)
BATCH_ID = re.compile(r"^(\d{8}-[0-9a-f]{12})", re.MULTILINE)


@pytest.mark.skipif(shutil.which("sed") is None, reason="no sed here")
def test_the_commands_print_what_the_page_shows() -> None:
    with tempfile.TemporaryDirectory(prefix="orders-pipeline-first-hour-") as folder:
        follow(Path(folder))


def follow(folder: Path) -> None:
    before, _, _ = (DOCS / "FIRST_HOUR.md").read_text("utf-8").partition("## On the page")
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "ORDERS_HOME": str(folder / "home")}
    said, batch_id, statuses = "", "BATCH", []
    for block in BLOCK.findall(before):
        if block.startswith(("orders-pipeline", "sed")):
            ran = subprocess.run(
                ["bash", "-uc", block.replace("BATCH", batch_id)],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            said = ran.stdout + ran.stderr
            statuses.append(ran.returncode)
            batch_id = (BATCH_ID.findall(said) or [batch_id])[-1]
            continue
        for line in block.splitlines():
            assert line.strip() in said
    assert statuses == [3, 0, 3, 0, 4]

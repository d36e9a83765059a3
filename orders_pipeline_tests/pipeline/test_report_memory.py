"""How much memory reports take: about the file and what it was staged as, however many errors its rows have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orders_pipeline.intake import steps
from orders_pipeline_tests.support.installation import open_installation

ROWS = 300_000  # with three errors each: an errors.csv of 155 MiB from a file of 4
MOST_MIB = {"finish": 100, "errors": 32}  # beyond what the process takes before
MEASURE = """
import json, os, sys, threading
import pyarrow.parquet
from orders_pipeline.reports import finishing
from orders_pipeline.reports import errors_csv
from orders_pipeline.infrastructure.scratch import Packed
from orders_pipeline.system.settings import load_settings
from orders_pipeline.system.composition import join_endpoints
from orders_pipeline.system.composition import open_system

def taken():
    "Return the bytes of the process's own memory and of its files in memory."
    with open("/proc/self/status") as status:
        own = next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))
    files = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            status = os.stat(f"/proc/self/fd/{name}")
            if "memfd:" in os.readlink(f"/proc/self/fd/{name}"):
                files[status.st_ino] = status.st_blocks * 512
        except OSError:
            pass
    return own + sum(files.values())

def watch():
    global most
    while not done.wait(0.01):
        most = max(most, taken())

settings = load_settings()
with join_endpoints(settings) as endpoints, open_system(settings, endpoints) as system:
    with system.database.begin():
        pass
    before = most = taken()
    done = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    if sys.argv[2] == "finish":
        finishing.finish_batch(system.storage, system.database, sys.argv[1])
    else:
        packed = Packed()
        for each in errors_csv.errors_of(system.database, sys.argv[1]):
            packed.write(json.dumps(each).encode())
    done.set()
    watcher.join()
    print(most - before)
"""


@pytest.mark.soak
def test_reports_of_many_errors_take_little_memory(server_url: str, template: str, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    header = "client_order_ref,customer_code,customer_name,amount,payment_method\n"
    path.write_text(header + "".join(f"R{number},C,,x,y\n" for number in range(ROWS)))
    with open_installation(server_url, template, tmp_path, max_rows=ROWS, max_bytes=1 << 30) as installation:
        batch_id = installation.receive(path, "acme")
        for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
            step(installation.system, batch_id)
        environment = os.environ | installation.environment()
        for what, most in MOST_MIB.items():
            command = [sys.executable, "-c", MEASURE, batch_id, what]
            ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            assert json.loads(ended.stdout) >> 20 < most, what

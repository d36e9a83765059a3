"""The batch API, killed while it takes a file: a client that repeats its request has one batch, charged once."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest
import requests

from orders_pipeline.orchestration.sensors import landing_sensor
from orders_pipeline.settlement import sweep
from orders_pipeline_tests.faults.crash_points import SERVE_POINTS, VARIABLE, WAIT
from orders_pipeline_tests.support import commands
from orders_pipeline_tests.support.api import Client, client_of, csv_of, served
from orders_pipeline_tests.support.commands import free_port, wait_for
from orders_pipeline_tests.support.factories import order_rows
from orders_pipeline_tests.support.installation import Installation, check_finished

ORDERS, THREADS = 5, 20
KILLED = -9
BODY = csv_of(*[row | {"customer_code": f"C-{at}"} for at, row in enumerate(order_rows(ORDERS))])
LAUNCHED = b'{"data":{"launchRun":{"__typename":"LaunchRunSuccess"}}}'


@contextlib.contextmanager
def dagster_web_server() -> Iterator[tuple[str, list[str]]]:
    """Give the URL of what answers like Dagster's web server, and the batches of which it has started runs."""
    started: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            started.append(body["variables"]["partition"])
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(LAUNCHED)))
            self.end_headers()
            self.wfile.write(LAUNCHED)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", started
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def killed_api(installation: Installation, point: str, dagster_url: str) -> Iterator[Client]:
    """Serve the API until it dies at a point, which it must have done in the end."""
    port = free_port()
    settings = installation.environment(ORDERS_DAGSTER_URL=dagster_url, **{WAIT: "0.5", VARIABLE: f"{point}:1"})
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(commands.run, settings, "serve", "--port", str(port))
        url = f"http://127.0.0.1:{port}"

        def is_up() -> bool:
            with contextlib.suppress(requests.ConnectionError):
                return requests.get(f"{url}/healthz", timeout=5).ok
            return ended.done()

        wait_for(is_up, "the API to be served")
        yield client_of(installation.system, url, "acme")
        assert ended.result().returncode == KILLED


def asked_for(installation: Installation) -> list[str | None]:
    context = dg.build_sensor_context(instance=installation.instance, resources={"system": installation.system})
    result = landing_sensor(context)
    assert isinstance(result, dg.SensorResult)
    return [request.partition_key for request in result.run_requests or ()]


def repeated(client: Client) -> requests.Response:
    """Send the request as often as it is told to come again."""
    while (answer := client.post("batches", BODY, key="once")).status_code != 202:
        assert answer.json()["retryable"], answer.text
        time.sleep(0.2)
    return answer


@pytest.mark.parametrize("point", SERVE_POINTS)
def test_a_request_whose_answer_was_lost_is_repeated_and_there_is_one_batch_and_one_run(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    with dagster_web_server() as (dagster_url, started):
        with killed_api(installation, point, dagster_url) as client, pytest.raises(requests.ConnectionError):
            client.post("batches", BODY, key="once")
        is_registered = point != "A1"
        settings = installation.system.settings.model_copy(update={"dagster_url": dagster_url})
        with served(replace(installation.system, settings=settings)) as url:
            again = Client(url, client.token)
            known = [each["batch_id"] for each in again.get("batches", idempotency_key="once").json()["items"]]
            assert len(known) == is_registered
            with ThreadPoolExecutor(THREADS) as pool:
                answers = [*pool.map(repeated, [again] * THREADS)]
            assert {answer.status_code for answer in answers} == {202}
            (batch_id,) = {answer.json()["batch_id"] for answer in answers}
            assert known in ([], [batch_id])
            assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == (not is_registered)
            assert [each["batch_id"] for each in again.get("batches").json()["items"]] == [batch_id]
    monkeypatch.setattr(sweep, "API_PATIENCE_S", 0.0)
    runs = [*started, *asked_for(installation)]
    assert batch_id in runs
    for _ in (*runs, "and once more"):  # whoever starts it, and however often
        installation.work_off(batch_id)
    assert check_finished(installation, batch_id)["orders"]["paid"] == ORDERS

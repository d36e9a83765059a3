"""Events of a batch over HTTP: the batch whenever it has changed, its end, and a server that stops while many follow."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterator

import pytest
import requests

from orders_pipeline.clients import api_tokens
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.web import batches
from orders_pipeline_tests.support.api import Client, client_of, csv_of, served
from orders_pipeline_tests.support.factories import order_rows
from orders_pipeline_tests.support.installation import Installation

Event = dict[str, str]


def submitted(installation: Installation, url: str) -> tuple[Client, str]:
    client = client_of(installation.system, url, f"acme-{uuid.uuid4().hex[:8]}")
    return client, str(client.post("batches", csv_of(*order_rows(5))).json()["batch_id"])


def stream(client: Client, batch_id: str, known: str = "") -> requests.Response:
    headers = {"Authorization": f"Bearer {client.token}"} | ({"Last-Event-ID": known} if known else {})
    return requests.get(f"{client.url}/v1/batches/{batch_id}/events", headers=headers, stream=True, timeout=60)


def events(answer: requests.Response) -> Iterator[Event]:
    event: Event = {}
    for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
        name, _, value = line.partition(": ")
        if line:
            event[name] = value
        elif "event" in event:
            yield event
            event = {}


def test_a_batch_is_followed_to_its_end(installation: Installation) -> None:
    with served(installation.system) as url:
        client, batch_id = submitted(installation, url)
        with stream(client, batch_id) as answer:
            assert (answer.status_code, answer.headers["Content-Type"][:17]) == (200, "text/event-stream")
            assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-store", "no")
            followed = events(answer)
            first = next(followed)
            shown = client.get(f"batches/{batch_id}")
            assert (first["event"], first["id"], json.loads(first["data"])) == (
                "progress",
                shown.headers["ETag"],
                shown.json(),
            )
            installation.work_off(batch_id)
            *between, last, end = followed
        shown = client.get(f"batches/{batch_id}")
        assert end["event"] == "end"
        assert {each["event"] for each in (*between, last)} == {"progress"}
        assert (last["id"], json.loads(last["data"])) == (shown.headers["ETag"], shown.json())
        with stream(client, batch_id, known=last["id"]) as answer:
            assert [each["event"] for each in events(answer)] == ["end"]


def test_a_batch_is_counted_once_for_all_who_ask_within_a_moment_and_anew_when_it_has_changed(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []
    rows = Transaction.row
    monkeypatch.setattr(Transaction, "row", lambda self, name, **given: (counted.append(name), rows(self, name, **given))[1])
    monkeypatch.setattr(batches, "LOOK_S", 3600.0)
    with served(installation.system) as url:
        client, batch_id = submitted(installation, url)
        counted.clear()
        assert [client.get(f"batches/{batch_id}").json()["status"] for _ in range(3)] == ["received"] * 3
        assert counted.count("api_batch") == 1
        installation.work_off(batch_id)
        shown = client.get(f"batches/{batch_id}").json()
        assert (shown["status"], shown["orders"]["paid"]) == ("completed", 5)


def test_a_token_has_few_streams_and_a_server_that_stops_ends_them_at_once(installation: Installation) -> None:
    with contextlib.ExitStack() as stack:
        with served(installation.system) as url:
            client, batch_id = submitted(installation, url)
            answers = [stack.enter_context(stream(client, batch_id)) for _ in range(4)]
            followed = [events(answer) for answer in answers]
            assert [next(each)["event"] for each in followed] == ["progress"] * 4
            with stream(client, batch_id) as one_more:
                assert (one_more.status_code, one_more.json()["type"]) == (503, "/problems/busy")
            answers[0].close()
            began = time.monotonic()
            while stream(client, batch_id).status_code != 200:  # it is noticed that one has gone
                assert time.monotonic() - began < 10
                time.sleep(0.1)
            began = time.monotonic()
        assert time.monotonic() - began < 1
        assert [list(each) for each in followed[1:]] == [[], [], []]


def test_a_stream_ends_when_its_token_is_revoked(installation: Installation) -> None:
    with served(installation.system) as url:
        client, batch_id = submitted(installation, url)
        with stream(client, batch_id) as answer:
            followed = events(answer)
            assert next(followed)["event"] == "progress"
            api_tokens.revoke(installation.system.database, client.token[4:12])
            assert list(followed) == []
        assert stream(client, batch_id).status_code == 401

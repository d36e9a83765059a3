"""The batch API as a client's program meets it: a server on a loopback port, its description, and requests with a token."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import requests
import yaml

from orders_pipeline.clients import api_tokens
from orders_pipeline.system.composition import System
from orders_pipeline.web import server
from orders_pipeline_tests.support.order_file import record

TIMEOUT_S = 60
DOCUMENT: dict[str, Any] = yaml.safe_load((resources.files("orders_pipeline.web") / "openapi.yaml").read_text("utf-8"))


@dataclass(frozen=True)
class Client:
    """One client's program: it sends what it is told to, with its token."""

    url: str
    token: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def get(self, path: str, headers: Mapping[str, str] | None = None, **query: str) -> requests.Response:
        return requests.get(self._at(path), params=query, headers=self._headers(headers), timeout=TIMEOUT_S)

    def post(
        self,
        path: str,
        body: bytes,
        *,
        key: str | None = "",
        media_type: str = "text/csv",
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> requests.Response:
        """Send a body, with a key of its own unless one is given or it is None."""
        own = {"Content-Type": media_type} | ({} if key is None else {"Idempotency-Key": key or uuid.uuid4().hex})
        given = self._headers(own | dict(headers or {}))
        return requests.post(self._at(path), data=body, params=query, headers=given, timeout=TIMEOUT_S)

    def _at(self, path: str) -> str:
        return f"{self.url}{path if path.startswith('/') else f'/v1/{path}'}"

    def _headers(self, more: Mapping[str, str] | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} | dict(self.headers) | dict(more or {})


def client_of(system: System, url: str, client_code: str, scopes: Sequence[str] = api_tokens.USUAL_SCOPES) -> Client:
    """Return a program of a client, with a token of its own."""
    return Client(url, api_tokens.new(system.database, client_code, "a test", scopes, 30, "a test").text)


@dataclass(frozen=True)
class Operation:
    """What the API's description says may be asked; without a scope by anybody."""

    method: str
    path: str
    scope: str | None

    def at(self, **places: str) -> str:
        """Return its path with these in the places of its parameters."""
        return self.path.format(**places)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def operations() -> list[Operation]:
    """Return all operations that the API's description has."""
    found = []
    for path, item in DOCUMENT["paths"].items():
        for method in ("get", "post", "put", "delete"):
            if method in item:
                scope = re.search(r"Scope `([a-z:]+)`", item[method].get("description", ""))
                assert scope or item[method]["security"] == [], path
                found.append(Operation(method.upper(), path, scope and scope[1]))
    return found


def described(schema: str) -> set[str]:
    """Return the members that the API's description gives an object."""
    found = DOCUMENT["components"]["schemas"][schema]
    parts = [found, *(each for each in found.get("allOf", ()) if "$ref" not in each)]
    own = {name for part in parts for name in part.get("properties", ())}
    bases = [each["$ref"].rpartition("/")[2] for each in found.get("allOf", ()) if "$ref" in each]
    return own.union(*map(described, bases))


@contextlib.contextmanager
def served(system: System) -> Iterator[str]:
    with server.serving(system, 0) as url:
        yield url


def exchanged(
    url: str, *parts: bytes, method: str = "GET", pause_s: float = 0.0, ends: bool = False
) -> requests.Response | None:
    """Send bytes as they are, with pauses between them, maybe with an end; return the answer to them, if one comes."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port or 80), timeout=TIMEOUT_S) as connection:
        with contextlib.suppress(ConnectionError):  # it may be answered before all is sent
            for part in parts:
                connection.sendall(part)
                time.sleep(pause_s)
            if ends:
                connection.shutdown(socket.SHUT_WR)
        found, answer = http.client.HTTPResponse(connection, method=method), requests.Response()
        try:
            found.begin()
            answer._content = found.read()
        except (http.client.BadStatusLine, ConnectionError):
            return None
        answer.status_code, answer.url, answer.encoding = found.status, url, "utf-8"
        answer.headers.update(found.getheaders())
        return answer


def problem(answer: requests.Response, status: int, slug: str) -> dict[str, object]:
    """Assert that an answer is a problem, and return it without its request's id."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer.text
    body = answer.json()
    assert (body["type"], body["status"]) == (f"/problems/{slug}", status)
    assert body.pop("request_id") == answer.headers["Request-Id"]
    place, language = urlsplit(answer.url), {"Accept-Language": answer.headers["Content-Language"]}
    explained = requests.get(f"http://{place.netloc}{body['type']}", headers=language, timeout=TIMEOUT_S)
    assert explained.text.strip() == body["title"]
    return dict(body)


def csv_of(*rows: Mapping[str, str]) -> bytes:
    """Return orders as a CSV file."""
    return "".join(f"{record(cells)}\r\n" for cells in ([*rows[0]], *([*row.values()] for row in rows))).encode()


def json_of(*rows: Mapping[str, Any]) -> bytes:
    return json.dumps({"orders": [{name: value for name, value in row.items() if value != ""} for row in rows]}).encode()


def ndjson_of(*rows: Mapping[str, Any]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()

"""The batch API as a client's program meets it: a server on a loopback port, and requests with a token."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import requests
import yaml

from orders_pipeline.clients import api_tokens
from orders_pipeline.system.composition import System
from orders_pipeline.web import server
from orders_pipeline_tests.support.order_file import record

TIMEOUT_S = 60


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


def described(schema: str) -> set[str]:
    """Return the members that the API's description gives an object."""
    document = yaml.safe_load((resources.files("orders_pipeline.web") / "openapi.yaml").read_text("utf-8"))
    found = document["components"]["schemas"][schema]
    parts = [found, *(each for each in found.get("allOf", ()) if "$ref" not in each)]
    own = {name for part in parts for name in part.get("properties", ())}
    bases = [each["$ref"].rpartition("/")[2] for each in found.get("allOf", ()) if "$ref" in each]
    return own.union(*map(described, bases))


@contextlib.contextmanager
def served(system: System) -> Iterator[str]:
    with server.serving(system, 0) as url:
        yield url


def csv_of(*rows: Mapping[str, str]) -> bytes:
    """Return orders as a CSV file."""
    return "".join(f"{record(cells)}\r\n" for cells in ([*rows[0]], *([*row.values()] for row in rows))).encode()


def json_of(*rows: Mapping[str, Any]) -> bytes:
    return json.dumps({"orders": [{name: value for name, value in row.items() if value != ""} for row in rows]}).encode()


def ndjson_of(*rows: Mapping[str, Any]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()

"""HTTP to the services, and to clients' servers: one bounded request and its answer as a value.

There are no retries here: what to do after a failure depends on what was asked, and belongs to who asked. How connections
are made belongs in `http_connections.py`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import requests
from pydantic import SecretStr
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import Retry

from orders_pipeline.services.answers import Answer, NoAnswer, NotDelivered, TooLong
from orders_pipeline.services.http_connections import (
    MAX_CONNECT_S,
    NO_CONNECTION_IN_TIME,
    OutsideAdapter,
    ServiceAdapter,
    deadlines,
    failed_to_connect,
    what_was_in_the_way,
)

MAX_BODY_BYTES = 64 * 1024
MAX_LIST_BYTES = 1024 * 1024  # a payment may name thousands of orders
MAX_RETRY_AFTER_S = 60.0
HEADERS = {"Accept": "application/json, application/problem+json", "User-Agent": "orders-pipeline"}

Method = Literal["GET", "POST"]


class ServiceClient:
    """Calls one service: JSON in, JSON out, `timeout_s` seconds for a whole exchange.

    `ca_file` has the certificates of the authorities to believe, instead of the well-known ones.
    """

    def __init__(self, base_url: str, token: SecretStr | None, timeout_s: float, ca_file: Path | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._ca_file = ca_file
        self._token = token
        self._local = threading.local()  # an adapter a thread, so that each thread keeps a connection

    def call(
        self,
        method: Method,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        most_bytes: int = MAX_BODY_BYTES,
    ) -> Answer:
        """Send one request and return its answer of at most so many bytes; raise NotDelivered, NoAnswer or TooLong."""
        deadline = time.monotonic() + self._timeout_s
        with _failures():
            request = self._prepared(method, path, body, query, idempotency_key)
            with _sent(self._adapter(), request, deadline, self._ca_file) as response:
                return _in_time(_read(response, most_bytes), deadline)

    @property
    def server(self) -> str:
        """Return which server is called, as the setting has it."""
        parts = urlsplit(self._base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def hang_up(self) -> None:
        """Close this thread's connection: what comes over it next may be the answer to another request."""
        self._adapter().close()

    def _prepared(
        self,
        method: Method,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, str] | None,
        idempotency_key: str | None,
    ) -> requests.PreparedRequest:
        request = requests.PreparedRequest()
        request.prepare_method(method)
        request.url = _url(self._base_url + path, tuple(query.items()) if query else ())
        request.headers = dict(HEADERS)  # type: ignore[assignment]
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        if body is not None:
            request.body = json.dumps(body, ensure_ascii=False).encode()
            request.headers["Content-Type"] = "application/json"
            request.headers["Content-Length"] = str(len(request.body))
        if idempotency_key is not None:
            request.headers["Idempotency-Key"] = idempotency_key
        return request

    def _adapter(self) -> ServiceAdapter:
        """Return this thread's adapter.

        Without a session there is nothing that the environment could add (proxies, .netrc, certificates), no redirect
        and no cookie; and a call takes a third less time.
        """
        adapter: ServiceAdapter | None = getattr(self._local, "adapter", None)
        if adapter is None:
            adapter = self._local.adapter = ServiceAdapter(max_retries=0, pool_maxsize=1)
        return adapter


def post_outside(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout_s: float,
    may_call: Callable[[str], bool],
    ca_file: Path | None = None,
    most_bytes: int = 0,
) -> Answer:
    """Send bytes to a server that is none of the services; return its status, and its JSON object of `most_bytes`, if any.

    Nothing is sent unless `may_call` says yes to every address that the server's name leads to now; one of these is called.
    Raises NotDelivered or NoAnswer.
    """
    deadline = time.monotonic() + timeout_s
    with _failures(), contextlib.closing(OutsideAdapter(may_call)) as adapter:
        request = requests.PreparedRequest()
        request.prepare_method("POST")
        request.prepare_url(url, [])
        request.headers = {"User-Agent": HEADERS["User-Agent"], "Content-Length": str(len(body)), **headers}  # type: ignore[assignment]
        request.body = body
        with _sent(adapter, request, deadline, ca_file) as response:
            if most_bytes:
                return _in_time(_read(response, most_bytes), deadline)
            found = Answer(response.status_code, {}, parse_retry_after(response.headers.get("Retry-After")))
            return _in_time(found, deadline)


@contextlib.contextmanager
def _sent(
    adapter: ServiceAdapter, request: requests.PreparedRequest, deadline: float, ca_file: Path | None
) -> Iterator[requests.Response]:
    """Send a request and lend its response, whose body is not read yet."""
    with (
        deadlines.exchange(deadline),
        adapter.send(
            request,
            stream=True,
            timeout=(min(MAX_CONNECT_S, max(deadline - time.monotonic(), 0.001)), None),  # what comes later has the deadline
            verify=True if ca_file is None else str(ca_file),
        ) as response,
    ):
        yield response


def _in_time(answer: Answer, deadline: float) -> Answer:
    """Return an answer that came in time; cut off by us, what came of it may look like a whole one."""
    if time.monotonic() > deadline:
        raise NoAnswer(NoAnswer.code)
    return answer


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Raise NotDelivered where nothing was sent, and NoAnswer where something was, whatever went wrong."""
    try:
        yield
    except requests.exceptions.ConnectTimeout:
        raise NotDelivered(NotDelivered.code, why=NO_CONNECTION_IN_TIME) from None
    except requests.exceptions.ConnectionError as error:
        if failed_to_connect(error):
            raise NotDelivered(NotDelivered.code, why=what_was_in_the_way(error)) from None
        raise NoAnswer(NoAnswer.code) from None
    except (requests.exceptions.RequestException, HTTPError, OSError, ValueError):
        raise NoAnswer(NoAnswer.code) from None


@functools.lru_cache(maxsize=64)
def _url(base: str, query: tuple[tuple[str, str], ...]) -> str | None:
    request = requests.PreparedRequest()
    request.prepare_url(base, list(query))
    return request.url


def _read(response: requests.Response, most_bytes: int) -> Answer:
    body = response.raw.read(most_bytes + 1, decode_content=True)
    if len(body) > most_bytes:
        raise TooLong(TooLong.code)
    retry_after_s = parse_retry_after(response.headers.get("Retry-After"))
    try:
        decoded = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        decoded = {}
    return Answer(response.status_code, decoded if isinstance(decoded, dict) else {}, retry_after_s)


def parse_retry_after(value: str | None) -> float | None:
    """Return a Retry-After header (seconds or an HTTP date) as seconds between 0 and a minute; None for anything else."""
    if value is None:
        return None
    try:
        return float(min(Retry().parse_retry_after(value.strip()), MAX_RETRY_AFTER_S))
    except (InvalidHeader, TypeError, ValueError, OverflowError):
        return None

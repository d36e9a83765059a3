"""HTTP to the services: one bounded request and its answer as a value. The only module that knows requests.

No redirects, no proxies or credentials from the environment, a deadline over the whole exchange, a small body or none;
https is TLS 1.3 or later, to a server that proves its name.
There are no retries here: what to do after a failure depends on what was asked, and belongs to who asked.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import requests
from pydantic import SecretStr
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError
from urllib3.poolmanager import PoolManager
from urllib3.response import HTTPResponse

MAX_BODY_BYTES = 64 * 1024
MAX_LIST_BYTES = 1024 * 1024  # a payment may name thousands of orders
MAX_CONNECT_S = 5.0
MAX_RETRY_AFTER_S = 60.0
WATCH_EVERY_S = 0.05
OF_THE_MOMENT = frozenset({408, 425})  # what a 4xx says of the exchange, not of the request
OF_THE_CALLER = frozenset({401, 403, 407})
IN_THE_WAY: dict[type[BaseException], str] = {
    ssl.SSLCertVerificationError: "its certificate is not one for this host that we trust",
    ssl.SSLError: "no TLS 1.3",
    ConnectionRefusedError: "connection refused",
    socket.gaierror: "the name is not known",
    TimeoutError: "no answer to the attempt to connect",
    ConnectionError: "the connection was closed",
}
HEADERS = {"Accept": "application/json, application/problem+json", "User-Agent": "orders-pipeline"}

Method = Literal["GET", "POST"]


class NotDelivered(Exception):
    """The request never reached the service: nothing happened there. `why` says in words of ours what was in the way."""

    code = "E_SERVICE_UNREACHABLE"

    def __init__(self, *told: str, why: str = "no connection") -> None:
        super().__init__(*told)
        self.why = why


class NoAnswer(Exception):
    """The request may have reached the service, but no usable answer came back in time."""

    code = "E_SERVICE_NO_ANSWER"
    why = "no usable answer"


class TooLong(NoAnswer):
    """The answer is longer than anything that is read: it comes again if the same is asked again."""

    code = "E_SERVICE_ANSWER_TOO_LONG"


@dataclass(frozen=True)
class Answer:
    """A service's answer: its status, its JSON object (empty when it has none) and the pause it asks for."""

    status: int
    body: Mapping[str, Any] = field(default_factory=dict)
    retry_after_s: float | None = None

    @property
    def is_refusal(self) -> bool:
        """Tell whether the service has read this request and does not take it."""
        return 400 <= self.status < 500 and self.status not in OF_THE_MOMENT

    @property
    def refuses_the_caller(self) -> bool:
        """Tell whether a setting is at fault that every further request would meet too."""
        return self.status in OF_THE_CALLER

    @property
    def problem(self) -> str:
        """Return the last part of a problem's type, the contract's word for it, or the HTTP status without one."""
        kind = self.body.get("type")
        word = kind.rstrip("/").rpartition("/")[2] if isinstance(kind, str) else None
        return safe_code(word) or f"http-{self.status}"

    @property
    def code(self) -> str | None:
        """Return a problem's code, if it looks like one."""
        return safe_code(self.body.get("code"))


@dataclass
class _Exchange:
    deadline: float
    connection: HTTPConnection | None = None
    sock: socket.socket | None = None  # a connection lets go of it when the answer says that it ends there


class _Watch:
    """Closes the sockets of exchanges that outlive their deadline, which per-read time-outs cannot do."""

    def __init__(self) -> None:
        self._exchanges: dict[int, _Exchange] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def exchange(self, deadline: float) -> Iterator[None]:
        me = threading.get_ident()
        with self._lock:
            self._exchanges[me] = _Exchange(deadline)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="http-deadlines", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._exchanges[me]

    def left(self) -> float:
        """Return the seconds that this thread's exchange may still take."""
        with self._lock:
            exchange = self._exchanges.get(threading.get_ident())
        return MAX_CONNECT_S if exchange is None else exchange.deadline - time.monotonic()

    def using(self, connection: HTTPConnection) -> None:
        me = threading.get_ident()
        with self._lock:
            if me in self._exchanges:
                self._exchanges[me].connection, self._exchanges[me].sock = connection, connection.sock

    def _run(self) -> None:
        while True:
            time.sleep(WATCH_EVERY_S)
            now = time.monotonic()
            with self._lock:
                late = [exchange for exchange in self._exchanges.values() if exchange.deadline < now]
            for exchange in late:
                connecting = None if exchange.connection is None else exchange.connection.sock
                for sock in (exchange.sock, connecting):
                    with contextlib.suppress(OSError):
                        if sock is not None:
                            sock.shutdown(socket.SHUT_RDWR)


class _Names:
    """Looks names up for callers who do not wait for ever; a name that is asked for is not asked for again meanwhile."""

    def __init__(self) -> None:
        self._pending: dict[str, Future[list[str]]] = {}
        self._lock = threading.Lock()

    def addresses(self, name: str, timeout_s: float) -> list[str]:
        """Return the addresses of a host; raise socket.gaierror where there are none, TimeoutError when it takes longer."""
        with self._lock:
            pending = self._pending.get(name)
            if pending is None:
                pending = self._pending[name] = Future()
                threading.Thread(target=self._look_up, args=(name, pending), name="names", daemon=True).start()
        return pending.result(timeout_s)

    def _look_up(self, name: str, pending: Future[list[str]]) -> None:
        found, failure = [], None
        try:
            found = [str(each[4][0]) for each in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError) as error:
            failure = error if isinstance(error, socket.gaierror) else socket.gaierror()
        with self._lock:
            del self._pending[name]
        if failure is None:
            pending.set_result(found)
        else:
            pending.set_exception(failure)


_watch = _Watch()
_names = _Names()


class _Watched(HTTPConnection):
    """Connections whose exchanges have a deadline, and whose requests leave in one piece, not head and body apart."""

    _pieces: list[bytes] | None = None

    def _new_conn(self) -> socket.socket:
        """Connect to the first address of the host that answers, the look-up within the deadline too."""
        name, longest = self._dns_host, self.timeout
        try:
            addresses = _names.addresses(name.strip("[]"), max(min(MAX_CONNECT_S, _watch.left()), 0.0))
            for address in addresses[:-1]:
                with contextlib.suppress(ConnectTimeoutError):
                    return self._connected(address)
            return self._connected(addresses[-1])
        except socket.gaierror as error:
            raise NameResolutionError(name, self, error) from None
        except TimeoutError:
            raise NewConnectionError(self, NotDelivered.code) from None
        finally:
            self._dns_host, self.timeout = name, longest

    def _connected(self, address: str) -> socket.socket:
        self._dns_host, self.timeout = address, max(min(MAX_CONNECT_S, _watch.left()), 0.001)
        return super()._new_conn()

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - urllib3's own signature
        _watch.using(self)  # while it connects and sends
        pieces: list[bytes] = []
        self._pieces = pieces
        try:
            super().request(*args, **kwargs)
        finally:
            self._pieces = None
        self.send(b"".join(pieces))
        _watch.using(self)  # now that it has its socket

    def send(self, data: Any) -> None:  # noqa: ANN401 - as above
        if self._pieces is None:
            super().send(data)
        else:
            self._pieces.append(data)


class _WatchedTLS(_Watched, HTTPSConnection):
    def connect(self) -> None:
        try:
            super().connect()
        except (HTTPError, OSError):  # before the handshake is done nothing is sent, however it fails
            raise NewConnectionError(self, NotDelivered.code) from None


class _WatchedAdapter(HTTPAdapter):
    """Connections to one service, always asked for in the same way, so that its pool is looked for only once."""

    _pool: ConnectionPool | None = None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> ConnectionPool:  # noqa: ANN401 - as above
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **kwargs)
        return self._pool

    def request_url(self, request: requests.PreparedRequest, _: object) -> str:
        """Return what the service is asked for; there is no proxy that would want to know more."""
        return request.path_url

    def build_response(self, _: requests.PreparedRequest, answer: HTTPResponse) -> requests.Response:  # type: ignore[override]
        """Return the answer without the cookies, encodings and history that nobody asks for here."""
        response = requests.Response()
        response.status_code, response.headers, response.raw = answer.status, answer.headers, answer  # type: ignore[assignment]
        return response

    def close(self) -> None:
        self._pool = None
        super().close()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - requests' own signature
        super().init_poolmanager(*args, ssl_minimum_version=ssl.TLSVersion.TLSv1_3, **kwargs)
        manager: PoolManager = self.poolmanager
        schemes = {}
        for scheme, connection in (("http", _Watched), ("https", _WatchedTLS)):
            pool = manager.pool_classes_by_scheme[scheme]
            schemes[scheme] = type(f"Watched{pool.__name__}", (pool,), {"ConnectionCls": connection})
        manager.pool_classes_by_scheme = schemes


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
        try:
            request = self._prepared(method, path, body, query, idempotency_key)
            with (
                _watch.exchange(deadline),
                self._adapter().send(
                    request,
                    stream=True,
                    timeout=(min(MAX_CONNECT_S, self._timeout_s), None),  # what comes later has the deadline
                    verify=True if self._ca_file is None else str(self._ca_file),
                ) as response,
            ):
                answer = _read(response, most_bytes)
                if time.monotonic() > deadline:  # cut off by us, what came of it may look like a whole answer
                    raise NoAnswer(NoAnswer.code)
                return answer
        except requests.exceptions.ConnectTimeout:
            raise NotDelivered(NotDelivered.code, why="no answer to the attempt to connect") from None
        except requests.exceptions.ConnectionError as error:
            if _failed_to_connect(error):
                raise NotDelivered(NotDelivered.code, why=_why(error)) from None
            raise NoAnswer(NoAnswer.code) from None
        except (requests.exceptions.RequestException, HTTPError, OSError, ValueError):
            raise NoAnswer(NoAnswer.code) from None

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

    def _adapter(self) -> HTTPAdapter:
        """Return this thread's adapter.

        Without a session there is nothing that the environment could add (proxies, .netrc, certificates), no redirect
        and no cookie; and a call takes a third less time.
        """
        adapter: HTTPAdapter | None = getattr(self._local, "adapter", None)
        if adapter is None:
            adapter = self._local.adapter = _WatchedAdapter(max_retries=0, pool_maxsize=1)
        return adapter


@functools.lru_cache(maxsize=64)
def _url(base: str, query: tuple[tuple[str, str], ...]) -> str | None:
    request = requests.PreparedRequest()
    request.prepare_url(base, list(query))
    return request.url


def _failed_to_connect(error: requests.exceptions.ConnectionError) -> bool:
    cause = error.args[0] if error.args else None
    reason = getattr(cause, "reason", cause)  # urllib3 wraps it in MaxRetryError
    return type(reason).__name__ in ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError")


def _why(error: BaseException | None) -> str:
    """Return what was in the way of a connection, from an error or what is behind it."""
    while error is not None:
        for kind, words in IN_THE_WAY.items():
            if isinstance(error, kind):
                return words
        inner = [each for each in (*error.args, getattr(error, "reason", None)) if isinstance(each, BaseException)]
        error = inner[0] if inner else error.__cause__ or error.__context__
    return "no connection"


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


def safe_code(code: object) -> str | None:
    """Let through what looks like a code; a service's free text stays outside."""
    if isinstance(code, str) and len(code) <= 64 and code.isascii() and code.replace("-", "").replace("_", "").isalnum():
        return code
    return None


def parse_retry_after(value: str | None) -> float | None:
    """Return a Retry-After header (seconds or an HTTP date) as seconds between 0 and a minute; None for anything else."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        moment = email.utils.parsedate_to_datetime(text)
        if moment.tzinfo is None:  # the asctime form names no zone; HTTP says it is UTC
            moment = moment.replace(tzinfo=UTC)
        return min(max(moment.timestamp() - time.time(), 0.0), MAX_RETRY_AFTER_S)
    except (TypeError, ValueError, OverflowError):
        return None

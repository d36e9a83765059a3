"""Connections to services, with what urllib3 lacks: a deadline over a whole exchange, the look-up of the name included.

They take no redirects, no proxies and nothing else from the environment. https is TLS 1.3 or later; to servers of clients,
which may be anywhere, TLS 1.2 or later, and only to addresses that may be called. What is sent belongs in `http_client.py`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError
from urllib3.poolmanager import PoolManager
from urllib3.response import HTTPResponse

MAX_CONNECT_S = 5.0
WATCH_EVERY_S = 0.05
NO_CONNECTION = "no connection"
NO_CONNECTION_IN_TIME = "no answer to the attempt to connect"
ADDRESS_REFUSED = "its address is not one that may be called"


class AddressRefused(OSError):
    """A name leads to an address that may not be called."""


IN_THE_WAY: dict[type[BaseException], str] = {
    AddressRefused: ADDRESS_REFUSED,
    ssl.SSLCertVerificationError: "its certificate is not one for this host that we trust",
    ssl.SSLError: "no TLS 1.3",
    ConnectionRefusedError: "connection refused",
    socket.gaierror: "the name is not known",
    TimeoutError: NO_CONNECTION_IN_TIME,
    ConnectionError: "the connection was closed",
}


@dataclass
class _Exchange:
    deadline: float
    connection: HTTPConnection | None = None
    sock: socket.socket | None = None  # a connection lets go of it when the answer says that it ends there


class _Deadlines:
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


deadlines = _Deadlines()
_names = _Names()


class _Connection(HTTPConnection):
    """Connections whose exchanges have a deadline, and whose requests leave in one piece, not head and body apart."""

    _pieces: list[bytes] | None = None
    may_call: Callable[[str], bool] | None = None  # an address; None: any

    def _new_conn(self) -> socket.socket:
        """Connect to the first address of the host that answers, the look-up within the deadline too."""
        name, longest = self._dns_host, self.timeout
        try:
            addresses = _names.addresses(name.strip("[]"), max(min(MAX_CONNECT_S, deadlines.left()), 0.0))
            if self.may_call is not None and not all(map(self.may_call, addresses)):
                raise AddressRefused
            for address in addresses[:-1]:
                with contextlib.suppress(ConnectTimeoutError):
                    return self._connected(address)
            return self._connected(addresses[-1])
        except socket.gaierror as error:
            raise NameResolutionError(name, self, error) from None
        except (TimeoutError, AddressRefused):
            raise NewConnectionError(self, NO_CONNECTION) from None
        finally:
            self._dns_host, self.timeout = name, longest

    def _connected(self, address: str) -> socket.socket:
        self._dns_host, self.timeout = address, max(min(MAX_CONNECT_S, deadlines.left()), 0.001)
        return super()._new_conn()

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - urllib3's own signature
        deadlines.using(self)  # while it connects and sends
        pieces: list[bytes] = []
        self._pieces = pieces
        try:
            super().request(*args, **kwargs)
        finally:
            self._pieces = None
        self.send(b"".join(pieces))
        deadlines.using(self)  # now that it has its socket

    def send(self, data: Any) -> None:  # noqa: ANN401 - as above
        if self._pieces is not None:
            self._pieces.append(data)
            return
        if self.sock is None:
            self.connect()
        # what is not delivered in time never is: the system would go on trying for minutes, also for a process that is gone
        left_ms = max(int(deadlines.left() * 1000), 1)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, left_ms)
        super().send(data)


class _TLSConnection(_Connection, HTTPSConnection):
    def connect(self) -> None:
        try:
            super().connect()
        except (HTTPError, OSError):  # before the handshake is done nothing is sent, however it fails
            raise NewConnectionError(self, NO_CONNECTION) from None


class ServiceAdapter(HTTPAdapter):
    """Connections to one service, always asked for in the same way, so that its pool is looked for only once."""

    _pool: ConnectionPool | None = None
    _oldest_tls = ssl.TLSVersion.TLSv1_3
    _may_call: Callable[[str], bool] | None = None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> ConnectionPool:  # noqa: ANN401 - as above
        """Return the one pool."""
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
        """Close the connections; what is sent next opens another."""
        self._pool = None
        super().close()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - requests' own signature
        """Make connections of ours."""
        super().init_poolmanager(*args, ssl_minimum_version=self._oldest_tls, **kwargs)
        manager: PoolManager = self.poolmanager
        schemes = {}
        may_call = None if self._may_call is None else staticmethod(self._may_call)
        for scheme, connection in (("http", _Connection), ("https", _TLSConnection)):
            pool = manager.pool_classes_by_scheme[scheme]
            own = type(connection.__name__, (connection,), {"may_call": may_call})
            schemes[scheme] = type(f"Service{pool.__name__}", (pool,), {"ConnectionCls": own})
        manager.pool_classes_by_scheme = schemes


class OutsideAdapter(ServiceAdapter):
    """Connections to a server of a client's; all addresses of its name must be such that `may_call` says yes."""

    _oldest_tls = ssl.TLSVersion.TLSv1_2

    def __init__(self, may_call: Callable[[str], bool]) -> None:
        self._may_call = may_call
        super().__init__(max_retries=0, pool_maxsize=1)


def failed_to_connect(error: requests.exceptions.ConnectionError) -> bool:
    """Return whether nothing was sent, as there was no connection."""
    cause = error.args[0] if error.args else None
    reason = getattr(cause, "reason", cause)  # urllib3 wraps it in MaxRetryError
    return isinstance(reason, NewConnectionError | ConnectTimeoutError)


def what_was_in_the_way(error: BaseException | None) -> str:
    """Return what was in the way of a connection, from an error or what is behind it."""
    while error is not None:
        for kind, words in IN_THE_WAY.items():
            if isinstance(error, kind):
                return words
        inner = [each for each in (*error.args, getattr(error, "reason", None)) if isinstance(each, BaseException)]
        error = inner[0] if inner else error.__cause__ or error.__context__
    return NO_CONNECTION

"""The HTTP client against servers that misbehave: bounded in time and bytes, sent nowhere else, honest about doubt."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from pydantic import SecretStr

from orders_pipeline.services.answers import NoAnswer, NotDelivered
from orders_pipeline.services.http_client import MAX_BODY_BYTES, ServiceClient

TIMEOUT_S = 0.6
PROMPTLY_S = TIMEOUT_S + 1.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
Handle = Callable[[socket.socket], None]


class Server:
    """Accepts connections on a port of its own and hands each, its request read, to a function."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.requests: list[bytes] = []
        self.closing = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while request := read_request(connection):
                self.requests.append(request)
                self._handle(connection)

    def close(self) -> None:
        self.closing.set()
        self._socket.close()


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65_536)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    length = int(lengths[0].partition(b":")[2]) if lengths else 0
    while len(body) < length:
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


def answer(body: bytes | dict, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@pytest.fixture
def serve() -> Iterator[Callable[[Handle], Server]]:
    with contextlib.ExitStack() as stack:

        def started(handle: Handle) -> Server:
            server = Server(handle)
            stack.callback(server.close)
            return server

        yield started


def client(url: str, timeout_s: float = TIMEOUT_S) -> ServiceClient:
    return ServiceClient(url, SecretStr("planted-token"), timeout_s)


@contextlib.contextmanager
def promptly(at_most_s: float = PROMPTLY_S) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < at_most_s


def slowly(first: bytes, rest: bytes) -> Handle:
    """Send `first`, then `rest` byte by byte, each long before a time-out per read."""

    def handle(connection: socket.socket) -> None:
        connection.sendall(first)
        for byte in rest:
            time.sleep(0.05)
            connection.sendall(bytes([byte]))

    return handle


def test_a_request_carries_its_key_its_token_and_its_body(serve):
    server = serve(lambda connection: connection.sendall(answer({"id": "pay_1"}, "201 Created", "Retry-After: 7")))
    got = client(server.url).call("POST", "/v1/payments", body={"name": "山田"}, idempotency_key="key-1")
    assert (got.status, got.body, got.retry_after_s) == (201, {"id": "pay_1"}, 7.0)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/payments HTTP/1.1")
    assert b"Idempotency-Key: key-1" in head
    assert b"Authorization: Bearer planted-token" in head
    assert json.loads(body) == {"name": "山田"}


def test_what_was_not_delivered_when_a_call_was_given_up_is_not_delivered_later():
    length = 200_000
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)  # the rest of a request waits in its sender's system
        server.bind(("127.0.0.1", 0))
        server.listen()
        with pytest.raises(NoAnswer):
            client(f"http://127.0.0.1:{server.getsockname()[1]}").call("POST", "/", body={"name": "x" * length})
        time.sleep(1)
        received = 0
        with server.accept()[0] as connection, contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65_536):
                received += len(data)
    assert received < length


def test_a_query_is_escaped(serve):
    server = serve(lambda connection: connection.sendall(answer({})))
    client(server.url + "/base/").call("GET", "/v1/payments", query={"reference": "a&b=c d/é"})
    assert server.requests[0].startswith(b"GET /base/v1/payments?reference=a%26b%3Dc+d%2F%C3%A9 ")
    assert b"Content-Type" not in server.requests[0]


def test_a_connection_is_used_again(serve):
    server = serve(lambda connection: connection.sendall(answer({})))
    caller = client(server.url)
    ports = []
    server._handle = lambda connection: (ports.append(connection.getpeername()[1]), connection.sendall(answer({})))
    for _ in range(3):
        caller.call("GET", "/")
    assert len(set(ports)) == 1


def test_y16_headers_that_come_slowly_end_at_the_deadline(serve):
    server = serve(slowly(b"HTTP/1.1 200 OK\r\n", b"X-Slow: " + b"x" * 400))
    with promptly(), pytest.raises(NoAnswer):
        client(server.url).call("POST", "/", body={})


@pytest.mark.parametrize("headers", [["Connection: keep-alive"], ["Connection: close"]], ids=["kept-alive", "closing"])
def test_y16_a_body_that_comes_byte_by_byte_ends_at_the_deadline(serve, headers):
    server = serve(slowly(answer(b"", "200 OK", *headers, length=400), b'{"id": "' + b"x" * 380 + b'"}'))
    with promptly(), pytest.raises(NoAnswer):
        client(server.url).call("POST", "/", body={})


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "422 Unprocessable Content", "503 Service Unavailable"])
def test_y16_a_slow_body_without_a_length_ends_at_the_deadline_and_is_no_answer(serve, status):
    server = serve(slowly(f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode(), b'{"id": "' + b"x" * 400))
    with promptly(), pytest.raises(NoAnswer):
        client(server.url).call("POST", "/", body={})


def test_y16_a_slow_body_in_chunks_ends_at_the_deadline(serve):
    server = serve(slowly(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 100))
    with promptly(), pytest.raises(NoAnswer):
        client(server.url).call("POST", "/", body={})


def test_y02_silence_ends_at_the_deadline(serve):
    server = serve(lambda connection: server.closing.wait(10))
    with promptly(), pytest.raises(NoAnswer):
        client(server.url).call("POST", "/", body={})


def test_an_exchange_that_ends_in_time_is_not_disturbed_by_the_deadlines_of_others(serve):
    slow = serve(slowly(b"HTTP/1.1 200 OK\r\n", b"X-Slow: " + b"x" * 400))
    steady = serve(lambda connection: (time.sleep(0.3), connection.sendall(answer({"id": "x"}))))

    def run_late() -> None:
        with contextlib.suppress(NoAnswer):
            client(slow.url).call("GET", "/")

    late = threading.Thread(target=run_late)
    late.start()
    caller = client(steady.url, timeout_s=5.0)
    for _ in range(5):
        assert caller.call("GET", "/").body == {"id": "x"}
    late.join(10)


def test_y17_of_a_body_of_five_gigabytes_no_more_than_the_limit_is_read(serve):
    sent = 0

    def endless(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(answer(b"", length=5 * 1024**3))
        while True:
            sent += connection.send(b"x" * 65_536)

    server = serve(endless)
    with promptly(), pytest.raises(NoAnswer):
        client(server.url, timeout_s=10.0).call("POST", "/", body={})
    assert sent < 32 * 1024**2  # what the sockets' buffers take


def test_y17_a_body_that_grows_when_it_is_unpacked_is_cut_too(serve):
    packed = gzip.compress(b" " * (50 * 1024 * 1024))
    server = serve(lambda connection: connection.sendall(answer(packed, "200 OK", "Content-Encoding: gzip")))
    with promptly(), pytest.raises(NoAnswer):
        client(server.url, timeout_s=10.0).call("POST", "/", body={})


@pytest.mark.parametrize("beyond", [0, 1])
def test_the_limit_of_a_body_is_exact(serve, beyond):
    body = b'{"a": "' + b"x" * (MAX_BODY_BYTES + beyond - 9) + b'"}'
    assert len(body) == MAX_BODY_BYTES + beyond
    server = serve(lambda connection: connection.sendall(answer(body)))
    caller = client(server.url, timeout_s=5.0)
    if beyond:
        with pytest.raises(NoAnswer):
            caller.call("GET", "/")
    else:
        assert set(caller.call("GET", "/").body) == {"a"}


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_y18_a_redirect_is_an_answer_and_is_not_followed(serve, status):
    elsewhere = serve(lambda connection: connection.sendall(answer({"id": "stolen"})))
    server = serve(lambda connection: connection.sendall(answer({}, status, f"Location: {elsewhere.url}/v1/payments")))
    assert client(server.url).call("POST", "/", body={"token": "x"}).status == int(status[:3])
    assert elsewhere.requests == []


def test_y26_proxies_and_credentials_of_the_environment_are_ignored(serve, monkeypatch, tmp_path):
    proxy = serve(lambda connection: connection.sendall(answer({"id": "from the proxy"})))
    server = serve(lambda connection: connection.sendall(answer({"id": "from the service"})))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login planted password planted\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert ServiceClient(server.url, None, 5.0).call("GET", "/").body == {"id": "from the service"}
    assert proxy.requests == []
    assert b"uthorization" not in server.requests[0]


def test_y01_a_refused_connection_was_not_delivered():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with promptly(), pytest.raises(NotDelivered) as refused:
        client(f"http://127.0.0.1:{port}").call("POST", "/", body={})
    assert str(refused.value) == "E_SERVICE_UNREACHABLE"
    assert refused.value.why == "connection refused"
    assert refused.value.__suppress_context__


def test_y01_a_name_that_does_not_resolve_was_not_delivered():
    with pytest.raises(NotDelivered) as refused:
        client("http://planted.invalid", timeout_s=5.0).call("POST", "/", body={})
    assert "planted" not in str(refused.value)
    assert refused.value.why == "the name is not known"


SILENT_NAME_SERVER = """
import socket, subprocess, sys, time
from orders_pipeline.services.answers import NotDelivered
from orders_pipeline.services.http_client import ServiceClient

silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("127.0.0.253", 53))
with open(sys.argv[1], "w") as file:
    file.write("nameserver 127.0.0.253\\n")
subprocess.run(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"], check=True)  # in a mount namespace of our own
for _ in range(2):
    started = time.monotonic()
    try:
        ServiceClient("http://payments.example", None, 1.0).call("POST", "/", body={})
    except NotDelivered:
        print(time.monotonic() - started)
"""


@pytest.mark.skipif(
    bool(subprocess.call(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL)), reason="needs a mount namespace"
)
def test_y01_a_name_server_that_never_answers_is_waited_for_no_longer_than_the_deadline(tmp_path):
    command = ["unshare", "--mount", sys.executable, "-P", "-c", SILENT_NAME_SERVER, str(tmp_path / "resolv.conf")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    took = [float(line) for line in ended.stdout.split()]
    assert len(took) == 2, ended.stderr
    assert all(0.9 < each < 3.0 for each in took)


def test_y01_a_connection_that_is_never_accepted_was_not_delivered():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(address)
            waiting.append(filler)
        with promptly(), pytest.raises(NotDelivered):
            client(f"http://127.0.0.1:{address[1]}").call("POST", "/", body={})
        for filler in waiting:
            filler.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    connection.close()


@contextlib.contextmanager
def shaking_hands(handle: Handle) -> Iterator[str]:
    """Give the URL of a server that says something of its own to whoever wants to speak TLS."""

    def accept() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            connection.recv(65_536)
            handle(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    "handle",
    [
        lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        reset,
        socket.socket.close,
        lambda connection: time.sleep(2 * TIMEOUT_S),
    ],
    ids=["no-tls", "reset", "closed", "silent"],
)
def test_y01_a_request_whose_handshake_failed_was_not_delivered(handle):
    with shaking_hands(handle) as url, promptly(), pytest.raises(NotDelivered) as failure:
        client(url).call("POST", "/", body={})
    assert failure.value.__suppress_context__


def test_head_and_body_leave_in_one_piece(serve, monkeypatch):
    send, sent = http.client.HTTPConnection.send, []

    def noted(connection: http.client.HTTPConnection, data: bytes) -> None:
        sent.append(data)
        send(connection, data)

    monkeypatch.setattr(http.client.HTTPConnection, "send", noted)
    client(serve(lambda connection: connection.sendall(answer({}))).url).call("POST", "/v1/payments", body={"amount": 1})
    (piece,) = sent
    assert piece.startswith(b"POST /v1/payments HTTP/1.1\r\n")
    assert piece.endswith(b'\r\n\r\n{"amount": 1}')


def test_y15_who_hangs_up_gets_the_next_answer_over_another_connection(serve):
    ports = []
    server = serve(lambda connection: (ports.append(connection.getpeername()[1]), connection.sendall(answer({}))))
    caller = client(server.url)
    for _ in range(3):
        caller.call("GET", "/")
        caller.hang_up()
    assert len(set(ports)) == 3


@pytest.mark.parametrize(
    "handle",
    [
        reset,
        socket.socket.close,
        lambda connection: (connection.sendall(b"HTTP/1.1 200 OK\r\n"), reset(connection)),
        lambda connection: (connection.sendall(answer(b'{"id": "pay', length=100)), connection.close()),
        lambda connection: (connection.sendall(answer(b'{"id": "pay', length=100)), reset(connection)),
        lambda connection: (connection.sendall(b"this is not HTTP\r\n\r\n"), connection.close()),
        lambda connection: (connection.sendall(answer(b"not gzip", "200 OK", "Content-Encoding: gzip")), connection.close()),
        lambda connection: (connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 100_000), connection.close()),
    ],
    ids=["reset", "closed", "reset-in-headers", "cut-body", "reset-in-body", "no-http", "bad-gzip", "huge-header"],
)
def test_y03_an_exchange_that_breaks_off_after_the_request_is_no_answer(serve, handle):
    server = serve(handle)
    with promptly(), pytest.raises(NoAnswer) as failure:
        client(server.url).call("POST", "/", body={})
    assert str(failure.value) == "E_SERVICE_NO_ANSWER"
    assert failure.value.__suppress_context__
    assert len(server.requests) == 1, "it was not sent again"


def test_y03_a_kept_connection_that_the_service_closed_is_no_proof_that_nothing_was_sent(serve):
    answers = iter([lambda connection: connection.sendall(answer({})), reset])

    def one_after_the_other(connection: socket.socket) -> None:
        next(answers)(connection)

    server = serve(one_after_the_other)
    caller = client(server.url)
    caller.call("GET", "/")
    with pytest.raises(NoAnswer):
        caller.call("POST", "/", body={})


@pytest.mark.parametrize("body", [b"", b"<html>planted</html>", b"[1, 2]", b'"text"', b"\xff\xfe", b"null", b'{"a": '])
def test_y12_a_body_that_is_no_json_object_is_an_answer_without_content(serve, body):
    server = serve(lambda connection: connection.sendall(answer(body, "502 Bad Gateway")))
    got = client(server.url).call("GET", "/")
    assert (got.status, got.body, got.problem) == (502, {}, "http-502")


def test_a_json_body_nested_beyond_measure_is_an_answer(serve):
    server = serve(lambda connection: connection.sendall(answer(b'{"a":' * 9_000 + b"1" + b"}" * 9_000)))
    assert set(client(server.url, timeout_s=5.0).call("GET", "/").body) <= {"a"}  # later Pythons read it


def test_many_threads_each_have_an_answer_of_their_own(serve):
    def echo(connection: socket.socket) -> None:
        path = server.requests[-1].split(b" ")[1].decode()
        connection.sendall(answer({"path": path}))

    # the last request is this thread's only while one is answered at a time
    one_at_a_time = threading.Lock()
    server = serve(echo)
    caller, wrong = client(server.url, timeout_s=5.0), []

    def call(number: int) -> None:
        for turn in range(10):
            with one_at_a_time:
                if caller.call("GET", f"/{number}/{turn}").body != {"path": f"/{number}/{turn}"}:
                    wrong.append((number, turn))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert wrong == []

"""A harness at an S3 server: moto over HTTP, the raw client to it, and a proxy on which things go wrong on purpose."""

from __future__ import annotations

import contextlib
import http.client
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import pytest
from botocore.config import Config
from moto.backends import get_backend
from moto.server import ThreadedMotoServer

from orders_pipeline_tests.support.threaded_server import answering

ACCOUNT = "123456789012"  # moto's
REFUSALS = {
    400: "InvalidRequest",
    401: "Unauthorized",
    403: "AccessDenied",
    404: "NoSuchKey",
    500: "InternalError",
    503: "SlowDown",
}
NOT_PASSED_ON = {"connection", "expect", "transfer-encoding", "keep-alive"}


@dataclass
class Trouble:
    """What happens to the next `times` requests for keys with this ending; a `status` of 0 cuts the answer half way."""

    method: str
    ending: str
    status: int = 0
    times: int = 1_000_000
    then: Callable[[], object] = field(default=lambda: None)  # done once the first of them was answered

    def concerns(self, method: str, key: str) -> bool:
        return self.times > 0 and method == self.method and key.endswith(self.ending)


class Line:
    """Passes requests on to a server and answers back, but for the troubles on it; remembers what was asked."""

    def __init__(self, server_url: str) -> None:
        self.troubles: list[Trouble] = []
        self.asked: list[tuple[str, str, str | None]] = []  # method, key, range
        self._target = urlsplit(server_url)
        line = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def answer(self) -> None:
                line._answer(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the names the base class calls

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._until_closed = contextlib.ExitStack()
        self._until_closed.enter_context(answering(self._server))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._until_closed.close()

    def ranges(self, method: str, ending: str) -> list[str | None]:
        """Return the range of each request with this method for keys with this ending."""
        return [wanted for each, key, wanted in self.asked if each == method and key.endswith(ending)]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        key = unquote(urlsplit(handler.path).path)
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.asked.append((handler.command, key, handler.headers["Range"]))
        trouble = next((each for each in self.troubles if each.concerns(handler.command, key)), None)
        if trouble is None:
            self._pass_on(handler, body, cut=False)
            return
        trouble.times -= 1
        if trouble.status:
            _refuse(handler, trouble.status)
        else:
            self._pass_on(handler, body, cut=True)
        then, trouble.then = trouble.then, lambda: None
        then()

    def _pass_on(self, handler: BaseHTTPRequestHandler, body: bytes, *, cut: bool) -> None:
        connection = http.client.HTTPConnection(str(self._target.hostname), self._target.port, timeout=60)
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in NOT_PASSED_ON}
        connection.request(handler.command, handler.path, body or None, headers)
        answer = connection.getresponse()
        content = answer.read()
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in NOT_PASSED_ON | {"content-length", "server", "date"}:
                handler.send_header(name, value)
        length = answer.getheader("Content-Length") if handler.command == "HEAD" else str(len(content))
        handler.send_header("Content-Length", length or "0")
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            handler.wfile.flush()
            handler.close_connection = True
        connection.close()


def _refuse(handler: BaseHTTPRequestHandler, status: int) -> None:
    text = f"<Error><Code>{REFUSALS[status]}</Code><Message>planted</Message></Error>".encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/xml")
    handler.send_header("Content-Length", str(len(text)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(text)


@dataclass(frozen=True)
class S3Harness:
    """A moto server: `raw` sees and changes what is there, our stores reach it through `line`."""

    server_url: str
    raw: Any
    line: Line

    def bucket(self) -> str:
        """Make a bucket and return its name."""
        name = f"orders-{uuid.uuid4()}"
        self.raw.create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str) -> list[str]:
        """Return the keys of a small bucket."""
        return [entry["Key"] for entry in self.raw.list_objects_v2(Bucket=bucket).get("Contents", ())]

    def fill(self, bucket: str, keys: Iterable[str], body: bytes = b"") -> None:
        """Put many objects at once, past HTTP: a request each would take minutes."""
        backend = get_backend("s3")[ACCOUNT]["aws"]
        for key in keys:
            backend.put_object(bucket, key, body)

    def empty(self, bucket: str, prefix: str) -> None:
        """Remove all objects whose key begins with `prefix`, as `fill` puts them."""
        backend = get_backend("s3")[ACCOUNT]["aws"]
        for key in [key for key in backend.buckets[bucket].keys if key.startswith(prefix)]:
            backend.delete_object(bucket, key)


@contextlib.contextmanager
def open_s3(address: str = "127.0.0.1") -> Iterator[S3Harness]:
    """Start a server; credentials and region are the test's own, and proxies of the environment lead nowhere."""
    server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch, contextlib.closing(Line(url)) as line:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        patch.setenv("http_proxy", "http://127.0.0.1:9")
        yield S3Harness(url, boto3.client("s3", endpoint_url=url, config=Config(proxies={})), line)
    server.stop()

"""An index that documents are created in by `_bulk`, as Elasticsearch and OpenSearch have it; it may be away for a while."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from orders_pipeline_tests.support.threaded_server import answering


@dataclass
class Index:
    """What is in it, in the order in which it came; how often each was sent, and how the next requests fail."""

    url: str = ""
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str], int]] = field(default_factory=list)  # path, headers, bytes
    failures: list[int] = field(default_factory=list)  # 0: all is taken, and no answer comes
    refuses: str = ""  # documents with this in them

    def take(self, body: bytes) -> dict[str, Any]:
        lines = [json.loads(line) for line in body.splitlines()]
        items = []
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            name = action["create"]["_id"]
            self.sent.append(name)
            status, error = 201, {}
            if self.refuses and self.refuses in json.dumps(document):
                status, error = 400, {"error": {"type": "document_parsing_exception", "reason": "planted"}}
            elif name in self.documents:
                status, error = 409, {"error": {"type": "version_conflict_engine_exception"}}
            else:
                self.documents[name] = document
            items.append({"create": {"status": status} | error})
        return {"errors": any("error" in item["create"] for item in items), "items": items}


@contextlib.contextmanager
def indexing() -> Iterator[Index]:
    index = Index()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            index.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, len(body)))
            failure = index.failures.pop(0) if index.failures else 200
            answer = index.take(body) if failure in (0, 200) else {"error": "planted"}
            self.close_connection = True
            if failure:
                content = json.dumps(answer).encode()
                self.send_response(failure)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    index.url = f"http://127.0.0.1:{server.server_address[1]}/audit"
    with answering(server):
        yield index

"""The server: the application on a port of this machine, in a thread beside others or as all that a process does.

Everything that lasts is in the database and the storage, so any number of processes may serve.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn

from orders_pipeline.system.composition import System
from orders_pipeline.web.app import build_app
from orders_pipeline.web.boundary import MOST_HEAD_BYTES
from orders_pipeline.web.protocol import MOST_CONNECTIONS, Protocol

HOST = "127.0.0.1"
KEEP_ALIVE_S = 15
STOP_S = 10


def new_server(system: System, *, with_reports: bool, code: str | None = None) -> uvicorn.Server:
    """Return a server of the API and the page; `with_reports` it serves the links of Dagster's UI as well.

    Who comes to the page with the `code` is signed in as who runs the system.
    """
    app = build_app(system, with_reports=with_reports, code=code)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=Protocol,
            h11_max_incomplete_event_size=MOST_HEAD_BYTES,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_S,
            log_config=None,
            access_log=False,  # it has paths and queries
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            ws="none",
        )
    )
    app.state.events.is_stopping = lambda: server.should_exit  # it waits for open streams, which end then
    return server


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that several processes on this machine may have at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, reuse_port=True, backlog=MOST_CONNECTIONS)


@contextlib.contextmanager
def serving(system: System, port: int, code: str | None = None) -> Iterator[str]:
    """Serve the API, the page and the reports as long as the block runs; gives the URL, the same each time."""
    listening = socket.create_server((HOST, port))
    server = new_server(system, with_reports=True, code=code)
    thread = threading.Thread(target=server.run, args=([listening],), name="web", daemon=True)
    thread.start()
    try:
        yield "http://{}:{}".format(*listening.getsockname())
    finally:
        server.should_exit = True
        thread.join()
        listening.close()

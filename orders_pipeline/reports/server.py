"""Downloads of reports for a browser on this machine: what the links in the Dagster UI lead to under `up`.

Reading only, loopback only, and only for requests that name this machine as their host: rejected.csv is personal data.
In production `ORDERS_REPORTS_URL` says where reports are served behind the company's own login.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from orders_pipeline.audit import recording
from orders_pipeline.batches import batches
from orders_pipeline.reports import report_files
from orders_pipeline.system import errors
from orders_pipeline.system.composition import System

HOST = "127.0.0.1"
ROOT = f"""\
These are the reports of orders-pipeline, each at /batches/BATCH/ and one of: {", ".join(report_files.REPORTS.values())}
Dagster's UI has the links to them; nothing is listed here.
"""
MEDIA_TYPES = {"csv": "text/csv", "json": "application/json"}


def build_app(system: System) -> Starlette:
    """Build the application that serves the reports of `system`."""
    names = {file: name for name, file in report_files.REPORTS.items()}

    def read(batch_id: str, file: str) -> bytes | None:
        if file not in names:
            return None
        with (
            contextlib.suppress(batches.UnknownBatch),
            report_files.report(system.storage, system.database, batch_id, names[file]) as path,
        ):
            if path is not None:
                recording.read_report(system.database, batch_id, file, "browser")
                return path.read_bytes()
        return None

    async def download(request: Request) -> Response:
        batch_id, file = request.path_params["batch_id"], request.path_params["file"]
        try:
            content = await run_in_threadpool(read, batch_id, file)
        except Exception as error:  # noqa: BLE001 - the boundary
            return PlainTextResponse(errors.describe(error, system.settings, system.storage), status_code=500)
        if content is None:
            return PlainTextResponse("There is no such report.", status_code=404)
        headers = {
            "Content-Disposition": f'attachment; filename="{batch_id}-{file}"',
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(content, media_type=MEDIA_TYPES[file.rpartition(".")[2]], headers=headers)

    async def root(_request: Request) -> Response:
        return PlainTextResponse(ROOT)

    app = Starlette(
        routes=[
            Route("/", root, methods=["GET"]),
            Route("/batches/{batch_id:str}/{file:str}", download, methods=["GET"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
    )
    app.router.redirect_slashes = False
    return app


@contextlib.contextmanager
def serving(system: System, port: int) -> Iterator[str]:
    """Serve the reports at a port while the block runs, and give the URL; with the same port old links stay good."""
    listening = socket.create_server((HOST, port))
    server = uvicorn.Server(uvicorn.Config(build_app(system), log_config=None, lifespan="off", server_header=False))
    thread = threading.Thread(target=server.run, args=([listening],), name="reports", daemon=True)
    thread.start()
    try:
        yield "http://{}:{}".format(*listening.getsockname())
    finally:
        server.should_exit = True
        thread.join()
        listening.close()

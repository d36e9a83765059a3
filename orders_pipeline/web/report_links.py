"""Downloads of reports for a browser on this machine: what the links in the Dagster UI lead to under `up`.

Reading only, loopback only, and only for requests that name this machine as their host: rejected.csv is personal data.
In production `ORDERS_REPORTS_URL` says where reports are served behind the company's own login.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from orders_pipeline.audit import recording
from orders_pipeline.batches import batches
from orders_pipeline.reports import report_files
from orders_pipeline.system import errors
from orders_pipeline.system.composition import System
from orders_pipeline.web.files import MEDIA_TYPES

THIS_MACHINE = ("127.0.0.1", "localhost")


def report_download(system: System) -> Callable[[Request], Response]:
    """Return what gives out the reports of `system`."""
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

    def download(request: Request) -> Response:
        # by this machine's own name: a page elsewhere may call itself what it likes
        if request.headers.get("host", "").partition(":")[0] not in THIS_MACHINE:
            return PlainTextResponse("Invalid host header", status_code=400)
        batch_id, file = request.path_params["batch_id"], request.path_params["file"]
        try:
            content = read(batch_id, file)
        except Exception as error:  # noqa: BLE001 - the boundary
            return PlainTextResponse(errors.describe(error, system.settings, system.storage), status_code=500)
        if content is None:
            return PlainTextResponse("There is no such report.", status_code=404)
        headers = {"Content-Disposition": f'attachment; filename="{batch_id}-{file}"'}
        return Response(content, media_type=MEDIA_TYPES[file.rpartition(".")[2]], headers=headers)

    return download

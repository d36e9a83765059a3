"""Files of a batch for its client: what it sent, and the reports. Each download is in the audit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import quote

from starlette.responses import Response

from orders_pipeline.audit import recording
from orders_pipeline.batches.artifacts import ORIGINAL, artifact, lent
from orders_pipeline.infrastructure.storage import ObjectGone
from orders_pipeline.reports.report_files import REPORTS
from orders_pipeline.web.calls import Call, own_batch
from orders_pipeline.web.problems import Problem

MEDIA_TYPES: Mapping[str, str] = MappingProxyType({"csv": "text/csv", "json": "application/json"})
BYTES = "application/octet-stream"


def download(call: Call) -> Response:
    """Answer with one of a batch's files, as an attachment."""
    call.parameters(())
    file = str(call.request.path_params["file"])
    with call.system.database.begin() as transaction:
        batch = own_batch(transaction, call.caller, call.batch_id)
    content = _content(call, file)
    if content is None:
        raise Problem("no-such-file")
    with call.system.database.begin() as transaction:
        transaction.execute("identify_caller", actor=call.caller.actor)
        recording.record(transaction, "phi_access", "download", file, batch_id=call.batch_id, detail={"by": "api"})
    name = batch.csv_source if file == ORIGINAL else f"{call.batch_id}-{file}"
    return Response(content, media_type=MEDIA_TYPES.get(file.rpartition(".")[2], BYTES), headers=attachment(name))


def attachment(name: str) -> dict[str, str]:
    """Return the header that makes a browser keep an answer as a file of this name."""
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}


def _content(call: Call, file: str) -> bytes | None:
    system = call.system
    if file == ORIGINAL:
        try:
            with lent(system.storage, system.database, call.batch_id, ORIGINAL) as path:
                return path.read_bytes()
        except ObjectGone:
            return None
    key = artifact(call.batch_id, file)
    if file not in REPORTS.values() or system.storage.head(key) is None:
        return None
    with system.storage.local(key) as path:
        content = path.read_bytes()
    if file != REPORTS["result"]:
        return content
    result = json.loads(content)
    result.pop("artifacts", None)  # where files lie with us
    return json.dumps(result, ensure_ascii=False, indent=2).encode()

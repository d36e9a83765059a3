"""Submissions: a body becomes a batch, or a batch that corrects another, once for each idempotency key; or is only checked.

The key is written in the transaction that registers the batch. A repeated request gets the batch as it is now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.responses import Response

from orders_pipeline.batches.artifacts import ORIGINAL
from orders_pipeline.clients.file_names import is_json
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.infrastructure.database_errors import LOCK_TIMEOUT, DatabaseUnavailable
from orders_pipeline.infrastructure.scratch import Scratch, scratch_files
from orders_pipeline.intake import file_import, json_file
from orders_pipeline.intake.file_import import Arrival, Submission
from orders_pipeline.intake.file_staging import limits_of, stage_file, unpacked
from orders_pipeline.intake.manifest import Manifest
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.reports.preview import preview_file
from orders_pipeline.web.batches import accepted
from orders_pipeline.web.calls import Call, amount, answer, flag, own_batch
from orders_pipeline.web.idempotency import REPLAYED, Keyed, KeyTaken, key_of
from orders_pipeline.web.problems import Problem
from orders_pipeline.web.uploads import Upload

SUBMIT_PARAMETERS = ("name", "row_count", "amount_total", "again")
CORRECT_PARAMETERS = (*SUBMIT_PARAMETERS, "dry_run")
MOST_ERRORS = 1_000
FIRST_REQUEST = 1  # for a run of a batch that is new


def submit(call: Call, given: Mapping[str, str], upload: Upload, folder: Scratch) -> Response:
    """Make a batch of a body, or answer with the one that the same request made before."""
    keyed = Keyed.of(call, [upload.name, upload.sha256, *(given.get(each) for each in SUBMIT_PARAMETERS)])
    with call.system.database.begin() as transaction:
        made = keyed.made(transaction)
    if made is not None:
        return accepted(call, made.batch_id, REPLAYED)
    arrival = _arrival(call, given, upload, folder / ORIGINAL)

    def record(transaction: Transaction, batch_id: str) -> None:
        keyed.take(transaction, batch_id)
        if "batch_id" in call.request.path_params:  # it corrects another, as staging will find as well
            transaction.execute("note_correction", batch_id=batch_id, corrects=call.batch_id)
        if call.hint is not None:
            transaction.execute("count_run_request", batch_id=batch_id)

    try:
        batch_id = file_import.register(
            call.system,
            arrival,
            upload.name,
            call.caller.client_code,
            folder / ORIGINAL,
            again=flag(given.get("again")),
            submission=Submission("api", call.caller.actor, record),
        )
    except (KeyTaken, FileRejected, DatabaseUnavailable) as why:  # maybe the same request came first
        with call.system.database.begin() as transaction:
            made = keyed.made(transaction)
        if made is not None:
            return accepted(call, made.batch_id, REPLAYED)
        if isinstance(why, KeyTaken) or getattr(why, "sqlstate", None) == LOCK_TIMEOUT:
            raise Problem("request-in-progress") from None
        raise
    if call.hint is not None:
        call.hint.give(call.system, batch_id, call.caller.client_code, upload.size, FIRST_REQUEST, is_new=True)
    return accepted(call, batch_id)


def check(call: Call, given: Mapping[str, str], upload: Upload, folder: Scratch) -> Response:
    """Answer with what would become of a body; nothing is kept."""
    found = checked(call, given, upload, folder)
    del found["headers"], found["not_closed"]
    errors = found.pop("errors")
    return answer(found | {"sha256": upload.sha256, "errors": errors[:MOST_ERRORS], "errors_total": len(errors)})


def checked(call: Call, given: Mapping[str, str], upload: Upload, folder: Scratch) -> dict[str, Any]:
    """Return what would become of a body."""
    arrival = _arrival(call, given, upload, folder / ORIGINAL)
    client_code, again = call.caller.client_code, flag(given.get("again"))
    return preview_file(call.system, arrival, upload.name, client_code, folder, again=again)


def require_batch(call: Call) -> None:
    """Demand that the batch that a body is to correct is the caller's, and a key unless the body is only checked."""
    with call.system.database.begin() as transaction:
        own_batch(transaction, call.caller, call.batch_id)
    if not flag(call.request.query_params.get("dry_run")):
        key_of(call.request)


def correct(call: Call, given: Mapping[str, str], upload: Upload, folder: Scratch) -> Response:
    """Make a batch of a body that corrects rows of the one in the path, or check it where that is all that is asked."""
    profile = call.system.clients.profile(call.caller.client_code)
    try:
        with scratch_files() as apart:
            limits = limits_of(call.system.settings, profile)
            source, name = unpacked(limits, folder / ORIGINAL, upload.name, apart)
            staged = stage_file(limits, profile, source, name, apart)
    except FileRejected as refusal:
        raise Problem("not-a-correction", code=refusal.code) from None
    if staged.corrected_batches != (call.batch_id,):
        raise Problem("not-a-correction", code="F_BATCH_COLUMN")
    return (check if flag(given.get("dry_run")) else submit)(call, given, upload, folder)


def _arrival(call: Call, given: Mapping[str, str], upload: Upload, original: Path) -> Arrival:
    """Return a body as a file that has arrived; what stops it at the door is a FileRejected or a Problem."""
    profile = call.system.clients.profile(call.caller.client_code)
    limits = limits_of(call.system.settings, profile)
    rows, yen = amount(given.get("row_count")), amount(given.get("amount_total"))
    manifest = None if rows is None and yen is None else Manifest(row_count=rows, amount_total=yen)
    if is_json(upload.name):
        json_file.read_orders(original, upload.name, max_rows=limits.max_rows, max_columns=limits.max_columns)
    return Arrival(profile, manifest, upload.sha256, upload.size)


Work = Callable[[Call, Mapping[str, str], Upload, Scratch], Response]

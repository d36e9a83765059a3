"""Steps of a batch from received to loaded: stage, validate, load.

Each step can be run again and does nothing when the batch is past it. A file that is refused ends its batch as rejected.
What is done with one file is in `file_staging.py`, `file_validation.py` and `loading.py`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Row

from orders_pipeline.batches import batches
from orders_pipeline.batches.artifacts import ACCEPTED, ANSWERS, ORIGINAL, REJECTIONS, STAGED, artifact, keep, lent
from orders_pipeline.batches.batch_lock import BatchBusy, batch_lock
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.database_errors import DatabaseError
from orders_pipeline.infrastructure.process_memory import keep_freed_memory
from orders_pipeline.infrastructure.scratch import scratch_files
from orders_pipeline.infrastructure.storage import ObjectGone, ObjectReplaced, Storage
from orders_pipeline.intake import declarations, loading
from orders_pipeline.intake.archive import archive_landed
from orders_pipeline.intake.file_staging import limits_of, stage_checked
from orders_pipeline.intake.file_validation import counted_warnings, validate_file
from orders_pipeline.records.rejections import FileRejected, Rejection
from orders_pipeline.system import errors
from orders_pipeline.system.composition import System


def stage_batch(system: System, batch_id: str) -> None:
    """Archive the batch's bytes unchanged, check encoding and shape, and number the rows; reject a bad file."""
    with _step(system, batch_id, "stage", only_when="received") as step:
        if step is not None:
            _stage(*step)


def _stage(system: System, batch: Row[Any]) -> None:
    profile = system.clients.profile(batch.client_code)
    batch_id = batch.batch_id
    with scratch_files() as folder:
        if batch.landing_key is not None:
            archive_landed(system, profile, batch, folder)
        with system.database.begin() as transaction:
            batch = batches.get(transaction, batch_id)  # with what archiving found out
        with lent(system.storage, system.database, batch_id, ORIGINAL) as source:
            limits, manifest = limits_of(system.settings, profile), declarations.manifest_of(batch)
            staging = stage_checked(system.database, limits, profile, batch, manifest, source, folder)
        digests = keep(system.storage, batch_id, {name: folder / name for name in staging.made})
    staged, position = staging.file, declarations.position_of(profile, batch.csv_source)
    with system.database.begin() as transaction:
        transaction.execute(
            "set_staged",
            batch_id=batch_id,
            encoding=staged.encoding,
            source_layout=json.dumps(staging.layout),
            corrects=staging.corrects,
            bulk_import_group=staging.import_group,
            rows_total=staged.rows_total,
            rows_blank=staged.rows_blank,
            rows_skipped=staged.rows_skipped,
            file_sha256=json.dumps(digests),
        )
        for warning in (*staged.warnings, *declarations.sequence_gap(transaction, batch.client_code, position)):
            _insert_file_rejection(transaction, batch_id, warning)


def validate_batch(system: System, batch_id: str) -> None:
    """Judge every row of a staged batch, and keep accepted rows and rejections as files; reject a bad file."""
    with _step(system, batch_id, "validate", only_when="staged") as step:
        if step is not None:
            _validate(*step)


def _validate(system: System, batch: Row[Any]) -> None:
    profile = system.clients.profile(batch.client_code)
    with (
        scratch_files() as folder,
        lent(system.storage, system.database, batch.batch_id, STAGED) as staged,
    ):
        files = {name: folder / name for name in (ACCEPTED, REJECTIONS, ANSWERS)}
        result = validate_file(system, profile, batch, staged, files[ACCEPTED], files[REJECTIONS])
        loading.write_answers(files[ANSWERS], result.answers)
        try:
            declarations.check_validated(profile, declarations.manifest_of(batch), result)
        except FileRejected:
            loading.load_rejections(system.database, batch, files[REJECTIONS], files[ANSWERS])
            raise
        if batch.corrects is None:
            del files[ANSWERS]
        digests = keep(system.storage, batch.batch_id, files)
    with system.database.begin() as transaction:
        transaction.execute(
            "set_validated",
            batch_id=batch.batch_id,
            rows_accepted=result.rows_accepted,
            rows_continuing=result.rows_continuing,
            rows_rejected=result.rows_rejected,
            amount_accepted=result.amount_accepted,
            approval_above=profile.approved_up_to,
            cells_normalised=json.dumps(result.normalised),
            file_sha256=json.dumps(digests),
        )
        for warning in counted_warnings(result):
            _insert_file_rejection(transaction, batch.batch_id, warning)


def load_batch(system: System, batch_id: str) -> None:
    """Turn a validated batch's accepted rows into orders, and keep its rejections.

    A batch is validated again where what was found then does not hold any more.
    """
    while not _load(system, batch_id):
        validate_batch(system, batch_id)


def _load(system: System, batch_id: str) -> bool:
    """Load a batch that is validated, and return whether it need not be validated again."""
    with _step(system, batch_id, "load", only_when="validated") as step:
        if step is None:
            with system.database.begin() as transaction:  # what was validated may not have held at the last try
                return bool(batches.get(transaction, batch_id).status != "staged")
        system, batch = step
        try:
            _load_validated(system, batch)
        except (loading.NotAsValidated, ObjectGone, ObjectReplaced) as why:
            with system.database.begin() as transaction:
                transaction.execute("validate_again", batch_id=batch_id)
            if isinstance(why, ObjectReplaced):  # somebody must hear of it; the next try does without these files
                raise
            return False  # they are gone where keys were rotated, or a database was put back to before they were loaded
        system.storage.delete(artifact(batch_id, ACCEPTED))  # from here on the orders themselves
        return True


def _load_validated(system: System, batch: Row[Any]) -> None:
    rows = batch.rows_accepted + batch.rows_rejected
    profile = system.clients.profile_of_batch(batch.client_code)
    most_bad_rows = profile.most_bad_rows(rows)
    with (
        lent(system.storage, system.database, batch.batch_id, ACCEPTED) as accepted,
        lent(system.storage, system.database, batch.batch_id, REJECTIONS) as rejections,
        _answers(system.storage, system.database, batch) as answers,
    ):
        loading.load(
            system.database, batch, accepted, rejections, answers, most_bad_rows, skips_same=profile.same_orders == "skip"
        )


def give_up_loading(storage: Storage, database: Database, batch_id: str) -> None:
    """Keep the rejections of a batch whose accepted rows are not all orders, and never will be."""
    with database.begin() as transaction:
        batch = batches.get(transaction, batch_id)
    if batch.rows_rejected:
        with (
            contextlib.suppress(ObjectGone, ObjectReplaced),
            lent(storage, database, batch_id, REJECTIONS) as rejections,
            _answers(storage, database, batch) as answers,
        ):
            loading.load_rejections(database, batch, rejections, answers)
    storage.delete(artifact(batch_id, ACCEPTED))


def _answers(storage: Storage, database: Database, batch: Row[Any]) -> contextlib.AbstractContextManager[Path | None]:
    """Lend the file that says which rejected rows a correcting file answers, or None for another file."""
    if batch.corrects is None:
        return contextlib.nullcontext()
    return lent(storage, database, batch.batch_id, ANSWERS)


@contextlib.contextmanager
def _step(system: System, batch_id: str, stage: str, *, only_when: str) -> Iterator[tuple[System, Row[Any]] | None]:
    """Lock a batch and give it if it has the status, else None; its file is rejected where the block raises FileRejected.

    The system that is given has a database that works only while the batch is locked. Seconds spent and errors are noted.
    """
    keep_freed_memory()
    with batch_lock(system.database, batch_id) as database:
        started = time.monotonic()
        with database.begin() as transaction:
            batch = batches.get(transaction, batch_id)
        if batch.status != only_when:
            yield None
            return
        try:
            try:
                yield replace(system, database=database), batch
            except FileRejected as refusal:
                _reject(database, batch_id, refusal)
        except BatchBusy:
            raise
        except Exception as error:
            with contextlib.suppress(DatabaseError, BatchBusy), database.begin() as transaction:
                transaction.execute("note_trouble", batch_id=batch_id, code=errors.code_of(error))
            raise
        with database.begin() as transaction:
            transaction.execute("add_stage_seconds", batch_id=batch_id, stage=stage, seconds=time.monotonic() - started)


def refusal_of_file(refusal: FileRejected) -> Rejection:
    """Return a file's refusal as it is listed among its errors."""
    line = refusal.detail.get("line", "")
    return Rejection(None, int(line) if line.isdigit() else None, None, refusal.code, refusal.detail)


def _reject(database: Database, batch_id: str, refusal: FileRejected) -> None:
    with database.begin() as transaction:
        transaction.execute("set_refused", batch_id=batch_id)
        _insert_file_rejection(transaction, batch_id, refusal_of_file(refusal))
        batches.set_status(transaction, batch_id, "rejected", refusal.code, refusal.detail)


def _insert_file_rejection(transaction: Transaction, batch_id: str, rejection: Rejection) -> None:
    transaction.execute(
        "insert_file_rejection",
        batch_id=batch_id,
        line=rejection.line,
        column_name=rejection.column,
        code=rejection.code,
        detail=json.dumps(dict(rejection.detail)),
    )

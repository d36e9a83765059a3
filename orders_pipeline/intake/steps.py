"""Intake: a batch from received to loaded. Archive the bytes, check and number the rows, validate them, load them.

Each step can be run again and does nothing when the batch is past it. What a good file or row is belongs in
`csv_file/`, `validation.py` and the catalogue; COPY belongs in `loading.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Row

from orders_pipeline.batches import batches
from orders_pipeline.batches.artifacts import (
    ACCEPTED,
    ANSWERS,
    CONVERTED,
    MANIFEST,
    ORIGINAL,
    REJECTIONS,
    STAGED,
    artifact,
    keep,
    lent,
)
from orders_pipeline.batches.workers import BatchBusy, batch_lock
from orders_pipeline.clients.file_names import composed, is_workbook
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure import interrupts
from orders_pipeline.infrastructure.database import DatabaseError, Transaction
from orders_pipeline.infrastructure.scratch import Scratch, scratch_files
from orders_pipeline.infrastructure.storage import ObjectChanged, ObjectGone, ObjectReplaced, StoredObject
from orders_pipeline.intake import control, corrections, csv_file, loading, received_before, validation
from orders_pipeline.intake.csv_file import Limits, StagedFile
from orders_pipeline.intake.landing import is_version, patiently
from orders_pipeline.intake.manifest import Manifest
from orders_pipeline.intake.validation import Validated
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.record_type import RowContext
from orders_pipeline.records.rejections import FileRejected, Rejection
from orders_pipeline.security import personal_data
from orders_pipeline.system import errors
from orders_pipeline.system.opening import System
from orders_pipeline.system.settings import Settings


def stage_batch(system: System, batch_id: str) -> None:
    """Archive the batch's bytes unchanged, check encoding and shape, and number the rows; a bad file is given back."""
    with _step(system, batch_id, "stage", only_when="received") as step:
        if step is None:
            return
        try:
            _stage(step.system, step.batch)
        except FileRejected as refusal:
            _give_back(step.system, batch_id, refusal)


def _stage(system: System, batch: Row[Any]) -> None:
    profile = system.clients.profile(batch.client_code)
    batch_id = batch.batch_id
    with scratch_files() as folder:
        if batch.landing_key is not None:
            _archive(system, profile, batch, folder)
        with system.database.begin() as transaction:
            batch = batches.get(transaction, batch_id)  # with what archiving found out
        with lent(system, batch_id, ORIGINAL) as source:
            staging = stage_checked(system, profile, batch, control.manifest_of(batch), source, folder)
        digests = keep(system.storage, batch_id, {made: folder / made for made in staging.made})
    staged, position = staging.file, control.position_of(profile, batch.csv_source)
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
            file_sha256=json.dumps(digests),
        )
        for warning in (*staged.warnings, *control.sequence_gap(transaction, batch.client_code, position)):
            _insert_file_rejection(transaction, batch_id, warning)


class ArrivedFile(Protocol):
    """What staging needs to know of a file."""

    @property
    def batch_id(self) -> str:
        """Return the id of its batch."""

    @property
    def client_code(self) -> str:
        """Return the client it is of."""

    @property
    def csv_source(self) -> str:
        """Return its name, as the client chose it."""

    @property
    def source_sha256(self) -> str:
        """Return the SHA-256 of its bytes."""


@dataclass(frozen=True)
class Staging:
    """A file that is staged: what was found out about it, where its text lies, the batch it corrects, its group."""

    file: StagedFile
    layout: Mapping[str, Any]
    corrects: str | None
    import_group: str

    @property
    def made(self) -> tuple[str, ...]:
        """Return the names of the files that were made of it."""
        return (CONVERTED, STAGED) if self.layout["text"] == CONVERTED else (STAGED,)


def stage_checked(
    system: System, profile: Profile, arrived: ArrivedFile, manifest: Manifest | None, source: Path, folder: Scratch
) -> Staging:
    """Stage a file that has arrived, held against its manifest's hash and the batch that it names; raise FileRejected."""
    if manifest is not None:
        manifest.check_bytes(arrived.source_sha256)
    staged = stage_file(limits_of(system.settings, profile), profile, source, arrived.csv_source, folder)
    corrects, group = _import_group(system, arrived.batch_id, arrived.client_code, staged)
    text = CONVERTED if is_workbook(arrived.csv_source) else ORIGINAL
    layout = {
        "text": text,
        "delimiter": "," if text == CONVERTED else profile.delimiter,
        "header_span": staged.header_span,
        "surplus": staged.row_width - len(staged.header),
        "headers": {column: [staged.header[at] for at in places] for column, places in staged.columns.items()},
        "line_ending": staged.line_ending,
        "has_bom": staged.has_bom,
    }
    return Staging(staged, layout, corrects, group)


def limits_of(settings: Settings, profile: Profile) -> Limits:
    """Return how large a client's files may be."""
    return Limits(max_bytes=profile.max_bytes or settings.max_bytes, max_rows=profile.max_rows or settings.max_rows)


def stage_file(limits: Limits, profile: Profile, source: Path, name: str, folder: Path | Scratch) -> StagedFile:
    """Write the numbered rows of a local file, which the client called `name`, into a folder; raise FileRejected.

    A workbook's text is kept beside them.
    """
    delimiter, encoding = profile.delimiter, profile.encoding
    hidden = 0
    if is_workbook(name):
        from orders_pipeline.intake import excel_file  # noqa: PLC0415 - its library is slow to import, and CSV does without

        names = csv_file.Names(profile.header_names(), profile.required_columns())
        wanted = excel_file.OrderSheet(names, {column.name: column.kind for column in ORDERS.columns}, profile.sheet)
        workbook, source, delimiter, encoding = source, folder / CONVERTED, ",", None
        hidden = excel_file.write_csv(workbook, source, max_bytes=limits.max_bytes, max_rows=limits.max_rows, wanted=wanted)
        limits = replace(limits, max_bytes=source.stat().st_size)  # a workbook is smaller than its text
    staged = csv_file.stage(
        source,
        folder / STAGED,
        header_names=profile.header_names(),
        required=profile.required_columns(),
        joined=profile.joined_headers(),
        limits=limits,
        delimiter=delimiter,
        encoding=encoding,
        amount=None if is_workbook(name) else ORDERS.amount,
    )
    if not hidden:
        return staged
    warning = Rejection(None, None, None, "W_HIDDEN_ROWS", {"count": str(hidden)})
    return replace(staged, warnings=(*staged.warnings, warning))


def _archive(system: System, profile: Profile, batch: Row[Any], folder: Scratch) -> None:
    """Copy exactly the version that was registered; bytes the client sent before are given back.

    ObjectDenied is no verdict on the file: rights, roles and clocks are ours or get mended, and the batch waits for that.
    """
    try:
        landed, sha256, manifest = patiently(lambda: _read_landed(system, profile, batch, folder))
    except ObjectGone:
        raise FileRejected("F_GONE") from None
    except ObjectChanged:
        raise FileRejected("F_CHANGED") from None
    with system.database.begin() as transaction:
        again = profile.same_bytes == "take"
        duplicate_of = batches.record_source(transaction, batch, sha256, landed.size, again=again)
        control.note(transaction, batch.batch_id, profile, batch.csv_source, manifest)
    system.storage.put(artifact(batch.batch_id, ORIGINAL), folder / ORIGINAL)
    if duplicate_of is not None:
        raise FileRejected("F_DUPLICATE_FILE", {"batch_id": duplicate_of})


def _read_landed(
    system: System, profile: Profile, batch: Row[Any], folder: Scratch
) -> tuple[StoredObject, str, Manifest | None]:
    landed = system.landing.head(batch.landing_key)
    if landed is None:
        raise ObjectGone
    if not is_version(landed, batch.landing_version):
        raise ObjectChanged
    max_bytes = limits_of(system.settings, profile).max_bytes
    if landed.size > max_bytes:
        raise FileRejected("F_TOO_LARGE", {"limit": str(max_bytes)})
    manifest = control.landed_manifest(system.landing, batch.landing_key, folder / MANIFEST)
    return landed, system.landing.fetch(landed, folder / ORIGINAL), manifest


def _import_group(system: System, batch_id: str, client_code: str, staged: StagedFile) -> tuple[str | None, str]:
    """Return the one batch that a file's `_batch` column names, if it does, and the group the file belongs to."""
    if not staged.corrected_batches:
        return None, batch_id
    corrects = staged.corrected_batches[0]
    with system.database.begin() as transaction:
        group = transaction.scalar("group_of_batch", batch_id=corrects, client_code=client_code)
    if group is None:
        raise FileRejected("F_BATCH_COLUMN", {**staged.corrected_from[0], "hint": "no_batch"})
    if len(staged.corrected_batches) > 1:
        raise FileRejected("F_BATCH_COLUMN", {**staged.corrected_from[1], "hint": "another_batch"})
    return corrects, str(group)


def validate_batch(system: System, batch_id: str) -> None:
    """Judge every row of a staged batch and keep what is accepted and what is given back beside it."""
    with _step(system, batch_id, "validate", only_when="staged") as step:
        if step is None:
            return
        try:
            _validate(step.system, step.batch)
        except FileRejected as refusal:
            _give_back(step.system, batch_id, refusal)


def _validate(system: System, batch: Row[Any]) -> None:
    profile = system.clients.profile(batch.client_code)
    with (
        scratch_files() as folder,
        lent(system, batch.batch_id, STAGED) as staged,
    ):
        files = {name: folder / name for name in (ACCEPTED, REJECTIONS, ANSWERS)}
        result = validate_file(system, profile, batch, staged, files[ACCEPTED], files[REJECTIONS])
        loading.write_answers(files[ANSWERS], result.answers)
        try:
            control.check_validated(profile, control.manifest_of(batch), result)
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
            rows_rejected=result.rows_rejected,
            amount_accepted=result.amount_accepted,
            cells_normalised=json.dumps(result.normalised),
            file_sha256=json.dumps(digests),
        )


class StagedBatch(Protocol):
    """What validation needs to know of a batch."""

    @property
    def batch_id(self) -> str:
        """Return the id that sealed rows are bound to."""

    @property
    def client_code(self) -> str:
        """Return the client whose references are looked up."""

    @property
    def encoding(self) -> str:
        """Return the encoding the file was read in."""

    @property
    def corrects(self) -> str | None:
        """Return the batch whose rejected rows the file corrects."""


def validate_file(
    system: System,
    profile: Profile,
    batch: StagedBatch,
    staged: Path,
    accepted: Path,
    rejections: Path,
) -> Validated:
    """Judge staged rows and write what is accepted and what is given back."""
    context = context_of(profile, batch.encoding)
    return validation.validate(
        staged,
        accepted,
        rejections,
        record_type=ORDERS,
        context=context,
        seal=personal_data.sealer(system.cipher, batch.batch_id),
        existing=_existing(system, batch),
        differing=received_before.differing(system, batch.batch_id, batch.client_code),
        given_up=_given_up(system, batch),
        corrections=None
        if batch.corrects is None
        else corrections.of_file(system, context, batch.client_code, batch.corrects, staged),
    )


def context_of(profile: Profile, encoding: str) -> RowContext:
    """Return what the rules of today are told of a client's file in this encoding."""
    payer = profile.columns.get(ORDERS.payer)
    return RowContext(
        batches.today(),
        encoding,
        profile.notify_channel,
        {column: source.translate for column, source in profile.columns.items()},
        profile_payers=() if payer is None else payer.words,
        has_joined_payers=payer is not None and bool(payer.join),
    )


def _existing(system: System, batch: StagedBatch) -> Callable[[Sequence[str]], Mapping[str, str]]:
    """Return a function that says which references other batches have, and which ones."""

    def existing(refs: Sequence[str]) -> Mapping[str, str]:
        with system.database.begin() as transaction:
            rows = transaction.rows("existing_refs", **_asked(batch, refs))
        return {row.ref: row.batch_id for row in rows}

    return existing


def _given_up(system: System, batch: StagedBatch) -> Callable[[Sequence[str]], Mapping[str, str]]:
    """Return a function that says which references were given up, and in which batches."""

    def given_up(refs: Sequence[str]) -> Mapping[str, str]:
        with system.database.begin() as transaction:
            rows = transaction.rows("given_up_refs", **_asked(batch, refs))
        return {row.ref: row.batch_id for row in rows}

    return given_up


def _asked(batch: StagedBatch, refs: Sequence[str]) -> dict[str, str]:
    # an array of thousands is slow to hand over
    return {"refs": "\x1f".join(refs), "client_code": batch.client_code, "batch_id": batch.batch_id}


def load_batch(system: System, batch_id: str) -> None:
    """Turn a validated batch's accepted rows into orders and keep its rejections; validate again what does not hold now."""
    while not _load(system, batch_id):
        validate_batch(system, batch_id)


def _load(system: System, batch_id: str) -> bool:
    with _step(system, batch_id, "load", only_when="validated") as step:
        if step is None:
            with system.database.begin() as transaction:  # what was validated may not have held at the last try
                return bool(batches.get(transaction, batch_id).status != "staged")
        try:
            _load_validated(step.system, step.batch)
        except (loading.NotAsValidated, ObjectGone, ObjectReplaced) as why:
            with step.system.database.begin() as transaction:
                transaction.execute("validate_again", batch_id=batch_id)
            if isinstance(why, ObjectReplaced):  # somebody must hear of it; the next try does without these files
                raise
            return False  # they are gone where keys were rotated, or a database was put back to before they were loaded
        system.storage.delete(artifact(batch_id, ACCEPTED))  # from here on the orders themselves
        return True


def _load_validated(system: System, batch: Row[Any]) -> None:
    rows = batch.rows_accepted + batch.rows_rejected
    most_bad_rows = system.clients.profile_of_batch(batch.client_code).most_bad_rows(rows)
    with (
        lent(system, batch.batch_id, ACCEPTED) as accepted,
        lent(system, batch.batch_id, REJECTIONS) as rejections,
        _answers(system, batch) as answers,
    ):
        loading.load(system.database, batch, accepted, rejections, answers, most_bad_rows)


@dataclass(frozen=True)
class _Step:
    """A batch at a step, and the system to work on it with, whose database is there as long as the batch is ours."""

    system: System
    batch: Row[Any]


def give_up_loading(system: System, batch_id: str) -> None:
    """Keep what validation gave back of a batch whose rows are not all orders, and never will be."""
    with system.database.begin() as transaction:
        batch = batches.get(transaction, batch_id)
    if batch.rows_rejected:
        with (
            contextlib.suppress(ObjectGone, ObjectReplaced),
            lent(system, batch_id, REJECTIONS) as rejections,
            _answers(system, batch) as answers,
        ):
            loading.load_rejections(system.database, batch, rejections, answers)
    system.storage.delete(artifact(batch_id, ACCEPTED))


def _answers(system: System, batch: Row[Any]) -> contextlib.AbstractContextManager[Path | None]:
    """Return what validation found the rows of a correcting file to answer."""
    if batch.corrects is None:
        return contextlib.nullcontext()
    return lent(system, batch.batch_id, ANSWERS)


@contextlib.contextmanager
def _step(system: System, batch_id: str, stage: str, *, only_when: str) -> Iterator[_Step | None]:
    """Give the batch when it is at this step, else None, and note the seconds spent; nobody else works on it meanwhile."""
    with batch_lock(system.database, batch_id) as database:
        started = time.monotonic()
        with database.begin() as transaction:
            batch = batches.get(transaction, batch_id)
        if batch.status != only_when:
            yield None
            return
        try:
            yield _Step(replace(system, database=database), batch)
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


def _give_back(system: System, batch_id: str, refusal: FileRejected) -> None:
    with system.database.begin() as transaction:
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


@dataclass(frozen=True)
class Arrival:
    """A local file as it was copied, with its client's profile and what the client says of it; `size` is in bytes."""

    profile: Profile
    manifest: Manifest | None
    sha256: str
    size: int


def arrive(system: System, path: Path, client_code: str, copy: Path) -> Arrival:
    """Copy a client's local file; raise FileRejected where nothing can be made of it."""
    profile = system.clients.profile(client_code)
    manifest = control.manifest_beside(path)
    sha256, size = copy_unchanging(path, copy, limits_of(system.settings, profile).max_bytes)
    return Arrival(profile, manifest, sha256, size)


def import_file(
    system: System, path: Path, client_code: str, *, again: bool, note: Callable[[str], None] = lambda _: None
) -> str:
    """Register a local file as a client's batch, its bytes archived, and return the batch's id; raise FileRejected.

    `note` is told the id once it is known to others, and before an interruption can come between.
    """
    with scratch_files() as folder:
        arrival = arrive(system, path, client_code, folder / ORIGINAL)
        source = batches.Source(composed(path.name), sha256=arrival.sha256, size=arrival.size)
        again = again or arrival.profile.same_bytes == "take"
        while True:
            with system.database.begin() as transaction:
                batch_id, again_no = batches.plan_import(transaction, client_code, arrival.sha256, again=again)
            system.storage.put(artifact(batch_id, ORIGINAL), folder / ORIGINAL)  # a batch without its bytes cannot go on
            with interrupts.deferred():
                with system.database.begin() as transaction:
                    is_registered = batches.register_import(transaction, batch_id, client_code, source, again_no=again_no)
                    if is_registered:
                        control.note(transaction, batch_id, arrival.profile, path.name, arrival.manifest)
                if is_registered:
                    note(batch_id)
                    return batch_id


def copy_unchanging(path: Path, target: Path, max_bytes: int) -> tuple[str, int]:
    """Copy a file and return its SHA-256 and bytes.

    Raises FileRejected for a name that is no text, and when the file cannot be read, is too large or changes meanwhile.
    """
    if path.name.encode("utf-8", "ignore") != os.fsencode(path.name):
        raise FileRejected("F_NAME")
    before = path.stat()
    if before.st_size > max_bytes:
        raise FileRejected("F_TOO_LARGE", {"limit": str(max_bytes)})
    target.touch(mode=0o600)
    try:
        shutil.copyfile(path, target)
    except (PermissionError, shutil.SpecialFileError):
        raise FileRejected("F_DENIED") from None
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise FileRejected("F_CHANGED")
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), after.st_size

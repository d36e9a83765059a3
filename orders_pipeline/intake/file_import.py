"""Import of a file by a command or through the API: registered as a batch of its client, its bytes archived.

Files in the landing are registered in `landing/`. What becomes of the batch is in `steps.py`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orders_pipeline.audit.recording import os_user
from orders_pipeline.batches import batches
from orders_pipeline.batches.artifacts import ORIGINAL, artifact
from orders_pipeline.clients.file_names import composed
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure import interrupts
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.infrastructure.scratch import scratch_files
from orders_pipeline.intake import declarations
from orders_pipeline.intake.file_staging import limits_of
from orders_pipeline.intake.manifest import Manifest, manifest_beside
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.system.composition import System


@dataclass(frozen=True)
class Arrival:
    """A local file that was copied, with its client's profile and its manifest; `size` is in bytes."""

    profile: Profile
    manifest: Manifest | None
    sha256: str
    size: int


@dataclass(frozen=True)
class Submission:
    """How a file comes in, who sends it, and what is written with its batch."""

    via: Literal["command", "api"]
    submitted_by: str
    record: Callable[[Transaction, str], None] = lambda _transaction, _batch_id: None


def arrive(system: System, path: Path, client_code: str, copy: Path) -> Arrival:
    """Copy a client's local file, and read its manifest; raise FileRejected where it cannot become a batch."""
    profile = system.clients.profile(client_code)
    manifest = manifest_beside(path)
    sha256, size = copy_unchanging(path, copy, limits_of(system.settings, profile).max_bytes)
    return Arrival(profile, manifest, sha256, size)


def import_file(
    system: System, path: Path, client_code: str, *, again: bool, note: Callable[[str], None] = lambda _: None
) -> str:
    """Register a local file as a client's batch, its bytes archived, and return the batch's id; raise FileRejected.

    `note` gets the id as soon as the batch is registered, before an interruption can come between.
    """
    with scratch_files() as folder:
        arrival = arrive(system, path, client_code, folder / ORIGINAL)
        by_command = Submission("command", os_user())
        original = folder / ORIGINAL
        return register(system, arrival, path.name, client_code, original, again=again, submission=by_command, note=note)


def register(
    system: System,
    arrival: Arrival,
    name: str,
    client_code: str,
    original: Path,
    *,
    again: bool,
    submission: Submission,
    note: Callable[[str], None] = lambda _: None,
) -> str:
    """Register a file that has arrived, as `import_file` does, with what its submission writes in the same transaction."""
    source = batches.Source(
        composed(name),
        sha256=arrival.sha256,
        size=arrival.size,
        via=submission.via,
        submitted_by=submission.submitted_by,
    )
    again = again or arrival.profile.same_bytes == "take"
    while True:
        with system.database.begin() as transaction:
            batch_id, again_no = batches.plan_import(transaction, client_code, arrival.sha256, again=again)
        system.storage.put(artifact(batch_id, ORIGINAL), original)  # a batch without its bytes cannot be staged
        with interrupts.deferred():
            with system.database.begin() as transaction:
                if submission.via == "api":
                    transaction.execute("identify_caller", actor=submission.submitted_by)
                is_registered = batches.register_import(transaction, batch_id, client_code, source, again_no=again_no)
                if is_registered:
                    declarations.note(transaction, batch_id, arrival.profile, name, arrival.manifest)
                    submission.record(transaction, batch_id)
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

"""Archiving: exactly the version of a landed file that was registered is copied into the storage, with its manifest."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Row

from orders_pipeline.batches import batches
from orders_pipeline.batches.artifacts import MANIFEST, ORIGINAL, artifact
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.scratch import Scratch
from orders_pipeline.infrastructure.storage import ObjectChanged, ObjectDenied, ObjectGone, StoredObject
from orders_pipeline.intake import declarations
from orders_pipeline.intake.file_staging import limits_of
from orders_pipeline.intake.landing.listing import is_version
from orders_pipeline.intake.manifest import Manifest, landed_manifest
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.system.composition import System

READ_TRIES = 3
READ_PAUSE_S = 1.0
Read = TypeVar("Read")


def archive_landed(system: System, profile: Profile, batch: Row[Any], folder: Scratch) -> None:
    """Archive the bytes of a landed batch, and note what its client declares; raise FileRejected.

    Raises ObjectDenied as well: the file is not refused for that. Rights, roles and clocks get mended, and the batch waits.
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
        declarations.note(transaction, batch.batch_id, profile, batch.csv_source, manifest)
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
    manifest = landed_manifest(system.landing, batch.landing_key, folder / MANIFEST)
    return landed, system.landing.fetch(landed, folder / ORIGINAL), manifest


def patiently(read: Callable[[], Read]) -> Read:
    """Return what `read` returns; what is not there or denied is tried READ_TRIES times, as both may pass."""
    for _ in range(READ_TRIES - 1):
        try:
            return read()
        except (ObjectGone, ObjectDenied):
            time.sleep(READ_PAUSE_S)
    return read()

"""Arrivals in the landing: files that are new and whole become batches.

One look goes through the landing for a moment and the next one resumes there, so that a look is short whatever lies in it.
Which files are new is decided in `decision.py`; runs are requested in `orchestration/sensors.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from itertools import groupby

from orders_pipeline.batches import batches
from orders_pipeline.clients.file_names import composed, is_compressed, is_workbook, is_zip
from orders_pipeline.clients.profiles import Clients
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.scratch import scratch_files
from orders_pipeline.infrastructure.storage import ObjectChanged, ObjectDenied, ObjectGone, Page, Storage
from orders_pipeline.intake.landing.decision import LEAST_AGE_S, Decision, Seen, Version, new_files
from orders_pipeline.intake.landing.left_alone import not_orders
from orders_pipeline.intake.landing.listing import Landed, with_manifests

MAX_NEW = 100  # batches registered in one look
PAGES_AT_LEAST = 5  # a look at a landing of usual size sees all of it, however slow the store
LOOK_S = 2.0  # beyond that, for so long: to begin costs as much as a folder has files, so that few looks shall make a round
COMPARE_S = 5.0  # of a look, at most so long is spent on files of which only the metadata may have changed
MOST_OF_A_NAME = 600  # characters that the ledger keeps of what is left alone
EDGE_BYTES = 22  # the end of a zip file, as a workbook is one, has so many
_END_OF_ZIP = b"PK\x05\x06"
_BEHIND_A_LINE = b"\0\x1a"  # half of a line end in UTF-16, and the end of a text in DOS


def is_complete(name: str, size: int, first: bytes, last: bytes) -> bool:
    """Return whether a file ends as one does that was written to its end: with a line end, or as a zip file."""
    if is_compressed(name) and not is_zip(name):
        return False  # its end says nothing of it
    if is_workbook(name) or is_zip(name):
        if len(last) < EDGE_BYTES or not last.startswith(_END_OF_ZIP):
            return False
        directory = int.from_bytes(last[12:16], "little") + int.from_bytes(last[16:20], "little")
        return directory + EDGE_BYTES == size
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):  # in UTF-16 half of another character may look like a line end
        return last[-2:] in ({b"\n\0", b"\r\0"} if first.startswith(b"\xff\xfe") else {b"\0\n", b"\0\r"})
    return last.rstrip(_BEHIND_A_LINE).endswith((b"\n", b"\r"))


def in_turn(ready: Iterable[Landed]) -> list[Landed]:
    """Return files in the order they are taken: the oldest of every client, then the next of every client, and so on."""
    by_age = sorted(ready, key=lambda landed: (landed.client_code, landed.stored.modified, landed.key))
    by_client = groupby(by_age, key=lambda landed: landed.client_code)
    turns = [(turn, landed) for _, files in by_client for turn, landed in enumerate(files)]
    turns.sort(key=lambda turn: (turn[0], turn[1].stored.modified, turn[1].key))
    return [landed for _, landed in turns]


def register_arrivals(database: Database, landing: Storage, clients: Clients | None = None) -> list[str]:
    """Look through a stretch of the landing, register what has arrived there and return the batches' ids.

    A look takes about LOOK_S and registers at most MAX_NEW files. The next one resumes at the position in the
    listing where it stopped; without the position it starts at the beginning, and misses no file.
    """
    with database.begin() as transaction:
        start = str(transaction.scalar("landing_position") or "")
    position = start
    ready: list[Landed] = []
    compare: list[tuple[Landed, Seen]] = []
    deadline = time.monotonic() + LOOK_S
    for number, page in enumerate(landing.pages(start), 1):
        decision = _note(database, landing, position, page)
        ready += decision.ready
        compare += decision.compare
        position = page.upto or ""
        if number >= PAGES_AT_LEAST and time.monotonic() >= deadline:
            break
    ready += _with_other_bytes(database, landing, compare)
    whole: list[Landed] = []
    for landed in in_turn(ready):
        if len(whole) < MAX_NEW and _is_whole(database, landing, landed, clients or Clients()):
            whole.append(landed)
    with database.begin() as transaction:
        registered = [_register(transaction, landed) for landed in whole]
        if position != start:
            transaction.execute("set_landing_position", after_key=position)
    return registered


def _note(database: Database, landing: Storage, after: str, page: Page) -> Decision:
    """Bring the ledger up to date with a page of the listing, and decide which of its files are ready."""
    listing = with_manifests(page, after, landing.head)
    no_orders = (*not_orders(page, after, landing.head), *page.others)
    with database.begin() as transaction:
        waiting = transaction.rows("waiting_landing_files", after_key=after, upto_key=page.upto)
        decision = new_files(listing, _known(transaction, listing), [(row.key, row.version) for row in waiting], LEAST_AGE_S)
        if decision.remember:
            transaction.execute(
                "see_landing_files",
                keys=[landed.key for landed in decision.remember],
                versions=[landed.version for landed in decision.remember],
                sizes=[landed.stored.size for landed in decision.remember],
            )
        if decision.forget:
            transaction.execute(
                "forget_landing_files", keys=[key for key, _ in decision.forget], versions=[v for _, v in decision.forget]
            )
        left = dict.fromkeys(no_orders, False) | dict.fromkeys(decision.refused, True)
        names = [name[:MOST_OF_A_NAME] for name in left]
        lying = {"keys": names, "are_refused": list(left.values())}
        transaction.execute("forget_left_alone", after_key=after, upto_key=page.upto, **lying)
        if names:
            transaction.execute("see_left_alone", **lying)
    return decision


def _known(transaction: Transaction, listing: Sequence[Landed]) -> dict[Version, Seen]:
    """Return what the ledger has of listed files, oldest first."""
    keys, contents = [landed.key for landed in listing], [landed.content for landed in listing]
    return {
        (row.key, row.version): Seen(
            float(row.seconds),
            row.batch_id,
            bool(row.is_void),
            row.source_sha256,
            row.refused_for,
            bool(row.is_cancelled),
            bool(row.has_refused_twin),
        )
        for row in transaction.rows("known_landing_files", keys=keys, contents=contents)
    }


def _with_other_bytes(database: Database, landing: Storage, compare: Sequence[tuple[Landed, Seen]]) -> list[Landed]:
    """Return the files whose bytes are others than those of their batch; rights, links or place on the disk do not count."""
    others = []
    deadline = time.monotonic() + COMPARE_S
    for landed, before in compare:
        if time.monotonic() >= deadline:
            break  # the next look compares the others
        with contextlib.suppress(ObjectGone, ObjectChanged), scratch_files() as folder:
            try:
                is_same = landing.fetch(landed.stored, folder / "landed") == before.sha256
            except ObjectDenied:
                is_same = False
            if not is_same:
                others.append(landed)
                continue
            with database.begin() as transaction:
                _note_batch(transaction, landed, str(before.batch_id))
    return others


def _is_whole(database: Database, landing: Storage, landed: Landed, clients: Clients) -> bool:
    """Return whether nobody seems to be writing the file any more.

    A file without a last line end must stay unchanged for the seconds that its client's profile says.
    """
    stored = landed.stored
    if stored.settled or landed.manifest:
        return True
    try:
        if is_complete(stored.key, stored.size, *landing.edges(stored, EDGE_BYTES)):
            return True
    except (ObjectGone, ObjectChanged):
        return False
    except ObjectDenied:
        return True  # its batch will say so
    with database.begin() as transaction:
        seconds = transaction.scalar("landing_file_seconds", key=landed.key, version=landed.version)
    return float(seconds or 0.0) >= clients.profile_of_batch(landed.client_code).settle_s


def _register(transaction: Transaction, landed: Landed) -> str:
    name = composed(landed.key.rpartition("/")[2])
    source = batches.Source(name, landed.key, landed.batch_version, landed.stored.modified, size=landed.stored.size)
    batch_id = batches.register_landed(transaction, landed.client_code, source)
    _note_batch(transaction, landed, batch_id)
    return batch_id


def _note_batch(transaction: Transaction, landed: Landed, batch_id: str) -> None:
    transaction.execute(
        "register_landing_file", key=landed.key, version=landed.batch_version, size=landed.stored.size, batch_id=batch_id
    )

"""The landing: which of the files that clients put there are new, and what is left alone there.

`new_files` decides over a stretch of a listing and the landing ledger, without a clock: every version of every file is one
batch, however listings are ordered, repeated or late; and another one where the first was refused for what was no fault of
the file and is over. One look goes through the landing for a moment and the next goes on there, so that a look is short
whatever lies in it. Listing belongs in `infrastructure/storage/`, asking for runs in `orchestration/sensors.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypeVar

from orders_pipeline.batches import batches
from orders_pipeline.clients.file_names import composed, forms_of, is_order_name, is_workbook, shown
from orders_pipeline.clients.profiles import CLIENT_CODE, Clients, Profile
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.scratch import scratch_files
from orders_pipeline.infrastructure.storage import ObjectChanged, ObjectDenied, ObjectGone, Page, Storage, StoredObject
from orders_pipeline.infrastructure.storage.interface import METADATA, is_key
from orders_pipeline.intake.manifest import SUFFIX, manifest_names, order_names
from orders_pipeline.records.rejections import FileRejected

Version = tuple[str, str]  # key, version
Find = Callable[[str], StoredObject | None]
MAX_NEW = 100  # batches registered in one look
PAGES_AT_LEAST = 5  # a look at a landing of usual size sees all of it, however slow the store
LOOK_S = 2.0  # beyond that, for so long: to begin costs as much as a folder has files, so that few looks shall make a round
LEAST_AGE_S = 8.0  # a file that may grow must have stayed as it is for so long, two looks of the sensor
COMPARE_S = 5.0  # of a look, at most so long is spent on files of which only the metadata may have changed
LEFT_S = 10.0  # for so long the doctor looks
NAMES_SHOWN = 20
MOST_OF_A_NAME = 600  # characters that the ledger keeps of what is left alone
NOT_THERE = {"F_GONE", "F_CHANGED", "F_DENIED"}  # refusals of what the landing did not show, and is over once it does
AGAIN_S = 60.0  # a version is taken for the second time at once, later not before this has passed, then twice as long ...
AGAIN_LONGEST_S = 3600.0
READ_TRIES = 3
READ_PAUSE_S = 1.0
EDGE_BYTES = 22  # the end of a workbook, which is a zip file, has so many
_END_OF_ZIP = b"PK\x05\x06"
_AGAIN = " #"  # in the version of a batch, before how often the same version was one already
_BEHIND_A_LINE = b"\0\x1a"  # half of a line end in UTF-16, and the end of a text in DOS

Read = TypeVar("Read")


@dataclass(frozen=True)
class Landed:
    """An order file in the landing, with the version of its manifest if it has one, which may be another file's too."""

    stored: StoredObject
    manifest: str = ""
    shares_manifest: bool = False
    again: int = 0  # how many batches this version was already

    @property
    def key(self) -> str:
        """Return the key as it is stored."""
        return self.stored.key

    @property
    def version(self) -> str:
        """Return what makes the file another one: its own version, and behind a blank that of its manifest."""
        return f"{self.stored.version} {self.manifest}".rstrip()

    @property
    def batch_version(self) -> str:
        """Return the version of the batch that it becomes: no other one has the same."""
        return f"{self.version}{_AGAIN}{self.again}" if self.again else self.version

    @property
    def content(self) -> str:
        """Return the part of the version that any change of the bytes by who writes them changes."""
        return _content(self.stored.version)


def _content(version: str) -> str:
    return version.partition(" ")[0].partition(METADATA)[0]


def _is_same_file(version: str, other: str) -> bool:
    """Say whether two versions are one file with a like manifest, of which rights, links or bytes may have changed."""
    (one, its_manifest), (another, the_others) = (
        (stored.rpartition("-")[0], _content(manifest))
        for stored, _, manifest in (each.partition(_AGAIN)[0].partition(" ") for each in (version, other))
    )
    return METADATA in one and (one, its_manifest) == (another, the_others)


def is_version(stored: StoredObject, version: str) -> bool:
    """Say whether a stored file is this version of it, whatever its manifest is now."""
    return stored.version == version.partition(" ")[0]


@dataclass(frozen=True)
class Seen:
    """A version in the ledger: for how many seconds it has been seen, and what became of its batch if it has one.

    The batch is void where nothing came of it: it was refused, for the `code`, or cancelled before anything was paid.
    """

    seconds: float
    batch_id: str | None = None
    is_void: bool = False
    sha256: str | None = None
    code: str | None = None
    is_cancelled: bool = False
    has_refused_twin: bool = False  # so was the batch that had the same bytes before


@dataclass(frozen=True)
class Decision:
    """What a stretch of the landing comes to."""

    ready: tuple[Landed, ...]  # not yet a batch, and as it was at the look before and for long enough
    remember: tuple[Landed, ...]  # seen for the first time, maybe still growing: decided at a later look
    forget: tuple[Version, ...]  # replaced or removed before they became a batch
    compare: tuple[tuple[Landed, Seen], ...] = ()  # ready, but maybe the bytes of this batch with other metadata
    refused: tuple[str, ...] = ()  # keys of files that were a batch, of which nothing came, and lie there still


@dataclass(frozen=True)
class LeftAlone:
    """Names in the landing, some of many: what is no order file, and order files that were refused or wait."""

    count: int
    names: tuple[str, ...]
    why: tuple[str, ...] = ()  # of each name, where that is not the same for all

    def __str__(self) -> str:
        """Return how many there are and their names, or as many as are known, those with the same reason together."""
        more = self.count - len(self.names)
        said = "; ".join(f"{why}: {', '.join(names)}" for why, names in self.by_reason().items()) or ", ".join(self.names)
        return f"{self.count:,} ({said}{f' and {more:,} more' if more else ''})"

    def by_reason(self) -> dict[str, list[str]]:
        """Return the names under the reasons they have."""
        reasons: dict[str, list[str]] = {}
        for name, why in zip(self.names, self.why, strict=False):
            reasons.setdefault(why, []).append(name)
        return reasons

    def as_dict(self) -> dict[str, Any]:
        """Return it as it goes into JSON."""
        return {"count": self.count, "names": list(self.names)} | ({"reasons": self.by_reason()} if self.why else {})


def is_order_file(key: str) -> bool:
    """Say whether a key is `<client_code>/<name>` with the name of an order file."""
    client_code, _, name = key.partition("/")
    return bool(CLIENT_CODE.fullmatch(client_code)) and "/" not in name and is_order_name(name)


def is_manifest(key: str) -> bool:
    """Say whether a key is that of a manifest in a client's folder."""
    client_code, _, name = key.partition("/")
    return bool(CLIENT_CODE.fullmatch(client_code)) and "/" not in name and name.endswith(SUFFIX) and name != SUFFIX


def why_left_alone(key: str) -> str:
    """Return why what lies in the landing under a key, or would, is no order file."""
    client_code, is_inside, name = key.partition("/")
    reasons = {
        "a folder that is hidden or cannot be looked into": key.endswith("/"),
        "not in a client's folder": not is_inside,
        "its folder is no client code": not CLIENT_CODE.fullmatch(client_code),
        "deeper than in a client's folder": "/" in name,
        "a manifest without its order file": is_manifest(key),
        "not named as an order file": not is_order_name(name),
        "a link, or nothing that can be read or named": True,
    }
    return next(reason for reason, is_so in reasons.items() if is_so)


def with_manifests(page: Page, after: str, find: Find) -> list[Landed]:
    """Return the order files of a page with the manifests beside them; `find` looks for those just outside of it."""
    orders = [stored for stored in page.objects if is_order_file(stored.key)]
    manifests = {composed(stored.key): stored for stored in page.objects if is_manifest(stored.key)}
    sharing = Counter(manifest_names(composed(stored.key))[1] for stored in orders)

    def elsewhere(name: str) -> StoredObject | None:
        return find(name) if is_key(name) and not _is_within(name, page, after) else None

    def is_shared(name: str) -> bool:
        others = (each for each in order_names(name) if manifest_names(each)[1] == name)
        return sharing[composed(name)] > 1 or any(elsewhere(each) is not None for each in others)

    def landed(stored: StoredObject) -> Landed:
        own, shared = manifest_names(stored.key)
        if (found := manifests.get(composed(own)) or elsewhere(own)) is not None:
            return Landed(stored, found.version)
        if (found := manifests.get(composed(shared)) or elsewhere(shared)) is not None:
            return Landed(stored, found.version, shares_manifest=is_shared(shared))
        return Landed(stored)

    return [landed(stored) for stored in orders]


def new_files(
    listing: Iterable[Landed],
    known: Mapping[Version, Seen],
    waiting: Collection[Version],
    least_age_s: float = LEAST_AGE_S,
) -> Decision:
    """Decide which files of a stretch of the listing may become batches now.

    `known` is what the ledger has of the files, the same content with other metadata or manifests too, oldest first;
    `waiting` are the versions of the same stretch without a batch. A file that may still grow is ready when two looks have
    shown the same version, so long apart. Where nothing came of the batch before, what is put there again is another one,
    and so is another manifest, or the same version once what it was refused for is over. A person who cancels a batch does
    not ask for it again by changing the rights of the file or its manifest.
    """
    ready: list[Landed] = []
    remember: list[Landed] = []
    compare: list[tuple[Landed, Seen]] = []
    refused: list[str] = []
    listed: set[Version] = set()
    by_key: dict[str, list[tuple[str, Seen]]] = {}
    for (key, version), seen in known.items():
        by_key.setdefault(key, []).append((version, seen))
    for landed in listing:
        listed.add((landed.key, landed.version))
        same = _same(by_key.get(landed.key, ()), landed)
        now = same[-1] if same else None
        before = _taken(by_key.get(landed.key, ()), landed)
        if any(is_version(landed.stored, version) for version, _ in before):
            continue
        cancelled = _cancelled(by_key.get(landed.key, ()), landed)
        was_batch = now is not None and now.batch_id is not None
        if now is not None and was_batch and _is_over(now, landed, len(same)):
            ready.append(replace(landed, again=len(same)))
        elif was_batch or any(is_version(landed.stored, version) for version, _ in cancelled):
            refused.append(landed.key)
        elif not landed.stored.settled and (now is None or now.seconds < least_age_s):
            if now is None:
                remember.append(landed)
        elif not (before := before + [each for each in cancelled if each[1].sha256]):
            ready.append(landed)
        elif all(seen.sha256 for _, seen in before):  # else its bytes are not known yet
            compare.append((landed, before[-1][1]))
    gone = tuple(sorted(version for version in waiting if version not in listed))
    return Decision(tuple(ready), tuple(remember), gone, tuple(compare), tuple(refused))


def _same(known: Iterable[tuple[str, Seen]], landed: Landed) -> list[Seen]:
    """Return what the ledger has of the very version."""
    return [seen for version, seen in known if version.partition(_AGAIN)[0] == landed.version]


def _taken(known: Iterable[tuple[str, Seen]], landed: Landed) -> list[tuple[str, Seen]]:
    """Return which of the batches that something came of, or comes, had the content of this file."""
    return [
        (version, seen)
        for version, seen in known
        if seen.batch_id and not seen.is_void and _content(version) == landed.content
    ]


def _cancelled(known: Iterable[tuple[str, Seen]], landed: Landed) -> list[tuple[str, Seen]]:
    """Return which of the batches that were cancelled unpaid this very file was."""
    return [
        (version, seen)
        for version, seen in known
        if seen.is_cancelled and seen.is_void and _is_same_file(version, landed.version)
    ]


def _is_over(seen: Seen, landed: Landed, batches_so_far: int) -> bool:
    """Say whether what a version was refused for was no fault of the file and is over; not again and again."""
    again_s = min(AGAIN_S * 2 ** min(batches_so_far - 2, 10), AGAIN_LONGEST_S) if batches_so_far > 1 else 0.0
    if seen.seconds < again_s:
        return False
    if seen.code == "F_MANIFEST_SHARED":
        return not landed.shares_manifest
    return seen.code in NOT_THERE or (seen.code == "F_DUPLICATE_FILE" and seen.has_refused_twin)


def is_complete(name: str, size: int, first: bytes, last: bytes) -> bool:
    """Say whether a file ends as one does that was written to its end: with a line end, or as a zip file."""
    if is_workbook(name):
        if len(last) < EDGE_BYTES or not last.startswith(_END_OF_ZIP):
            return False
        directory = int.from_bytes(last[12:16], "little") + int.from_bytes(last[16:20], "little")
        return directory + EDGE_BYTES == size
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):  # in UTF-16 half of another character may look like a line end
        return last[-2:] in ({b"\n\0", b"\r\0"} if first.startswith(b"\xff\xfe") else {b"\0\n", b"\0\r"})
    return last.rstrip(_BEHIND_A_LINE).endswith((b"\n", b"\r"))


def in_turn(ready: Iterable[Landed]) -> list[Landed]:
    """Return files in the order they are taken: the oldest of every client, then the next of every client, and so on."""
    by_client = groupby(sorted(ready, key=lambda each: (_client(each), each.stored.modified, each.key)), key=_client)
    turns = [(turn, landed) for _, files in by_client for turn, landed in enumerate(files)]
    turns.sort(key=lambda each: (each[0], each[1].stored.modified, each[1].key))
    return [landed for _, landed in turns]


def _client(landed: Landed) -> str:
    return landed.key.partition("/")[0]


def look(
    database: Database,
    landing: Storage,
    clients: Clients | None = None,
    *,
    limit: int = MAX_NEW,
    look_s: float = LOOK_S,
) -> list[str]:
    """Go on through the landing for a moment, register what has arrived and return the batches' ids.

    Where a look stopped is only a position in the listing: forgetting it means to start again, never to miss a file.
    """
    with database.begin() as transaction:
        start = str(transaction.scalar("landing_position") or "")
    position = start
    ready: list[Landed] = []
    compare: list[tuple[Landed, Seen]] = []
    deadline = time.monotonic() + look_s
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
        if len(whole) < limit and _is_whole(database, landing, landed, clients or Clients()):
            whole.append(landed)
    with database.begin() as transaction:
        registered = [_register(transaction, landed) for landed in whole]
        if position != start:
            transaction.execute("set_landing_position", after_key=position)
    return registered


def _note(database: Database, landing: Storage, after: str, page: Page) -> Decision:
    """Bring the ledger up to date with a page of the listing, and decide which of its files are ready."""
    listing = with_manifests(page, after, landing.head)
    not_orders = _not_orders(page, after, landing.head)
    with database.begin() as transaction:
        rows = transaction.rows(
            "known_landing_files", keys=[each.key for each in listing], contents=[each.content for each in listing]
        )
        known = {
            (row.key, row.version): Seen(
                float(row.seconds),
                row.batch_id,
                bool(row.is_void),
                row.source_sha256,
                row.refused_for,
                bool(row.is_cancelled),
                bool(row.has_refused_twin),
            )
            for row in rows
        }
        rows = transaction.rows("waiting_landing_files", after_key=after, upto_key=page.upto)
        decision = new_files(listing, known, [(row.key, row.version) for row in rows], LEAST_AGE_S)
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
        left = dict.fromkeys((*not_orders, *page.others), False) | dict.fromkeys(decision.refused, True)
        names = [name[:MOST_OF_A_NAME] for name in left]
        lying = {"keys": names, "are_refused": list(left.values())}
        transaction.execute("forget_left_alone", after_key=after, upto_key=page.upto, **lying)
        if names:
            transaction.execute("see_left_alone", **lying)
    return decision


def _not_orders(page: Page, after: str, find: Find) -> list[str]:
    """Return what is no order file of a page and, as far as `find` finds, no manifest of one."""
    listed = {name for stored in page.objects if is_order_file(stored.key) for name in manifest_names(composed(stored.key))}

    def has_order_file(manifest: str) -> bool:
        names = (form for name in order_names(manifest) for form in forms_of(name) if is_key(form))
        return composed(manifest) in listed or any(
            find(name) is not None for name in names if not _is_within(name, page, after)
        )

    return [
        stored.key
        for stored in page.objects
        if not (has_order_file(stored.key) if is_manifest(stored.key) else is_order_file(stored.key))
    ]


def _is_within(key: str, page: Page, after: str) -> bool:
    return after < key and (page.upto is None or key <= page.upto)


def _with_other_bytes(database: Database, landing: Storage, compare: Sequence[tuple[Landed, Seen]]) -> list[Landed]:
    """Return the files that are others than before; a file whose rights, links or place on the disk changed is not."""
    others = []
    deadline = time.monotonic() + COMPARE_S
    for landed, before in compare:
        if time.monotonic() >= deadline:
            break  # the next look goes on
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
    """Say whether nobody seems to be writing the file any more; without a last line end it must have settled longer."""
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
    try:
        profile = clients.profile(_client(landed))
    except FileRejected:
        profile = Profile()
    with database.begin() as transaction:
        seconds = transaction.scalar("landing_file_seconds", key=landed.key, version=landed.version)
    return float(seconds or 0.0) >= profile.settle_s


def _register(transaction: Transaction, landed: Landed) -> str:
    name = composed(landed.key.rpartition("/")[2])
    source = batches.Source(name, landed.key, landed.batch_version, landed.stored.modified, size=landed.stored.size)
    batch_id = batches.register_landed(transaction, _client(landed), source)
    _note_batch(transaction, landed, batch_id)
    return batch_id


def _note_batch(transaction: Transaction, landed: Landed, batch_id: str) -> None:
    transaction.execute(
        "register_landing_file", key=landed.key, version=landed.batch_version, size=landed.stored.size, batch_id=batch_id
    )


def left_alone(transaction: Transaction) -> dict[str, LeftAlone]:
    """Return what the last two looks have left where it is.

    What is no order file or a manifest without one, files of which nothing came as a batch, and those not whole yet.
    """
    found = {
        "left_alone": transaction.rows("left_alone_names", are_refused=False, limit=NAMES_SHOWN),
        "refused": transaction.rows("left_alone_names", are_refused=True, limit=NAMES_SHOWN),
        "waiting": transaction.rows("waiting_names", limit=NAMES_SHOWN),
    }
    left = {
        name: LeftAlone(rows[0].names if rows else 0, tuple(shown(row.key) for row in rows)) for name, rows in found.items()
    }
    why = tuple(why_left_alone(row.key) for row in found["left_alone"])
    return left | {"left_alone": replace(left["left_alone"], why=why)}


def left_in(landing: Storage, look_s: float = LEFT_S) -> dict[str, LeftAlone]:
    """Return what is no order file, as far as a listing from the start comes in that time."""
    names: list[str] = []
    deadline = time.monotonic() + look_s
    after = ""
    for page in landing.pages():
        names += (*_not_orders(page, after, landing.head), *page.others)
        after = page.upto or ""
        if time.monotonic() >= deadline:
            break
    some = sorted(names)[:NAMES_SHOWN]
    return {"left_alone": LeftAlone(len(names), tuple(map(shown, some)), tuple(map(why_left_alone, some)))}


def in_words(left: Mapping[str, LeftAlone]) -> list[str]:
    """Return a line for each kind of what is left where it is."""
    says = {
        "left_alone": "no order files, left alone",
        "refused": "refused or cancelled, and still there",
        "waiting": "not complete yet, waited for",
    }
    return [f"{says[name]}: {some}" for name, some in left.items() if some.count]


def patiently(read: Callable[[], Read]) -> Read:
    """Return what `read` gives; what was listed and is not there or denied is tried READ_TRIES times, as both may pass."""
    for _ in range(READ_TRIES - 1):
        try:
            return read()
        except (ObjectGone, ObjectDenied):
            time.sleep(READ_PAUSE_S)
    return read()

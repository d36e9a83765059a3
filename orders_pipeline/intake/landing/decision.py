"""The decision which listed files are new: a pure function over a stretch of a listing and of the landing ledger.

Every version of every file is one batch, however listings are ordered, repeated or late. It is another one where the first
was refused for what was no fault of the file and is over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from orders_pipeline.intake.landing.listing import AGAIN, Landed, content_of, is_same_file, is_version

Version = tuple[str, str]  # key, version
LEAST_AGE_S = 8.0  # a file that may grow must have stayed as it is for so long, two looks of the sensor
NOT_THERE = {"F_GONE", "F_CHANGED", "F_DENIED"}  # refusals of what the landing did not show, and is over once it does
AGAIN_S = 60.0  # a version is taken for the second time at once, later not before this has passed, then twice as long ...
AGAIN_LONGEST_S = 3600.0


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


def new_files(
    listing: Sequence[Landed],
    known: Mapping[Version, Seen],
    waiting: Collection[Version],
    least_age_s: float = LEAST_AGE_S,
) -> Decision:
    """Decide which files of a stretch of the listing may become batches now.

    `known` is what the ledger has of these files, oldest first, also as the same content with other metadata or manifests.
    `waiting` are the versions of the same stretch without a batch. A file that may still grow is ready when two looks, at
    least `least_age_s` apart, have shown the same version. Where nothing came of the batch before, the file is another
    batch when it is put there again, has another manifest, or is no longer what it was refused for. A person who cancels a
    batch does not ask for it again by changing the rights of the file or its manifest.
    """
    ready: list[Landed] = []
    remember: list[Landed] = []
    compare: list[tuple[Landed, Seen]] = []
    refused: list[str] = []
    by_key: dict[str, list[tuple[str, Seen]]] = {}
    for (key, version), seen in known.items():
        by_key.setdefault(key, []).append((version, seen))
    for landed in listing:
        versions = by_key.get(landed.key, [])
        same = _same(versions, landed)
        now = same[-1] if same else None
        before = _taken(versions, landed)
        if any(is_version(landed.stored, version) for version, _ in before):
            continue
        cancelled = _cancelled(versions, landed)
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
    gone = sorted({*waiting} - {(landed.key, landed.version) for landed in listing})
    return Decision(tuple(ready), tuple(remember), tuple(gone), tuple(compare), tuple(refused))


def _same(known: Iterable[tuple[str, Seen]], landed: Landed) -> list[Seen]:
    """Return what the ledger has of the very version."""
    return [seen for version, seen in known if version.partition(AGAIN)[0] == landed.version]


def _taken(known: Iterable[tuple[str, Seen]], landed: Landed) -> list[tuple[str, Seen]]:
    """Return the batches with the content of this file of which something came, or still may come."""
    return [
        (version, seen)
        for version, seen in known
        if seen.batch_id and not seen.is_void and content_of(version) == landed.content
    ]


def _cancelled(known: Iterable[tuple[str, Seen]], landed: Landed) -> list[tuple[str, Seen]]:
    """Return the batches that this very file was and that were cancelled unpaid."""
    return [
        (version, seen)
        for version, seen in known
        if seen.is_cancelled and seen.is_void and is_same_file(version, landed.version)
    ]


def _is_over(seen: Seen, landed: Landed, batches_so_far: int) -> bool:
    """Return whether a version may be a batch again: what it was refused for was no fault of the file, and is over.

    Each time it is refused again, it waits twice as long.
    """
    again_s = min(AGAIN_S * 2 ** min(batches_so_far - 2, 10), AGAIN_LONGEST_S) if batches_so_far > 1 else 0.0
    if seen.seconds < again_s:
        return False
    if seen.code == "F_MANIFEST_SHARED":
        return not landed.shares_manifest
    return seen.code in NOT_THERE or (seen.code == "F_DUPLICATE_FILE" and seen.has_refused_twin)

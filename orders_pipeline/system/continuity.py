"""Continuity: whether our ledger is whole, or a database that was put back to an earlier time.

How far the ledger was is kept in the storage too, as an object whose name says it: a mark that is committed first, then
kept, and renewed while its database is at work, so that no other takes its place by mistake. Where another database runs
than at the last look, as after any restore, the service's list is asked for charges of ours that it does not know. What is
not whole stops all paying and refunding, until it is reconciled.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row

from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.storage import KeyRefused, Storage, StorageError, StorageUnavailable
from orders_pipeline.security.encryption import DecryptionError, EncryptionKeysError
from orders_pipeline.services import payment_listing
from orders_pipeline.services.payment_gateway import ListFailed, PaymentGateway, PaymentPage
from orders_pipeline.system import installation

ANCHORS = "installation/"
ANCHOR = re.compile(ANCHORS + r"(?P<installation>[0-9a-f]{32})-(?P<generation>[0-9]{6})-(?P<mark>[0-9]{18})[.]json")
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
CHARGED = ("succeeded", "processing", "refunded")
RENEWED_AFTER = timedelta(minutes=1)  # a database that is at work says so as often
FRESH = timedelta(minutes=3)  # for so long nobody else takes what it has kept
OLDER = (
    "the database seems older than the storage or the Payment service says; nothing is paid or refunded before "
    f"`orders-pipeline reconcile`, which wants the other database gone for {FRESH.seconds // 60} minutes; at once with "
    "--by-hand --why TEXT"
)
IN_USE = (
    "another database uses this storage, or did until a few minutes ago, and nothing is paid or refunded: give this one a "
    "storage of its own; if it replaces the other, which is gone for good, run `orders-pipeline reconcile` "
    f"{FRESH.seconds // 60} minutes after that, or at once with --by-hand --why TEXT"
)
UNREAD = (
    "the database was started anew or replaced, and the Payment service's list, which tells whether it lacks anything, "
    "could not be read; nothing is paid or refunded before it can: `up` and `orders-pipeline reconcile` read it again; if "
    "it never comes, compare the ledgers otherwise and say so: orders-pipeline reconcile --by-hand --why TEXT"
)


class LedgersDiffer(Exception):
    """Our ledger is not known to be whole, so nothing is paid or refunded; the text and code say why."""

    code = "E_LEDGERS_DIFFER"

    def __init__(self, found: Rest) -> None:
        super().__init__(f"{found.code}: {found.says}; since {found.since.isoformat(timespec='seconds')}")
        self.code = found.code


class StorageInUse(Exception):
    """Another database is at work over our storage."""

    code = "E_STORAGE_IN_USE"


class NotStopped(Exception):
    """There is nothing for a person to answer for."""

    code = "E_NOT_STOPPED"

    def __init__(self) -> None:
        super().__init__(f"{self.code}: paying is not stopped, or `reconcile` can compare the ledgers")


# why paying rests, with a code and what to do
RESTS = {
    "storage": (LedgersDiffer.code, OLDER),
    "service": (LedgersDiffer.code, OLDER),
    "another": (StorageInUse.code, IN_USE),
    "unread": (ListFailed.code, UNREAD),
}


@dataclass(frozen=True)
class Rest:
    """Why paying and refunding rest, and since when."""

    why: str
    since: datetime
    detail: str | None = None  # why the list could not be read

    @property
    def code(self) -> str:
        """Return the stable code of the reason."""
        return RESTS[self.why][0]

    @property
    def says(self) -> str:
        """Return the reason and what to do, in words."""
        return RESTS[self.why][1] + (f" ({self.detail})" if self.detail else "")

    def as_dict(self) -> dict[str, str]:
        """Return the object that `status --json` shows."""
        return {"code": self.code, "since": self.since.isoformat(timespec="seconds"), "message": self.says}


def rest(transaction: Transaction) -> Rest | None:
    """Return why all paying and refunding rests, as far as it is known; None where it does not."""
    state = transaction.rows("installation")[0]
    if state.stopped_at is not None:
        return Rest(state.stopped_by, state.stopped_at)
    return None if state.unread_since is None else Rest("unread", state.unread_since, state.unread_why)


def rest_shown(transaction: Transaction) -> dict[str, str] | None:
    """Return the same as the object that `status --json` shows."""
    found = rest(transaction)
    return None if found is None else found.as_dict()


class Doubt(NamedTuple):
    """The times between which a comparison must look, as our ledger may not be whole."""

    since: datetime
    until: datetime
    is_stopped: bool  # nothing of ours is under way


class Anchor(NamedTuple):
    """How far an installation's ledger was, as the storage says."""

    generation: int
    mark: int
    installation_id: uuid.UUID

    @property
    def key(self) -> str:
        """Return the key under which it is kept; no two say something else under one key."""
        return f"{ANCHORS}{self.installation_id.hex}-{self.generation:06d}-{self.mark:018d}.json"


class Kept(NamedTuple):
    """An anchor that the storage has, and when it was last kept or renewed."""

    anchor: Anchor
    at: datetime


class Continuity:
    """Looks whether the ledger is whole, and keeps how far it is."""

    def __init__(self, database: Database, storage: Storage, payments: PaymentGateway) -> None:
        self._database = database
        self._storage = storage
        self._payments = payments

    def is_whole(self) -> bool:
        """Look at the storage, and at the service's list where another database runs; stop all paying if it is not.

        Where the list cannot be read now, that is not known: nothing is paid before it can.
        """
        if self.is_behind():
            return False
        state = self._state()
        return state.is_same or self._is_whole_at_service(state)

    def is_behind(self) -> bool:
        """Look at the storage alone; a new database becomes the installation whose storage it has, if that is at rest."""
        kept = list(self._kept())  # before the database is read: its mark is committed before it is kept
        state = self._state()
        return state.stopped_by in ("storage", "service") or self._is_behind(state, kept)

    def is_another_at_work(self) -> bool:
        """Look at the storage; tell whether it is another database's, so that not even ids can be given."""
        return self.is_behind() and self._state().stopped_by == "another"

    def watch(self) -> None:
        """Stop all paying if the database was restored under a running system, and say in the storage that it is at work.

        A storage that is away is asked next time.
        """
        with contextlib.suppress(StorageError):
            if self.is_whole():
                state = self._state()
                ours = Anchor(state.generation, state.mark, state.installation_id)
                if state.mark and not any(
                    each.anchor >= ours and each.at > state.asked_at - RENEWED_AFTER for each in self._kept()
                ):
                    self._keep()

    def require(self) -> None:
        """Raise LedgersDiffer where the ledger is not known to be whole."""
        if self.is_whole():
            return
        with self._database.begin() as transaction:
            found = rest(transaction)
        raise LedgersDiffer(found or Rest("service", self._state().asked_at))  # lifted just now: to be tried again

    def advance(self) -> bool:
        """Look whether the ledger is whole and keep how far it is now; return False where it is not."""
        whole_at = self._state().asked_at
        if not self.is_whole():
            return False
        with self._database.begin() as transaction:
            if transaction.scalar("raise_mark", whole_at=whole_at) is None:
                return False
        self._keep()
        return True

    def note_settled(self) -> None:
        """Keep how far the ledger is once payments or refunds are recorded; a storage that is away gets it the next time."""
        with contextlib.suppress(StorageError):
            self.advance()

    def doubted(self) -> Doubt | None:
        """Return what a comparison must look at where our ledger is not known to be whole; None where it is.

        What a person answered for while there was no list is known once one was compared.
        """
        state = self._state()
        is_stopped = state.stopped_at is not None
        is_unlisted = state.unlisted_since is not None and self._payments.capabilities.can_list
        if not (is_stopped or is_unlisted) and (state.is_same or state.seen_as is None):
            return None
        return Doubt(state.whole_at, state.asked_at, is_stopped)

    def begin_comparing(self, *, is_other_gone: bool) -> Doubt | None:
        """Return what is in doubt; raise StorageInUse where it is another database's, unless a person says that is gone."""
        try:
            kept = list(self._kept())
        except StorageError:
            if self.doubted() is None:
                return None
            raise
        state = self._state()
        if state.stopped_by in (None, "another"):
            self._is_behind(state, kept, is_other_gone=is_other_gone)
            state = self._state()
        if not is_other_gone and state.stopped_at is not None and self._is_in_use(state, kept):
            raise StorageInUse(f"{StorageInUse.code}: {IN_USE}")
        return self.doubted()

    def note_unread(self, failure: ListFailed) -> None:
        """Keep why the list that was to be compared did not come: paying rests until it does."""
        with self._database.begin() as transaction:
            transaction.execute("note_unread", why=failure.reason)

    def lift(self, compared_at: datetime, who: str | None = None, why: str | None = None, *, is_listed: bool = True) -> None:
        """Let paying go on, as another generation if it was stopped, now that the ledger was compared up to a moment."""
        kept = list(self._kept())
        with self._database.begin() as transaction:
            highest = max((each.anchor.generation for each in kept), default=0)
            lifted = transaction.execute(
                "lift_stop", generation=highest, whole_at=compared_at, who=who, why=why, is_listed=is_listed
            )
            if not lifted:
                transaction.execute("see_whole", whole_at=compared_at, is_listed=is_listed)
        if lifted:
            self._keep()

    def can_compare(self) -> bool:
        """Tell whether the service's list can be read, as far as is known."""
        return self._payments.capabilities.can_list and self._state().unread_since is None

    def require_in_use(self) -> None:
        """Raise NotStopped where no other database has kept anything lately that a person could answer for."""
        if not self.is_behind() or not self._is_in_use(self._state(), list(self._kept())):
            raise NotStopped

    def resume_by_hand(self, who: str, why: str) -> None:
        """Let paying go on where no list can be compared and a person answers for that; what is sent first is in doubt."""
        kept = list(self._kept())
        state = self._state()
        if state.stopped_by == "another":
            self._is_behind(state, kept, is_other_gone=True)
        if self.can_compare() or (state.stopped_at is None and state.unread_since is None):
            raise NotStopped
        self.lift(state.asked_at, who, why, is_listed=False)

    def _keep(self) -> None:
        """Keep the mark that is committed, and remove those that it is beyond."""
        state = self._state()
        now = Anchor(state.generation, state.mark, state.installation_id)
        content = {"since": state.created_at, "at": state.asked_at, "database": state.running}
        self._storage.put(now.key, json.dumps(content, default=datetime.isoformat).encode())
        for anchor, _ in self._kept():
            if anchor.installation_id != now.installation_id or anchor < now:
                self._storage.delete(anchor.key)

    def _kept(self) -> Iterator[Kept]:
        left_out: dict[str, str] = {}
        for stored in self._storage.list(ANCHORS, left_out):
            match = ANCHOR.fullmatch(stored.key)
            if match is not None:
                anchor = Anchor(int(match["generation"]), int(match["mark"]), uuid.UUID(match["installation"]))
                yield Kept(anchor, stored.modified)
        if {*left_out.values()} - {KeyRefused.code}:  # a later mark may be among what could not be looked at
            raise StorageUnavailable

    def _is_behind(self, state: Row[Any], kept: Sequence[Kept], *, is_other_gone: bool = False) -> bool:
        """Stop paying where the storage knows of a later mark, or of another installation."""
        others = [each for each in kept if each.anchor.installation_id != state.installation_id]
        highest = max((each.anchor[:2] for each in kept if each not in others), default=(0, 0))
        if not others and highest <= (state.generation, state.mark):
            if state.stopped_by == "another":
                with self._database.begin() as transaction:
                    transaction.execute("storage_is_its_own")
            return False
        if not is_other_gone and any(self._is_at_work(each, state) for each in others):
            with self._database.begin() as transaction:
                transaction.execute("stop_paying", stopped_by="another")
            return True
        newest = max(others).anchor if others and highest == (0, 0) else None
        since = None if newest is None else self._since(newest)
        with self._database.begin() as transaction:
            if newest is not None:
                transaction.execute(
                    "take_installation",
                    installation_id=newest.installation_id,
                    generation=newest.generation,
                    whole_at=since,
                )
            transaction.execute("stop_paying", stopped_by="storage")
        return True

    def _is_in_use(self, state: Row[Any], kept: Sequence[Kept]) -> bool:
        """Tell whether what our ledger is behind of was kept by another database that is at work."""
        ours = (state.generation, state.mark)
        return any(
            self._is_at_work(each, state)
            for each in kept
            if each.anchor.installation_id != state.installation_id or each.anchor[:2] > ours
        )

    def _is_at_work(self, kept: Kept, state: Row[Any]) -> bool:
        """Tell whether another database has lately kept an anchor, and is still there as far as can be said."""
        if kept.at <= state.asked_at - FRESH:
            return False
        wrote = self._read(kept.anchor).get("database")
        if not isinstance(wrote, str):  # by nobody who can be told: our own of before, or another's
            return bool(kept.anchor.installation_id != state.installation_id)
        if wrote == state.running:
            return False
        with self._database.begin() as transaction:
            return not transaction.scalar("is_database_gone", database=wrote)

    def _state(self) -> Row[Any]:
        with self._database.begin() as transaction:
            return transaction.rows("installation")[0]

    def _since(self, anchor: Anchor) -> datetime:
        """Return when an installation began; long ago, where that cannot be read."""
        try:
            return datetime.fromisoformat(self._read(anchor)["since"])
        except (ValueError, KeyError, TypeError):
            return LONG_AGO

    def _read(self, anchor: Anchor) -> dict[str, Any]:
        """Return what an anchor says; nothing, where that cannot be read: gone, damaged, or under a key we do not have."""
        try:
            with self._storage.local(anchor.key) as path:
                content = json.loads(path.read_bytes())
        except (StorageError, DecryptionError, EncryptionKeysError, OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _is_whole_at_service(self, state: Row[Any]) -> bool:
        if not self._payments.capabilities.can_list:
            with self._database.begin() as transaction:  # the first one replaces none
                transaction.execute("see_whole", whole_at=state.asked_at, is_listed=state.seen_as is None)
            return True
        try:
            unknown = any(map(self._count_unknown, payment_listing.pages(self._payments, state.whole_at, state.asked_at)))
        except ListFailed as failure:
            self.note_unread(failure)
            return False
        with self._database.begin() as transaction:
            if unknown:
                transaction.execute("stop_paying", stopped_by="service")
            else:
                transaction.execute("see_whole", whole_at=state.asked_at, is_listed=True)
        return not unknown

    def _count_unknown(self, page: PaymentPage) -> int:
        """Return how many payments of ours on a page were charged, or given back, without our ledger knowing of it."""
        with self._database.begin() as transaction:
            ours = installation.read(transaction)
            found = [(ours.payment_id_of(item.reference), item.given_back) for item in page.items if item.status in CHARGED]
            found += [(ours.payment_id_of(item.reference or ""), -1) for item in page.unreadable]
            known = [(payment_id, yen) for payment_id, yen in found if payment_id is not None]
            return int(
                transaction.scalar(
                    "count_unknown_charges",
                    payment_ids=[payment_id for payment_id, _ in known],
                    refunded=[yen for _, yen in known],
                )
            )

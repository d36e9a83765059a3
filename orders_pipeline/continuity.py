"""Continuity: whether our ledger is whole, or a database that was put back to an earlier time.

How far the ledger was is kept in the storage too, as an object whose name says it: a mark that is committed first, then
kept. Where another database runs than at the last look, as after any restore, the service's list is asked for charges of
ours that it does not know. What is not whole stops all paying and refunding, until it is reconciled.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row

from orders_pipeline import installation
from orders_pipeline.database import Database
from orders_pipeline.payments.gateway import ListFailed, PaymentGateway, PaymentPage
from orders_pipeline.storage import Storage, StorageError

ANCHORS = "installation/"
ANCHOR = re.compile(ANCHORS + r"(?P<installation>[0-9a-f]{32})-(?P<generation>[0-9]{6})-(?P<mark>[0-9]{18})[.]json")
SKEW = timedelta(minutes=5)  # the service's clock may be so far from the database's
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
PAGE = 100
CHARGED = ("succeeded", "processing", "refunded")
SAYS = (
    "the database seems older than the storage or the Payment service says; nothing is paid or refunded before `reconcile`"
)


class LedgersDiffer(Exception):
    """Our ledger is not whole, so nothing is paid or refunded."""

    code = "E_LEDGERS_DIFFER"


class NotStopped(Exception):
    """There is nothing for a person to answer for."""

    code = "E_NOT_STOPPED"


class Anchor(NamedTuple):
    """How far an installation's ledger was, as the storage says."""

    generation: int
    mark: int
    installation_id: uuid.UUID

    @property
    def key(self) -> str:
        """Return the key under which it is kept; no two say something else under one key."""
        return f"{ANCHORS}{self.installation_id.hex}-{self.generation:06d}-{self.mark:018d}.json"


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
        """Look at the storage alone; a new database becomes the installation whose storage it has."""
        anchors = list(self._anchors())  # before the database is read: its mark is committed before it is kept
        state = self._state()
        return state.stopped_at is not None or self._is_behind(state, anchors)

    def watch(self) -> None:
        """Stop all paying if the database was restored under a running system; a storage that is away is asked next time."""
        with contextlib.suppress(StorageError):
            self.is_whole()

    def require(self) -> None:
        """Raise LedgersDiffer where the ledger is not whole."""
        if not self.is_whole():
            raise LedgersDiffer(f"{LedgersDiffer.code}: {SAYS}")

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

    def doubted(self) -> tuple[datetime, datetime] | None:
        """Return the times between which a comparison must look where paying is stopped; None where it is not."""
        state = self._state()
        return None if state.stopped_at is None else (state.whole_at, state.asked_at)

    def lift(self, compared_at: datetime, who: str | None = None, why: str | None = None) -> None:
        """Let paying go on, as another generation, now that the ledger was compared up to a moment."""
        anchors = list(self._anchors())
        with self._database.begin() as transaction:
            highest = max((anchor.generation for anchor in anchors), default=0)
            lifted = transaction.execute("lift_stop", generation=highest, whole_at=compared_at, who=who, why=why)
        if lifted:
            self._keep()

    def resume_by_hand(self, who: str, why: str) -> None:
        """Let paying go on where no list can be compared and a person answers for that; what is planned is in doubt."""
        state = self._state()
        if self._payments.capabilities.can_list or state.stopped_at is None:
            raise NotStopped(f"{NotStopped.code}: paying is not stopped, or `reconcile` can compare the ledgers")
        if self._payments.capabilities.can_look_up:
            with self._database.begin() as transaction:
                transaction.execute("put_planned_in_doubt")
        self.lift(state.asked_at, who, why)

    def _keep(self) -> None:
        """Keep the mark that is committed, and remove those that it is beyond."""
        state = self._state()
        now = Anchor(state.generation, state.mark, state.installation_id)
        content = {"since": state.created_at.isoformat(), "at": state.asked_at.isoformat()}
        self._storage.put(now.key, json.dumps(content).encode())
        for anchor in self._anchors():
            if anchor.installation_id != now.installation_id or anchor < now:
                self._storage.delete(anchor.key)

    def _anchors(self) -> Iterator[Anchor]:
        for match in (ANCHOR.fullmatch(stored.key) for stored in self._storage.list(ANCHORS)):
            if match is not None:
                yield Anchor(int(match["generation"]), int(match["mark"]), uuid.UUID(match["installation"]))

    def _is_behind(self, state: Row[Any], anchors: Sequence[Anchor]) -> bool:
        """Stop paying where the storage knows of a later mark, or of another installation."""
        others = [anchor for anchor in anchors if anchor.installation_id != state.installation_id]
        highest = max((anchor[:2] for anchor in anchors if anchor not in others), default=(0, 0))
        if not others and highest <= (state.generation, state.mark):
            return False
        newest = max(others) if others and highest == (0, 0) else None
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

    def _state(self) -> Row[Any]:
        with self._database.begin() as transaction:
            return transaction.rows("installation")[0]

    def _since(self, anchor: Anchor) -> datetime:
        """Return when an installation began; long ago, where that cannot be read."""
        try:
            with self._storage.local(anchor.key) as path:
                return datetime.fromisoformat(json.loads(path.read_bytes())["since"])
        except (StorageError, ValueError, KeyError, TypeError):
            return LONG_AGO

    def _is_whole_at_service(self, state: Row[Any]) -> bool:
        able = self._payments.capabilities
        if not able.can_list:
            with self._database.begin() as transaction:
                if (
                    state.seen_as is not None and able.can_look_up
                ):  # it may have been sent since: it is looked up before it is
                    transaction.execute("put_planned_in_doubt")
                transaction.execute("see_whole", whole_at=state.asked_at)
            return True
        try:
            unknown = any(map(self._count_unknown, self._pages(state)))
        except ListFailed:
            return state.seen_as is None  # nothing was ever paid, as far as the storage knows
        with self._database.begin() as transaction:
            if unknown:
                transaction.execute("stop_paying", stopped_by="service")
            else:
                transaction.execute("see_whole", whole_at=state.asked_at)
        return not unknown

    def _pages(self, state: Row[Any]) -> Iterator[PaymentPage]:
        since, until = state.whole_at - SKEW, state.asked_at + SKEW
        page = self._payments.list_payments(since, until, limit=PAGE)
        yield page
        while page.following is not None:
            page = self._payments.list_payments(since, until, limit=PAGE, cursor=page.following)
            yield page

    def _count_unknown(self, page: PaymentPage) -> int:
        """Return how many charges of ours on a page our ledger does not know."""
        with self._database.begin() as transaction:
            ours = installation.read(transaction)
            charged = [ours.payment_id_of(item.reference) for item in page.items if item.status in CHARGED]
            payment_ids = [payment_id for payment_id in charged if payment_id is not None]
            return int(transaction.scalar("count_unknown_charges", payment_ids=payment_ids))

"""The restore guard: is the database the one we had, or one that was restored from a backup or put in its place?

A restored database lacks charges, and would make them again. So how far its ledger is (`ledger_marks.py`) is compared with
the storage. Where another database runs than at the last look, as after any restore, the Payment service's list is searched
for charges of ours that the ledger lacks. Where the ledger is not whole, that is, has every charge of ours, all paying and
refunding is stopped (`payment_stop.py`) until it is reconciled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row

from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.storage import Storage, StorageError
from orders_pipeline.services import payment_listing
from orders_pipeline.services.payment_gateway import ListFailed, PaymentGateway, PaymentPage
from orders_pipeline.system import installation, ledger_marks, payment_stop
from orders_pipeline.system.ledger_marks import KeptMark, installed_at, keep_mark, kept_marks, mark_of, writer_of
from orders_pipeline.system.payment_stop import LedgersDiffer, PaymentStop, StorageInUse

CHARGED = ("succeeded", "processing", "refunded")


class NotStopped(Exception):
    """There is nothing for a person to answer for."""

    code = "E_NOT_STOPPED"

    def __init__(self) -> None:
        super().__init__(f"{self.code}: paying is not stopped, or `reconcile` can compare the ledgers")


class Doubt(NamedTuple):
    """The times between which a comparison must look, as our ledger may not be whole."""

    since: datetime
    until: datetime
    is_stopped: bool  # nothing of ours is under way


class RestoreGuard:
    """Finds out whether the ledger is whole, and keeps in the storage how far it is."""

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
        """Look at the storage only; a new database becomes the installation whose storage it has, if that is at rest."""
        kept = list(kept_marks(self._storage))  # before the database is read: its mark is committed before it is kept
        state = self._state()
        return state.stopped_by in ("storage", "service") or self._is_behind(state, kept)

    def is_another_in_use(self) -> bool:
        """Look at the storage and return whether it is another database's, so that not even ids can be made."""
        return self.is_behind() and self._state().stopped_by == "another"

    def watch(self) -> None:
        """Stop all paying if the database was restored under a running system, and mark in the storage that it is in use.

        A storage that is away is asked next time.
        """
        with contextlib.suppress(StorageError):
            if self.is_whole():
                state = self._state()
                ours = mark_of(state)
                if state.mark and not any(
                    kept.mark >= ours and kept.at > state.asked_at - ledger_marks.RENEWED_AFTER
                    for kept in kept_marks(self._storage)
                ):
                    keep_mark(self._storage, self._state())

    def require(self) -> None:
        """Raise LedgersDiffer where the ledger is not known to be whole."""
        if self.is_whole():
            return
        with self._database.begin() as transaction:
            stop = payment_stop.current(transaction)
        raise LedgersDiffer(stop or PaymentStop("service", self._state().asked_at))  # lifted just now: to be tried again

    def advance(self) -> bool:
        """Look whether the ledger is whole and keep how far it is now; return False where it is not."""
        whole_at = self._state().asked_at
        if not self.is_whole():
            return False
        with self._database.begin() as transaction:
            if transaction.scalar("raise_mark", whole_at=whole_at) is None:
                return False
        keep_mark(self._storage, self._state())
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
            kept = list(kept_marks(self._storage))
        except StorageError:
            if self.doubted() is None:
                return None
            raise
        state = self._state()
        if state.stopped_by in (None, "another"):
            self._is_behind(state, kept, is_other_gone=is_other_gone)
            state = self._state()
        if not is_other_gone and state.stopped_at is not None and self._is_in_use(state, kept):
            raise StorageInUse(f"{StorageInUse.code}: {payment_stop.IN_USE}")
        return self.doubted()

    def note_unread(self, failure: ListFailed) -> None:
        """Keep why the list that was to be compared did not come: nothing is paid until it does."""
        with self._database.begin() as transaction:
            transaction.execute("note_unread", why=failure.reason)

    def lift(self, compared_at: datetime, who: str | None = None, why: str | None = None, *, is_listed: bool = True) -> None:
        """Resume paying, as another generation if it was stopped, now that the ledger was compared up to a moment."""
        kept = list(kept_marks(self._storage))
        with self._database.begin() as transaction:
            highest = max((each.mark.generation for each in kept), default=0)
            lifted = transaction.execute(
                "lift_stop", generation=highest, whole_at=compared_at, who=who, why=why, is_listed=is_listed
            )
            if not lifted:
                transaction.execute("see_whole", whole_at=compared_at, is_listed=is_listed)
        if lifted:
            keep_mark(self._storage, self._state())

    def can_compare(self) -> bool:
        """Return whether the service's list can be read, as far as is known."""
        return self._payments.capabilities.can_list and self._state().unread_since is None

    def require_in_use(self) -> None:
        """Raise NotStopped where no other database has kept anything lately that a person could answer for."""
        if not self.is_behind() or not self._is_in_use(self._state(), list(kept_marks(self._storage))):
            raise NotStopped

    def resume_by_hand(self, who: str, why: str) -> None:
        """Resume paying where no list can be compared and a person answers for that; what is sent first is in doubt."""
        kept = list(kept_marks(self._storage))
        state = self._state()
        if state.stopped_by == "another":
            self._is_behind(state, kept, is_other_gone=True)
        if self.can_compare() or (state.stopped_at is None and state.unread_since is None):
            raise NotStopped
        self.lift(state.asked_at, who, why, is_listed=False)

    def _is_behind(self, state: Row[Any], kept: Sequence[KeptMark], *, is_other_gone: bool = False) -> bool:
        """Stop paying where the storage knows of a later mark, or of another installation."""
        others = [each for each in kept if each.mark.installation_id != state.installation_id]
        highest = max((each.mark[:2] for each in kept if each not in others), default=(0, 0))
        if not others and highest <= (state.generation, state.mark):
            if state.stopped_by == "another":
                with self._database.begin() as transaction:
                    transaction.execute("storage_is_its_own")
            return False
        if not is_other_gone and any(self._is_writer_live(each, state) for each in others):
            with self._database.begin() as transaction:
                transaction.execute("stop_paying", stopped_by="another")
            return True
        newest = max(others).mark if others and highest == (0, 0) else None
        since = None if newest is None else installed_at(self._storage, newest)
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

    def _is_in_use(self, state: Row[Any], kept: Sequence[KeptMark]) -> bool:
        """Return whether the marks that our ledger is behind of were kept by another database in use."""
        ours = (state.generation, state.mark)
        return any(
            self._is_writer_live(each, state)
            for each in kept
            if each.mark.installation_id != state.installation_id or each.mark[:2] > ours
        )

    def _is_writer_live(self, kept: KeptMark, state: Row[Any]) -> bool:
        """Return whether another database has lately kept a mark, and is still there as far as is known."""
        if kept.at <= state.asked_at - ledger_marks.FRESH:
            return False
        writer = writer_of(self._storage, kept.mark)
        if writer is None:  # our own of before, or another's
            return bool(kept.mark.installation_id != state.installation_id)
        if writer == state.running:
            return False
        with self._database.begin() as transaction:
            return not transaction.scalar("is_database_gone", database=writer)

    def _state(self) -> Row[Any]:
        with self._database.begin() as transaction:
            return transaction.rows("installation")[0]

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
        """Return how many payments of ours on a page were charged or refunded without our ledger knowing of it."""
        with self._database.begin() as transaction:
            ours = installation.read(transaction)
            listed = [
                (ours.payment_id_of(item.reference), item.yen_refunded) for item in page.items if item.status in CHARGED
            ]
            listed += [(ours.payment_id_of(item.reference or ""), -1) for item in page.unreadable]
            known = [(payment_id, yen) for payment_id, yen in listed if payment_id is not None]
            return int(
                transaction.scalar(
                    "count_unknown_charges",
                    payment_ids=[payment_id for payment_id, _ in known],
                    refunded=[yen for _, yen in known],
                )
            )

"""Why all paying and refunding is stopped, if it is, and what a person can do about it.

What stops it and lifts the stop belongs in `restore_guard.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.services.payment_gateway import ListFailed
from orders_pipeline.system.ledger_marks import FRESH

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
    "the database was started anew or replaced, and the Payment service's list, which shows whether it lacks anything, "
    "could not be read; nothing is paid or refunded before it can: `up` and `orders-pipeline reconcile` read it again; if "
    "it never comes, compare the ledgers otherwise and say so: orders-pipeline reconcile --by-hand --why TEXT"
)


class LedgersDiffer(Exception):
    """Our ledger is not known to be whole, so nothing is paid or refunded; the text and code say why."""

    code = "E_LEDGERS_DIFFER"

    def __init__(self, stop: PaymentStop) -> None:
        super().__init__(f"{stop.code}: {stop.message}; since {stop.since.isoformat(timespec='seconds')}")
        self.code = stop.code


class StorageInUse(Exception):
    """Another database uses our storage."""

    code = "E_STORAGE_IN_USE"


# why paying is stopped: code and words
REASONS = {
    "storage": (LedgersDiffer.code, OLDER),
    "service": (LedgersDiffer.code, OLDER),
    "another": (StorageInUse.code, IN_USE),
    "unread": (ListFailed.code, UNREAD),
}


@dataclass(frozen=True)
class PaymentStop:
    """Why all paying and refunding is stopped, and since when."""

    why: str
    since: datetime
    detail: str | None = None  # why the list could not be read

    @property
    def code(self) -> str:
        """Return the stable code of the reason."""
        return REASONS[self.why][0]

    @property
    def message(self) -> str:
        """Return the reason and what to do, in words."""
        return REASONS[self.why][1] + (f" ({self.detail})" if self.detail else "")

    def as_dict(self) -> dict[str, str]:
        """Return the object that `status --json` shows."""
        return {"code": self.code, "since": self.since.isoformat(timespec="seconds"), "message": self.message}


def current(transaction: Transaction) -> PaymentStop | None:
    """Return why all paying and refunding is stopped, as far as is known; None where it is not."""
    state = transaction.rows("installation")[0]
    if state.stopped_at is not None:
        return PaymentStop(state.stopped_by, state.stopped_at)
    return None if state.unread_since is None else PaymentStop("unread", state.unread_since, state.unread_why)


def shown(transaction: Transaction) -> dict[str, str] | None:
    """Return what `current` does as the object that `status --json` shows."""
    stop = current(transaction)
    return None if stop is None else stop.as_dict()

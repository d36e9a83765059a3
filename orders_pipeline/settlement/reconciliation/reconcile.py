"""Reconciling: our payments of a time, or of a batch, compared with those that the Payment service lists, both ways.

What the service listed belongs in `listed.py`, what our ledger takes over of it in `adoption.py`, what differs in
`findings.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from orders_pipeline.batches import batches
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.services.payment_gateway import ListFailed
from orders_pipeline.settlement.reconciliation import closings
from orders_pipeline.settlement.reconciliation.adoption import adopt_all, plan_lost
from orders_pipeline.settlement.reconciliation.findings import open_findings
from orders_pipeline.settlement.reconciliation.listed import list_payments, look_up
from orders_pipeline.system import installation, payment_stop
from orders_pipeline.system.composition import System

YOUNG_S = 120.0  # longer than a request can live: until then the answer may be under way


class NoList(Exception):
    """The Payment service offers no list to compare with."""

    code = "E_NO_PAYMENT_LIST"


@dataclass(frozen=True)
class Scope:
    """What one comparison is about: the payments of a time, or of one batch; times are the database's."""

    batch_id: str | None
    started_at: datetime
    covered_from: datetime
    covered_to: datetime
    young_s: float  # what is younger may still be an answer under way

    def parameters(self) -> dict[str, object]:
        """Return what the statements of a comparison need."""
        return asdict(self)


@dataclass(frozen=True)
class _Listed:
    """What the service listed of other callers, and what of ours was looked up."""

    unreadable: int
    foreign: int  # and readable
    judged: Sequence[int]
    looked_up: Sequence[str]


@dataclass(frozen=True)
class Reconciled:
    """What a comparison came to."""

    scope: Scope
    here: int  # payments of ours that were compared
    there: int  # payments of ours that the service listed
    foreign: int  # payments of other callers that it listed
    unreadable: int  # those of them that could not be read
    young: int  # differences that may still be an answer under way
    new: int
    gone: int
    healed: int
    closed: Sequence[str]  # batches that got a closing record
    resumed: bool  # paying was stopped and resumes, but for what findings hold up
    stopped: bool  # paying is stopped: not all was compared, or some of it is too young to judge
    open: Mapping[str, int]  # open findings by code, but for those that somebody answers for
    accepted: int  # these
    findings: Sequence[Mapping[str, Any]]  # the oldest of them

    def as_dict(self) -> dict[str, Any]:
        """Return the object that `reconcile --json` shows."""
        return {
            "batch_id": self.scope.batch_id,
            "from": self.scope.covered_from.isoformat(timespec="seconds"),
            "to": self.scope.covered_to.isoformat(timespec="seconds"),
            "payments": {"here": self.here, "there": self.there, "too_young": self.young}
            | {"foreign": self.foreign, "foreign_unreadable": self.unreadable},
            "findings": {"open": dict(self.open), "accepted": self.accepted}
            | {"new": self.new, "gone": self.gone, "healed": self.healed},
            "batches_closed": list(self.closed),
            "paying_resumed": self.resumed,
            "paying_stopped": self.stopped,
            "open_findings": [dict(finding) for finding in self.findings],
        }


def reconcile(
    system: System,
    batch_id: str | None,
    created_from: datetime | None,
    created_to: datetime | None,
    *,
    by_hand: tuple[str, str] | None = None,
) -> Reconciled:
    """Compare the payments of a batch, or those settled in a time; raise NoList, ListFailed, UnknownBatch or StorageInUse.

    More is listed where it takes more to judge: from the plan of the payments on. What older findings that are open are
    about is looked up. Where paying is stopped because our ledger may not be whole, all is compared that it may lack, and
    then paying resumes, unless a difference is too young to judge. `by_hand` is who says, and why, that the other database
    that has used the storage lately is gone.
    """
    _require_list(system)
    doubted = None if batch_id is not None else system.restore_guard.begin_comparing(is_other_gone=by_hand is not None)
    if doubted is not None:  # all is compared that may be missing, whatever was asked for
        created_from = min(created_from or doubted.since, doubted.since)
        created_to = max(created_to or doubted.until, doubted.until)
    with system.database.session() as session:
        if batch_id is not None:
            batches.get(session, batch_id)
        was_stopped = payment_stop.current(session) is not None
        scope = _scope(session, batch_id, created_from, created_to, is_stopped=doubted is not None and doubted.is_stopped)
        try:
            listed = _list(system, session, scope)
        except ListFailed as failure:
            if doubted is not None:
                system.restore_guard.note_unread(failure)
            raise
        healed, new, gone = _compare(system, session, scope, listed)
        if doubted is not None and plan_lost(system.database, system.cipher, system.clients, session):
            again = _compare(system, session, scope, listed)
            healed, new = healed + again[0], max(new + again[1] - again[2], 0)
        closed = closings.close_batches(session, scope.parameters())
        young = session.rows("reconciliation_counts", **scope.parameters())[0].young
        if doubted is not None and not young:  # from here on, findings hold up what they could repeat
            system.restore_guard.lift(scope.started_at, *(by_hand or ()))
        # after a mere restart whoever pays looks for itself whether the ledger is whole
        is_stopped = (payment_stop.current(session) if doubted is None else system.restore_guard.doubted()) is not None
        return _result(
            session,
            scope,
            {"foreign": listed.foreign + listed.unreadable, "unreadable": listed.unreadable, "new": new, "gone": gone}
            | {"healed": healed, "closed": closed, "resumed": was_stopped and not is_stopped, "stopped": is_stopped},
        )


def _require_list(system: System) -> None:
    if not system.payments.capabilities.can_list:
        with system.database.begin() as transaction:
            is_stopped = payment_stop.current(transaction) is not None
        stopped = "; paying is stopped until `reconcile --by-hand`" if is_stopped else ""
        raise NoList(f"{NoList.code}: the Payment service offers no list to compare with{stopped}")


def _list(system: System, session: Transaction, scope: Scope) -> _Listed:
    """Have in the session's own tables what the service knows of the scope; raise ListFailed."""
    ours = installation.read(session)
    session.execute("create_listed_payments")
    session.execute("create_unreadable_payments")
    session.execute("create_payment_differences")
    unreadable = list_payments(session, ours, system.payments, scope.covered_from, scope.covered_to)
    judged, looked_up = look_up(session, ours, system.payments, scope.parameters())
    session.execute("match_listed_by_id")
    session.execute("orders_of_foreign_payments")
    foreign = session.execute("set_foreign_payments_aside")
    session.execute("analyze_listed_payments")
    return _Listed(unreadable, foreign, judged, looked_up)


def _result(session: Transaction, scope: Scope, came_to: Mapping[str, Any]) -> Reconciled:
    counts = session.rows("reconciliation_counts", **scope.parameters())[0]
    by_code = session.rows("count_open_findings", batch_id=scope.batch_id)
    return Reconciled(
        scope=scope,
        here=counts.here,
        there=counts.there,
        young=counts.young,
        open={row.code: row.open for row in by_code if row.open},
        accepted=sum(row.accepted for row in by_code),
        findings=open_findings(session, scope.batch_id),
        **came_to,
    )


def _scope(
    session: Transaction,
    batch_id: str | None,
    created_from: datetime | None,
    created_to: datetime | None,
    *,
    is_stopped: bool,
) -> Scope:
    window = session.rows("reconciliation_window", batch_id=batch_id, created_from=created_from, created_to=created_to)[0]
    # where paying is stopped, nothing of ours is under way
    young_s = 0.0 if is_stopped else YOUNG_S
    return Scope(batch_id, window.started_at, window.covered_from, window.covered_to, young_s)


def _compare(system: System, session: Transaction, scope: Scope, listed: _Listed) -> tuple[int, int, int]:
    """Take over what only the service knows, find what differs, and return how many were healed, are new and are gone."""
    healed = adopt_all(system.database, system.clients, session, scope.parameters())
    if session.execute("match_planned_since"):  # orders of what was declined there were planned one by one
        healed += adopt_all(system.database, system.clients, session, scope.parameters())
    session.execute("empty_payment_differences")
    session.execute("compare_payments", **scope.parameters(), looked_up=listed.looked_up)
    session.execute("close_changed_findings")
    new = session.scalar("write_findings", started_at=scope.started_at)
    return healed, new, session.execute("close_gone_findings", **scope.parameters(), judged=listed.judged)

"""Reconciliation: our ledger of payments against the Payment service's list, both ways, and what differs.

The list is read a page at a time into a table that lives as long as the comparison, and compared there. A difference is a
finding, one however often it is seen, until it is gone. Only what our ledger does not know is taken over from the
service; what it says otherwise stays for a person. What a finished batch came to belongs in `closings.py`.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Row

from orders_pipeline.audit import recording
from orders_pipeline.batches import batches
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.database_errors import DatabaseUnavailable
from orders_pipeline.services import payment_listing
from orders_pipeline.services.payment_gateway import ListedPayment, ListFailed, PaymentGateway, PaymentPage
from orders_pipeline.settlement import closings, notifications
from orders_pipeline.settlement.payments import settle
from orders_pipeline.system import errors, installation, payment_stop
from orders_pipeline.system.composition import System
from orders_pipeline.system.errors import NotThere
from orders_pipeline.system.installation import Installation

FINDINGS: Mapping[str, str] = {
    "C_MISSING_THERE": "paid in our ledger, and the service has no such payment",
    "C_MISSING_HERE": "charged by the service, and not by our ledger",
    "C_AMOUNT_DIFFERS": "another amount at the service",
    "C_STATE_DIFFERS": "another state at the service",
    "C_CHARGED_TWICE": "charged more than once by the service",
    "C_REFUND_MISSING_THERE": "given back in our ledger, and not by the service",
    "C_REFUND_MISSING_HERE": "given back by the service, and not in our ledger",
    "C_UNREADABLE": "listed by the service in a form that cannot be read",
}
YOUNG_S = 120.0  # longer than a request can live: until then the answer may be under way
MOST_LOOKED_UP = 200  # findings that the window leaves out, in one comparison
SHOWN_FINDINGS = 1000


class NoList(Exception):
    """The Payment service offers no list to compare with."""

    code = "E_NO_PAYMENT_LIST"


class UnknownFinding(NotThere):
    """There is no such finding to accept."""

    code = "E_UNKNOWN_FINDING"


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
        return {
            "batch_id": self.batch_id,
            "started_at": self.started_at,
            "covered_from": self.covered_from,
            "covered_to": self.covered_to,
            "young_s": self.young_s,
        }


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
    resumed: bool  # paying was stopped, and goes on but for what findings hold up
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
    if not system.payments.capabilities.can_list:
        with system.database.begin() as transaction:
            stopped = (
                "; paying is stopped until `reconcile --by-hand`" if payment_stop.current(transaction) is not None else ""
            )
        raise NoList(f"{NoList.code}: the Payment service offers no list to compare with{stopped}")
    doubted = None if batch_id is not None else system.restore_guard.begin_comparing(is_other_gone=by_hand is not None)
    if doubted is not None:  # all is compared that may be missing, whatever was asked for
        created_from = min(created_from or doubted.since, doubted.since)
        created_to = max(created_to or doubted.until, doubted.until)
    with system.database.session() as session:
        if batch_id is not None:
            batches.get(session, batch_id)
        was_stopped = payment_stop.current(session) is not None
        ours = installation.read(session)
        scope = _scope(session, batch_id, created_from, created_to, is_stopped=doubted is not None and doubted.is_stopped)
        session.execute("create_listed_payments")
        session.execute("create_unreadable_payments")
        session.execute("create_payment_differences")
        try:
            unreadable = _list(session, ours, system.payments, scope)
        except ListFailed as failure:
            if doubted is not None:
                system.restore_guard.note_unread(failure)
            raise
        judged, looked_up = _look_up(session, ours, system.payments, scope)
        session.execute("match_listed_by_id")
        session.execute("orders_of_foreign_payments")
        foreign = session.execute("set_foreign_payments_aside")
        session.execute("analyze_listed_payments")
        healed, new, gone = _compare(system, session, scope, judged, looked_up)
        if doubted is not None and _plan_lost(system, session):
            again = _compare(system, session, scope, judged, looked_up)
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
            {"foreign": foreign + unreadable, "unreadable": unreadable, "new": new, "gone": gone}
            | {"healed": healed, "closed": closed, "resumed": was_stopped and not is_stopped, "stopped": is_stopped},
        )


def open_findings(transaction: Transaction, batch_id: str | None) -> list[dict[str, Any]]:
    """Return the oldest open findings of a batch, or of all, each with its age in seconds."""
    return [
        {
            "finding_id": row.finding_id,
            "code": row.code,
            "batch_id": row.batch_id,
            "payment_id": None if row.payment_id is None else str(row.payment_id),
            "service_payment_id": row.service_payment_id,
            **row.detail,
            "first_seen_at": row.first_seen_at.isoformat(timespec="seconds"),
            "age_s": int(row.age_s),
            "accepted": None if row.accepted_at is None else {"by": row.accepted_by, "why": row.accepted_why},
        }
        for row in transaction.rows("open_findings", batch_id=batch_id, limit=SHOWN_FINDINGS)
    ]


def accept(database: Database, finding_id: int, *, accepted_by: str, why: str) -> None:
    """Let an open finding hold up payments no more, because a person answers for it; raise UnknownFinding."""
    with database.begin() as transaction:
        if not transaction.execute("accept_finding", finding_id=finding_id, accepted_by=accepted_by, accepted_why=why):
            raise UnknownFinding("E_UNKNOWN_FINDING: there is no open finding with this number that is not accepted yet")


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


def _list(session: Transaction, ours: Installation, gateway: PaymentGateway, scope: Scope) -> int:
    """Write the whole list down and return how many of others cannot be read."""
    unreadable = 0
    for page in payment_listing.pages(gateway, scope.covered_from, scope.covered_to):
        if not _insert_page(session, ours, page) and not page.unreadable and page.following is not None:
            raise ListFailed("page-without-end", may_pass=False)
        unreadable += _insert_unreadable(session, ours, page)
    return unreadable


def _look_up(session: Transaction, ours: Installation, gateway: PaymentGateway, scope: Scope) -> tuple[list[int], list[str]]:
    """List singly what open findings outside the window are about: they never make it longer.

    Returns the findings that can be judged anew, and their payments. What cannot be asked for now stays as it is.
    """
    judged, payment_ids = [], []
    found = session.rows("findings_outside", **scope.parameters(), limit=MOST_LOOKED_UP)
    for finding in found if gateway.capabilities.can_look_up else ():
        try:
            pages = [gateway.list_by_id(each) for each in finding.service_payment_ids]
            if finding.reference is not None:
                pages.append(gateway.list_by_reference(finding.reference))
        except ListFailed as failure:
            if failure.may_pass:
                break
            continue
        for page in pages:
            _insert_page(session, ours, page)
            _insert_unreadable(session, ours, page)
        judged.append(finding.finding_id)
        payment_ids += [] if finding.payment_id is None else [str(finding.payment_id)]
    return judged, payment_ids


def _insert_page(session: Transaction, ours: Installation, page: PaymentPage) -> int:
    """Write a page down and return how many of its payments no earlier page had."""
    items = page.items
    if not items:
        return 0
    return session.execute(
        "insert_listed_payments",
        service_payment_ids=[item.service_payment_id for item in items],
        reference_marks=[hashlib.sha256(item.reference.encode("utf-8", "surrogatepass")).hexdigest() for item in items],
        # payments of before references named the installation have their bare id
        references=[ours.payment_id_of(item.reference) or _our_id(item.reference) for item in items],
        are_ours=[ours.is_ours(item.reference) for item in items],
        keys=[_our_id(item.idempotency_key) for item in items],
        amounts=[item.amount for item in items],
        statuses=[item.status for item in items],
        times=[item.created_at for item in items],
        refunded=[item.refunded_amount for item in items],
        failure_codes=[item.failure_code for item in items],
        batch_ids=[item.batch_id for item in items],
        allocations=[_allocations(item) for item in items],
    )


def _insert_unreadable(session: Transaction, ours: Installation, page: PaymentPage) -> int:
    """Write down what of a page is ours and cannot be read, and return how many others there are."""
    items = page.unreadable
    if not items:
        return 0
    return len(items) - session.execute(
        "insert_unreadable_payments",
        service_payment_ids=[item.service_payment_id for item in items],
        references=[ours.payment_id_of(item.reference or "") or _our_id(item.reference) for item in items],
        are_ours=[ours.is_ours(item.reference or "") for item in items],
        keys=[_our_id(item.idempotency_key) for item in items],
    )


def _our_id(text: str | None) -> str | None:
    """Return a text if it is written as our payment ids are."""
    try:
        return text if text is not None and str(uuid.UUID(text)) == text else None
    except ValueError:
        return None


def _allocations(item: ListedPayment) -> str | None:
    return None if item.allocations is None else json.dumps(dict(item.allocations))


def _compare(
    system: System, session: Transaction, scope: Scope, judged: Sequence[int], looked_up: Sequence[str]
) -> tuple[int, int, int]:
    """Take over what only the service knows, find what differs, and return how many were healed, are new and are gone."""
    healed = _adopt_all(system, session, scope)
    if session.execute("match_planned_since"):  # orders of what was declined there were planned alone
        healed += _adopt_all(system, session, scope)
    session.execute("empty_payment_differences")
    session.execute("compare_payments", **scope.parameters(), looked_up=looked_up)
    session.execute("close_changed_findings")
    new = session.scalar("write_findings", started_at=scope.started_at)
    return healed, new, session.execute("close_gone_findings", **scope.parameters(), judged=judged)


def _plan_lost(system: System, session: Transaction) -> bool:
    """Plan what could not be while paying was stopped, and say whether some of it is what the service has already.

    A batch that cannot be planned keeps nobody else from going on: its code is noted, and what it lost stays a finding.
    """
    for batch in session.rows("batches_to_plan"):
        profile = system.clients.profile_of_batch(batch.client_code)
        try:
            settle.plan_batch(system.database, system.cipher, batch.batch_id, profile)
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one batch
            recording.failed(system.database, error)
            session.execute("note_trouble", batch_id=batch.batch_id, code=errors.code_of(error))
    return session.execute("match_planned_since") > 0


def _adopt_all(system: System, session: Transaction, scope: Scope) -> int:
    """Settle the payments that only the service knows the end of and return their number."""
    names = ("batch_id", "started_at", "young_s")
    parameters = {name: value for name, value in scope.parameters().items() if name in names}
    found = session.rows("payments_to_adopt", **parameters)
    adopted = 0
    for (_, client_code), rows in groupby(found, key=lambda row: (row.batch_id, row.client_code)):
        profile = system.clients.profile_of_batch(client_code)
        adopted += _adopt(system, list(rows), retry_orders=profile.declined_payments == "retry_orders")
    return adopted


def _adopt(system: System, rows: Sequence[Row[Any]], *, retry_orders: bool) -> int:
    """Record of a batch's unknown payments what the service says, as their own worker would have."""
    with system.database.begin() as transaction:
        written = transaction.rows(
            "adopt_payments",
            payment_ids=[str(row.payment_id) for row in rows],
            statuses=["declined" if row.status == "failed" else "succeeded" for row in rows],
            service_payment_ids=[row.service_payment_id for row in rows],
            codes=[row.failure_code for row in rows],
            times=[row.created_at for row in rows],
        )
        payment_ids = [str(row.payment_id) for row in written]
        transaction.execute("orders_follow_payments", payment_ids=payment_ids)
        transaction.execute("retire_allocations", payment_ids=payment_ids)
        if retry_orders:
            transaction.execute("plan_declined_orders_alone", payment_ids=payment_ids)
        notifications.make_ready(transaction, payment_ids)
        transaction.execute("note_adopted_payments", payment_ids=payment_ids)
    return len(payment_ids)

"""Batches: what an uploaded file is from its arrival to its end, and the object users are shown of it.

Ids, registration, state and summary are here. The work of a stage belongs in the stage's own module; which objects of
the landing are new is decided in `intake/landing/`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from sqlalchemy import Row

from orders_pipeline.clients.file_names import encoding_shown
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.infrastructure.database_errors import ConstraintViolated
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.system.errors import NotThere

Batch: TypeAlias = Row[Any]  # of the table `batches`
Progress: TypeAlias = Row[Any]  # with the columns of the view `batch_counts` as well

BATCH_ID = re.compile(r"[0-9]{8}-[0-9a-f]{12}")
JAPAN = ZoneInfo("Asia/Tokyo")
FINISHED = frozenset({"completed", "completed_with_errors", "rejected", "cancelled"})
UNDER_WAY = frozenset({"received", "staged", "validated", "loaded", "paying"})
HALTED = frozenset({"stopped", "cancelling", "cancelled"})  # by a person: nothing is sent
AWAITING_APPROVAL = "awaiting_approval"
ORDER_STATES = ("pending", "paying", "paid", "declined", "unknown", "refunded", "cancelled")
ROW_KINDS = ("total", "accepted", "rejected", "blank", "skipped")
YEN_STATES = ("paid", "declined", "unknown", "refunded", "cancelled")
PAYMENT_STATES = ("planned", "succeeded", "declined", "unknown", "refunded", "cancelled")
PAUSES: Mapping[str, str] = {
    "E_LEDGERS_DIFFER": "The Payment service has charges that our ledger does not know, or the database seems older than "
    "the storage or the service says, or that could not be found out: status says which. Run: orders-pipeline reconcile",
    "E_PAYMENT_UNKNOWN": "It is not known yet whether some payments were charged.",
    "E_PAYMENT_UNAVAILABLE": "The Payment service cannot be used at the moment.",
    "E_PAYMENT_REFUSED": "The Payment service refuses this batch's payments with an answer that its contract does not name.",
    "E_SEALED_FORMAT": "A file of the batch is not encrypted as it was: something else is in its place.",
    "E_SEALED_KEY": "A file of the batch is encrypted with a key that is not set.",
    "E_SEALED_TAMPERED": "A file of the batch was changed, or is that of another place.",
    "E_STORAGE_DENIED": "The storage refuses access.",
    "E_STORAGE_REPLACED": "A file of the batch is not the one that was left in the storage; nothing is made of it.",
    "E_STORAGE_TLS": "The storage's certificate is not one for this host that we trust.",
    "E_STORAGE_UNAVAILABLE": "The storage does not answer properly.",
    "E_NOTIFICATION_UNAVAILABLE": "The Notification service cannot be used at the moment.",
    "E_NOTIFICATION_REFUSED": "The Notification service refuses this batch's notifications as its contract does not name.",
    "E_REFUNDS_OPEN": "Some refunds, or the corrections that follow them, are not through yet.",
}
STAGES = ("stage", "validate", "load", "pay", "notify", "report")


class UnknownBatch(NotThere):
    """There is no batch with this id."""

    code = "E_UNKNOWN_BATCH"


class BatchEnded(Exception):
    """The batch has ended, or is being cancelled, and what is asked for is too late; the text says what can be done."""

    code = "E_BATCH_ENDED"


@dataclass(frozen=True)
class Source:
    """Where a batch's bytes come from; `landing_*` are None for a file imported by hand, which is archived already."""

    csv_source: str
    landing_key: str | None = None
    landing_version: str | None = None
    landed_at: datetime | None = None
    sha256: str | None = None
    size: int | None = None  # bytes
    via: str = "landing"
    submitted_by: str | None = None  # None: nobody knows, as from the landing


def batch_id_for(client_code: str, identity: str, received: date) -> str:
    """Return a sortable id that the same file of the same client always gets: `YYYYMMDD-` and 12 hex digits."""
    return f"{received:%Y%m%d}-{hashlib.sha256(f'{client_code}|{identity}'.encode()).hexdigest()[:12]}"


def today() -> date:
    """Return the business date: the day it is in Japan."""
    return datetime.now(JAPAN).date()


def register_landed(transaction: Transaction, client_code: str, source: Source) -> str:
    """Make a batch of a landed file version, once however often it is asked for, and return its id.

    The id does not depend on the day: where a restored database sees the file again, services know its orders.
    """
    received = today() if source.landed_at is None else source.landed_at.astimezone(JAPAN).date()
    batch_id = batch_id_for(client_code, f"{source.landing_key}|{source.landing_version}", received)
    if not _insert(transaction, batch_id, client_code, source, again_no=0):  # maybe on another day, under another id
        batch_id = transaction.scalar(
            "batch_of_landed_version", landing_key=source.landing_key, landing_version=source.landing_version
        )
    return batch_id


def plan_import(transaction: Transaction, client_code: str, sha256: str, *, again: bool) -> tuple[str, int]:
    """Return the id that a file imported by hand gets as a batch, and which repeat of the same bytes it is.

    Raises FileRejected(F_DUPLICATE_FILE) for known bytes. With `again` they become another batch, as they do where nothing
    was loaded of them.
    """
    again_no = next_repeat(transaction, client_code, sha256, again=again)
    for taken in itertools.count():  # by batches that were refused: the repeat is the same, as its payments are
        batch_id = batch_id_for(client_code, f"{sha256}|{again_no}" + f"|{taken}" * bool(taken), today())
        if not transaction.scalar("is_batch", batch_id=batch_id):
            break
    return batch_id, again_no


def register_import(transaction: Transaction, batch_id: str, client_code: str, source: Source, *, again_no: int) -> bool:
    """Make a batch of a file as it was planned, and return whether its id was still free.

    Raises FileRejected(F_DUPLICATE_FILE) where somebody else has registered the same bytes meanwhile.
    """
    if _insert(transaction, batch_id, client_code, source, again_no=again_no):
        return True
    theirs = transaction.row("batch_with_same_bytes", client_code=client_code, source_sha256=source.sha256)
    if theirs is not None and theirs.again_no >= again_no:
        raise FileRejected("F_DUPLICATE_FILE", {"batch_id": theirs.batch_id})
    return False


def next_repeat(transaction: Transaction, client_code: str, sha256: str | None, *, again: bool) -> int:
    """Return how often the same bytes were received; raise FileRejected(F_DUPLICATE_FILE) where they were and may not be."""
    earlier = transaction.row("batch_with_same_bytes", client_code=client_code, source_sha256=sha256)
    if earlier is not None and earlier.counts and not again:
        raise FileRejected("F_DUPLICATE_FILE", {"batch_id": earlier.batch_id})
    return 0 if earlier is None else int(earlier.again_no) + 1


def _insert(transaction: Transaction, batch_id: str, client_code: str, source: Source, *, again_no: int) -> bool:
    inserted = transaction.execute(
        "insert_batch",
        batch_id=batch_id,
        client_code=client_code,
        csv_source=source.csv_source,
        landing_key=source.landing_key,
        landing_version=source.landing_version,
        source_sha256=source.sha256,
        source_bytes=source.size,
        again_no=again_no,
        via=source.via,
        submitted_by=source.submitted_by,
    )
    return inserted > 0


def record_source(transaction: Transaction, batch: Batch, sha256: str, size: int, *, again: bool) -> str | None:
    """Note what a batch's bytes are and return the batch they came as before, if they did and may not come `again`."""
    source = {"batch_id": batch.batch_id, "source_sha256": sha256, "source_bytes": size}
    try:
        with transaction.savepoint():
            transaction.execute("set_source", **source)
    except ConstraintViolated:
        earlier = transaction.row("batch_with_same_bytes", client_code=batch.client_code, source_sha256=sha256)
        if earlier is not None and (again or not earlier.counts):
            transaction.execute("set_source_again", again_no=earlier.again_no + 1, **source)
            return None
        duplicate_of = str(earlier.batch_id) if earlier is not None else None
        transaction.execute("set_duplicate", duplicate_of=duplicate_of, **source)
        return duplicate_of
    return None


def get(transaction: Transaction, batch_id: str) -> Batch:
    """Return a batch's row, read by its key; raise UnknownBatch."""
    return _found(transaction.row("batch", batch_id=batch_id))


def progress(transaction: Transaction, batch_id: str) -> Progress:
    """Return a batch's row with the counts and yen of its orders, payments and notifications; raise UnknownBatch.

    All of them are read, which takes seconds where they are millions.
    """
    return _found(transaction.row("batch_progress", batch_id=batch_id))


def _found(row: Row[Any] | None) -> Row[Any]:
    if row is None:
        raise UnknownBatch(f"{UnknownBatch.code}: there is no batch with this id")
    return row


def set_status(
    transaction: Transaction,
    batch_id: str,
    status: str,
    code: str | None = None,
    detail: Mapping[str, str] | None = None,
    at: datetime | None = None,
) -> bool:
    """Move an unfinished batch to `status`, with a code and safe parameters saying why; not one that a person has halted.

    An end is `at` some moment, or now.
    """
    says = {"status_code": code, "status_detail": json.dumps(dict(detail or {}))}
    return bool(transaction.execute("set_status", batch_id=batch_id, status=status, at=at, **says))


def stop(transaction: Transaction, batch_id: str, stopped_by: str, run_made_at: datetime | None = None) -> bool:
    """Stop a batch until somebody resumes it, and return whether it was stopped: one that has ended is not.

    One whose run was terminated is not if somebody has resumed it since that run was made.
    """
    return bool(transaction.execute("stop_batch", batch_id=batch_id, stopped_by=stopped_by, run_made_at=run_made_at))


def restart(transaction: Transaction, batch_id: str, *, by_run: bool = False) -> None:
    """Resume a batch, where it was if it is stopped, or by a run that a person has made for that."""
    transaction.execute("restart_batch", batch_id=batch_id, by_run=by_run)


def require_not_cancelled(batch: Batch) -> None:
    """Raise BatchEnded for a batch that is cancelled, or being cancelled: it is never resumed."""
    if batch.cancelled_at is not None:
        raise BatchEnded(f"{BatchEnded.code}: {halted_words(batch)}; it is never resumed")


def halted_words(batch: Batch) -> str:
    """Return who halted a batch, and when: Dagster's UI says no more."""
    if batch.status == "stopped":
        return f"the batch was stopped at {in_japan(batch.stopped_at)} by {batch.stopped_by}"
    is_over = "was" if batch.status == "cancelled" else "is being"
    return f"the batch {is_over} cancelled, at {in_japan(batch.cancelled_at)} by {batch.cancelled_by}"


def in_japan(moment: datetime) -> str:
    """Return a time as what is said to everybody alike has it: by the clock of Japan, which it names."""
    return f"{moment.astimezone(JAPAN):%Y-%m-%d %H:%M:%S} JST"


def open_orders(batch: Progress) -> int:
    """Return how many of a batch's orders are not final."""
    return int(batch.orders_pending + batch.orders_paying + batch.orders_unknown)


def open_notifications(batch: Progress) -> int:
    """Return how many of a batch's notifications are not final."""
    final = batch.notifications_sent + batch.notifications_failed + batch.notifications_cancelled
    return int(batch.notifications_planned - final)


def orders_accepted(batch: Batch) -> int:
    """Return how many orders the accepted rows of a batch that is validated are."""
    return int(batch.rows_accepted - batch.rows_continuing)


def takes_nothing(accepted: int | None, rejected: int | None, skipped: int, *, is_correction: bool) -> bool:
    """Return whether a file with so many rows is rejected as a whole: where all are skipped there is nothing to reject.

    Nor is a correction that skips any: these may close rows.
    """
    return not accepted and (not skipped or (bool(rejected) and not is_correction))


def counts(row: Progress) -> tuple[object, ...]:
    """Return what the reports and the end of a batch depend on."""
    names = [f"orders_{state}" for state in ORDER_STATES]
    names += [f"notifications_{state}" for state in ("planned", "sent", "failed")]
    names += ["status", "rows_accepted", "rows_rejected"]
    return tuple(getattr(row, name) for name in names)


def final_status(row: Progress, held_by: Collection[str] = ()) -> tuple[str, str | None]:
    """Return the state (and code) that a batch's counts amount to once nothing is under way.

    `held_by` are the services that it waits for because they refuse it.
    """
    if row.status == "cancelling":  # somebody may have said so while the batch was being brought to another end
        return ("cancelling" if open_orders(row) else "cancelled"), None
    rows = row.rows_accepted, row.rows_rejected, row.rows_skipped
    if row.status == "rejected" or takes_nothing(*rows, is_correction=row.corrects is not None):
        return "rejected", row.status_code if (row.status_code or "").startswith("F_") else None
    if not row.is_approved:
        return AWAITING_APPROVAL, None
    for is_open, code in (
        (row.ledgers_differ and open_orders(row), "E_LEDGERS_DIFFER"),
        (row.orders_unknown, "E_PAYMENT_UNKNOWN"),
        (row.orders_pending or row.orders_paying, f"E_PAYMENT_{'REFUSED' if 'payment' in held_by else 'UNAVAILABLE'}"),
        (open_notifications(row), f"E_NOTIFICATION_{'REFUSED' if 'notification' in held_by else 'UNAVAILABLE'}"),
    ):
        if is_open:
            return "paused", code
    with_errors = row.rows_rejected or row.orders_declined or row.notifications_failed
    return ("completed_with_errors" if with_errors else "completed"), None


def summary(
    row: Progress, rejections: Mapping[str, int], seconds: Mapping[str, float], artifacts: Mapping[str, str]
) -> dict[str, Any]:
    """Return the object that `status --json`, `import --json` and `result.json` show of a batch."""
    orders = _counted(row, "orders", ORDER_STATES)
    yen = {state: int(amount) for state, amount in _counted(row, "amount", YEN_STATES).items()}
    if row.status == "cancelled" and row.rows_accepted is not None:  # maybe before all of its rows were orders
        orders["cancelled"] += orders_accepted(row) - sum(orders.values())
        yen["cancelled"] += int(row.amount_accepted - row.amount_loaded)
    is_open = row.finished_at is None and row.amount_accepted is not None
    return {
        "batch_id": row.batch_id,
        "status": row.status,
        "status_code": row.status_code,
        "stopped": _decision(row.stopped_by, row.stopped_at),
        "approval": approval(row, lambda at: at.isoformat(timespec="seconds")),
        "cancelled": _decision(row.cancelled_by, row.cancelled_at, why=row.cancelled_why),
        "client_code": row.client_code,
        "csv_source": row.csv_source,
        "source_sha256": row.source_sha256,
        "bulk_import_group": row.bulk_import_group,
        "duplicate_of": row.duplicate_of,
        "corrects": row.corrects,
        "encoding": encoding_shown(row.csv_source, row.encoding),
        "rows": _counted(row, "rows", ROW_KINDS),
        "orders": orders,
        "amount_jpy": {"accepted": row.amount_accepted}
        | yen
        | {"open": int(row.amount_accepted) - sum(yen.values()) if is_open else 0},
        "payments": _counted(row, "payments", PAYMENT_STATES),
        "notifications": _counted(row, "notifications", ("planned", "sent", "failed", "cancelled")),
        "rejections": dict(rejections),
        "artifacts": dict(artifacts),
        "seconds": {stage: round(seconds.get(stage, 0.0), 3) for stage in STAGES}
        | {"total": round(elapsed(row, seconds), 3)},
    }


def approval(row: Batch, shown: Callable[[datetime], str | None]) -> dict[str, Any] | None:
    """Return why somebody had to approve a batch, and what was said; None where nobody was asked."""
    if row.approval_requested_at is None:
        return None
    return {
        "needed_because": "amount" if row.approval_above else "always",
        "requested_at": shown(row.approval_requested_at),
        "decided_by": row.approval_decided_by,
        "decided_at": None if row.approval_decided_at is None else shown(row.approval_decided_at),
        "decision": row.approval_decision,
        "reason": row.cancelled_why if row.approval_decision == "refused" else None,
    }


def _counted(row: Progress, what: str, states: Sequence[str]) -> dict[str, Any]:
    return {state: getattr(row, f"{what}_{state}") for state in states}


def _decision(by: str | None, at: datetime | None, **more: str | None) -> dict[str, Any] | None:
    return None if by is None or at is None else {"by": by, "at": at.isoformat(timespec="seconds")} | more


def elapsed(row: Batch, seconds: Mapping[str, float]) -> float:
    """Return the seconds from arrival to the end, or those worked so far."""
    if row.finished_at is not None:
        return float((row.finished_at - row.received_at).total_seconds())
    return worked(seconds)


def worked(seconds: Mapping[str, float]) -> float:
    """Return the seconds that all stages took together: customers are notified while others are paid."""
    return sum(seconds.get(stage, 0.0) for stage in STAGES) - min(seconds.get("pay", 0.0), seconds.get("notify", 0.0))

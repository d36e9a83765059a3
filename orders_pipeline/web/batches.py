"""Batches as JSON: one in full, and lists of them."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Row
from starlette.responses import Response

from orders_pipeline.batches import batches
from orders_pipeline.batches.artifacts import artifact
from orders_pipeline.batches.run_processes import batches_being_processed
from orders_pipeline.clients.api_tokens import APPROVE, Caller
from orders_pipeline.clients.file_names import composed
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.reports.report_files import REPORTS
from orders_pipeline.settlement.standing_still import standing_still_since
from orders_pipeline.system.composition import System
from orders_pipeline.upkeep import approval
from orders_pipeline.web import cursors
from orders_pipeline.web.calls import Call, answer, etag_of, moment, number, shown_time
from orders_pipeline.web.problems import Problem

MOST_LISTED = 100
LOOK_S, MOST_LOOKED_AT = 0.9, 500  # seconds, less than streams wait between two looks; and batches
BEFORE_LOADING = ("received", "staged", "validated")
FILTERS = ("status", "from", "to", "name", "sha256", "idempotency_key", "limit", "cursor")


def accepted(call: Call, batch_id: str, more: Mapping[str, str] = MappingProxyType({})) -> Response:
    """Answer that what was asked for is done or will be, with the batch as it is now."""
    body = batch_object(call.system, call.caller, batch_id)
    headers = {"Location": f"/v1/batches/{batch_id}", "ETag": etag_of(body), **more}
    if not body["finished"]:
        headers["Retry-After"] = "1"
    return answer(body, 202, headers)


def is_resumable(row: Row[Any]) -> bool:
    """Return whether a batch stands still: it was stopped or paused, or a step of it could not be done."""
    has_ended = row.finished_at is not None or row.cancelled_at is not None
    return not has_ended and (row.status in ("stopped", "paused") or row.status_code is not None)


def batch_object(system: System, caller: Caller, batch_id: str) -> dict[str, Any]:
    """Return a batch as the API shows it to its client; raise a Problem for one that is missing or another client's."""
    return _shown_to(caller, *_read(system, caller.client_code, batch_id))


class Looks:
    """Batches that somebody follows or asks for again and again: each is counted once for all within a moment.

    A batch itself is shown as it is now. The numbers of its orders may be as they were a moment ago, until the batch changes
    and once it has ended: nobody asks again and again then.
    """

    def __init__(self, system: System, limiter: CapacityLimiter) -> None:
        self._system, self._limiter = system, limiter
        self._batches: OrderedDict[tuple[str, str], _Look] = OrderedDict()

    async def look(self, caller: Caller, batch_id: str) -> dict[str, Any]:
        """Return a batch as `batch_object` does, its numbers maybe as they were a moment ago."""
        place = caller.client_code, batch_id
        last = self._batches.setdefault(place, _Look())
        self._batches.move_to_end(place)
        if len(self._batches) > MOST_LOOKED_AT:
            self._batches.popitem(last=False)
        came = time.monotonic()
        async with last.lock:  # who comes while it is read waits for it, and keeps no thread
            found, now = last.found, time.monotonic()
            if found is None or last.looked_at < came:  # else another who waited has looked since
                found = await to_thread.run_sync(self._read, place, last, limiter=self._limiter)
                last.looked_at = now
            return _shown_to(caller, *found)

    def _read(self, place: tuple[str, str], last: _Look) -> tuple[Row[Any], dict[str, Any]]:
        with self._system.database.begin() as transaction:
            version = transaction.scalar("api_batch_version", batch_id=place[1])
        is_old = last.version != version or time.monotonic() - last.at >= LOOK_S
        if last.found is None or is_old or last.found[0].finished_at is not None:
            last.found, last.version, last.at = _read(self._system, *place), version, time.monotonic()
        return last.found


@dataclass
class _Look:
    found: tuple[Row[Any], dict[str, Any]] | None = None
    version: str | None = None
    at: float = 0.0  # when it was counted, and when it was last looked at whether it has changed
    looked_at: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def _shown_to(caller: Caller, row: Row[Any], body: Mapping[str, Any]) -> dict[str, Any]:
    return {**body, "allowed": _allowed(row, caller)}


def _read(system: System, client_code: str, batch_id: str) -> tuple[Row[Any], dict[str, Any]]:
    """Return a client's batch, and what of it everybody is shown; raise a Problem as above."""
    with system.database.begin() as transaction:
        row = transaction.row("api_batch", client_code=client_code, batch_id=batch_id)
        if row is None:
            raise Problem("not-found")
        group = transaction.rows("import_group", bulk_import_group=row.bulk_import_group)[0]
        found = transaction.rows("rejections_by_code", batch_id=batch_id)
        waiting_for = _waiting_for(transaction, row)
        cancellation = _cancellation(transaction, row)
        is_processed = row.status == "paying" and bool(batches_being_processed(transaction, [batch_id]))
    rate = system.settings.notification_rate_per_s if is_processed else None
    still_since = None if row.finished_at else standing_still_since(system, [batch_id]).get(batch_id)
    summary = batches.summary(row, {}, {}, {})
    amounts = {name: summary["amount_jpy"][name] for name in ("paid", "declined", "unknown", "refunded", "cancelled")}
    body = {
        **_short(row),
        "encoding": summary["encoding"],
        "duplicate_of": row.duplicate_of,
        "orders": summary["orders"],
        "amount_jpy": {"accepted": row.amount_accepted} | amounts,
        "payments": summary["payments"],
        "notifications": summary["notifications"],
        "rejections": {each.code: each.rows for each in found if not each.is_warning},
        "warnings": [each.code for each in found if each.is_warning],
        "corrections": {"rows_open": group.rows_open, "batches": group.batches},
        "waiting_for": waiting_for,
        "standing_still_since": shown_time(still_since),
        "approval": batches.approval(row, shown_time),
        "cancellation": cancellation,
        "progress": _progress(row, rate, is_still=still_since is not None),
        "links": _links(row, _files(system, row)),
    }
    return row, body


def list_batches(call: Call) -> Response:
    """Answer with a page of the client's batches, the newest first."""
    given = call.parameters(FILTERS)
    limit = number(given.get("limit"), MOST_LISTED, MOST_LISTED)
    before_at, before_id = cursors.position(call, given, ("infinity", ""))
    key = given.get("idempotency_key")
    with call.system.database.begin() as transaction:
        rows = transaction.rows(
            "api_batches",
            client_code=call.caller.client_code,
            status=given.get("status"),
            from_at=moment(given.get("from")) or "-infinity",
            to_at=moment(given.get("to")) or "infinity",
            csv_source=composed(given["name"]) if "name" in given else None,
            sha256=given.get("sha256"),
            key_sha256=None if key is None else hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest(),
            before_at=before_at,
            before_id=before_id,
            limit=limit + 1,
        )
    items = [_short(row) | {"links": {"self": f"/v1/batches/{row.batch_id}"}} for row in rows[:limit]]
    last = rows[limit - 1] if len(rows) > limit else None
    place = None if last is None else cursors.following(call, given, (last.received_at.isoformat(), last.batch_id))
    return answer({"items": items, "next": place})


def _short(row: Row[Any]) -> dict[str, Any]:
    return {
        "batch_id": row.batch_id,
        "name": row.csv_source,
        "via": row.via,
        "status": row.status,
        "finished": row.status in batches.FINISHED,
        "status_code": row.status_code,
        "sha256": row.source_sha256,
        "bytes": row.source_bytes,
        "import_group": row.bulk_import_group,
        "corrects": row.corrects,
        "rows": {name: getattr(row, f"rows_{name}") for name in batches.ROW_KINDS},
        "received_at": shown_time(row.received_at),
        "finished_at": shown_time(row.finished_at),
    }


def _allowed(row: Row[Any], caller: Caller) -> list[str]:
    """Return what makes sense to ask for of a batch now; what only some may say, only to who may."""
    is_cancellable = row.finished_at is None and row.cancelled_at is None
    may_decide = APPROVE in caller.scopes and approval.may_decide(row, caller.actor)
    return [
        *(["approve", "refuse"] if may_decide else []),
        *(["cancel"] if is_cancellable else []),
        *(["resume"] if is_resumable(row) else []),
    ]


def _waiting_for(transaction: Transaction, row: Row[Any]) -> dict[str, Any] | None:
    """Return which service a batch that is paused waits for, if it is one."""
    if row.status != "paused":
        return None
    service = next((each for each in ("payment", "notification") if f"_{each.upper()}_" in (row.status_code or "")), None)
    probes = {each.service: each.probe_at for each in transaction.rows("open_breakers")}
    return {"service": service, "code": row.status_code, "next_try": shown_time(probes.get(service))}


def _cancellation(transaction: Transaction, row: Row[Any]) -> dict[str, Any] | None:
    """Return who cancelled a batch and why, and once that is done, whose orders were paid without a word to them."""
    if row.cancelled_at is None:
        return None
    is_over = row.status == "cancelled"
    left = transaction.rows("paid_not_notified", batch_id=row.batch_id)[0] if is_over else None
    return {
        "by": row.cancelled_by,
        "at": shown_time(row.cancelled_at),
        "reason": row.cancelled_why,
        "paid_not_notified": None if left is None else {"orders": left.orders, "amount_jpy": left.yen},
    }


def _progress(row: Row[Any], notices_a_second: int | None, *, is_still: bool) -> dict[str, Any]:
    """Return how far each phase is, counted from rows; how long is known only where somebody sends so many a second."""
    is_finished = row.status in batches.FINISHED
    loaded = sum(getattr(row, f"orders_{state}") for state in batches.ORDER_STATES)
    settled = row.payments_succeeded + row.payments_declined + row.payments_refunded + row.payments_cancelled
    told = row.notifications_sent + row.notifications_failed + row.notifications_cancelled
    checked = None if row.rows_accepted is None else row.rows_total
    is_loaded = row.status not in BEFORE_LOADING and row.rows_accepted is not None
    is_paid = is_loaded and row.payments_planned > 0 and settled == row.payments_planned
    is_told = is_paid and told == row.notifications_planned
    seconds = None if notices_a_second is None else _seconds(row, told, notices_a_second)
    numbers: dict[str, tuple[bool, int | None, int | None, int | None]] = {
        "receive": (row.source_sha256 is not None, None, None, None),
        "check": (checked is not None, checked or 0, row.rows_total, None),
        "load": (is_loaded, loaded, None if row.rows_accepted is None else batches.orders_accepted(row), None),
        "pay": (is_paid, settled, row.payments_planned or None, None),
        "notify": (is_told, told, row.notifications_planned or None, seconds),
        "report": (is_finished, None, None, None),
    }
    current = "finished" if is_finished else next(name for name, (is_done, *_) in numbers.items() if not is_done)
    at_work = None if is_still or row.status == batches.AWAITING_APPROVAL else current
    phases = [
        {"name": name, "state": "done" if is_finished or is_done else "working" if name == at_work else "waiting"}
        | ({} if name in ("receive", "report") else {"done": done, "total": total, "eta_s": eta})
        for name, (is_done, done, total, eta) in numbers.items()
    ]
    return {"phase": current, "phases": phases}


def _seconds(row: Row[Any], told: int, notices_a_second: int) -> int | None:
    """Return how long the notifications that are open take at the rate that the service allows."""
    if not row.notifications_planned:
        return None
    return math.ceil(int(row.notifications_planned - told) / notices_a_second)


def _files(system: System, row: Row[Any]) -> list[str]:
    """Return the reports that there are. Until the end it is known without the storage: rows' ones precede payments."""
    if row.status not in batches.FINISHED:
        written = ("rejected", row.rows_rejected), ("errors", True)
        are_there = row.payments_planned or row.status == batches.AWAITING_APPROVAL
        return [REPORTS[name] for name, is_made in written if is_made and are_there]
    return [name for name in REPORTS.values() if system.storage.head(artifact(row.batch_id, name)) is not None]


def _links(row: Row[Any], files: list[str]) -> Mapping[str, Any]:
    own = f"/v1/batches/{row.batch_id}"
    names = [*(["original"] if row.source_sha256 is not None else []), *files]
    return {
        "self": own,
        **{each: f"{own}/{each}" for each in ("events", "rejections", "orders", "payments", "notifications")},
        "files": {name: f"{own}/files/{name}" for name in names},
    }

"""Lists of what a batch has: rejections, orders, payments and notifications, a page at a time, without personal values.

A rejected row's own values are given to who may read them, when asked for, and each such page is in the audit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row
from starlette.responses import Response

from orders_pipeline.audit import recording
from orders_pipeline.batches.artifacts import STAGED, lent
from orders_pipeline.clients.api_tokens import READ_REJECTED
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.infrastructure.storage import ObjectGone
from orders_pipeline.reports.rejected_rows import as_rejection, listed, rejected_rows
from orders_pipeline.web import cursors
from orders_pipeline.web.calls import Call, answer, flag, number, own_batch, shown_time
from orders_pipeline.web.problems import Problem

MOST_LISTED = 100
MOST_REJECTIONS = 1_000
NO_ID = "00000000-0000-0000-0000-000000000000"
NEVER_SHOWN = "payment_token"

Shown = dict[str, Any]


def list_rejections(call: Call) -> Response:
    """Answer with a page of what is wrong with a batch: the file as a whole first, then its rows."""
    given = call.parameters(("code", "column", "values", "limit", "cursor"))
    with_values = flag(given.get("values"))
    if with_values:
        call.require(READ_REJECTED)
    limit = number(given.get("limit"), MOST_LISTED, MOST_REJECTIONS)
    after_row, after_id = cursors.position(call, given, (-1, 0))
    with call.system.database.begin() as transaction:
        batch = own_batch(transaction, call.caller, call.batch_id)
        rows = transaction.rows(
            "api_rejections",
            batch_id=call.batch_id,
            client_code=call.caller.client_code,
            after_row=after_row,
            after_id=after_id,
            code=given.get("code"),
            column_name=given.get("column"),
            limit=limit + 1,
        )
    headers = (batch.source_layout or {}).get("headers", {})
    values = _values(call, rows[:limit]) if with_values else None
    items = [_rejection(row, headers, values) for row in rows[:limit]]
    return _page(call, given, items, rows, limit, lambda row: (row.place, row.rejection_id))


def _rejection(
    row: Row[Any], headers: Mapping[str, Sequence[str]], values: Mapping[int, Mapping[str, str | None]] | None
) -> Shown:
    shown = listed(as_rejection(row), headers)
    if values is None:
        return shown
    is_secret = row.code == "R_FORBIDDEN_DATA" or row.column_name == NEVER_SHOWN
    cells = {} if is_secret else values.get(row.import_row_number or 0, {})
    return shown | {"value": cells.get(row.column_name or "")}


def _values(call: Call, rows: Sequence[Row[Any]]) -> dict[int, Mapping[str, str | None]]:
    """Return the cells of the rows of a page, as they were sent, and write into the audit that they were read."""
    wanted = [as_rejection(row) for row in rows if row.import_row_number is not None]
    if not wanted:
        return {}
    with call.system.database.begin() as transaction:
        transaction.execute("identify_caller", actor=call.caller.actor)
        recording.record(
            transaction,
            "phi_access",
            "read",
            "rejected rows",
            batch_id=call.batch_id,
            rows=len({each.import_row_number for each in wanted}),
            detail={"purpose": "to correct them"},
        )
    try:
        with lent(call.system.storage, call.system.database, call.batch_id, STAGED) as staged:
            return {row.number: row.cells for row in rejected_rows(staged, wanted)}
    except ObjectGone:
        raise Problem("no-such-file") from None


def list_orders(call: Call) -> Response:
    """Answer with a page of a batch's orders, in the order of the file."""

    def read(transaction: Transaction, after: object, asked: Mapping[str, object]) -> Sequence[Row[Any]]:
        return transaction.rows("api_orders", after_row=after, **asked)

    return _list(call, 0, read, _order, lambda row: row.import_row_number, ("status", "notification"))


def _order(row: Row[Any]) -> Shown:
    names = ("client_order_ref", "customer_code", "item_code", "quantity", "unit_price", "amount", "payment_method")
    return {
        "row": row.import_row_number,
        **{name: getattr(row, name) for name in names},
        "order_date": None if row.order_date is None else row.order_date.isoformat(),
        "notify_channel": row.notify_channel,
        "status": row.status,
        "status_changed_at": shown_time(row.status_changed_at),
        "payment_id": None if row.payment_id is None else str(row.payment_id),
        "notification_id": None if row.notification_id is None else str(row.notification_id),
        "notification_status": row.notification_status,
    }


def list_payments(call: Call) -> Response:
    """Answer with a page of a batch's payments."""

    def read(transaction: Transaction, after: object, asked: Mapping[str, object]) -> Sequence[Row[Any]]:
        return transaction.rows("api_payments", after_id=after, **asked)

    return _list(call, NO_ID, read, _payment, lambda row: str(row.payment_id))


def _payment(row: Row[Any]) -> Shown:
    names = ("customer_code", "payment_method", "amount", "status", "outcome_code", "service_payment_id")
    return {
        "payment_id": str(row.payment_id),
        **{name: getattr(row, name) for name in names},
        "sent_at": shown_time(row.sent_at),
        "settled_at": shown_time(row.settled_at),
    }


def list_notifications(call: Call) -> Response:
    """Answer with a page of a batch's notifications."""

    def read(transaction: Transaction, after: object, asked: Mapping[str, object]) -> Sequence[Row[Any]]:
        return transaction.rows("api_notifications", after_id=after, **asked)

    return _list(call, NO_ID, read, _notification, lambda row: str(row.notification_id))


def _notification(row: Row[Any]) -> Shown:
    return {
        "notification_id": str(row.notification_id),
        **{name: getattr(row, name) for name in ("customer_code", "channel", "kind", "status", "outcome_code")},
        "sent_at": shown_time(row.sent_at),
        "settled_at": shown_time(row.settled_at),
    }


def _list(
    call: Call,
    start: object,
    read: Callable[[Transaction, object, Mapping[str, object]], Sequence[Row[Any]]],
    item: Callable[[Row[Any]], Shown],
    place: Callable[[Row[Any]], object],
    filters: Sequence[str] = ("status",),
) -> Response:
    """Answer with a page of the rows of a batch that `read` finds behind a place; the first page begins behind `start`."""
    given = call.parameters((*filters, "limit", "cursor"))
    (after,) = cursors.position(call, given, (start,))
    limit = number(given.get("limit"), MOST_LISTED, MOST_LISTED)
    with call.system.database.begin() as transaction:
        own_batch(transaction, call.caller, call.batch_id)
        own = {"batch_id": call.batch_id, "client_code": call.caller.client_code}
        asked = {name: given.get(name) for name in filters}
        rows = read(transaction, after, own | asked | {"limit": limit + 1})  # one more tells whether there is a next page
    return _page(call, given, [item(row) for row in rows[:limit]], rows, limit, lambda row: (place(row),))


def _page(
    call: Call,
    given: Mapping[str, str],
    items: Sequence[Shown],
    rows: Sequence[Row[Any]],
    limit: int,
    place: Callable[[Row[Any]], Sequence[object]],
) -> Response:
    """Answer with a page, and with where the next one begins if a row more was found than it holds."""
    behind = cursors.following(call, given, place(rows[limit - 1])) if len(rows) > limit else None
    return answer({"items": list(items), "next": behind})

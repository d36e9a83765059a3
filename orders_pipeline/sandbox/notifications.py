"""The Notification service's routes: send one, send many, look up.

Every call's arrival is recorded, refused or not; the limit counts the calls it let in. What may be sent is in
`contract.py`, keys and faults in `service.py`.
"""

from __future__ import annotations

import math
import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from orders_pipeline.sandbox.contract import (
    BulkRequest,
    NotificationRequest,
    Problem,
    UnlistedRefusal,
    fingerprint,
    read_json,
    read_notification,
    read_request,
)
from orders_pipeline.sandbox.faults import Faults
from orders_pipeline.sandbox.ledger import Answer, KeyedAnswer, Notification, now_us, page_parameters
from orders_pipeline.sandbox.payments import filter_name, read_page, request_key, visible_us, write_cursor
from orders_pipeline.sandbox.service import Service, arrival_s, read_body


async def create(service: Service, request: Request) -> Response:
    """POST /v1/notifications."""
    arrived_s = arrival_s(request)
    body = await read_body(request)
    _admit(service, arrived_s, body)
    key = request_key(service, request)
    value = read_json(body)
    wanted = read_notification(value, service.options.templates)
    mark = fingerprint(value)

    def book() -> Answer:
        return _send(service, wanted, key, mark)

    slot = key or f"{wanted.dedupe_key}/{secrets.token_hex(4)}"
    faults, latency_ms = _behaviour(service)
    return await service.perform(
        "notification",
        slot,
        mark,
        book,
        faults=faults,
        latency_ms=latency_ms,
        arrived_s=arrived_s,
        is_refused=faults.refuses(wanted.recipient.customer_code),
    )


async def create_many(service: Service, request: Request) -> Response:
    """POST /v1/notifications/batches: one call against the limit, one result an item, in order."""
    if not service.options.bulk:
        raise Problem("not-found")
    arrived_s = arrival_s(request)
    body = await read_body(request)
    _admit(service, arrived_s, body)
    value = read_json(body)
    items = read_request(BulkRequest, value).items

    def book() -> Answer:
        return Answer(200, {"results": [_send_item(service, item, faults) for item in items]})

    mark = fingerprint(value)
    faults, latency_ms = _behaviour(service)
    slot = f"{mark.hex()}/{secrets.token_hex(4)}"  # the items' dedupe keys make it safe to repeat, so it has no key
    return await service.perform(
        "notifications",
        slot,
        mark,
        book,
        faults=faults,
        latency_ms=latency_ms,
        arrived_s=arrived_s,
        is_refused=faults.refuse_whole and any(_is_refused(item, faults) for item in items),
    )


async def find(service: Service, request: Request) -> Response:
    """GET /v1/notifications: by dedupe key or batch."""
    query = dict(request.query_params)
    name = filter_name(query, ("dedupe_key", "batch_id"))
    limit, after = read_page(query)
    parameters = page_parameters(limit=limit + 1, after=after, visible_us=visible_us(service))

    def read() -> Answer:
        pairs = service.ledger.notifications(name, parameters | {"value": query[name]})
        following = write_cursor(pairs[limit - 1][0]) if len(pairs) > limit else None
        return Answer(200, {"items": [item for _, item in pairs[:limit]], "next": following})

    return await service.look_up(query[name], read)


def _behaviour(service: Service) -> tuple[Faults, float]:
    options = service.options
    latency_ms = options.latency_ms if options.notification_latency_ms is None else options.notification_latency_ms
    return options.notification_faults or options.faults, latency_ms


def _admit(service: Service, arrived_s: float, body: bytes) -> None:
    wait_s = service.window.wait_s(arrived_s, service.options.rate_per_s)
    service.ledger.record_call(service.wall_us(arrived_s), _batch_of(body), refused=wait_s > 0)
    if wait_s > 0:
        raise Problem(
            "rate-limited",
            retry_after=str(math.ceil(wait_s)),
            retry_after_s=round(wait_s, 3),
            limit=service.options.rate_per_s,
        )


def _batch_of(body: bytes) -> str | None:
    """Return the batch a call names, be it valid otherwise or not."""
    try:
        value: Any = read_json(body)
        for step in ("items", 0) if "items" in value else ():
            value = value[step]
        batch_id = value["metadata"]["batch_id"]
    except (Problem, KeyError, IndexError, TypeError):
        return None
    return batch_id if isinstance(batch_id, str) and batch_id.isprintable() and len(batch_id) <= 128 else None


def _send(service: Service, wanted: NotificationRequest, key: str | None, mark: bytes) -> Answer:
    sent = service.ledger.notifications("dedupe_key", page_parameters(limit=1) | {"value": wanted.dedupe_key})
    if sent and service.options.honour_keys:
        return Answer(200, {"id": sent[0][1]["id"], "status": "queued"})
    notification = Notification(
        id=f"ntf_{secrets.token_hex(12)}",
        dedupe_key=wanted.dedupe_key,
        template_id=wanted.template_id,
        channel=wanted.channel,
        customer_code=wanted.recipient.customer_code,
        batch_id=wanted.metadata.batch_id,
        created_us=now_us(),
    )
    answer = Answer(202, {"id": notification.id, "status": "queued"})
    service.ledger.book_notification(notification, KeyedAnswer("notification", key, mark, answer))
    service.recent_notifications.append(wanted.model_dump(mode="json"))
    return answer


def _is_refused(item: object, faults: Faults) -> bool:
    recipient = item.get("recipient") if isinstance(item, dict) else None
    return isinstance(recipient, dict) and faults.refuses(str(recipient.get("customer_code")))


def _send_item(service: Service, item: object, faults: Faults) -> dict[str, object]:
    try:
        wanted = read_notification(item, service.options.templates)
        if _is_refused(item, faults):
            raise UnlistedRefusal(faults.refuse_as)
    except Problem as problem:
        dedupe_key = item.get("dedupe_key") if isinstance(item, dict) else None
        return {"dedupe_key": dedupe_key, "status": "failed", "code": problem.slug or "refused"}
    answer = _send(service, wanted, None, b"")
    return {"dedupe_key": wanted.dedupe_key, "status": "queued", "id": answer.body["id"]}

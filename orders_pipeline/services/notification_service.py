"""The order platform's Notification service: its words turned into outcomes, one message or many in a call.

The statuses and problem codes of its REST contract are known here and nowhere else. Who is notified of what, and when,
belongs in `settlement/notifications/`; sending bytes in `http_client.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orders_pipeline.services.answers import Answer, NoAnswer, NotDelivered, safe_code
from orders_pipeline.services.http_client import ServiceClient
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline.services.problems import IN_PROGRESS, KEY_REUSED, UNFIT, problem_outcome, without_answer

SERVICE = "notification"  # its name in our ledgers

PATH = "/v1/notifications"
BULK_PATH = f"{PATH}/batches"
FINAL = frozenset({"invalid-recipient", "validation"})
NO_LOOK_UP = frozenset({404, 405})  # a service that cannot be asked: rather notified twice than never
TAKEN = frozenset({"queued", "sent"})
ITEM_NOT_ACCEPTED = frozenset({"rate-limited", "unavailable"})
ITEM_IN_DOUBT = frozenset({"internal", "bad-gateway", "gateway-timeout", IN_PROGRESS})
TAKES_MANY = frozenset({200, 400, 422})  # what a service that knows the call may say of one with nothing in it
TAKES_ONE = frozenset({404, 405, 501})
BULK = 100  # notifications in one call, where the service takes so many


@dataclass(frozen=True)
class Message:
    """One notification as it is sent; the same `notification_id` is always the same message."""

    notification_id: str  # idempotency and dedupe key
    batch_id: str
    template_id: str
    channel: str
    customer_code: str
    address: str
    variables: Mapping[str, Any]
    order_refs: Sequence[str]  # what the orders are called at the services

    def __repr__(self) -> str:
        """Show no address."""
        return f"Message({self.notification_id})"


class NotificationService:
    """The platform's Notification service. Its methods do not raise: whatever happens is an outcome."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client
        self._takes_many: bool | None = None  # not known yet

    def send(self, message: Message) -> Outcome:
        """Send the message once and return the outcome."""
        try:
            answer = self._client.call("POST", PATH, body=_body(message), idempotency_key=message.notification_id)
        except (NotDelivered, NoAnswer) as failure:
            return without_answer(failure)
        return _meaning(answer)

    def takes_many(self) -> bool:
        """Return whether the service takes many notifications in one call; asks it once, with none."""
        if self._takes_many is None:
            try:
                status = self._client.call("POST", BULK_PATH, body={"items": []}).status
            except (NotDelivered, NoAnswer):
                return False
            if status in TAKES_MANY or status in TAKES_ONE:
                self._takes_many = status in TAKES_MANY
        return bool(self._takes_many)

    def send_many(self, messages: Sequence[Message]) -> list[Outcome] | None:
        """Send up to `BULK` messages in one call and return the outcome of each; None if the call was refused whole.

        Nothing was sent then: perhaps one of them is to blame, perhaps their number.
        """
        try:
            answer = self._client.call("POST", BULK_PATH, body={"items": [_body(message) for message in messages]})
        except (NotDelivered, NoAnswer) as failure:
            return [without_answer(failure)] * len(messages)
        meaning = _meaning(answer)
        if meaning.refused or meaning.kind == "declined":
            if answer.status in TAKES_ONE:
                self._takes_many = None  # to be asked again: it may have been changed
            return None
        results = answer.body.get("results")
        if answer.status != 200:
            return [meaning] * len(messages)
        if not isinstance(results, list) or len(results) != len(messages):
            return [_unfit(answer)] * len(messages)
        return [_item_meaning(item, message, answer) for item, message in zip(results, messages, strict=True)]

    def look_up(self, message: Message) -> Outcome:
        """Ask whether the message was taken: succeeded, absent or unknown."""
        try:
            answer = self._client.call("GET", PATH, query={"dedupe_key": message.notification_id})
        except (NotDelivered, NoAnswer) as failure:
            return Outcome("unknown", failure.code, service_failed=True)
        if answer.status in NO_LOOK_UP:
            return Outcome("absent")
        items = answer.body.get("items")
        if answer.status != 200 or not isinstance(items, list):
            return replace(_problem(answer), kind="unknown", stop=False)
        if not items:
            return Outcome("absent")
        found = items[0]
        if isinstance(found, dict) and found.get("dedupe_key", message.notification_id) != message.notification_id:
            self._client.hang_up()  # the answer to another request: so may the next ones be
            return _unfit(answer)
        return _taken(found, answer)


def _body(message: Message) -> dict[str, Any]:
    return {
        "template_id": message.template_id,
        "channel": message.channel,
        "recipient": {"customer_code": message.customer_code, "address": message.address},
        "locale": "ja-JP",
        "variables": message.variables,
        "order_ids": list(message.order_refs),
        "dedupe_key": message.notification_id,
        "metadata": {"batch_id": message.batch_id},
    }


def _meaning(answer: Answer) -> Outcome:
    return _taken(answer.body, answer) if answer.status in (200, 202) else _problem(answer)


def _problem(answer: Answer) -> Outcome:
    return problem_outcome(answer, FINAL, is_unavailable=answer.status == 503)


def _taken(body: object, answer: Answer) -> Outcome:
    service_id = body.get("id") if isinstance(body, dict) else None
    return Outcome("succeeded", None, service_id) if isinstance(service_id, str) else _unfit(answer)


def _item_meaning(item: object, message: Message, answer: Answer) -> Outcome:
    """Read one result of many: what is not about this message, or says nothing known, leaves it in doubt."""
    if not isinstance(item, dict) or item.get("dedupe_key") != message.notification_id:
        return _unfit(answer)
    if item.get("status") in TAKEN:
        return _taken(item, answer)
    code = safe_code(item.get("code"))
    if item.get("status") != "failed" or code is None:
        return _unfit(answer)
    if code in FINAL:
        return Outcome("declined", code)
    if code in ITEM_IN_DOUBT:
        return Outcome("unknown", code)
    return Outcome("unknown" if code == KEY_REUSED else "not_sent", code, refused=code not in ITEM_NOT_ACCEPTED)


def _unfit(answer: Answer) -> Outcome:
    return Outcome("unknown", UNFIT, retry_after_s=answer.retry_after_s, service_failed=True)

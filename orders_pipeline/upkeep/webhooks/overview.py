"""What an operator sees of webhooks and does about them: deliveries, what is wrong with them, and trying again."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.system.composition import System
from orders_pipeline.system.errors import NotThere
from orders_pipeline.system.settings import SettingsError
from orders_pipeline.upkeep.webhooks.sending import NO_SECRET, Sender, signing_keys

LATE_S = 600.0  # what is due for so long is sent by nobody
MOST_LISTED = 50


class UnknownWebhook(NotThere):
    """There is no such delivery."""

    code = "E_UNKNOWN_WEBHOOK"


class WebhooksFailing(Exception):
    """Webhooks do not arrive; the text says whose."""

    code = "E_WEBHOOKS"


def listed(
    database: Database,
    *,
    client_code: str | None = None,
    is_open: bool = False,
    delivery_ids: Sequence[str] | None = None,
    limit: int = MOST_LISTED,
) -> list[dict[str, Any]]:
    """Return the newest deliveries, or those with some ids; `is_open` leaves out what was delivered."""
    ids = None if delivery_ids is None else list(delivery_ids)
    with database.begin() as transaction:
        rows = transaction.rows("webhooks", client_code=client_code, is_open=is_open, delivery_ids=ids, limit=limit)
    return [_shown(row) for row in rows]


def retry(system: System, delivery_id: str | None, client_code: str | None) -> list[dict[str, Any]]:
    """Send what did not arrive, one delivery or all of a client's, in this process, and return what that came to.

    A server that wanted no more is asked again. Raises UnknownWebhook.
    """
    try:
        ids = [] if delivery_id is None else [str(uuid.UUID(delivery_id))]
    except ValueError:
        raise UnknownWebhook(f"{UnknownWebhook.code}: this is not the id of a delivery") from None
    with system.database.begin() as transaction:
        found = transaction.rows("webhooks", client_code=None, is_open=False, delivery_ids=ids, limit=len(ids))
        if len(found) < len(ids):
            raise UnknownWebhook(f"{UnknownWebhook.code}: there is no such delivery; webhooks list shows them")
        retried = transaction.rows("retry_webhooks", delivery_ids=ids, client_code=client_code)
        whose = {row.client_code for row in retried} | ({client_code} if client_code else set())
        transaction.execute("switch_webhooks_on", client_codes=sorted(whose))
    Sender(system).run_once()
    return listed(system.database, delivery_ids=[str(row.delivery_id) for row in retried], limit=len(retried))


def troubles(transaction: Transaction) -> list[dict[str, Any]]:
    """Return for each client whose webhooks do not arrive how many do not, since when and why."""
    return [
        {
            "client_code": row.client_code,
            "waiting": row.waiting or 0,
            "failed": row.failed or 0,
            "since": None if row.since is None else row.since.isoformat(timespec="seconds"),
            "code": row.code,
            "switched_off_at": None if row.switched_off_at is None else row.switched_off_at.isoformat(timespec="seconds"),
        }
        for row in transaction.rows("webhook_troubles", late_s=LATE_S)
    ]


def in_words(each: dict[str, Any]) -> str:
    """Return what is wrong with a client's webhooks, in a line."""
    if each["switched_off_at"] is not None:
        says = f"its server wants no more since {each['switched_off_at']}"
    else:
        code = each["code"] or "nothing sends them: run `up` or `serve`"
        says = f"{each['waiting']:,} wait and {each['failed']:,} failed, since {each['since']} ({code})"
    return f"webhooks of {each['client_code']}: {says}; see: orders-pipeline webhooks list --client {each['client_code']}"


def examine(system: System) -> str:
    """Return how many clients have webhooks; raise WebhooksFailing where some do not arrive or cannot be signed."""
    profiles = {code: profile for code, profile in system.clients.profiles.items() if profile.webhook_url is not None}
    wrong = [
        f"the webhook_secret of {code} is not there ({NO_SECRET})" for code in profiles if not _is_signed(profiles[code])
    ]
    with system.database.begin() as transaction:
        wrong += [in_words(each) for each in troubles(transaction)]
    if wrong:
        raise WebhooksFailing(f"{WebhooksFailing.code}: {'; '.join(wrong)}")
    return f"{len(profiles)} clients have an address, and nothing is late" if profiles else "no client has an address"


def _is_signed(profile: Profile) -> bool:
    try:
        return bool(signing_keys(profile))
    except (SettingsError, ValueError):
        return False


def _shown(row: Row[Any]) -> dict[str, Any]:
    texts = {name: getattr(row, name) for name in ("client_code", "type", "batch_id", "status", "attempts")}
    times = {name: getattr(row, name) for name in ("created_at", "next_attempt_at", "settled_at")}
    return (
        {"delivery_id": str(row.delivery_id)}
        | texts
        | {"refund_id": None if row.request_id is None else str(row.request_id), "code": row.outcome_code}
        | {name: None if at is None else at.isoformat(timespec="seconds") for name, at in times.items()}
    )

"""A webhook's message: a thin body, the same at every try, and the headers that prove who sends it (Standard Webhooks)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row


def body_of(row: Row[Any]) -> bytes:
    """Return what a delivery says: what happened, when, and to what; how that is now, is asked of the API."""
    of_refund = {} if row.request_id is None else {"refund_id": str(row.request_id)}
    data = {"batch_id": row.batch_id, **of_refund, "status": row.status_then}
    says = {"type": row.type, "timestamp": f"{row.created_at:%Y-%m-%dT%H:%M:%SZ}", "data": data}
    return json.dumps(says, separators=(",", ":")).encode()


def headers_of(delivery_id: str, sent_at: int, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """Return the headers of a message, signed with each key; `sent_at` is in seconds."""
    signed = f"{delivery_id}.{sent_at}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys]
    return {
        "Content-Type": "application/json",
        "webhook-id": delivery_id,
        "webhook-timestamp": str(sent_at),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }

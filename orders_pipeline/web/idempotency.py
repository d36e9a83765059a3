"""Idempotency keys: what a client's request made is written with its key, in one transaction, and found by it afterwards.

What a request makes belongs in the module that makes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row
from starlette.requests import Request

from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.web.calls import Call
from orders_pipeline.web.problems import Problem

MOST_KEY_CHARS = 255
REPLAYED = {"Idempotent-Replayed": "true"}


class KeyTaken(Exception):
    """Another request with this key was first."""


def key_of(request: Request) -> str:
    """Return the request's idempotency key, quoted or bare; raise a Problem without one."""
    key = request.headers.get("idempotency-key", "").strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not (0 < len(key) <= MOST_KEY_CHARS and key.isascii() and key.isprintable()):
        raise Problem("idempotency-key-missing")
    return key


@dataclass(frozen=True)
class Keyed:
    """A request by its client's key, and what tells it from another with the same key."""

    client_code: str
    key_sha256: bytes
    fingerprint: bytes

    @classmethod
    def of(cls, call: Call, parts: Sequence[object]) -> Keyed:
        """Return a call's; `parts` of it matter beside its method and path. Raise a Problem where it has no key."""
        request = call.request
        whole = json.dumps([request.method, request.url.path, *parts])
        key = hashlib.sha256(key_of(request).encode()).digest()
        return cls(call.caller.client_code, key, hashlib.sha256(whole.encode()).digest())

    def made(self, transaction: Transaction) -> Row[Any] | None:
        """Return what the request has made (`batch_id`, `request_id`), if it did; raise a Problem where another did."""
        made = transaction.row("api_request", client_code=self.client_code, key_sha256=self.key_sha256)
        if made is not None and bytes(made.fingerprint) != self.fingerprint:
            raise Problem("idempotency-key-reused")
        return made

    def take(self, transaction: Transaction, batch_id: str, request_id: str | None = None) -> None:
        """Write down what is made of the request; raise KeyTaken where the same key was used meanwhile."""
        own = {"client_code": self.client_code, "key_sha256": self.key_sha256, "fingerprint": self.fingerprint}
        if not transaction.execute("insert_api_request", batch_id=batch_id, request_id=request_id, **own):
            raise KeyTaken

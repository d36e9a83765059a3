"""Tokens of the batch API: which client a program works for, and what it may do.

A token is random, shown once and kept as its SHA-256; a slow hash protects passwords, and this is none. How requests carry
one is in `web/authentication.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_errors import ConstraintViolated

READ, WRITE, CONTROL, READ_REJECTED = "batches:read", "batches:write", "batches:control", "rejected:read"
APPROVE, REFUND, PAGE, OPERATOR = "batches:approve", "refunds:write", "page", "operator"
METRICS = "metrics"  # of the whole system: a token that has this scope is of no client, and has no other
SCOPES = (READ, WRITE, CONTROL, READ_REJECTED, APPROVE, REFUND, PAGE)
ALL_SCOPES = frozenset((*SCOPES, METRICS, OPERATOR))
USUAL_SCOPES = (READ, WRITE, CONTROL, READ_REJECTED)
USUAL_DAYS, MOST_DAYS = 365, 400
_TOKEN = re.compile(r"opk_([a-z2-7]{8})_([A-Za-z0-9_-]{43})")
_NOBODYS = hashlib.sha256(b"").digest()


class UnknownToken(Exception):
    """There is no such token."""

    code = "E_UNKNOWN_TOKEN"


@dataclass(frozen=True)
class Caller:
    """Who asks: a client's program by its token, a person by the session of a browser, or an operator by either.

    An operator's `client_code` is empty until a request says which client it is about, and always empty for metrics.
    """

    client_code: str
    actor: str  # for the audit: the client (or "operator") and the token
    scopes: frozenset[str]
    token_id: str | None = None
    session: str = ""

    @property
    def is_operator(self) -> bool:
        """Return whether it is for all clients."""
        return OPERATOR in self.scopes


@dataclass(frozen=True)
class NewToken:
    """A token that was made; `text` is shown once."""

    token_id: str
    text: str
    expires_at: str


def new(database: Database, client_code: str | None, name: str, scopes: Sequence[str], days: int, by: str) -> NewToken:
    """Make a token for a client, or without one for an operator or for metrics, worth something for so many days."""
    secret = secrets.token_urlsafe(32)
    while True:
        token_id = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(8))
        try:
            with database.begin() as transaction:
                expires_at = transaction.scalar(
                    "insert_api_token",
                    token_id=token_id,
                    client_code=client_code,
                    title=name,
                    scopes=list(dict.fromkeys(scopes)),
                    secret_sha256=hashed(secret),
                    created_by=by,
                    days=days,
                )
        except ConstraintViolated as error:
            if error.constraint != "api_tokens_pkey":
                raise
        else:
            return NewToken(token_id, f"opk_{token_id}_{secret}", expires_at.isoformat(timespec="seconds"))


def listed(database: Database) -> Sequence[Row[Any]]:
    """Return all tokens, without what proves them."""
    with database.begin() as transaction:
        return transaction.rows("api_tokens")


def revoke(database: Database, token_id: str) -> Row[Any]:
    """Let a token be worth nothing any more; raise UnknownToken."""
    with database.begin() as transaction:
        revoked = transaction.row("revoke_api_token", token_id=token_id)
    if revoked is None:
        raise UnknownToken(f"{UnknownToken.code}: there is no token with this id; tokens list shows them")
    return revoked


def caller(database: Database, text: str) -> Caller | None:
    """Return whose token this is; None for one that is unknown, wrong, expired or revoked: nothing tells them apart."""
    written = _TOKEN.fullmatch(text)
    if written is None:
        return None
    token_id, secret = written.groups()
    with database.begin() as transaction:
        found = transaction.row("api_token", token_id=token_id)
    is_right = hmac.compare_digest(hashed(secret), _NOBODYS if found is None else bytes(found.secret_sha256))
    if found is None or not is_right or not found.is_valid:
        return None
    if found.is_first_use:
        with database.begin() as transaction:
            transaction.execute("touch_api_token", token_id=token_id)
    scopes = ALL_SCOPES if OPERATOR in found.scopes else frozenset(found.scopes)
    return Caller(found.client_code or "", f"{owner(found.client_code, found.scopes)}/{token_id}", scopes, token_id)


def owner(client_code: str | None, scopes: Sequence[str]) -> str:
    """Return whose a token is: a client's, an operator's, or metrics'."""
    return client_code or (OPERATOR if OPERATOR in scopes else METRICS)


def hashed(secret: str) -> bytes:
    """Return the form in which a secret is kept."""
    return hashlib.sha256(secret.encode()).digest()

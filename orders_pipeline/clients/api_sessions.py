"""Sessions of the page: a person's browser that has signed in, with a token or through the link that `up` shows.

A session is random, kept as its SHA-256, and ends when nobody uses it, after a day, or with its token. How requests carry
one is in `web/authentication.py`.
"""

from __future__ import annotations

import secrets

from orders_pipeline.clients import api_tokens
from orders_pipeline.clients.api_tokens import ALL_SCOPES, PAGE, Caller, hashed
from orders_pipeline.infrastructure.database import Database, Transaction

LONGEST_H = 24


def begin(database: Database, token: str) -> str | None:
    """Return the secret of a new session for who has a token that is for the page; None for any other."""
    caller = api_tokens.caller(database, token)
    if caller is None or PAGE not in caller.scopes:
        return None
    with database.begin() as transaction:
        return _insert(transaction, caller, token_id=caller.token_id)


def begin_as_operator(database: Database, user: str) -> str:
    """Return the secret of a new session for who runs the system on this machine."""
    with database.begin() as transaction:
        return _insert(transaction, Caller("", f"operator/{user}", ALL_SCOPES), token_id=None)


def caller(database: Database, secret: str, *, is_use: bool = True) -> Caller | None:
    """Return whose session this is; None for one that is unknown or has ended. Only `is_use` makes it last longer."""
    key = hashed(secret)
    with database.begin() as transaction:
        found = transaction.row("api_session", session_sha256=key)
        if found is None:
            return None
        if found.is_stale and is_use:
            transaction.execute("touch_api_session", session_sha256=key)
    return Caller(found.client_code or "", found.actor, frozenset(found.scopes), found.token_id, session=key.hex()[:16])


def end(database: Database, secret: str) -> None:
    """End a session."""
    with database.begin() as transaction:
        transaction.execute("end_api_session", session_sha256=hashed(secret))


def _insert(transaction: Transaction, who: Caller, token_id: str | None) -> str:
    secret = secrets.token_urlsafe(32)
    transaction.execute("identify_caller", actor=who.actor)
    transaction.execute(
        "insert_api_session",
        session_sha256=hashed(secret),
        token_id=token_id,
        client_code=who.client_code or None,
        actor=who.actor,
        scopes=sorted(who.scopes),
    )
    return secret

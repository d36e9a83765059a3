"""Authentication: which client's program asks, by the bearer token of its request, and whether it may.

An unknown token, a wrong, an expired and a revoked one get the same answer. What a token is is in `clients/api_tokens.py`.
"""

from __future__ import annotations

from starlette.requests import Request

from orders_pipeline.clients import api_tokens
from orders_pipeline.clients.api_tokens import Caller
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.system.composition import System
from orders_pipeline.web.problems import Problem


def authenticate(system: System, request: Request, scope: str) -> Caller:
    """Return who asks; raise a Problem where nobody that we know does, or one that may not."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    caller = api_tokens.caller(system.database, token.strip()) if scheme.lower() == "bearer" else None
    if caller is None or not _is_client(system, caller.client_code):
        raise Problem("unauthorized", headers={"WWW-Authenticate": "Bearer"})
    if scope not in caller.scopes:
        raise Problem("missing-scope", scope=scope)
    return caller


def _is_client(system: System, client_code: str) -> bool:
    try:
        system.clients.profile(client_code)
    except FileRejected:
        return False
    return True

"""Who asked for a run in Dagster's UI: whom our proxy has logged in, as a tag that nobody else can make.

Anybody who starts a run may give it tags, and one that is executed again has those of the run before: without a proof for
this very run a name is nobody's. Runs that Dagster or a sensor asks for are nobody's either.
"""

from __future__ import annotations

import hashlib
import hmac

import dagster as dg
from dagster._core.run_coordinator import SubmitRunContext
from pydantic import SecretStr

from orders_pipeline.clients.users import SECRET_HEADER, USER_HEADER, is_our_proxy, read_users
from orders_pipeline.system.settings import Settings, read_settings

USER_TAG, PROOF_TAG = "orders/user", "orders/user-proof"


def note_who_asks(instance: dg.DagsterInstance, context: SubmitRunContext) -> None:
    """Tag a run that is about to be queued with who has asked for it."""
    settings = read_settings()
    user = _user(context, settings)
    if user is not None and settings.proxy_secret is not None:
        run_id = context.dagster_run.run_id
        instance.add_run_tags(run_id, {USER_TAG: user, PROOF_TAG: _proof(settings.proxy_secret, run_id, user)})


def asked_for_by(run: dg.DagsterRun, settings: Settings) -> str | None:
    """Return who asked for a run, as the audit and the page call them; None where nobody is known."""
    user, proof, secret = run.tags.get(USER_TAG), run.tags.get(PROOF_TAG), settings.proxy_secret
    if user is None or proof is None or secret is None:
        return None
    return user if hmac.compare_digest(proof.encode(), _proof(secret, run.run_id, user).encode()) else None


def _user(context: SubmitRunContext, settings: Settings) -> str | None:
    if not is_our_proxy(context.get_request_header(SECRET_HEADER), settings.proxy_secret):
        return None
    caller = read_users(settings.users_file).caller(context.get_request_header(USER_HEADER) or "")
    return caller.actor if caller is not None and caller.is_operator else None


def _proof(secret: SecretStr, run_id: str, user: str) -> str:
    return hmac.digest(secret.get_secret_value().encode(), f"{run_id}|{user}".encode(), hashlib.sha256).hex()

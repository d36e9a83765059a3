"""Signing in to the page, with a token or through the link that `up` shows, and signing out."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.responses import RedirectResponse, Response

from orders_pipeline.audit.recording import os_user
from orders_pipeline.clients import api_sessions, api_tokens
from orders_pipeline.web import authentication
from orders_pipeline.web.page.rendering import Visit, own_path

MOST_FORM_BYTES = 4096


def read_form(body: bytes) -> dict[str, str]:
    """Return the fields of a form, each once; none of a body that is no form."""
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=10)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def show_sign_in(visit: Visit, code: str | None) -> Response:
    """Show where a token is entered; sign in at once who comes through the link of `up`, which has its `code`."""
    given = visit.request.query_params.get("code")
    target = own_path(visit.request.query_params.get("next"))
    if given is None:
        return visit.render("sign_in.html", next=target, wrong=None)
    if code is None or not hmac.compare_digest(given.encode(), code.encode()):
        return visit.render("sign_in.html", 403, next=target, wrong="link_old")
    response = RedirectResponse(target, 303)
    secret = api_sessions.begin_as_operator(visit.system.database, os_user())
    authentication.keep_session(visit.system, response, secret)
    return response


def sign_in(visit: Visit, fields: Mapping[str, str]) -> Response:
    """Begin a session for who has a token that is for the page."""
    authentication.require_own_page(visit.request)
    target, token = own_path(fields.get("next")), fields.get("token", "").strip()
    caller = api_tokens.caller(visit.system.database, token)
    if caller is not None and not authentication.is_of_client(visit.system, caller):
        return visit.render("sign_in.html", 403, next=target, wrong="client_unknown")
    secret = api_sessions.begin(visit.system.database, token)
    if secret is None:
        return visit.render("sign_in.html", 403, next=target, wrong="token_wrong")
    response = RedirectResponse(target, 303)
    authentication.keep_session(visit.system, response, secret)
    return response


def sign_out(visit: Visit, _fields: Mapping[str, str]) -> Response:
    """End a session."""
    authentication.require_own_page(visit.request)
    response = RedirectResponse("/sign-in", 303)
    authentication.forget_session(visit.system, visit.request, response)
    return response

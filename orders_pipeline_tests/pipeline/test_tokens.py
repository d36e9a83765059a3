"""Tokens of the batch API by command: shown once, kept as a hash, audited; revoked and expired ones are worth nothing."""

from __future__ import annotations

import json

import pytest

from orders_pipeline.clients import api_sessions, api_tokens
from orders_pipeline_tests.support import commands
from orders_pipeline_tests.support.installation import Installation


def test_a_token_is_made_listed_and_revoked(installation: Installation) -> None:
    settings, database = installation.environment(), installation.system.database
    made = commands.answer(settings, "tokens", "new", "--client", "acme", "--name", "nightly")
    token = made["token"]
    caller = api_tokens.caller(database, token)
    assert caller is not None
    assert (caller.client_code, caller.actor) == ("acme", f"acme/{made['token_id']}")
    assert caller.scopes == {"batches:read", "batches:write", "batches:control", "rejected:read"}
    (listed,) = commands.answer(settings, "tokens", "list")["tokens"]
    assert (listed["name"], listed["state"]) == ("nightly", "valid")
    assert listed["last_used_at"] is not None
    assert installation.rows("SELECT last_used_at >= created_at FROM api_tokens") == [(True,)]
    secret = token.rpartition("_")[2]
    kept = installation.rows(
        "SELECT to_json(t)::text FROM api_tokens AS t UNION ALL SELECT to_json(e)::text FROM audit_events AS e"
    )
    assert not [text for (text,) in kept if secret in text]
    commands.answer(settings, "tokens", "revoke", made["token_id"])
    assert api_tokens.caller(database, token) is None
    assert commands.answer(settings, "tokens", "list")["tokens"][0]["state"] == "revoked"
    audited = installation.rows(
        "SELECT action, category FROM audit_events WHERE entity = 'api_tokens' AND action <> 'image'"
    )
    assert {action for action, _ in audited} == {"insert", "update"}
    assert {category for _, category in audited} == {"security"}


def test_a_person_signs_in_with_a_token_for_the_page_and_an_operator_is_of_no_client(installation: Installation) -> None:
    settings, database = installation.environment(), installation.system.database
    desk = commands.answer(settings, "tokens", "new", "--client", "acme", "--name", "desk", "--page")["token"]
    assert api_sessions.caller(database, api_sessions.begin(database, desk) or "") is not None
    made = commands.answer(settings, "tokens", "new", "--operator", "--name", "on call", "--page")
    caller = api_sessions.caller(database, api_sessions.begin(database, made["token"]) or "")
    assert caller is not None
    assert (caller.client_code, caller.is_operator, made["client_code"]) == ("", True, None)
    for wrong in ([], ["--operator", "--client", "acme"], ["--operator", "--scope", "page"]):
        assert commands.call(settings, "tokens", "new", "--name", "x", *wrong).returncode == 2
    assert commands.call(settings, "tokens", "list").returncode == 0


def test_a_token_that_there_is_none_of_is_said_so(installation: Installation) -> None:
    told = commands.call(installation.environment(), "tokens", "revoke", "nobody22", "--json")
    assert (told.returncode, json.loads(told.stdout)["error"]["code"]) == (2, "E_UNKNOWN_TOKEN")


@pytest.mark.parametrize("change", ["expires_at = now()", "revoked_at = now()", "secret_sha256 = sha256('other')"])
def test_what_is_expired_revoked_or_wrong_is_nobodys(installation: Installation, change: str) -> None:
    database = installation.system.database
    made = api_tokens.new(database, "acme", "x", ["batches:read"], 1, "me")
    assert api_tokens.caller(database, made.text) is not None
    installation.rows(f"UPDATE api_tokens SET {change} WHERE token_id = '{made.token_id}' RETURNING 1")
    for text in (made.text, made.text[:-1], f"opk_aaaaaaaa_{made.text[13:]}", "", "opk"):
        assert api_tokens.caller(database, text) is None

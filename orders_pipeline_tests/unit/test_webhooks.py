"""Webhooks: what a profile may say, how messages are signed, and which addresses may be called."""

from __future__ import annotations

import base64
import json
import os
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from orders_pipeline.clients.profiles import ClientsError, Profile, read_clients
from orders_pipeline.clients.webhook_settings import key_of
from orders_pipeline.system.settings import SettingsError, referenced_secret
from orders_pipeline.upkeep.webhooks.addresses import is_public, may_call
from orders_pipeline.upkeep.webhooks.message import body_of, headers_of
from orders_pipeline.upkeep.webhooks.sending import JITTER, RETRY_AFTER_S, Outcome, _delay_s

OLD, NEW = (f"whsec_{base64.b64encode(bytes([number]) * 32).decode()}" for number in (1, 2))
ROW: Any = SimpleNamespace(
    type="batch.completed",
    batch_id="20261129-27c4f11508ca",
    request_id=None,
    status_then="completed",
    created_at=datetime(2026, 11, 29, 12, 0, tzinfo=UTC),
)


def signed(*secrets: str, at: float | None = None) -> tuple[bytes, dict[str, str]]:
    body = body_of(ROW)
    return body, headers_of("d-1", int(at or time.time()), body, [key_of(SecretStr(secret)) for secret in secrets])


def test_a_message_is_thin_and_verified_by_the_public_library():
    body, headers = signed(NEW)
    assert Webhook(NEW).verify(body, headers) == json.loads(body)
    assert json.loads(body) == {
        "type": "batch.completed",
        "timestamp": "2026-11-29T12:00:00Z",
        "data": {"batch_id": "20261129-27c4f11508ca", "status": "completed"},
    }
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(body + b" ", headers)


def test_while_secrets_are_replaced_either_verifies():
    body, headers = signed(NEW, OLD)
    for secret in (OLD, NEW):
        Webhook(secret).verify(body, headers)


def test_a_message_of_long_ago_is_refused_by_the_public_library():
    body, headers = signed(NEW, at=time.time() - 3_600)
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(body, headers)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1", "240.0.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
        *("2002:7f00:1::", "2002:a00:1::", "2001:0:7f00:1::", "localhost", ""),
    ],
)
def test_an_address_of_nobody_in_public_is_not_called(address):
    assert not is_public(address)
    assert not may_call("https://example.com", private=False)(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_a_public_address_is_called_by_https_alone(address):
    assert may_call("https://example.com", private=False)(address)
    for private in (False, True):
        assert not may_call("http://example.com", private=private)(address)


def test_where_a_setting_says_so_private_addresses_are_called_also_by_http():
    for url in ("http://127.0.0.1:8000", "https://hooks.internal"):
        assert may_call(url, private=True)("127.0.0.1")
        assert not may_call(url, private=False)("127.0.0.1")


def test_tries_are_further_and_further_apart_and_never_too_early():
    for attempts, after in enumerate((*RETRY_AFTER_S, RETRY_AFTER_S[-1]), start=1):
        assert after <= _delay_s(attempts, Outcome("http-500")) <= after * (1 + JITTER)
    assert _delay_s(1, Outcome("http-429", retry_after_s=60.0)) == 60.0


def clients(tmp_path, text: str):
    path = tmp_path / "clients.toml"
    path.write_text(text)
    return read_clients(path)


def test_a_profile_has_an_address_and_a_secret_that_nothing_shows(tmp_path):
    said = f'[shop]\nwebhook_url = "https://shop.example.com/hooks"\nwebhook_secret = "{NEW}"\n'
    profile = clients(tmp_path, f'{said}webhook_previous_secret = "env:SHOP_OLD_SECRET"\n').profile("shop")
    assert profile.webhook_secret is not None
    assert profile.webhook_secret.get_secret_value() == NEW
    kept = profile.model_dump(mode="json")
    assert kept["webhook_secret"].startswith("sha256:")
    assert kept["webhook_previous_secret"] == "env:SHOP_OLD_SECRET"
    assert kept["webhook_url"] == "https://shop.example.com/hooks"
    assert NEW not in repr(profile) + str(profile) + json.dumps(kept)
    assert Profile().model_dump(mode="json")["webhook_secret"] is None


@pytest.mark.parametrize(
    "said",
    [
        'webhook_url = "https://example.com"',
        f'webhook_secret = "{NEW}"',
        f'webhook_previous_secret = "{NEW}"',
        *(
            f'webhook_secret = "{secret}"\nwebhook_url = "https://e.com"'
            for secret in ("PLANTED", "whsec_UExBTlRFRA==", "whsec_%")
        ),
        *(
            f'webhook_secret = "{NEW}"\nwebhook_url = "{url}"'
            for url in (
                "ftp://PLANTED.com",
                "PLANTED",
                "https://me:PLANTED@e.com",
                "https://e.com/#PLANTED",
                "https://e.com:PLANTED/",
                "https://[PLANTED/",
                "https://e.com/ PLANTED",
                "https://e.com/é",
            )
        ),
    ],
)
def test_what_is_wrong_with_it_is_said_without_what_stands_there(tmp_path, said):
    with pytest.raises(ClientsError) as refused:
        clients(tmp_path, f"[shop]\n{said}\n")
    assert "shop" in str(refused.value)
    assert "webhook" in str(refused.value)
    assert "PLANTED" not in str(refused.value)
    assert NEW not in str(refused.value)


def test_a_secret_may_be_in_a_variable_or_a_file(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "SHOP_SECRET", NEW)
    (tmp_path / "secret").write_text(f"{OLD}\n")
    for reference, secret in (("env:SHOP_SECRET", NEW), (f"file:{tmp_path / 'secret'}", OLD), (NEW, NEW)):
        assert referenced_secret(SecretStr(reference)).get_secret_value() == secret
    for reference in ("env:NOT_SET", f"file:{tmp_path / 'missing'}", f"file:{tmp_path}"):
        with pytest.raises(SettingsError) as refused:
            referenced_secret(SecretStr(reference))
        assert str(tmp_path) not in str(refused.value)

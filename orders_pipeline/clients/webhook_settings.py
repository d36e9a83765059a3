"""A client's webhook: where its server is and what it is signed with, as profiles have them.

Sending belongs in `upkeep/webhooks/`. A secret may be a reference, which is resolved only there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from urllib.parse import urlsplit

from pydantic import SecretStr

PREFIX = "whsec_"
REFERENCES = ("env:", "file:")
LEAST_KEY_BYTES, MOST_KEY_BYTES = 24, 64


def check_url(url: str) -> str:
    """Return a URL that can be an address for webhooks."""
    try:
        parts = urlsplit(url)
        is_wrong = parts.scheme not in ("https", "http") or not parts.hostname or parts.port == 0
    except ValueError:  # of a port or an address, whose words repeat it
        is_wrong = True
    if is_wrong:
        raise ValueError("this must be a URL of https")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("this must be a URL without a login and without a fragment")
    if not (url.isascii() and url.isprintable() and " " not in url):
        raise ValueError("this must be a URL of printable ASCII characters")
    return url


def check_secret(secret: SecretStr) -> SecretStr:
    """Return a secret that can be one, or a reference to it."""
    if not secret.get_secret_value().startswith(REFERENCES):
        key_of(secret)
    return secret


def key_of(secret: SecretStr) -> bytes:
    """Return the key in a secret; raise ValueError for what is none."""
    text = secret.get_secret_value()
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(PREFIX) or not LEAST_KEY_BYTES <= len(key) <= MOST_KEY_BYTES:
        raise ValueError(
            f"this must be {PREFIX} and {LEAST_KEY_BYTES} to {MOST_KEY_BYTES} bytes in base64, env:NAME or file:PATH"
        )
    return key


def shown_secret(secret: SecretStr) -> str:
    """Return what the audit keeps of a secret: its reference, or what tells it from another."""
    text = secret.get_secret_value()
    return text if text.startswith(REFERENCES) else f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"

"""Cursors: where the next page of a list begins, encrypted, and good only for its client, list and filter."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence

from orders_pipeline.security.encryption import DecryptionError
from orders_pipeline.web.calls import Call
from orders_pipeline.web.problems import Problem


def position(call: Call, given: Mapping[str, str], first: Sequence[object]) -> Sequence[object]:
    """Return the place behind which a page begins; without a cursor that is before the `first`."""
    if "cursor" not in given:
        return first
    try:
        padding = "=" * (-len(given["cursor"]) % 4)
        envelope = base64.b64decode(given["cursor"] + padding, altchars=b"-_", validate=True)
        place: list[object] = json.loads(call.system.cipher.decrypt(envelope, _bound(call, given)))
    except (binascii.Error, ValueError, IndexError, DecryptionError):
        raise Problem("not-found") from None
    return place


def following(call: Call, given: Mapping[str, str], place: Sequence[object]) -> str:
    """Return the cursor of the page that begins behind a place."""
    envelope = call.system.cipher.encrypt(json.dumps(list(place)).encode(), _bound(call, given))
    return base64.urlsafe_b64encode(envelope).decode().rstrip("=")


def _bound(call: Call, given: Mapping[str, str]) -> bytes:
    filters = sorted((name, value) for name, value in given.items() if name not in ("cursor", "limit"))
    return json.dumps(["cursor", call.caller.client_code, call.request.url.path, filters]).encode()

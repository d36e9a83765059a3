"""Uploads: the body of a request, received within its limits into a scratch file, and what the request says of it.

A command's body is small, and received into memory.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from starlette.requests import Request

from orders_pipeline.clients.file_names import (
    COMPRESSED,
    ENDINGS,
    JSON_DOCUMENT,
    JSON_LINES,
    NOT_A_DOCUMENT,
    WORKBOOK,
    ZIP,
    composed,
    is_json,
)
from orders_pipeline.web.problems import Problem

SILENCE_S, WHOLE_S = 30.0, 300.0
MOST_NAME_BYTES = 255
# what a body is, where its name does not say so; what a browser on Windows says of CSV files says nothing
MEDIA_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "text/csv": ".csv",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": WORKBOOK,
        "application/json": JSON_DOCUMENT,
        "application/x-ndjson": JSON_LINES[0],
        "application/jsonl": JSON_LINES[0],
        "application/gzip": COMPRESSED[0],
        "application/zip": ZIP,
    }
)
ACCEPT_POST = {"Accept-Post": ", ".join(list(MEDIA_TYPES)[:4])}


@dataclass(frozen=True)
class Upload:
    """A body that was received: under which name, with which bytes."""

    name: str
    sha256: str
    size: int


def described(path: Path, name: str) -> Upload:
    """Return a file that was made here as one that was received."""
    with path.open("rb") as file:
        return Upload(name, hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def name_of(request: Request, given: str | None) -> str:
    """Return the name that a body is kept under, whose ending says what it is; raise a Problem where nothing does."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Problem("unsupported-media-type", headers=ACCEPT_POST)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    ending = MEDIA_TYPES.get(media_type)
    name = composed(given) if given is not None else f"orders{ending or ''}"
    is_named = name.lower().endswith((*ENDINGS, JSON_DOCUMENT, *JSON_LINES))
    if not is_named:
        if ending is None:
            raise Problem("unsupported-media-type", headers=ACCEPT_POST)
        name += ending
    if is_named and ending in (JSON_DOCUMENT, JSON_LINES[0]) and not is_json(name):
        raise Problem("unsupported-media-type", headers=ACCEPT_POST)  # a program says two things
    is_odd = any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in "/\\" for character in name)
    if is_odd or name.startswith(NOT_A_DOCUMENT) or len(name.encode("utf-8", "replace")) > MOST_NAME_BYTES:
        raise Problem("malformed-request")
    return name


def announced_bytes(request: Request, most: int) -> int:
    """Return how many bytes a body may have; raise a Problem where it says itself that it has more than `most`."""
    length = request.headers.get("content-length")
    if length is None:
        return most
    if not (length.isascii() and length.isdigit()) or len(length) > 15 or "transfer-encoding" in request.headers:
        raise Problem("malformed-request")
    if int(length) > most:
        raise Problem("too-large", code="F_TOO_LARGE", limit=most)
    return int(length)


async def receive(request: Request, target: Path, name: str, most_bytes: int) -> Upload:
    """Receive a body into a file; raise a Problem where it is too large, too slow, or not the one it says it is."""
    digest = hashlib.sha256()
    target.touch(mode=0o600)
    with target.open("wb") as file:

        def take(chunk: bytes) -> None:
            digest.update(chunk)
            file.write(chunk)

        size = await _receive(request, most_bytes, take)
    _check_digest(request.headers.get("content-digest"), digest.digest())
    return Upload(name, digest.hexdigest(), size)


async def receive_command(request: Request, most_bytes: int) -> bytes:
    """Return a body of at most so many bytes; raise a Problem as `receive` does."""
    announced_bytes(request, most_bytes)
    body = bytearray()
    await _receive(request, most_bytes, body.extend)
    _check_digest(request.headers.get("content-digest"), hashlib.sha256(body).digest())
    return bytes(body)


async def _receive(request: Request, most_bytes: int, take: Callable[[bytes], None]) -> int:
    """Have a body's chunks taken as they come, and return how many bytes it has."""
    size, stream = 0, aiter(request.stream())
    try:
        async with asyncio.timeout(WHOLE_S):
            while True:
                async with asyncio.timeout(SILENCE_S):
                    chunk = await anext(stream, None)
                if chunk is None:
                    return size
                size += len(chunk)
                if size > most_bytes:
                    raise Problem("too-large", code="F_TOO_LARGE", limit=most_bytes)
                take(chunk)
    except TimeoutError:
        raise Problem("too-slow") from None


def _check_digest(field: str | None, digest: bytes) -> None:
    """Hold a body against its Content-Digest (RFC 9530), of which other algorithms than SHA-256 say nothing to us."""
    for part in (field or "").split(","):
        algorithm, _, value = part.strip().partition("=")
        if algorithm.lower() != "sha-256":
            continue
        try:
            given = base64.b64decode(value.removeprefix(":").removesuffix(":"), validate=True)
        except (binascii.Error, ValueError):
            given = b""
        if given != digest:
            raise Problem("digest-mismatch")

"""A call: one authenticated request, as handlers are handed it, with its parameters read and bounded."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError
from sqlalchemy import Row
from starlette.requests import Request
from starlette.responses import Response

from orders_pipeline.batches.batches import BATCH_ID
from orders_pipeline.clients.api_tokens import Caller
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.system.composition import System
from orders_pipeline.web.authentication import CLIENT_PARAMETER, UUID
from orders_pipeline.web.problems import Problem
from orders_pipeline.web.run_hint import RunHint

MOST_PARAMETER_CHARS = 1_000
MOST_PLACES = 100


class Command(BaseModel):
    """The JSON object of a request that is no file."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


CommandOf = TypeVar("CommandOf", bound=Command)


def _printable(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("control characters")
    return text


Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500), AfterValidator(_printable)]


@dataclass(frozen=True)
class Call:
    """One request of a client's program; runs that it wants are asked for by a hint, where there is one to give."""

    system: System
    request: Request
    caller: Caller
    hint: RunHint | None = None
    body: bytes = b""  # of a command

    def command(self, kind: type[CommandOf]) -> CommandOf:
        """Return the command in the body; raise a Problem that says where that is another."""
        try:
            return kind.model_validate_json(self.body)
        except ValidationError as error:
            known = [each["loc"] for each in error.errors() if each["type"] != "extra_forbidden"]  # whose names were sent
            places = dict.fromkeys("#" + "".join(f"/{part}" for part in loc) for loc in known)
            errors = [{"pointer": place, "code": "malformed-command"} for place in list(places)[:MOST_PLACES]]
            raise Problem("malformed-command", errors=errors) from None

    def parameters(self, known: Collection[str]) -> dict[str, str]:
        """Return the query's parameters; one that is unknown, doubled or long is a problem."""
        given = self.request.query_params.multi_items()
        own = (CLIENT_PARAMETER, self.caller.client_code)
        given = [each for each in given if each != own and not (self.caller.is_operator and each[0] == CLIENT_PARAMETER)]
        names = [name for name, _ in given]
        is_wrong = len(set(names)) < len(names) or not set(names) <= set(known)
        if is_wrong or any(len(value) > MOST_PARAMETER_CHARS or "\0" in value for _, value in given):
            raise Problem("malformed-request")
        return dict(given)

    @property
    def batch_id(self) -> str:
        """Return the batch's id in the path; raise a Problem for what is none."""
        return self._id("batch_id", BATCH_ID)

    @property
    def refund_id(self) -> str:
        """Return the refund's id in the path, as above."""
        return self._id("refund_id", UUID)

    def _id(self, name: str, kind: re.Pattern[str]) -> str:
        found = str(self.request.path_params[name])
        if not kind.fullmatch(found):
            raise Problem("not-found")
        return found

    def require(self, scope: str) -> None:
        """Demand one more scope of the token."""
        if scope not in self.caller.scopes:
            raise Problem("missing-scope", scope=scope)


def own_batch(transaction: Transaction, caller: Caller, batch_id: str) -> Row[Any]:
    """Return a batch of the caller's client; raise a Problem for one that is missing or another client's."""
    batch = transaction.row("api_batch_file", batch_id=batch_id, client_code=caller.client_code)
    if batch is None:
        raise Problem("not-found")
    return batch


def number(text: str | None, default: int, most: int) -> int:
    """Return a number from 1 to `most`."""
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= most):
        raise Problem("malformed-request", limit=most)
    return int(text)


def amount(text: str | None) -> int | None:
    """Return a whole number from 0, or None where none was given."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise Problem("malformed-request")
    return int(text)


def flag(text: str | None) -> bool:
    """Return what `true` or `false` says; false where nothing was given."""
    if text not in (None, "true", "false"):
        raise Problem("malformed-request")
    return text == "true"


def moment(text: str | None) -> str | None:
    """Return a time with its zone (RFC 3339)."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Problem("malformed-request") from None
    if at.tzinfo is None:
        raise Problem("malformed-request")
    try:
        return at.astimezone(UTC).isoformat()
    except OverflowError:
        raise Problem("malformed-request") from None


def shown_time(at: datetime | None) -> str | None:
    """Return a time as answers show it: RFC 3339 in UTC, to the second."""
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"


def answer(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Response(content, status, headers, media_type="application/json")


def etag_of(body: Mapping[str, Any]) -> str:
    """Return what changes whenever the object does."""
    return f'"{hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:20]}"'


def conditional(request: Request, body: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """Return an object with its ETag, or 304 where the caller has it already."""
    etag = etag_of(body)
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if etag in known or "*" in known:
        return Response(None, 304, {"ETag": etag, **headers})
    return answer(body, headers={"ETag": etag, **headers})

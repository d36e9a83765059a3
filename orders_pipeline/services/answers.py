"""Answers of services as values, and what stands for one that did not come.

What an answer means is the matter of the service's module; sending requests belongs in `http_client.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OF_THE_MOMENT = frozenset({408, 425})  # what a 4xx says of the exchange, not of the request
OF_THE_CALLER = frozenset({401, 403, 407})


class NotDelivered(Exception):
    """The request never reached the service: nothing happened there. `why` says in words of ours what was in the way."""

    code = "E_SERVICE_UNREACHABLE"

    def __init__(self, *says: str, why: str = "no connection") -> None:
        super().__init__(*says)
        self.why = why


class NoAnswer(Exception):
    """The request may have reached the service, but no usable answer came back in time."""

    code = "E_SERVICE_NO_ANSWER"
    why = "no usable answer"


class TooLong(NoAnswer):
    """The answer is longer than anything that is read: it comes again if the same is asked again."""

    code = "E_SERVICE_ANSWER_TOO_LONG"


@dataclass(frozen=True)
class Answer:
    """A service's answer: its status, its JSON object (empty when it has none) and the pause it asks for."""

    status: int
    body: Mapping[str, Any] = field(default_factory=dict)
    retry_after_s: float | None = None

    @property
    def is_refusal(self) -> bool:
        """Return whether the service has read this request and does not take it."""
        return 400 <= self.status < 500 and self.status not in OF_THE_MOMENT

    @property
    def refuses_the_caller(self) -> bool:
        """Return whether a setting is at fault that every further request would meet too."""
        return self.status in OF_THE_CALLER

    @property
    def problem(self) -> str:
        """Return the last part of a problem's type, the contract's word for it, or the HTTP status without one."""
        kind = self.body.get("type")
        word = kind.rstrip("/").rpartition("/")[2] if isinstance(kind, str) else None
        return safe_code(word) or f"http-{self.status}"

    @property
    def code(self) -> str | None:
        """Return a problem's code, if it looks like one."""
        return safe_code(self.body.get("code"))


def safe_code(code: object) -> str | None:
    """Let through what looks like a code; a service's free text stays outside."""
    if isinstance(code, str) and len(code) <= 64 and code.isascii() and code.replace("-", "").replace("_", "").isalnum():
        return code
    return None

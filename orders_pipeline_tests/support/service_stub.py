"""A service's client that answers from a script: for tests of what answers mean, which need no server."""

from __future__ import annotations

from typing import Any

from orders_pipeline.services.answers import Answer


class StubClient:
    """Answers calls from a script and remembers them."""

    def __init__(self, *script: Answer | Exception) -> None:
        self._script = list(script)
        self.calls: list[dict[str, Any]] = []
        self.hung_up = 0

    def call(self, method: str, path: str, **rest: Any) -> Answer:
        self.calls.append({"method": method, "path": path, **rest})
        answer = self._script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def hang_up(self) -> None:
        self.hung_up += 1

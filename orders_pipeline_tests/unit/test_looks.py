"""Looks at a batch that many ask for at once: who waits while one looks shares the next, which began after they came."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from anyio import CapacityLimiter

from orders_pipeline.clients.api_tokens import READ, Caller
from orders_pipeline.web import batches

CALLER = Caller("acme", "a test", frozenset((READ,)))


def test_all_who_come_while_a_batch_is_looked_at_share_one_look_that_began_later(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end, begun = threading.Event(), []

    class Looked(batches.Looks):
        def _read(self, _place: tuple[str, str], last: Any) -> tuple[Any, dict[str, Any]]:
            begun.append(len(begun))
            assert may_end.wait(10)
            last.found = SimpleNamespace(), {"look": len(begun)}
            return last.found

    monkeypatch.setattr(batches, "_shown_to", lambda _caller, _row, body: body)

    async def ask() -> tuple[dict[str, Any], list[dict[str, Any]]]:
        looks = Looked(SimpleNamespace(), CapacityLimiter(5))  # type: ignore[arg-type]
        first = asyncio.create_task(looks.look(CALLER, "b1"))
        while not begun:
            await asyncio.sleep(0)
        others = [asyncio.create_task(looks.look(CALLER, "b1")) for _ in range(20)]
        await asyncio.sleep(0)
        may_end.set()
        return await first, await asyncio.gather(*others)

    assert asyncio.run(ask()) == ({"look": 1}, [{"look": 2}] * 20)
    assert len(begun) == 2

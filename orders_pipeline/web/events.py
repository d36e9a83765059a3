"""Events of a batch (text/event-stream): the whole object whenever it has changed, until the batch has ended.

Each reader has what they may see looked up again and again; a batch is read once for all who look at it in a moment
(`batches.Looks`). Streams end by themselves when the server is about to stop: it would wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from orders_pipeline.web.calls import Call, etag_of
from orders_pipeline.web.problems import Problem

LOOK_S = 1.0
NOTICE_S = 0.2  # within which the end of the server is noticed
COMMENT_S = 15.0
LONGEST_S = 600.0
RECONNECT_MS = 2_000
STREAMS, STREAMS_OF_READER = 200, 4
HEADERS = {"X-Accel-Buffering": "no"}

Read = Callable[[], Awaitable[dict[str, Any]]]


@dataclass
class _Watch:
    """A batch that is followed: as it was at the last look, and who waits for the next change."""

    body: dict[str, Any]
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    readers: int = 0
    is_over: bool = False  # who follows it may not any more
    task: asyncio.Task[None] | None = None

    def show(self, body: dict[str, Any] | None) -> None:
        """Wake who waits, with a new body if there is one."""
        self.body = body or self.body
        self.changed.set()
        self.changed = asyncio.Event()


class Events:
    """The streams of a process; its server says in `is_stopping` whether it is about to stop."""

    def __init__(self) -> None:
        self.is_stopping: Callable[[], bool] = lambda: False
        self._watches: dict[tuple[str, str], _Watch] = {}
        self._streams: Counter[str] = Counter()

    def follow(self, call: Call, body: dict[str, Any], read: Read) -> StreamingResponse:
        """Answer with a stream that begins with a batch as it is now; raise a Problem where too many are open."""
        reader = call.caller.session or call.caller.actor
        if self._streams.total() >= STREAMS or self._streams[reader] >= STREAMS_OF_READER:
            raise Problem("busy")
        stream = self._stream(call.request, reader, body, read)
        return StreamingResponse(stream, media_type="text/event-stream", headers=HEADERS)

    async def _stream(self, request: Request, reader: str, body: dict[str, Any], read: Read) -> AsyncIterator[str]:
        with self._counted(reader), self._watched(reader, body, read) as watch:
            known, until = request.headers.get("last-event-id"), time.monotonic() + LONGEST_S
            yield f"retry: {RECONNECT_MS}\n\n"
            while True:
                changed, body = watch.changed, watch.body
                if etag_of(body) != known:
                    known = etag_of(body)
                    yield _event("progress", known, body)
                if body["finished"]:
                    yield _event("end", known, {})
                    return
                if self.is_stopping() or watch.is_over or time.monotonic() > until:
                    return
                try:
                    async with asyncio.timeout(COMMENT_S):
                        await changed.wait()
                except TimeoutError:
                    yield ":\n\n"

    @contextlib.contextmanager
    def _counted(self, reader: str) -> Iterator[None]:
        self._streams[reader] += 1
        try:
            yield
        finally:
            self._streams[reader] -= 1
            self._streams += Counter()  # without those that have none

    @contextlib.contextmanager
    def _watched(self, reader: str, body: dict[str, Any], read: Read) -> Iterator[_Watch]:
        followed = reader, body["batch_id"]
        watch = self._watches.setdefault(followed, _Watch(body))
        watch.readers += 1
        if watch.task is None:
            watch.task = asyncio.create_task(self._look(watch, read))
        try:
            yield watch
        finally:
            watch.readers -= 1
            if not watch.readers:
                del self._watches[followed]
                watch.task.cancel()

    async def _look(self, watch: _Watch, read: Read) -> None:
        """Look at a batch again and again; wake who follows it when it has changed, may not be seen, or the server stops."""
        next_look = _next_look()
        while not self.is_stopping():
            await asyncio.sleep(NOTICE_S)
            if time.monotonic() < next_look:
                continue
            with contextlib.suppress(Exception):  # what cannot be read now is read at the next look
                try:
                    body = await read()
                except Problem:
                    watch.is_over = True
                    break
                if body != watch.body:
                    watch.show(body)
            next_look = _next_look()
        watch.show(None)


def _next_look() -> float:
    """Return when to look again: streams that began together, as after a restart, are not to look together for ever."""
    return time.monotonic() + LOOK_S * random.uniform(0.8, 1.2)  # noqa: S311 - no secret


def _event(name: str, etag: str, body: dict[str, Any]) -> str:
    return f"event: {name}\nid: {etag}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n"

"""What payments and notifications share: keys, latency, faults, and turning answers and problems into responses.

`Service.perform` is the one way through which something is booked. What is booked belongs in `payments.py` and
`notifications.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from orders_pipeline.sandbox import replies
from orders_pipeline.sandbox.contract import Problem, UnlistedRefusal
from orders_pipeline.sandbox.faults import BEFORE, LATE, Faults, share
from orders_pipeline.sandbox.ledger import Answer, Ledger
from orders_pipeline.sandbox.options import Options

BODY_LIMIT_BYTES = 8 * 1024 * 1024
RECENT = 10_000
ARRIVED = "sandbox.arrived_s"  # in scope["extensions"]: when the request's first bytes were there (monotonic)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ERRORS = ("internal", "bad-gateway", "gateway-timeout")
_NOT_FOUND = ("order-not-found", "customer-not-found")


class Window:
    """A limit over any sliding second: at most so many calls are admitted within one second of the first of them."""

    def __init__(self) -> None:
        self._admitted: deque[float] = deque()

    def wait_s(self, arrived_s: float, limit: int) -> float:
        """Admit a call that arrived at `arrived_s` (monotonic) and return 0, or return how long to wait."""
        while self._admitted and arrived_s - self._admitted[0] >= 1.0:
            self._admitted.popleft()
        if len(self._admitted) >= limit:
            return 1.0 - (arrived_s - self._admitted[0])
        self._admitted.append(arrived_s)
        return 0.0


class Service:
    """The state of the running sandbox: its ledger, its options, and the requests that are under way."""

    def __init__(self, ledger: Ledger, options: Options) -> None:
        self.ledger = ledger
        self.options = options
        self.stopping = asyncio.Event()
        self.window = Window()
        self.recent_notifications: deque[dict[str, Any]] = deque(maxlen=RECENT)  # in memory only: they hold addresses
        self._running: set[tuple[str, str]] = set()
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._late: set[asyncio.Task[None]] = set()
        self._wall_offset_s = time.time() - time.monotonic()

    def wall_us(self, monotonic_s: float) -> int:
        """Return a monotonic time as microseconds since 1970, unmoved by clock changes since the start."""
        return int((monotonic_s + self._wall_offset_s) * 1_000_000)

    def clear(self) -> None:
        """Forget all that happened, but for the requests that are under way."""
        self.ledger.clear()
        self._attempts.clear()
        self.recent_notifications.clear()

    async def perform(
        self,
        scope: str,
        key: str,
        fingerprint: bytes,
        book: Callable[[], Answer],
        *,
        faults: Faults,
        latency_ms: float,
        arrived_s: float,
        tries_of: str | None = None,
        is_refused: bool = False,
    ) -> Response:
        """Answer the request that `key` stands for: by replay, or by booking it once; faults before and after.

        The latency runs from `arrived_s` (monotonic) and includes our own work. Tries count under `tries_of`, else `key`.
        """
        slot = (scope, key)
        if self.options.honour_keys and slot in self._running:
            raise Problem("request-in-progress", retry_after="1", retry_after_s=1)
        fault = self._next_fault((scope, tries_of or key), faults)
        pause_s = (latency_ms + self.options.jitter_ms * random.random()) / 2000  # noqa: S311 - latency, not a secret
        self._running.add(slot)
        try:
            if fault in BEFORE:
                return await self._refuse(fault, slot, faults)
            stored = self._stored(slot, fingerprint)
            if is_refused and stored is None:
                raise UnlistedRefusal(faults.refuse_as)
            if fault == LATE and stored is None:
                self._book_late(slot, faults.late_s, book)
                raise Problem("gateway-timeout")
            await _until(arrived_s + pause_s)
            answer = stored or book()
        finally:
            self._running.discard(slot)
        await _until(arrived_s + 2 * pause_s)
        if fault is None or fault == LATE:
            return answer_response(answer, replayed=stored is not None)
        return await self._garble(fault, slot, answer, faults)

    def _next_fault(self, slot: tuple[str, str], faults: Faults) -> str | None:
        self._attempts[slot] += 1
        return faults.fault_of("/".join(slot), self._attempts[slot])

    def _stored(self, slot: tuple[str, str], fingerprint: bytes) -> Answer | None:
        kept = self.ledger.answer(*slot) if self.options.honour_keys else None
        if kept is None:
            return None
        if kept[0] != fingerprint:
            raise Problem("idempotency-key-reused")
        return kept[1]

    def _book_late(self, slot: tuple[str, str], late_s: float, book: Callable[[], Answer]) -> None:
        async def run() -> None:
            await replies.passed(self.stopping, late_s)
            if self.ledger.answer(*slot) is None:
                with contextlib.suppress(Problem):  # the order was paid in another way meanwhile
                    book()

        task = asyncio.create_task(run())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _refuse(self, fault: str, slot: tuple[str, str], faults: Faults) -> Response:
        if fault == "timeout_before":
            await replies.passed(self.stopping, faults.hang_s)
            raise Problem("gateway-timeout")
        if fault == "reset_before":
            return replies.NoReply()
        if fault == "redirect":
            return Response(status_code=307, headers={"Location": "/sandbox/elsewhere"})
        waits = faults.retry_after or None
        if fault in {"rate_limited", "unavailable"}:
            raise Problem(fault.replace("_", "-"), retry_after=waits)
        if fault == "forbidden":
            raise Problem("forbidden")
        chosen = share(faults.seed, fault, *slot)
        raise Problem(_ERRORS[int(chosen * 3)] if fault == "error_before" else _NOT_FOUND[int(chosen * 2)])

    async def _garble(self, fault: str, slot: tuple[str, str], answer: Answer, faults: Faults) -> Response:
        if fault == "error_after":
            raise Problem(_ERRORS[int(share(faults.seed, fault, *slot) * 3)])
        if fault == "timeout_after":
            await replies.passed(self.stopping, faults.hang_s)
            raise Problem("gateway-timeout")
        if fault == "reset_after":
            return replies.NoReply()
        if fault == "dribble":
            body = json.dumps(answer.body)
            return replies.Dribbled(body, answer.status, lasts_s=faults.hang_s, stopping=self.stopping)
        return replies.GARBLED[fault](answer.status, answer.body)

    async def look_up(self, key: str, read: Callable[[], Answer]) -> Response:
        """Answer a look-up; the look-up faults and the latency apply, nothing is booked."""
        faults = self.options.lookup_faults
        if not self.options.lookups:
            raise Problem("not-found")
        slot = ("look-up", key)
        fault = self._next_fault(slot, faults)
        await asyncio.sleep(self.options.latency_ms / 1000)
        if fault in BEFORE:
            return await self._refuse(fault, slot, faults)
        answer = read()
        return answer_response(answer) if fault in {None, LATE} else await self._garble(str(fault), slot, answer, faults)


async def _until(moment_s: float) -> None:
    await asyncio.sleep(moment_s - time.monotonic())


def arrival_s(request: Request) -> float:
    """Return when the request's first bytes arrived (monotonic)."""
    arrived_s: float = request.scope["extensions"][ARRIVED]
    return arrived_s


def answer_response(answer: Answer, *, replayed: bool = False) -> Response:
    """Return an answer as a response; a 402 is a problem document like every other error."""
    media_type = "application/problem+json" if answer.status >= 400 else "application/json"
    response = Response(answer.text, answer.status, media_type=media_type)
    if answer.location is not None:
        response.headers["Location"] = answer.location
    if answer.status == 202 and answer.location is not None:
        response.headers["Retry-After"] = "1"
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def problem_response(problem: Problem, request_id: str) -> Response:
    """Return a problem as a response."""
    if not problem.slug:
        return Response(status_code=problem.status)
    response = JSONResponse(problem.body(request_id), problem.status, media_type="application/problem+json")
    if problem.retry_after is not None:
        response.headers["Retry-After"] = problem.retry_after
    if problem.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def respond(request: Request, handler: Callable[[Request], Awaitable[Response]]) -> Response:
    """Run `handler`; problems become responses, and every response carries the request id."""
    sent = request.headers.get("x-request-id", "")
    request_id = sent if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(8)
    request.state.request_id = request_id
    try:
        response = await handler(request)
    except Problem as problem:
        response = problem_response(problem, request_id)
    response.headers["X-Request-Id"] = request_id
    return response


async def read_body(request: Request) -> bytes:
    """Return the request's body; raise Problem where it is larger than anybody needs."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            raise Problem("too-large", limit=BODY_LIMIT_BYTES)
    return bytes(body)

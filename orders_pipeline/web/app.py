"""The application: every route, the scope that it takes, and how handlers are run.

Handlers are plain functions in threads, a few at a time, so that what waits for the database keeps nobody else waiting.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from orders_pipeline.batches.artifacts import ORIGINAL
from orders_pipeline.clients.api_tokens import APPROVE, CONTROL, OPERATOR, READ, READ_REJECTED, REFUND, WRITE, Caller
from orders_pipeline.infrastructure.scratch import scratch_files
from orders_pipeline.intake.file_staging import limits_of
from orders_pipeline.system.composition import System
from orders_pipeline.web import batches, control, files, health, reference, refunds, report_links, rows, submission, uploads
from orders_pipeline.web.authentication import authenticate, visitor
from orders_pipeline.web.boundary import TEMPLATE, Boundary
from orders_pipeline.web.calls import Call, conditional
from orders_pipeline.web.events import Events
from orders_pipeline.web.idempotency import key_of
from orders_pipeline.web.limits import READS, SUBMISSIONS, Rates, Uploads
from orders_pipeline.web.metrics import Metrics
from orders_pipeline.web.page import downloads, edits, fixing, overview, refunding, rendering, sign_in, views
from orders_pipeline.web.page.rendering import Visit
from orders_pipeline.web.run_hint import RunHint
from orders_pipeline.web.submission import Work

# each may have one of the process's sessions at the database; who reads does not queue behind many who send at once
THREADS, ADMIT_THREADS, UPLOAD_THREADS = 4, 1, 2
POLL_S = 2
EDITS = "edits.json"

Handler = Callable[[Call], Response]
View = Callable[[Visit], Response]


@dataclass(frozen=True)
class Operation:
    """What may be asked: a method on a path, with the scope that it takes."""

    method: str
    path: str
    scope: str
    handler: Handler
    policy: tuple[str, int] = READS
    most_body_bytes: int = 0  # of its command, if it takes one


READING = (
    Operation("GET", "/v1/batches", READ, batches.list_batches),
    Operation("GET", "/v1/batches/{batch_id}/rejections", READ, rows.list_rejections),
    Operation("GET", "/v1/batches/{batch_id}/orders", READ, rows.list_orders),
    Operation("GET", "/v1/batches/{batch_id}/payments", READ, rows.list_payments),
    Operation("GET", "/v1/batches/{batch_id}/notifications", READ, rows.list_notifications),
    Operation("GET", "/v1/batches/{batch_id}/files/{file}", READ_REJECTED, files.download),
    Operation("GET", "/v1/refunds/{refund_id}", REFUND, refunds.show_refund),
    Operation("GET", "/v1/profile", READ, reference.show_profile),
    Operation("GET", "/v1/codes", READ, reference.show_codes),
    Operation("GET", "/v1/template.csv", READ, reference.give_template),
)
CONTROLLING = (
    Operation("POST", "/v1/batches/{batch_id}/cancel", CONTROL, control.cancel, SUBMISSIONS, control.MOST_BODY_BYTES),
    Operation("POST", "/v1/batches/{batch_id}/resume", CONTROL, control.resume, SUBMISSIONS),
    Operation("POST", "/v1/batches/{batch_id}/approve", APPROVE, control.approve, SUBMISSIONS),
    Operation("POST", "/v1/batches/{batch_id}/refuse", APPROVE, control.refuse, SUBMISSIONS, control.MOST_BODY_BYTES),
    Operation("POST", "/v1/batches/{batch_id}/refunds", REFUND, refunds.refund, SUBMISSIONS, refunds.MOST_BODY_BYTES),
)
VIEWS: tuple[tuple[str, str, View], ...] = (
    ("/", READ, views.show_start),
    ("/send", READ, views.show_send),
    ("/history", READ, views.show_history),
    ("/overview", OPERATOR, overview.show_overview),
    ("/b/{batch_id}", READ, views.show_batch),
    ("/b/{batch_id}/fix", READ_REJECTED, fixing.show_fix),
    ("/b/{batch_id}/refund", REFUND, refunding.show_refund),
    ("/b/{batch_id}/not-notified.csv", READ, downloads.give_not_notified),
)


def build_app(system: System, *, with_reports: bool = False, code: str | None = None) -> Starlette:
    """Build the application over an opened system; `with_reports` it serves the links of Dagster's UI as well.

    Who comes with the `code` is signed in to the page as who runs the system.
    """
    limiter, rates = CapacityLimiter(THREADS), Rates()
    hint = RunHint(system.settings.dagster_url) if system.settings.dagster_url else None
    events = Events()
    following, visiting = _Following(system, limiter, rates, events), _Visiting(system, limiter, rates, code)
    handling, receiving = _Handling(system, limiter, rates, hint), _Receiving(system, rates, hint)

    def route(path: str, work: Callable[[Request], Response]) -> Route:
        async def endpoint(request: Request) -> Response:
            return await to_thread.run_sync(work, request, limiter=limiter)

        return _route("GET", path, endpoint)

    public: list[tuple[str, Callable[[Request], Response]]] = [
        ("/sign-in", visiting.begin_session),
        ("/static/{version}/{file}", rendering.show_static),
        ("/language/{language}", rendering.choose_language),
        ("/openapi.yaml", reference.show_openapi),
        ("/problems/{slug}", reference.show_problem),
        ("/healthz", health.show_alive),
        ("/readyz", health.Readiness(system).show),
        ("/metrics", Metrics(system).show),
    ]
    if with_reports:
        public.append(("/batches/{batch_id:str}/{file:str}", report_links.report_download(system)))
    app = Starlette(
        routes=[
            *(_route(each.method, each.path, partial(handling.answer, each)) for each in (*READING, *CONTROLLING)),
            _route("GET", "/v1/batches/{batch_id}", following.show),
            _route("GET", "/v1/batches/{batch_id}/events", following.follow),
            _route("POST", "/v1/batches", receiving.submit),
            _route("POST", "/v1/checks", receiving.check),
            _route("POST", "/v1/batches/{batch_id}/corrections", receiving.correct),
            *(route(path, partial(visiting.show, scope, view)) for path, scope, view in VIEWS),
            _route("POST", "/check", receiving.check_for_page),
            _route("POST", "/b/{batch_id}/edits", receiving.take_edits),
            _route("POST", "/sign-in", partial(visiting.take_form, sign_in.sign_in)),
            _route("POST", "/sign-out", partial(visiting.take_form, sign_in.sign_out)),
            *(route(path, work) for path, work in public),
        ],
        middleware=[Middleware(Boundary, system=system)],
        exception_handlers={HTTPException: _raised},
    )
    app.router.redirect_slashes = False
    app.state.events = events
    return app


class _Handling:
    """Has operations handled in threads, once it is known who asks and all of the command is there."""

    def __init__(self, system: System, limiter: CapacityLimiter, rates: Rates, hint: RunHint | None) -> None:
        self._system, self._limiter, self._rates, self._hint = system, limiter, rates, hint

    async def answer(self, operation: Operation, request: Request) -> Response:
        """Answer a request."""
        if not operation.most_body_bytes:
            return await to_thread.run_sync(self._work, operation, request, limiter=self._limiter)
        admitted = await to_thread.run_sync(self._admit, operation, request, limiter=self._limiter)
        body = await uploads.receive_command(request, operation.most_body_bytes)
        return await to_thread.run_sync(self._handle, operation, request, admitted, body, limiter=self._limiter)

    def _admit(self, operation: Operation, request: Request) -> tuple[Caller, dict[str, str]]:
        caller = authenticate(self._system, request, operation.scope)
        return caller, self._rates.count(operation.policy, caller.client_code)

    def _work(self, operation: Operation, request: Request) -> Response:
        return self._handle(operation, request, self._admit(operation, request))

    def _handle(
        self, operation: Operation, request: Request, admitted: tuple[Caller, dict[str, str]], body: bytes = b""
    ) -> Response:
        caller, headers = admitted
        response = operation.handler(Call(self._system, request, caller, self._hint, body))
        response.headers.update(headers)
        return response


class _Following:
    """Shows batches to who asks again and again, and begins streams of them, whose every look asks again who reads it."""

    def __init__(self, system: System, limiter: CapacityLimiter, rates: Rates, events: Events) -> None:
        self._system, self._limiter, self._rates = system, limiter, rates
        self._events, self._looks = events, batches.Looks(system, limiter)

    async def show(self, request: Request) -> Response:
        """Answer with a batch, or 304 while it is as the caller knows it."""
        call, headers = await self._begin(request)
        body = await self._looks.look(call.caller, call.batch_id)
        return conditional(request, body, headers | ({} if body["finished"] else {"Retry-After": str(POLL_S)}))

    async def follow(self, request: Request) -> Response:
        """Answer with the events of a batch."""
        call, headers = await self._begin(request)
        body = await self._looks.look(call.caller, call.batch_id)
        if request.method == "HEAD":
            return Response(headers=headers, media_type="text/event-stream")
        response = self._events.follow(call, body, partial(self._look_again, call))
        response.headers.update(headers)
        return response

    async def _begin(self, request: Request) -> tuple[Call, dict[str, str]]:
        caller = await self._caller(request)
        headers = self._rates.count(READS, caller.client_code)
        call = Call(self._system, request, caller)
        call.parameters(())
        return call, headers

    async def _look_again(self, call: Call) -> dict[str, Any]:
        return await self._looks.look(await self._caller(call.request), call.batch_id)

    async def _caller(self, request: Request) -> Caller:
        return await to_thread.run_sync(authenticate, self._system, request, READ, limiter=self._limiter)


class _Visiting:
    """Shows the page to people's browsers; who has a `code` comes from the link that `up` shows."""

    def __init__(self, system: System, limiter: CapacityLimiter, rates: Rates, code: str | None) -> None:
        self._system, self._limiter, self._rates, self._code = system, limiter, rates, code

    def show(self, scope: str, view: View, request: Request) -> Response:
        """Show a page to who has signed in and may see it."""
        caller = visitor(self._system, request, scope)
        self._rates.count(READS, caller.client_code)
        return view(Visit(self._system, request, caller))

    def begin_session(self, request: Request) -> Response:
        """Show where to sign in."""
        return sign_in.show_sign_in(Visit(self._system, request, None), self._code)

    async def take_form(self, work: Callable[[Visit, Mapping[str, str]], Response], request: Request) -> Response:
        """Take a form that a browser sends."""
        fields = sign_in.read_form(await uploads.receive_command(request, sign_in.MOST_FORM_BYTES))
        return await to_thread.run_sync(work, Visit(self._system, request, None), fields, limiter=self._limiter)


class _Receiving:
    """Receives bodies from whom it admits, one after another, and has a few of them worked on at a time."""

    def __init__(self, system: System, rates: Rates, hint: RunHint | None) -> None:
        self._system = system
        self._admitting, self._working = CapacityLimiter(ADMIT_THREADS), CapacityLimiter(UPLOAD_THREADS)
        self._rates, self._uploads = rates, Uploads()
        self._hint = hint

    async def submit(self, request: Request) -> Response:
        """Make a batch of a body."""
        return await self._receive(request, submission.submit, before=lambda call: key_of(call.request))

    async def correct(self, request: Request) -> Response:
        """Make a batch of a body that corrects rows of another, or say what would become of it."""
        return await self._receive(request, submission.correct, submission.require_batch, submission.CORRECT_PARAMETERS)

    async def check(self, request: Request) -> Response:
        """Say what would become of a body."""
        return await self._receive(request, submission.check)

    async def check_for_page(self, request: Request) -> Response:
        """Show what would become of a body."""
        return await self._receive(request, views.show_check)

    async def take_edits(self, request: Request) -> Response:
        """Check rows as a person has changed them, or make a batch of them."""
        call, headers = await self._begin(request)
        call.require(READ_REJECTED)
        given = call.parameters(("dry_run",))
        most = uploads.announced_bytes(request, edits.MOST_EDITS_BYTES)
        with self._uploads.admitted(call.caller.client_code, most), scratch_files() as folder:
            await uploads.receive(request, folder / EDITS, EDITS, edits.MOST_EDITS_BYTES)
            response = await to_thread.run_sync(edits.take_edits, call, given, folder / EDITS, folder, limiter=self._working)
        response.headers.update(headers)
        return response

    async def _begin(self, request: Request) -> tuple[Call, dict[str, str]]:
        """Return the call of who may send something, and the headers that say how often they still may."""
        caller = await to_thread.run_sync(authenticate, self._system, request, WRITE, limiter=self._admitting)
        headers = self._rates.count(SUBMISSIONS, caller.client_code)
        return Call(self._system, request, caller, self._hint), headers

    async def _receive(
        self,
        request: Request,
        work: Work,
        before: Callable[[Call], object] = lambda _: None,
        known: Collection[str] = submission.SUBMIT_PARAMETERS,
    ) -> Response:
        call, headers = await self._begin(request)
        caller = call.caller
        await to_thread.run_sync(before, call, limiter=self._admitting)
        given = call.parameters(known)
        name = uploads.name_of(request, given.get("name"))
        most = limits_of(self._system.settings, self._system.clients.profile(caller.client_code)).max_bytes
        announced = uploads.announced_bytes(request, most)
        with self._uploads.admitted(caller.client_code, announced), scratch_files() as folder:
            upload = await uploads.receive(request, folder / ORIGINAL, name, most)
            response = await to_thread.run_sync(work, call, given, upload, folder, limiter=self._working)
        response.headers.update(headers)
        return response


async def _raised(request: Request, error: Exception) -> Response:
    """Leave an error to the boundary; it is told of all methods that a path has, each of which is a route of its own."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        own = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
        methods = sorted({method for route in own for method in route.methods})
        raise HTTPException(405, headers={"Allow": ", ".join(methods)})
    raise error


def _route(method: str, path: str, work: Callable[[Request], Awaitable[Response]]) -> Route:
    async def endpoint(request: Request) -> Response:
        request.scope[TEMPLATE] = path
        return await work(request)

    return Route(path, endpoint, methods=[method])

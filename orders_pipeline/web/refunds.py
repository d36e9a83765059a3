"""Refunds: a plan is shown, and the same request with the plan's digest writes it down; a run carries it out.

A confirmed refund is written with its idempotency key, in one transaction. Other refunds of the batch may be open: what one
covers is no other's, so each request has refunds of its own.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints
from sqlalchemy import Row
from starlette.responses import Response

from orders_pipeline.batches.batch_lock import BatchBusy
from orders_pipeline.batches.run_processes import batches_being_processed
from orders_pipeline.batches.run_tags import REFUND
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.infrastructure.database_errors import LOCK_TIMEOUT, DatabaseUnavailable
from orders_pipeline.settlement.batch_settlement import probe_now
from orders_pipeline.settlement.refunds.plan import RefundPlan, UnknownOrders, read_plan, write_plan
from orders_pipeline.settlement.refunds.refunding import not_made
from orders_pipeline.settlement.sweep import API_PATIENCE_S
from orders_pipeline.system import payment_stop
from orders_pipeline.web.calls import Call, Command, Reason, answer, conditional, etag_of, own_batch, shown_time
from orders_pipeline.web.idempotency import REPLAYED, Keyed, KeyTaken
from orders_pipeline.web.problems import Problem

MOST_BODY_BYTES = 1 << 20
MOST_ORDERS = 10_000
MOST_LISTED = 100  # refunds that were not made
POLL_S = 2


class RefundCommand(Command):
    """What is to be refunded, and why; `confirm` is the digest of the plan that was shown for it."""

    orders: (
        Annotated[
            list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_./-]{1,64}$")]],
            Field(min_length=1, max_length=MOST_ORDERS),
        ]
        | None
    ) = None
    reason: Reason
    confirm: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = None


def refund(call: Call) -> Response:
    """Answer with the plan of a refund, or have it carried out where it is confirmed."""
    call.parameters(())
    with call.system.database.begin() as transaction:
        own_batch(transaction, call.caller, call.batch_id)
    asked = call.command(RefundCommand)
    if asked.confirm is not None:
        return _confirm(call, asked)
    plan = _plan(call, asked)
    return answer({"batch_id": plan.batch_id, "plan": plan.as_dict(), "plan_digest": plan.digest})


def show_refund(call: Call) -> Response:
    """Answer with how far a refund is, or 304 while it is as the caller knows it."""
    call.parameters(())
    body = _refund_object(call, call.refund_id)
    return conditional(call.request, body, {} if body["finished"] else {"Retry-After": str(POLL_S)})


def _plan(call: Call, asked: RefundCommand) -> RefundPlan:
    try:
        return read_plan(call.system.database, call.batch_id, asked.orders or ())
    except UnknownOrders as unknown:
        missing = set(unknown.missing)
        places = [number for number, ref in enumerate(asked.orders or ()) if ref in missing]
        errors = [{"pointer": f"#/orders/{number}", "code": unknown.code} for number in places[:MOST_LISTED]]
        raise Problem("unknown-orders", code=unknown.code, errors=errors) from None


def _confirm(call: Call, asked: RefundCommand) -> Response:
    """Write down a refund that was shown, once for each key, and ask for the run that carries it out."""
    refs = None if asked.orders is None else sorted(ref.lower() for ref in asked.orders)
    keyed = Keyed.of(call, [refs, asked.reason, asked.confirm])
    made = _made(call, keyed)
    if made is not None:
        return _replayed(call, made)
    try:
        request_id = _write(call, asked, keyed)
    except (KeyTaken, Problem, DatabaseUnavailable) as why:  # maybe the same request came first
        made = _made(call, keyed)
        if made is not None:
            return _replayed(call, made)
        if isinstance(why, KeyTaken) or getattr(why, "sqlstate", None) == LOCK_TIMEOUT:
            raise Problem("request-in-progress") from None
        raise
    return _accepted(call, request_id)


def _made(call: Call, keyed: Keyed) -> str | None:
    with call.system.database.begin() as transaction:
        made = keyed.made(transaction)
    return None if made is None else str(made.request_id)


def _write(call: Call, asked: RefundCommand, keyed: Keyed) -> str:
    """Write down the refunds of a plan that is still the one that was shown, with their key; return the request's id."""
    plan = _plan(call, asked)
    if plan.digest != asked.confirm:
        raise Problem("plan-changed")
    if not plan.refundable:
        raise Problem("nothing-to-refund")
    written: list[str] = []
    runs: list[Row[Any]] = []

    def identify(transaction: Transaction) -> None:
        transaction.execute("identify_caller", actor=call.caller.actor)
        if payment_stop.current(transaction) is not None:
            raise Problem("paying-stopped")

    def record(transaction: Transaction, request_id: str | None, orders: int) -> None:
        if request_id is None or orders != len(plan.refundable):
            raise Problem("plan-changed")
        keyed.take(transaction, plan.batch_id, request_id)
        written.append(request_id)
        runs.extend(_want_run(transaction, call, patience_s=0.0))

    try:
        write_plan(
            call.system.database.guarded(identify),
            plan,
            requested_by=call.caller.actor,
            reason=asked.reason,
            record=record,
        )
    except BatchBusy as busy:
        raise Problem("being-paid", code=busy.code) from None
    _ask_for(call, runs)
    return written[0]


def _replayed(call: Call, request_id: str) -> Response:
    """Answer with the refund that a repeated request has made, and see to it that it is carried out."""
    if not _refund_object(call, request_id)["finished"]:
        with call.system.database.begin() as transaction:
            is_idle = not batches_being_processed(transaction, [call.batch_id])
            runs = _want_run(transaction, call, patience_s=API_PATIENCE_S) if is_idle else []
        _ask_for(call, runs)
    return _accepted(call, request_id, REPLAYED)


def _want_run(transaction: Transaction, call: Call, *, patience_s: float) -> list[Row[Any]]:
    """Note that a run is wanted, and return it if it is to be asked for at once, as none was a moment ago."""
    is_hinted = call.hint is not None
    run = transaction.rows("want_refund_run", batch_id=call.batch_id, at_once=is_hinted, patience_s=patience_s)[0]
    return [run] if run.is_now else []


def _ask_for(call: Call, runs: list[Row[Any]]) -> None:
    probe_now(call.system)  # somebody asks for it
    for run in runs:
        if call.hint is not None:
            client_code = call.caller.client_code
            call.hint.give(call.system, call.batch_id, client_code, run.source_bytes, run.run_requests, job=REFUND)


def _accepted(call: Call, request_id: str, more: dict[str, str] | None = None) -> Response:
    body = _refund_object(call, request_id)
    headers = {"Location": body["links"]["self"], "ETag": etag_of(body), **(more or {})}
    if not body["finished"]:
        headers["Retry-After"] = str(POLL_S)
    return answer(body, 202, headers)


def _refund_object(call: Call, request_id: str) -> dict[str, Any]:
    """Return a refund as the API shows it; raise a Problem for one that is missing or another client's."""
    with call.system.database.begin() as transaction:
        row = transaction.row("api_refund", request_id=request_id, client_code=call.caller.client_code)
        if row is None:
            raise Problem("not-found")
        others = transaction.rows("api_refunds_not_made", request_id=request_id, limit=MOST_LISTED)
    states = ("planned", "succeeded", "declined", "unknown")
    status = "refunding" if row.finished_at is None else "completed_with_errors" if row.declined else "completed"
    return {
        "refund_id": str(row.request_id),
        "batch_id": row.batch_id,
        "status": status,
        "finished": row.finished_at is not None,
        "refunds": {state: getattr(row, state) for state in states},
        "orders": {"chosen": row.orders_chosen, "refunded": row.orders_refunded},
        "amount_jpy": {state: int(getattr(row, f"yen_{state}")) for state in states},
        "corrections": {state: getattr(row, f"corrections_{state}") for state in ("planned", "sent", "failed")},
        "not_refunded": [not_made(each) for each in others],
        "requested_at": shown_time(row.created_at),
        "finished_at": shown_time(row.finished_at),
        "links": {"self": f"/v1/refunds/{row.request_id}", "batch": f"/v1/batches/{row.batch_id}"},
    }

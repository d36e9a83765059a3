"""Control of a batch: it is cancelled or resumed, approved or refused. That is noted, and a run is asked for that does it.

Repeating either changes nothing. Runs that a batch has already see for themselves what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from orders_pipeline.batches import batches
from orders_pipeline.batches.run_processes import batches_being_processed
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.settlement.batch_settlement import probe_now
from orders_pipeline.settlement.sweep import API_PATIENCE_S
from orders_pipeline.upkeep import approval, cancelling
from orders_pipeline.web.batches import accepted, is_resumable
from orders_pipeline.web.calls import Call, Command, Reason, own_batch
from orders_pipeline.web.problems import Problem

MOST_BODY_BYTES = 8 << 10


class CancelCommand(Command):
    """Why a batch is cancelled, if somebody says so."""

    reason: Reason | None = None


def cancel(call: Call) -> Response:
    """Let nothing more of a batch be sent; a run ends it once what is in flight is known."""

    def begin(transaction: Transaction) -> bool:
        why = call.command(CancelCommand).reason if call.body else None
        try:
            cancelling.begin(transaction, call.batch_id, cancelled_by=call.caller.actor, why=why or cancelling.NO_REASON)
        except batches.BatchEnded:
            raise Problem("not-cancellable") from None
        return True

    return _control(call, begin)


def resume(call: Call) -> Response:
    """Resume a batch that is stopped or paused; one that is under way goes on."""

    def begin(transaction: Transaction) -> bool:
        batch = batches.get(transaction, call.batch_id)
        if batch.finished_at is not None or batch.cancelled_at is not None:
            raise Problem("not-resumable")
        batches.restart(transaction, call.batch_id)
        return is_resumable(batch)

    return _control(call, begin)


class RefusalCommand(Command):
    """Why a batch is refused."""

    reason: Reason


def approve(call: Call) -> Response:
    """Let a batch that waits for approval be paid, unless the caller has sent it."""
    return _decide(call, lambda transaction: approval.approve(transaction, call.batch_id, call.caller.actor))


def refuse(call: Call) -> Response:
    """Have a batch that waits for approval cancelled, unless the caller has sent it."""
    own = call.batch_id, call.caller.actor
    return _decide(call, lambda transaction: approval.refuse(transaction, *own, why=call.command(RefusalCommand).reason))


def _decide(call: Call, decide: Callable[[Transaction], None]) -> Response:
    def begin(transaction: Transaction) -> bool:
        try:
            decide(transaction)
        except approval.NotAwaitingApproval:
            raise Problem("not-awaiting-approval") from None
        except approval.OwnBatch:
            raise Problem("own-batch") from None
        return True

    return _control(call, begin)


def _control(call: Call, begin: Callable[[Transaction], bool]) -> Response:
    """Note what is asked for, have a run do it if `begin` says that one is needed, and answer with the batch."""
    call.parameters(())
    client_code, batch_id = call.caller.client_code, call.batch_id
    with call.system.database.begin() as transaction:
        transaction.execute("identify_caller", actor=call.caller.actor)
        own_batch(transaction, call.caller, batch_id)
        is_idle = begin(transaction) and not batches_being_processed(transaction, [batch_id])
        run = transaction.row("request_run_now", batch_id=batch_id, patience_s=API_PATIENCE_S) if is_idle else None
        if run is not None and call.hint is None:
            transaction.execute("forget_run_request", batch_id=batch_id, number=run.run_requests)
    if run is not None:
        probe_now(call.system)
        if call.hint is not None:
            call.hint.give(call.system, batch_id, client_code, run.source_bytes, run.run_requests)
    return accepted(call, batch_id)

"""Refunding: a plan is carried out, customers who were notified otherwise are corrected, and the result is returned.

A plan that is written down is resumed by whoever next settles or refunds the batch; nothing of it is sent twice.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from orders_pipeline.batches.shared_calls import SharedCalls
from orders_pipeline.batches.workers import Worker, worker_session
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.settlement import batch_settlement
from orders_pipeline.settlement.drain import drain, one_by_one
from orders_pipeline.settlement.notifications.ledger import CorrectionLedger
from orders_pipeline.settlement.notifications.notify import notify_batch
from orders_pipeline.settlement.payments.ledger import PAYMENT_BREAKER
from orders_pipeline.settlement.refunds.ledger import RefundLedger, look_up_and_refund
from orders_pipeline.settlement.refunds.plan import RefundPlan, write_plan
from orders_pipeline.system.composition import System

SETTLED = ("succeeded", "declined", "unknown")


def carry_out(system: System, plan: RefundPlan, *, requested_by: str, reason: str) -> dict[str, Any]:
    """Refund what a plan says, notify the customers, and return what became of the chosen orders' refunds.

    Raises BatchBusy while the batch is being paid, and LedgersDiffer while our ledger is not whole.
    """
    with worker_session(system.database, plan.batch_id, None) as worker:
        system.restore_guard.require()
        refund_ids = write_plan(system.database, plan, requested_by=requested_by, reason=reason)
        batch_settlement.probe_now(system)  # somebody asks for it
        send_refunds(system, worker)
        _correct(system, worker)
    return _result(system.database, plan, refund_ids)


def resume(system: System, batch_id: str) -> None:
    """Resume a batch's refunds, and corrections that were not sent, where some are open."""
    with system.database.begin() as transaction:
        if not transaction.scalar("is_refunding", batch_id=batch_id):
            return
    with worker_session(system.database, batch_id, None) as worker:
        send_refunds(system, worker)
        _correct(system, worker)


def send_refunds(system: System, worker: Worker) -> None:
    """Drain a batch's refunds; returns when none is left to try now, at once while our ledger is not whole."""
    if not system.restore_guard.advance():
        return
    ledger = RefundLedger(system.database, worker)
    ledger.begin()
    drain(
        ledger,
        one_by_one(lambda claim: look_up_and_refund(system.payments, claim, worker.may_send, ledger.beside)),
        concurrency=system.settings.payment_concurrency,
        bound=SharedCalls(system.database, PAYMENT_BREAKER.service, worker, system.settings.payment_concurrency),
        stop=threading.Event(),
    )
    system.restore_guard.note_settled()


def _correct(system: System, worker: Worker) -> None:
    notify_batch(
        [CorrectionLedger(system.database, system.cipher, worker)],
        system.notifications,
        system.notification_limiter,
        concurrency=system.settings.notification_rate_per_s,
        stop=threading.Event(),
    )


def _result(database: Database, plan: RefundPlan, refund_ids: Sequence[str]) -> dict[str, Any]:
    with database.begin() as transaction:
        refunds = transaction.rows("refunds_of_orders", order_ids=plan.order_ids, refund_ids=list(refund_ids))
        corrections = transaction.rows("corrections_of_orders", order_ids=plan.order_ids)[0]
    states = {state: [each.amount for each in refunds if each.status == state] for state in SETTLED}
    return {
        "batch_id": plan.batch_id,
        "plan": plan.as_dict(),
        "refunds": {"planned": len(refunds)} | {state: len(amounts) for state, amounts in states.items()},
        "amount_jpy": {"planned": sum(each.amount for each in refunds)}
        | {state: sum(amounts) for state, amounts in states.items()},
        "corrections": {"planned": corrections.planned, "sent": corrections.sent, "failed": corrections.failed},
        "not_refunded": [
            {"refund_id": str(each.refund_id)} | not_made(each) for each in refunds if each.status != "succeeded"
        ],
    }


def not_made(refund: Row[Any]) -> dict[str, Any]:
    """Return a refund that was not made, as it goes into JSON."""
    return {
        "status": refund.status,
        "amount_jpy": refund.amount,
        "code": refund.outcome_code,
        "orders": list(refund.refs),
        "needs_a_person": refund.needs_a_person,
    }

"""Settling: a batch's payments are written down and each is brought to an outcome, without ever being sent twice.

What may have been sent is looked up before anything is sent again. The plan itself belongs in `plan.py`, claims and results
in `ledger.py`, the meaning of answers in the provider's module below `services/`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy import Row

from orders_pipeline.audit import recording
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.database import Database, array_of
from orders_pipeline.security import personal_data
from orders_pipeline.security.encryption import Cipher
from orders_pipeline.services.outcomes import Outcome, called_off
from orders_pipeline.services.payment_gateway import PaymentGateway
from orders_pipeline.settlement.drain import drain, one_by_one
from orders_pipeline.settlement.ledger import UNDECIDABLE
from orders_pipeline.settlement.payments.ledger import ABSENT_EARLY, ABSENT_ONCE, PaymentClaim, PaymentLedger
from orders_pipeline.settlement.payments.plan import PayableOrder, plan_payments


def plan_batch(database: Database, cipher: Cipher, batch_id: str, profile: Profile) -> int:
    """Write down the payments for a batch's orders that have none and return their number."""
    with database.begin() as transaction:
        transaction.row("lock_batch", batch_id=batch_id)
        rows = transaction.rows("orders_to_plan", batch_id=batch_id)
        orders = [
            PayableOrder(
                row.import_row_number,
                row.customer_code,
                row.payment_method,
                row.amount,
                _card(cipher, batch_id, row),
                row.is_nobodys,
            )
            for row in rows
        ]
        order_ids = {row.import_row_number: row.order_id for row in rows}
        cards = sum(bool(order.card) for order in orders)
        recording.read_personal(transaction, "to plan payments", batch_id, cards)
        payments = plan_payments(orders, profile.payments)
        members = [array_of(payment.row_numbers) for payment in payments]
        amounts = [payment.amount for payment in payments]
        ids = transaction.rows("next_payment_ids", batch_id=batch_id, members=members, amounts=amounts)
        planned = [(str(row.payment_id), payment) for row, payment in zip(ids, payments, strict=True)]
        if planned:
            transaction.execute(
                "insert_payments",
                batch_id=batch_id,
                payment_ids=[payment_id for payment_id, _ in planned],
                customer_codes=[payment.customer_code for _, payment in planned],
                payment_methods=[payment.payment_method for _, payment in planned],
                amounts=amounts,
            )
            shares = [(payment_id, order) for payment_id, payment in planned for order in payment.orders]
            transaction.execute(
                "insert_allocations",
                payment_ids=[payment_id for payment_id, _ in shares],
                order_ids=[order_ids[order.import_row_number] for _, order in shares],
                amounts=[order.amount for _, order in shares],
            )
    return len(planned)


def _card(cipher: Cipher, batch_id: str, row: Row[Any]) -> str:
    if row.payment_method != "card_on_file":
        return ""
    return personal_data.decrypt(cipher, batch_id, row.import_row_number, row.personal)["payment_token"]


def find_out(gateway: PaymentGateway, claim: PaymentClaim) -> Outcome:
    """Bring a payment that may have been charged to an outcome without sending anything.

    That it was not charged is believed when two look-ups say so, after every request for it must have ended.
    """
    if not gateway.capabilities.can_look_up:
        return Outcome("unknown", UNDECIDABLE)
    found = gateway.look_up(claim.request)
    if found.kind != "absent":
        return found
    if claim.young_s > 0:
        return Outcome("unknown", ABSENT_EARLY, retry_after_s=claim.young_s)
    return Outcome("not_sent") if claim.last_code == ABSENT_ONCE else Outcome("unknown", ABSENT_ONCE)


def settle_one(gateway: PaymentGateway, claim: PaymentClaim, may_send: Callable[[], bool]) -> Outcome:
    """Bring one claimed payment to an outcome: what may have been sent is looked up before it is sent again.

    Nothing is sent once `may_send` says no: others may have taken the claim over and send it.
    """
    able = gateway.capabilities
    if claim.is_old:
        able = replace(able, honours_keys=False)
    if claim.in_doubt and not (able.can_look_up or able.honours_keys):
        return Outcome("unknown", UNDECIDABLE)
    if claim.in_doubt and able.can_look_up:
        found = gateway.look_up(claim.request)
        if found.kind != "absent":
            return found
        # without keys a look-up may be behind the booking: once is not enough
        if not able.honours_keys and claim.last_code != ABSENT_ONCE:
            return Outcome("unknown", ABSENT_ONCE)
    sent = gateway.pay(claim.request) if may_send() else called_off(in_doubt=False)
    if sent.kind == "not_sent" and not sent.refused and claim.in_doubt and able.honours_keys:
        # certain of this try only: without waiting out the one before, its charge is not ruled out
        return replace(sent, kind="unknown")
    return sent


def settle_batch(ledger: PaymentLedger, gateway: PaymentGateway, stop: threading.Event) -> None:
    """Drain a batch's payments with the ledger's concurrency; returns when none is left to try now."""
    ledger.begin()
    drain(
        ledger,
        one_by_one(lambda claim: settle_one(gateway, claim, ledger.may_send)),
        concurrency=ledger.concurrency,
        bound=ledger.shared_calls(),
        stop=stop,
    )

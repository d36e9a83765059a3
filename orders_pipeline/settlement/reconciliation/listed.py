"""What the Payment service lists, written down page by page in tables that live as long as the comparison.

What is compared with it belongs in `reconcile.py`; how a list is asked for in `services/payment_listing.py`.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from datetime import datetime

from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.services import payment_listing
from orders_pipeline.services.payment_gateway import ListedPayment, ListFailed, PaymentGateway, PaymentPage
from orders_pipeline.system.installation import Installation

MOST_LOOKED_UP = 200  # findings that the window leaves out, in one comparison


def list_payments(
    session: Transaction, ours: Installation, gateway: PaymentGateway, covered_from: datetime, covered_to: datetime
) -> int:
    """Write the whole list down and return how many of others cannot be read."""
    unreadable = 0
    for page in payment_listing.pages(gateway, covered_from, covered_to):
        if not _insert_page(session, ours, page) and not page.unreadable and page.following is not None:
            raise ListFailed("page-without-end", may_pass=False)
        unreadable += _insert_unreadable(session, ours, page)
    return unreadable


def look_up(
    session: Transaction, ours: Installation, gateway: PaymentGateway, scope: Mapping[str, object]
) -> tuple[list[int], list[str]]:
    """List singly what open findings outside the window are about: they never make it longer.

    Returns the findings that can be judged anew, and their payments. What cannot be asked for now stays as it is.
    """
    judged, payment_ids = [], []
    found = session.rows("findings_outside", **scope, limit=MOST_LOOKED_UP)
    for finding in found if gateway.capabilities.can_look_up else ():
        try:
            pages = [gateway.list_by_id(each) for each in finding.service_payment_ids]
            if finding.reference is not None:
                pages.append(gateway.list_by_reference(finding.reference))
        except ListFailed as failure:
            if failure.may_pass:
                break
            continue
        for page in pages:
            _insert_page(session, ours, page)
            _insert_unreadable(session, ours, page)
        judged.append(finding.finding_id)
        payment_ids += [] if finding.payment_id is None else [str(finding.payment_id)]
    return judged, payment_ids


def _insert_page(session: Transaction, ours: Installation, page: PaymentPage) -> int:
    """Write a page down and return how many of its payments no earlier page had."""
    items = page.items
    if not items:
        return 0
    return session.execute(
        "insert_listed_payments",
        service_payment_ids=[item.service_payment_id for item in items],
        reference_marks=[hashlib.sha256(item.reference.encode("utf-8", "surrogatepass")).hexdigest() for item in items],
        # payments of before references named the installation have their bare id
        references=[ours.payment_id_of(item.reference) or _our_id(item.reference) for item in items],
        are_ours=[ours.is_ours(item.reference) for item in items],
        keys=[_our_id(item.idempotency_key) for item in items],
        amounts=[item.amount for item in items],
        statuses=[item.status for item in items],
        times=[item.created_at for item in items],
        refunded=[item.refunded_amount for item in items],
        failure_codes=[item.failure_code for item in items],
        batch_ids=[item.batch_id for item in items],
        allocations=[_allocations(item) for item in items],
    )


def _insert_unreadable(session: Transaction, ours: Installation, page: PaymentPage) -> int:
    """Write down what of a page is ours and cannot be read, and return how many others there are."""
    items = page.unreadable
    if not items:
        return 0
    return len(items) - session.execute(
        "insert_unreadable_payments",
        service_payment_ids=[item.service_payment_id for item in items],
        references=[ours.payment_id_of(item.reference or "") or _our_id(item.reference) for item in items],
        are_ours=[ours.is_ours(item.reference or "") for item in items],
        keys=[_our_id(item.idempotency_key) for item in items],
    )


def _our_id(text: str | None) -> str | None:
    """Return a text if it is written as our payment ids are."""
    try:
        return text if text is not None and str(uuid.UUID(text)) == text else None
    except ValueError:
        return None


def _allocations(item: ListedPayment) -> str | None:
    return None if item.allocations is None else json.dumps(dict(item.allocations))

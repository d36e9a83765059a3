"""The whole of a provider's list: page after page, however long its payments are, and asked again where that may help.

What the pages are compared with belongs in `settlement/reconciliation/` and `system/restore_guard.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta

from orders_pipeline.services.payment_gateway import ListFailed, PaymentGateway, PaymentPage

SKEW = timedelta(minutes=5)  # the service's clock may be so far from the database's
PAGE = 100  # a tenth of it, and a tenth of that, after pages that did not come: they may have been too long
LONGER_AFTER = 10  # short pages that came
TRIES = 4
PAUSE_S = 0.5
MAX_PAUSE_S = 20.0


def pages(gateway: PaymentGateway, created_from: datetime, created_to: datetime) -> Iterator[PaymentPage]:
    """Give the pages with all that was created in a time, and some that was beside it; raise ListFailed.

    Shorter ones are asked for after one that did not come, and longer ones again once some have come.
    """
    limit, came = PAGE, 0
    cursor: str | None = None
    cursors = {cursor}
    since, until = created_from - SKEW, created_to + SKEW
    while True:
        page, fitting = _page(gateway, since, until, cursor, limit)
        came = came + 1 if fitting == limit else 0
        limit = fitting
        if came == LONGER_AFTER:
            limit, came = min(10 * limit, PAGE), 0
        yield page
        if page.following is not None and not (page.items or page.unreadable):
            raise ListFailed("page-without-end", may_pass=False)
        cursor = page.following
        if cursor is None:
            return
        if cursor in cursors:
            raise ListFailed("page-without-end", may_pass=False)
        cursors.add(cursor)


def _page(
    gateway: PaymentGateway, since: datetime, until: datetime, cursor: str | None, limit: int
) -> tuple[PaymentPage, int]:
    """Ask for a page, and again where that may help, and return it with the limit that it came with."""
    for tried in range(TRIES):
        try:
            page = gateway.list_payments(since, until, limit=limit, cursor=cursor)
        except ListFailed as failure:
            if tried == TRIES - 1 or not failure.may_pass:
                raise
            if not failure.is_too_long:
                time.sleep(min(failure.retry_after_s or PAUSE_S * 2**tried, MAX_PAUSE_S))
            limit = max(limit // 10, 1)
        else:
            return page, limit
    raise AssertionError("the last try returns or raises")

"""Asset checks: what must add up before a batch proceeds, counted from rows and held against what the file said.

A failed blocking check stops the batch there. The schema enforces most of this too; a check makes it visible, and sees
what a schema that was changed let through. Dagster shows a check of the newest batch; `in_words` is for each batch's own
page. Checks by partition, a preview of Dagster 1.13, cost its web server seconds for each check once there are thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg
from sqlalchemy import Row

from orders_pipeline.batches import batches
from orders_pipeline.batches.run_tags import shown_name
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.records.orders import CAP_JPY
from orders_pipeline.records.rejections import message

MOST_REJECTED = 0.5  # of a file's rows; beyond it a person should ask the client

FILE_ACCEPTED = dg.AssetCheckSpec(
    "file_accepted", asset="staged_orders", description="The file as a whole is usable; if not, it is rejected."
)
TOTALS_ACCEPTED = dg.AssetCheckSpec(
    "file_accepted",
    asset="validated_orders",
    description="The file comes to its control totals, and few enough of its rows are bad; if not, it is rejected.",
)
MOST_ROWS_ACCEPTED = dg.AssetCheckSpec(
    "most_rows_accepted",
    asset="validated_orders",
    description="At most half of the file's rows are rejected. More are a warning: the others are loaded all the same.",
)
ROWS_ADD_UP = dg.AssetCheckSpec(
    "rows_add_up",
    asset="orders",
    blocking=True,
    description="Rows of the file = rows of orders + rejected, blank and skipped rows.",
)
YEN_ADD_UP = dg.AssetCheckSpec(
    "yen_add_up", asset="orders", blocking=True, description="Yen of the accepted rows = yen of the orders."
)
LINES_ADD_UP = dg.AssetCheckSpec(
    "lines_add_up",
    asset="orders",
    blocking=True,
    description="Accepted rows = lines of the orders, where several rows are one order; else there are no lines.",
)
WITHIN_CAP = dg.AssetCheckSpec(
    "within_cap", asset="payments", blocking=True, description="No payment is above 1,000,000 yen."
)
PAID_ONCE = dg.AssetCheckSpec("paid_once", asset="payments", blocking=True, description="No order is in two live payments.")
PAID_YEN_ADD_UP = dg.AssetCheckSpec(
    "paid_yen_add_up", asset="payments", blocking=True, description="Yen of succeeded payments = yen of paid orders."
)
ORDER_CHECKS: Sequence[dg.AssetCheckSpec] = (ROWS_ADD_UP, YEN_ADD_UP, LINES_ADD_UP)
PAYMENT_CHECKS: Sequence[dg.AssetCheckSpec] = (WITHIN_CAP, PAID_ONCE, PAID_YEN_ADD_UP)


def file_accepted(batch: Row[Any]) -> dg.AssetCheckResult:
    """Return whether the file is taken as a whole, and why not: a warning, as it is the client's to mend."""
    if batch.status != "rejected" or batch.status_code is None:  # without a code all of its rows are bad
        return _warning(FILE_ACCEPTED, batch, passed=True)
    why = f"{batch.status_code}: {message(batch.status_code, 'en', batch.status_detail)}"
    return _warning(FILE_ACCEPTED, batch, passed=False, why=why)


def most_rows_accepted(batch: Row[Any]) -> dg.AssetCheckResult:
    """Return whether at most half of the rows that were judged are rejected; of a file rejected as a whole, none was."""
    if batch.status == "rejected" and batch.status_code is not None:
        return _warning(MOST_ROWS_ACCEPTED, batch, passed=True)
    judged = (batch.rows_accepted or 0) + (batch.rows_rejected or 0)
    passed = (batch.rows_rejected or 0) <= MOST_REJECTED * judged
    why = f"{batch.rows_rejected or 0:,} of {judged:,} rows are rejected"
    return _warning(MOST_ROWS_ACCEPTED, batch, passed=passed, why=why)


def _warning(spec: dg.AssetCheckSpec, batch: Row[Any], *, passed: bool, why: str | None = None) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=spec.name,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=why,
        metadata={"batch": batch.batch_id, "client": batch.client_code, "file": shown_name(batch.csv_source)},
    )


def order_checks(transaction: Transaction, batch_id: str) -> list[dg.AssetCheckResult]:
    """Compare what was loaded with what was read and accepted; a file rejected as a whole has nothing to compare."""
    batch = batches.get(transaction, batch_id)
    loaded = transaction.rows("loaded_totals", batch_id=batch_id)[0]
    if batch.rows_accepted is None or batch.status == "rejected":
        return [dg.AssetCheckResult(check_name=spec.name, passed=loaded.orders == 0) for spec in ORDER_CHECKS]
    rejected = transaction.scalar("count_rejected_rows", batch_id=batch_id)
    accounted = int(loaded.rows) + rejected + batch.rows_blank + batch.rows_skipped
    of_lines = batch.rows_accepted if loaded.orders_of_lines else 0
    return [
        _equal(batch_id, ROWS_ADD_UP, "rows of the file", batch.rows_total, "rows accounted for", accounted),
        _equal(batch_id, YEN_ADD_UP, "accepted yen", batch.amount_accepted, "loaded yen", int(loaded.amount)),
        _equal(batch_id, LINES_ADD_UP, "accepted rows that are lines", of_lines, "lines of orders", loaded.lines),
    ]


def payment_checks(transaction: Transaction, batch_id: str) -> list[dg.AssetCheckResult]:
    """Look over a batch's payments in the ledger."""
    batch = batches.progress(transaction, batch_id)
    totals = transaction.rows("payment_totals", batch_id=batch_id)[0]
    twice = transaction.scalar("orders_paid_twice", batch_id=batch_id)
    return [
        dg.AssetCheckResult(
            check_name=WITHIN_CAP.name,
            passed=totals.largest <= CAP_JPY,
            metadata={"batch": batch_id, "largest payment (yen)": totals.largest, "cap (yen)": CAP_JPY},
        ),
        dg.AssetCheckResult(
            check_name=PAID_ONCE.name,
            passed=twice == 0,
            metadata={"batch": batch_id, "orders in two live payments": twice},
        ),
        _equal(
            batch_id,
            PAID_YEN_ADD_UP,
            "yen of succeeded payments",
            int(totals.succeeded),
            "yen of paid orders",
            int(batch.amount_paid),
        ),
    ]


def in_words(results: Sequence[dg.AssetCheckResult]) -> str:
    """Return what checks of a batch came to: which have passed, and which have not, with why if that is said."""
    passed = [str(each.check_name) for each in results if each.passed]
    failed = [
        f"{each.check_name} ({each.description})" if each.description else str(each.check_name)
        for each in results
        if not each.passed
    ]
    parts = [f"FAILED: {'; '.join(failed)}"] if failed else []
    return ". ".join(parts + ([f"passed: {', '.join(passed)}"] if passed else []))


def _equal(
    batch_id: str, spec: dg.AssetCheckSpec, left_name: str, left: int, right_name: str, right: int
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=spec.name, passed=left == right, metadata={"batch": batch_id, left_name: left, right_name: right}
    )

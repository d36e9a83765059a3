"""Validation of one staged file by its client's profile and by the orders and rejections that the database has.

How rows are judged and written is in `validation.py`. The batch that the file is of is in `steps.py`.
"""

from __future__ import annotations

from pathlib import Path

from orders_pipeline.batches import batches
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.intake import validation
from orders_pipeline.intake.file_staging import SourceFile
from orders_pipeline.intake.grouped_validation import validate_grouped
from orders_pipeline.intake.received_before import ReceivedBefore
from orders_pipeline.intake.rejected_before import NamedBatch, corrections_of
from orders_pipeline.intake.repeated_orders import RepeatedOrders, none_is_settled
from orders_pipeline.intake.validation import Validated
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.record_type import RowContext
from orders_pipeline.records.rejections import Rejection
from orders_pipeline.security import personal_data
from orders_pipeline.system.composition import System

MOST_NAMED = 5  # skipped rows that close none


def validate_file(
    system: System, profile: Profile, file: SourceFile, staged: Path, accepted: Path, rejections: Path
) -> Validated:
    """Judge the rows of a staged file, and write accepted rows and rejections as Parquet."""
    context, grouping = context_of(profile, file.encoding), profile.grouping()
    skips_same = profile.same_orders == "skip"
    before = ReceivedBefore(system.database, system.cipher, file.batch_id, file.client_code, unopened_differ=skips_same)
    settled = before.settled if skips_same else none_is_settled
    seal = personal_data.encrypter(system.cipher, file.batch_id)
    corrections = None
    if file.corrects is not None:
        named = NamedBatch(file.client_code, file.corrects, is_grouped=grouping is not None)
        corrections = corrections_of(system.storage, system.database, context, named, staged)
    if grouping is not None:
        return validate_grouped(
            staged,
            accepted,
            rejections,
            context=context,
            grouping=grouping,
            seal=seal,
            repeated=RepeatedOrders(ORDERS, before.existing, before.differing, before.given_up, settled),
            lines_of=before.lines,
            corrections=corrections,
        )
    return validation.validate(
        staged,
        accepted,
        rejections,
        record_type=ORDERS,
        context=context,
        seal=seal,
        existing=before.existing,
        differing=before.differing,
        given_up=before.given_up,
        settled=settled,
        corrections=corrections,
    )


def counted_warnings(result: Validated) -> list[Rejection]:
    """Return what a client is warned of in rows that were accepted or skipped."""
    counts = {"W_SAME_ORDERS": result.rows_same, **result.warnings}
    counted = [Rejection(None, None, None, code, {"count": str(count)}) for code, count in counts.items() if count]
    if not result.not_closed:
        return counted
    named = ", ".join(f"#{row}" for row in result.not_closed[:MOST_NAMED]) + (
        ", ..." if result.not_closed[MOST_NAMED:] else ""
    )
    detail = {"count": str(len(result.not_closed)), "skipped": named}
    return [*counted, Rejection(None, None, None, "W_ROWS_NOT_CLOSED", detail)]


def context_of(profile: Profile, encoding: str) -> RowContext:
    """Return what the rules need to know of today and of a client's file in this encoding."""
    payer = profile.columns.get(ORDERS.payer)
    return RowContext(
        batches.today(),
        encoding,
        profile.notify_channel,
        {column: source.translate for column, source in profile.columns.items()},
        profile_payers=() if payer is None else payer.words,
        has_joined_payers=payer is not None and bool(payer.join),
    )

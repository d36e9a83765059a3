"""Summaries of batches: counts, sums and what is open, as `status --json` and result.json show them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from orders_pipeline.batches import batches
from orders_pipeline.batches.run_processes import batches_being_processed
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.storage import Storage
from orders_pipeline.reports.report_files import located, locations
from orders_pipeline.settlement import sweep
from orders_pipeline.settlement.standing_still import waiting_for_turn
from orders_pipeline.system import payment_stop
from orders_pipeline.system.composition import System

MOST_LOOKED_AT = 500  # unfinished batches


def summarise(system: System, batch_id: str) -> dict[str, Any]:
    """Return what `status --json` shows of a batch, and what is open in its import group; raise UnknownBatch."""
    artifacts = locations(system.storage, batch_id)
    with system.database.begin() as transaction:
        summary = summary_of(transaction, batch_id, artifacts)
    return _with_turns(system, [summary])[0]


def summary_of(transaction: Transaction, batch_id: str, artifacts: Mapping[str, str]) -> dict[str, Any]:
    """Return the whole summary of a batch, whose reports are at `artifacts`; raise UnknownBatch."""
    batch = batches.progress(transaction, batch_id)
    group = transaction.rows("import_group", bulk_import_group=batch.bulk_import_group)[0]
    next_try = transaction.scalar("next_try", batch_id=batch_id, patience_s=sweep.PATIENCE_S, longest_s=sweep.LONGEST_S)
    return _summary(transaction, batch, artifacts) | {
        "next_try": None if next_try is None else next_try.isoformat(timespec="seconds"),
        "paying_rests": payment_stop.shown(transaction),
        "corrections": {"batches": group.batches, "rows_open": group.rows_open, "open_in": list(group.open_in)},
        "services_left_alone": [
            {"service": each.service, "code": each.reason, "next_try": each.probe_at.isoformat(timespec="seconds")}
            for each in (transaction.rows("open_breakers") if batch.status == "paused" else ())
        ],
        "refused": [
            {"service": each.service, "code": each.code, "count": each.items}
            | {"since": each.since.isoformat(timespec="seconds"), "next_try": each.next_try.isoformat(timespec="seconds")}
            for each in transaction.rows("held_refusals", batch_id=batch_id)
        ],
        "unknown_payments": [
            {"payment_id": str(each.payment_id), "amount_jpy": each.amount, "code": each.outcome_code}
            | {"since": each.sent_at.isoformat(timespec="seconds"), "needs_a_person": each.needs_a_person}
            for each in transaction.rows("unknown_payments", batch_id=batch_id)
        ],
        "refunds": _refunds(transaction, batch_id),
        "open_refunds": [
            {"refund_id": str(each.refund_id), "status": each.status, "amount_jpy": each.amount}
            | {"code": each.outcome_code, "orders": list(each.refs), "needs_a_person": each.needs_a_person}
            | {"since": each.created_at.isoformat(timespec="seconds")}
            for each in transaction.rows("unsettled_refunds", batch_id=batch_id)
        ],
    }


def is_refunding(summary: Mapping[str, Any]) -> bool:
    """Return whether, by a batch's summary, refunds or the corrections that follow them are open."""
    return bool(summary["refunds"]["open"] or summary["refunds"]["corrections"]["open"])


def progress(database: Database, batch_id: str) -> dict[str, Any]:
    """Return the part of a batch's summary that is counted from its orders alone, and how many these are to be.

    Raises UnknownBatch.
    """
    with database.begin() as transaction:
        batch = batches.progress(transaction, batch_id)
    to_load = None if batch.rows_accepted is None else batches.orders_accepted(batch)
    return batches.summary(batch, {}, {}, {}) | {"orders_to_load": to_load}


def recent(
    system: System,
    limit: int,
    *,
    client_code: str | None = None,
    statuses: Sequence[str] = (),
    since: datetime | None = None,
) -> list[dict[str, Any]]:
    """Return the summaries of the newest batches, with when each came; those that are finished are counted once.

    Only those of a client, in one of some states, or that came since a time, where that is asked for.
    """
    wanted = {"client_code": client_code, "statuses": list(statuses) or None, "since": since}
    with system.database.begin() as transaction:
        newest = transaction.rows("recent_batches", limit=limit, **wanted)
    summaries = [
        _received(
            keep_summary(system.storage, system.database, row.batch_id)
            if row.summary is None
            else located(system.storage, row.summary),
            row.received_at,
        )
        for row in newest
    ]
    return _with_turns(system, summaries)


def standing_still(system: System, limit: int, client_code: str | None = None) -> list[dict[str, Any]]:
    """Return the whole summaries of the oldest batches that have not ended and that nobody processes, with when each came.

    One that waits for its turn is not among them, as long as there is who gives it one; nor one that has come just now.
    """
    with system.database.begin() as transaction:
        found = transaction.rows(
            "oldest_unfinished", client_code=client_code, patience_s=sweep.PATIENCE_S, limit=MOST_LOOKED_AT
        )
        busy = batches_being_processed(transaction, [row.batch_id for row in found])
    idle = [row for row in found if row.batch_id not in busy]
    waiting = waiting_for_turn(system, [row.batch_id for row in idle])
    still = [row for row in idle if row.batch_id not in waiting][:limit]
    located_at = {row.batch_id: locations(system.storage, row.batch_id) for row in still}
    with system.database.begin() as transaction:
        return [_received(summary_of(transaction, row.batch_id, located_at[row.batch_id]), row.received_at) for row in still]


def open_refunds(system: System, limit: int, client_code: str | None = None) -> list[dict[str, Any]]:
    """Return the oldest batches with refunds that are not settled, and how many of these a person has to decide on."""
    with system.database.begin() as transaction:
        found = transaction.rows("batches_with_open_refunds", client_code=client_code, limit=limit)
    return [
        {"batch_id": row.batch_id, "client_code": row.client_code, "csv_source": row.csv_source}
        | {"refunds": row.refunds, "amount_jpy": row.amount, "need_a_person": row.undecided}
        for row in found
    ]


def _received(summary: dict[str, Any], received_at: datetime) -> dict[str, Any]:
    return summary | {"received_at": received_at.isoformat(timespec="seconds")}


def _with_turns(system: System, summaries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return summaries with `queued` where a run of the batch waits for its turn."""
    idle = [each["batch_id"] for each in summaries if each["status"] in batches.UNDER_WAY and not each["at_work"]]
    queued = system.turns.waiting() & set(idle) if idle else ()
    return [each | {"queued": each["batch_id"] in queued} for each in summaries]


def keep_summary(storage: Storage, database: Database, batch_id: str) -> dict[str, Any]:
    """Return the short summary of a batch, and keep it where the batch is finished and nothing changes at this moment."""
    artifacts = locations(storage, batch_id)
    with database.begin() as transaction:
        is_still = transaction.scalar("lock_summary", batch_id=batch_id)
        summary = _summary(transaction, batches.progress(transaction, batch_id), artifacts)
        if is_still:
            kept = summary | {"artifacts": list(artifacts)}  # where they are, is asked when they are shown
            transaction.execute("keep_summary", batch_id=batch_id, summary=json.dumps(kept))
    return summary


def _summary(transaction: Transaction, row: Row[Any], artifacts: Mapping[str, str]) -> dict[str, Any]:
    seconds = {each.stage: each.seconds for each in transaction.rows("stage_seconds", batch_id=row.batch_id)}
    found = transaction.rows("rejections_by_code", batch_id=row.batch_id)
    codes = {each.code: each.rows for each in found if not each.is_warning}
    warnings = [each.code for each in found if each.is_warning]
    details = {each.code: each.detail for each in transaction.rows("file_rejections", batch_id=row.batch_id)}
    if row.status_code and row.status_detail:
        details[row.status_code] = row.status_detail
    is_at_work = row.finished_at is None and bool(batches_being_processed(transaction, [row.batch_id]))
    return batches.summary(row, codes, seconds, artifacts) | {
        "warnings": warnings,
        "details": details,
        "at_work": is_at_work,
        "queued": False,
    }


def _refunds(transaction: Transaction, batch_id: str) -> dict[str, Any]:
    totals = transaction.rows("refund_totals", batch_id=batch_id)[0]
    return {state: getattr(totals, state) for state in ("planned", "succeeded", "declined", "open")} | {
        "corrections": {state: getattr(totals, f"corrections_{state}") for state in ("planned", "sent", "failed", "open")}
    }

"""The dry run: what importing a file would do, found out without changing anything.

The very steps of the real run, `intake/steps.py`'s, over temporary files; nothing is registered, kept or sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from orders_pipeline.batches import batches
from orders_pipeline.batches.artifacts import ACCEPTED, ORIGINAL, REJECTIONS, STAGED
from orders_pipeline.clients.file_names import composed, encoding_shown
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.scratch import Scratch, scratch_files
from orders_pipeline.intake import control, steps
from orders_pipeline.intake.validation import Validated
from orders_pipeline.records.rejections import FileRejected, Rejection, message
from orders_pipeline.reports import reports
from orders_pipeline.security import personal_data
from orders_pipeline.settlement.notifications import ADDRESS_COLUMN
from orders_pipeline.settlement.payments.plan import PayableOrder, plan_payments
from orders_pipeline.system.opening import System

NO_BATCH = "preview"


@dataclass(frozen=True)
class _Previewed:
    batch_id: str
    client_code: str
    csv_source: str
    source_sha256: str
    encoding: str = ""
    corrects: str | None = None


@dataclass
class _Found:
    """What has been found out so far, as far as the file was read."""

    staging: steps.Staging | None = None
    result: Validated | None = None
    planned: tuple[int, int] = (0, 0)  # payments and notifications
    warnings: list[Rejection] = field(default_factory=list)
    refusal: FileRejected | None = None


def preview(system: System, path: Path, client_code: str, *, again: bool, errors: Path | None = None) -> dict[str, Any]:
    """Return what `import --dry-run --json` shows, and write to `errors` the errors.csv that importing would give.

    Raises FileRejected where importing does, for a file that would not even become a batch.
    """
    with scratch_files() as folder:
        arrival = steps.arrive(system, path, client_code, folder / ORIGINAL)
        again = again or arrival.profile.same_bytes == "take"
        with system.database.begin() as transaction:
            batches.next_repeat(transaction, client_code, arrival.sha256, again=again)
        found = _Found()
        try:
            _find_out(system, arrival, client_code, composed(path.name), folder, found)
        except FileRejected as refusal:
            found.refusal = refusal
        listed = _listed(found, folder)
        headers = {} if found.staging is None else found.staging.layout["headers"]
        if errors is not None:
            reports.write_errors(errors, listed, None if found.result is None else folder / STAGED, headers)
    return _answer(system, client_code, path.name, found, listed, headers)


def _find_out(system: System, arrival: steps.Arrival, client_code: str, name: str, folder: Scratch, found: _Found) -> None:
    """Stage, validate and plan; raise FileRejected where the file would be given back."""
    profile, manifest = arrival.profile, arrival.manifest
    batch = _Previewed(NO_BATCH, client_code, name, arrival.sha256)
    staging = steps.stage_checked(system, profile, batch, manifest, folder / ORIGINAL, folder)
    found.staging = staging
    with system.database.begin() as transaction:
        gap = control.sequence_gap(transaction, client_code, control.position_of(profile, name))
    found.warnings = [*staging.file.warnings, *gap]
    batch = replace(batch, encoding=staging.file.encoding, corrects=staging.corrects)
    found.result = steps.validate_file(system, profile, batch, folder / STAGED, folder / ACCEPTED, folder / REJECTIONS)
    control.check_validated(profile, manifest, found.result)
    found.planned = _plan(system, profile, folder / ACCEPTED)


def _listed(found: _Found, folder: Scratch) -> list[reports.Listed]:
    """Return all that is wrong, the file first, as `errors` of a batch lists it."""
    of_file = list(found.warnings)
    if found.refusal is not None:
        of_file.append(steps.refusal_of_file(found.refusal))
    listed = [reports.Listed(None, each.line, each.column, each.code, each.detail) for each in of_file]
    if found.result is not None:
        for each in pq.read_table(folder / REJECTIONS).to_pylist():
            detail = json.loads(each["detail"] or "{}")
            listed.append(reports.Listed(each["import_row_number"], each["line"], each["column"], each["code"], detail))
    return listed


def _answer(
    system: System,
    client_code: str,
    name: str,
    found: _Found,
    listed: Sequence[reports.Listed],
    headers: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    staged = None if found.staging is None else found.staging.file
    result, refusal = found.result, found.refusal
    given_back = refusal is not None
    read = None if staged is None else staged.rows_total - staged.rows_blank
    accepted = 0 if given_back or result is None else result.rows_accepted
    rejected = read if given_back or result is None else result.rows_rejected
    codes = {} if result is None else dict(result.rejections)
    payments, notifications = found.planned
    answer: dict[str, Any] = {
        "dry_run": True,
        "status": "rejected" if not accepted else "completed_with_errors" if rejected else "completed",
        "status_code": None if refusal is None else refusal.code,
        "client_code": client_code,
        "csv_source": composed(name),
        "encoding": None if staged is None else encoding_shown(name, staged.encoding),
        "rows": {
            "total": None if staged is None else staged.rows_total,
            "accepted": None if read is None else accepted,
            "rejected": rejected,
            "blank": None if staged is None else staged.rows_blank,
        },
        "amount_jpy": {"accepted": 0 if given_back or result is None else result.amount_accepted},
        "payments": {"planned": payments},
        "notifications": {
            "planned": notifications,
            "seconds": round(notifications / system.settings.notification_rate_per_s, 1),
        },
        "rejections": ({} if refusal is None else {refusal.code: 1}) | codes,
        "errors": [
            {
                "row": each.import_row_number,
                "line": each.line,
                "column": each.column_name,
                "header": " + ".join(headers.get(each.column_name or "", ())),
                "code": each.code,
                "message": message(each.code, "en", each.detail),
                "message_ja": message(each.code, "ja", each.detail),
            }
            for each in listed
        ],
    }
    if refusal is not None:
        sentence = message(refusal.code, "en", refusal.detail)
        answer["error"] = {"code": refusal.code, "message": sentence, "detail": refusal.detail}
    return answer


def _plan(system: System, profile: Profile, accepted: Path) -> tuple[int, int]:
    orders: list[PayableOrder] = []
    told: set[tuple[object, ...]] = set()
    with pq.ParquetFile(accepted) as file:
        for chunk in file.iter_batches():
            for row in chunk.to_pylist():
                number, channel = row["import_row_number"], row["notify_channel"]
                opened = personal_data.reveal(system.cipher, NO_BATCH, number, row["personal"])
                card = opened["payment_token"] if row["payment_method"] == "card_on_file" else ""
                customer, nobodys = row["customer_code"], row["is_nobodys"]
                orders.append(PayableOrder(number, customer, row["payment_method"], row["amount"], card, nobodys))
                if channel != "none":
                    alone = number if profile.notifications == "per_order" or nobodys else None
                    told.add((customer, channel, opened[ADDRESS_COLUMN[channel]], alone))
    return len(plan_payments(orders, profile.payments)), len(told)

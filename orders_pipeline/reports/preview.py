"""The dry run: what importing a file would do, found out without changing anything.

The very steps of a real batch, over temporary files; nothing is registered, kept or sent.
"""

from __future__ import annotations

import json
from collections import Counter
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
from orders_pipeline.intake import declarations
from orders_pipeline.intake.file_import import Arrival, arrive
from orders_pipeline.intake.file_staging import Staging, UnregisteredFile, limits_of, stage_checked
from orders_pipeline.intake.file_validation import counted_warnings, validate_file
from orders_pipeline.intake.steps import refusal_of_file
from orders_pipeline.intake.validation import Validated
from orders_pipeline.records.rejections import FileRejected, Rejection, message
from orders_pipeline.reports.errors_csv import write_errors
from orders_pipeline.reports.rejected_rows import listed
from orders_pipeline.security import personal_data
from orders_pipeline.security.encryption import Cipher
from orders_pipeline.settlement.notifications.plan import ADDRESS_COLUMN
from orders_pipeline.settlement.payments.plan import PayableOrder, plan_payments
from orders_pipeline.system.composition import System

NO_BATCH = "preview"
PLANNED_COLUMNS = (
    "import_row_number",
    "customer_code",
    "amount",
    "payment_method",
    "notify_channel",
    "is_nobodys",
    "personal",
)


@dataclass
class _DryRun:
    """What has been found out so far, as far as the file was read."""

    staging: Staging | None = None
    result: Validated | None = None
    planned: tuple[int, int] = (0, 0)  # payments and notifications
    warnings: list[Rejection] = field(default_factory=list)
    refusal: FileRejected | None = None

    @property
    def headers(self) -> Mapping[str, Sequence[str]]:
        """Return the headers that the file has for each column."""
        return {} if self.staging is None else self.staging.layout["headers"]


def preview(system: System, path: Path, client_code: str, *, again: bool, errors: Path | None = None) -> dict[str, Any]:
    """Return what `import --dry-run --json` shows, and write to `errors` the errors.csv that importing would make.

    Raises FileRejected where importing does, for a file that would not even become a batch.
    """
    with scratch_files() as folder:
        arrival = arrive(system, path, client_code, folder / ORIGINAL)
        found = preview_file(system, arrival, path.name, client_code, folder, again=again, errors=errors)
    del found["headers"], found["not_closed"]
    return found


def preview_file(
    system: System,
    arrival: Arrival,
    name: str,
    client_code: str,
    folder: Scratch,
    *,
    again: bool,
    errors: Path | None = None,
) -> dict[str, Any]:
    """Do what `preview` does with a file that has arrived in a folder.

    `headers` has the file's own of each column, and `not_closed` the skipped rows that close none.
    """
    again = again or arrival.profile.same_bytes == "take"
    with system.database.begin() as transaction:
        batches.next_repeat(transaction, client_code, arrival.sha256, again=again)
    dry_run = _DryRun()
    file = UnregisteredFile(NO_BATCH, client_code, composed(name), arrival.sha256)
    try:
        _try(system, arrival, file, folder, dry_run)
    except FileRejected as refusal:
        dry_run.refusal = refusal
    rejections = _rejections(dry_run, folder)
    if errors is not None:
        write_errors(errors, rejections, None if dry_run.result is None else folder / STAGED, dry_run.headers)
    answer = _answer(dry_run, client_code, name, rejections, arrival.profile.approved_up_to)
    seconds = answer["notifications"]["planned"] / system.settings.notification_rate_per_s
    answer["notifications"]["seconds"] = round(seconds, 1)
    return answer


def _try(system: System, arrival: Arrival, file: UnregisteredFile, folder: Scratch, dry_run: _DryRun) -> None:
    """Stage, validate and plan; raise FileRejected where the file would be rejected."""
    profile, manifest = arrival.profile, arrival.manifest
    limits = limits_of(system.settings, profile)
    dry_run.staging = staging = stage_checked(system.database, limits, profile, file, manifest, folder / ORIGINAL, folder)
    position = declarations.position_of(profile, file.csv_source)
    with system.database.begin() as transaction:
        gap = declarations.sequence_gap(transaction, file.client_code, position)
    dry_run.warnings = [*staging.file.warnings, *gap]
    file = replace(file, encoding=staging.file.encoding, corrects=staging.corrects)
    dry_run.result = validate_file(system, profile, file, folder / STAGED, folder / ACCEPTED, folder / REJECTIONS)
    dry_run.warnings += counted_warnings(dry_run.result)
    declarations.check_validated(profile, manifest, dry_run.result)
    dry_run.planned = _plan(system.cipher, profile, folder / ACCEPTED)


def _rejections(dry_run: _DryRun, folder: Scratch) -> list[Rejection]:
    """Return all that is wrong, the file first, as `errors` of a batch lists it."""
    rejections = list(dry_run.warnings)
    if dry_run.refusal is not None:
        rejections.append(refusal_of_file(dry_run.refusal))
    if dry_run.result is not None:
        found = pq.read_table(folder / REJECTIONS).to_pylist()
        found.sort(key=lambda each: each["import_row_number"])  # which rows of one order are not by themselves
        rejections += [Rejection(**each | {"detail": json.loads(each["detail"] or "{}")}) for each in found]
    return rejections


def _answer(
    dry_run: _DryRun, client_code: str, name: str, rejections: Sequence[Rejection], approved_up_to: int | None
) -> dict[str, Any]:
    staged = None if dry_run.staging is None else dry_run.staging.file
    refusal, result = dry_run.refusal, Validated() if dry_run.refusal or dry_run.result is None else dry_run.result
    skipped = 0 if staged is None else staged.rows_skipped + result.rows_same
    read = None if staged is None else staged.rows_total - staged.rows_blank - staged.rows_skipped
    rejected = result.rows_rejected if result is dry_run.result else read
    codes = Counter[str]() if dry_run.result is None else dry_run.result.rejections
    payments, notifications = dry_run.planned
    is_correction = dry_run.staging is not None and dry_run.staging.corrects is not None
    answer: dict[str, Any] = {
        "dry_run": True,
        "status": _status(refusal, result, approved_up_to, skipped, is_correction=is_correction),
        "status_code": None if refusal is None else refusal.code,
        "client_code": client_code,
        "csv_source": composed(name),
        "encoding": None if staged is None else encoding_shown(name, staged.encoding),
        "rows": {
            "total": None if staged is None else staged.rows_total,
            "accepted": None if staged is None else result.rows_accepted,
            "rejected": rejected,
            "blank": None if staged is None else staged.rows_blank,
            "skipped": skipped,
        },
        "orders": {"planned": result.rows_accepted - result.rows_continuing},
        "amount_jpy": {"accepted": result.amount_accepted},
        "payments": {"planned": payments},
        "notifications": {"planned": notifications},
        "not_closed": result.not_closed,
        "headers": {column: list(names) for column, names in dry_run.headers.items()},
        "rejections": ({} if refusal is None else {refusal.code: 1})
        | dict(sorted(codes.items(), key=lambda each: (-each[1], each[0]))),
        "errors": [listed(each, dry_run.headers) for each in rejections],
    }
    if refusal is not None:
        sentence = message(refusal.code, "en", refusal.detail)
        answer["error"] = {"code": refusal.code, "message": sentence, "detail": refusal.detail}
    return answer


def _status(
    refusal: FileRejected | None, result: Validated, approved_up_to: int | None, skipped: int, *, is_correction: bool
) -> str:
    """Return the state that the batch would come to without a person."""
    rows = result.rows_accepted, result.rows_rejected, skipped
    if refusal is not None or batches.takes_nothing(*rows, is_correction=is_correction):
        return "rejected"
    if approved_up_to is not None and result.amount_accepted > approved_up_to:
        return batches.AWAITING_APPROVAL
    return "completed_with_errors" if result.rows_rejected else "completed"


def _plan(cipher: Cipher, profile: Profile, accepted: Path) -> tuple[int, int]:
    """Return how many payments and notifications accepted rows would make."""
    orders: list[PayableOrder] = []
    notified: set[tuple[object, ...]] = set()
    with pq.ParquetFile(accepted) as file:
        for chunk in file.iter_batches(columns=[*PLANNED_COLUMNS]):
            for row in chunk.to_pylist():
                number, channel = row["import_row_number"], row["notify_channel"]
                opened = personal_data.decrypt(cipher, NO_BATCH, number, row["personal"])
                card = opened["payment_token"] if row["payment_method"] == "card_on_file" else ""
                customer, nobodys = row["customer_code"], row["is_nobodys"]
                orders.append(PayableOrder(number, customer, row["payment_method"], row["amount"], card, nobodys))
                if channel != "none":
                    alone = number if profile.notifications == "per_order" or nobodys else None
                    notified.add((customer, channel, opened[ADDRESS_COLUMN[channel]], alone))
    return len(plan_payments(orders, profile.payments)), len(notified)

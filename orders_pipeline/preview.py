"""The dry run: what importing a file would do, found out without changing anything.

The same staging, validation and planning as the real run, over temporary files; nothing is registered, kept or sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from orders_pipeline import control, intake, personal
from orders_pipeline.artifacts import ACCEPTED, ORIGINAL, REJECTIONS, STAGED
from orders_pipeline.clients import Profile
from orders_pipeline.file_names import composed
from orders_pipeline.notifications import ADDRESS_COLUMN
from orders_pipeline.payments.plan import PayableOrder, plan_payments
from orders_pipeline.rejections import FileRejected
from orders_pipeline.scratch import scratch_files
from orders_pipeline.system import System

NO_BATCH = "preview"


@dataclass(frozen=True)
class _Previewed:
    batch_id: str
    client_code: str
    encoding: str


def preview(system: System, path: Path, client_code: str, *, again: bool) -> dict[str, Any]:
    """Return what `import --dry-run --json` shows: rows, rejections, payments, yen, notifications and their seconds."""
    profile = system.clients.profile(client_code)
    with scratch_files() as folder:
        copy = folder / ORIGINAL
        manifest = control.manifest_beside(path)
        sha256, _ = intake.copy_unchanging(path, copy, intake.limits_of(system.limits, profile).max_bytes)
        _refuse_duplicate(system, client_code, sha256, again=again or profile.same_bytes == "take")
        if manifest is not None:
            manifest.check_bytes(sha256)
        staged = intake.stage_file(system.limits, profile, copy, path.name, folder)
        if manifest is not None:
            manifest.check_rows(staged.rows_total - staged.rows_blank)
        batch = _Previewed(NO_BATCH, client_code, staged.encoding)
        accepted, rejections = folder / ACCEPTED, folder / REJECTIONS
        result = intake.validate_file(system, profile, batch, folder / STAGED, accepted, rejections)
        control.check_validated(profile, manifest, result)
        payments, notifications = _plan(system, profile, accepted)
    return {
        "dry_run": True,
        "client_code": client_code,
        "csv_source": composed(path.name),
        "encoding": staged.encoding,
        "rows": {
            "total": staged.rows_total,
            "accepted": result.rows_accepted,
            "rejected": result.rows_rejected,
            "blank": staged.rows_blank,
        },
        "amount_jpy": {"accepted": result.amount_accepted},
        "payments": {"planned": payments},
        "notifications": {
            "planned": notifications,
            "seconds": round(notifications / system.settings.notification_rate_per_s, 1),
        },
        "rejections": dict(result.rejections),
    }


def _refuse_duplicate(system: System, client_code: str, sha256: str, *, again: bool) -> None:
    with system.database.begin() as transaction:
        earlier = transaction.row("batch_with_same_bytes", client_code=client_code, source_sha256=sha256)
    if earlier is not None and earlier.counts and not again:
        raise FileRejected("F_DUPLICATE_FILE", {"batch_id": earlier.batch_id})


def _plan(system: System, profile: Profile, accepted: Path) -> tuple[int, int]:
    orders: list[PayableOrder] = []
    told: set[tuple[object, ...]] = set()
    with pq.ParquetFile(accepted) as file:
        for chunk in file.iter_batches():
            for row in chunk.to_pylist():
                number, channel = row["import_row_number"], row["notify_channel"]
                opened = personal.reveal(system.cipher, NO_BATCH, number, row["personal"])
                card = opened["payment_token"] if row["payment_method"] == "card_on_file" else ""
                customer, nobodys = row["customer_code"], row["is_nobodys"]
                orders.append(PayableOrder(number, customer, row["payment_method"], row["amount"], card, nobodys))
                if channel != "none":
                    alone = number if profile.notifications == "per_order" or nobodys else None
                    told.add((customer, channel, opened[ADDRESS_COLUMN[channel]], alone))
    return len(plan_payments(orders, profile.payments)), len(told)

"""What has become of a case's file, read back from the database and the reports, and compared with what must become of it.

The same for both doors: the use cases in process, and the command.
"""

from __future__ import annotations

import csv
import dataclasses
import filecmp
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orders_pipeline.batches.artifacts import ORIGINAL, STAGED, artifact
from orders_pipeline.clients.profiles import read_clients
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import message
from orders_pipeline.security import personal_data
from orders_pipeline.system.composition import System
from orders_pipeline_tests.inputs.case import BEFORE, Case
from orders_pipeline_tests.support.databases import kept_connection
from orders_pipeline_tests.support.installation import Installation

ERROR_COLUMNS = ["row", "line", "column", "header", "code", "message_ja", "message", "value"]
IN_CLEAR = [column.name for column in ORDERS.stored_columns]
BATCH = "SELECT status_detail, cells_normalised FROM batches WHERE batch_id = %s"
FOUND = """SELECT import_row_number, line, column_name, code, detail FROM rejections WHERE batch_id = %s
    ORDER BY import_row_number NULLS FIRST, rejection_id"""
ORDERS_OF_BATCH = f"""SELECT import_row_number, personal, {", ".join(IN_CLEAR)} FROM orders WHERE batch_id = %s
    ORDER BY import_row_number""".encode()


@dataclass(frozen=True)
class Outcome:
    """What the database and the reports say of one batch; `found` are row, line, column, code and parameters."""

    summary: dict[str, Any]
    detail: dict[str, str]
    normalised: dict[str, int]
    orders: dict[int, dict[str, object]]
    found: list[tuple[int | None, int | None, str | None, str, dict[str, str]]]
    errors: list[list[str]]
    rejected: bytes | None


def write(case: Case, folder: Path) -> Path:
    """Write a case's file, and what stands beside it, and return the file's path."""
    path = folder / case.file_name
    path.write_bytes(case.content)
    for name, data in case.beside.items():
        (folder / name).write_bytes(data)
    return path


def clients_file(case: Case, folder: Path) -> Path | None:
    """Write the profile of a case's client and return the file's path, or None where it has the default one."""
    if not case.profile:
        return None
    path = folder / "clients.toml"
    path.write_text("".join([f"[{case.client}]\n", *(f'{name} = "{value}"\n' for name, value in case.profile.items())]))
    return path


def system_for(case: Case, system: System, folder: Path) -> System:
    """Return the system as the case has it set up."""
    settings = system.settings.model_copy(update=case.settings)
    return dataclasses.replace(system, settings=settings, clients=read_clients(clients_file(case, folder)))


def observe(installation: Installation, batch_id: str) -> Outcome:
    """Read what has become of a batch."""
    with kept_connection(installation.system.database.url) as connection:
        detail, normalised = connection.execute(BATCH, [batch_id]).fetchone() or ({}, {})
        found = connection.execute(FOUND, [batch_id]).fetchall()
        orders = connection.execute(ORDERS_OF_BATCH, [batch_id]).fetchall()
    errors = (installation.report(batch_id, "errors") or b"").decode("utf-8-sig")
    return Outcome(
        summary=installation.summary(batch_id),
        detail=detail,
        normalised=normalised,
        orders={number: _stored(installation, batch_id, number, sealed, values) for number, sealed, *values in orders},
        found=[(row, line, column, code, parameters) for row, line, column, code, parameters in found],
        errors=list(csv.reader(io.StringIO(errors, newline=""), strict=True)),
        rejected=installation.report(batch_id, "rejected"),
    )


def check(case: Case, installation: Installation, sent: Path, batch_id: str, status: str, before: str = "") -> Outcome:
    """Assert that the batch of a case's file has come to what it must.

    `status` is that of a batch with accepted rows, `before` the batch of the file sent before.
    """
    seen = observe(installation, batch_id)
    if case.file_code:
        _check_file_given_back(case, seen)
    else:
        _check_rows(case, seen, status, before)
    _check_reports(case, seen, batch_id)
    _check_nothing_personal(case, seen)
    with installation.system.storage.local(artifact(batch_id, ORIGINAL)) as original:
        assert filecmp.cmp(original, sent, shallow=False)
    if case.file_code == "F_NOT_CSV":
        assert installation.system.storage.head(artifact(batch_id, STAGED)) is None
    return seen


def _stored(
    installation: Installation, batch_id: str, number: int, sealed: bytes, values: Sequence[object]
) -> dict[str, object]:
    clear = {name: value for name, value in zip(IN_CLEAR, values, strict=True) if value is not None}
    return clear | personal_data.decrypt(installation.system.cipher, batch_id, number, sealed)


def _check_file_given_back(case: Case, seen: Outcome) -> None:
    assert (seen.summary["status"], seen.summary["status_code"]) == ("rejected", case.file_code)
    assert seen.orders == {}
    ((row, line, column, code, detail),) = seen.found
    assert (row, column, code) == (None, None, case.file_code)
    assert str(line or "") == case.file_detail.get("line", str(line or ""))
    assert detail == seen.detail
    assert _part(detail, case.file_detail) == case.file_detail
    assert seen.summary["rejections"] == {case.file_code: 1}
    assert seen.summary["rows"]["accepted"] in (None, 0)


def _check_rows(case: Case, seen: Outcome, status: str, before: str) -> None:
    rows = seen.summary["rows"]
    assert rows["total"] == rows["accepted"] + rows["rejected"] + rows["blank"]
    assert rows == {
        "total": len(case.accepted) + len(case.back) + case.blank,
        "accepted": len(case.accepted),
        "rejected": len(case.back),
        "blank": case.blank,
        "skipped": 0,
    }
    wanted = [(back.row, back.line, finding.column or None, finding.code) for back in case.back for finding in back.findings]
    of_rows = [each for each in seen.found if each[0] is not None]
    assert [each[:4] for each in of_rows] == wanted
    for (*_, detail), finding in zip(of_rows, (one for back in case.back for one in back.findings), strict=True):
        assert _part(detail, finding.detail) == {
            name: value.replace(BEFORE, before) for name, value in finding.detail.items()
        }
    assert tuple(each[3] for each in seen.found if each[0] is None) == case.warnings
    assert seen.orders == case.accepted
    assert seen.summary["encoding"] == case.encoding
    assert seen.summary["status"] == (status if case.accepted else "rejected")
    assert seen.summary["amount_jpy"]["accepted"] == sum(int(str(each["amount"])) for each in case.accepted.values())
    if not case.back:
        assert seen.normalised == {name: count for name, count in case.normalised.items() if count}


def _check_reports(case: Case, seen: Outcome, batch_id: str) -> None:
    assert seen.rejected == case.rejected_csv(batch_id)
    assert seen.errors[0] == ERROR_COLUMNS
    headers = case.layout.headers if case.layout is not None else {}
    shown = [finding.shown for back in case.back for finding in back.findings]
    shown = [""] * (len(seen.found) - len(shown)) + shown
    assert seen.errors[1:] == [
        [
            str(row or ""),
            str(line or ""),
            column or "",
            headers.get(column or "", ""),
            code,
            message(code, "ja", detail),
            message(code, "en", detail),
            value,
        ]
        for (row, line, column, code, detail), value in zip(seen.found, shown, strict=True)
    ]


def _check_nothing_personal(case: Case, seen: Outcome) -> None:
    said = json.dumps([seen.summary, seen.detail, seen.normalised, seen.found, seen.errors], ensure_ascii=False)
    for value in case.personal:
        assert value not in said
        assert json.dumps(value)[1:-1] not in said


def _part(detail: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    return {name: detail.get(name, "") for name in wanted}

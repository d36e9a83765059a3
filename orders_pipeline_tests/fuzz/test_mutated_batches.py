"""Broken order files through the database: orders and reports are what was judged, and what goes back can come again."""

from __future__ import annotations

import csv
import dataclasses
import io
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders_pipeline.batches import batches
from orders_pipeline.intake import file_import, steps
from orders_pipeline.intake.csv_file import read_records
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.reports import errors_csv, finishing, report_files, summaries
from orders_pipeline.system.composition import System
from orders_pipeline_tests.fuzz.examples import examples
from orders_pipeline_tests.fuzz.mutations import CODECS, damaged
from orders_pipeline_tests.fuzz.reading import LIMITS, Refused, Staged, staged
from orders_pipeline_tests.fuzz.sheets import sheets
from orders_pipeline_tests.support.databases import kept_connection
from orders_pipeline_tests.support.factories import TODAY

OURS = ["_batch", "_row", "_line", "_codes"]
STEPS = (steps.stage_batch, steps.validate_batch, steps.load_batch)


@pytest.fixture
def harness(system: System, monkeypatch: pytest.MonkeyPatch) -> System:
    """A system on the day the samples were made for."""
    monkeypatch.setattr(batches, "today", lambda: TODAY)
    settings = system.settings.model_copy(update=dataclasses.asdict(LIMITS))
    return dataclasses.replace(system, settings=settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder to stage files in."""
    made = tmp_path / "files"
    made.mkdir()
    return made


def load(system: System, folder: Path, data: bytes) -> str:
    """Import a file as a new client's, up to its reports, and return its batch."""
    path = folder.parent / f"{uuid.uuid4().hex}.csv"
    path.write_bytes(data)
    batch_id = file_import.import_file(system, path, path.stem, again=False)
    path.unlink()
    for step in STEPS:
        step(system, batch_id)
    finishing.finish_batch(system.storage, system.database, batch_id)
    return batch_id


def take(system: System, folder: Path, data: bytes) -> None:
    """Import a file as a new client's, and assert that database and reports say what the file alone does."""
    if len(data) > LIMITS.max_bytes:
        with pytest.raises(FileRejected, match="F_TOO_LARGE"):
            load(system, folder, data)
        return
    batch_id = load(system, folder, data)
    summary = summaries.summarise(system, batch_id)
    found = staged(folder, data)
    rejected = check_orders(system, summary)
    check_errors(system, summary)
    back = report(system, batch_id, "rejected")
    assert (back is not None) == bool(rejected)
    if isinstance(found, Refused):
        assert (summary["status"], summary["status_code"]) == ("rejected", found.code)
        return
    assert summary["rows"]["total"] == found.file.rows_total
    if back is not None:
        sent = [row for row in found.table.to_pylist() if row["import_row_number"] in rejected]
        records = list(read_records(folder / "orders.csv", [(row["offset"], row["length"]) for row in sent]))
        check_given_back(folder, sent, records, back)


def report(system: System, batch_id: str, name: str) -> bytes | None:
    with report_files.report(system.storage, system.database, batch_id, name) as path:
        return None if path is None else path.read_bytes()


def rows_of(system: System, statement: str, batch_id: str) -> list[tuple[Any, ...]]:
    with kept_connection(system.database.url) as connection:
        return connection.execute(statement.encode(), [batch_id]).fetchall()


def check_orders(system: System, summary: dict[str, Any]) -> set[int]:
    """Assert that every row is an order, blank or rejected, and return the numbers of the rejected ones."""
    orders = rows_of(system, "SELECT import_row_number, amount FROM orders WHERE batch_id = %s", summary["batch_id"])
    codes = rows_of(system, "SELECT import_row_number, code FROM rejections WHERE batch_id = %s", summary["batch_id"])
    rejected = {number for number, code in codes if code.startswith("R_")}
    rows = {name: count or 0 for name, count in summary["rows"].items()}  # nothing is counted of a refused file
    assert rows["total"] == rows["accepted"] + rows["rejected"] + rows["blank"]
    assert len(orders) == rows["accepted"] == sum(summary["orders"].values())
    assert sum(amount for _, amount in orders) == (summary["amount_jpy"]["accepted"] or 0)
    assert len(rejected) == rows["rejected"]
    assert rejected.isdisjoint(number for number, _ in orders)
    return rejected


def check_errors(system: System, summary: dict[str, Any]) -> None:
    """Assert that errors.csv has a line for each rejection, and nothing that a spreadsheet would calculate."""
    text = (report(system, summary["batch_id"], "errors") or b"").decode("utf-8-sig")
    header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert tuple(header) == errors_csv.ERROR_COLUMNS
    said = list(errors_csv.errors_of(system.database, summary["batch_id"]))
    assert [line[4] for line in lines] == [one["code"] for one in said]
    assert not any(cell.startswith(errors_csv.FORMULA_STARTS) for line in lines for cell in line)
    assert set(summary["rejections"]) == {one["code"] for one in said if not one["code"].startswith("W_")}


def check_given_back(folder: Path, sent: list[dict[str, Any]], records: list[bytes], back: bytes) -> None:
    """Assert that rejected.csv holds the rejected rows, and would be read again as they were."""
    again = staged(folder, back)
    right = [place for place, row in enumerate(sent) if row["shape_ok"]]
    if isinstance(again, Refused):  # all rows have cells too many in the same way
        assert again.code == "F_COLUMNS", again
        assert not right
        return
    assert list(again.file.header[-4:]) == OURS
    rows = again.table.to_pylist()
    assert again.file.rows_total == len(rows)
    assert [row["corrects_row"] for row in rows] == [row["import_row_number"] for row in sent]
    given = read_records(folder / "orders.csv", [(row["offset"], row["length"]) for row in rows])
    assert all(one.startswith(record) for one, record in zip(given, records, strict=True))
    names = ("shape_ok", *ORDERS.column_names)
    assert [[rows[at][name] for name in names] for at in right] == [[sent[at][name] for name in names] for at in right]


HEADER = ",".join(ORDERS.required_columns)
BAD_ROW = "A-1,C-1,見本商店,千円,invoice"


@pytest.mark.parametrize(("header", "row"), [("", ","), (",", ""), (",,", ",")])
def test_input_021_a_row_that_ends_in_other_empty_cells_than_the_header_comes_back_below_its_headings(
    harness: System, folder: Path, header: str, row: str
) -> None:
    data = f"{HEADER}{header}\r\n{BAD_ROW}{row}\r\n".encode()
    found = staged(folder, data)
    assert isinstance(found, Staged)
    sent = found.table.to_pylist()
    assert [each["shape_ok"] for each in sent] == [True]
    back = report(harness, load(harness, folder, data), "rejected")
    assert back is not None
    check_given_back(folder, sent, [(BAD_ROW + row).encode()], back)


@pytest.mark.soak
@pytest.mark.parametrize("codec", CODECS)
@examples(100, shrink=False)
@given(data=st.data())
def test_a_damaged_sample_is_loaded_and_rejected_row_by_row(harness, folder, codec, data):
    take(harness, folder, data.draw(damaged(codec)).data)


@pytest.mark.soak
@examples(200, shrink=False)
@given(sheet=sheets())
def test_a_well_built_file_is_loaded_and_rejected_row_by_row(harness, folder, sheet):
    take(harness, folder, sheet.data)

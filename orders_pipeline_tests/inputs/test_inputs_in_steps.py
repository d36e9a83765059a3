"""Inputs that take more than one file or step (43, 95, 96, 100), files of any lines, and that no number is left out."""

from __future__ import annotations

import re
import shutil
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders_pipeline.batches import batches
from orders_pipeline.intake.landing import arrivals
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline_tests.inputs.case import Finding
from orders_pipeline_tests.inputs.catalogue import CASES
from orders_pipeline_tests.inputs.outcome import check, observe
from orders_pipeline_tests.inputs.sheet import Sheet, stored
from orders_pipeline_tests.inputs.use_cases import UNPAID, finish, take
from orders_pipeline_tests.support.factories import TODAY
from orders_pipeline_tests.support.installation import Installation
from orders_pipeline_tests.support.soak import first_of

pytestmark = pytest.mark.usefixtures("hasty_landing")

NUMBERS = range(1, 101)
LOOKS = 3  # at the landing, until a file is known to be whole
GIB = 1 << 30


@pytest.fixture(autouse=True)
def _on_the_day_of_the_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "today", lambda: TODAY)


def land(installation: Installation, client: str, data: bytes, sparse_to: int = 0) -> str:
    """Put a file into the landing, in place of one that is there, and return the batch it becomes."""
    path = Path(installation.system.settings.landing_location) / client / "orders.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if sparse_to:
        with path.open("r+b") as file:
            file.truncate(sparse_to)
    for _ in range(LOOKS):
        installation.rows(
            "UPDATE landing_files SET first_seen_at = first_seen_at - interval '1 hour' WHERE batch_id IS NULL"
        )
        if registered := arrivals.register_arrivals(installation.system.database, installation.system.landing):
            return registered[0]
    raise AssertionError("the landing does not see the file")


def test_input_043_a_file_too_large_is_refused_before_it_is_read(installation: Installation, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    with path.open("wb") as file:
        file.truncate(64 * GIB)  # without content: to read it would take minutes
    with pytest.raises(FileRejected) as caught:
        take(installation.system, path, "input-043-import")
    assert caught.value.code == "F_TOO_LARGE"
    batch_id = finish(installation.system, land(installation, "input-043-landing", b"", sparse_to=64 * GIB))
    assert installation.summary(batch_id)["status_code"] == "F_TOO_LARGE"


def four_orders(codec: str, *, bom: bool = False) -> Sheet:
    sheet = Sheet(codec=codec, bom=bom).take({"note": "一\r\n二"})
    sheet.reject(Finding("amount", "R_AMOUNT_FORMAT", "TWO"), cells={"amount": "TWO", "note": "三\n四", "email": ""})
    sheet.reject(Finding("amount", "R_AMOUNT_FORMAT", "'=3"), cells={"amount": "=3", "customer_name": "髙橋①"})
    return sheet.take()


@pytest.mark.parametrize(
    ("codec", "bom"), first_of([("utf-8", False), ("cp932", False), ("utf-16-le", True), ("utf-8", True)], 2)
)
def test_input_095_rejected_rows_that_are_corrected_are_accepted_and_our_columns_ignored(
    installation: Installation, codec: str, bom: bool, tmp_path: Path
) -> None:
    sheet, path = four_orders(codec, bom=bom), tmp_path / "orders.csv"
    first = sheet.case(95, f"{codec} {bom}")
    path.write_bytes(first.content)
    batch_id = take(installation.system, path, first.client)
    given_back = check(first, installation, path, batch_id, UNPAID).rejected or b""

    two, three = first.back
    corrected = given_back.replace("TWO".encode(codec), "2000".encode(codec))
    second = replace(
        first,
        encoding="utf-8-sig" if codec == "utf-8" else first.encoding,
        accepted={1: stored(sheet.order({"client_order_ref": "A-2", "amount": "2000", "note": "三\n四", "email": ""}))},
        back=(replace(three, row=2, line=4),),
    )
    path.write_bytes(corrected)
    assert two.record.replace("TWO".encode(codec), "2000".encode(codec)) in corrected
    correction = take(installation.system, path, first.client)
    check(second, installation, path, correction, UNPAID)
    assert installation.summary(correction)["bulk_import_group"] == batch_id


def test_input_095_rejected_rows_that_come_back_as_they_were_are_rejected_as_they_were(
    installation: Installation, tmp_path: Path
) -> None:
    sheet, path = four_orders("utf-8"), tmp_path / "orders.csv"
    case = sheet.case(95, "not corrected")
    path.write_bytes(case.content)
    given_back = observe(installation, take(installation.system, path, case.client)).rejected or b""
    path.write_bytes(given_back)
    two, three = case.back
    again = replace(
        case, encoding="utf-8-sig", accepted={}, back=(replace(two, row=1, line=2), replace(three, row=2, line=4))
    )
    check(again, installation, path, take(installation.system, path, case.client), UNPAID)


def test_input_095_the_report_for_people_is_no_upload(installation: Installation, tmp_path: Path) -> None:
    path, case = tmp_path / "orders.csv", four_orders("utf-8").case(95, "errors.csv")
    path.write_bytes(case.content)
    errors = installation.report(take(installation.system, path, case.client), "errors") or b""
    path.write_bytes(errors)
    assert installation.summary(take(installation.system, path, case.client))["status_code"] == "F_HEADER_MISSING"


def test_input_096_the_same_bytes_are_no_second_batch(installation: Installation, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(Sheet().take().data)
    batch_id = take(installation.system, path, "input-096-bytes")
    with pytest.raises(FileRejected) as caught:
        take(installation.system, path, "input-096-bytes")
    assert (caught.value.code, caught.value.detail) == ("F_DUPLICATE_FILE", {"batch_id": batch_id})


@pytest.mark.parametrize("change", ["longer", "other"])
def test_input_100_a_file_that_changes_while_it_is_copied_is_refused_and_then_taken(
    installation: Installation, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, client = tmp_path / "orders.csv", f"input-100-{change}"
    one, two = Sheet().take(), Sheet().take({"amount": "2000"})
    path.write_bytes(one.data)
    copy = shutil.copyfile

    def copy_and_change(source: Path, target: Path) -> Path:
        copied = copy(source, target)
        source.write_bytes(two.data if change == "other" else two.take().data)
        return copied

    with monkeypatch.context() as changing:
        changing.setattr(shutil, "copyfile", copy_and_change)
        with pytest.raises(FileRejected) as caught:
            take(installation.system, path, client)
    assert caught.value.code == "F_CHANGED"
    assert installation.rows("SELECT batch_id FROM batches WHERE client_code = %s", client) == []
    check(two.case(100, change), installation, path, take(installation.system, path, client), UNPAID)


def test_input_100_a_landed_file_that_is_replaced_is_refused_and_starts_again(
    installation: Installation, tmp_path: Path
) -> None:
    one, two = Sheet().take(), Sheet().take({"amount": "2000"}).take()
    first = land(installation, "input-100-landing", one.data)
    second = land(installation, "input-100-landing", two.data)
    assert installation.summary(finish(installation.system, first))["status_code"] == "F_CHANGED"
    path = tmp_path / "orders.csv"
    path.write_bytes(two.data)
    check(two.case(100, "replaced"), installation, path, finish(installation.system, second), UNPAID)


NO_NUMBER = Finding("amount", "R_AMOUNT_FORMAT", "TWO")
LINE_ENDS = st.sampled_from(["\r", "\n", "\r\n"])
NOTES = st.lists(st.sampled_from(["あ", ",", '"', "\r", "\n", "\r\n", " "]), max_size=6).map("".join)
RECORDS = st.lists(st.tuples(st.sampled_from(["good", "bad", "blank", "commas"]), NOTES, LINE_ENDS), max_size=12)
CODECS = st.sampled_from([("utf-8", False), ("utf-8", True), ("cp932", False), ("utf-16-le", True), ("utf-16-be", True)])


def any_sheet(records: list[tuple[str, str, str]], line_ending: str, codec: str, bom: bool) -> Sheet:
    sheet = Sheet(codec=codec, bom=bom, line_ending=line_ending)
    for kind, note, end in records:
        if kind == "good":
            sheet.take({"note": note}, end=end)
        elif kind == "bad":
            sheet.reject(NO_NUMBER, cells={"amount": "TWO", "note": note}, end=end)
        elif kind == "commas":
            sheet.skip("," * (len(sheet.names) - 1), end=end)
        else:  # a CR before and an LF behind nothing are one line end
            sheet.skip(end="\r" if sheet.text.endswith("\r") else end)
    return sheet.take(end="")


@given(RECORDS, LINE_ENDS, CODECS)
@settings(max_examples=10, deadline=None)
def test_every_row_of_any_lines_is_accounted_for_under_its_number_and_line(
    installation: Installation, records: list[tuple[str, str, str]], line_ending: str, codec: tuple[str, bool]
) -> None:
    sheet, client = any_sheet(records, line_ending, *codec), f"any-lines-{uuid.uuid4().hex[:16]}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "orders.csv"
        path.write_bytes(sheet.data)
        check(sheet.case(12, client), installation, path, take(installation.system, path, client), UNPAID)


def test_every_number_of_the_table_has_its_case() -> None:
    tests = re.findall(r"def test_input_(\d+)_", Path(__file__).read_text("utf-8"))
    assert {case.number for case in CASES} | set(map(int, tests)) == set(NUMBERS)


def test_every_case_has_a_name_and_a_client_of_its_own() -> None:
    assert len({case.test_name for case in CASES}) == len({case.client for case in CASES}) == len(CASES)

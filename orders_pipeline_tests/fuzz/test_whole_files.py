"""Well-built order files: every record keeps its number, line and bytes, and is accepted, rejected or blank, once."""

from __future__ import annotations

import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders_pipeline.intake.csv_file import read_records
from orders_pipeline.records.orders import ORDERS
from orders_pipeline_tests.fuzz.examples import examples
from orders_pipeline_tests.fuzz.reading import Judged, Staged, check_judged, check_staged, judged, staged
from orders_pipeline_tests.fuzz.sheets import CODECS, Known, Sheet, sheets

ways = st.tuples(st.sampled_from([None, 256, 1024, 4096]), st.booleans())


def read(folder, sheet: Sheet, block_bytes: int | None, may_be_even: bool) -> None:
    """Read a well-built file and assert that what becomes of it is what its records say."""
    found = staged(folder, sheet.data, block_bytes=block_bytes, may_be_even=may_be_even)
    known = sheet.known()
    if known is None:
        assert not isinstance(found, Staged)
        assert found.code == "F_COLUMNS"
        return
    assert isinstance(found, Staged), found
    check_staged(folder, found)
    check_places(folder, sheet, known, found)
    verdict = judged(folder, found.file.encoding)
    check_judged(found, verdict)
    check_verdict(known, verdict)


def check_places(folder, sheet: Sheet, known: list[Known], found: Staged) -> None:
    codec, mark = CODECS[sheet.codec]
    file, table = found.file, found.table
    assert (file.encoding, file.has_bom) == ("utf-8-sig" if sheet.codec == "utf-8-sig" else codec, bool(mark))
    assert (file.rows_total, file.rows_blank) == (len(sheet.records), sheet.blank)
    unknown = [each.detail["count"] for each in file.warnings if each.code == "W_UNKNOWN_COLUMN"]
    assert (file.line_ending, unknown) == (sheet.line_ending, ["1"])
    assert file.header == (*(cell.written for cell in sheet.header.values()), *[""] * sheet.unnamed)
    places = [(each["import_row_number"], each["line"], each["offset"], each["shape_ok"]) for each in table.to_pylist()]
    assert places == [(each.number, each.line, each.offset, each.order is not None) for each in known]
    spans = zip(table.column("offset").to_pylist(), table.column("length").to_pylist(), strict=True)
    assert list(read_records(folder / "orders.csv", spans)) == [each.record for each in known]
    for name in ORDERS.column_names:
        cells = [
            None if row.order is None else row.order.cells[name].written if name in sheet.header else "" for row in known
        ]
        assert table.column(name).to_pylist() == cells, name


def check_verdict(known: list[Known], verdict: Judged) -> None:
    given_back = [
        (each["import_row_number"], each["line"], each["column"], each["code"]) for each in verdict.rejections.to_pylist()
    ]
    assert given_back == [(row.number, row.line, *finding) for row in known for finding in row.findings]
    good = [row for row in known if not row.findings]
    accepted = verdict.accepted
    assert accepted.column("import_row_number").to_pylist() == [row.number for row in good]
    assert verdict.sealed.index.tolist() == [row.number for row in good]
    for name in ORDERS.column_names:
        default = "none" if name == "notify_channel" else ""
        meanings = [row.order.cells[name].meaning if name in row.order.cells else default for row in good]
        if name in accepted.column_names:
            assert pc.fill_null(accepted.column(name).cast("string"), "").to_pylist() == meanings, name
        elif good and name in ORDERS.personal_columns:
            assert verdict.sealed[name].tolist() == meanings, name


@examples(20)
@given(sheet=sheets(), way=ways)
def test_every_record_keeps_number_line_and_bytes_and_gets_what_its_cells_deserve(tmp_path, sheet, way):
    read(tmp_path, sheet, *way)


@pytest.mark.soak
@examples(1000)
@given(sheet=sheets(), way=ways)
def test_every_record_of_a_thousand_files_gets_what_its_cells_deserve(tmp_path, sheet, way):
    read(tmp_path, sheet, *way)

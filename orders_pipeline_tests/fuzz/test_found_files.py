"""Small files cut out of generated ones that were once read wrongly."""

from __future__ import annotations

import pytest

from orders_pipeline.records.orders import ORDERS
from orders_pipeline_tests.fuzz.reading import Refused, Staged, staged

HEADER = ",".join(ORDERS.required_columns) + "\r\n"
ROW = "A-{},C-1,見本商店,1000,invoice"


@pytest.mark.parametrize("bad", [b"\xff", b"\0"])
@pytest.mark.parametrize("before", ["", "\r\n", ',,\r\n\r\n"",\r\n'])
def test_input_006_and_010_a_bad_byte_is_named_by_its_row_though_blank_lines_stand_before_the_header(tmp_path, before, bad):
    text = before + HEADER + ROW.format(1) + "\r\n"
    refused = staged(tmp_path, text.encode() + b"A-2" + bad + b"\r\n")
    assert isinstance(refused, Refused)
    line = str(before.count("\r\n") + 3)
    assert refused.detail == {"offset": str(len(text.encode()) + 3), "row": "2", "line": line}


@pytest.mark.parametrize("before", ["", "\r\n", ",,\r\n\r\n"])
def test_input_010_a_control_character_in_the_header_is_in_no_row(tmp_path, before):
    refused = staged(tmp_path, (before + "\0" + HEADER + ROW.format(1)).encode())
    assert isinstance(refused, Refused)
    assert refused.detail == {"offset": str(len(before)), "line": str(before.count("\r\n") + 1)}


@pytest.mark.parametrize("first", ["", ROW.format(1) + "\r\n"])
@pytest.mark.parametrize("place", [0, 1])
def test_input_045_a_field_too_long_for_the_reader_refuses_the_file_behind_its_first_block_too(tmp_path, first, place):
    rows = [ROW.format(2), ROW.format(3)]
    rows[place] += "x" * 132_000
    data = (HEADER + first + "\r\n".join(rows)).encode()
    refused = staged(tmp_path, data, block_bytes=len((HEADER + first).encode()))
    assert isinstance(refused, Refused)
    assert refused.code == "F_FIELD_TOO_LONG"
    row = bool(first) + place + 1
    assert refused.detail == {"row": str(row), "line": str(row + 1)}


@pytest.mark.parametrize("odd", ["A-9", ROW.format(9) + ",,,x", ROW.format(9) + ",x,"])
@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize(("header", "row"), [("", ","), (",", ""), (",,,,", ",")])
def test_input_021_a_row_of_another_shape_is_rejected_alone_wherever_it_stands(tmp_path, header, row, place, odd):
    rows = [ROW.format(number) + row for number in range(3)]
    rows.insert(place, odd)
    found = staged(tmp_path, (HEADER.strip() + header + "\r\n" + "\r\n".join(rows)).encode())
    assert isinstance(found, Staged)
    assert found.table.column("shape_ok").to_pylist() == [at != place for at in range(4)]

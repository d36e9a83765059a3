"""Which files are no workbook to open: other kinds, damaged ones, and those made to make a reader grow or fall."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable

import pytest

from orders_pipeline.records.rejections import FileRejected
from orders_pipeline_tests.support.workbooks import MAIN, SHEET, TYPES, Harness


@pytest.fixture
def harness(tmp_path):
    return Harness(tmp_path)


@pytest.mark.parametrize(
    ("data", "kind", "hint"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000), "Excel (.xls)", "excel_old"),
        (b"\xd0\xcf\x11\xe0" + bytes(70_000) + "EncryptedPackage".encode("utf-16-le"), "encrypted Excel", "excel_protected"),
        (b"client_order_ref,amount\r\nA-1,1000\r\n", "text", "excel_old"),
        (b"\xef\xbb\xbf <html><table>", "HTML or XML", "excel_old"),
        (b"\x89PNG\r\n\x1a\n\0\0", "damaged Excel", "excel_damaged"),
        (b"PK\x03\x04" + bytes(1000), "damaged Excel", "excel_damaged"),
        (b"PK", "damaged Excel", "excel_damaged"),
    ],
)
def test_input_041_what_is_no_package_is_refused_by_what_it_is(harness, data, kind, hint):
    harness.source.write_bytes(data)
    found = harness.refusal()
    assert (found.code, found.detail) == ("F_NOT_CSV", {"kind": kind, "hint": hint})


@pytest.mark.parametrize(
    ("parts", "kind", "hint"),
    [
        ({"xl/vbaProject.bin": b"x"}, "Excel with macros", "excel_macros"),
        ({"xl/macrosheets/sheet1.xml": b"<a/>"}, "Excel with macros", "excel_macros"),
        (
            {TYPES: lambda data: data.replace(b".sheet.main", b".sheet.macroEnabled.main")},
            "Excel with macros",
            "excel_macros",
        ),
        ({"xl/workbook.bin": b"x"}, "Excel (.xlsb)", "excel_old"),
        ({TYPES: None, "mimetype": b"x"}, "OpenDocument (.ods)", "excel_old"),
        ({TYPES: None}, "ZIP", "excel_old"),
        ({TYPES: b"<Types/>"}, "ZIP", "excel_old"),
        (
            {SHEET: b'<worksheet xmlns="http://purl.oclc.org/ooxml/spreadsheetml/main"/>'},
            "Strict Open XML Excel",
            "excel_damaged",
        ),
    ],
)
def test_input_041_a_package_that_is_no_plain_workbook_is_refused_by_what_it_is(harness, parts, kind, hint):
    harness.sheet["A1"] = "x"
    harness.repack(parts)
    found = harness.refusal()
    assert (found.code, found.detail) == ("F_NOT_CSV", {"kind": kind, "hint": hint})


ENTITIES = '<!DOCTYPE w [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
ROW = '<row r="{0}"><c r="{1}">{2}</c></row>'
DAMAGE = {
    "a part cut off": {SHEET: lambda data: data[:-20]},
    "a part missing": {SHEET: None},
    "the workbook missing": {"xl/workbook.xml": None},
    "the relations missing": {"xl/_rels/workbook.xml.rels": None},
    "a sheet that is something else": {SHEET: b"<a/>"},
    "a sheet that is no XML": {SHEET: b"\0binary"},
    "entities in a sheet": {SHEET: (ENTITIES + f"<worksheet {MAIN}/>").encode()},
    "entities in UTF-16": {
        SHEET: ('<?xml version="1.0" encoding="UTF-16"?>' + ENTITIES + f"<worksheet {MAIN}/>").encode("utf-16")
    },
    "entities in the workbook": {"xl/workbook.xml": lambda data: ENTITIES.encode() + data},
    "entities in the styles": {"xl/styles.xml": lambda data: ENTITIES.encode() + data},
    "an endless nest": {"xl/styles.xml": b"<a>" * 100_000},
    "an endless tag": {SHEET: b"<a " + b" ".join(b'b%d="c"' % number for number in range(200_000))},
    "styles of no workbook": {
        "xl/styles.xml": f'<styleSheet {MAIN}><cellXfs><xf numFmtId="x"/></cellXfs></styleSheet>'.encode()
    },
}
BAD_ROWS = {
    "no number": ROW.format(1, "A1", "<v>1,5</v>"),
    "an endless number": ROW.format(1, "A1", f"<v>{'9' * 5000}</v>"),
    "infinity": ROW.format(1, "A1", "<v>1E400</v>"),
    "a text that is not there": '<row r="1"><c r="A1" t="s"><v>7</v></c></row>',
    "a style that is not there": '<row r="1"><c r="A1" s="99"><v>7</v></c></row>',
    "a row beyond the last": ROW.format(1_048_577, "A1", "<v>1</v>"),
    "a row far beyond": ROW.format(10**15, "A1", "<v>1</v>"),
    "rows out of order": ROW.format(2, "A2", "<v>1</v>") + ROW.format(1, "A1", "<v>1</v>"),
    "a row in a row": '<row r="1"><c r="A1"><v>1</v></c><row r="2"/></row>',
    "no column": ROW.format(1, "ZZZZ1", "<v>1</v>"),
    "no row number": ROW.format("one", "A1", "<v>1</v>"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_part_gives_the_workbook_back(harness, damage):
    harness.sheet["A1"] = "x"
    harness.repack(DAMAGE[damage])
    assert harness.refusal().detail == {"kind": "damaged Excel", "hint": "excel_damaged"}


@pytest.mark.parametrize("damage", BAD_ROWS)
def test_a_damaged_sheet_gives_the_workbook_back(harness, damage):
    harness.sheet_of(BAD_ROWS[damage])
    assert harness.refusal().detail == {"kind": "damaged Excel", "hint": "excel_damaged"}


def test_a_workbook_damaged_anywhere_is_read_or_refused_and_nothing_else(harness):
    harness.sheet.append(["client_order_ref", "customer_name", "amount"])
    harness.sheet.append(["A-1", "山田", 1000])
    harness.book.save(harness.source)
    whole = harness.source.read_bytes()
    codes = set()
    for place in range(0, len(whole), len(whole) // 150):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]):
            harness.source.write_bytes(damaged)
            try:
                harness.write()
            except FileRejected as refusal:
                codes.add(refusal.code)
    assert {"F_NOT_CSV"} <= codes <= {"F_NOT_CSV", "F_EMPTY", "F_TOO_LARGE"}


def directory_entry(data: bytes, name: str) -> int:
    """Return where the central directory's entry of a part begins."""
    return data.index(b"PK\x01\x02", data.rindex(name.encode()) - 46)


def patched(data: bytes, offset: int, layout: str, value: int) -> bytes:
    return data[:offset] + struct.pack(layout, value) + data[offset + struct.calcsize(layout) :]


def test_encrypted_entries_are_refused(harness):
    harness.sheet["A1"] = "x"
    harness.repack({})
    data = harness.source.read_bytes()
    harness.source.write_bytes(patched(data, directory_entry(data, SHEET) + 8, "<H", 1))
    assert harness.refusal().detail == {"kind": "encrypted Excel", "hint": "excel_protected"}


@pytest.mark.parametrize("size", [0, 10, 1_000_000])
def test_a_part_that_lies_about_its_size_is_refused(harness, size):
    harness.sheet["A1"] = "x"
    harness.repack({})
    data = harness.source.read_bytes()
    harness.source.write_bytes(patched(data, directory_entry(data, SHEET) + 24, "<I", size))
    assert harness.refusal().detail["kind"] == "damaged Excel"


def test_parts_that_lie_in_each_other_are_refused(harness):
    harness.sheet["A1"] = "x"
    harness.repack({"xl/a.xml": b"<a/>", "xl/b.xml": b"<a/>"})
    data = harness.source.read_bytes()
    one, other = directory_entry(data, "xl/a.xml"), directory_entry(data, "xl/b.xml")
    (offset,) = struct.unpack_from("<I", data, one + 42)
    harness.source.write_bytes(patched(data, other + 42, "<I", offset))
    assert harness.refusal().detail["kind"] == "damaged Excel"


def test_more_entries_than_a_workbook_has_are_refused(harness):
    harness.sheet["A1"] = "x"
    harness.repack({f"xl/media/{number}": b"" for number in range(1001)})
    assert harness.refusal().detail["kind"] == "damaged Excel"


def bomb(declared: int | None) -> Callable[[Harness], None]:
    """Return what packs 200 MB of zeros as a sheet, with another size declared if wanted."""

    def pack(harness: Harness) -> None:
        harness.repack({SHEET: bytes(200_000_000)})
        data = harness.source.read_bytes()
        if declared is not None:
            harness.source.write_bytes(patched(data, directory_entry(data, SHEET) + 24, "<I", declared))

    return pack


def blow_up_row(harness: Harness) -> None:
    harness.sheet_of('<row r="1">' + "<c/>" * 1_000_000 + "</row>")


def blow_up_styles(harness: Harness) -> None:
    harness.repack({"xl/styles.xml": f"<styleSheet {MAIN}><cellXfs>{'<xf/>' * 600_000}</cellXfs></styleSheet>".encode()})


def blow_up_workbook(harness: Harness) -> None:
    harness.repack({"xl/workbook.xml": f"<workbook {MAIN}><sheets>{'<sheet/>' * 1_600_000}</sheets></workbook>".encode()})


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (bomb(None), "F_TOO_LARGE"),
        (bomb(500_000), "F_NOT_CSV"),
        (blow_up_row, "F_TOO_LARGE"),
        (blow_up_styles, "F_TOO_LARGE"),
        (blow_up_workbook, "F_TOO_LARGE"),
    ],
)
def test_a_bomb_is_refused_before_it_grows(harness, make, code):
    make(harness)
    tracemalloc.start()
    try:
        assert harness.refusal().code == code
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_all_parts_together_have_one_bound(harness):
    harness.sheet["A1"] = "x"
    noise = "".join(f"<a>{number * 7919 % 10_007}</a>" for number in range(150_000))
    harness.repack({f"xl/p{part}.xml": f"<p>{noise}</p>".encode() for part in range(15)})
    assert harness.refusal().code == "F_TOO_LARGE"


def test_what_the_parts_inflate_to_is_bounded_by_what_a_file_may_have(harness):
    harness.sheet["A1"] = "x"
    harness.repack({"xl/media/1.bin": bytes(range(256)) * 8_000})
    found = harness.refusal(max_bytes=100_000)
    assert (found.code, found.detail) == ("F_TOO_LARGE", {"limit": str(800_000 + (1 << 20))})

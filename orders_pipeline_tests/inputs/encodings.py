"""Inputs 1 to 13: nothing to read, encodings, control characters, line ends."""

from __future__ import annotations

import codecs
from typing import Any

from orders_pipeline_tests.inputs.case import Case, Finding
from orders_pipeline_tests.inputs.sheet import ORDER, Sheet, accepts, gives_back, record, refused

NO_NUMBER = Finding("amount", "R_AMOUNT_FORMAT", "TWO")
BAD = {"amount": "TWO"}
HEADER = record(list(ORDER)) + "\r\n"


def text(codec: str = "utf-8", name: str = "見本商店", rows: int = 3, **how: Any) -> bytes:
    """Return a good file, in which the name stands in every row."""
    sheet = Sheet(codec=codec, **how)
    for _ in range(rows):
        sheet.take({"customer_name": name})
    return sheet.data


def mixed_sheet(name: str, **how: Any) -> Sheet:
    """Write a file with rows that go back between rows that are accepted."""
    sheet = Sheet(**how)
    sheet.take({"customer_name": name, "note": "一行目\n二行目"})
    sheet.reject(NO_NUMBER, cells=BAD | {"customer_name": name, "note": '引用符"と,\n改行'}, line=4)
    return sheet.take({"customer_name": name}, line=6)


def at(data: bytes, offset: int) -> dict[str, str]:
    """Return where a byte of a UTF-8 file stands, as messages say it; every line is a record here."""
    line = 1 + data[:offset].count(b"\n")
    return {"offset": str(offset), "line": str(line)} | ({"row": str(line - 1)} if line > 1 else {})


def broken(number: int, name: str, data: bytes, offset: int, code: str = "F_ENCODING") -> Case:
    return refused(number, name, data, code, **at(data, offset))


def damaged(name: str, cut: bytes, into: bytes) -> Case:
    """The second row's name with one byte of it lost or changed."""
    good = text(rows=3)
    place = good.index(b"A-2")
    data = good[:place] + good[place:].replace(cut, into, 1)
    return broken(7, name, data, place + good[place:].index(cut))


def damage_that_cp932_reads() -> Case:
    """One byte of UTF-8 is lost, and all of the file could be CP932 of something else."""
    good, name = text(name="東京都"), "東京都".encode()
    data = good.replace(name, name[1:], 1)
    data.decode("cp932")
    return broken(7, "a byte is lost and CP932 could read the rest", data, first_invalid(data))


def first_invalid(data: bytes) -> int:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    raise AssertionError("this is UTF-8")


def joined_encodings(name: str, more_rows: int) -> Case:
    """Two orders in UTF-8 and then some in CP932."""
    good = text(rows=2)
    orders = [record(list(Sheet().order({"client_order_ref": f"B-{row}"}).values())) for row in range(more_rows)]
    tail = "".join(order + "\r\n" for order in orders).encode("cp932")
    return broken(6, name, good + tail, first_invalid(good + tail))


NOTHING = [
    refused(1, "0 bytes", b"", "F_EMPTY"),
    refused(1, "a byte order mark only", codecs.BOM_UTF8, "F_EMPTY"),
    refused(1, "a byte order mark of UTF-16 only", codecs.BOM_UTF16_LE, "F_EMPTY"),
    refused(1, "blank lines only", "\r\n\r\n  \r\n\r\n", "F_EMPTY"),
    refused(2, "a header only", HEADER, "F_NO_ROWS"),
    refused(2, "a header without a line end", HEADER.strip(), "F_NO_ROWS"),
    refused(2, "a header and blank lines", HEADER + "\r\n\r\n", "F_NO_ROWS"),
]

ENCODINGS = [
    mixed_sheet("髙橋①商店", codec=codec, bom=bom).case(3, f"{codec} {'with' if bom else 'without'} BOM")
    for codec, bom in [
        ("utf-8", False),
        ("utf-8", True),
        ("cp932", False),
        ("utf-16-le", True),
        ("utf-16-be", True),
        ("utf-16-le", False),
        ("utf-16-be", False),
    ]
]

OTHER_ENCODINGS = [
    broken(4, "EUC-JP", text("euc_jp"), len(HEADER) + len("A-1,2026-06-15,C-001,")),
    mixed_sheet("見本商店", codec="euc_jp").case(4, "EUC-JP that was agreed on", profile={"encoding": "euc_jp"}),
    broken(5, "ISO-2022-JP", text("iso2022_jp"), text("iso2022_jp").index(b"\x1b"), "F_CONTROL_CHARS"),
    broken(5, "an escape sequence", text(name="\x1b[31m見本"), text(name="\x1b[31m見本").index(b"\x1b"), "F_CONTROL_CHARS"),
    joined_encodings("UTF-8 and then CP932", 1),
    joined_encodings("UTF-8 and then much more CP932", 30),
    damage_that_cp932_reads(),
    damaged("a byte is lost", "見".encode(), "見".encode()[:2]),
    damaged("a byte is changed", "見".encode(), "見".encode()[:1] + b"\x41" + "見".encode()[2:]),
    damaged("the first byte is lost", "見".encode(), "見".encode()[1:]),
    *(
        refused(8, f"{codec} {'with' if bom else 'without'} BOM", bom + text(codec), "F_CONTROL_CHARS")
        for codec, bom in [
            ("utf-32-le", codecs.BOM_UTF32_LE),
            ("utf-32-be", codecs.BOM_UTF32_BE),
            ("utf-32-le", b""),
            ("utf-32-be", b""),
        ]
    ),
    accepts(8, "HZ in a name", {"customer_name": "商店".encode("hz").decode("ascii")}),
    accepts(8, "UTF-7 in a name", {"customer_name": "見本".encode("utf-7").decode("ascii")}),
    gives_back(8, "HZ in a reference", {"client_order_ref": "商店".encode("hz").decode("ascii")}, "R_REF_FORMAT"),
    gives_back(
        8,
        "UTF-7 in a reference",
        {"client_order_ref": (utf_7 := "見本".encode("utf-7").decode("ascii"))},
        "R_REF_FORMAT",
        shown="'" + utf_7,
    ),
    refused(8, "UTF-7 in a header", "+bOhlh3Vqdfc-,amount\r\n1,2\r\n", "F_HEADER_MISSING"),
]

MARKS = [
    refused(9, "two byte order marks", codecs.BOM_UTF8 + text(bom=True), "F_HEADER_MISSING", columns="client_order_ref"),
    gives_back(9, "a byte order mark inside", {"customer_name": "見本\ufeff商店"}, "R_CHARS"),
    broken(10, "NUL in a field", text(name="見\0本"), text(name="見\0本").index(b"\0"), "F_CONTROL_CHARS"),
    broken(10, "NUL padding at the end", text() + b"\0" * 512, len(text()), "F_CONTROL_CHARS"),
    mixed_sheet("見本商店").case(11, "Ctrl-Z as the last byte", data=mixed_sheet("見本商店").data + b"\x1a"),
    Sheet().take().take(end="").case(11, "Ctrl-Z behind the last cell", data=Sheet().take().take(end="").data + b"\x1a"),
    Sheet(codec="utf-16-le", bom=True)
    .take()
    .case(11, "Ctrl-Z in UTF-16", data=Sheet(codec="utf-16-le", bom=True).take().data + b"\x1a\0"),
    broken(11, "Ctrl-Z and a line end", text() + b"\x1a\r\n", len(text()), "F_CONTROL_CHARS"),
    broken(11, "Ctrl-Z inside", text(name="見\x1a本"), text(name="見\x1a本").index(b"\x1a"), "F_CONTROL_CHARS"),
]


def line_ends(name: str, line_ending: str) -> Case:
    sheet = Sheet(line_ending=line_ending).take({"note": f"一行目{line_ending}二行目"}, line=2)
    sheet.reject(NO_NUMBER, cells=BAD | {"note": f"三{line_ending}{line_ending}四"}, line=4)
    sheet.skip().take(line=8).reject(NO_NUMBER, cells=BAD, line=9)
    return sheet.case(12, name)


def mixed_line_ends() -> Case:
    """CR then CRLF is a blank record between them; a CR and an LF of two records would be one line end."""
    sheet = Sheet().take(line=2, end="\n").reject(NO_NUMBER, cells=BAD, line=3, end="\r")
    sheet.take({"note": "一\r二\n三\r\n四"}, line=4, end="\r").skip()
    sheet.reject(NO_NUMBER, cells=BAD | {"note": "一\r二"}, line=9, end="\n").take(line=11, end="\r")
    return sheet.case(12, "mixed")


LINE_ENDS = [
    line_ends("CR only", "\r"),
    line_ends("LF", "\n"),
    line_ends("CRLF", "\r\n"),
    mixed_line_ends(),
    *(
        gives_back(13, f"U+{ord(sign):04X} in a name", {"customer_name": f"見本{sign}商店"}, "R_CHARS")
        for sign in "\u2028\u2029\u0085\x0b\x0c"
    ),
    broken(13, "U+001C in a name", text(name="見\x1c本"), text(name="見\x1c本").index(b"\x1c"), "F_CONTROL_CHARS"),
]

CASES = (*NOTHING, *ENCODINGS, *OTHER_ENCODINGS, *MARKS, *LINE_ENDS)

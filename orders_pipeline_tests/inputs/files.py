"""Inputs 36 to 47: delimiters, ends cut off, control totals, files that are no CSV, sizes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zipfile
from dataclasses import replace
from functools import partial
from typing import Any

from orders_pipeline.records.orders import ORDERS
from orders_pipeline_tests.inputs.case import Case, Finding
from orders_pipeline_tests.inputs.sheet import ORDER, Sheet, accepts, cut, gives_back, refused

MIB = 1 << 20
NO_NUMBER = Finding("amount", "R_AMOUNT_FORMAT", "TWO")
BAD = {"amount": "TWO"}
REQUIRED = ("client_order_ref", "customer_code", "customer_name", "amount", "payment_method")


def sheet(rows: int = 2, **how: Any) -> Sheet:
    made = Sheet(**how)
    for _ in range(rows):
        made.take({"note": "急ぎ"})
    return made


def delimited(number: int, name: str, delimiter: str, hint: str) -> Case:
    return sheet(delimiter=delimiter).refused(number, name, "F_DELIMITER", hint=hint)


def tabs_agreed_on() -> Case:
    made = Sheet(delimiter="\t").take({"note": "1,2"}).reject(NO_NUMBER, cells=BAD | {"note": "一\t二"})
    return made.take().case(37, "tabs that were agreed on", profile={"delimiter": "\\t"})


DELIMITERS = [
    delimited(36, "semicolons", ";", "semicolon"),
    sheet(delimiter=";", names=REQUIRED[:2]).refused(36, "semicolons in a short header", "F_DELIMITER", hint="semicolon"),
    # one known name alone stands in any line and proves no delimiter
    refused(36, "semicolons between unknown names", "order_no;customer;amount\r\n1;2;3\r\n", "F_HEADER_MISSING"),
    delimited(37, "tabs", "\t", "tab"),
    tabs_agreed_on(),
    delimited(38, "full-width commas", "，", "full_width_comma"),
]

CUT = Sheet(names=(*REQUIRED, "order_date"))
ENDS = [
    Sheet().take().reject(NO_NUMBER, cells=BAD).take(end="").case(39, "no final newline"),
    Sheet().take().reject(NO_NUMBER, cells=BAD, end="").case(39, "no final newline behind a row that goes back"),
    Sheet().take().give_back_record("A-2,2026-06-15,C-0", Finding("", "R_COLUMNS"), end="").case(39, "cut off in a row"),
    CUT.take()
    .reject(Finding("order_date", "R_DATE_FORMAT", "2026-0"), cells={"order_date": "2026-0"}, end="")
    .case(39, "cut off in a date"),
    refused(39, "cut off in quotes", sheet().data + 'A-3,2026-06-15,C-001,"見本'.encode(), "F_QUOTE", row="3", line="4"),
    refused(39, "cut off in a character", sheet().data + b"A-3,2026-06-15,C-001,\xe8\xa6", "F_ENCODING", row="3", line="4"),
]

TOTALS = {"row_count": 2, "amount_total": 2000}


def totalled(name: str, **totals: object) -> Case:
    """Two orders of 1,000 yen and a blank row, with a manifest that agrees with them but for `totals`."""
    made = sheet().skip()
    right = TOTALS | {"sha256": hashlib.sha256(made.data).hexdigest()}
    beside = {"orders.manifest.json": json.dumps(right | totals).encode()}
    if not totals:
        return made.case(40, name, beside=beside)
    ((field, given),) = totals.items()
    found = {} if field == "sha256" else {"expected": str(given), "found": str(right[field])}
    return Case(40, name, made.data, file_code="F_CONTROL_TOTAL", file_detail={"field": field} | found, beside=beside)


CONTROL = [
    totalled("control totals that agree"),
    totalled("another number of rows", row_count=3),
    totalled("another sum", amount_total=2001),
    totalled("another hash", sha256="0" * 64),
]


def zipped(content: bytes, name: str = "orders.csv") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return target.getvalue()


def no_csv(number: int, name: str, data: bytes | partial[bytes], kind: str) -> Case:
    return refused(number, name, data, "F_NOT_CSV", kind=kind)


def bomb(packed: str) -> bytes:
    """200 MB of one order's bytes in about 200 kB."""
    content = sheet().data * (200 * MIB // len(sheet().data))
    return zipped(content) if packed == "zip" else gzip.compress(content, 1)


NOT_CSV = [
    no_csv(41, "a workbook", zipped(b"<worksheet/>", "xl/worksheets/sheet1.xml"), "ZIP or Excel (.xlsx)"),
    no_csv(41, "an old workbook", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504), "Excel (.xls)"),
    no_csv(41, "a ZIP archive", zipped(sheet().data), "ZIP or Excel (.xlsx)"),
    no_csv(41, "an empty ZIP archive", b"PK\x05\x06" + bytes(18), "ZIP"),
    no_csv(41, "gzip", gzip.compress(sheet().data), "gzip"),
    no_csv(41, "PDF", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "PDF"),
    no_csv(41, "HTML", b"<!DOCTYPE html>\r\n<html><table><tr><td>A-1</td></tr></table></html>\r\n", "HTML or XML"),
    no_csv(41, "HTML behind a byte order mark and a space", b"\xef\xbb\xbf\r\n <html></html>\r\n", "HTML or XML"),
    no_csv(42, "a zip bomb", partial(bomb, "zip"), "ZIP or Excel (.xlsx)"),
    no_csv(42, "a gzip bomb", partial(bomb, "gzip"), "gzip"),
]


def filled_to(size: int) -> bytes:
    data = sheet().data
    return data + b"\r\n" * ((size - len(data)) // 2 + 1)


def orders(rows: int) -> bytes:
    made = Sheet()
    row = made.order({"client_order_ref": "REF"})
    template = ",".join(row.values())
    return made.data + "".join(template.replace("REF", f"A-{number}") + "\r\n" for number in range(1, rows + 1)).encode()


def long_header(columns: int) -> bytes:
    more = [f"c{number}" for number in range(columns - len(ORDER))]
    wide = Sheet(*more)
    return wide.take().data


SIZES = [
    Case(
        43,
        "one byte over 50 MiB",
        partial(filled_to, 50 * MIB),
        "F_TOO_LARGE",
        at_the_door=True,
        settings={"max_bytes": 50 * MIB},
    ),
    Case(43, "one byte over the default limit", partial(filled_to, 20 * MIB), "F_TOO_LARGE", at_the_door=True),
    refused(44, "10001 rows", partial(orders, 10_001), "F_TOO_MANY_ROWS", limit="10000"),
    replace(sheet(3).refused(44, "a row more than the setting", "F_TOO_MANY_ROWS", limit="2"), settings={"max_rows": 2}),
    sheet(2).skip().skip().case(44, "as many rows as the setting", settings={"max_rows": 2}),
]

ITEM = {"item_code": "ITEM-1", "quantity": "2", "unit_price": "500"}


def too_long() -> Case:
    """A row for each column, with one character too many; digits that are too many say so themselves: 77."""
    made = Sheet(*(name for name in ORDERS.column_names if name not in ORDER))
    for column in ORDERS.columns:
        hidden = column.name in ORDERS.personal_columns
        cell = ("8" if hidden else "x" if column.kind == "number" else "9") * (column.max_length + 1)
        item = ITEM if column.name in ITEM else {}
        finding = Finding(column.name, "R_TOO_LONG", "" if hidden else cut(cell), {"limit": str(column.max_length)})
        made.reject(finding, cells=item | {column.name: cell}).take()
    return made.case(46, "one character too many in each column")


LONG = [
    Sheet()
    .take({"note": "一\r\n二"})
    .take({"note": "あ" * 65_537})
    .refused(45, "a field over 64 KiB", "F_FIELD_TOO_LONG", row="2", line="4"),
    refused(45, "a lost quote", sheet().data + b'A-3,"' + b"x,y\r\n" * 40_000, "F_FIELD_TOO_LONG", row="3", line="4"),
    gives_back(46, "a field of exactly 64 KiB", {"note": "あ" * 65_536}, "R_TOO_LONG", detail={"limit": "500"}),
    too_long(),
    accepts(
        46,
        "texts as long as they may be",
        {name: "あ" * ORDERS.by_name[name].max_length for name in ("note", "customer_name")},
    ),
    refused(47, "10000 columns", partial(long_header, 10_000), "F_COLUMNS"),
]

CASES = (*DELIMITERS, *ENDS, *CONTROL, *NOT_CSV, *SIZES, *LONG)

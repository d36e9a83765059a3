"""A harness to read workbooks at: makes them, also damaged and hostile ones, and shows the CSV files that come of them."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import openpyxl
import pytest

from orders_pipeline.intake.csv_file import Names
from orders_pipeline.intake.excel_file import OrderSheet, write_csv
from orders_pipeline.records.normalise import normalise_header
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import FileRejected, message

SHEET = "xl/worksheets/sheet1.xml"
TYPES = "[Content_Types].xml"
MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
MAX_BYTES = 20 << 20
ORDER_NAMES = Names(
    {normalise_header(name): column for name, column in ORDERS.header_names().items()}, ORDERS.required_columns
)
KINDS = {column.name: column.kind for column in ORDERS.columns}


class Harness:
    """Writes workbooks to a folder of its own, and reads the CSV files that come of them."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "orders.xlsx"
        self.target = folder / "orders.csv"
        self.book = openpyxl.Workbook()
        self.book.calculation.fullCalcOnLoad = False  # as Excel saves one
        self.sheet = self.book.active
        self.wanted = OrderSheet()
        self.hidden_rows = 0

    def looks_for_orders(self, sheet: str | None = None) -> None:
        """Read the sheet that holds the header of orders from now on, or the one of this name."""
        self.wanted = OrderSheet(ORDER_NAMES, KINDS, sheet)

    def write(self, *, max_bytes: int = MAX_BYTES, max_rows: int = 10_000) -> None:
        self.hidden_rows = write_csv(self.source, self.target, max_bytes=max_bytes, max_rows=max_rows, wanted=self.wanted)

    def rows(self) -> list[list[str]]:
        """Save the workbook and return its rows."""
        self.book.save(self.source)
        return self.written()

    def written(self) -> list[list[str]]:
        self.write()
        return list(csv.reader(io.StringIO(self.target.read_text("utf-8-sig"), newline=""), strict=True))

    def refusal(self, **limits: int) -> FileRejected:
        with pytest.raises(FileRejected) as caught:
            self.write(**limits)
        assert not self.target.exists()
        assert [path.name for path in self.source.parent.iterdir()] == ["orders.xlsx"]
        for language in ("en", "ja"):
            assert "{" not in message(caught.value.code, language, caught.value.detail)
        return caught.value

    def repack(self, changes: Mapping[str, bytes | Callable[[bytes], bytes] | None]) -> None:
        """Save the workbook with parts replaced, changed, added or left out."""
        plain = io.BytesIO()
        self.book.save(plain)
        left = dict(changes)
        with zipfile.ZipFile(plain) as before, zipfile.ZipFile(self.source, "w", zipfile.ZIP_DEFLATED) as after:
            for name in before.namelist():
                change = left.pop(name, lambda data: data)
                if change is not None:
                    after.writestr(name, change(before.read(name)) if callable(change) else change)
            for name, data in left.items():
                after.writestr(name, data)

    def sheet_of(self, rows: str) -> None:
        """Save a workbook whose sheet holds these rows of XML."""
        self.sheet["A1"] = "x"
        self.repack({SHEET: f"<worksheet {MAIN}><sheetData>{rows}</sheetData></worksheet>".encode()})

    def with_texts(self, texts: str, rows: str) -> None:
        """Save a workbook whose cells share these texts, as Excel writes it."""
        override = b'<Override PartName="/xl/sharedStrings.xml" ContentType="application/vnd.openxmlformats-officedocument'
        override += b'.spreadsheetml.sharedStrings+xml"/></Types>'
        self.repack(
            {
                SHEET: f"<worksheet {MAIN}><sheetData>{rows}</sheetData></worksheet>".encode(),
                "xl/sharedStrings.xml": f"<sst {MAIN}>{texts}</sst>".encode(),
                TYPES: lambda data: data.replace(b"</Types>", override),
            }
        )

"""An order file for a case, written record by record, that keeps account of what each record must come to.

Rows are valid orders unless a case says otherwise. Line numbers are counted in the text written, not taken from the
product; cases about lines give them as literals as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from orders_pipeline.records.orders import ORDERS
from orders_pipeline_tests.inputs.case import Back, Case, Finding, Layout

ORDER = {
    "client_order_ref": "",  # each row's own
    "order_date": "2026-06-15",
    "customer_code": "C-001",
    "customer_name": "見本商店",
    "email": "orders@example.com",
    "amount": "1000",
    "payment_method": "invoice",
    "note": "",
}
NUMBERS = ("amount", "quantity", "unit_price")
RECORDED = {"utf-8": ("utf-8", "utf-8-sig")}  # a codec's name in the batch, without and with a byte order mark
LINE_END = re.compile("\r\n|\r|\n")
SHOWN_CHARS = 100
NAMED = 6  # an ASCII value shorter than this may stand anywhere by chance

Cells = Mapping[str, str]


def record(cells: Sequence[str], delimiter: str = ",", *, quoted: bool = False) -> str:
    """Return cells as a CSV record, quoted where they must be or, on demand, all of them."""
    special = {delimiter, '"', "\r", "\n"}
    return delimiter.join(
        '"' + cell.replace('"', '""') + '"' if quoted or special.intersection(cell) else cell for cell in cells
    )


def stored(cells: Mapping[str, object]) -> dict[str, object]:
    """Return the columns of an accepted order as they are read back: without empty cells, with numbers and dates."""
    values = {name: value for name, value in cells.items() if value != "" and name != "currency"}
    for name in NUMBERS:
        if name in values:
            values[name] = int(str(values[name]))
    if "order_date" in values:
        values["order_date"] = date.fromisoformat(str(values["order_date"]))
    return {"notify_channel": "none"} | values


class Sheet:
    """A file in the making. `columns` are headers as sent, `names` the catalogue's columns they mean."""

    def __init__(
        self,
        *more: str,
        codec: str = "utf-8",
        bom: bool = False,
        line_ending: str = "\r\n",
        delimiter: str = ",",
        names: Sequence[str] | None = None,
        header: str | None = None,
    ) -> None:
        self.names = tuple(names) if names is not None else (*ORDER, *more)
        self.codec, self.line_ending, self.delimiter = codec, line_ending, delimiter
        self.header = record(self.names, delimiter) if header is None else header
        self.text = self.header + line_ending
        self.bom = "\ufeff".encode(codec) if bom else b""
        self.rows = self.blanks = 0
        self.accepted: dict[int, dict[str, object]] = {}
        self.changed: dict[str, int] = {}
        self.back: list[Back] = []
        self.personal: dict[str, None] = {}

    @property
    def line(self) -> int:
        """The physical line on which the next record begins."""
        return 1 + len(LINE_END.findall(self.text))

    @property
    def data(self) -> bytes:
        return self.bom + self.text.encode(self.codec)

    def order(self, cells: Cells | None = None) -> dict[str, str]:
        """Return a row's cells: an order that is right but for `cells`."""
        values = ORDER | {"client_order_ref": f"A-{self.rows + 1}"} | dict(cells or {})
        return {name: values.get(name, "") for name in self.names}

    def take(self, cells: Cells | None = None, becomes: Mapping[str, object] | None = None, **how: Any) -> Sheet:
        """Write an order that must be accepted; `becomes` are the cells that are stored otherwise than written."""
        written, changes = self.order(cells), dict(becomes or {})
        self._write(record(list(written.values()), self.delimiter, quoted=how.pop("quoted", False)), written, **how)
        for name, value in changes.items():
            self.changed[name] = self.changed.get(name, 0) + (str(value) != written[name])
        known = {name: value for name, value in (written | changes).items() if name in ORDERS.by_name}
        self.accepted[self.rows] = stored(known)
        return self

    def reject(self, *findings: Finding, cells: Cells | None = None, extra: Sequence[str] = (), **how: Any) -> Sheet:
        """Write an order that must be rejected for these findings, with `extra` cells at its end."""
        written = self.order(cells)
        return self.give_back_record(record([*written.values(), *extra], self.delimiter), *findings, cells=written, **how)

    def give_back_record(self, text: str, *findings: Finding, cells: Cells | None = None, **how: Any) -> Sheet:
        """Write a record as it is, which must be rejected for these findings."""
        line = self.line
        self._write(text, cells or {}, **how)
        self.back.append(Back(self.rows, line, text.encode(self.codec), findings))
        return self

    def skip(self, text: str = "", **how: Any) -> Sheet:
        """Write a blank record."""
        self._write(text, {}, **how)
        self.blanks += 1
        return self

    def case(self, number: int, name: str, **more: Any) -> Case:
        """Return the case of this file."""
        recorded = RECORDED.get(self.codec, (self.codec, self.codec))[bool(self.bom)]
        headers = dict(zip(self.names, self.header.split(self.delimiter), strict=True))
        layout = Layout(self.header.encode(self.codec), headers, self.codec, self.bom, self.delimiter, self.line_ending)
        outcome: dict[str, Any] = {
            "accepted": self.accepted,
            "back": tuple(self.back),
            "blank": self.blanks,
            "encoding": recorded,
        }
        given: dict[str, Any] = {"data": self.data, "layout": layout, "personal": tuple(self.personal)} | outcome
        return Case(number, name, **({"normalised": self.changed} | given | more))

    def refused(self, number: int, name: str, code: str, **detail: str) -> Case:
        """Return the case of this file as one that is rejected whole."""
        return Case(number, name, self.data, file_code=code, file_detail=detail, personal=tuple(self.personal))

    def _write(self, text: str, cells: Cells, *, line: int | None = None, end: str | None = None) -> None:
        assert line is None or line == self.line, f"the record begins on line {self.line}"
        self.rows += 1
        self.text += text + (self.line_ending if end is None else end)
        for name, value in cells.items():
            if name in ORDERS.personal_columns and (len(value) >= NAMED or not value.isascii()):
                self.personal[value] = None


def refused(number: int, name: str, data: bytes | str | Callable[[], bytes], code: str, **detail: str) -> Case:
    """Return the case of a file that is rejected whole."""
    given = data.encode() if isinstance(data, str) else data
    return Case(number, name, given, file_code=code, file_detail=detail, personal=("見本商店", "orders@example.com"))


def accepts(
    number: int,
    name: str,
    cells: Cells,
    becomes: Mapping[str, object] | None = None,
    *,
    codec: str = "utf-8",
    around: Cells | None = None,
    **more: Any,
) -> Case:
    """Return the case of three orders of which the second, on line 4, has these cells and is accepted.

    `around` are cells of the orders before and after it.
    """
    sheet, others = _sheet(cells, codec), dict(around or {})
    sheet.take({"note": "一行目\n二行目"} | others).take(cells, becomes, line=4).take(others)
    return sheet.case(number, name, **more)


def gives_back(
    number: int,
    name: str,
    cells: Cells,
    code: str,
    *,
    column: str | None = None,
    shown: str | None = None,
    detail: Mapping[str, str] | None = None,
    codec: str = "utf-8",
    **more: Any,
) -> Case:
    """Return the case of three orders of which the second, on line 4, goes back with one code for one column.

    That is the first of `cells`, and the value shown is the one sent, unless something else is said.
    """
    column = column or next(iter(cells))
    if shown is None:
        shown = "" if column in ORDERS.personal_columns else cut(cells[column])
    sheet = _sheet(cells, codec)
    sheet.take({"note": "一行目\n二行目"})
    sheet.reject(Finding(column, code, shown, detail or {}), cells=cells, line=4).take()
    return sheet.case(number, name, **more)


def refuses(number: int, name: str, cells: Cells, code: str, **detail: str) -> Case:
    """Return the case of three orders of which the second, on line 4, makes the whole file go back."""
    sheet = _sheet(cells, "utf-8").take({"note": "一行目\n二行目"})
    sheet.reject(cells=cells, line=4).take()
    return sheet.refused(number, name, code, **{"row": "2", "line": "4"} | detail)


def cut(value: str) -> str:
    """Return as much of a value as errors.csv shows."""
    return value if len(value) <= SHOWN_CHARS else value[:SHOWN_CHARS] + "…"


def _sheet(cells: Cells, codec: str) -> Sheet:
    return Sheet(*(name for name in cells if name not in ORDER), codec=codec)

"""Orders in JSON as a CSV file: a list of flat objects, in one document or one object a line.

A value is a string, a whole number or null; what else JSON knows has no one reading as a cell and is refused. What rows
mean is decided after the CSV file is staged, as for any other.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from orders_pipeline.clients.file_names import JSON_LINES
from orders_pipeline.records.rejections import FileRejected

LIST = "orders"  # of a document that is an object: its only member
_SPACE = re.compile(r"[ \t\r\n]*")
_WHOLE = re.compile(r"(?:-?[1-9][0-9]{0,30}|0)(?![0-9.eE])")
_read_string = json.JSONDecoder().raw_decode  # only ever of what begins with a quote

Order = Mapping[str, str]


def write_csv(source: Path, target: Path, name: str, *, max_rows: int, max_columns: int) -> None:
    """Write orders as strict CSV (UTF-8 with BOM, CRLF, mode 0600), or raise FileRejected.

    Record N below the header is the Nth order; the header has every key that an order has, as they come.
    """
    orders = read_orders(source, name, max_rows=max_rows, max_columns=max_columns)
    header = list(dict.fromkeys(key for order in orders for key in order))
    if len(header) > max_columns:
        raise FileRejected("F_JSON", {"hint": "json_keys"})
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8-sig", newline="") as file:
        os.fchmod(file.fileno(), 0o600)
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(header)
        writer.writerows([order.get(key, "") for key in header] for order in orders)


def read_orders(source: Path, name: str, *, max_rows: int, max_columns: int) -> list[Order]:
    """Return the orders of a file, which the client called `name`; raise FileRejected."""
    try:
        text = source.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FileRejected("F_JSON", {"hint": "not_json"}) from None
    reader = _Reader(text, max_columns)
    orders: list[Order] = []
    for order in reader.lines() if name.lower().endswith(JSON_LINES) else reader.document():
        if len(orders) == max_rows:
            raise FileRejected("F_TOO_MANY_ROWS", {"limit": str(max_rows)})
        orders.append(order)
        reader.row += 1
    if not any(orders):
        raise FileRejected("F_NO_ROWS" if text.strip() else "F_EMPTY")
    return orders


class _Reader:
    """Reads just as much of JSON as a list of orders is: nothing that is nested is ever built."""

    def __init__(self, text: str, max_columns: int) -> None:
        self._text = text
        self._at = 0
        self._max_columns = max_columns
        self.row = 1

    def document(self) -> Iterator[Order]:
        """Yield the orders of one document: a list, or an object whose only member it is."""
        if not self._text.strip():
            return
        is_object = self._takes("{")
        if is_object and not (self._next() == '"' and self._string() == LIST and self._takes(":")):
            raise self._refusal("json_list", in_row=False)
        if not self._takes("["):
            raise self._refusal("json_list", in_row=False)
        if not self._takes("]"):
            yield self._order()
            while self._takes(","):
                yield self._order()
            self._require("]")
        if is_object:
            self._require("}")
        if self._next():
            raise self._refusal("not_json")

    def lines(self) -> Iterator[Order]:
        """Yield the orders of a file that has one a line; blank lines are none."""
        while self._next():
            yield self._order()
            rest = self._text.find("\n", self._at)
            if self._text[self._at : None if rest < 0 else rest].strip(" \t\r"):
                raise self._refusal("not_json")

    def _order(self) -> Order:
        order: dict[str, str] = {}
        if not self._takes("{"):
            raise self._refusal("json_list")
        if self._takes("}"):
            return order
        while True:
            if self._next() != '"':
                raise self._refusal("not_json")
            key = self._string()
            self._require(":")
            if key in order:
                raise self._refusal("json_key_twice")
            order[key] = self._value()
            if len(order) > self._max_columns:
                raise self._refusal("json_keys")
            if not self._takes(","):
                self._require("}")
                return order

    def _value(self) -> str:
        if self._next() == '"':
            return self._string()
        if self._text.startswith("null", self._at):
            self._at += 4
            return ""
        whole = _WHOLE.match(self._text, self._at)
        if whole is None:
            raise self._refusal("json_value")
        self._at = whole.end()
        return whole[0]

    def _string(self) -> str:
        try:
            value, self._at = _read_string(self._text, self._at)
            str(value).encode()
        except ValueError:  # half of a character is one as well
            raise self._refusal("not_json") from None
        return str(value)

    def _next(self) -> str:
        """Return the next character that is no space; empty at the end."""
        space = _SPACE.match(self._text, self._at)
        self._at = self._at if space is None else space.end()
        return self._text[self._at : self._at + 1]

    def _takes(self, character: str) -> bool:
        if self._next() != character:
            return False
        self._at += 1
        return True

    def _require(self, character: str) -> None:
        if not self._takes(character):
            raise self._refusal("not_json")

    def _refusal(self, hint: str, *, in_row: bool = True) -> FileRejected:
        return FileRejected("F_JSON", ({"row": str(self.row)} if in_row else {}) | {"hint": hint})

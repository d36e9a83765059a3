"""The cells of any text that may be CSV, each with what is written around it: put together again they are the text.

Strict CSV is read in `intake/csv_file`. What cells mean, and become, is found out in `mask.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.intake.csv_file import Dialect
from orders_pipeline.intake.csv_file.header import Names
from orders_pipeline.records.normalise import normalise_header
from orders_pipeline.records.orders import ORDERS

_DELIMITERS = (",", "\t", ";", "|", "，")
_LONGEST_CELL = 131_072


@dataclass
class Cell:
    """A cell, whether it is in quotation marks, and what ends it."""

    value: str
    quoted: bool
    end: str  # the delimiter or line end behind it

    @property
    def written(self) -> str:
        """Return it as it stands in the text."""
        value = '"' + self.value.replace('"', '""') + '"' if self.quoted else self.value
        return value + self.end


def read_records(text: str, profile: Profile) -> tuple[list[list[Cell]], Names]:
    """Return the text's records by the delimiter its header has, and the names a header may hold."""
    headers = profile.header_names().items()
    known = {normalise_header(name): column for name, column in headers if column in ORDERS.by_name}
    names = Names(known, [column for column in profile.required_columns() if column in ORDERS.by_name])
    has_quotes = profile.quoting != "none"
    delimiters = dict.fromkeys((profile.delimiter, *_DELIMITERS))
    readings = (_records(text, Dialect(delimiter, has_quotes)) for delimiter in delimiters)
    first = None
    for records in readings:
        header = next((record for record in records if any(cell.value for cell in record)), [])
        if names.is_header([cell.value for cell in header]):
            return records, names
        first = first or records
    return first or [], names


def _records(text: str, dialect: Dialect) -> list[list[Cell]]:
    """Cut a text into its cells, all of it; what strict CSV would not take is a cell without quotes."""
    mark = re.escape(dialect.delimiter)
    quote = '"' if dialect.has_quotes else r"(?!)"
    pattern = re.compile(
        rf'(?:{quote}(?P<quoted>(?:[^"]|""){{0,{_LONGEST_CELL}}}+)"(?=[{mark}\r\n]|\Z)|(?P<plain>[^{mark}\r\n]*))'
        rf"(?P<end>{mark}|\r\n|\r|\n|\Z)"
    )
    records: list[list[Cell]] = [[]]
    for found in pattern.finditer(text):
        quoted = found["quoted"]
        cell = Cell(found["plain"] if quoted is None else quoted.replace('""', '"'), quoted is not None, found["end"])
        records[-1].append(cell)
        if cell.end != dialect.delimiter:
            records.append([])
    return records

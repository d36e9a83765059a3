"""errors.csv: what is wrong with a file and its rows, for people; and the same list as values.

Cells are shown as far as they are not personal, and so that a spreadsheet does not calculate them.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import Row

from orders_pipeline.batches import batches
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.scratch import Packed
from orders_pipeline.records.card_numbers import has_card_number
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import Rejection, message
from orders_pipeline.reports.rejected_rows import RejectedRow, rejected_rows

ERROR_COLUMNS = ("row", "line", "column", "header", "code", "message_ja", "message", "value")
SHOWN_CHARS = 100  # of a value in errors.csv
FORMULA_STARTS = tuple("=+-@|%\t\r\n＝＋－＠")


def errors_of(database: Database, batch_id: str) -> Iterator[dict[str, Any]]:
    """Yield a batch's rejections with their messages, without any value; raise UnknownBatch."""
    with database.begin() as transaction:
        batches.get(transaction, batch_id)
        for row in chain(
            transaction.stream("rejections", batch_id=batch_id), transaction.stream("orders_with_errors", batch_id=batch_id)
        ):
            yield {
                "row": row.import_row_number,
                "line": row.line,
                "column": row.column_name,
                "code": row.code,
                "message": message(row.code, "en", row.detail),
                "message_ja": message(row.code, "ja", row.detail),
            }


class ErrorsCsv:
    """Writes errors.csv; the mark at its beginning says to spreadsheets that it is UTF-8."""

    def __init__(self, headers: Mapping[str, Sequence[str]]) -> None:
        self.packed = Packed()
        self.packed.write(codecs.BOM_UTF8)
        self._headers = headers  # as the file has them, by column
        self._writer = csv.writer(self)
        self._writer.writerow(ERROR_COLUMNS)

    def add(self, rejections: Iterable[Rejection]) -> None:
        """Add rejections whose cells are not shown: of the file, or of rows that cannot be read any more."""
        self._writer.writerows(self._line(each, each.line, {}) for each in rejections)

    def add_row(self, row: RejectedRow) -> None:
        """Add all rejections of a row."""
        self._writer.writerows(self._line(each, row.line, row.cells) for each in row.rejections)

    def add_orders(self, orders: Iterable[Row[Any]]) -> None:
        """Add accepted orders that were not paid, or whose customers were not notified; the value is their reference."""
        for order in orders:
            ja, en = (message(order.code, language, order.detail) for language in ("ja", "en"))
            line = [order.import_row_number, "", "", "", order.code, ja, en, safe_cell(order.client_order_ref)]
            self._writer.writerow(line)

    def write(self, text: str) -> None:
        """Take text from the writer."""
        self.packed.write(text.encode())

    def _line(self, rejection: Rejection, line: int | None, cells: Mapping[str, str | None]) -> list[object]:
        return [
            rejection.import_row_number or "",
            line or "",
            rejection.column or "",
            safe_cell(" + ".join(self._headers.get(rejection.column or "", ()))),
            rejection.code,
            message(rejection.code, "ja", rejection.detail),
            message(rejection.code, "en", rejection.detail),
            _shown(rejection.column, cells),
        ]


def write_errors(
    target: Path, rejections: Sequence[Rejection], staged: Path | None, headers: Mapping[str, Sequence[str]]
) -> None:
    """Write the errors.csv of a file that is no batch; `staged` has its rows where they could be read."""
    errors = ErrorsCsv(headers)
    errors.add(each for each in rejections if each.import_row_number is None)
    if staged is not None:
        for row in rejected_rows(staged, (each for each in rejections if each.import_row_number is not None)):
            errors.add_row(row)
    with target.open("wb") as file:
        file.writelines(errors.packed.read())


def _shown(column: str | None, cells: Mapping[str, str | None]) -> str:
    """Return the cell a rejection is about, safe for a spreadsheet; nothing of a personal column, and no card number."""
    if column is None or column in ORDERS.personal_columns:
        return ""
    value = cells.get(column) or ""
    if has_card_number(value):
        return ""
    return safe_cell(value if len(value) <= SHOWN_CHARS else value[:SHOWN_CHARS] + "…")


def safe_cell(shown: str) -> str:
    """Return a cell that a spreadsheet shows and does not calculate."""
    return "'" + shown if shown.lstrip(" \u00a0\u3000").startswith(FORMULA_STARTS) else shown

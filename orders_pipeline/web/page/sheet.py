"""The sheet that people correct: the records of rejected.csv, in their client's own headers and encoding, read and written.

Nothing is shown or judged here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row

from orders_pipeline.batches.artifacts import artifact
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.storage import ObjectGone, Storage
from orders_pipeline.intake.csv_file import Dialect
from orders_pipeline.reports.rejected_csv import OUR_COLUMNS
from orders_pipeline.reports.report_files import REPORTS
from orders_pipeline.web.problems import Problem


@dataclass(frozen=True)
class Sheet:
    """The rejected records of a batch by row, under the client's own headers; `columns` has the cells of each of ours."""

    header: Sequence[str]
    records: Mapping[int, Sequence[str]]
    columns: Mapping[str, Sequence[int]]
    codec: str
    mark: str
    dialect: Dialect
    line_ending: str

    def is_even(self, row: int) -> bool:
        """Return whether a record has a cell for each header, so that it can be said which is which."""
        return len(self.records[row]) == len(self.header)


def read_sheet(storage: Storage, batch: Row[Any]) -> Sheet | None:
    """Return the records of rejected.csv, or None before it is written."""
    try:
        with storage.local(artifact(batch.batch_id, REPORTS["rejected"])) as path:
            content = path.read_bytes()
    except ObjectGone:
        return None
    layout = batch.source_layout
    codec = {"utf-8-sig": "utf-8"}.get(batch.encoding, batch.encoding)
    text = content.decode(codec, "surrogateescape" if codec == "utf-8" else "replace")
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    dialect = Dialect(layout["delimiter"], layout.get("has_quotes", True))
    try:
        records = list(dialect.reader(io.StringIO(text.removeprefix(mark), newline="")))
    except csv.Error:
        raise Problem("no-such-file") from None
    header = records[0][: -len(OUR_COLUMNS)]
    by_row = {int(record[-3]): record for record in records[1:] if len(record) > 3 and record[-3].isdecimal()}
    return Sheet(
        header,
        {row: record[: -len(OUR_COLUMNS)] for row, record in by_row.items()},
        layout["places"],
        codec,
        mark,
        dialect,
        layout["line_ending"],
    )


def as_text_of(sheet: Sheet, profile: Profile) -> Sheet:
    """Return rows of a workbook, or of JSON, as their client's text files are written."""
    encoding = profile.encoding or "utf-8"
    codec, mark = {"utf-8": ("utf-8", "\ufeff"), "utf-16": ("utf-16-le", "\ufeff")}.get(encoding, (encoding, ""))
    return replace(sheet, codec=codec, mark=mark, dialect=Dialect(profile.delimiter, profile.quoting != "none"))


def written(sheet: Sheet, batch_id: str, records: Mapping[int, Sequence[str]]) -> bytes:
    """Return records as a file, as their client writes one, that says which rows it corrects."""
    text = io.StringIO(newline="")
    writer = sheet.dialect.writer(text, sheet.line_ending)
    try:
        writer.writerow([*sheet.header, *OUR_COLUMNS])
        for row, record in records.items():
            writer.writerow([*record, batch_id, row, "", ""])
        return (sheet.mark + text.getvalue()).encode(sheet.codec, "surrogateescape" if sheet.codec == "utf-8" else "strict")
    except (UnicodeEncodeError, csv.Error):  # the client's files cannot have such a cell
        raise Problem("not-encodable") from None

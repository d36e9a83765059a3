"""rejected.csv: the rejected records byte for byte as they were sent, ready to be corrected and sent again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, BinaryIO

from sqlalchemy import Row

from orders_pipeline.infrastructure.scratch import Packed
from orders_pipeline.reports.rejected_rows import RejectedRow

OUR_COLUMNS = ("_batch", "_row", "_line", "_codes")
_BATCH_CELL = re.compile(r'\s*"?(?:[0-9]{8}-[0-9a-f]{12})?"?\s*')


class RejectedCsv:
    """Writes rejected.csv: the header and records as they were sent, with our columns at their end."""

    def __init__(self, batch: Row[Any], text: BinaryIO) -> None:
        self.packed = Packed()
        layout = batch.source_layout
        delimiter = layout["delimiter"]
        self._batch_id = batch.batch_id
        self._codec = {"utf-8-sig": "utf-8"}.get(batch.encoding, batch.encoding)
        self._delimiter = delimiter
        self._line_ending = layout["line_ending"]
        self._text = text
        header = self._read(layout["header_span"])
        # a correction that is corrected again has our columns already: they are replaced
        self._replace = header.endswith(self._encode(delimiter + delimiter.join(OUR_COLUMNS)))
        surplus = layout["surplus"]  # empty cells that rows have at their end and the header has not
        self._cells_replaced = len(OUR_COLUMNS) + surplus if self._replace else 0
        if self._replace:
            header = self._without_last(header, len(OUR_COLUMNS))
        else:  # our columns stand below their names
            header = header + self._encode(delimiter * surplus) if surplus >= 0 else self._without_last(header, -surplus)
        if self._codec.startswith("utf"):  # without it, a spreadsheet takes it for another encoding
            self.packed.write("\ufeff".encode(self._codec))
        self.packed.write(self._with_ours(header, OUR_COLUMNS))

    def add(self, row: RejectedRow) -> None:
        """Add a row's record."""
        record = self._read(row.span)
        if self._has_ours(record):
            record = self._without_last(record, self._cells_replaced)
        codes = " ".join(dict.fromkeys(each.code for each in row.rejections))
        self.packed.write(self._with_ours(record, (self._batch_id, str(row.number), str(row.line), codes)))

    def _read(self, span: Sequence[int]) -> bytes:
        self._text.seek(span[0])
        return self._text.read(span[1])

    def _has_ours(self, record: bytes) -> bool:
        """Return whether a record ends in our columns, as its header does: somebody may have added rows without them."""
        cells = record.decode(self._codec, "replace").rsplit(self._delimiter, self._cells_replaced)
        return 1 < len(cells) == self._cells_replaced + 1 and bool(_BATCH_CELL.fullmatch(cells[1]))

    def _with_ours(self, record: bytes, ours: Sequence[str]) -> bytes:
        return record + self._encode(self._delimiter + self._delimiter.join(ours) + self._line_ending)

    def _without_last(self, record: bytes, cells: int) -> bytes:
        if not cells:
            return record
        if self._codec.startswith("utf-16"):  # a delimiter's two bytes also stand across two characters
            return self._encode(record.decode(self._codec).rsplit(self._delimiter, cells)[0])
        return record.rsplit(self._encode(self._delimiter), cells)[0]

    def _encode(self, text: str) -> bytes:
        return text.encode(self._codec)

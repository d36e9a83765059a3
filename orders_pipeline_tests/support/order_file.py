"""An order file made record by record, which knows what its rejected.csv must be, byte for byte."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orders_pipeline.records.orders import ORDERS

OURS = "_batch,_row,_line,_codes"
BOM = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le"}


def record(cells: Sequence[str], *, quoted: bool = False) -> str:
    """Return cells as a CSV record, quoted where they must be or, on demand, all of them."""
    return ",".join('"' + cell.replace('"', '""') + '"' if quoted or set(cell) & set(',"\r\n') else cell for cell in cells)


@dataclass
class OrderFile:
    """Records in their order; `codec` is Python's name of the encoding, with its BOM where it has one."""

    codec: str
    line_ending: str = "\r\n"
    text: str = ""
    rejected: list[tuple[int, int, str, str]] = field(default_factory=list)  # row, line, record, codes
    rows: int = 0

    def __post_init__(self) -> None:
        self.header = record(ORDERS.column_names)
        self.text = self.header + self.line_ending

    def add(
        self,
        row: Mapping[str, str],
        *,
        codes: str = "",
        quoted: bool = False,
        extra: Sequence[str] = (),
        ended: bool = True,
    ) -> None:
        """Add an order, with the codes that it must be rejected for."""
        written = record([*row.values(), *extra], quoted=quoted)
        self.rows += 1
        if codes:
            line = 1 + self.text.count("\n")
            self.rejected.append((self.rows, line, written, codes))
        self.text += written + (self.line_ending if ended else "")

    def blank(self) -> None:
        """Add an empty row."""
        self.rows += 1
        self.text += self.line_ending

    def write(self, path: Path) -> Path:
        """Write the file."""
        path.write_bytes(self._encode(self.text))
        return path

    def rejected_csv(self, batch_id: str) -> bytes:
        """Return the bytes of the rejected.csv that must come of it."""
        lines = [f"{self.header},{OURS}"]
        lines += [f"{written},{batch_id},{row},{line},{codes}" for row, line, written, codes in self.rejected]
        text = self._encode("".join(line + self.line_ending for line in lines))
        mark = codecs.BOM_UTF8 if self.codec == "utf-8" else b""  # for spreadsheets
        return mark + text

    def _encode(self, text: str) -> bytes:
        codec = BOM.get(self.codec, self.codec)
        return ("\ufeff" if self.codec in BOM else "").encode(codec) + text.encode(codec)

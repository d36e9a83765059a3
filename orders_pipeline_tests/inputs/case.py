"""What a case is: a file's bytes, and what must become of every row of it.

Cases are data, kept by family in the modules beside this one; how files are written for them is in `sheet.py`, how what
became of a file is read and compared in `outcome.py`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date

from orders_pipeline_tests.support.factories import TODAY

OURS = ("_batch", "_row", "_line", "_codes")
BEFORE = "{before}"  # in a finding's detail: the id of the batch that the file sent before has become


@dataclass(frozen=True)
class Finding:
    """What a row is rejected for: column ("" for the whole row), code, the value shown in errors.csv, parameters."""

    column: str
    code: str
    shown: str = ""
    detail: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Back:
    """A row that is rejected: its number, its first physical line, its record as sent, and why."""

    row: int
    line: int
    record: bytes
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Layout:
    """What the reports repeat of a file: byte order mark, header as sent (whole, and by column), delimiter, line ending."""

    header: bytes
    headers: Mapping[str, str]
    codec: str = "utf-8"
    bom: bytes = b""
    delimiter: str = ","
    line_ending: str = "\r\n"


@dataclass(frozen=True)
class Case:
    """One input of a kind (`number`) and its right outcome.

    Either `file_code` says why the whole file is given back, with parameters in `file_detail`, or each of its rows is in
    `accepted` (number to stored values), in `back`, or one of the `blank` ones. `at_the_door` files never become a batch.
    """

    number: int
    name: str
    data: bytes | Callable[[], bytes]
    file_code: str = ""
    file_detail: Mapping[str, str] = field(default_factory=dict)
    at_the_door: bool = False
    accepted: Mapping[int, Mapping[str, object]] = field(default_factory=dict)
    normalised: Mapping[str, int] = field(default_factory=dict)  # cells changed, by column; looked at if nothing goes back
    back: tuple[Back, ...] = ()
    blank: int = 0
    encoding: str = "utf-8"
    layout: Layout | None = None  # None only where nothing is rejected row by row
    warnings: tuple[str, ...] = ()
    file_name: str = "orders.csv"
    beside: Mapping[str, bytes] = field(default_factory=dict)  # other files in the same folder
    before: tuple[bytes, ...] = ()  # files the same client has sent before
    profile: Mapping[str, str] = field(default_factory=dict)  # of the client, where it is not the default one
    settings: Mapping[str, int] = field(default_factory=dict)
    personal: tuple[str, ...] = ()  # values of the file that must appear in nothing but the places made for them
    today: date = TODAY

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return self.data if isinstance(self.data, bytes) else self.data()

    @property
    def test_name(self) -> str:
        return f"input_{self.number:03}_" + re.sub(r"\W+", "_", self.name)

    @property
    def client(self) -> str:
        """The client whose file it is: nobody else's, so that cases do not meet."""
        return f"input-{self.number:03}-{zlib.crc32(self.name.encode()):08x}"

    def rejected_csv(self, batch_id: str) -> bytes | None:
        """Return the rejected.csv that must come back, byte for byte, or None."""
        if not self.back or self.layout is None:
            return None
        layout = self.layout
        lines = [(layout.header, OURS)]
        for back in self.back:
            codes = " ".join(dict.fromkeys(finding.code for finding in back.findings))
            lines.append((back.record, (batch_id, str(back.row), str(back.line), codes)))
        tails = ["".join(layout.delimiter + each for each in ours) + layout.line_ending for _, ours in lines]
        mark = "\ufeff".encode(layout.codec) if layout.codec.startswith("utf") else b""  # for spreadsheets
        return mark + b"".join(line + tail.encode(layout.codec) for (line, _), tail in zip(lines, tails, strict=True))

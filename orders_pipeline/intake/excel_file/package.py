"""Whether a workbook may be opened: its ZIP container and its XML are checked before any library builds objects of them.

The XML is read as a stream that keeps nothing but counts, within bounds on what it may inflate to, and without entities.
Which sheet holds the orders is decided in `sheets`; cells are read in `stored_cells`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import BinaryIO
from xml.parsers import expat

from orders_pipeline.intake.compressed_file import ENTRY_MARK, count_mark
from orders_pipeline.intake.excel_file.conditional_formats import Condition
from orders_pipeline.intake.excel_file.ranges import column_number
from orders_pipeline.intake.excel_file.stored_cells import MAIN_NAMESPACE
from orders_pipeline.records.rejections import FileRejected

_MAX_ENTRIES = 1000
_OLE_MAGIC = b"\xd0\xcf\x11\xe0"
_ENCRYPTED_STREAM = "EncryptedPackage".encode("utf-16-le")  # the OLE stream a workbook with a password is in
# XML spends about 40 bytes on a cell, a CSV file 8 or so: text of a CSV file's size takes five times as much, and never 8
_INFLATED_FACTOR = 8
_INFLATED_ALLOWANCE = 1 << 20  # styles, theme and relations of a small workbook
# cells of a real sheet, each with a reference of its own, shrink to a 10th or a 40th, never to a 200th
_MAX_RATIO = 200
_RATIO_MATTERS_FROM = 1 << 20

_BLOCK = 64 << 10
_MAX_TOKEN = 1 << 20
_MAX_DEPTH = 64
# marks are elements and attributes; what a library builds takes some hundred bytes for each
_MARKS_PER_ROW = 600
_MARKS_ALLOWANCE = 4_000_000  # lists to choose from on other sheets
_MAX_MARKS_IN_GROUP = 400_000  # one row or one text
_MAX_MARKS_ELSEWHERE = 1_500_000
_MAX_MARKS_OF_STYLES = 500_000
_MAX_ROW = 1_048_576

_STRICT = "http://purl.oclc.org/ooxml/"
_WORKSHEET, _STRINGS = MAIN_NAMESPACE + "worksheet", MAIN_NAMESPACE + "sst"
_SHEET_DATA, _ROW, _CELL = MAIN_NAMESPACE + "sheetData", MAIN_NAMESPACE + "row", MAIN_NAMESPACE + "c"
_MERGED = MAIN_NAMESPACE + "mergeCell"
_CALCULATION = frozenset(MAIN_NAMESPACE + name for name in ("calcPr", "sheetCalcPr"))
_VALUES = frozenset(MAIN_NAMESPACE + name for name in ("v", "is", "f"))
_STYLES = "xl/styles.xml"
# of a sheet itself, and in the extension that newer programs write beside it
_CONDITION, _CONDITIONAL = MAIN_NAMESPACE + "cfRule", MAIN_NAMESPACE + "conditionalFormatting"
_EXTENSION = "http://schemas.microsoft.com/office/spreadsheetml/2009/9/main "
_EXTENDED, _EXTENDED_FORMAT = _EXTENSION + "conditionalFormatting", _EXTENSION + "numFmt"
_EXTENDED_CELLS = "http://schemas.microsoft.com/office/excel/2006/main sqref"
_MAX_CONDITION_CHARS = 1 << 20  # of all ranges of a sheet's conditional formats


@dataclass(frozen=True)
class Extent:
    """The last row and the last column of a sheet that hold a value, from 1, or 0 without any.

    `conditions` are its conditional formats, `merged` the ranges of its merged cells.
    """

    rows: int
    columns: int
    conditions: tuple[Condition, ...] = ()
    merged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parts:
    """What was found in a package: the extent of each sheet by its path, and the path of the shared texts, if any.

    Where `recomputes`, Excel computes all formulas as it opens the workbook: the results stored in it are not what is seen.
    """

    sheets: Mapping[str, Extent]
    texts: str | None
    recomputes: bool = False


def refused(kind: str, hint: str) -> FileRejected:
    """Return the refusal of a file that is no workbook we read; `hint` is a key of the catalogue's hints."""
    return FileRejected("F_NOT_CSV", {"kind": kind, "hint": hint})


def damaged() -> FileRejected:
    """Return the refusal of a workbook that cannot be read."""
    return refused("damaged Excel", "excel_damaged")


def check_package(file: BinaryIO, *, max_bytes: int, max_rows: int) -> Parts:
    """Return the sheets and the texts of a package, or raise FileRejected for what must not be opened.

    What is no sound ZIP file or XML raises errors of their libraries.
    """
    _check_container(file)
    with zipfile.ZipFile(file) as package:
        entries = package.infolist()
        _check_entries(entries)
        _check_sizes(entries, max_bytes)
        scan = _Scan(_MARKS_PER_ROW * max_rows + _MARKS_ALLOWANCE)
        for entry in entries:
            scan.read(package, entry)
    if not scan.declares_workbook:
        raise refused("ZIP", "excel_old")
    return Parts(scan.sheets, scan.texts, scan.recomputes)


def _check_container(file: BinaryIO) -> None:
    """Refuse what is no ZIP file, or one with more entries than a workbook has, before its directory is read."""
    head = file.read(8)
    if not head:
        raise FileRejected("F_EMPTY")
    if head.startswith(_OLE_MAGIC):
        if count_mark(file, _ENCRYPTED_STREAM):
            raise refused("encrypted Excel", "excel_protected")
        raise refused("Excel (.xls)", "excel_old")
    if not head.startswith(b"PK"):
        text = head + file.read(_BLOCK)
        if b"\0" in text:
            raise damaged()
        raise refused("HTML or XML" if text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") else "text", "excel_old")
    if count_mark(file, ENTRY_MARK) > _MAX_ENTRIES:
        raise damaged()


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    """Refuse what the names give away, and entries that are encrypted, packed in an unusual way or in each other."""
    names = {entry.filename.lower() for entry in entries}
    if any(entry.flag_bits & 1 for entry in entries):
        raise refused("encrypted Excel", "excel_protected")
    if any(name.endswith("vbaproject.bin") or name.startswith("xl/macrosheets/") for name in names):
        raise refused("Excel with macros", "excel_macros")
    if "xl/workbook.bin" in names:
        raise refused("Excel (.xlsb)", "excel_old")
    if "[content_types].xml" not in names:
        raise refused("OpenDocument (.ods)" if "mimetype" in names else "ZIP", "excel_old")
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end or entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise damaged()
        end = entry.header_offset + entry.compress_size
    if len(names) < len(entries):
        raise damaged()


def _check_sizes(entries: list[zipfile.ZipInfo], max_bytes: int) -> None:
    """Refuse what says it inflates to more than a workbook may; that it is no lie is seen when a part is read."""
    limit = _INFLATED_FACTOR * max_bytes + _INFLATED_ALLOWANCE
    if sum(entry.file_size for entry in entries) > limit:
        raise FileRejected("F_TOO_LARGE", {"limit": str(limit)})
    if any(entry.file_size > max(_RATIO_MATTERS_FROM, _MAX_RATIO * entry.compress_size) for entry in entries):
        raise FileRejected("F_TOO_LARGE")


class _Scan:
    """Reads the XML parts of one package and counts what a library would build of them."""

    def __init__(self, max_marks: int) -> None:
        self._max_marks = max_marks
        self._marks = self._elsewhere = 0
        self.declares_workbook = self.recomputes = False
        self.sheets: dict[str, Extent] = {}
        self.texts: str | None = None

    def read(self, package: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
        """Check one part, and note it when it is a sheet or the texts."""
        with package.open(entry) as stream:
            blocks = iter(partial(stream.read, _BLOCK), b"")
            head = next(blocks, b"")
            # what begins otherwise is no XML in any encoding, and no library reads beyond its first characters
            if head.strip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")[:1] in {b"", b"<"}:
                self._read_xml(chain([head], blocks), entry)

    def _read_xml(self, blocks: Iterable[bytes], entry: zipfile.ZipInfo) -> None:
        reader = _PartReader()
        fed = 0
        for block in blocks:
            reader.feed(block)
            fed += len(block)
            self._check_counts(reader, fed, entry.filename)
        reader.close()
        if fed != entry.file_size:  # it holds less than it says
            raise damaged()
        self._marks += reader.in_groups
        self._elsewhere += reader.elsewhere
        self.declares_workbook |= reader.declares_workbook
        self.recomputes |= reader.recomputes
        if reader.root == _WORKSHEET:
            found = Extent(reader.last_row, reader.last_column, tuple(reader.conditions), tuple(reader.merged))
            self.sheets[entry.filename] = found
        elif reader.root == _STRINGS:
            self.texts = entry.filename

    def _check_counts(self, reader: _PartReader, fed: int, name: str) -> None:
        if fed - reader.position > _MAX_TOKEN or reader.depth > _MAX_DEPTH:
            raise damaged()
        elsewhere = _MAX_MARKS_OF_STYLES if name == _STYLES else _MAX_MARKS_ELSEWHERE - self._elsewhere
        in_groups = self._max_marks - self._marks
        if reader.in_groups > in_groups or reader.in_group > _MAX_MARKS_IN_GROUP or reader.elsewhere > elsewhere:
            raise FileRejected("F_TOO_LARGE")


class _PartReader:
    """Counts one part's elements and attributes: those in groups, which are rows of a sheet or texts, and the others."""

    def __init__(self) -> None:
        self.root = ""
        self.depth = self.in_groups = self.in_group = self.elsewhere = 0
        self.last_row = self.last_column = 0
        self.declares_workbook = self.recomputes = False
        self.conditions: list[Condition] = []
        self.merged: list[str] = []
        self._condition_cells = ""
        self._condition_chars = 0
        self._extended: list[str] = []  # number formats of one extended conditional format
        self._group_depth = 0  # at which groups begin, 0 outside of them
        self._row = self._column = 0
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = _refuse_doctype

    def feed(self, block: bytes) -> None:
        """Read the next block."""
        self._parser.Parse(block)

    def close(self) -> None:
        """Make sure that nothing is missing at the end."""
        self._parser.Parse(b"", True)

    @property
    def position(self) -> int:
        """The offset up to which everything is understood."""
        return self._parser.CurrentByteIndex

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        marks = 1 + len(attributes)
        if not self._group_depth:
            self.elsewhere += marks
            self._start_elsewhere(name, attributes)
            return
        if self.depth == self._group_depth:
            self.in_group = 0
        self.in_groups += marks
        self.in_group += marks
        if name == _CELL:
            reference = attributes.get("r")
            self._column = self._column + 1 if reference is None else column_number(reference.rstrip("0123456789"))
        elif name in _VALUES:
            self.last_row = self._row
            self.last_column = max(self.last_column, self._column)
        elif name == _ROW:
            self._start_row(attributes)

    def _start_elsewhere(self, name: str, attributes: dict[str, str]) -> None:
        if self.depth == 1:
            self.root = name
            if name.startswith(_STRICT):
                raise refused("Strict Open XML Excel", "excel_damaged")
            self._group_depth = 2 if name == _STRINGS else 0
        elif self.depth == 2 and name == _SHEET_DATA and self.root == _WORKSHEET:
            self._group_depth = 3
        if name == _MERGED:
            self.merged.append(attributes.get("ref", ""))
        elif name in _CALCULATION:
            self.recomputes |= attributes.get("fullCalcOnLoad") in {"1", "true"} or attributes.get("calcId") == "0"
        self._start_condition(name, attributes)
        content_type = attributes.get("ContentType", "")
        if "macroEnabled" in content_type:
            raise refused("Excel with macros", "excel_macros")
        self.declares_workbook |= "spreadsheetml" in content_type

    def _start_condition(self, name: str, attributes: dict[str, str]) -> None:
        """Note the rules of conditional formats."""
        if name == _CONDITIONAL:
            self._condition_cells = attributes.get("sqref", "")
        elif name == _CONDITION and "dxfId" in attributes:
            self._add_condition(Condition(self._condition_cells, int(attributes["dxfId"]), None))
        elif name == _EXTENDED:
            self._extended = []
        elif name in (_EXTENDED_FORMAT, MAIN_NAMESPACE + "numFmt") and self.root == _WORKSHEET:
            self._extended.append(attributes.get("formatCode", ""))
        elif name == _EXTENDED_CELLS:
            self._condition_cells = ""
            self._parser.CharacterDataHandler = self._more_cells

    def _more_cells(self, text: str) -> None:
        self._condition_cells += text
        self._condition_chars += len(text)

    def _add_condition(self, condition: Condition) -> None:
        self._condition_chars += len(condition.cells)
        if self._condition_chars > _MAX_CONDITION_CHARS:
            raise FileRejected("F_TOO_LARGE")
        self.conditions.append(condition)

    def _start_row(self, attributes: dict[str, str]) -> None:
        """Note a row's number; a library leaves out rows that are not in order, and would fill gaps without end."""
        row = int(attributes["r"]) if "r" in attributes else self._row + 1
        if not self._row < row <= _MAX_ROW or self.depth != self._group_depth:
            raise damaged()
        self._row, self._column = row, 0

    def _end(self, name: str) -> None:
        self.depth -= 1
        if name == _EXTENDED_CELLS:
            self._parser.CharacterDataHandler = None
            for number_format in self._extended:
                self._add_condition(Condition(self._condition_cells, None, number_format))
        if self.depth == 1 and name == _SHEET_DATA:
            self._group_depth = 0


def _refuse_doctype(*_: object) -> None:
    raise damaged()

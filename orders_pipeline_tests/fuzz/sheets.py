"""Well-built order files made of known records, and what must become of every one of them, worked out independently.

A `Sheet` is drawn cell by cell and written here, so that each record's number, line, bytes, values and codes are known
without reading anything back. Damaged files are in `mutations`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from orders_pipeline.records.orders import ORDERS

CODECS = {  # Python's name of a codec without byte order mark, and the mark
    "utf-8": ("utf-8", b""),
    "utf-8-sig": ("utf-8", b"\xef\xbb\xbf"),
    "cp932": ("cp932", b""),
    "utf-16-le": ("utf-16-le", b""),
    "utf-16-be": ("utf-16-be", b""),
    "utf-16-le with mark": ("utf-16-le", b"\xff\xfe"),
    "utf-16-be with mark": ("utf-16-be", b"\xfe\xff"),
}
ENDINGS = ("\n", "\r\n", "\r")
UNKNOWN = "担当髙"  # a column of the client's own, in letters that no two encodings share

_LINE_END = re.compile(r"\r\n|\r|\n")
_OUTER_SPACE = " \t\r\n\u3000"
_TEXT = ("customer_name", "customer_name_kana", "ship_to_address", "note")
_LETTERS = 'ab1あ髙ｱ㈱,,  \'""\t\r\n;=+-@\u3000'
_UNICODE_LETTERS = _LETTERS + "𠮷😀\u3099é\u0301"

# how a cell may be written, and what it means then
_GOOD: dict[str, tuple[tuple[str, str], ...]] = {
    "order_date": (("2026-06-15", "2026-06-15"), ("２０２６/6/1", "2026-06-01"), ("令和8年6月1日", "2026-06-01"), ("", "")),
    "customer_code": (("C-001", "C-001"), (" Ｃ００１", "C001"), ("007", "007")),
    "email": (("", ""), ("a@example.com", "a@example.com"), ("ｂ＠example.com", "b@example.com")),
    "phone": (("", ""), ("090-0123-4567", "09001234567"), ("+81 3 0123 4567", "0301234567")),
    "amount": (("1000", "1000"), ("1,000", "1000"), ("￥２００", "200"), ("0042円", "42"), ("1000000", "1000000")),
    "currency": (("", ""), ("JPY", "JPY"), ("ｊｐｙ", "JPY")),
    "payment_method": (("invoice", "invoice"), ("Invoice ", "invoice"), ("bank_transfer", "bank_transfer")),
    "notify_channel": (("", "none"), ("none", "none"), ("ＮＯＮＥ", "none")),
}
# cells that get a row rejected, each with its code
_BAD: dict[str, tuple[tuple[str, str], ...]] = {
    "client_order_ref": (("", "R_REQUIRED"), ("注文1", "R_REF_FORMAT"), ("A\nB", "R_REF_FORMAT"), ("A" * 65, "R_TOO_LONG")),
    "order_date": (("2026-02-30", "R_DATE_FORMAT"), ("04/01/2026", "R_DATE_AMBIGUOUS"), ("2026-07-02", "R_DATE_RANGE")),
    "customer_code": (("\u3000", "R_REQUIRED"), ("得意先", "R_CUSTOMER_CODE")),
    "customer_name": (("", "R_REQUIRED"), ("長" * 101, "R_TOO_LONG"), ("a\x0bb", "R_CHARS"), (" \u3000", "R_REQUIRED")),
    "email": (("x", "R_EMAIL"), ("a@example.com\r\nBcc: b@example.com", "R_EMAIL")),
    "amount": (("", "R_REQUIRED"), ("1e3", "R_AMOUNT_FORMAT"), ("▲5", "R_AMOUNT_RANGE"), ("9" * 40, "R_AMOUNT_OVER_LIMIT")),
    "currency": (("USD", "R_CURRENCY"),),
    "payment_method": (("", "R_REQUIRED"), ("cash", "R_PAYMENT_METHOD")),
    "note": (("頁\f", "R_CHARS"), ("4111-1111-1111-1111", "R_FORBIDDEN_DATA"), ("長" * 501, "R_TOO_LONG")),
}
_OPTIONAL = ("order_date", "customer_name_kana", "email", "phone", "ship_to_address", "currency", "notify_channel", "note")


@dataclass(frozen=True, repr=False)
class Cell:
    """What stands in a cell, what it means, and the code it gets, if it gets one."""

    written: str
    meaning: str
    code: str = ""
    quoted: bool = False

    def __repr__(self) -> str:
        return f"{self.text!r} {self.code}".strip()

    @property
    def text(self) -> str:
        """Return the cell as strict CSV: quoted where it must be, and where it may be and is to be."""
        needs = set(self.written) & set(",\r\n") or self.written.startswith('"')
        return '"' + self.written.replace('"', '""') + '"' if needs or self.quoted else self.written


@dataclass(frozen=True)
class Order:
    """A row with something in it: cells by column, those at its end that nothing names, how many are cut off."""

    cells: dict[str, Cell]
    extra: tuple[Cell, ...] = ()
    missing: int = 0


@dataclass(frozen=True)
class Known:
    """What must become of a row: where it stands, its bytes, its cells or None, its findings by column."""

    number: int
    line: int
    offset: int
    record: bytes
    order: Order | None
    findings: tuple[tuple[str | None, str], ...]


@dataclass(frozen=True)
class Sheet:
    """A file: column names in order ("" for cells without one), and behind the header orders and blank records."""

    codec: str
    before: tuple[str, ...]  # blank records
    header: dict[str, Cell]
    unnamed: int
    records: tuple[Order | str, ...]
    endings: tuple[str, ...]
    has_last_ending: bool
    has_end_mark: bool

    @property
    def texts(self) -> list[str]:
        """Return all records as CSV, without their terminators."""
        header = [*(cell.text for cell in self.header.values()), *[""] * self.unnamed]
        rows = [each if isinstance(each, str) else ",".join(cell.text for cell in self.cells(each)) for each in self.records]
        return [*self.before, ",".join(header), *rows]

    @property
    def pieces(self) -> list[tuple[str, str]]:
        """Return all records with their terminators."""
        pieces: list[tuple[str, str]] = []
        for at, text in enumerate(self.texts):
            ending = self.endings[at % len(self.endings)]
            if not text and ending == "\n" and pieces and pieces[-1][1] == "\r":
                ending = "\r"  # CR and LF would be one terminator
            pieces.append((text, ending))
        if not self.has_last_ending and pieces[-1][0]:
            pieces[-1] = (pieces[-1][0], "")
        return pieces

    @property
    def data(self) -> bytes:
        codec, mark = CODECS[self.codec]
        text = "".join(text + ending for text, ending in self.pieces)
        return mark + (text + "\x1a" * self.has_end_mark).encode(codec)

    @property
    def line_ending(self) -> str:
        return self.pieces[len(self.before)][1]

    @property
    def blank(self) -> int:
        return sum(isinstance(each, str) for each in self.records)

    def cells(self, order: Order) -> list[Cell]:
        cells = [*(order.cells[name] for name in self.header), *order.extra]
        return cells[: len(cells) - order.missing]

    def known(self) -> list[Known] | None:
        """Return what must become of each order, by row number; None where the file is refused for its columns."""
        orders = [each for each in self.records if isinstance(each, Order)]
        right = self._right([[cell.written for cell in self.cells(order)] for order in orders])
        if right is None:
            return None
        codes = dict(enumerate(_repeated([order if ok else None for order, ok in zip(orders, right, strict=True)])))
        codec, mark = CODECS[self.codec]
        found: list[Known] = []
        text, first = "", len(self.before) + 1
        for at, (record, ending) in enumerate(self.pieces):
            if at >= first and isinstance(order := self.records[at - first], Order):
                place = len(found)
                lines = 1 + len(_LINE_END.findall(text))
                findings = ((None, "R_COLUMNS"),) if not right[place] else _findings(order, codes[place])
                where = (at - first + 1, lines, len(mark) + len(text.encode(codec)))
                found.append(Known(*where, record.encode(codec), order if right[place] else None, findings))
            text += record + ending
        return found

    def _right(self, rows: Sequence[Sequence[str]]) -> list[bool] | None:
        """Return which rows have the header's shape: all may end in the same number of empty cells, or in as many as it."""
        named, sent = len(self.header), len(self.header) + self.unnamed
        fitting = [len(row) for row in rows if len(row) >= named and not any(row[named:])]
        overfull = {len(row) for row in rows if any(row[named:])}
        width = fitting[0] if fitting else sent
        if sent in overfull or sent in fitting or width in overfull:
            width = sent
        right = [len(row) == width and not any(row[named:]) for row in rows]
        same = len({len(row) for row in rows}) == 1 < len(rows)
        return None if same and not any(right) and len(rows[0]) > named else right


def _findings(order: Order, repeated: str) -> tuple[tuple[str | None, str], ...]:
    codes = {name: cell.code for name, cell in order.cells.items() if cell.code}
    if repeated:
        codes["client_order_ref"] = repeated
    return tuple((name, codes[name]) for name in ORDERS.column_names if name in codes)


def _repeated(orders: Iterable[Order | None]) -> list[str]:
    """Return the code each order gets for having another's reference, "" for none."""
    by_reference: dict[str, list[dict[str, str]]] = defaultdict(list)
    meanings = [
        {name: cell.meaning for name, cell in order.cells.items() if name in ORDERS.column_names} if order else None
        for order in orders
    ]
    usable = [
        each is not None and order is not None and not order.cells["client_order_ref"].code
        for each, order in zip(meanings, orders, strict=True)
    ]
    codes = []
    for each, ok in zip(meanings, usable, strict=True):
        if each is not None and ok:
            by_reference[each["client_order_ref"].lower()].append(each)
    seen: set[str] = set()
    for each, ok in zip(meanings, usable, strict=True):
        code = ""
        if each is not None and ok:
            reference = each["client_order_ref"].lower()
            group = by_reference[reference]
            if any(other != group[0] for other in group):
                code = "R_REF_CONFLICT"
            elif reference in seen:
                code = "R_REF_DUP_IN_FILE"
            seen.add(reference)
        codes.append(code)
    return codes


def _free_text(codec: str, required: bool) -> st.SearchStrategy[str]:
    letters = st.text(st.sampled_from(_LETTERS if codec == "cp932" else _UNICODE_LETTERS), max_size=9)
    return letters.filter(lambda text: bool(text.strip(_OUTER_SPACE))) if required else letters


@st.composite
def _cell(draw: st.DrawFn, name: str, codec: str, bad: bool) -> Cell:
    quoted = draw(st.booleans())
    if bad and name in _BAD:
        written, code = draw(st.sampled_from(_BAD[name]))
        return Cell(written, written, code, quoted)
    if name == "client_order_ref":
        written, meaning = draw(st.sampled_from([("A-{}", "A-{}"), ("ａ－{}", "a-{}"), ("\u3000B/{} ", "B/{}")]))
        number = draw(st.integers(1, 60))
        return Cell(written.format(number), meaning.format(number), "", quoted)
    if name in _TEXT:
        written = draw(_free_text(codec, required=name == "customer_name"))
        return Cell(written, unicodedata.normalize("NFC", written), "", quoted)
    if name == UNKNOWN:
        return Cell(draw(st.sampled_from(["", "x", "髙橋", '"', "1\n2"])), "", "", quoted)
    return Cell(*draw(st.sampled_from(_GOOD[name])), "", quoted)


@st.composite
def _order(draw: st.DrawFn, names: Sequence[str], codec: str, trailing: int) -> Order:
    bad = draw(st.sets(st.sampled_from(names), max_size=2)) if draw(st.integers(0, 2)) == 0 else set()
    cells = {name: draw(_cell(name, codec, name in bad)) for name in names}
    extra, missing = (Cell("", ""),) * trailing, 0
    match draw(st.sampled_from(["right"] * 12 + ["short", "long", "full"])):
        case "short":
            missing = draw(st.integers(1, 3))
        case "long":
            extra += (Cell("", ""),) * draw(st.integers(1, 2))
        case "full":
            extra += (Cell("x", "x"),)
    return Order(cells, extra, missing)


@st.composite
def _header(draw: st.DrawFn, columns: Sequence[str]) -> dict[str, Cell]:
    cells = {}
    for name in columns:
        names = [name] if name == UNKNOWN else [name, name.upper(), f" {name}\u3000", *ORDERS.by_name[name].aliases]
        cells[name] = Cell(draw(st.sampled_from(names)), "", "", draw(st.booleans()))
    return cells


@st.composite
def sheets(draw: st.DrawFn) -> Sheet:
    """Draw a file of up to 25 records in any encoding and with any line ends."""
    codec = draw(st.sampled_from(sorted(CODECS)))
    chosen = draw(st.lists(st.sampled_from(_OPTIONAL), unique=True, max_size=5))
    columns = draw(st.permutations([*ORDERS.required_columns, *chosen, UNKNOWN]))
    trailing = draw(st.sampled_from([0, 0, 0, 1, 2]))
    blank = st.sampled_from(["", ",", ",,,,,,", '"",""', '""'])
    orders = st.lists(st.one_of(*[_order(columns, CODECS[codec][0], trailing)] * 4, blank), max_size=20)
    records = draw(st.builds(lambda some, one: [*some, one], orders, _order(columns, CODECS[codec][0], trailing)))
    for at in draw(st.lists(st.integers(0, len(records) - 1), max_size=3)):  # sent again, perhaps quoted otherwise
        records.append(records[at])
    return Sheet(
        codec=codec,
        before=tuple(draw(st.lists(blank, max_size=2))),
        header=draw(_header(columns)),
        unnamed=draw(st.sampled_from([0, 0, 0, 1, 2])),
        records=(*records, *draw(st.lists(blank, max_size=3))),
        endings=tuple(
            draw(st.one_of(st.sampled_from(ENDINGS).map(lambda one: [one]), st.lists(st.sampled_from(ENDINGS), min_size=2)))
        ),
        has_last_ending=draw(st.booleans()),
        has_end_mark=draw(st.integers(0, 5)) == 0,
    )

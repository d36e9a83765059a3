"""What the rows of a client's file let guess of its profile, beside its header: how they are quoted, and which are orders.

Values in, settings out. What a header may be called is guessed in `profile_trial.py`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.intake.csv_file import Dialect
from orders_pipeline.records.normalise import normalise_header
from orders_pipeline.records.orders import ITEM_COLUMNS

OF_AN_ORDER = ("customer_code", "customer_name", "email", "order_date")  # what its rows say alike, or only the first
STATUSES = frozenset(
    {
        "対応状況",
        "ステータス",
        "受注状態",
        "注文状態",
        "受注ステータス",
        "注文ステータス",
        "status",
        "order status",
        "financial status",
    }
)
CANCELLED_ON = frozenset({"cancelled at", "canceled at", "キャンセル日", "キャンセル日時", "取消日", "取消日時"})
REFUNDED = frozenset({"refunded amount", "refunded_total", "返金額", "返金金額", "合計返金額"})
IN_PART = ("partial", "一部", "待ち", "申請", "希望")  # what is no order any more, or may be so
# One odd cell must not turn totals into lines, which would charge every order once for each of its rows: it is a conflict in
# its own order only. Four of five lets files of a few orders have one; hardly so many orders are of equal lines by chance.
NEARLY_ALL = 0.8
NO_ORDERS = ("取消", "取り消", "キャンセル", "cancel", "void", "refund", "返品")


@dataclass(frozen=True)
class Sample:
    """Some rows that have a cell for each header, and the places of those columns that are known."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    columns: Mapping[str, int]

    def cells(self, column: str, rows: Sequence[Sequence[str]] | None = None) -> list[str]:
        """Return what rows have in a column, trimmed; nothing where it is not known."""
        at = self.columns.get(column)
        return [] if at is None else [row[at].strip() for row in (self.rows if rows is None else rows)]

    def orders(self) -> Iterator[list[Sequence[str]]]:
        """Yield the rows of each reference."""
        by_reference: dict[str, list[Sequence[str]]] = {}
        for row, reference in zip(self.rows, self.cells("client_order_ref"), strict=False):
            if reference:
                by_reference.setdefault(reference.casefold(), []).append(row)
        yield from by_reference.values()


def is_unquoted(lines: Sequence[str], delimiter: str) -> bool:
    """Return whether lines are no CSV, or of unequal width, and of one width once a quotation mark is a character."""
    if not any('"' in line for line in lines):
        return False
    try:
        plain = {len(row) for row in Dialect(delimiter, has_quotes=False).reader(lines) if row}
    except csv.Error:  # a cell is longer than any may be
        return False
    try:
        quoted = {len(row) for row in Dialect(delimiter).reader(lines, strict=True) if row}
    except csv.Error:
        return len(plain) == 1
    return len(plain) == 1 and len(quoted) > 1


def guess_settings(sample: Sample, profile: Profile) -> dict[str, Any]:
    """Return the settings that a profile may need so that the right rows become orders, beside those that it names."""
    said = profile.model_fields_set
    lines = profile.lines if "lines" in said or not _has_lines(sample) else "grouped"
    settings: dict[str, Any] = {"lines": lines} if lines != profile.lines else {}
    if lines == "one_per_order" and (left_out := _items_to_ignore(sample, profile)):
        settings["ignore"] = left_out
    settings |= {name: chosen for name, chosen in _rows_chosen(sample).items() if chosen}
    is_said = "notify_channel" in sample.columns or "notify_channel" in profile.columns
    if not is_said and any("@" in cell for cell in sample.cells("email")):
        settings["notify_channel"] = "email"
    return {name: value for name, value in settings.items() if name not in said}


def guess_amount(sample: Sample) -> dict[str, str]:
    """Return how the amount of an order of several rows comes of them: each says its own part, or all say the same."""
    several = [rows for rows in sample.orders() if len(rows) > 1]
    is_product = [_is_product(sample, row) for rows in several for row in rows]
    is_total = [len({cell for cell in sample.cells("amount", rows) if cell}) <= 1 for rows in several]
    is_of_lines = bool(several) and (_are_nearly_all(is_product) or not _are_nearly_all(is_total))
    return {"each": "line"} if is_of_lines else {}


def first_rows(sample: Sample) -> list[Sequence[str]]:
    """Return the first row of each order."""
    return [rows[0] for rows in sample.orders()]


def _has_lines(sample: Sample) -> bool:
    """Return whether references come several times, in rows of one order: neither the same rows nor other orders."""
    several = [rows for rows in sample.orders() if len({tuple(row) for row in rows}) > 1]
    of_one = [rows for rows in several if all(_is_alike(sample.cells(column, rows)) for column in OF_AN_ORDER)]
    return len(of_one) > len(several) - len(of_one)


def _are_nearly_all(answers: Sequence[bool]) -> bool:
    return sum(answers) >= NEARLY_ALL * len(answers)


def _is_alike(cells: Sequence[str]) -> bool:
    """Return whether cells say what the first does, or nothing."""
    return {*cells[1:]} <= {"", *cells[:1]}


def _items_to_ignore(sample: Sample, profile: Profile) -> list[str]:
    """Return the item columns that a row of one order cannot fill as it must: all or none, and their product the amount."""
    known = [name for name in ITEM_COLUMNS if name in sample.columns]
    if not known or any(name in profile.columns for name in known):
        return []
    is_whole = len(known) == len(ITEM_COLUMNS) and all(_is_product(sample, row) for row in sample.rows)
    return [] if is_whole else known


def _is_product(sample: Sample, row: Sequence[str]) -> bool:
    numbers = [sample.cells(name, [row]) for name in (*ITEM_COLUMNS[1:], "amount")]
    quantity, price, amount = (_number(cells[0]) if cells else None for cells in numbers)
    return quantity is not None and price is not None and quantity * price == amount


def _number(cell: str) -> float | None:
    try:
        return float(cell.replace(",", "").strip("¥￥円"))
    except ValueError:
        return None


def _rows_chosen(sample: Sample) -> dict[str, list[dict[str, Any]]]:
    """Return what headers say of rows that are no orders, and of those that a person has to decide on."""
    skip: list[dict[str, Any]] = []
    reject: list[dict[str, Any]] = []
    amount = None if guess_amount(sample) else sample.columns.get("amount")  # of the order: a line may well be free
    for at, header in enumerate(sample.header):
        name, place = normalise_header(header), named_place(sample.header, at)
        words = [*dict.fromkeys(row[at].strip() for row in sample.rows)]
        if name in STATUSES:
            ended = [word for word in words if any(part in word.casefold() for part in NO_ORDERS)]
            partly = [word for word in ended if any(part in word.casefold() for part in IN_PART)]
            skip += [place | {"values": whole}] if (whole := [word for word in ended if word not in partly]) else []
            reject += [place | {"values": partly}] if partly else []
        elif name in CANCELLED_ON and any(words):
            skip.append(place | {"except": []})
        elif name in REFUNDED and any(_number(word) for word in words):
            reject.append(place | {"except": ["0"]})
        elif at == amount and any(_is_free(sample.cells("amount", rows)) for rows in sample.orders()):
            skip.append(place | {"values": ["0"]})
    return {"skip": skip, "reject": reject}


def _is_free(cells: Sequence[str]) -> bool:
    """Return whether the cells of an order say that it costs nothing, and none of them that it costs something."""
    return {_number(cell) for cell in cells if cell} == {0}


def named_place(header: Sequence[str], at: int) -> dict[str, Any]:
    """Return how a profile names a place in a header, with the occurrence where it has the same name several times."""
    names = [*map(normalise_header, header)]
    nth = names[: at + 1].count(names[at])
    return {"header": header[at]} | ({"occurrence": nth} if names.count(names[at]) > 1 else {})

"""Corrected rows: which reference a row may have that corrects a rejected one, and what is wrong with it as a correction.

A corrected row keeps the reference of the row it names, unless that was what was rejected; then it gives the reference up,
for good. Its cells must not be what a wrong encoding made of those that were sent, nor its codes what a spreadsheet did.
A row that is skipped as no order closes the one that it names: nobody is to be charged for it.
What was sent before is read in `intake/rejected_before.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.records.encoding_damage import is_damaged
from orders_pipeline.records.judgement import Findings, Rows, as_json
from orders_pipeline.records.record_type import RecordType

ROW_COLUMN = "_row"
NO_ROW = 0  # what a row corrects that says so, and names none; and a row that was skipped, which nobody can name
ELSEWHERE = -1  # a row that can only be named in another file
DIGITS_KEPT = 15  # of a number, by spreadsheets
_LIKE_A_DATE = re.compile(r"[0-9]{1,4}[-/.][0-9]{1,2}(?:[-/.][0-9]{1,4})?|[a-z]{3,9}[-/.]?[0-9]{1,4}|[0-9]{1,2}-?[a-z]{3,9}")
_SPREADSHEETS_DATE = re.compile(
    r"[0-9]{1,2}-[a-z]{3}|[a-z]{3}-[0-9]{2}|[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}|[0-9]{1,2}月[0-9]{1,2}日|[0-9]{5}"
)
# rows with one of these name no row: what they were meant to correct is still open where it is
NAMES_NO_ROW = "R_CORRECTED_ROW"
UNDECIDED = "R_TO_DECIDE"


@dataclass(frozen=True)
class Original:
    """A row as it was sent, and the encoding of its file; a cell is None where the row's shape was wrong.

    `good_codes` has those of its codes that passed the rules of their columns, normalised and in small letters.
    """

    cells: Mapping[str, str | None]
    encoding: str
    good_codes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NamedRow:
    """A rejected row that a correction may name, with what is known of it and of the rows it corrects itself.

    `first` is the batch and row where it came first. `references` are those a correction may have (None: any), and `had`
    those it gives up by having another, each with the batch that holds it already. `received` is the batch in which this
    row is an order, and `taken` has the batches in which a reference it had was received since, maybe as this very row.
    It `repeats` where it was ever rejected for being the same as another row of its file. `closed` is the batch in which it
    was skipped, so that nobody is charged for it. It `is_to_decide` where a cell of its own kept it back for a person.
    """

    first: tuple[str, int]
    references: frozenset[str] | None
    had: Mapping[str, str | None]
    originals: Sequence[Original]
    received: str | None = None
    taken: Mapping[str, str] = field(default_factory=dict)
    repeats: bool = False
    closed: str | None = None
    is_to_decide: bool = False

    @property
    def own_references(self) -> frozenset[str]:
        """Return the references it had or may have had; none where none of its cells could be one."""
        return self.references if self.references is not None else frozenset(self.had)

    def may_have(self, reference: str) -> bool:
        """Return whether a correction may have this reference: never one that a spreadsheet made of what it was."""
        if self.references is not None:
            return reference in self.references
        return not any(_is_spreadsheets_form(had, reference) for had in self.had)

    def may_have_code(self, column: str, code: str) -> bool:
        """Return whether a correction may have this code in a column: any but what a spreadsheet made of the row's own."""
        own: str | None = None
        for original in reversed(self.originals):  # what a spreadsheet made of it at an earlier try is not it
            sent = original.good_codes.get(column)
            if sent is not None and (own is None or not _is_shortened(own, sent)):
                own = sent
        return own is None or not _is_shortened(own, code)

    def received_before(self, reference: str) -> str | None:
        """Return the batch in which this row was closed, or is an order under another reference than this, or None."""
        since = [batch for had, batch in self.taken.items() if had != reference]
        return self.received or self.closed or next(iter(since), None)

    def is_damaged(self, column: str, cell: str) -> bool:
        """Return whether a cell of a correction is what a wrong encoding made of one that was sent."""
        return any(
            is_damaged(sent, cell, original.encoding) for original in self.originals if (sent := original.cells.get(column))
        )


@dataclass(frozen=True)
class Answer:
    """Which row a row of a correction corrects; `gives_up` are references, each with the batch that holds it already."""

    import_row_number: int
    corrects_row: int
    first: tuple[str, int]
    gives_up: Mapping[str, str | None]
    keeps_reference: bool = False


@dataclass(frozen=True)
class Corrections:
    """The rejected rows that a correcting file may name, by number, and those that different rows of it name.

    Where several rows are one order, `orders` has for each rejected row all those that have to be corrected with it.
    """

    rows: Mapping[int, NamedRow]
    ambiguous: frozenset[int] = frozenset()
    orders: Mapping[int, frozenset[int]] = field(default_factory=dict)

    def check(
        self,
        kind: RecordType,
        rows: Rows,
        raw: Mapping[str, pa.Array],
        corrects: Sequence[int | None],
        findings: Findings,
    ) -> dict[int, Answer]:
        """Note what is wrong with rows as corrections, and return what each answers, by its position.

        `raw` are the rows' cells as they came, and `corrects` has the number of the row that each names, or None.
        """
        notes = _Notes(findings)
        answers = {}
        references = kind.folded(rows.text[kind.identity]).to_pylist()
        bad_reference = findings.bad_in(kind.identity)
        codes = {name: (pc.utf8_lower(rows.text[name]).to_pylist(), findings.bad_in(name)) for name in kind.code_columns}
        for at, number in enumerate(corrects):
            if number is None:
                continue
            named = self.rows.get(number)
            if named is None or number in self.ambiguous:
                hint = "named_twice" if number in self.ambiguous else "no_such_row"
                notes.add(at, ROW_COLUMN, NAMES_NO_ROW, {"hint": hint})
                continue
            reference = references[at]
            if not named.may_have(reference):
                notes.add(at, kind.identity, "R_REF_CHANGED", {})
            elif not bad_reference[at] and (batch_id := named.received_before(reference)):
                notes.add(at, kind.identity, "R_CORRECTED_BEFORE", {"batch_id": batch_id})
            for column in kind.column_names:
                if named.is_damaged(column, raw[column][at].as_py()):
                    notes.add(at, column, "R_ENCODING_DAMAGE", {})
            for column, (cells, bad) in codes.items():
                if not bad[at] and not named.may_have_code(column, cells[at]):
                    notes.add(at, column, "R_CODE_CHANGED", {})
            gives_up = {had: batch for had, batch in named.had.items() if had != reference}
            keeps = reference in (named.had if named.references is None else named.references)
            answers[at] = Answer(rows.number[at].as_py(), number, named.first, gives_up, keeps)
        notes.write()
        return answers

    def answered_by_misshapen(self, numbers: Sequence[int], corrects: Sequence[int | None]) -> list[Answer]:
        """Return what rows of the wrong shape correct: these are rejected for that, and the rows they name are settled."""
        return [
            Answer(number, named, self.rows[named].first, {})
            for number, named in zip(numbers, corrects, strict=True)
            if named is not None and named in self.rows and named not in self.ambiguous
        ]

    def closed_by(self, skipped: Sequence[tuple[int, int]]) -> list[Answer]:
        """Return which rows skipped ones close, each given with the number of the row that it names.

        One that is an order by now, maybe of another file, stays one. Of several rows of an order all that were rejected
        together have to be skipped: the rest would be charged as if it were the whole.
        """
        named = {number for _, number in skipped if number in self.rows and number not in self.ambiguous}
        named -= {number for number in named if self.rows[number].received is not None or self.rows[number].taken}
        return [
            Answer(row, number, self.rows[number].first, {})
            for row, number in skipped
            if number in named and self.orders.get(number, frozenset()) - {NO_ROW} <= named
        ]


class _Notes:
    """Collects findings row by row, and adds them code by code."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._found: dict[tuple[str, str], dict[int, str]] = {}

    def add(self, at: int, column: str, code: str, detail: Mapping[str, str]) -> None:
        self._found.setdefault((column, code), {})[at] = as_json(detail)

    def write(self) -> None:
        for (column, code), details in self._found.items():
            self._findings.add_each(column, code, np.array(list(details)), list(details.values()))


def named_differently(corrects: Sequence[tuple[int, int]], repeats: Mapping[int, int]) -> frozenset[int]:
    """Return the rows that several rows name, but for repeats of one row.

    `corrects` has row and named row (0: none) of each, `repeats` the first row of each that repeats one.
    """
    counts = Counter(named for number, named in {(repeats.get(number, number), named) for number, named in corrects})
    return frozenset(named for named, count in counts.items() if count > 1 and named)


def _is_spreadsheets_form(had: str, has: str) -> bool:
    """Return whether a spreadsheet may have written `has` for `had`: the same number, or a date another way."""
    if had == has:
        return False
    try:
        is_same_number = Decimal(had) == Decimal(has)
    except InvalidOperation:  # one is no number
        return bool(_LIKE_A_DATE.fullmatch(had) and _SPREADSHEETS_DATE.fullmatch(has))
    rounded = had.isdigit() and len(had) > DIGITS_KEPT and has == had[:DIGITS_KEPT] + "0" * (len(had) - DIGITS_KEPT)
    return is_same_number or rounded


def _is_shortened(had: str, has: str) -> bool:
    """Return whether a spreadsheet took a code for a number or a date; to put back zeros that it took is a correction."""
    return _is_spreadsheets_form(had, has) and not re.match("0[0-9]", has)

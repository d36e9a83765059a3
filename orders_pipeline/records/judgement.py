"""The verdict on rows: normalised, read as text and as values, and every finding of a row at once.

Here the record type's rules are asked in the quick way, and what they say is put together so that a cell gets one code for
one cause; what is accepted then has its Pandera schemas' word too. What other rows and earlier files say about a row comes
in `intake/validation.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.records.record_type import RecordType, RowRule, Rule
from orders_pipeline.records.rules import RowContext
from orders_pipeline.records.schemas import NUMBER, confirm

Mask: TypeAlias = "npt.NDArray[np.bool_]"
Positions: TypeAlias = "npt.NDArray[np.intp]"


@dataclass(frozen=True)
class Rows:
    """Rows of the right shape: their numbers, normalised text, the values of number and date columns, and whose they are.

    `nobodys` are those whose payer no cell of theirs names: two of them may be two people's.
    """

    number: pa.Array
    text: Mapping[str, pa.Array]
    values: Mapping[str, pa.Array]
    nobodys: pa.Array

    def where(self, keep: Mask) -> Rows:
        """Return the rows for which `keep` is true."""
        if keep.all():
            return self
        chosen = pa.array(keep)
        return Rows(
            self.number.filter(chosen),
            {name: cells.filter(chosen) for name, cells in self.text.items()},
            {name: cells.filter(chosen) for name, cells in self.values.items()},
            self.nobodys.filter(chosen),
        )

    def text_frame(self, columns: Iterable[str]) -> pd.DataFrame:
        """Return columns of text, indexed by row number."""
        return _frame(self.number, {name: self.text[name] for name in columns})


@dataclass(frozen=True)
class Finding:
    """One code found in one column, at some positions among the rows judged, with a detail (JSON) for each."""

    column: str
    code: str
    positions: Positions
    details: Sequence[str]

    def without(self, position: int) -> Finding:
        """Return the same finding but for one position."""
        kept = np.flatnonzero(self.positions != position)
        return Finding(self.column, self.code, self.positions[kept], [self.details[at] for at in kept.tolist()])


@dataclass
class Findings:
    """What is wrong with `size` rows."""

    size: int
    found: list[Finding] = field(default_factory=list)
    _bad: dict[str, Mask] = field(default_factory=dict)

    def bad_in(self, *columns: str) -> Mask:
        """Return which rows have a finding in any of the columns."""
        bad: Mask = np.zeros(self.size, np.bool_)
        for name in columns:
            if name in self._bad:
                bad |= self._bad[name]
        return bad

    @property
    def clean(self) -> Mask:
        """Return which rows have no finding at all."""
        return ~self.bad_in(*self._bad)

    def add(self, column: str, code: str, failed: Mask, detail: Mapping[str, str]) -> None:
        """Note a code for the cells that failed, but for those with a finding already: one cause, one code."""
        positions = np.flatnonzero(failed & ~self.bad_in(column))
        if len(positions):
            self.add_each(column, code, positions, [as_json(detail)] * len(positions))

    def add_each(self, column: str, code: str, positions: Positions, details: Sequence[str]) -> None:
        """Note a code at each of the positions, with a detail (JSON) of its own."""
        self.found.append(Finding(column, code, positions, details))
        self._bad.setdefault(column, np.zeros(self.size, np.bool_))[positions] = True

    def add_instead(self, code: str, position: int) -> None:
        """Note a code for a whole row, in place of all that was found in its cells."""
        self.found = [one.without(position) for one in self.found]
        for bad in self._bad.values():
            bad[position] = False
        self.add_each("", code, np.array([position]), [as_json({})])


@dataclass(frozen=True)
class Judge:
    """A record type's rules in one context, ready to judge any number of rows."""

    record_type: RecordType
    context: RowContext

    def judge(self, number: pa.Array, raw: Mapping[str, pa.Array]) -> tuple[Rows, Findings, dict[str, int]]:
        """Return the rows normalised and typed, what is wrong with them, and how many cells of each column changed."""
        kind = self.record_type
        text, changed = kind.normalised(raw, self.context)
        findings = Findings(len(number))
        text_rules = {column.name: column.all_text_rules for column in kind.columns}
        self._judge(number, text, text_rules, kind.text_row_rules, findings)
        usable = {column.name: pa.array(~findings.bad_in(column.name)) for column in kind.typed_columns}
        values = kind.typed(text, usable)
        typed_rules = {column.name: column.typed_rules for column in kind.typed_columns}
        self._judge(number, values, typed_rules, kind.typed_row_rules, findings)
        return Rows(number, text, values, kind.nobody(raw, text, self.context)), findings, changed

    def _judge(
        self,
        number: pa.Array,
        cells: Mapping[str, pa.Array],
        column_rules: Mapping[str, Sequence[Rule]],
        row_rules: Sequence[RowRule],
        findings: Findings,
    ) -> None:
        for name, rules in column_rules.items():
            for rule in rules:
                findings.add(name, rule.code, self._fail(rule, cells[name]), rule.detail)
        frame = _frame(number, cells)
        for row_rule in row_rules:
            failed = ~row_rule.check(frame).to_numpy(dtype=bool)
            findings.add(row_rule.column, row_rule.code, failed & ~findings.bad_in(*row_rule.suppressed_by), {})

    def confirm(self, rows: Rows) -> None:
        """Hold rows in which nothing was found against the Pandera schemas, which have the last word; raise RulesBroken."""
        if len(rows.number):
            text, values = (_frame(rows.number, cells) for cells in (rows.text, rows.values))
            confirm(self.record_type, self.context.today, text, values)

    def valid_identities(self, cells: pa.Array) -> tuple[pa.Array, Mask]:
        """Return the cells of the identity column normalised and case-folded, and which of them keep its rules."""
        normal, valid = self.valid_cells(self.record_type.identity, cells)
        return self.record_type.folded(normal), valid

    def valid_cells(self, name: str, cells: pa.Array) -> tuple[pa.Array, Mask]:
        """Return cells of a column normalised, and which of them keep its rules."""
        column = self.record_type.by_name[name]
        normal = column.normalised(cells, self.context)
        failures = [self._fail(rule, normal) for rule in column.all_text_rules]
        return normal, ~np.logical_or.reduce(failures)

    def _fail(self, rule: Rule, cells: pa.Array) -> Mask:
        """Return which cells do not keep a rule; nulls keep all."""
        kept = rule.condition(cells, self.context.today)
        failed: Mask = ~pc.fill_null(kept, True).to_numpy(zero_copy_only=False)
        return failed


def as_json(detail: Mapping[str, str]) -> str:
    """Write a finding's detail as it is kept."""
    return json.dumps(dict(detail), separators=(",", ":"))


def _frame(number: pa.Array, cells: Mapping[str, pa.Array]) -> pd.DataFrame:
    frame: pd.DataFrame = pa.table(dict(cells)).to_pandas(types_mapper=pd.ArrowDtype)
    frame.index = pd.Index(number.to_numpy(), name=NUMBER)
    return frame

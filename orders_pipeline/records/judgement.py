"""The verdict on rows: normalised, read as text and as values, and every finding of a row at once.

What is right is said by the record type's Pandera schemas; here their verdicts are put together, so that a cell gets
one code for one cause. What other rows and earlier files say about a row comes in `validation.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
from pandera.config import ValidationDepth, config_context

from orders_pipeline.records.record_type import RecordType, RowRule, Rule
from orders_pipeline.records.rules import RowContext
from orders_pipeline.records.schemas import text_schema, typed_schema
from orders_pipeline.records.verdicts import Mask, column_failures, row_failures

Positions: TypeAlias = "npt.NDArray[np.intp]"


@dataclass(frozen=True)
class Rows:
    """Rows of the right shape: their numbers, normalised text, the values of number and date columns, and whose they are.

    `nobodys` are those with the profile's default for the payer: two of them may be two people's.
    """

    number: pa.Array
    text: Mapping[str, pa.Array]
    values: Mapping[str, pa.Array]
    nobodys: pa.Array

    def where(self, keep: Mask) -> Rows:
        """Return the rows for which `keep` is true."""
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

    @cached_property
    def text_schema(self) -> pandera.DataFrameSchema:
        """The schema of normalised text."""
        return text_schema(self.record_type, self.context)

    @cached_property
    def typed_schema(self) -> pandera.DataFrameSchema:
        """The schema of numbers and dates."""
        return typed_schema(self.record_type, self.context)

    @cached_property
    def _known_frames(self) -> set[tuple[object, ...]]:
        return set()

    def judge(self, number: pa.Array, raw: Mapping[str, pa.Array]) -> tuple[Rows, Findings, dict[str, int]]:
        """Return the rows normalised and typed, what is wrong with them, and how many cells of each column changed."""
        kind = self.record_type
        text, changed = kind.normalised(raw, self.context)
        findings = Findings(len(number))
        text_rules = {column.name: column.all_text_rules for column in kind.columns}
        self._judge(self.text_schema, _frame(number, text), text_rules, kind.text_row_rules, findings)
        usable = {column.name: pa.array(~findings.bad_in(column.name)) for column in kind.typed_columns}
        values = kind.typed(text, usable)
        typed_rules = {column.name: column.typed_rules for column in kind.typed_columns}
        self._judge(self.typed_schema, _frame(number, values), typed_rules, kind.typed_row_rules, findings)
        return Rows(number, text, values, kind.nobody(text, self.context)), findings, changed

    def _judge(
        self,
        schema: pandera.DataFrameSchema,
        frame: pd.DataFrame,
        column_rules: Mapping[str, Sequence[Rule]],
        row_rules: Sequence[RowRule],
        findings: Findings,
    ) -> None:
        kinds = (id(schema), *frame.dtypes.items())
        if kinds not in self._known_frames:
            with config_context(validation_depth=ValidationDepth.SCHEMA_ONLY):  # the verdicts on values are taken as masks
                schema.validate(frame.iloc[:0])
            self._known_frames.add(kinds)
        for name, rules in column_rules.items():
            for rule, failed in zip(rules, column_failures(schema.columns[name], frame[name]), strict=True):
                findings.add(name, rule.code, failed, rule.detail)
        for row_rule, failed in zip(row_rules, row_failures(schema, frame), strict=True):
            findings.add(row_rule.column, row_rule.code, failed & ~findings.bad_in(*row_rule.suppressed_by), {})

    def valid_identities(self, cells: pa.Array) -> tuple[pa.Array, Mask]:
        """Return the cells of the identity column normalised and case-folded, and which of them keep its rules."""
        column = self.record_type.by_name[self.record_type.identity]
        normal = column.normalised(cells, self.context)
        failures = column_failures(self.text_schema.columns[column.name], _series(normal))
        return self.record_type.folded(normal), ~np.logical_or.reduce(failures)


def as_json(detail: Mapping[str, str]) -> str:
    """Write a finding's detail as it is kept."""
    return json.dumps(dict(detail), separators=(",", ":"))


def _frame(number: pa.Array, cells: Mapping[str, pa.Array]) -> pd.DataFrame:
    frame: pd.DataFrame = pa.table(dict(cells)).to_pandas(types_mapper=pd.ArrowDtype)
    frame.index = pd.Index(number.to_numpy(), name="import_row_number")
    return frame


def _series(cells: pa.Array) -> pd.Series[Any]:
    return pd.Series(cells, dtype=pd.ArrowDtype(cells.type))

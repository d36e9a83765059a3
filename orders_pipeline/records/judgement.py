"""What judges a row: every rule, quickly, over Arrow arrays; then the Pandera schemas, which have the last word.

`Judge.judge` finds all that is wrong with rows at once, one code a cell. `Judge.confirm` holds rows in which nothing was
found against schemas made of the same columns and rules, in Pandera's way and not in Arrow's, and with what no rule says:
types, nulls, order of columns, rows that come twice. What other rows and earlier files say about a row comes in
`intake/validation.py`.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pyarrow.compute as pc
from pandera.config import ValidationDepth, config_context
from pandera.errors import SchemaError, SchemaErrors

from orders_pipeline.records.card_numbers import card_numbers_among
from orders_pipeline.records.distinct import Distinct
from orders_pipeline.records.normalise import utf8_content
from orders_pipeline.records.record_type import RecordType, RowContext
from orders_pipeline.records.rules import (
    AtMost,
    Between,
    CalendarDate,
    DaysBack,
    Filled,
    Lacks,
    Matches,
    NoCardNumber,
    OneOf,
    RowRule,
    Rule,
)

Mask: TypeAlias = "npt.NDArray[np.bool_]"
Positions: TypeAlias = "npt.NDArray[np.intp]"

NUMBER = "import_row_number"
_JSON = json.JSONEncoder(separators=(",", ":"))  # json.dumps would make one for each detail
_MOST_NAMED = 5  # rows for each rule
_FEW: Mapping[str, Any] = {"n_failure_cases": _MOST_NAMED}


@dataclass(frozen=True)
class Rows:
    """Rows of the right shape: their numbers, all cells as normalised text, and those of number and date columns as values.

    `is_nobodys` is true for rows whose payer no cell of theirs names: two of them may be two people's.
    """

    number: pa.Array
    text: Mapping[str, pa.Array]
    values: Mapping[str, pa.Array]
    is_nobodys: pa.Array

    def where(self, keep: Mask) -> Rows:
        """Return the rows for which `keep` is true."""
        if keep.all():
            return self
        chosen = pa.array(keep)
        return Rows(
            self.number.filter(chosen),
            {name: cells.filter(chosen) for name, cells in self.text.items()},
            {name: cells.filter(chosen) for name, cells in self.values.items()},
            self.is_nobodys.filter(chosen),
        )


@dataclass(frozen=True)
class Finding:
    """One code found in one column, at some positions among the rows judged, with a detail (JSON) for each."""

    column: str
    code: str
    positions: Positions
    details: Sequence[str]

    def without(self, positions: Positions) -> Finding:
        """Return the same finding but for some positions."""
        kept = np.flatnonzero(np.isin(self.positions, positions, invert=True))
        return Finding(self.column, self.code, self.positions[kept], [self.details[at] for at in kept.tolist()])


@dataclass
class Findings:
    """All that is wrong with `size` rows; positions count from 0 among these."""

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
        self.forget(np.array([position]))
        self.add_each("", code, np.array([position]), [as_json({})])

    def alone(self, code: str) -> Positions:
        """Return the positions of rows in which nothing but one code was found."""
        counts = np.zeros(self.size, np.intp)
        for finding in self.found:
            np.add.at(counts, finding.positions, 1)
        of_code = np.zeros(self.size, np.bool_)
        for finding in self.found:
            of_code[finding.positions] |= finding.code == code
        return np.flatnonzero(of_code & (counts == 1))

    def forget(self, positions: Positions) -> None:
        """Take all that was found in some rows for not found."""
        self.found = [finding.without(positions) for finding in self.found]
        for bad in self._bad.values():
            bad[positions] = False


class RulesBroken(Exception):
    """Rows in which nothing was found break rules, a defect of ours; names the rules and rows, and nothing of the cells."""

    code = "E_VALIDATION"

    def __init__(self, broken: Mapping[str, Sequence[int]]) -> None:
        self.broken = broken
        said = "; ".join(f"{rule} (rows {', '.join(map(str, rows))}...)" for rule, rows in broken.items())
        super().__init__(f"{self.code}: rows passed that break rules, so nothing of the file is loaded: {said}")


@dataclass(frozen=True)
class Judge:
    """A record type's rules in one context, ready to judge any number of rows."""

    record_type: RecordType
    context: RowContext

    def judge(self, number: pa.Array, raw: Mapping[str, pa.Array]) -> tuple[Rows, Findings, dict[str, int]]:
        """Return rows normalised and typed, what is wrong with them, and how many cells of each column were changed.

        `number` are their numbers in the file, `raw` their cells as they came, by column; all arrays are of one length.
        """
        kind = self.record_type
        distinct, changed = kind.normalised(raw, self.context)
        findings = Findings(len(number))
        for column in kind.columns:
            self._judge_cells(column.name, distinct[column.name], column.all_text_rules, findings)
        text = {name: each.cells for name, each in distinct.items()}
        self._judge_rows(number, text, kind.text_row_rules, findings)
        usable = {column.name: pa.array(~findings.bad_in(column.name)) for column in kind.typed_columns}
        values = kind.typed(text, usable)
        for column in kind.typed_columns:
            self._judge_cells(column.name, Distinct(values[column.name]), column.typed_rules, findings)
        self._judge_rows(number, values, kind.typed_row_rules, findings)
        return Rows(number, text, values, kind.is_nobodys(raw, text, self.context)), findings, changed

    def _judge_cells(self, name: str, cells: Distinct, rules: Sequence[Rule], findings: Findings) -> None:
        for rule in rules:
            failed = self._failed(rule, cells.texts)
            if failed.any():
                findings.add(name, rule.code, cells.spread(failed), rule.detail)

    @staticmethod
    def _judge_rows(number: pa.Array, cells: Mapping[str, pa.Array], rules: Sequence[RowRule], findings: Findings) -> None:
        frame = _frame(number, cells)
        for rule in rules:
            failed = ~rule.check(frame).to_numpy(dtype=bool)
            findings.add(rule.column, rule.code, failed & ~findings.bad_in(*rule.suppressed_by), {})

    def warned(self, rows: Rows) -> Counter[str]:
        """Return how many cells of rows in which nothing was found are to be warned of, by code."""
        warnings = [(column.name, rule) for column in self.record_type.columns for rule in column.warnings]
        return Counter({rule.code: int(self._failed(rule, rows.text[name]).sum()) for name, rule in warnings})

    def confirm(self, rows: Rows) -> None:
        """Hold rows in which nothing was found against the Pandera schemas; raise RulesBroken."""
        if not len(rows.number):
            return
        frames = [_frame(rows.number, cells) for cells in (rows.text, rows.values)]
        with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):  # whatever is set
            schemas = schemas_of(self.record_type, self.context.today)
            broken = dict(rule for schema, frame in zip(schemas, frames, strict=True) for rule in _broken(schema, frame))
        if broken:
            raise RulesBroken(broken)

    def valid_identities(self, cells: pa.Array) -> tuple[pa.Array, Mask]:
        """Return cells of the identity column normalised and case-folded, and which of them pass its rules."""
        normal, valid = self.valid_cells(self.record_type.identity, cells)
        return self.record_type.folded(normal), valid

    def valid_cells(self, name: str, cells: pa.Array) -> tuple[pa.Array, Mask]:
        """Return cells of a column normalised, and which of them pass its rules."""
        column = self.record_type.by_name[name]
        normal = column.normalised(cells, self.context)
        return normal, ~np.logical_or.reduce([self._failed(rule, normal) for rule in column.all_text_rules])

    def _failed(self, rule: Rule, cells: pa.Array) -> Mask:
        passed = pc.fill_null(rule.condition(cells, self.context.today), True)
        failed: Mask = ~passed.to_numpy(zero_copy_only=False)
        return failed


def mask_of(flags: pa.Array) -> Mask:
    """Return what is true of each as a mask, where none is null."""
    mask: Mask = flags.to_numpy(zero_copy_only=False)
    return mask


def as_json(detail: Mapping[str, str]) -> str:
    """Write a finding's detail as it is kept."""
    return _JSON.encode(dict(detail))


def _frame(number: pa.Array, cells: Mapping[str, pa.Array]) -> pd.DataFrame:
    frame: pd.DataFrame = pa.table(dict(cells)).to_pandas(types_mapper=pd.ArrowDtype)
    frame.index = pd.Index(number.to_numpy(), name=NUMBER)
    return frame


def _broken(schema: pandera.DataFrameSchema, rows: pd.DataFrame) -> list[tuple[str, Sequence[int]]]:
    """Return what is broken, each with the numbers of the first rows that break it."""
    try:
        schema.validate(rows, lazy=True, inplace=True)
    except SchemaErrors as errors:  # its words and tables have cells in them
        return [(_rule_of(error), _rows_of(error)) for error in errors.schema_errors]
    return []


def _rule_of(error: SchemaError) -> str:
    name = getattr(error.check, "name", None) or str(error.check)
    return f"{name} in {error.schema.name}" if error.schema.name else name


def _rows_of(error: SchemaError) -> Sequence[int]:
    cases = error.failure_cases
    return [] if not isinstance(cases, pd.DataFrame) else cases["index"].drop_duplicates().head(_MOST_NAMED).tolist()


@functools.lru_cache(maxsize=4)
def schemas_of(record_type: RecordType, today: date) -> tuple[pandera.DataFrameSchema, pandera.DataFrameSchema]:
    """Return the schemas of text and of values, which are made once a day."""
    text = {
        column.name: pandera.Column(
            pd.ArrowDtype(pa.string()),
            _checks(column.all_text_rules, today),
            unique=column.name == record_type.identity,
        )
        for column in record_type.columns
    }
    values = {
        column.name: pandera.Column(
            pd.ArrowDtype(column.arrow_type),
            _checks(column.typed_rules, today),
            nullable=not column.required,
        )
        for column in record_type.typed_columns
    }
    return _schema(text, record_type.text_row_rules), _schema(values, record_type.typed_row_rules)


def _schema(columns: dict[str, pandera.Column], row_rules: Sequence[RowRule]) -> pandera.DataFrameSchema:
    checks = [
        # Pandera would look for rows that are null as a whole
        pandera.Check(rule.check, name=f"{rule.code} in {rule.column}", ignore_na=False, **_FEW)
        for rule in row_rules
    ]
    index = pandera.Index("int32", pandera.Check.ge(1), unique=True, name=NUMBER)
    return pandera.DataFrameSchema(columns, checks, index=index, strict=True, ordered=True)


def _checks(rules: Sequence[Rule], today: date) -> list[pandera.Check]:
    checks = [_check(rule, today) for rule in rules if not isinstance(rule.condition, Lacks)]
    lacked = {rule.condition: rule.code for rule in rules if isinstance(rule.condition, Lacks)}
    if lacked:  # looked for all at once
        name = " or ".join(dict.fromkeys(lacked.values()))
        checks.append(pandera.Check(partial(_lack, conditions=[*lacked]), name=name, **_FEW))
    return checks


def _check(rule: Rule, today: date) -> pandera.Check:
    options: dict[str, Any] = {"name": rule.code, **_FEW}
    match rule.condition:
        case Filled():
            check = pandera.Check(lambda cells: cells.str.strip() != "", **options)
        case AtMost(characters):
            check = pandera.Check.str_length(max_value=characters, **options)
        case Matches(pattern):
            check = pandera.Check.str_matches(f"(?:{pattern})?$", **options)
        case OneOf(choices):
            check = pandera.Check.isin(["", *choices], **options)
        case Between(low, high):
            check = pandera.Check.in_range(low, high, **options)
        case DaysBack(most):
            check = pandera.Check.in_range(today - timedelta(days=most), today, **options)
        case CalendarDate():
            check = pandera.Check(_are_days, **options)
        case NoCardNumber(in_codes):
            check = pandera.Check(partial(_lack_cards, in_codes=in_codes), **options)
        case other:
            raise TypeError(f"no Pandera check is made of {other}")
    return check


def _are_days(cells: pd.Series[str]) -> pd.Series[bool]:
    distinct = cells.drop_duplicates()
    days = (distinct.str.len() == 10) & pd.to_datetime(distinct, format="%Y-%m-%d", errors="coerce").notna()
    return cells.isin(["", *distinct[days]])


def _lack(cells: pd.Series[str], *, conditions: Sequence[Lacks]) -> pd.Series[bool]:
    texts = _texts(cells)
    content = utf8_content(texts)
    may_match = [lacks for lacks in conditions if not lacks.marks or any(mark in content for mark in lacks.marks)]
    if not may_match:
        return pd.Series(data=True, index=cells.index)
    found = pc.match_substring_regex(texts, "|".join(f"(?:{lacks.pattern})" for lacks in may_match))
    return pd.Series(~found.to_numpy(zero_copy_only=False), index=cells.index)


def _lack_cards(cells: pd.Series[str], *, in_codes: bool) -> pd.Series[bool]:
    return ~cells.isin(card_numbers_among(Distinct.of(_texts(cells)).texts, in_codes=in_codes).to_pylist())


def _texts(cells: pd.Series[str]) -> pa.Array:
    texts = pa.array(cells.array)
    return texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts

"""The Pandera schemas of a record type: what accepted rows are, as text and as numbers and dates. They have the last word.

They are made of the same columns and rules as the quick verdicts in `judgement.py`, but look at the rows in Pandera's
way, not in Arrow's, and at what no rule says: types, nulls, order of columns, rows that come twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from functools import partial
from typing import Any

import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pyarrow.compute as pc
from pandera.config import ValidationDepth, config_context
from pandera.errors import SchemaError, SchemaErrors

from orders_pipeline.records.card_numbers import card_numbers_among
from orders_pipeline.records.normalise import utf8_content
from orders_pipeline.records.record_type import RecordType, RowRule, Rule
from orders_pipeline.records.rules import (
    AtMost,
    Between,
    CalendarDate,
    Condition,
    DaysBack,
    Filled,
    Lacks,
    Matches,
    NoCardNumber,
    OneOf,
)

NUMBER = "import_row_number"
_MOST_SAID = 5  # rows for each rule
_FEW: Mapping[str, Any] = {"n_failure_cases": _MOST_SAID}


class RulesBroken(Exception):
    """Rows that were accepted do not keep the rules; says which rules and rows, and nothing of the cells."""

    code = "E_VALIDATION"

    def __init__(self, broken: Mapping[str, Sequence[int]]) -> None:
        self.broken = broken
        said = "; ".join(f"{rule} (rows {', '.join(map(str, rows))}...)" for rule, rows in broken.items())
        super().__init__(f"{self.code}: rows passed that break rules, so nothing of the file is loaded: {said}")


def confirm(record_type: RecordType, today: date, text: pd.DataFrame, values: pd.DataFrame) -> None:
    """Hold accepted rows against the schemas, whatever Pandera's settings in the environment; raise RulesBroken."""
    with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
        schemas = zip(schemas_of(record_type, today), (text, values), strict=True)
        broken = dict(each for schema, rows in schemas for each in _broken(schema, rows))
    if broken:
        raise RulesBroken(broken)


def _broken(schema: pandera.DataFrameSchema, rows: pd.DataFrame) -> list[tuple[str, Sequence[int]]]:
    """Return what is broken, each with the numbers of the first rows that break it."""
    try:
        schema.validate(rows, lazy=True, inplace=True)
    except SchemaErrors as errors:  # its words and tables have cells in them
        return [(_name(each), _numbers(each)) for each in errors.schema_errors]
    return []


def _name(error: SchemaError) -> str:
    name = getattr(error.check, "name", None) or str(error.check)
    return f"{name} in {error.schema.name}" if error.schema.name else name


def _numbers(error: SchemaError) -> Sequence[int]:
    cases = error.failure_cases
    return [] if not isinstance(cases, pd.DataFrame) else cases["index"].drop_duplicates().head(_MOST_SAID).tolist()


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
    match rule.condition:
        case Matches(pattern):
            check = pandera.Check.str_matches(f"(?:{pattern})?$", name=rule.code, **_FEW)
        case OneOf(choices):
            check = pandera.Check.isin(["", *choices], name=rule.code, **_FEW)
        case AtMost(characters):
            check = pandera.Check.str_length(max_value=characters, name=rule.code, **_FEW)
        case Between(low, high):
            check = pandera.Check.in_range(low, high, name=rule.code, **_FEW)
        case DaysBack(most):
            check = pandera.Check.in_range(today - timedelta(days=most), today, name=rule.code, **_FEW)
        case NoCardNumber(in_codes):
            check = pandera.Check(partial(_lack_cards, in_codes=in_codes), name=rule.code, **_FEW)
        case other:
            check = pandera.Check(_OTHERS[type(other)], name=rule.code, **_FEW)
    return check


def _are_days(cells: pd.Series[str]) -> pd.Series[bool]:
    distinct = cells.drop_duplicates()
    days = (distinct.str.len() == 10) & pd.to_datetime(distinct, format="%Y-%m-%d", errors="coerce").notna()
    return cells.isin(["", *distinct[days]])


def _lack(cells: pd.Series[str], *, conditions: Sequence[Lacks]) -> pd.Series[bool]:
    texts = _texts(cells)
    content = utf8_content(texts)
    may_match = [each for each in conditions if not each.marks or any(mark in content for mark in each.marks)]
    if not may_match:
        return pd.Series(data=True, index=cells.index)
    found = pc.match_substring_regex(texts, "|".join(f"(?:{each.pattern})" for each in may_match))
    return pd.Series(~found.to_numpy(zero_copy_only=False), index=cells.index)


def _lack_cards(cells: pd.Series[str], *, in_codes: bool) -> pd.Series[bool]:
    return ~cells.isin(card_numbers_among(_texts(cells), in_codes=in_codes).to_pylist())


def _texts(cells: pd.Series[str]) -> pa.Array:
    texts = pa.array(cells.array)
    return texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts


_OTHERS: Mapping[type[Condition], Callable[[pd.Series[str]], pd.Series[bool]]] = {
    Filled: lambda cells: cells.str.strip() != "",
    CalendarDate: _are_days,
}

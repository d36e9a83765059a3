"""The two Pandera schemas of a record type, made of its columns and rules: the authority on which cells are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa

from orders_pipeline.records.record_type import Passed, RecordType, RowRule, Rule
from orders_pipeline.records.rules import RowContext


def text_schema(record_type: RecordType, context: RowContext) -> pandera.DataFrameSchema:
    """Build the schema of the normalised text: every column a string, checks in the order of the rules."""
    columns = {column.name: _schema_column(pa.string(), column.all_text_rules, context) for column in record_type.columns}
    return pandera.DataFrameSchema(columns, checks=_row_checks(record_type.text_row_rules, context), strict=True)


def typed_schema(record_type: RecordType, context: RowContext) -> pandera.DataFrameSchema:
    """Build the schema of the numbers and dates: nulls are cells that were empty or failed as text."""
    columns = {
        column.name: _schema_column(column.arrow_type, column.typed_rules, context, nullable=True)
        for column in record_type.typed_columns
    }
    return pandera.DataFrameSchema(columns, checks=_row_checks(record_type.typed_row_rules, context), strict=True)


def _schema_column(
    arrow_type: pa.DataType, column_rules: tuple[Rule, ...], context: RowContext, *, nullable: bool = False
) -> pandera.Column:
    return pandera.Column(
        pd.ArrowDtype(arrow_type),
        checks=[_check(rule.check, rule.code, context) for rule in column_rules],
        nullable=nullable,
    )


def _row_checks(row_rules: tuple[RowRule, ...], context: RowContext) -> list[pandera.Check]:
    return [_check(rule.check, rule.code, context) for rule in row_rules]


def _check(function: Callable[[Any, RowContext], Passed], code: str, context: RowContext) -> pandera.Check:
    # Rules answer for nulls themselves: Pandera would copy the column without them, and look through whole rows.
    return pandera.Check(lambda checked: function(checked, context), name=code, error=code, ignore_na=False)

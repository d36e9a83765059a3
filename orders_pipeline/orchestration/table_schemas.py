"""Tables as Dagster shows them: the columns of assets, made from the catalogue, and small tables of what something came to.

What a column is and which rules it obeys is said in `records/`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from orders_pipeline.records.record_type import Column, RecordType


def as_sent(record_type: RecordType) -> dg.TableSchema:
    """Return all columns of a record type as staging leaves them: text, whatever the file said."""
    return dg.TableSchema([_column(column, "string") for column in record_type.columns])


def as_accepted(record_type: RecordType) -> dg.TableSchema:
    """Return the columns that leave validation, with their types."""
    return dg.TableSchema(
        [_column(column, str(column.arrow_field.type)) for column in record_type.columns if column.stored],
    )


def table(rows: Sequence[Mapping[str, str]]) -> dg.MetadataValue[Any]:
    """Return some rows, at least one, as a table that Dagster shows at once, however long it is."""
    schema = dg.TableSchema([dg.TableColumn(name) for name in rows[0]])
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows], schema)


def _column(column: Column, type_: str) -> dg.TableColumn:
    is_private = column.personal or column.secret
    headers = f"In Japanese files: {', '.join(column.aliases)}." if column.aliases else ""
    return dg.TableColumn(
        column.name,
        type=type_,
        description=" ".join(part for part in (headers, "Kept encrypted." if is_private else "") if part) or None,
        constraints=dg.TableColumnConstraints(
            nullable=not column.required, other=[f"at most {column.max_length} characters"]
        ),
        tags={"personal" if column.personal else "secret": ""} if is_private else {},
    )

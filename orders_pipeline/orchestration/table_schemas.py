"""The columns of assets as Dagster shows them, made from the catalogue.

What a column is and which rules it obeys is said in `records/`.
"""

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

"""The assets of intake: what was uploaded, staged, validated and loaded."""

import dagster as dg

from orders_pipeline.batches.run_tags import shown_name
from orders_pipeline.clients.file_names import encoding_shown
from orders_pipeline.intake import steps
from orders_pipeline.orchestration import checks
from orders_pipeline.orchestration.assets.boundary import (
    BATCH,
    OPERATIONS,
    PERSONAL,
    about,
    batch_step,
    read_batch,
    seconds_of,
)
from orders_pipeline.orchestration.partitions import batch_partitions
from orders_pipeline.orchestration.table_schemas import as_accepted, as_sent
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.reports import finishing
from orders_pipeline.system.composition import System

uploaded_csv = dg.AssetSpec(
    "uploaded_csv",
    description="The order file as the client put it into the landing: `<client_code>/<name>`, .csv, .tsv, .txt or .xlsx.",
    partitions_def=batch_partitions,
    group_name=BATCH,
    owners=OPERATIONS,
    tags=PERSONAL,
    kinds={"csv"},
)


def uploaded(batch_id: str, client_code: str, csv_source: str) -> dg.AssetMaterialization:
    """Return the event that a batch's file has arrived, for who registers it."""
    metadata = {"client": client_code, "file": shown_name(csv_source)}
    return dg.AssetMaterialization(uploaded_csv.key, partition=batch_id, metadata=metadata)


@dg.asset(
    deps=[uploaded_csv],
    partitions_def=batch_partitions,
    group_name=BATCH,
    owners=OPERATIONS,
    tags=PERSONAL,
    kinds={"csv", "parquet"},
    metadata={"dagster/column_schema": as_sent(ORDERS)},
    check_specs=[checks.FILE_ACCEPTED],
)
def staged_orders(context: dg.AssetExecutionContext, system: dg.ResourceParam[System]) -> dg.MaterializeResult:
    """The bytes as they came, kept encrypted; their encoding and shape checked, their rows numbered.

    A file that is no order file is rejected here as a whole: its check says why.
    """
    with batch_step(context, system):
        steps.stage_batch(system, context.partition_key)
        batch = read_batch(system, context.partition_key)
        results = [checks.file_accepted(batch)]
        return dg.MaterializeResult(
            metadata={
                **about(batch),
                "checks": checks.in_words(results),
                "encoding": encoding_shown(batch.csv_source, batch.encoding) or "",
                "sha256": batch.source_sha256 or "",
                "dagster/size_bytes": batch.source_bytes or 0,
                "dagster/row_count": batch.rows_total or 0,
                "blank rows": batch.rows_blank or 0,
                "seconds": seconds_of(system, batch.batch_id, "stage"),
            },
            check_results=results,
        )


@dg.asset(
    deps=[staged_orders],
    partitions_def=batch_partitions,
    group_name=BATCH,
    owners=OPERATIONS,
    tags=PERSONAL,
    kinds={"pandera", "parquet"},
    metadata={"dagster/column_schema": as_accepted(ORDERS)},
    check_specs=[checks.TOTALS_ACCEPTED, checks.MOST_ROWS_ACCEPTED],
)
def validated_orders(context: dg.AssetExecutionContext, system: dg.ResourceParam[System]) -> dg.MaterializeResult:
    """Every row judged: accepted, or rejected with all its errors.

    Rejected rows go back to the client in `rejected.csv`; the others go on.
    """
    with batch_step(context, system):
        steps.validate_batch(system, context.partition_key)
        batch = read_batch(system, context.partition_key)
        results = [checks.file_accepted(batch), checks.most_rows_accepted(batch)]
        return dg.MaterializeResult(
            metadata={
                **about(batch),
                "checks": checks.in_words(results),
                "dagster/row_count": batch.rows_accepted or 0,
                "rejected rows": batch.rows_rejected or 0,
                "accepted (yen)": batch.amount_accepted or 0,
                "cells put into normal form": dg.MetadataValue.json(batch.cells_normalised or "none"),
                "seconds": seconds_of(system, batch.batch_id, "validate"),
            },
            check_results=results,
        )


@dg.asset(
    deps=[validated_orders],
    partitions_def=batch_partitions,
    group_name=BATCH,
    owners=OPERATIONS,
    tags=PERSONAL,
    kinds={"postgres"},
    metadata={"dagster/table_name": "orders", "dagster/column_schema": as_accepted(ORDERS)},
    check_specs=checks.ORDER_CHECKS,
)
def orders(context: dg.AssetExecutionContext, system: dg.ResourceParam[System]) -> dg.MaterializeResult:
    """The accepted rows in the table `orders`, with their batch and row number.

    Personal columns are encrypted together, in one column.
    """
    with batch_step(context, system):
        steps.load_batch(system, context.partition_key)
        finishing.write_row_reports(system.storage, system.database, context.partition_key)
        batch = read_batch(system, context.partition_key)
        with system.database.begin() as transaction:
            loaded = transaction.rows("loaded_totals", batch_id=batch.batch_id)[0]
            results = checks.order_checks(transaction, batch.batch_id)
        return dg.MaterializeResult(
            metadata={
                **about(batch),
                "checks": checks.in_words(results),
                "dagster/row_count": loaded.orders,
                "loaded (yen)": int(loaded.amount),
                "import group": batch.bulk_import_group,
                "seconds": seconds_of(system, batch.batch_id, "load"),
            },
            check_results=results,
        )

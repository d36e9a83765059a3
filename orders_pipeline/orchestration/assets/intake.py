"""The assets of intake: what was uploaded, staged, validated and loaded."""

import dagster as dg

from orders_pipeline.clients.file_names import encoding_shown
from orders_pipeline.intake import steps
from orders_pipeline.orchestration import checks
from orders_pipeline.orchestration.assets.boundary import GROUP, batch_step, read_batch, seconds_of
from orders_pipeline.orchestration.partitions import batch_partitions
from orders_pipeline.reports import finishing
from orders_pipeline.system.composition import System

uploaded_csv = dg.AssetSpec(
    "uploaded_csv",
    description="The order file as the client put it into the landing: `<client_code>/<name>`, .csv, .tsv, .txt or .xlsx.",
    partitions_def=batch_partitions,
    group_name=GROUP,
    kinds={"csv"},
)


def uploaded(batch_id: str) -> dg.AssetMaterialization:
    """Return the event that a batch's file has arrived, for who registers it."""
    return dg.AssetMaterialization(uploaded_csv.key, partition=batch_id)


@dg.asset(
    deps=[uploaded_csv],
    partitions_def=batch_partitions,
    group_name=GROUP,
    kinds={"parquet"},
    check_specs=[checks.FILE_ACCEPTED],
)
def staged_orders(context: dg.AssetExecutionContext, system: dg.ResourceParam[System]) -> dg.MaterializeResult:
    """The bytes archived unchanged; encoding and shape checked, rows numbered."""
    with batch_step(context, system):
        steps.stage_batch(system, context.partition_key)
        batch = read_batch(system, context.partition_key)
        return dg.MaterializeResult(
            metadata={
                "client": batch.client_code,
                "batch status": batch.status,
                "encoding": encoding_shown(batch.csv_source, batch.encoding) or "",
                "sha256": batch.source_sha256 or "",
                "bytes": batch.source_bytes or 0,
                "dagster/row_count": batch.rows_total or 0,
                "blank rows": batch.rows_blank or 0,
                "seconds": seconds_of(system, batch.batch_id, "stage"),
            },
            check_results=[checks.file_accepted(batch)],
        )


@dg.asset(
    deps=[staged_orders],
    partitions_def=batch_partitions,
    group_name=GROUP,
    kinds={"pandera", "parquet"},
    check_specs=[checks.TOTALS_ACCEPTED],
)
def validated_orders(context: dg.AssetExecutionContext, system: dg.ResourceParam[System]) -> dg.MaterializeResult:
    """Every row judged: accepted, or rejected with all its errors."""
    with batch_step(context, system):
        steps.validate_batch(system, context.partition_key)
        batch = read_batch(system, context.partition_key)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": batch.rows_accepted or 0,
                "rejected rows": batch.rows_rejected or 0,
                "accepted (yen)": batch.amount_accepted or 0,
                "cells put into normal form": dg.MetadataValue.json(batch.cells_normalised),
                "seconds": seconds_of(system, batch.batch_id, "validate"),
            },
            check_results=[checks.file_accepted(batch)],
        )


@dg.asset(
    deps=[validated_orders],
    partitions_def=batch_partitions,
    group_name=GROUP,
    kinds={"postgres"},
    check_specs=[checks.ROWS_ADD_UP, checks.YEN_ADD_UP],
)
def orders(context: dg.AssetExecutionContext, system: dg.ResourceParam[System]) -> dg.MaterializeResult:
    """The accepted rows in the table `orders`, with their batch and row number."""
    with batch_step(context, system):
        steps.load_batch(system, context.partition_key)
        finishing.write_row_reports(system.storage, system.database, context.partition_key)
        batch = read_batch(system, context.partition_key)
        with system.database.begin() as transaction:
            loaded = transaction.rows("loaded_totals", batch_id=batch.batch_id)[0]
            results = checks.order_checks(transaction, batch.batch_id)
        return dg.MaterializeResult(
            metadata={
                "dagster/table_name": "orders",
                "dagster/row_count": loaded.orders,
                "loaded (yen)": int(loaded.amount),
                "import group": batch.bulk_import_group,
                "seconds": seconds_of(system, batch.batch_id, "load"),
            },
            check_results=results,
        )

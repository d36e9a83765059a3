"""The job that takes one batch from its file to its report, and the one that replaces an encryption key.

A batch runs in one process: payments and notifications are parallel inside their step, over a ledger that other processes
may join. A run that fails is tried again from the asset that failed.
"""

import dagster as dg

from orders_pipeline.batches.run_tags import PROCESS
from orders_pipeline.orchestration.assets.encryption_keys import RotationConfig

process_batch = dg.define_asset_job(
    PROCESS,
    selection=dg.AssetSelection.assets(
        "staged_orders", "validated_orders", "orders", "payments", "notifications", "batch_report"
    ),
    executor_def=dg.in_process_executor,
    tags={"dagster/max_retries": "2", "dagster/retry_strategy": "FROM_ASSET_FAILURE"},
    description="One batch: staged, validated, loaded, paid, notified, reported. Running it again resumes the batch.",
)

rotate_keys = dg.define_asset_job(
    "rotate_keys",
    selection=dg.AssetSelection.assets("encryption_keys"),
    config=dg.RunConfig({"encryption_keys": RotationConfig(anew=True)}),
    executor_def=dg.in_process_executor,
    tags={"dagster/max_retries": "2"},
    description="Encrypts everything anew with the first key of the setting. Running it again resumes where it stopped.",
)

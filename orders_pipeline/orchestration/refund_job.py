"""The job that carries out a batch's refunds that were asked for; they are written down already, by whoever asks for them.

It makes nothing that is an asset of the batch. Refunds are also resumed by the batch's own job and by `resume`.
"""

import dagster as dg

from orders_pipeline.batches.run_tags import REFUND
from orders_pipeline.orchestration.assets.boundary import pause, require_batch, safe_errors
from orders_pipeline.orchestration.partitions import batch_partitions
from orders_pipeline.reports import finishing, summaries
from orders_pipeline.settlement.refunds import refunding
from orders_pipeline.system.composition import System


@dg.op
def refund_orders(context: dg.OpExecutionContext, system: dg.ResourceParam[System]) -> None:
    """Refund what is open of a batch's refunds and correct the customers; what waits for somebody fails the run."""
    with safe_errors(system):
        batch_id = str(require_batch(context, system).batch_id)
        refunding.resume(system, batch_id)
        finishing.renew_result(system, batch_id)
        summary = summaries.summarise(system, batch_id)
        refunds = summary["refunds"]
        context.log.info(
            f"{refunds['succeeded']:,} of {refunds['planned']:,} refunds made, {refunds['declined']:,} declined; "
            f"{refunds['corrections']['sent']:,} of {refunds['corrections']['planned']:,} corrections sent"
        )
        if summaries.is_refunding(summary):
            raise pause(context, system)


@dg.job(
    name=REFUND,
    partitions_def=batch_partitions,
    executor_def=dg.in_process_executor,
    tags={"dagster/max_retries": "2"},
    description="The refunds of one batch that were asked for, and their corrections. Running it again resumes them.",
)
def refund_batch() -> None:
    """Refund what was asked for."""
    refund_orders()

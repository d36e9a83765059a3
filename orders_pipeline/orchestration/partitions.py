"""The partition of every asset, one batch, added when its file arrives.

Nothing else is a partition, a row never is. Dagster's pages become slow with a hundred thousand of them, so those of batches
that are long finished go, as do runs that failed long ago; the batches stay.
"""

import dagster as dg

from orders_pipeline.infrastructure.database import Database

MOST_RETIRED = 5_000  # partitions, or runs, in one night

batch_partitions = dg.DynamicPartitionsDefinition(name="batch_id")


def retire(database: Database, instance: dg.DagsterInstance) -> int:
    """Take the partitions of batches that are long finished out of Dagster's lists, and return how many those were."""
    name = str(batch_partitions.name)
    with database.begin() as transaction:
        known = list(instance.get_dynamic_partitions(name))
        old = transaction.rows("partitions_to_retire", batch_ids=known, limit=MOST_RETIRED)
    for row in old:
        instance.delete_dynamic_partition(name, row.batch_id)
    return len(old)


def forget_failed_runs(database: Database, instance: dg.DagsterInstance) -> int:
    """Remove the runs that failed or were canceled before Dagster's history begins, and return how many those were."""
    with database.begin() as transaction:
        since = transaction.scalar("dagster_events_since")
    ended = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    old = instance.get_run_ids(dg.RunsFilter(statuses=ended, updated_before=since), limit=MOST_RETIRED)
    for run_id in old:
        instance.delete_run(run_id)
    return len(old)

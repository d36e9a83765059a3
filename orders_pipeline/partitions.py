"""The partition of every asset, one batch, added when its file arrives; and the tags of a batch's run.

Nothing else is a partition, a row never is.
"""

import dagster as dg

PARTITION_TAG = "dagster/partition"  # Dagster's own, on every run of a partition
SIZE_TAG, LARGE = "orders/size", "large"
LARGE_BYTES = 512 * 1024  # some 3,000 orders

batch_partitions = dg.DynamicPartitionsDefinition(name="batch_id")


def tags_of(client_code: str, source_bytes: int | None) -> dict[str, str]:
    """Return the tags of a batch's run: whose file it is, and whether it is kept to the places of large ones."""
    tags = {"orders/client": client_code}
    large = (source_bytes or 0) > LARGE_BYTES
    return tags | ({SIZE_TAG: LARGE} if large else {"dagster/priority": "1"})

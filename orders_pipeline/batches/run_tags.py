"""Tags of a batch's run: which batch and client it is for, and whether it is kept to the places of large ones.

Runs are asked for by Dagster's sensors, and by the API of Dagster's web server: both say the same of a run.
"""

from __future__ import annotations

PROCESS, REFUND = "process_batch", "refund_batch"  # jobs
PARTITION_TAG = "dagster/partition"  # Dagster's own, on every run of a partition
VIA_TAG = "orders/via"  # on a run that the batch API has asked for
SIZE_TAG, LARGE = "orders/size", "large"
LARGE_BYTES = 512 * 1024  # some 3,000 orders


def tags_of(client_code: str, source_bytes: int | None) -> dict[str, str]:
    """Return the tags of a batch's run: whose file it is, and whether it is kept to the places of large ones."""
    tags = {"orders/client": client_code}
    large = (source_bytes or 0) > LARGE_BYTES
    return tags | ({SIZE_TAG: LARGE} if large else {"dagster/priority": "1"})

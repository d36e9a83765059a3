"""Tags of a batch's run: which batch, client and file it is for, how that stands, and if it takes a place of large ones.

Runs are asked for by Dagster's sensors, and by the API of Dagster's web server: both say the same of a run. What is known of
its batch only while it runs is added by the run itself.
"""

from __future__ import annotations

PROCESS, REFUND = "process_batch", "refund_batch"  # jobs
PARTITION_TAG = "dagster/partition"  # Dagster's own, on every run of a partition
VIA_TAG = "orders/via"  # on a run that the batch API has asked for
CLIENT_TAG, FILE_TAG, STATUS_TAG = "orders/client", "orders/file", "orders/status"
SIZE_TAG, LARGE = "orders/size", "large"
LARGE_BYTES = 512 * 1024  # some 3,000 orders


def tags_of(client_code: str, source_bytes: int | None) -> dict[str, str]:
    """Return the tags of a batch's run: whose file it is, and whether it is kept to the places of large ones."""
    tags = {CLIENT_TAG: client_code}
    large = (source_bytes or 0) > LARGE_BYTES
    return tags | ({SIZE_TAG: LARGE} if large else {"dagster/priority": "1"})


def batch_tags(client_code: str, csv_source: str, status: str | None = None) -> dict[str, str]:
    """Return the tags by which a batch's runs are found in Dagster's list; the status is the one when the run ended."""
    tags = {CLIENT_TAG: client_code, FILE_TAG: shown_name(csv_source)}
    return tags | ({} if status is None else {STATUS_TAG: status})


def shown_name(csv_source: str) -> str:
    """Return a file's name as Dagster may show it: whatever cannot be printed is replaced."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in csv_source)

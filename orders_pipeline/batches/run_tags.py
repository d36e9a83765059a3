"""Tags of a batch's run: which batch, client and file it is for, how that stands, and if it takes a place of large ones.

Runs are asked for by Dagster's sensors, and by the API of Dagster's web server: both say the same of a run. What is known of
its batch only while it runs is added by the run itself.
"""

from __future__ import annotations

import json

PROCESS, REFUND = "process_batch", "refund_batch"  # jobs
PARTITION_TAG = "dagster/partition"  # Dagster's own, on every run of a partition
WILL_RETRY_TAG, RETRIED_AS_TAG = "dagster/will_retry", "dagster/auto_retry_run_id"  # on a failed run, by Dagster itself
VIA_TAG = "orders/via"  # on a run that the batch API has asked for
CLIENT_TAG, FILE_TAG, STATUS_TAG = "orders/client", "orders/file", "orders/status"
SIZE_TAG, LARGE = "orders/size", "large"
WAITS_FOR_RATE = {"orders/waits": "notification rate"}  # on a run that has nothing else to do
# the sensors come again by themselves: automatic retries on top of that would only fill the list of runs
RESUMES = {"dagster/max_retries": "0"}  # on a run that a sensor asks for again
TRIED_AGAIN = {"dagster/priority": "2"}  # on a run in place of a failed one: before small files, which have 1
LARGE_BYTES = 512 * 1024  # some 3,000 orders
MIB = 1024 * 1024
LEAST_MEMORY_MIB = 1536  # of a Job for any other file
RUN_MEMORY_MIB = 480  # of a run without a file
CPU = "500m"


def tags_of(client_code: str, source_bytes: int | None, run_launcher: str = "fork") -> dict[str, str]:
    """Return the tags of a batch's run: whose file it is, and whether it is kept to the places of large ones.

    A launcher for many hosts is told too: Celery which runs come first, Kubernetes how much memory a large file takes.
    """
    tags = {CLIENT_TAG: client_code}
    size = source_bytes or 0
    if size <= LARGE_BYTES:
        more = {"dagster-celery/run_priority": "1"} if run_launcher == "celery" else {}
        return tags | {"dagster/priority": "1"} | more
    return tags | {SIZE_TAG: LARGE} | ({"dagster-k8s/config": _resources(size)} if run_launcher == "kubernetes" else {})


def _resources(source_bytes: int) -> str:
    memory = f"{max(LEAST_MEMORY_MIB, RUN_MEMORY_MIB + 5 * source_bytes // (2 * MIB))}Mi"
    resources = {"requests": {"cpu": CPU, "memory": memory}, "limits": {"memory": memory}}
    return json.dumps({"container_config": {"resources": resources}})


def batch_tags(client_code: str, csv_source: str, status: str | None = None) -> dict[str, str]:
    """Return the tags by which a batch's runs are found in Dagster's list; the status is the last that the run knew of."""
    tags = {CLIENT_TAG: client_code, FILE_TAG: shown_name(csv_source)}
    return tags | ({} if status is None else {STATUS_TAG: status})


def shown_name(csv_source: str) -> str:
    """Return a file's name as Dagster may show it: whatever cannot be printed is replaced."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in csv_source)

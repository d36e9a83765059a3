"""A hint to Dagster's web server: start the run of this batch now. Without it the sensor does, seconds later.

A hint that is refused leaves the batch to the sensor's next look; one that is not answered may have started a run, which
the sensor sees by the run's partition before it asks for another.
"""

from __future__ import annotations

import json
import logging

from orders_pipeline.batches.run_tags import PARTITION_TAG, PROCESS, VIA_TAG, tags_of
from orders_pipeline.services.answers import NoAnswer, NotDelivered
from orders_pipeline.services.http_client import ServiceClient
from orders_pipeline.system.composition import System

TIMEOUT_S = 3.0
LOCATION, REPOSITORY, PARTITIONS = "orders_pipeline.definitions", "__repository__", "batch_id"
LAUNCH = """
mutation Launch($partition: String!, $repository: RepositorySelector!, $run: ExecutionParams!, $partitions: String!,
                $event: ReportRunlessAssetEventsParams!, $isNew: Boolean!) {
  addDynamicPartition(partitionsDefName: $partitions, partitionKey: $partition,
                      repositorySelector: $repository) { __typename }
  reportRunlessAssetEvents(eventParams: $event) @include(if: $isNew) { __typename }
  launchRun(executionParams: $run) { __typename }
}
"""
log = logging.getLogger("orders_pipeline.web")


class RunHint:
    """Asks one Dagster web server for runs."""

    def __init__(self, url: str) -> None:
        self._client = ServiceClient(url, None, TIMEOUT_S)

    def give(
        self,
        system: System,
        batch_id: str,
        client_code: str,
        size: int | None,
        number: int,
        *,
        is_new: bool = False,
        job: str = PROCESS,
    ) -> None:
        """Ask for a run of a batch, counted already as its request of this number; one that `is_new` has just arrived."""
        body = launch(batch_id, client_code, size, is_new=is_new, job=job, run_launcher=system.settings.run_launcher)
        try:
            answer = self._client.call("POST", "/graphql", body=body)
        except NotDelivered:
            is_refused = True
        except NoAnswer:
            is_refused = False  # it may have started one
        else:
            launched = (answer.body.get("data") or {}).get("launchRun") or {}
            is_refused = launched.get("__typename") != "LaunchRunSuccess"
        if is_refused:
            log.info("Dagster's web server starts no run; its sensor does")
            with system.database.begin() as transaction:
                transaction.execute("forget_run_request", batch_id=batch_id, number=number)


def launch(
    batch_id: str, client_code: str, size: int | None, *, is_new: bool, job: str = PROCESS, run_launcher: str = "fork"
) -> dict[str, object]:
    """Return the request that adds a batch's partition, with its file's arrival if it `is_new`, and starts its run."""
    selector = {"repositoryName": REPOSITORY, "repositoryLocationName": LOCATION}
    tags = tags_of(client_code, size, run_launcher) | {PARTITION_TAG: batch_id, VIA_TAG: "api"}
    run = {
        "selector": selector | {"jobName": job},
        "runConfigData": json.dumps({}),
        "mode": "default",
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
    }
    event = {
        "eventType": "ASSET_MATERIALIZATION",
        "assetKey": {"path": ["uploaded_csv"]},
        "partitionKeys": [batch_id],
    }
    variables = {
        "partition": batch_id,
        "partitions": PARTITIONS,
        "repository": selector,
        "run": run,
        "event": event,
        "isNew": is_new,
    }
    return {"query": LAUNCH, "variables": variables}

"""How the run of a batch from the API is started: by Dagster's web server when it is asked, else by the sensor, soon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest
from dagster_graphql.schema import create_schema

from orders_pipeline.orchestration.sensors import landing_sensor
from orders_pipeline.orchestration.terminated_runs import is_asked_for
from orders_pipeline.settlement.sweep import API_PATIENCE_S
from orders_pipeline.web.run_hint import LOCATION, launch
from orders_pipeline_tests.support.api import client_of, csv_of, served
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation


@pytest.fixture(autouse=True)
def _nothing_left(installation: Installation) -> Iterator[None]:
    yield
    installation.rows("UPDATE batches SET status = 'cancelled', finished_at = now() WHERE finished_at IS NULL")


def asked_for(installation: Installation) -> list[str | None]:
    """Let the sensor tick once, and return the batches that it asks runs for."""
    context = dg.build_sensor_context(instance=installation.instance, resources={"system": installation.system})
    result = landing_sensor(context)
    assert isinstance(result, dg.SensorResult)
    return [request.partition_key for request in result.run_requests or ()]


def send(installation: Installation, reference: str, dagster_url: str | None) -> str:
    settings = installation.system.settings.model_copy(update={"dagster_url": dagster_url})
    with served(replace(installation.system, settings=settings)) as url:
        answer = client_of(installation.system, url, "acme").post("batches", csv_of(order_row(client_order_ref=reference)))
    assert answer.status_code == 202, answer.text
    return str(answer.json()["batch_id"])


def test_without_a_web_server_the_sensor_starts_the_run_at_its_next_look(installation: Installation) -> None:
    batch_id = send(installation, "H-1", None)
    assert asked_for(installation) == [batch_id]
    assert asked_for(installation) == []
    refused = send(installation, "H-2", "http://127.0.0.1:1")
    assert asked_for(installation) == [refused]


def test_a_run_that_may_have_been_started_is_waited_for_ten_seconds_and_no_more(installation: Installation) -> None:
    batch_id = send(installation, "H-3", None)
    asked_for(installation)
    later = "UPDATE batches SET run_requested_at = run_requested_at - make_interval(secs => %s) WHERE batch_id = %s"
    installation.rows(later, API_PATIENCE_S - 2, batch_id)
    assert asked_for(installation) == []
    installation.rows(later, 3, batch_id)
    assert asked_for(installation) == [batch_id]


def test_a_run_that_the_api_asked_for_is_no_persons_word_and_does_not_undo_a_stop() -> None:
    variables: Any = launch("b", "acme", 1, is_new=True)["variables"]
    tags = {each["key"]: each["value"] for each in variables["run"]["executionMetadata"]["tags"]}
    assert not is_asked_for(dg.DagsterRun("process_batch", tags=tags))
    assert is_asked_for(dg.DagsterRun("process_batch", tags=tags, parent_run_id="1", root_run_id="1"))


def test_the_request_is_one_that_dagsters_schema_takes() -> None:
    from graphql import parse, validate

    asked = launch("20261129-27c4f11508ca", "acme", 1 << 20, is_new=False)
    assert validate(create_schema().graphql_schema, parse(str(asked["query"]))) == []
    tags = json.dumps(asked["variables"])
    assert all(each in tags for each in ("dagster/partition", "orders/size", "orders/via", LOCATION))

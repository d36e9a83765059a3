"""What Dagster loads: every asset is described, owned and in a group that can be materialized without harm."""

from __future__ import annotations

from datetime import datetime

import dagster as dg
import pytest

from orders_pipeline.batches.batches import JAPAN
from orders_pipeline.definitions import defs
from orders_pipeline.orchestration import charts
from orders_pipeline.orchestration.assets.encryption_keys import RotationConfig
from orders_pipeline.orchestration.table_schemas import as_accepted, as_sent
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import CODES

SPECS = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
OF_A_BATCH = {
    *("uploaded_csv", "staged_orders", "validated_orders", "orders", "payments", "notifications", "batch_report"),
}
SHOWN_CHARS = 1_000  # of Markdown: of more Dagster shows a link


@pytest.mark.parametrize("name", sorted(SPECS))
def test_an_asset_says_what_it_is_and_whose(name):
    spec = SPECS[name]
    assert (spec.description or "").endswith((".", "xlsx."))
    assert spec.owners
    assert spec.kinds


def test_groups_hold_a_batch_together_and_to_materialize_all_of_one_replaces_no_key():
    groups: dict[str, set[str]] = {}
    for name, spec in SPECS.items():
        groups.setdefault(str(spec.group_name), set()).add(name)
    assert groups == {
        "batch": OF_A_BATCH,
        "money": {"reconciliation", "client_day"},
        "upkeep": {"retention", "verification", "encryption_keys"},
    }
    assert not RotationConfig().anew


def test_the_job_that_replaces_keys_does():
    job = defs.resolve_job_def("rotate_keys")
    assert job.run_config is not None
    assert job.run_config["ops"] == {"encryption_keys": {"config": {"anew": True}}}


def test_every_night_the_day_before_is_counted_by_the_clock_of_japan():
    schedule = defs.resolve_schedule_def("daily_client_days")
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance,
            scheduled_execution_time=datetime(2026, 12, 1, 0, 30, tzinfo=JAPAN),
            repository_def=defs.get_repository_def(),
        )
        asked = schedule.evaluate_tick(context).run_requests
    assert [request.partition_key for request in asked or ()] == ["2026-11-30"]


def test_columns_are_those_of_the_catalogue_and_say_which_are_personal():
    assert [column.name for column in as_sent(ORDERS).columns] == list(ORDERS.column_names)
    accepted = {column.name: column for column in as_accepted(ORDERS).columns}
    assert set(accepted) == {column.name for column in ORDERS.columns if column.stored}
    assert {name for name, column in accepted.items() if "personal" in column.tags} == {
        column.name for column in ORDERS.columns if column.personal
    }
    assert (accepted["amount"].type, accepted["amount"].constraints.nullable) == ("int64", False)


def test_the_longest_chart_is_short_enough_to_be_shown_at_once():
    longest = sorted(CODES, key=len)[-20:]
    (text,) = [charts.bars("Rejected rows by code", dict.fromkeys(longest, 9_999_999)).value]
    assert len(text) < SHOWN_CHARS
    assert text.count("%3Crect") == charts.MOST_ROWS


def test_the_resource_shows_where_everything_is():
    resource = defs.resources["system"] if defs.resources else None
    assert isinstance(resource, dg.ConfigurableResource)
    assert {"database", "payment_service", "notification_service", "storage", "landing"} <= set(type(resource).model_fields)

"""The schema as a whole: each rule has a test that breaks it (test_rules_of_*.py), and says its name and no more."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from orders_pipeline.infrastructure.database_errors import ConstraintViolated
from orders_pipeline_tests.support.ledgers import order
from orders_pipeline_tests.support.schema_rules import RULES_WITH_A_TEST, breaks, refused_by


@breaks("flyway_schema_history_pk")
def test_a_migration_has_a_rank_of_its_own(harness):
    with refused_by("flyway_schema_history_pk"):
        harness.run("INSERT INTO flyway_schema_history SELECT * FROM flyway_schema_history")


def test_every_table_and_view_says_what_it_is_and_every_column_whose_type_says_nothing_what_it_holds(harness):
    silent = harness.run(
        "SELECT concat_ws('.', relname, attname) AS name FROM pg_class LEFT JOIN pg_attribute"
        " ON attrelid = pg_class.oid AND attnum > 0 AND relkind = 'r' AND NOT attisdropped"
        " AND atttypid = ANY ('{json,jsonb,bytea,interval,text[],double precision}'::regtype[])"
        " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') AND relname <> 'flyway_schema_history'"
        " AND (obj_description(pg_class.oid, 'pg_class') IS NULL"
        "      OR attnum IS NOT NULL AND col_description(attrelid, attnum) IS NULL)"
    )
    assert [row["name"] for row in silent] == []


def test_the_name_of_a_broken_rule_is_all_that_our_error_says(harness):
    harness.orders(order(client_order_ref="planted-ref"))
    with pytest.raises(ConstraintViolated) as refusal, harness.database.begin() as transaction:
        transaction.execute(
            "insert_batch",
            batch_id="other",
            client_code="planted",
            csv_source=None,
            landing_key=None,
            landing_version=None,
            source_sha256=None,
            source_bytes=None,
            again_no=0,
            via="landing",
            submitted_by=None,
        )
    assert refusal.value.sqlstate == "23502"
    harness.batch("third")
    with pytest.raises(ConstraintViolated) as refusal, harness.database.begin() as transaction:
        transaction.execute("start_worker", batch_id="planted", run_id=None, lease_s=1, lock_class=1)
    assert refusal.value.constraint == "workers_batch_id_fkey"
    assert str(refusal.value) == "E_CONSTRAINT: workers_batch_id_fkey"
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


def test_every_rule_of_the_schema_has_a_test_that_breaks_it(harness):
    for path in Path(__file__).parent.glob("test_rules_of_*.py"):
        importlib.import_module(f"orders_pipeline_tests.database.{path.stem}")
    constraints = harness.run(
        "SELECT conname AS name FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'"
    )
    indexes = harness.run(
        "SELECT relname AS name FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
        " WHERE indisunique AND relnamespace = 'public'::regnamespace"
    )
    triggers = harness.run("SELECT tgname AS name FROM pg_trigger WHERE NOT tgisinternal")
    names = {row["name"] for row in (*constraints, *indexes, *triggers)}
    elsewhere = ("audit_", "retention_", "legal_holds_", "dagster_retention_")  # test_audit.py and test_retention.py
    assert sorted({name for name in names if not name.startswith(elsewhere)} ^ RULES_WITH_A_TEST) == []

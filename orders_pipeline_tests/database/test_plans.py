"""Every statement that is planned, behind a long history: none reads a whole table that grows, once or in a loop."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import TextClause, text
from sqlalchemy.dialects.postgresql import asyncpg

from orders_pipeline.infrastructure.database import queries
from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline_tests.support import history
from orders_pipeline_tests.support.databases import cloned_database

PLANNED = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")
# what grows with neither the orders nor the days
SMALL = {
    "api_tokens",
    "audit_hash_key",
    "audit_shipping",
    "daemon_heartbeats",
    "dagster_retention",
    "flyway_schema_history",
    "installation",
    "known_keys",
    "known_profiles",
    "landing_position",
    "legal_holds",
    "rate_tokens",
    "retention_limits",
    "service_breakers",
    "service_shares",
    "totals",
    "webhooks_off",
}
# statements that read all there is of something, and why they may
WHOLE = {
    "batches_to_close": "the nightly reconciliation compares what a whole window of time has",
    "compare_audited": "verifying the audit holds all rows against it",
    "compare_payments": "the nightly reconciliation",
    "count_audit_records": "verifying the audit reads all of it",
    "count_batches_of_client": "the demonstration, which has a few batches",
    "count_held_blocks": "the nightly retention looks at each block once",
    "landing_waits": "counts what lies in the landing, all of which each look lists",
    "left_alone_names": "as above",
    "match_listed_by_id": "the nightly reconciliation",
    "orders_by_key": "how far a rotation of keys is",
    "payments_to_adopt": "the nightly reconciliation",
    "purge_acceptances": "the nightly retention",
    "purge_refusals": "the nightly retention",
    "purge_dagster_events": "the nightly retention, over a table of Dagster's without an index by time",
    "batches_to_plan": "once, after a restored database",
    "empty_payment_differences": "the nightly reconciliation",
    "match_planned_since": "the nightly reconciliation",
    "reconciliation_counts": "the nightly reconciliation",
    "reconciliation_window": "the nightly reconciliation",
    "reject_contested_orders": "joins a chunk of ten thousand rows; by index once there are many more orders than that",
    "audit_leftovers": "objects that are removed the same night",
    "retention_places": "a report of the whole audit",
    "take_installation": "once, where nothing was ever paid",
}
LEDGERS = ("payments", "refunds", "results", "corrections")
BY_INDEX = {
    *("objects_due", "blocks_due"),
    *(f"{verb}_{ledger}" for verb in ("release", "claim", "record", "seconds_to_next") for ledger in LEDGERS),
    *("claimed_payments", "claimed_notifications", "claimed_refunds", "orders_follow_payments", "lock_payments_of_refunds"),
    *("claim_doubtful_payments", "seconds_to_next_look_up"),
}
LARGE = 200  # pages: of less, reading all may really be the cheapest
STREAMED = ("LockRows", "Nested Loop", "Result", "Subquery Scan")
COLUMNS = """batch_id, import_row_number, client_code, client_order_ref, customer_code, amount, order_date, item_code,
quantity, unit_price, payment_method, notify_channel"""


@pytest.fixture(scope="module")
def plans_url(server_url: str, template: str) -> Iterator[SecretStr]:
    """The URL of a database with a thousand batches behind it, and with Dagster's events."""
    with cloned_database(server_url, template) as url:
        history.fill(url, batches=400, orders=60)
        yield url


@pytest.fixture(scope="module")
def connection(plans_url: SecretStr) -> Iterator[psycopg.Connection[Any]]:
    """A connection of which each test's transaction is rolled back, with the temporary tables that statements use."""
    with psycopg.connect(libpq_url(plans_url)) as connection:
        for statement in queries().values():
            if re.search(r"^ *CREATE TEMPORARY TABLE", statement.text, re.MULTILINE):
                connection.execute(body(statement).replace("ON COMMIT DROP ", "").encode())
        connection.commit()
        yield connection


def body(statement: TextClause) -> str:
    """Return a statement as the server is given it, with numbers for its parameters."""
    asked = text(statement.text.replace("{columns}", COLUMNS))
    return str(asked.compile(dialect=asyncpg.dialect())).partition("\n")[2]


def kind(statement: TextClause) -> str:
    return re.sub("--.*", "", statement.text).split(maxsplit=1)[0]


def scans(plan: Mapping[str, Any], *, some: bool = False) -> Iterator[str]:
    """Yield each table, or index, that a plan reads from one end to the other; not where `some` first rows are wanted."""
    node = plan["Node Type"]
    if node == "Seq Scan":
        yield plan["Relation Name"]
    if node in ("Index Scan", "Index Only Scan") and "Index Cond" not in plan and not some:
        yield plan["Index Name"]
    for part in plan.get("Plans", ()):
        first = node == "Limit" or (some and node in STREAMED and part["Parent Relationship"] == "Outer")
        yield from scans(part, some=first)


def in_loops(plan: Mapping[str, Any], *, looped: bool = False) -> Iterator[str]:
    """Yield each table that a plan reads from one end to the other, again and again: for each row of another."""
    if looped and plan["Node Type"] == "Seq Scan":
        yield plan["Relation Name"]
    is_kept = plan["Node Type"] in ("Materialize", "Memoize", "Hash")  # what is read once serves all rows
    for part in plan.get("Plans", ()):
        again = (plan["Node Type"] == "Nested Loop" and part["Parent Relationship"] == "Inner") or (
            part["Parent Relationship"] == "SubPlan" and not part.get("Subplan Name", "").startswith("CTE")
        )
        yield from in_loops(part, looped=(looped and not is_kept) or again)


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_what_reads_all_there_is_reads_it_once(connection, name):
    explain = f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {body(queries()[name])}".encode()
    ((plan,),) = connection.execute(explain).fetchall()[0]
    assert not set(in_loops(plan["Plan"])) & growing(connection, LARGE)


@pytest.mark.parametrize("name", [name for name, statement in queries().items() if kind(statement) in PLANNED])
def test_a_statement_reads_no_whole_table_that_grows(connection, name):
    explain = f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {body(queries()[name])}".encode()
    chosen = planned(connection, explain, by_index=name in BY_INDEX)
    possible = planned(connection, explain, by_index=True)
    found = sorted(chosen & growing(connection, LARGE) | possible & growing(connection, 0))
    assert name in WHOLE or not found


def planned(connection: psycopg.Connection[Any], explain: bytes, *, by_index: bool) -> set[str]:
    """Return what is read from one end to the other."""
    with connection.transaction(force_rollback=True):
        if by_index:
            for way in ("seqscan", "hashjoin", "mergejoin"):
                connection.execute(f"SET LOCAL enable_{way} = off".encode())
        ((plan,),) = connection.execute(explain).fetchall()[0]
    return set(scans(plan["Plan"]))


def growing(connection: psycopg.Connection[Any], pages: int) -> set[str]:
    """Return the tables that grow and have so many pages, and, of large ones, the indexes that have all of their rows."""
    found = connection.execute(
        b"SELECT t.relname FROM pg_class AS t WHERE t.relkind = 'r' AND t.relpages >= %(pages)s"
        b" AND t.relnamespace::regnamespace::text IN ('public', 'dagster') AND t.relname <> ALL (%(small)s)"
        b" UNION ALL SELECT i.relname FROM pg_index JOIN pg_class AS i ON i.oid = indexrelid"
        b" JOIN pg_class AS t ON t.oid = indrelid WHERE indpred IS NULL AND t.relpages >= %(large)s"
        b" AND t.relnamespace::regnamespace::text IN ('public', 'dagster')",
        {"pages": pages, "small": sorted(SMALL), "large": LARGE},
    )
    return {name for (name,) in found}

"""The audit in the database: every change is recorded down to the field, with who and when, and it is only added to."""

from __future__ import annotations

import contextlib
import json
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from orders_pipeline.audit import recording
from orders_pipeline.audit.exporting import export
from orders_pipeline.audit.records import CATEGORIES
from orders_pipeline.audit.sealing import seal
from orders_pipeline.audit.verifying import verify
from orders_pipeline.clients.profiles import Clients, Profile
from orders_pipeline.infrastructure import migrations
from orders_pipeline.infrastructure.database import Database, SessionIdentity
from orders_pipeline.infrastructure.database_errors import DatabaseError, RoleMissing
from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline.infrastructure.migrations import MigrationError
from orders_pipeline.security.encryption import Cipher
from orders_pipeline.upkeep.retention import retain
from orders_pipeline_tests.support.ledgers import Harness, order

# tables whose changes are in no record, and why: none of them says what was paid, notified, decided or refunded
NOT_AUDITED = {
    "webhook_deliveries": "what clients were told of audited changes, planned by these and forgotten after a month",
    "api_requests": "which request made which batch, written with the batch, which is audited",
    "flyway_schema_history": "who migrates writes it, and nobody else may",
    "audit_events": "the audit itself",
    "audit_seals": "the audit itself",
    "audit_blocks": "the audit itself: each move is a record",
    "audit_leftovers": "the audit itself: each move is a record",
    "audit_shipping": "how far sending the audit is",
    "audit_marks": "how far sealing may go: goes by itself",
    "audit_hash_key": "is never written again",
    "acceptances": "what a service took lately: goes by itself",
    "refusals": "what a service refused lately: goes by itself",
    "batch_locks": "who is at work",
    "batch_stages": "how long things took",
    "batch_summaries": "what the tables say, made again from them",
    "landing_files": "what the landing has shown; batches say what became of it",
    "landing_left_alone": "what the landing has shown",
    "landing_position": "what the landing has shown",
    "loaded_chunks": "how far loading is; orders say what was loaded",
    "rate_tokens": "when the next call may be made",
    "service_breakers": "how a service is",
    "service_shares": "who may make how many calls",
    "totals": "what the tables say, added up for metrics",
    "workers": "who is at work",
}


def records(harness: Harness, **having: object) -> list[dict[str, Any]]:
    rows = harness.run("SELECT * FROM audit_events WHERE action <> 'image' ORDER BY event_id")
    return [row for row in rows if all(row[name] == value for name, value in having.items())]


def replayed(harness: Harness, table: str) -> dict[str, dict[str, Any]]:
    """Return a table's rows by their keys as only the audit has them."""
    rows: dict[str, dict[str, Any]] = {}
    for record in records(harness, entity=table):
        for change in record["changes"]:
            row = rows.setdefault(json.dumps(change["key"]), {})
            for name, (before, after) in change["fields"].items():
                assert row.get(name) == before, "what a field was before is what it was after the change before"
                row[name] = after
            if record["action"] == "delete":
                assert not {name: value for name, value in rows.pop(json.dumps(change["key"])).items() if value is not None}
    return {key: {name: value for name, value in row.items() if value is not None} for key, row in rows.items()}


def present(harness: Harness, table: str, key: str, hashed: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    with harness.connect() as connection:
        connection.execute("SET timezone = 'UTC'")
        rows = [row["row"] for row in connection.execute(f"SELECT to_json(t) AS row FROM {table} AS t".encode()).fetchall()]
        for row in rows:
            for name in hashed:
                if row[name] is not None:
                    (found,) = connection.execute("SELECT audit_hash(%s) AS hash", [row[name]]).fetchall()
                    row[name] = found["hash"]
    return {json.dumps({key: row[key]}): {name: value for name, value in row.items() if value is not None} for row in rows}


def test_s13_every_table_is_watched_or_there_is_a_reason(harness):
    tables = {
        row["relname"]
        for row in harness.run("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
    }
    triggers = harness.run(
        "SELECT tgrelid::regclass::text AS name FROM pg_trigger WHERE tgfoid::regproc::text = 'audit_' || tgrelid::regclass"
    )
    counted = Counter(row["name"] for row in triggers)
    assert counted == dict.fromkeys(tables - NOT_AUDITED.keys(), 4)  # insert, update, delete, truncate
    assert tables >= NOT_AUDITED.keys()
    # a column that was added behind `audit_watch` is recorded too, but each statement takes a millisecond longer
    slow = harness.run(
        "SELECT relname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid"
        " WHERE tgname = 'audit_insert' AND strpos(pg_get_functiondef(tgfoid), '<> ' || relnatts || ' THEN') = 0"
    )
    assert slow == []


def test_s13_a_new_column_is_recorded_without_further_ado(harness, database, storage):
    harness.run("INSERT INTO known_profiles VALUES ('old', '{}')")
    harness.run("ALTER TABLE known_profiles ADD note text, ADD is_new boolean NOT NULL DEFAULT true")
    try:
        assert verify(database, storage).broken is None  # what was written before is held against the columns of then
        harness.run("INSERT INTO known_profiles VALUES ('new', '{}', 'x')")
        assert records(harness)[-1]["changes"][0]["fields"]["note"] == [None, "x"]
        harness.run("UPDATE known_profiles SET note = 'y'")
        assert [change["fields"]["note"] for change in records(harness)[-1]["changes"]] == [[None, "y"], ["x", "y"]]
        assert verify(database, storage).broken is None
        harness.tamper("UPDATE known_profiles SET note = 'z' WHERE client_code = 'old'")
        assert verify(database, storage).broken.row == "known_profiles old"
    finally:
        harness.run("ALTER TABLE known_profiles DROP note, DROP is_new")


def test_s13_nobody_makes_the_recording_of_changes_the_trigger_of_a_table_of_their_own(harness):
    with harness.connect() as connection:
        connection.execute("SET ROLE orders_app")
        connection.execute("CREATE TEMPORARY TABLE orders (order_id bigint PRIMARY KEY)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "CREATE TRIGGER forged AFTER INSERT ON orders REFERENCING NEW TABLE AS after FOR EACH STATEMENT "
                "EXECUTE FUNCTION audit_orders('phi_modification', '{}', 'true', 'NULL::text')"
            )


def test_s13_the_application_does_not_say_that_rows_were_changed(harness, database, storage):
    harness.orders(order())
    seal(database)
    for action, detail in (("truncate", "{}"), ("update", '{"columns": 7}'), ("read", "[]")):
        with harness.connect() as connection:
            connection.execute("SET ROLE orders_app")
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute("SELECT audit_record('security', %s, 'orders', NULL, 1, %s)", [action, detail])
    assert verify(database, storage).broken is None


def test_s13_a_random_run_is_told_by_the_audit_alone(harness):
    chance = random.Random(13)
    batch = harness.batch()
    ids = harness.orders(*(order(number, customer_code=f"C-{number % 7}") for number in range(1, 30)))
    harness.plan()
    changes = {
        "orders": ("status", ["pending", "paying", "paid", "declined", "unknown"]),
        "payments": ("outcome_code", ["a", "b", None]),
        "notifications": ("attempts", [0, 1, 2]),
        "batches": ("status_code", ["P_A", "P_B", None]),
    }
    before = {table: harness.value(f"SELECT count(*) FROM {table}") for table in changes}
    assert all(before.values())
    for _ in range(40):
        table = chance.choice(list(changes))
        column, values = changes[table]
        harness.run(f"UPDATE {table} SET {column} = %s WHERE random() < 0.4", chance.choice(values))
    harness.run("UPDATE orders SET status_changed_at = now() WHERE order_id = ANY (%s)", ids[:5])
    for table, key, hashed in (
        ("payments", "payment_id", ()),
        ("notifications", "notification_id", ()),
        ("batches", "batch_id", ("csv_source", "landing_key")),
    ):
        assert replayed(harness, table) == present(harness, table, key, hashed)
    last = {row["order_id"]: row["status"] for row in harness.run("SELECT order_id, status FROM orders")}
    told = dict.fromkeys(ids, "pending")
    for record in records(harness, entity="orders", action="update"):
        for change in record["changes"]:
            was, now = change["fields"].get("status", (None, None))
            if now is not None:
                assert told[change["key"]["order_id"]] == was
                told[change["key"]["order_id"]] = now
    assert told == last
    assert {record["batch_id"] for record in records(harness, category="phi_modification")} == {batch}


def test_s13_a_deletion_is_recorded_with_what_was_there(harness):
    (order_id,) = harness.orders(order())
    harness.run("DELETE FROM orders")
    (record,) = records(harness, entity="orders", action="delete")
    (change,) = record["changes"]
    assert change["key"] == {"order_id": order_id}
    assert change["fields"]["amount"] == [1000, None]


def test_s13_a_changed_key_shows_on_both_sides(harness):
    harness.batch()
    harness.run("UPDATE batches SET batch_id = 'other'")
    changes = [change for record in records(harness, action="update") for change in record["changes"]]
    assert sorted((change["fields"]["batch_id"] for change in changes), key=str) == [
        [harness.batch_id, None],
        [None, "other"],
    ]


def test_s13_an_emptied_table_is_recorded(harness):
    harness.run("TRUNCATE corrections")
    assert len(records(harness, entity="corrections", action="truncate")) == 1


def test_s13_one_statement_is_one_record_of_a_thousand_rows(harness):
    harness.batch()
    harness.run(
        "INSERT INTO orders (batch_id, import_row_number, csv_source, bulk_import_group, client_code, client_order_ref, "
        "customer_code, amount, payment_method, notify_channel, personal) "
        "SELECT %s, n, 'f', 'g', 'acme', 'R' || n, 'C', 1, 'invoice', 'none', '' FROM generate_series(1, 2500) AS n",
        harness.batch_id,
    )
    harness.run("UPDATE orders SET status = 'paying'")
    assert [each["rows"] for each in records(harness, entity="orders")] == [2500, 1000, 1000, 500]


def test_s13_a_statement_that_changes_nothing_is_none(harness):
    harness.batch()
    harness.run("UPDATE batches SET status = status")
    harness.run("UPDATE batches SET status = 'paying' WHERE false")
    assert not records(harness, action="update")


def test_s13_a_record_says_who_and_from_where(harness, database_url):
    with contextlib.closing(Database(database_url, identity=SessionIdentity("alice", "run 7"))) as identified:
        for _ in range(2):
            with contextlib.suppress(ZeroDivisionError), identified.begin() as transaction:
                recording.record(transaction, "administrative", "lost")
                raise ZeroDivisionError
        with identified.begin() as transaction:
            recording.record(transaction, "administrative", "first")
        with identified.begin() as transaction:
            recording.record(transaction, "administrative", "second")
        with identified.session() as session:
            recording.record(session, "administrative", "third")
    found = records(harness)
    assert [each["action"] for each in found] == ["first", "second", "third"]
    assert {(each["actor"], each["origin"], each["login"]) for each in found} == {("alice", "run 7", "postgres")}
    assert all(abs(each["at"] - datetime.now(UTC)) < timedelta(minutes=1) for each in found)


def test_s13_who_does_not_introduce_itself_is_known_by_its_login(harness):
    harness.batch()
    (record,) = records(harness)
    assert (record["actor"], record["origin"], record["login"]) == ("postgres", "unknown", "postgres")


def test_s13_personal_values_are_not_in_the_audit(harness, database, storage):
    harness.run(
        "INSERT INTO batches (batch_id, client_code, csv_source, landing_key, bulk_import_group) "
        "VALUES ('b', 'acme', 'planted.csv', 'acme/planted.csv', 'b')"
    )
    harness.batch_id = "b"
    harness.orders(order())
    harness.run("UPDATE orders SET personal = 'planted', csv_source = 'planted'")
    harness.run("DELETE FROM orders")
    seal(database)
    lines = [line for line in export(database, storage, None, None, CATEGORIES) if '.image"' not in line]
    assert len(lines) == 4
    assert not [line for line in lines if "planted" in line or b"planted".hex() in line]
    assert '"keyed:' in lines[0]


def test_s13_changed_profiles_and_keys_are_recorded_with_what_they_were(harness, database):
    one, two = Cipher({"k1": b"1" * 32}, "k1"), Cipher({"k1": b"1" * 32, "k2": b"2" * 32}, "k2")
    recording.sign_in(database, Clients({"acme": Profile(), "gone": Profile()}), one)
    recording.sign_in(database, Clients({"acme": Profile(), "gone": Profile()}), one)
    first = records(harness)
    recording.sign_in(database, Clients({"acme": Profile(max_rows=5)}), two)
    later = [each for each in records(harness) if each["event_id"] > first[-1]["event_id"]]
    assert [(each["entity"], each["action"], each["rows"]) for each in first if each["category"] != "authentication"] == [
        ("known_profiles", "insert", 2),
        ("known_keys", "insert", 1),
    ]
    profile = next(each for each in later if each["entity"] == "known_profiles" and each["action"] == "update")
    (was, now), (other_was, other_now) = (profile["changes"][0]["fields"]["profile"], (None, 5))
    assert (was["max_rows"], now["max_rows"]) == (other_was, other_now)
    assert {(each["entity"], each["action"]) for each in later} >= {("known_profiles", "delete"), ("known_keys", "update")}
    assert b"1" * 32 not in json.dumps([each["changes"] for each in later]).encode()
    assert [each["action"] for each in records(harness, category="authentication")] == ["sign_in"] * 3


def test_s15_the_application_may_read_the_audit_and_nothing_else(harness, database_url):
    harness.batch()
    with harness.connect() as connection:
        connection.execute("SET ROLE orders_app")
        assert connection.execute("SELECT FROM audit_events").fetchall()
    for statement in (
        "INSERT INTO audit_events (category, action) VALUES ('security', 'forged')",
        "UPDATE audit_events SET actor = 'other'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
        "INSERT INTO audit_seals SELECT * FROM audit_seals",
        "UPDATE audit_seals SET head = ''",
        "DELETE FROM audit_seals",
        "TRUNCATE audit_seals",
        "SELECT * FROM audit_hash_key",
        "ALTER TABLE audit_events DISABLE TRIGGER ALL",
        "ALTER TABLE orders DISABLE TRIGGER ALL",
        "DROP TABLE audit_events",
        "SELECT setval('audit_events_event_id_seq', 1)",
        "UPDATE flyway_schema_history SET checksum = 1",
    ):
        with harness.connect() as connection:
            connection.execute("SET ROLE orders_app")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
            connection.rollback()


@pytest.mark.parametrize(("table", "column"), [("batch_closings", "differences"), ("resolutions", "reason")])
def test_s15_what_a_batch_came_to_and_what_a_person_decided_is_only_added_to(harness, table, column):
    for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}", f"TRUNCATE {table}"):
        with harness.connect() as connection:
            connection.execute("SET ROLE orders_app")
            connection.execute(f"SELECT FROM {table}".encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


@pytest.mark.parametrize("table", ["audit_events", "audit_seals"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET category = 'security'", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_s15_even_the_owner_of_the_server_is_refused_at_first(harness, database, table, statement):
    harness.batch()
    seal(database)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="only added to"):
        harness.run(statement.format(table))


def test_s15_the_application_works_with_its_own_rights_whoever_logs_in(database_url):
    with contextlib.closing(Database(database_url, identity=SessionIdentity("a", "b"))) as identified:
        with pytest.raises(DatabaseError) as refused, identified.begin() as transaction:
            transaction.script("SET LOCAL session_replication_role = replica")
        assert refused.value.sqlstate == "42501"


@pytest.fixture
def two_logins(server_url: str) -> Iterator[tuple[SecretStr, SecretStr]]:
    """The URLs of a database for the login that owns and migrates it, and for the application's own."""
    names = [f"{name}_{uuid.uuid4().hex[:12]}" for name in ("owner", "app", "installation")]
    owner, application, name = names
    with psycopg.connect(libpq_url(SecretStr(server_url)), autocommit=True) as admin:
        for statement in (
            f"CREATE ROLE {owner} LOGIN CREATEROLE",
            f"CREATE ROLE {application} LOGIN",
            f"GRANT orders_audit, orders_app TO {owner} WITH ADMIN TRUE",  # as to whoever makes the roles
            f"CREATE DATABASE {name} OWNER {owner}",
        ):
            admin.execute(statement.encode())
        url = make_url(server_url).set(database=name)
        first, second = (url.set(username=login).render_as_string(hide_password=False) for login in (owner, application))
        yield SecretStr(first), SecretStr(second)
        for statement in (f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {application}", f"DROP ROLE {owner}"):
            admin.execute(statement.encode())


def test_s15_with_two_logins_nobody_the_application_can_become_may_touch_the_audit(template, two_logins, storage):
    owner_url, application_url = two_logins
    with (
        contextlib.closing(Database(application_url)) as application,
        pytest.raises(MigrationError, match="it must own the database, and have CREATEROLE"),
    ):
        migrations.migrate(application)
    with contextlib.closing(Database(owner_url)) as owner:
        migrations.migrate(owner)
    with (
        contextlib.closing(Database(application_url, identity=SessionIdentity("alice", "run 7"))) as application,
        pytest.raises(RoleMissing) as refused,
        application.begin(),
    ):
        pass
    login = make_url(application_url.get_secret_value()).username
    said = f'E_DATABASE_ROLE: the login {login} lacks the role orders_app: GRANT orders_app TO "{login}"'
    assert str(refused.value) == said
    with (
        contextlib.closing(Database(application_url)) as application,
        pytest.raises(RoleMissing) as refused,
    ):
        migrations.require_current(application)  # before anybody is identified, at the start of each command
    assert str(refused.value) == said
    with psycopg.connect(libpq_url(owner_url)) as connection:
        connection.execute(f"GRANT orders_app TO {login}".encode())
    with contextlib.closing(Database(application_url, identity=SessionIdentity("alice", "run 7"))) as application:
        migrations.require_current(application)
        harness = Harness(application)
        harness.batch()
        harness.orders(order(1), order(2))
        harness.plan()
        assert seal(application)
        assert verify(application, storage).broken is None
        retain(application, storage)
    for statement in (
        "SET ROLE orders_audit",
        "DELETE FROM audit_events",
        "ALTER TABLE orders DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "CREATE OR REPLACE FUNCTION audit_stays() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "UPDATE retention_limits SET gone_after = '3 years'",
    ):
        with psycopg.connect(libpq_url(application_url)) as connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
            connection.rollback()


def test_s13_opening_personal_columns_to_pay_and_to_notify_is_recorded(harness):
    card = {"customer_name": "x", "email": "planted@example.com", "payment_token": "tok_12345678"}
    harness.orders(order(1), order(2, payment_method="card_on_file", personal=card))
    harness.plan()
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.begin()
        assert ledger.claim(10)
    found = [(each["detail"]["purpose"], each["rows"]) for each in records(harness, category="phi_access")]
    assert found == [("to plan payments", 1), ("to plan notifications", 2), ("to pay", 1)]

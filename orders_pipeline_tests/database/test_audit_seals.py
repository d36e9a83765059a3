"""The audit's blocks: sealed without a gap, nothing altered goes unseen, and what is given out of them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from orders_pipeline.audit import sealing
from orders_pipeline.audit.exporting import export
from orders_pipeline.audit.records import CATEGORIES
from orders_pipeline.audit.sealing import anchor, seal
from orders_pipeline.audit.verifying import Verified, verify
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.storage import FolderStorage
from orders_pipeline_tests.support import history
from orders_pipeline_tests.support.ledgers import Harness, order


@pytest.fixture
def sealed(harness: Harness, database: Database, storage: FolderStorage) -> Callable[[], Verified]:
    """A function that verifies an audit of three blocks, of which all but the newest are anchored."""
    harness.batch()
    harness.orders(*(order(number) for number in range(1, 6)))
    seal(database)
    harness.run("UPDATE orders SET status = 'paying'")
    seal(database)
    anchor(database, storage)
    harness.run("UPDATE orders SET status = 'paid' WHERE import_row_number < 4")
    seal(database)
    return lambda: verify(database, storage)


def test_s14_an_audit_that_nobody_altered_is_intact(sealed, harness):
    found = sealed()
    assert found.broken is None
    assert (found.records, found.unsealed, found.heads) == (harness.value("SELECT count(*) FROM audit_events"), 0, 1)


@pytest.mark.parametrize(
    ("tampering", "what"),
    [
        ("UPDATE audit_events SET actor = 'nobody' WHERE event_id = {id}", "record altered"),
        ("UPDATE audit_events SET at = at + interval '1 microsecond' WHERE event_id = {id}", "record altered"),
        ("UPDATE audit_events SET changes = '[]' WHERE event_id = {id}", "record altered"),
        ("UPDATE audit_events SET at = at - interval '3 days' WHERE event_id = {id}", "record altered"),
        ("UPDATE audit_events SET category = 'phi_access' WHERE event_id = {id}", "record missing"),
        ("DELETE FROM audit_events WHERE event_id = {id}", "record missing"),
    ],
)
def test_s14_the_first_altered_record_is_named(sealed, harness, tampering, what):
    event_id = harness.value("SELECT event_id FROM audit_events WHERE entity = 'orders' AND action = 'update' LIMIT 1")
    harness.tamper(tampering.format(id=event_id))
    broken = sealed().broken
    assert (broken.what, broken.event_id) == (what, event_id)


def test_s14_records_that_changed_places_are_found(sealed, harness):
    first, second = (row["event_id"] for row in harness.run("SELECT event_id FROM audit_events ORDER BY event_id LIMIT 2"))
    harness.tamper(
        f"CREATE TEMPORARY TABLE swapped ON COMMIT DROP AS SELECT * FROM audit_events WHERE event_id IN ({first}, {second})",
        f"DELETE FROM audit_events WHERE event_id IN ({first}, {second})",
        f"UPDATE swapped SET event_id = {first} + {second} - event_id",
        "INSERT INTO audit_events OVERRIDING SYSTEM VALUE SELECT * FROM swapped",
    )
    assert sealed().broken.event_id in (first, second)


def test_s14_a_record_that_was_slipped_in_is_found(sealed, harness):
    harness.tamper(
        "INSERT INTO audit_events (event_id, category, action) OVERRIDING SYSTEM VALUE VALUES (0, 'security', 'forged')",
    )
    broken = sealed().broken
    assert (broken.what, broken.event_id) == ("record inserted", 0)


@pytest.mark.parametrize(
    ("tampering", "what"),
    [
        ("UPDATE audit_seals SET records = records + 1 WHERE block_no = 2", "block altered"),
        ("UPDATE audit_seals SET digests = digests || digests WHERE block_no = 2", "block altered"),
        ("UPDATE audit_seals SET head = sha256(head) WHERE block_no = 2", "block altered"),
        ("DELETE FROM audit_seals WHERE block_no = 2", "block missing"),
    ],
)
def test_s14_a_block_that_was_altered_or_taken_out_is_found(sealed, harness, tampering, what):
    harness.tamper(tampering)
    broken = sealed().broken
    assert (broken.what, broken.block_no) == (what, 2)


def test_s14_cutting_the_end_off_with_its_blocks_is_found_by_the_head_in_the_storage(sealed, harness, database, storage):
    anchor(database, storage)
    last = harness.value("SELECT max(block_no) FROM audit_seals")
    harness.tamper(
        f"DELETE FROM audit_events WHERE event_id >= (SELECT first_id FROM audit_seals WHERE block_no = {last})",
        f"DELETE FROM audit_seals WHERE block_no = {last}",
    )
    broken = sealed().broken
    assert (broken.what, broken.block_no) == ("blocks missing at the end", last)


def test_s14_a_chain_made_anew_is_found_by_the_head_in_the_storage(sealed, harness, database):
    harness.tamper("UPDATE audit_events SET actor = 'nobody'", "DELETE FROM audit_seals", "DELETE FROM audit_blocks")
    seal(database)
    assert sealed().broken is not None


@pytest.mark.parametrize(
    ("tampering", "what"),
    [
        ("UPDATE orders SET amount = 1 {}", "row altered"),
        ("UPDATE orders SET status = 'pending' {}", "row altered"),
        ("DELETE FROM orders {}", "row missing"),
    ],
)
def test_s14_a_row_that_was_altered_past_the_audit_is_found(sealed, harness, tampering, what):
    order_id = harness.value("SELECT order_id FROM orders WHERE import_row_number = 3")
    harness.tamper(tampering.format(f"WHERE order_id = {order_id}"))
    found = sealed()
    assert (found.broken.what, found.broken.row, found.altered) == (what, f"orders {order_id}", {"orders": 1})


@pytest.fixture
def rows_everywhere(harness: Harness, database_url: SecretStr) -> list[str]:
    """The audited tables, each with rows."""
    history.fill(database_url, batches=2, orders=450, blocks=0)
    harness.run(
        "INSERT INTO resolutions (payment_id, decision, decided_by, reason) "
        "SELECT payment_id, 'paid', 'a', 'b' FROM payments LIMIT 2"
    )
    harness.run("INSERT INTO known_profiles VALUES ('acme', '{}')")
    harness.run("INSERT INTO known_keys VALUES ('k', 'f', true)")
    harness.run(
        "INSERT INTO api_tokens (token_id, client_code, name, scopes, secret_sha256, created_by, expires_at)"
        " VALUES ('abcdefgh', 'acme', 'shop', '{batches:read}', sha256('s'), 'somebody', now())"
    )
    harness.run(
        "INSERT INTO api_sessions (session_sha256, client_code, actor, scopes)"
        " VALUES (sha256('s'), 'acme', 'somebody', '{page}')"
    )
    harness.run("INSERT INTO refund_requests (batch_id, requested_by) SELECT batch_id, 'somebody' FROM batches LIMIT 2")
    harness.run("INSERT INTO webhooks_off (client_code, webhook_url) VALUES ('acme', 'https://shop.example')")
    harness.run("INSERT INTO legal_holds (placed_by, reason) VALUES ('counsel', 'a claim')")
    tables = harness.run("SELECT tgrelid::regclass::text AS name FROM pg_trigger WHERE tgname = 'audit_insert'")
    for table in tables:
        harness.run("SELECT audit_take_images(%s)", table["name"])
        assert harness.value(f"SELECT count(*) FROM {table['name']}")
    return [table["name"] for table in tables]


def test_s14_rows_of_any_table_that_were_taken_out_past_the_audit_are_found(harness, database, storage, rows_everywhere):
    first = "{0} WHERE ctid = (SELECT min(ctid) FROM {0})"
    found = verify(database, storage)
    assert (found.broken, found.rows > 0, found.altered) == (None, True, {})
    shorn = set(rows_everywhere) - {"retention_limits", "dagster_retention"}  # which other tests need
    harness.tamper(*(f"DELETE FROM {first.format(table)}" for table in shorn))
    found = verify(database, storage)
    assert found.altered == dict.fromkeys(shorn, 1)
    assert found.broken.what == "row missing"


CHANGED = {
    "text": "coalesce({}, '') || 'x'",
    "jsonb": """'{{"x": 1}}'""",
    "boolean": "NOT coalesce({}, true)",
    "bytea": "{} || '\\x00'",
    "uuid": "gen_random_uuid()",
    "date": "'2001-01-01'",
    "timestamp with time zone": "coalesce({}, now()) + interval '1 microsecond'",
    "interval": "{} + interval '1 second'",
    "xid8": "'7'",
    "text[]": "'{{x}}'",
}


def test_s14_every_column_of_every_table_is_in_its_rows_images(harness, rows_everywhere):
    with harness.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        rules = connection.execute(
            "SELECT conrelid::regclass AS name, conname FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0"
        )
        for rule in rules.fetchall():
            connection.execute(f"ALTER TABLE {rule['name']} DROP CONSTRAINT {rule['conname']}".encode())
        columns = connection.execute(
            "SELECT attrelid::regclass::text AS name, relnatts, attname, format_type(atttypid, NULL) AS type "
            "FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
            "WHERE attrelid = ANY (%s::regclass[]) AND attnum > 0 AND NOT attisdropped "
            "AND attgenerated = '' AND attidentity = ''",
            [rows_everywhere],
        )
        for column in columns.fetchall():
            table, name = column["name"], column["attname"]
            value = CHANGED.get(column["type"], "coalesce({}, 0) + 1000000").format(name)
            images = f"SELECT key, digests[1] FROM audit_rows('{table}', ARRAY[{column['relnatts']}])".encode()
            with connection.transaction(force_rollback=True):
                before = {tuple(row.values()) for row in connection.execute(images)}
                first = f"(SELECT ctid FROM {table} LIMIT 1)"
                connection.execute(f"UPDATE {table} SET {name} = {value} WHERE ctid = {first}".encode())
                after = {tuple(row.values()) for row in connection.execute(images)}
                assert len(before - after) == len(after - before) == 1, (table, name)
        connection.rollback()


def test_s14_a_row_that_was_slipped_in_past_the_audit_is_found(sealed, harness):
    harness.tamper("INSERT INTO known_profiles VALUES ('forged', '{}')")
    broken = sealed().broken
    assert (broken.what, broken.row) == ("row inserted", "known_profiles forged")


def test_s14_a_row_that_was_put_back_to_what_it_was_before_is_found(sealed, harness):
    order_id = harness.value("SELECT order_id FROM orders WHERE import_row_number = 2")
    harness.run("CREATE TABLE before AS SELECT status, status_changed_at FROM orders WHERE import_row_number = 2")
    harness.run("UPDATE orders SET status = 'refunded', status_changed_at = now() WHERE import_row_number = 2")
    harness.tamper("UPDATE orders SET (status, status_changed_at) = (SELECT * FROM before) WHERE import_row_number = 2")
    harness.run("DROP TABLE before")
    assert sealed().broken.row == f"orders {order_id}"


def test_s14_a_row_that_was_changed_before_everybodys_eyes_is_not_altered(sealed, harness, database):
    harness.run("UPDATE orders SET personal = 'sealed anew' WHERE import_row_number = 3")
    harness.run("UPDATE orders SET personal = 'sealed again' WHERE import_row_number IN (3, 4)")
    harness.run("DELETE FROM orders WHERE import_row_number = 5")
    assert sealed().broken is None  # also before that is sealed
    seal(database)
    assert sealed().broken is None


def test_c21_a_seal_that_is_lost_half_way_is_made_next_time_without_a_gap(harness, database, storage):
    harness.batch()
    first = seal(database)
    harness.run("UPDATE batches SET status = 'paying'")
    harness.run("SELECT audit_mark()")
    with harness.connect() as connection:
        connection.execute("SELECT audit_seal()")
        assert connection.execute("SELECT count(*) AS n FROM audit_seals").fetchall() == [{"n": first + 1}]
        connection.rollback()
    harness.run("UPDATE batches SET status = 'paused'")
    assert seal(database) == 1
    numbers = [row["block_no"] for row in harness.run("SELECT block_no FROM audit_seals ORDER BY block_no")]
    assert numbers == list(range(1, first + 2))
    found = verify(database, storage)
    assert (found.broken, found.records, found.unsealed) == (None, harness.value("SELECT count(*) FROM audit_events"), 0)


def test_c21_what_is_still_being_written_is_sealed_once_it_is_certain_and_what_was_before_at_once(
    harness, database, storage, monkeypatch
):
    monkeypatch.setattr(sealing, "PATIENCE_S", 0.2)
    harness.batch()
    with harness.connect() as slow:
        harness.run("SELECT audit_mark()")
        slow.execute("UPDATE batches SET status_code = 'slow'")
        harness.run("INSERT INTO known_profiles VALUES ('acme', '{}')")  # a higher number, committed first
        assert seal(database) == 2
        assert harness.value("SELECT max(last_id) FROM audit_seals") == harness.value(
            "SELECT event_id FROM audit_events WHERE entity = 'batches'"
        )
        assert seal(database) == 0
        waiting = sealing.unsealed(database)
        assert (waiting.records, waiting.is_held_up) == (1, False)
        harness.tamper("UPDATE audit_marks SET made_at = now() - interval '11 minutes'")
        assert "a transaction that is open" in str(sealing.unsealed(database))
        assert f"since {verify(database, storage).unsealed_since}:" in str(sealing.unsealed(database))
        slow.commit()
    assert seal(database) == 1
    found = verify(database, storage)
    assert (found.broken, found.records, found.unsealed) == (None, harness.value("SELECT count(*) FROM audit_events"), 0)
    assert str(sealing.unsealed(database)) == "all audit records are sealed"


def test_c21_nobody_says_how_far_is_sealed_but_the_database(harness, database, storage):
    harness.batch()
    with harness.connect() as connection:
        connection.execute("SET ROLE orders_app")
        for statement in (
            "SELECT audit_seal(9223372036854775807)",
            "INSERT INTO audit_marks VALUES ('1', 9223372036854775807)",
            "UPDATE audit_marks SET through_id = 9223372036854775807",
            "DELETE FROM audit_marks",
        ):
            with pytest.raises((psycopg.errors.UndefinedFunction, psycopg.errors.InsufficientPrivilege)):
                connection.execute(statement.encode())
            connection.rollback()
            connection.execute("SET ROLE orders_app")
        # the mark of a transaction that has written something would say too much
        connection.execute("UPDATE batches SET status_code = 'early'")
        with pytest.raises(psycopg.errors.ActiveSqlTransaction):
            connection.execute("SELECT audit_mark()")
        connection.rollback()
    assert seal(database)
    harness.run("UPDATE batches SET status = 'paying'")
    assert seal(database) == 1
    assert verify(database, storage).broken is None


def test_c21_two_sealers_at_once_make_each_block_once(harness, database, storage):
    for number in range(5):
        harness.batch(f"20260701-00000000000{number}")
    threads = [threading.Thread(target=seal, args=[database]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = verify(database, storage)
    assert (found.broken, found.records, found.blocks) == (None, harness.value("SELECT count(*) FROM audit_events"), 2)


def test_a_day_and_a_category_are_never_in_one_block_with_another(harness, database):
    harness.batch()
    harness.orders(order())
    with harness.connect() as connection:
        connection.execute(
            b"INSERT INTO audit_events (at, category, action) VALUES ('2026-02-28 23:59:59.999999+00', 'security', 'x'), "
            b"('2026-03-01 00:00:00+00', 'security', 'x'), ('2026-03-01 08:59:59+09', 'security', 'x')"
        )
    seal(database)
    found = harness.run(
        "SELECT category, day::text, records FROM audit_seals WHERE category = 'security' ORDER BY day LIMIT 2"
    )
    assert [(row["day"], row["records"]) for row in found] == [("2026-02-28", 2), ("2026-03-01", 1)]
    assert harness.value("SELECT count(*) FROM audit_seals") == 5  # with what is recorded of every installation


def test_s14_cutting_off_what_was_sealed_since_the_hour_is_found_by_a_head_that_is_kept_briefly(
    sealed, harness, database, storage
):
    assert anchor(database, storage, briefly=True)
    assert not anchor(database, storage, briefly=True)
    last = harness.value("SELECT max(block_no) FROM audit_seals")
    harness.tamper(
        f"DELETE FROM audit_events WHERE event_id >= (SELECT first_id FROM audit_seals WHERE block_no = {last})",
        f"DELETE FROM audit_seals WHERE block_no = {last}",
        f"DELETE FROM audit_blocks WHERE block_no = {last}",
    )
    broken = verify(database, storage).broken
    assert (broken.what, broken.block_no) == ("blocks missing at the end", last)
    harness.run("UPDATE batches SET status_code = 'later'")
    seal(database)
    assert verify(database, storage).broken is not None  # whatever has been sealed since
    assert sealing.forget_brief_heads(storage) == 0
    for key in storage.kept(sealing.NEWEST):
        then = (datetime.now(UTC) - sealing.KEEP_NEWEST - timedelta(hours=1)).timestamp()
        os.utime(storage.location(key), (then, then))
    assert sealing.forget_brief_heads(storage) == 1
    assert not list(storage.kept(sealing.NEWEST))


def test_a_head_is_kept_once(harness, database, storage):
    assert not anchor(database, storage)
    harness.batch()
    last = seal(database)
    assert [anchor(database, storage) for _ in range(2)] == [True, False]
    (kept,) = storage.kept(sealing.HEADS)
    storage.put(f"{sealing.HEADS}notes.txt", b"what is no head is nothing to the audit")
    assert list(sealing.anchored_heads(storage)) == [last]
    head = harness.value("SELECT encode(head, 'hex') FROM audit_seals ORDER BY block_no DESC LIMIT 1")
    assert kept == sealing.head_key(last, head)


def exported(lines: Iterator[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def test_an_export_has_an_event_for_each_row_with_what_it_was_before_and_after(harness, database, storage):
    ids = harness.orders(order(1), order(2))
    harness.run("UPDATE orders SET status = 'paying'")
    found = exported(export(database, storage, None, None, ["phi_modification"]))
    updates = [each for each in found if each["event"]["action"] == "orders.update"]
    assert [each["orders"]["key"] for each in updates] == [{"order_id": order_id} for order_id in ids]
    assert {(each["orders"]["before"]["status"], each["orders"]["after"]["status"]) for each in updates} == {
        ("pending", "paying")
    }
    assert len({each["event"]["id"] for each in found}) == len(found)
    event = updates[0]
    assert (event["event"]["kind"], event["event"]["category"], event["event"]["type"]) == (
        "event",
        ["database"],
        ["change"],
    )
    assert datetime.fromisoformat(event["@timestamp"]).tzinfo is not None
    assert event["labels"] == {"category": "phi_modification", "login": "postgres", "batch_id": harness.batch_id}
    assert event["user"]["name"] == "postgres"


def test_an_export_is_by_time_and_category(harness, database, storage):
    with harness.connect() as connection:
        for hour in range(4):
            connection.execute(
                b"INSERT INTO audit_events (at, category, action) VALUES (%s, 'security', %s), (%s, 'phi_access', %s)",
                [datetime(2026, 7, 1, hour, tzinfo=UTC), f"s{hour}", datetime(2026, 7, 1, hour, tzinfo=UTC), f"p{hour}"],
            )
    since, until = datetime(2026, 7, 1, 1, tzinfo=UTC), datetime(2026, 7, 1, 3, tzinfo=UTC)
    found = exported(export(database, storage, since, until, ["security"]))
    assert [each["event"]["action"] for each in found] == ["system.s1", "system.s2"]
    assert len(exported(export(database, storage, since, until, CATEGORIES))) == 4

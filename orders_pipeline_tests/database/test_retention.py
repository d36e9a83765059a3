"""Retention: every category's blocks move at their limits and no day sooner, held ones stay, a crash costs nothing."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orders_pipeline.audit import verifying
from orders_pipeline.audit.exporting import export
from orders_pipeline.audit.records import CATEGORIES
from orders_pipeline.audit.sealing import anchor, seal
from orders_pipeline.audit.verifying import AuditBroken, verify
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_errors import ConstraintViolated
from orders_pipeline.infrastructure.storage import FolderStorage, S3Storage, Storage
from orders_pipeline.upkeep import retention
from orders_pipeline.upkeep.retention import Hold, HoldRefused, place_hold, release_hold, retain
from orders_pipeline_tests.support.commands import wait_for
from orders_pipeline_tests.support.ledgers import Harness, order
from orders_pipeline_tests.support.s3_server import open_s3

LIMITS = {
    "authentication": ("90 days", "1 year", "7 years"),
    "phi_access": ("90 days", "1 year", "7 years"),
    "phi_modification": ("90 days", "2 years", "8 years"),
    "administrative": ("90 days", "1 year", "7 years"),
    "security": ("180 days", "2 years", "8 years"),
}
PLACES = ("hot", "warm", "cold", "gone")


@pytest.fixture
def aged(harness: Harness, database: Database) -> Any:
    """A function that puts sealed records of some ages there: (category, day, batch)."""

    def put(*records: tuple[str, date, str | None]) -> None:
        with harness.connect() as connection:
            for category, day, batch_id in records:
                for hour in (0, 23):
                    connection.execute(
                        b"INSERT INTO audit_events (at, category, action, batch_id) VALUES (%s, %s, 'test', %s)",
                        [datetime(day.year, day.month, day.day, hour, 59, 59, tzinfo=UTC), category, batch_id],
                    )
        seal(database)

    return put


def day_before(harness: Harness, limit: str, days: int = 0) -> date:
    """Return the day whose limit is over `days` days from now."""
    day: date = harness.value("SELECT ((now() AT TIME ZONE 'UTC')::date - %s::interval)::date", limit)
    return day + timedelta(days=days)


def places(harness: Harness) -> dict[tuple[str, date], str]:
    rows = harness.run("SELECT category, day, place FROM audit_blocks")
    return {(row["category"], row["day"]): row["place"] for row in rows}


def planted(harness: Harness, today: date) -> dict[tuple[str, date], str]:
    return {key: place for key, place in places(harness).items() if key[1] < today}


def test_s16_the_limits_are_those_of_the_policy(harness):
    rows = harness.run("SELECT category, hot_until, warm_until, gone_after FROM retention_limits")
    assert {row["category"] for row in rows} == set(CATEGORIES)
    for row in rows:
        for name, limit in zip(("hot_until", "warm_until", "gone_after"), LIMITS[row["category"]], strict=True):
            assert harness.value(
                f"SELECT {name} = %s::interval FROM retention_limits WHERE category = %s", limit, row["category"]
            )


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_s16_a_day_moves_on_the_day_after_its_limit_and_not_before(harness, database, storage, aged, category, number):
    limit = day_before(harness, LIMITS[category][number])
    days = {
        offset: limit + timedelta(days=offset) for offset in (1, 0, -1)
    }  # younger by a day, at the limit, older by a day
    aged(*((category, day, None) for day in days.values()))
    moved = retain(database, storage).moved
    found = places(harness)
    assert [found[category, days[offset]] for offset in (1, 0, -1)] == [PLACES[number], PLACES[number], PLACES[number + 1]]
    assert moved[PLACES[number + 1]] == 2
    kept = sorted(stored.key for stored in storage.list("audit/"))
    assert len(kept) == (0, 3, 2)[number] if number else len(kept) == 1
    assert verify(database, storage).broken is None
    assert not retain(database, storage).moved.total()


@pytest.mark.parametrize(
    ("day", "today", "place"),
    [
        (date(2026, 1, 1), date(2026, 3, 31), "hot"),
        (date(2026, 1, 1), date(2026, 4, 1), "hot"),
        (date(2026, 1, 1), date(2026, 4, 2), "warm"),
        (date(2026, 1, 1), date(2027, 1, 1), "warm"),
        (date(2026, 1, 1), date(2027, 1, 2), "cold"),
        (date(2028, 2, 29), date(2029, 2, 28), "warm"),  # a year after a leap day is its month's last day
        (date(2028, 2, 29), date(2029, 3, 1), "cold"),
        (date(2027, 2, 28), date(2028, 2, 28), "warm"),
        (date(2027, 2, 28), date(2028, 2, 29), "cold"),
        (date(2027, 3, 1), date(2028, 2, 29), "warm"),
        (date(2028, 2, 29), date(2035, 2, 28), "cold"),
        (date(2028, 2, 29), date(2035, 3, 1), "gone"),
        (date(2024, 2, 29), date(2031, 2, 28), "cold"),
        (date(2025, 12, 31), date(2032, 12, 31), "cold"),
        (date(2025, 12, 31), date(2033, 1, 1), "gone"),
    ],
)
def test_s16_years_are_the_calendars(harness, day, today, place):
    found = harness.value("SELECT retention_place(%s, %s, '90 days', '1 year', '7 years')", day, today)
    assert found == place


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "Pacific/Kiritimati"])
def test_s16_days_are_those_of_utc_wherever_the_session_is(harness, database, storage, zone):
    limit = day_before(harness, "90 days")
    with harness.connect() as connection:
        connection.execute(f"SET timezone = '{zone}'".encode())
        for at in (
            datetime(limit.year, limit.month, limit.day, tzinfo=UTC),
            datetime.combine(limit, datetime.max.time(), UTC),
        ):
            for moment in (at, at - timedelta(days=1)):
                connection.execute(b"INSERT INTO audit_events (at, category, action) VALUES (%s, 'security', 'x')", [moment])
                connection.execute(
                    b"INSERT INTO audit_events (at, category, action) VALUES (%s, 'phi_access', 'x')", [moment]
                )
    seal(database)
    with harness.connect() as connection:
        connection.execute(f"SET timezone = '{zone}'".encode())
        due = connection.execute("SELECT category, day FROM audit_due").fetchall()
    assert due == [{"category": "phi_access", "day": limit - timedelta(days=1)}]
    assert retain(database, storage).moved == {"warm": 2}


def test_s16_a_record_goes_through_all_places_and_can_be_verified_and_exported_in_each(harness, database, storage, aged):
    ages = {"hot": "1 day", "warm": "100 days", "cold": "3 years", "gone": "9 years"}
    for age in ages.values():
        aged(*((category, day_before(harness, age), None) for category in CATEGORIES))
    anchor(database, storage)
    lines = [json.loads(line) for line in export(database, storage, None, None, CATEGORIES)]
    before = {line["event"]["id"] for line in lines if line["event"]["action"] == "system.test"}
    assert retain(database, storage).moved == {"warm": 28, "cold": 20, "gone": 10}
    assert harness.value("SELECT count(*) FROM audit_events WHERE action = 'test'") == 12  # security is hot for 180 days
    seal(database)
    found = verify(database, storage)
    assert found.broken is None
    lines = [json.loads(line) for line in export(database, storage, None, None, CATEGORIES)]
    after = {line["event"]["id"] for line in lines if line["event"]["action"] == "system.test"}
    assert after < before
    assert len(before - after) == 10
    (year,) = {str(day_before(harness, ages["cold"]).year)}
    assert {line["@timestamp"][:4] for line in lines if line["labels"]["category"] == "phi_access"} >= {year}


def test_s16_every_move_is_in_the_audit_with_its_count(harness, database, storage, aged):
    aged(("phi_access", day_before(harness, "9 years"), None))
    retain(database, storage)
    rows = harness.run("SELECT rows, detail FROM audit_events WHERE action = 'move' ORDER BY event_id")
    assert [(row["rows"], row["detail"]["from"], row["detail"]["to"]) for row in rows] == [
        (2, "hot", "warm"),
        (2, "warm", "cold"),
        (2, "cold", "gone"),
    ]
    assert not list(storage.list("audit/warm")) + list(storage.list("audit/cold"))


@pytest.mark.parametrize(
    ("hold", "held"),
    [
        (Hold("b1", None, None, None), {"b1"}),
        (Hold(None, "phi_access", None, None), {"b1", "b2", None}),
        (Hold(None, "security", None, None), set()),
        (Hold("b1", "security", None, None), set()),
        (Hold(None, None, date(1990, 1, 1), date(2000, 1, 1)), set()),
        (Hold(None, None, date(1990, 1, 1), None), {"b1", "b2", None}),
        (Hold("other", None, None, None), set()),
    ],
)
def test_s16_what_a_hold_is_about_stays_wherever_it_is(harness, database, storage, aged, hold, held):
    batches = ("b1", "b2", None)
    ages = {"warm": "100 days", "cold": "2 years", "gone": "9 years"}
    days = {
        (name, batch): day_before(harness, age, -number)
        for name, age in ages.items()
        for number, batch in enumerate(batches)
    }
    aged(*(("phi_access", day, batch) for (_, batch), day in days.items()))
    hold_id = place_hold(database, hold, "counsel", "a claim")
    assert retain(database, storage).held == harness.value("SELECT count(*) FROM audit_held")
    today = day_before(harness, "0 days")
    old = "SELECT count(*) FROM audit_held JOIN audit_blocks USING (block_no) WHERE day < %s"
    assert harness.value(old, today) == 3 * len(held)
    found = places(harness)
    for (name, batch), day in days.items():
        assert found["phi_access", day] == ("hot" if batch in held else name)
    release_hold(database, hold_id, "counsel", "settled")
    assert retain(database, storage).held == 0
    found = places(harness)
    assert {found["phi_access", day] for (name, _), day in days.items() if name == "gone"} == {"gone"}
    with pytest.raises(HoldRefused):
        release_hold(database, hold_id, "counsel", "again")


def test_s16_a_hold_by_batch_holds_what_was_moved_before_too(harness, database, storage, aged):
    aged(("phi_access", day_before(harness, "100 days"), "b1"), ("phi_access", day_before(harness, "101 days"), "b2"))
    retain(database, storage)
    harness.run("UPDATE retention_limits SET warm_until = '95 days', gone_after = '99 days' WHERE category = 'phi_access'")
    place_hold(database, Hold("b1", None, None, None), "counsel", "a claim")
    retain(database, storage)
    assert places(harness)["phi_access", day_before(harness, "100 days")] == "warm"
    assert places(harness)["phi_access", day_before(harness, "101 days")] == "gone"
    changes = harness.run(
        "SELECT entity, actor, changes::text AS text FROM audit_events WHERE entity IN "
        "('retention_limits', 'legal_holds') AND action <> 'image' ORDER BY event_id"
    )
    assert [row["entity"] for row in changes] == ["retention_limits", "legal_holds"]
    assert "a claim" not in changes[1]["text"]
    harness.run("UPDATE retention_limits SET warm_until = '1 year', gone_after = '7 years' WHERE category = 'phi_access'")


def test_s16_the_application_cannot_move_early_or_change_limits(harness, database, storage, aged):
    aged(("phi_access", day_before(harness, "90 days"), None), ("phi_access", day_before(harness, "91 days"), None))
    not_due = {1: ("warm", "cold", "gone"), 2: ("cold", "gone", "hot"), 99: ("warm",)}
    for block_no, place in ((block_no, place) for block_no, places_ in not_due.items() for place in places_):
        with pytest.raises(ConstraintViolated) as refused, database.begin() as transaction:
            transaction.scalar("audit_move", block_nos=[block_no], place=place, key=None if place == "gone" else "k")
        assert refused.value.constraint == "audit_move_is_due"
    for statement in (
        "UPDATE retention_limits SET gone_after = '2 years'",
        "DELETE FROM retention_limits",
        "UPDATE dagster_retention SET events = '1 day'",
        "DELETE FROM legal_holds",
        "INSERT INTO audit_blocks (block_no, category, day) VALUES (7, 'security', now())",
        "UPDATE audit_blocks SET place = 'gone'",
        "DELETE FROM audit_blocks",
        "INSERT INTO audit_leftovers VALUES ('k')",
    ):
        with harness.connect() as connection:
            connection.execute("SET ROLE orders_app")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
            connection.rollback()


def test_s16_an_altered_block_is_not_moved_but_named(harness, database, storage, aged):
    aged(("phi_access", day_before(harness, "100 days"), None))
    harness.tamper("UPDATE audit_events SET actor = 'nobody'")
    with pytest.raises(AuditBroken, match="record altered"):
        retain(database, storage)
    assert set(planted(harness, day_before(harness, "1 day")).values()) == {"hot"}


def replaced(storage: FolderStorage, key: str, old: str, new: str) -> None:
    """Put another object in the place of one, with all records but for a word the same."""
    with storage.local(key) as path:
        table = pq.read_table(path)
    texts = [text.replace(old, new) for text in table.column("record").to_pylist()]
    changed = pa.BufferOutputStream()
    pq.write_table(pa.table({"event_id": table.column("event_id"), "record": texts}), changed)
    storage.put(key, changed.getvalue().to_pybytes())


def test_s14_what_was_altered_in_the_storage_is_not_moved_on_or_given_out_but_named(harness, database, storage, aged):
    aged(("phi_access", day_before(harness, "100 days"), None), ("phi_access", day_before(harness, "99 days"), None))
    retain(database, storage)
    _, second = (stored.key for stored in storage.list("audit/warm"))
    replaced(storage, second, '"test"', '"forged"')
    block_no = harness.value("SELECT block_no FROM audit_blocks WHERE key = %s", second)
    assert verify(database, storage).broken.what == "record altered"
    lines = []
    with pytest.raises(AuditBroken, match=f"E?record altered, block {block_no}, record"):
        lines.extend(export(database, storage, None, None, ["phi_access"]))
    assert len(lines) == 2
    assert "forged" not in "".join(lines)
    harness.run("UPDATE retention_limits SET warm_until = '95 days' WHERE category = 'phi_access'")
    try:
        with pytest.raises(AuditBroken, match="record altered"):
            retain(database, storage)
    finally:
        harness.run("UPDATE retention_limits SET warm_until = '1 year' WHERE category = 'phi_access'")
    assert [stored.key for stored in storage.list("audit/warm")][-1:] == [second]
    assert len(list(storage.list("audit/cold"))) == 1


def test_s16_blocks_of_a_day_and_category_move_into_one_object_and_leave_it_one_by_one(
    harness, database, storage, aged, monkeypatch
):
    monkeypatch.setattr(verifying, "RECORDS_OF_BLOCK", 6)
    day = day_before(harness, "100 days")
    for number in range(4):
        aged(("phi_access", day, f"b{number}"))
    retain(database, storage)
    assert len(list(storage.list("audit/warm"))) == 2  # of six records and of two
    assert harness.value("SELECT count(*) FROM audit_events WHERE action = 'move'") == 2
    hold_id = place_hold(database, Hold("b1", None, None, None), "counsel", "a claim")
    harness.run("UPDATE retention_limits SET warm_until = '95 days', gone_after = '99 days' WHERE category = 'phi_access'")
    try:
        retain(database, storage)
        assert [
            row["place"]
            for row in harness.run("SELECT place FROM audit_blocks WHERE category = 'phi_access' ORDER BY block_no")
        ] == [
            "gone",
            "warm",
            "gone",
            "gone",
        ]
        assert len(list(storage.list("audit/"))) == 1  # the object in which the held one is
        assert verify(database, storage).broken is None
        assert len(list(export(database, storage, None, None, ["phi_access"]))) == 2
        release_hold(database, hold_id, "counsel", "settled")
        retain(database, storage)
        assert not list(storage.list("audit/"))
    finally:
        harness.run(
            "UPDATE retention_limits SET warm_until = '1 year', gone_after = '7 years' WHERE category = 'phi_access'"
        )


def test_s16_sealing_and_retention_wait_for_each_other_and_neither_fails(harness, database, storage, aged):
    aged(("phi_access", day_before(harness, "100 days"), None))
    harness.run("INSERT INTO audit_events (category, action) VALUES ('phi_access', 'test')")
    with ThreadPoolExecutor() as pool, harness.connect() as connection:
        connection.execute(b"LOCK TABLE legal_holds IN ROW EXCLUSIVE MODE")  # somebody places one just then
        moving = pool.submit(retain, database, storage)
        wait_for(lambda: waiting(harness, "audit_move") == 1, "a block on its way")
        sealing = pool.submit(seal, database)
        wait_for(lambda: waiting(harness, "xact_lock(4711009)") + waiting(harness, "audit_seal") == 1, "sealing to begin")
        connection.commit()
        assert (moving.result().moved, sealing.result()) == ({"warm": 2}, 1)


def waiting(harness: Harness, statement: str) -> int:
    """Return how many wait for a lock in a statement."""
    return harness.value(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s", f"%{statement}%"
    )


def test_s16_an_export_beside_retention_loses_and_doubles_nothing(harness, database, storage, aged):
    aged(*(("phi_access", day_before(harness, f"{age} days"), None) for age in (101, 100, 1)))
    lines = export(database, storage, None, None, ["phi_access"])
    found = [next(lines)]
    moving = threading.Thread(target=retain, args=(database, storage))
    moving.start()
    try:
        time.sleep(0.2)
        assert not list(storage.list("audit/warm"))
        found.extend(lines)
    finally:
        lines.close()
        moving.join()
    assert len(list(storage.list("audit/warm"))) == 2
    assert found == sorted(found) == list(export(database, storage, None, None, ["phi_access"]))
    assert len(set(found)) == len(found) == 6


def test_s14_a_row_of_which_the_last_word_has_moved_is_held_against_it(harness, database, storage):
    harness.orders(order(1), order(2))
    harness.run("UPDATE orders SET status = 'paying' WHERE import_row_number = 2")
    harness.tamper("UPDATE audit_events SET at = at - interval '100 days' WHERE category = 'phi_modification'")
    seal(database)
    retain(database, storage)
    harness.run("UPDATE orders SET status = 'paid' WHERE import_row_number = 2")
    for moved in (True, False):
        assert verify(database, storage, moved=moved).broken is None
    harness.tamper("UPDATE orders SET amount = 1")
    assert verify(database, storage).altered == {"orders": 2}
    assert verify(database, storage, moved=False).altered == {"orders": 1}  # which the records in the database tell of


def test_s14_a_row_is_compared_for_longer_than_the_record_of_its_last_change_is_kept(harness, database, storage):
    harness.orders(order(1), order(2), order(3))
    harness.run("DELETE FROM orders WHERE import_row_number = 3")
    harness.tamper(
        "UPDATE audit_events SET at = at - interval '9 years' WHERE entity IN ('orders', 'batches')",
        "UPDATE orders SET amount = 1 WHERE import_row_number = 2",
    )
    seal(database)
    assert retain(database, storage).moved["gone"] == 5
    found = verify(database, storage)
    assert (found.broken.what, found.altered) == ("row inserted", {"orders": 1})  # which is not as it was then
    seal(database)
    harness.tamper("UPDATE orders SET amount = 1000 WHERE import_row_number = 2", "UPDATE batches SET client_code = 'other'")
    assert verify(database, storage).altered == {"batches": 1, "orders": 1}


@pytest.mark.parametrize("damage", ["altered", "removed"])
def test_s14_a_block_in_the_storage_that_was_altered_or_removed_is_found(harness, database, storage, aged, damage):
    aged(("phi_access", day_before(harness, "100 days"), None))
    retain(database, storage)
    (stored,) = storage.list("audit/warm")
    if damage == "removed":
        storage.delete(stored.key)
    else:
        storage.put(stored.key, b"something else")
    broken = verify(database, storage).broken
    block_no = harness.value("SELECT block_no FROM audit_blocks WHERE key IS NOT NULL")
    assert (broken.what, broken.block_no) == ("block unreadable", block_no)
    with pytest.raises(AuditBroken, match=f"block unreadable, block {block_no}"):
        list(export(database, storage, None, None, CATEGORIES))


@pytest.mark.parametrize("moved_at", ["now()", "NULL", "'2000-01-01'", "now() + interval '99 years'", "'infinity'"])
def test_s14_a_block_that_somebody_says_is_gone_before_its_time_is_found(harness, database, storage, aged, moved_at):
    aged(("phi_access", day_before(harness, "100 days"), None))
    harness.tamper(
        "DELETE FROM audit_events WHERE category = 'phi_access'",
        f"UPDATE audit_blocks SET place = 'gone', moved_at = {moved_at} WHERE category = 'phi_access'",
    )
    assert verify(database, storage).broken.what == "block gone too early"


@pytest.mark.parametrize("change", ["day = '1990-01-01'", "category = 'administrative'"])
def test_s14_a_block_that_is_said_to_be_of_another_day_or_category_is_named_and_stays(
    harness, database, storage, aged, change
):
    aged(("phi_access", day_before(harness, "100 days"), None))
    harness.tamper(f"UPDATE audit_blocks SET {change} WHERE category = 'phi_access'")
    assert verify(database, storage).broken.what == "block altered"
    with pytest.raises(AuditBroken, match="block altered"):
        retain(database, storage)
    assert harness.value("SELECT count(*) FROM audit_events WHERE category = 'phi_access'") == 2


class Dies(BaseException):
    """Stands for the end of the process."""


STEPS = [
    ("keep", "before"),
    ("keep", "after"),
    ("audit_move", "before"),
    ("audit_move", "after"),
    ("forget", "before"),
    ("forget", "after"),
    ("audit_cleared", "before"),
    ("audit_cleared", "after"),
]


@pytest.mark.parametrize(("step", "when"), STEPS)
@pytest.mark.parametrize("hit", [1, 2])
def test_c23_whatever_step_is_the_last_the_next_run_goes_on_and_takes_nothing_younger(
    harness, database, storage, aged, monkeypatch, step, when, hit
):
    ages = ("9 years", "3 years", "100 days", "90 days", "1 day")
    aged(*(("phi_access", day_before(harness, age), None) for age in ages))
    calls = Counter[str]()
    owner, name = (storage, step) if step in ("keep", "forget") else (None, step)

    def dying(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if owner is None and arguments[1:2] != (name,):
                return function(*arguments, **named)
            calls[step] += 1
            if calls[step] == hit and when == "before":
                raise Dies
            result = function(*arguments, **named)
            if calls[step] == hit:
                raise Dies
            return result

        return call

    with monkeypatch.context() as patch:
        if owner is not None:
            patch.setattr(type(storage), step, dying(getattr(type(storage), step)))
        else:
            from orders_pipeline.infrastructure.database import Transaction

            for method in ("scalar", "execute"):
                patch.setattr(Transaction, method, dying(getattr(Transaction, method)))
        with pytest.raises(Dies):
            retain(database, storage)
    seal(database)
    assert verify(database, storage).broken is None
    retain(database, storage)
    assert [places(harness)["phi_access", day_before(harness, age)] for age in ages] == [
        "gone",
        "cold",
        "warm",
        "hot",
        "hot",
    ]
    assert len(list(storage.list("audit/warm"))) == len(list(storage.list("audit/cold"))) == 1
    assert harness.value("SELECT count(*) FROM audit_leftovers") == 0
    moves = harness.run(
        "SELECT detail->>'block_no' AS block, detail->>'to' AS place FROM audit_events WHERE action = 'move'"
    )
    assert len({(row["block"], row["place"]) for row in moves}) == len(moves) == 6
    seal(database)
    assert verify(database, storage).broken is None


@pytest.fixture
def locked() -> Iterator[tuple[Any, Storage]]:
    with open_s3() as opened:
        opened.raw.create_bucket(Bucket="locked-blocks", ObjectLockEnabledForBucket=True)
        yield opened, S3Storage("locked-blocks", "orders", endpoint_url=opened.server_url, kms_key_id=None, ca_file=None)


def test_s16_in_a_locked_bucket_blocks_are_kept_to_their_time_and_nothing_of_them_after(harness, database, aged, locked):
    opened, storage = locked
    aged(("phi_access", day_before(harness, "100 days"), None), ("security", day_before(harness, "9 years"), None))
    found = retain(database, storage)
    assert found.moved == {"warm": 4, "cold": 2, "gone": 2}
    (version,) = opened.raw.list_object_versions(Bucket="locked-blocks")["Versions"]
    assert "/warm/phi_access/" in version["Key"]
    until = opened.raw.head_object(Bucket="locked-blocks", Key=version["Key"])["ObjectLockRetainUntilDate"]
    assert until.date() == harness.value("SELECT (%s + interval '1 year')::date", day_before(harness, "100 days"))
    with pytest.raises(opened.raw.exceptions.ClientError):
        opened.raw.delete_object(Bucket="locked-blocks", Key=version["Key"], VersionId=version["VersionId"])
    assert verify(database, storage).broken is None
    harness.run("UPDATE retention_limits SET warm_until = '95 days' WHERE category = 'phi_access'")
    assert retain(database, storage).locked == 1  # a shorter limit does not unlock what is locked already
    harness.run("UPDATE retention_limits SET warm_until = '1 year' WHERE category = 'phi_access'")


def test_dagsters_old_events_go_and_what_says_what_became_of_runs_stays(harness, database):
    harness.run("DROP SCHEMA dagster CASCADE")
    harness.run("CREATE SCHEMA dagster")
    harness.run("CREATE TABLE dagster.event_logs (id bigserial, timestamp timestamp, dagster_event_type text)")
    kinds = [None, "STEP_OUTPUT", "ASSET_MATERIALIZATION", "ASSET_CHECK_EVALUATION", "PIPELINE_SUCCESS", "ENGINE_EVENT"]
    for days in (89, 91):
        for kind in kinds:
            harness.run(
                "INSERT INTO dagster.event_logs (timestamp, dagster_event_type) "
                "VALUES ((now() - %s * interval '1 day') AT TIME ZONE 'UTC', %s)",
                days,
                kind,
            )
    assert retention.purge_dagster_history(database.url) == 3
    left = harness.run("SELECT dagster_event_type AS kind FROM dagster.event_logs ORDER BY id")
    assert [row["kind"] for row in left] == [*kinds, "ASSET_MATERIALIZATION", "ASSET_CHECK_EVALUATION", "PIPELINE_SUCCESS"]
    harness.run("DROP SCHEMA dagster CASCADE")
    assert retention.purge_dagster_history(database.url) == 0


def test_what_is_kept_of_an_error_goes_with_the_events_of_its_day(harness, database, tmp_path):
    storage = FolderStorage(tmp_path / "kept")
    for days, reference in ((91, "a" * 12), (89, "b" * 12)):
        storage.put(f"errors/{reference}", b"words")
        then = (datetime.now(UTC) - timedelta(days=days)).timestamp()
        os.utime(tmp_path / "kept" / "errors" / reference, (then, then))
    assert retention.purge_error_details(database, storage) == 1
    assert [stored.key for stored in storage.list()] == [f"errors/{'b' * 12}"]

"""Audit shipping: what is sealed arrives outside once by its id, in order, and nothing else; an outage loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config
from pydantic import SecretStr

from orders_pipeline.audit.exporting import export
from orders_pipeline.audit.records import CATEGORIES
from orders_pipeline.audit.sealing import seal
from orders_pipeline.audit.verifying import AuditBroken
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.upkeep.audit_shipping import cloudwatch, documents, shipping
from orders_pipeline.upkeep.audit_shipping.bulk_index import BulkIndex
from orders_pipeline.upkeep.audit_shipping.cloudwatch import CloudWatch
from orders_pipeline.upkeep.audit_shipping.shipping import Unshipped, kept_to_ship, ship, unshipped
from orders_pipeline.upkeep.audit_shipping.sink import NotShipped
from orders_pipeline.upkeep.retention import retain
from orders_pipeline_tests.support.index_server import Index, indexing
from orders_pipeline_tests.support.ledgers import Harness, order
from orders_pipeline_tests.support.s3_server import open_s3

GROUP = "/orders/audit"


@pytest.fixture
def index() -> Iterator[Index]:
    with indexing() as opened:
        yield opened


@pytest.fixture
def sink(index: Index) -> BulkIndex:
    return BulkIndex(index.url, SecretStr("ApiKey planted"))


@pytest.fixture(scope="module")
def logs() -> Iterator[tuple[str, Any]]:
    """The server's URL and a raw client of its CloudWatch Logs."""
    with open_s3() as harness:
        client = boto3.client("logs", endpoint_url=harness.server_url, config=Config(proxies={}))
        client.create_log_group(logGroupName=GROUP)
        yield harness.server_url, client


@pytest.fixture
def stream(logs: tuple[str, Any], request: pytest.FixtureRequest) -> CloudWatch:
    return CloudWatch(GROUP, request.node.name[:50], logs[0])


def work(harness: Harness, database: Database, orders: int = 5) -> None:
    """Have some blocks sealed."""
    harness.batch_id = harness.batch_id or harness.batch()
    begun = harness.value("SELECT count(*) FROM orders")
    harness.orders(*(order(begun + number) for number in range(1, orders + 1)))
    seal(database)
    harness.run("UPDATE orders SET status = 'paying' WHERE status = 'pending'")
    seal(database)


def sealed_ids(harness: Harness) -> list[int]:
    rows = harness.run("SELECT event_id FROM audit_events WHERE event_id <= (SELECT max(through_id) FROM audit_seals)")
    return sorted(row["event_id"] for row in rows)


def sequences(index: Index) -> list[int]:
    return sorted({document["event"]["sequence"] for document in index.documents.values()})


def test_what_is_sealed_arrives_once_with_all_that_the_export_has(harness, database, storage, index, sink):
    work(harness, database)
    assert unshipped(database) is None
    shipped = ship(database, sink)
    assert (shipped.is_all, shipped.records) == (True, len(sealed_ids(harness)))
    assert sequences(index) == sealed_ids(harness)
    assert len(index.sent) == len(set(index.sent)) == shipped.documents
    exported = {each["event"]["id"]: each for each in map(json.loads, export(database, storage, None, None, CATEGORIES))}
    for document in index.documents.values():
        event, ours = dict(document["event"]), dict(document["orders"])
        assert (len(event.pop("hash")), str(event.pop("sequence"))) == (64, event["id"].partition(".")[0])
        assert ours.pop("installation") == str(harness.value("SELECT installation_id FROM installation"))
        assert index.documents[ours.pop("id")] is document
        assert ours.pop("block") >= 1
        ours = {
            name: json.loads(value) if isinstance(value, str) and value[:1] == "{" else value for name, value in ours.items()
        }
        assert document | {"event": event, "orders": ours} == exported[event["id"]]
    path, headers, _ = index.asked[0]
    assert path == "/audit/_bulk?filter_path=errors,items.*.status,items.*.error.type"
    assert (headers["content-type"], headers["authorization"]) == ("application/x-ndjson", "ApiKey planted")
    assert unshipped(database) == Unshipped(0, None)
    assert ship(database, sink).documents == 0


def test_what_is_not_sealed_yet_stays_until_it_is(harness, database, index, sink):
    work(harness, database)
    ship(database, sink)
    before = len(index.documents)
    harness.run("UPDATE orders SET status = 'paid'")
    assert ship(database, sink).documents == 0
    seal(database)
    waiting = unshipped(database)
    assert waiting.records > 0
    assert not waiting.is_late
    assert ship(database, sink).documents == len(index.documents) - before > 0


def test_an_outage_loses_nothing_and_whatever_was_taken_unseen_is_there_once(harness, database, index, sink, monkeypatch):
    monkeypatch.setattr(shipping, "MOST_DOCUMENTS", 4)
    work(harness, database)
    index.failures += [200, 503]
    with pytest.raises(NotShipped, match="E_AUDIT_SHIP: the index answers with 503"):
        ship(database, sink)
    assert len(index.documents) == 4
    index.failures += [0]  # it takes them, and its answer is lost
    with pytest.raises(NotShipped, match="the index was not reached: no usable answer") as lost:
        ship(database, sink)
    assert "planted" not in str(lost.value)
    work(harness, database)
    with pytest.raises(NotShipped, match="connection refused"):
        ship(database, BulkIndex("http://127.0.0.1:9/audit"))
    assert ship(database, sink).is_all
    assert sequences(index) == sealed_ids(harness)
    assert len(index.sent) - len(index.documents) == 4  # those whose answer was lost
    in_order = [document["event"]["sequence"] for document in index.documents.values() if document["orders"]["block"] == 1]
    assert in_order == sorted(in_order)
    assert [document["orders"]["block"] for document in index.documents.values()] == sorted(
        document["orders"]["block"] for document in index.documents.values()
    )


def test_a_round_that_is_over_goes_on_where_it_was(harness, database, index, sink, monkeypatch):
    monkeypatch.setattr(shipping, "MOST_DOCUMENTS", 3)
    monkeypatch.setattr(shipping, "ROUND_S", 0.0)
    work(harness, database, 10)
    rounds = 0
    while not ship(database, sink).is_all:
        rounds += 1
        assert rounds < 50
    assert rounds > 3
    assert len(index.sent) == len(index.documents)
    assert sequences(index) == sealed_ids(harness)


@pytest.mark.parametrize("answer", [{}, {"items": []}, {"items": [{}] * 99}, {"items": "x"}])
def test_what_answers_like_no_index_has_taken_nothing(harness, database, index, sink, monkeypatch, answer):
    work(harness, database)
    monkeypatch.setattr(index, "take", lambda _: answer)
    with pytest.raises(NotShipped, match="what answers is no index"):
        ship(database, sink)
    assert harness.value("SELECT shipped_at FROM audit_shipping") is None


def test_a_document_that_the_index_refuses_stops_all_behind_it(harness, database, index, sink):
    work(harness, database)
    index.refuses = "paying"
    with pytest.raises(NotShipped, match=r"the index refuses \d+ documents \(400 document_parsing_exception\)"):
        ship(database, sink)
    index.refuses = ""
    assert ship(database, sink).is_all
    assert sequences(index) == sealed_ids(harness)


@pytest.mark.parametrize(
    ("tampering", "what"),
    [
        ("UPDATE audit_events SET actor = 'nobody' WHERE event_id = {id}", "record altered"),
        ("DELETE FROM audit_events WHERE event_id = {id}", "record missing"),
        ("UPDATE audit_seals SET records = records + 1 WHERE block_no = 2", "block altered"),
    ],
)
def test_what_was_altered_is_not_sent_and_stops_what_is_behind_it(harness, database, index, sink, tampering, what):
    work(harness, database)
    event_id = harness.value("SELECT first_id FROM audit_seals WHERE block_no = 2")
    harness.tamper(tampering.format(id=event_id))
    with pytest.raises(AuditBroken, match=what):
        ship(database, sink)
    assert event_id not in sequences(index)
    assert {document["orders"]["block"] for document in index.documents.values()} <= {1, 2}


def test_a_chain_that_was_made_anew_behind_what_was_sent_is_found(harness, database, index, sink):
    work(harness, database)
    ship(database, sink)
    harness.tamper("UPDATE audit_events SET actor = 'nobody'", "DELETE FROM audit_seals", "DELETE FROM audit_blocks")
    seal(database)
    with pytest.raises(AuditBroken, match="block altered"):
        ship(database, sink)


def test_a_record_under_the_number_of_another_is_another_document(harness, database, index, sink):
    """As after a database was restored, whose numbers are given again."""
    work(harness, database)
    ship(database, sink)
    before = dict(index.documents)
    harness.tamper(
        "DELETE FROM audit_shipping",
        "UPDATE audit_events SET actor = 'somebody else'",
        "DELETE FROM audit_seals",
        "DELETE FROM audit_blocks",
    )
    seal(database)
    assert ship(database, sink).is_all
    assert len(index.documents) == 2 * len(before)


def test_two_processes_do_not_send_at_once(harness, database, index, sink):
    work(harness, database)
    with database.session() as session:
        assert session.scalar("try_ship_audit")
        shipped = ship(database, sink)
        assert (shipped.is_busy, shipped.documents, index.sent) == (True, 0, [])
    assert ship(database, sink).documents > 0


def test_what_was_not_sent_stays_in_the_database_and_says_so_until_it_is_or_is_not_wanted(
    harness, database, storage, index, sink
):
    ship(database, sink)
    long_ago = datetime.now(UTC) - timedelta(days=100)
    with harness.connect() as connection:
        connection.execute(b"INSERT INTO audit_events (at, category, action) VALUES (%s, 'phi_access', 'test')", [long_ago])
    seal(database)
    assert kept_to_ship(database) == 1
    assert retain(database, storage).moved["warm"] == 0
    ship(database, sink)
    assert kept_to_ship(database) == 0
    assert retain(database, storage).moved["warm"] == 1
    with harness.connect() as connection:
        connection.execute(b"INSERT INTO audit_events (at, category, action) VALUES (%s, 'phi_access', 'test')", [long_ago])
    seal(database)
    assert retain(database, storage).moved["warm"] == 0
    with database.begin() as transaction:
        transaction.execute("unwant_audit_shipping")
    assert unshipped(database) is None
    assert retain(database, storage).moved["warm"] == 1
    assert ship(database, sink).is_all  # from what is in the database on


def test_sending_begins_with_what_is_in_the_database_and_again_sends_that_once_more(harness, database, index, sink):
    work(harness, database)
    first = ship(database, sink)
    assert ship(database, sink, again=True).documents == first.documents
    assert len(index.documents) * 2 == len(index.sent)


def test_the_lag_is_late_after_a_quarter_of_an_hour(harness, database, sink):
    ship(database, sink)
    work(harness, database)
    harness.tamper("UPDATE audit_seals SET sealed_at = now() - interval '16 minutes' WHERE block_no = 1")
    found = unshipped(database)
    assert found.is_late
    assert found.records == harness.value("SELECT sum(records) FROM audit_seals")
    assert f"{found.records} audit records wait to be sent, since 20" in str(found)


def test_memory_is_bounded_by_requests_and_a_document_without_room_goes_without_its_values(
    harness, database, index, sink, monkeypatch
):
    monkeypatch.setattr(shipping, "MOST_BYTES", 8_000)
    monkeypatch.setattr(documents, "MOST_BYTES", 4_000)
    harness.run("INSERT INTO known_profiles VALUES ('acme', json_build_object('note', repeat('x', 5000)))")
    work(harness, database)
    ship(database, sink)
    assert max(size for _, _, size in index.asked) <= 8_000
    (large,) = [each["orders"] for each in index.documents.values() if "left_out_bytes" in each["orders"]]
    assert large["left_out_bytes"] > 5_000
    assert (large["entity"], "after" in large) == ("known_profiles", False)
    assert sequences(index) == sealed_ids(harness)


def streamed(logs: tuple[str, Any], stream: CloudWatch) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    token: dict[str, str] = {}
    while True:
        page = logs[1].get_log_events(logGroupName=stream.group, logStreamName=stream.stream, startFromHead=True, **token)
        if not page["events"]:
            return events
        events += page["events"]
        token = {"nextToken": page["nextForwardToken"]}


def test_cloudwatch_has_each_document_at_the_time_of_its_record(harness, database, logs, stream):
    work(harness, database)
    shipped = ship(database, stream)
    found = streamed(logs, stream)
    bodies = [json.loads(event["message"]) for event in found]
    assert len(found) == shipped.documents == len({body["orders"]["id"] for body in bodies})
    assert sorted({body["event"]["sequence"] for body in bodies}) == sealed_ids(harness)
    for event, body in zip(found, bodies, strict=True):
        assert event["timestamp"] == int(datetime.fromisoformat(body["@timestamp"]).timestamp() * 1000)
        assert body["ecs"]["version"] == "8.11.0"


def test_cloudwatch_takes_old_records_and_those_of_many_days_too(harness, database, logs, stream):
    ship(database, stream)
    with harness.connect() as connection:
        for days in (20, 12, 3):
            at = datetime.now(UTC) - timedelta(days=days)
            connection.execute(b"INSERT INTO audit_events (at, category, action) VALUES (%s, 'phi_access', 'test')", [at])
    seal(database)
    ship(database, stream)
    ages = [
        datetime.now(UTC) - datetime.fromisoformat(json.loads(event["message"])["@timestamp"])
        for event in streamed(logs, stream)
    ]
    assert [age.days for age in ages if age.days] == [20, 12, 3]


def test_cloudwatch_that_finds_a_time_too_old_is_asked_again_with_the_present(harness, database, logs, stream, monkeypatch):
    monkeypatch.setattr(cloudwatch, "OLDEST", timedelta(days=99))  # it takes none of 14 days
    ship(database, stream)
    with harness.connect() as connection:
        at = datetime.now(UTC) - timedelta(days=30)
        connection.execute(b"INSERT INTO audit_events (at, category, action) VALUES (%s, 'phi_access', 'test')", [at])
    seal(database)
    ship(database, stream)
    assert "test" in [json.loads(event["message"])["event"]["action"].rpartition(".")[2] for event in streamed(logs, stream)]


def test_cloudwatch_without_the_group_or_away_says_so_in_our_words(harness, database, logs, stream):
    work(harness, database)
    with pytest.raises(NotShipped, match="E_AUDIT_SHIP: CloudWatch Logs: there is no such log group"):
        ship(database, CloudWatch("planted-group", "planted", logs[0]))
    with pytest.raises(NotShipped, match="E_AUDIT_SHIP: CloudWatch Logs does not answer") as away:
        ship(database, CloudWatch(GROUP, "planted", "http://127.0.0.1:9"))
    assert "planted" not in str(away.value)
    assert ship(database, stream).is_all

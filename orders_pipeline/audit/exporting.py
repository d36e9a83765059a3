"""Exporting: records as lines of JSON in the Elastic Common Schema, for CloudWatch, Elasticsearch and the like.

A record of several rows becomes one event a row. Nothing here decides what a record holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from types import MappingProxyType
from typing import Any

from orders_pipeline.audit.records import RECORDS_AT_ONCE, Category, Record, read_parquet, read_record
from orders_pipeline.database import Database
from orders_pipeline.storage import Storage

ECS_VERSION = "8.11.0"
ECS_CATEGORY: Mapping[Category, str] = MappingProxyType(
    {
        "authentication": "authentication",
        "phi_access": "database",
        "phi_modification": "database",
        "administrative": "configuration",
        "security": "intrusion_detection",
    }
)
ECS_TYPE = MappingProxyType(
    {"insert": "creation", "update": "change", "delete": "deletion", "truncate": "deletion", "read": "access"}
    | {"download": "access", "sign_in": "start", "failure": "error"}
)


def export(
    database: Database, storage: Storage, since: datetime | None, until: datetime | None, categories: Sequence[Category]
) -> Iterator[str]:
    """Yield a line of JSON for each event from `since` to before `until`: first those that have left the database."""
    for record in chain(_moved(database, storage, since, until, categories), _hot(database, since, until, categories)):
        yield from (json.dumps(event, ensure_ascii=False) for event in events(record))


def _moved(
    database: Database, storage: Storage, since: datetime | None, until: datetime | None, categories: Sequence[Category]
) -> Iterator[Record]:
    with database.begin() as transaction:
        blocks = transaction.rows("audit_moved_blocks", since=since, until=until, categories=list(categories))
    for block in blocks:
        with storage.local(block.key) as path:
            for _, text in read_parquet(path):
                record = read_record(text)
                at = datetime.fromisoformat(record.at)
                if (since is None or since <= at) and (until is None or at < until):
                    yield record


def _hot(
    database: Database, since: datetime | None, until: datetime | None, categories: Sequence[Category]
) -> Iterator[Record]:
    after = 0
    while True:
        with database.begin() as transaction:
            rows = transaction.rows(
                "audit_records",
                after=after,
                since=since,
                until=until,
                categories=list(categories),
                limit=RECORDS_AT_ONCE,
            )
        yield from (read_record(row.record) for row in rows)
        if len(rows) < RECORDS_AT_ONCE:
            return
        after = rows[-1].event_id


def events(record: Record) -> Iterator[dict[str, Any]]:
    """Yield a record's events: one a row that it is about, or one for all of it."""
    whole = _event(record)
    if not record.changes:
        yield whole
        return
    for number, change in enumerate(record.changes, 1):
        fields = change["fields"]
        ours = whole["orders"] | {
            "key": change["key"],
            "before": {name: pair[0] for name, pair in fields.items()},
            "after": {name: pair[1] for name, pair in fields.items()},
        }
        yield whole | {"event": whole["event"] | {"id": f"{record.event_id}.{number}"}, "orders": ours}


def _event(record: Record) -> dict[str, Any]:
    failed = record.action == "failure"
    return {
        "@timestamp": record.at,
        "ecs": {"version": ECS_VERSION},
        "event": {
            "id": str(record.event_id),
            "kind": "event",
            "category": [ECS_CATEGORY[record.category]],
            "type": [ECS_TYPE.get(record.action, "info")],
            "action": f"{record.entity or 'system'}.{record.action}",
            "outcome": "failure" if failed else "success",
            "dataset": "orders.audit",
        },
        "user": {"name": record.actor},
        "process": {"title": record.origin},
        "transaction": {"id": record.transaction},
        "labels": {"category": record.category, "login": record.login}
        | ({} if record.batch_id is None else {"batch_id": record.batch_id}),
        "orders": {"entity": record.entity, "rows": record.rows, "detail": dict(record.detail)},
    }

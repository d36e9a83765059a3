"""Exporting: records as lines of JSON in the Elastic Common Schema, for CloudWatch, Elasticsearch and the like.

A record of several rows becomes one event a row. Nothing here decides what a record holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from orders_pipeline.audit.records import RECORDS_AT_ONCE, Block, Category, Record, read_record
from orders_pipeline.audit.verifying import check_head, check_records, in_groups, read_blocks, read_hot, read_object
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.storage import Storage

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
    """Yield a line of JSON for each event from `since` to before `until`: first those that have left the database.

    Raises AuditBroken, which names the block, before anything of it that is not as it was sealed is exported.
    """
    with database.session() as session:
        session.execute("share_audit_places")  # or a block would be on its way while it is looked for
        for text in _texts(database, storage, {"since": since, "until": until, "categories": list(categories)}):
            record = read_record(text)
            at = datetime.fromisoformat(record.at)
            if (since is None or since <= at) and (until is None or at < until):
                yield from (json.dumps(event, ensure_ascii=False) for event in events(record))


def _texts(database: Database, storage: Storage, asked: Mapping[str, object]) -> Iterator[str]:
    with database.begin() as transaction:
        last = transaction.row("last_seal")
        objects = transaction.rows("audit_objects_between", **asked)
    for key in (row.key for row in objects):
        with database.begin() as transaction:
            rows = transaction.rows("audit_blocks_of_object", key=key)
        blocks = [*_intact(Block(**row._asdict()) for row in rows)]
        for _, text in check_records(blocks, read_object(storage, key, blocks[0].block_no)):
            yield text
    if last is not None:
        of = {"last": last.block_no, **asked}  # what is sealed meanwhile is read as what is not
        hot = read_blocks(database, lambda transaction, page: transaction.rows("audit_hot_blocks_between", **page, **of))
        for blocks in in_groups(_intact(hot)):
            for _, text in check_records(blocks, read_hot(database, blocks)):
                yield text
    through = 0 if last is None else last.through_id
    while True:
        with database.begin() as transaction:
            rows = transaction.rows("audit_records", after=through, limit=RECORDS_AT_ONCE, **asked)
        yield from (row.record for row in rows)
        if len(rows) < RECORDS_AT_ONCE:
            return
        through = rows[-1].event_id


def _intact(blocks: Iterable[Block]) -> Iterator[Block]:
    for block in blocks:
        check_head(block, block.head_before)
        yield block


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

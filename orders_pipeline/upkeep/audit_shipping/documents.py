"""Documents: what is sent of an audit record, in the Elastic Common Schema, each under an id that follows from its content.

So whatever is sent twice is known for the same, and a record of a restored database is not taken for another one that had
its number before. Nothing here decides what a record holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orders_pipeline.audit.exporting import events
from orders_pipeline.audit.records import read_record

MOST_BYTES = 250_000  # of a document: CloudWatch takes 256 KiB
LARGE = ("before", "after", "detail")


@dataclass(frozen=True)
class Document:
    """One document; `is_last` of its record."""

    document_id: str
    at: datetime
    event_id: int
    is_last: bool
    body: Mapping[str, Any]


def documents(text: str, block_no: int, installation: str) -> Iterator[Document]:
    """Yield the documents of a sealed record."""
    record = read_record(text)
    sealed_as = hashlib.sha256(text.encode()).hexdigest()
    own = list(events(record))
    for number, event in enumerate(own, 1):
        document_id = f"{sealed_as[:32]}-{number}"
        ours = {"id": document_id, "installation": installation, "block": block_no}
        body = event | {
            "event": event["event"] | {"hash": sealed_as, "sequence": record.event_id},
            "orders": event["orders"] | ours,
        }
        at = datetime.fromisoformat(record.at)
        yield Document(document_id, at, record.event_id, number == len(own), _in_bounds(body))


def _in_bounds(body: dict[str, Any]) -> dict[str, Any]:
    """Return a document without its values where it is too large for any system to take; `audit export` has them."""
    size = len(written(body))
    if size <= MOST_BYTES:
        return body
    kept = {name: value for name, value in body["orders"].items() if name not in LARGE}
    return body | {"orders": kept | {"left_out_bytes": size}}


def written(body: Mapping[str, Any]) -> bytes:
    """Return a document as one line of JSON."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()

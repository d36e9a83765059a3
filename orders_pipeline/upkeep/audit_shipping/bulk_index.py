"""An index of Elasticsearch or OpenSearch as a sink: documents are created under their ids by `_bulk`, and never changed.

What is there already is taken for sent. The values of a change are sent as text: fields of many tables have many types, and
an index takes one type a field.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from orders_pipeline.services.answers import Answer, NoAnswer, NotDelivered, safe_code
from orders_pipeline.services.http_client import post_outside
from orders_pipeline.upkeep.audit_shipping.documents import Document, written
from orders_pipeline.upkeep.audit_shipping.sink import Lines, NotShipped

TIMEOUT_S = 15.0
MOST_ANSWER_BYTES = 1 << 20
ASKED = "_bulk?filter_path=errors,items.*.status,items.*.error.type"
TAKEN = (200, 201, 409)  # the last: it is there


@dataclass(frozen=True)
class BulkIndex:
    """One index or data stream; `authorization` is what the header of this name says."""

    url: str
    authorization: SecretStr | None = None
    ca_file: Path | None = None

    def written(self, document: Document) -> bytes:
        """Return a document and what is to be done with it, as two lines of JSON."""
        ours = {name: _as_text(value) for name, value in document.body["orders"].items()}
        action, body = {"create": {"_id": document.document_id}}, dict(document.body) | {"orders": ours}
        return b"%b\n%b\n" % (written(action), written(body))

    def send(self, lines: Lines) -> None:
        """Create documents; raise NotShipped unless each was taken or is there."""
        answer = self._asked(b"".join(line for _, line in lines))
        if answer.status != 200:
            raise NotShipped(f"{NotShipped.code}: the index answers with {answer.status}")
        results = _results(answer)
        if len(results) != len(lines):
            raise NotShipped(f"{NotShipped.code}: what answers is no index")
        refused = [f"{status} {why}" for status, why in results if status not in TAKEN]
        if refused:
            raise NotShipped(f"{NotShipped.code}: the index refuses {len(refused):,} documents ({refused[0]})")

    def _asked(self, body: bytes) -> Answer:
        headers = {"Content-Type": "application/x-ndjson", "Accept": "application/json"}
        if self.authorization is not None:
            headers["Authorization"] = self.authorization.get_secret_value()
        try:
            return post_outside(
                f"{self.url.rstrip('/')}/{ASKED}",
                body,
                headers,
                timeout_s=TIMEOUT_S,
                may_call=lambda _: True,  # the operator's own address
                ca_file=self.ca_file,
                most_bytes=MOST_ANSWER_BYTES,
            )
        except (NotDelivered, NoAnswer) as failure:
            raise NotShipped(f"{NotShipped.code}: the index was not reached: {failure.why}") from None


def _results(answer: Answer) -> list[tuple[int, str]]:
    """Return of each document the status and the kind of error; nothing where the answer is another one."""
    try:
        items = [item["create"] for item in answer.body["items"]]
        return [(int(item["status"]), safe_code(item.get("error", {}).get("type")) or "no reason") for item in items]
    except (KeyError, TypeError, ValueError, AttributeError):
        return []


def _as_text(value: Any) -> Any:  # noqa: ANN401 - any member of a document
    return written(value).decode() if isinstance(value, dict) else value

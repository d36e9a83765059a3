"""CloudWatch Logs as a sink: each document is an event of one stream. What is sent twice is there twice, under one id.

An event is shown at its record's time, unless that is too long ago for CloudWatch to take it: then at the time of sending.
boto3 is imported when it is used.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from orders_pipeline.security.aws_client import aws_client
from orders_pipeline.services.answers import safe_code
from orders_pipeline.upkeep.audit_shipping.documents import Document, written
from orders_pipeline.upkeep.audit_shipping.sink import Lines, NotShipped

TRIES = 2
OLDEST = timedelta(days=13)  # it takes none that is 14 days old
LONGEST = timedelta(hours=23)  # from the first event of a request to the last: a day at most
MISSING = "ResourceNotFoundException"


@dataclass(frozen=True)
class CloudWatch:
    """One stream of a log group; the stream is made where it is not there, the group is yours to make."""

    group: str
    stream: str
    endpoint_url: str | None = None
    ca_file: Path | None = None

    def written(self, document: Document) -> bytes:
        """Return a document as one line of JSON."""
        return written(document.body)

    def send(self, lines: Lines) -> None:
        """Put documents into the stream; raise NotShipped."""
        with _errors():
            client = self._client
            try:
                self._put(client, lines)
            except client.exceptions.ResourceNotFoundException:
                client.create_log_stream(logGroupName=self.group, logStreamName=self.stream)
                self._put(client, lines)

    def _put(self, client: Any, lines: Lines) -> None:  # noqa: ANN401 - boto3 makes its classes
        now = int(time.time() * 1000)
        at = [int(document.at.timestamp() * 1000) for document, _ in lines]
        oldest = now - _ms(OLDEST)
        shown = [moment if moment > oldest else now for moment in at]
        if max(shown) - min(shown) <= _ms(LONGEST) and self._take(client, lines, shown):
            return
        # of several days at once, or older than what the group keeps
        if not self._take(client, lines, [now] * len(shown)):
            raise NotShipped(f"{NotShipped.code}: CloudWatch rejects events as too old or too new; is the clock right?")

    def _take(self, client: Any, lines: Lines, shown: Sequence[int]) -> bool:  # noqa: ANN401
        """Put documents at some times, in the order of these, and return whether none was rejected."""
        in_order = sorted(zip(shown, lines, strict=True), key=lambda each: each[0])  # the same time: as they came
        events = [{"timestamp": moment, "message": line.decode()} for moment, (_, line) in in_order]
        answer = client.put_log_events(logGroupName=self.group, logStreamName=self.stream, logEvents=events)
        return not answer.get("rejectedLogEventsInfo")

    @property
    def _client(self) -> Any:  # noqa: ANN401 - as above
        return aws_client("logs", self.endpoint_url, self.ca_file, tries=TRIES)


def _ms(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Turn boto3's errors, whose texts name groups and accounts, into ours."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError  # noqa: PLC0415

    try:
        yield
    except ClientError as error:
        code = safe_code(error.response.get("Error", {}).get("Code")) or "an error"
        says = "there is no such log group" if code == MISSING else f"it answers with {code}"
        raise NotShipped(f"{NotShipped.code}: CloudWatch Logs: {says}") from None
    except (NoCredentialsError, NoRegionError):
        raise NotShipped(f"{NotShipped.code}: no AWS credentials or region are set") from None
    except (BotoCoreError, KeyError, ValueError):
        raise NotShipped(f"{NotShipped.code}: CloudWatch Logs does not answer") from None

"""What documents are sent to, as `shipping` sees it; which one it is, is a setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from orders_pipeline.upkeep.audit_shipping.documents import Document

Lines: TypeAlias = Sequence[tuple[Document, bytes]]  # documents, each as it is sent


class NotShipped(Exception):
    """The system outside did not take audit records, or some wait for long; the text says why, and they are kept."""

    code = "E_AUDIT_SHIP"


class Sink(Protocol):
    """A system that takes documents, and knows by its id one that it has."""

    def written(self, document: Document) -> bytes:
        """Return a document as it is sent."""

    def send(self, lines: Lines) -> None:
        """Send documents in their order, and return once all are taken; raise NotShipped."""

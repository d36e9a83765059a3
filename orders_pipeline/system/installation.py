"""The installation: whose payments at the service are ours.

References name the installation that sent them, because others use the service too. Ids of payments, refunds and
notifications follow from the installation and from what they are for, in the database (`next_payment_id` and its like).
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

from orders_pipeline.infrastructure.database import Transaction

PREFIX_DIGITS = 12  # of the installation's id
_REFERENCE = re.compile(r"([0-9a-f]{12})-([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")


@dataclass(frozen=True)
class Installation:
    """Which installation of the product this is, and how often its database was restored since."""

    installation_id: uuid.UUID
    generation: int

    @property
    def prefix(self) -> str:
        """Return what all our references begin with."""
        return f"{self.installation_id.hex[:PREFIX_DIGITS]}-"

    def is_ours(self, reference: str) -> bool:
        """Return whether a reference is one that this installation wrote."""
        return self.payment_id_of(reference) is not None

    def payment_id_of(self, reference: str) -> str | None:
        """Return the payment that a reference of ours names, in our ledger or lost from it; None for anybody else's."""
        match = _REFERENCE.fullmatch(reference)
        return match[2] if match is not None and reference.startswith(self.prefix) else None


def read(transaction: Transaction) -> Installation:
    """Return the installation that the database belongs to."""
    row = transaction.rows("installation")[0]
    return Installation(row.installation_id, row.generation)

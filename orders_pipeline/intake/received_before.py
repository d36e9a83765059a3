"""Orders received before: which of them, in other batches of the client, have the references of a file's rows.

Also in which columns such a row is not what was received. For that personal columns are opened: how many is recorded in
the audit, and what they say stays here. What follows for rows is in `repeated_orders.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Row

from orders_pipeline.audit import recording
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.records.judgement import Rows
from orders_pipeline.records.orders import ORDER_LINES, ORDERS
from orders_pipeline.security import personal_data
from orders_pipeline.security.encryption import Cipher, DecryptionError

Line: TypeAlias = tuple[Any, ...]
LINE_COLUMNS = ORDER_LINES.column_names

PURPOSE = "comparing orders that came again"


@dataclass(frozen=True)
class ReceivedBefore:
    """Looks up case-folded references in all batches of a client but one.

    Where rows are skipped that are the same (`unopened_differ`), those are not of which nobody can say so.
    """

    database: Database
    cipher: Cipher
    batch_id: str
    client_code: str
    unopened_differ: bool = False

    def existing(self, references: Sequence[str]) -> dict[str, str]:
        """Return the batch of each reference that an order has."""
        with self.database.begin() as transaction:
            rows = transaction.rows("existing_refs", **self._asked(references))
        return {row.ref: row.batch_id for row in rows}

    def settled(self, references: Sequence[str]) -> dict[str, str]:
        """Return the batch of each reference whose order is with the Payment service or on its way there."""
        with self.database.begin() as transaction:
            rows = transaction.rows("settled_refs", **self._asked(references))
        return {row.ref: row.batch_id for row in rows}

    def given_up(self, references: Sequence[str]) -> dict[str, str]:
        """Return the batch of each reference that was given up for another one."""
        with self.database.begin() as transaction:
            if not transaction.scalar("has_given_up_refs", client_code=self.client_code):  # as of most clients
                return {}
            rows = transaction.rows("given_up_refs", **self._asked(references))
        return {row.ref: row.batch_id for row in rows}

    def lines(self, references: Sequence[str]) -> dict[str, list[Line]]:
        """Return the lines of each reference that an order of several rows has."""
        found: dict[str, list[Line]] = {}
        with self.database.begin() as transaction:
            for row in transaction.rows("existing_lines", **self._asked(references)):
                found.setdefault(row.ref, []).append(tuple(getattr(row, name) for name in LINE_COLUMNS))
        return found

    def differing(self, rows: Rows, references: Sequence[str]) -> list[list[str]]:
        """Return of each row the columns in which it differs from the order that has its reference."""
        with self.database.begin() as transaction:
            known = {row.ref: row for row in transaction.rows("existing_orders", **self._asked(references))}
            recording.read_personal(transaction, PURPOSE, None, len(known))
        mine = {name: (rows.values.get(name, rows.text[name])).to_pylist() for name in ORDERS.compared_columns}
        hidden = {name: rows.text[name].to_pylist() for name in ORDERS.personal_columns}
        columns: list[list[str]] = []
        for at, reference in enumerate(references):
            theirs = known.get(reference)
            if theirs is None:  # it went meanwhile
                columns.append([])
                continue
            differ = {name for name in ORDERS.compared_columns if (mine[name][at] or None) != getattr(theirs, name)}
            opened = self._opened(theirs)
            if opened is not None:
                differ |= {name for name, cells in hidden.items() if cells[at] != opened.get(name, "")}
            elif self.unopened_differ:  # but not in the name, by which orders with a shortened reference are known
                differ |= {name for name in hidden if not ORDERS.by_name[name].required}
            columns.append([name for name in ORDERS.column_names if name in differ])
        return columns

    def _asked(self, references: Sequence[str]) -> dict[str, str]:
        # an array of thousands is slow to hand over
        return {"refs": "\x1f".join(references), "client_code": self.client_code, "batch_id": self.batch_id}

    def _opened(self, order: Row[Any]) -> Mapping[str, str] | None:
        """Return an order's personal columns; None where they cannot be opened: then only the others are compared."""
        try:
            return personal_data.decrypt(self.cipher, order.batch_id, order.import_row_number, order.personal)
        except DecryptionError:
            return None

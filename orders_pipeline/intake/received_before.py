"""Orders that come again: in which columns a row is not what was received under its reference before.

Personal columns are compared too, which opens them: how many is written into the audit, and what they say stays here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row

from orders_pipeline.audit import recording
from orders_pipeline.intake.validation import Differing
from orders_pipeline.records.judgement import Rows
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.security import personal_data
from orders_pipeline.security.encryption import DecryptionError
from orders_pipeline.system.opening import System

PURPOSE = "comparing orders that came again"


def differing(system: System, batch_id: str, client_code: str) -> Differing:
    """Return a function that names the columns in which rows differ from the orders that have their references."""
    compared = [column.name for column in ORDERS.stored_columns if column.name != ORDERS.identity]

    def differing(rows: Rows, references: Sequence[str]) -> list[list[str]]:
        with system.database.begin() as transaction:
            found = transaction.rows(
                "existing_orders", refs="\x1f".join(references), client_code=client_code, batch_id=batch_id
            )
            recording.read_personal(transaction, PURPOSE, None, len(found))
        known = {row.ref: row for row in found}
        mine = {name: (rows.values.get(name, rows.text[name])).to_pylist() for name in compared}
        hidden = {name: rows.text[name].to_pylist() for name in ORDERS.personal_columns}
        columns: list[list[str]] = []
        for at, reference in enumerate(references):
            theirs = known.get(reference)
            if theirs is None:  # it went meanwhile
                columns.append([])
                continue
            differ = {name for name in compared if (mine[name][at] or None) != getattr(theirs, name)}
            opened = _opened(system, theirs)
            if opened is not None:
                differ |= {name for name, cells in hidden.items() if cells[at] != opened.get(name, "")}
            columns.append([name for name in ORDERS.column_names if name in differ])
        return columns

    return differing


def _opened(system: System, order: Row[Any]) -> Mapping[str, str] | None:
    """Return an order's personal columns; None where they cannot be opened: then only the others are compared."""
    try:
        return personal_data.reveal(system.cipher, order.batch_id, order.import_row_number, order.personal)
    except DecryptionError:
        return None

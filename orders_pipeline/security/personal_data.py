"""The personal columns of an order: encrypted together as one envelope for the row they came with.

The only way in and out of `orders.personal`. The cipher itself belongs in `encryption.py`; which columns are personal
is said in the catalogue, `records/orders.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import compress
from operator import not_

import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.records.normalise import utf8_content
from orders_pipeline.security.encryption import Cipher, DecryptionError

_NUMBER = "import_row_number"


def _bound_to(batch_id: str, import_row_number: int) -> bytes:
    return _place_in(batch_id) + str(import_row_number).encode()


def _place_in(batch_id: str) -> bytes:
    return f"orders.personal|{batch_id}|".encode()


def encrypter(cipher: Cipher, batch_id: str) -> Callable[[pa.RecordBatch], pa.Array]:
    """Return a function that encrypts the personal columns of rows, given with `import_row_number`: an envelope a row."""

    def encrypt(rows: pa.RecordBatch) -> pa.Array:
        numbers = rows.column(_NUMBER).cast(pa.string()).cast(pa.binary())
        places = pc.binary_join_element_wise(_place_in(batch_id), numbers, b"")
        return cipher.encrypt_all(_written(rows.drop_columns(_NUMBER)), places)

    return encrypt


def decrypt(cipher: Cipher, batch_id: str, import_row_number: int, envelope: bytes) -> dict[str, str]:
    """Return an order's personal columns that are not empty; raise DecryptionError when the envelope is not this row's."""
    opened = cipher.decrypt(bytes(envelope), _bound_to(batch_id, import_row_number))
    values: dict[str, str] = json.loads(opened, strict=False)  # control characters are not escaped in the envelope
    return values


def reencrypt(cipher: Cipher, rows: Iterable[tuple[str, int, bytes]]) -> list[bytes | None]:
    """Return envelopes of (batch, import_row_number, envelope) anew, with the current key; None for a damaged one."""
    encrypted: list[bytes | None] = []
    for batch_id, import_row_number, envelope in rows:
        place = _bound_to(batch_id, import_row_number)
        try:
            encrypted.append(cipher.encrypt(cipher.decrypt(bytes(envelope), place), place))
        except DecryptionError:
            encrypted.append(None)
    return encrypted


def _written(rows: pa.RecordBatch) -> pa.Array:
    """Return each row's cells that are not empty as a JSON object, written column by column: ten times as fast."""
    columns = [(f',{json.dumps(name)}:"'.encode(), _escaped(rows.column(name))) for name in rows.schema.names]
    everywhere = [bool(pc.min(pc.binary_length(cells)).as_py()) for _, cells in columns]
    members = [part for member in compress(columns, everywhere) for part in (*member, b'"')]
    for name, cells in compress(columns, map(not_, everywhere)):
        member = pc.binary_join_element_wise(name, cells, b'"', b"")
        members.append(pc.if_else(pc.equal(cells, b""), b"", member))
    if any(everywhere):
        members[0] = members[0].removeprefix(b",")
    written = pc.binary_join_element_wise(b"{", *members, b"}", b"")
    if not any(everywhere):
        written = pc.replace_substring(written, b"{,", b"{", max_replacements=1)
    return written


def _escaped(cells: pa.Array) -> pa.Array:
    """Return a column's cells as they stand in JSON between quotes."""
    content = utf8_content(cells)
    for special in ("\\", '"'):
        if special.encode() in content:
            cells = pc.replace_substring(cells, special, "\\" + special)
    return cells.cast(pa.binary())

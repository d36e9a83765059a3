"""The personal columns of an order: sealed together as one envelope for the row they came with.

The only way in and out of `orders.personal`. The cipher itself belongs in `encryption.py`; which columns are personal
is said in the catalogue, `records/orders.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pandas as pd

from orders_pipeline.encryption import Cipher


def _bound_to(batch_id: str, import_row_number: int) -> bytes:
    return f"orders.personal|{batch_id}|{import_row_number}".encode()


def sealer(cipher: Cipher, batch_id: str) -> Callable[[pd.DataFrame], list[bytes]]:
    """Return a function that seals frames of personal columns (index: import_row_number), one envelope a row."""

    def seal(frame: pd.DataFrame) -> list[bytes]:
        names = list(frame.columns)
        columns = [frame[name].tolist() for name in names]
        sealed = []
        for row_number, *values in zip(frame.index.tolist(), *columns, strict=True):
            present = {name: value for name, value in zip(names, values, strict=True) if value}
            plaintext = json.dumps(present, ensure_ascii=False, separators=(",", ":")).encode()
            sealed.append(cipher.seal(plaintext, _bound_to(batch_id, row_number)))
        return sealed

    return seal


def reveal(cipher: Cipher, batch_id: str, import_row_number: int, sealed: bytes) -> dict[str, str]:
    """Return an order's personal columns that are not empty; raise DecryptionError when the envelope is not this row's."""
    opened: dict[str, str] = json.loads(cipher.open(bytes(sealed), _bound_to(batch_id, import_row_number)))
    return opened

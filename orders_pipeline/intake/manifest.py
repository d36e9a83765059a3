"""Manifests: what a client says a file holds, in a JSON object beside it, binding when it is there.

`orders.csv` has `orders.csv.manifest.json`, or `orders.manifest.json` where no other order file shares that, with any of
`sha256` (hex, of the file's bytes), `row_count` (rows that are not blank) and `amount_total` (yen, of all rows). It counts
orders: a total row is none. Where manifests are found and kept belongs in `control.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orders_pipeline.clients.file_names import ENDINGS, is_order_name
from orders_pipeline.records.rejections import FileRejected

SUFFIX = ".manifest.json"
MOST_BYTES = 64 << 10


class Manifest(BaseModel):
    """Control totals of one file; what is None was not given."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None
    row_count: Annotated[int, Field(ge=0)] | None = None
    amount_total: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Manifest:
        if self.sha256 is None and self.row_count is None and self.amount_total is None:
            raise ValueError("nothing to check")
        return self

    def check_bytes(self, sha256: str) -> None:
        """Refuse a file with other bytes than the manifest's."""
        if self.sha256 is not None and self.sha256.lower() != sha256:
            raise FileRejected("F_CONTROL_TOTAL", {"field": "sha256"})

    def check_totals(self, rows: int, amount: int, *, unreadable: int, has_total_row: bool) -> None:
        """Refuse a file with more or fewer rows, or with another sum in yen; blank and total rows are not counted.

        The sum cannot be known where amounts are `unreadable`.
        """
        hint = {"hint": "total_row"} if has_total_row else {}
        if self.row_count is not None and self.row_count != rows:
            raise _differs("row_count", self.row_count, rows, hint)
        if self.amount_total is not None and (unreadable or self.amount_total != amount):
            raise _differs("amount_total", self.amount_total, amount, hint)


def manifest_names(name: str) -> tuple[str, str]:
    """Return the names (or keys) of the manifests of a file: its own one first, then one that others may share."""
    return name + SUFFIX, str(PurePosixPath(name).with_suffix(SUFFIX))


def order_names(manifest: str) -> tuple[str, ...]:
    """Return the names (or keys) that the order file of a manifest may have, as they are usually written."""
    stem = manifest.removesuffix(SUFFIX)
    own = (stem,) if is_order_name(stem) else ()
    return (*own, *(stem + form for ending in ENDINGS for form in (ending, ending.upper())))


def read_manifest(content: bytes) -> Manifest:
    """Read a manifest; raise FileRejected(F_MANIFEST) naming the field that is wrong, without its value."""
    try:
        given = json.loads(content.decode("utf-8-sig"))
        return Manifest.model_validate(given)
    except ValidationError as error:
        where = error.errors()[0]["loc"]
        raise FileRejected("F_MANIFEST", {"field": str(where[0])} if where else {"hint": "says_nothing"}) from None
    except (ValueError, RecursionError):
        raise FileRejected("F_MANIFEST", {"hint": "not_json"}) from None


def _differs(field: str, expected: int, found: int, hint: Mapping[str, str]) -> FileRejected:
    return FileRejected("F_CONTROL_TOTAL", {"field": field, "expected": str(expected), "found": str(found), **hint})

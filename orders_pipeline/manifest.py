"""Manifests: what a client says a file holds, in a JSON object beside it, binding when it is there.

`orders.csv` has `orders.csv.manifest.json`, or `orders.manifest.json` where no other order file shares that, with any of
`sha256` (hex, of the file's bytes), `row_count` (rows that are not blank) and `amount_total` (yen, of all rows). Where
manifests are found and kept belongs in `intake.py`.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orders_pipeline.rejections import FileRejected

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

    def check_rows(self, rows: int) -> None:
        """Refuse a file with more or fewer rows, blank ones not counted."""
        if self.row_count is not None and self.row_count != rows:
            raise _differs("row_count", self.row_count, rows)

    def check_amount(self, amount: int, unreadable: int) -> None:
        """Refuse a file with another sum in yen, or one that cannot be known because amounts are `unreadable`."""
        if self.amount_total is not None and (unreadable or self.amount_total != amount):
            raise _differs("amount_total", self.amount_total, amount)


def manifest_names(name: str) -> tuple[str, str]:
    """Return the names (or keys) of the manifests of a file: its own one first, then one that others may share."""
    return name + SUFFIX, str(PurePosixPath(name).with_suffix(SUFFIX))


def read_manifest(content: bytes) -> Manifest:
    """Read a manifest; raise FileRejected(F_MANIFEST) naming the field that is wrong, without its value."""
    try:
        given = json.loads(content.decode("utf-8-sig"))
        return Manifest.model_validate(given)
    except ValidationError as error:
        where = error.errors()[0]["loc"]
        raise FileRejected("F_MANIFEST", {"field": str(where[0])} if where else {}) from None
    except (ValueError, RecursionError):
        raise FileRejected("F_MANIFEST") from None


def _differs(field: str, expected: int, found: int) -> FileRejected:
    return FileRejected("F_CONTROL_TOTAL", {"field": field, "expected": str(expected), "found": str(found)})

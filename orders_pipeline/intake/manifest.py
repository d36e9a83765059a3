"""Manifests: what a client says a file holds, in a JSON object beside it, binding when it is there.

`orders.csv` has `orders.csv.manifest.json`, or `orders.manifest.json` where no other order file shares that, with any of
`sha256` (hex, of the file's bytes), `row_count` (rows that are not blank) and `amount_total` (yen, of all rows). It counts
orders: a total row is none. How it is kept and held against a file is in `declarations.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orders_pipeline.clients.file_names import ENDINGS, composed, forms_of, is_order_name, stem
from orders_pipeline.infrastructure.storage import KeyRefused, Storage, StoredObject
from orders_pipeline.records.rejections import FileRejected

SUFFIX = ".manifest.json"
MOST_BYTES = 64 << 10

Found = TypeVar("Found")


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
    return name + SUFFIX, stem(name) + SUFFIX


def order_names(manifest: str) -> tuple[str, ...]:
    """Return the names (or keys) that the order file of a manifest may have, as they are usually written."""
    start = manifest.removesuffix(SUFFIX)
    own = (start,) if is_order_name(start) else ()
    return (*own, *(start + form for ending in ENDINGS for form in (ending, ending.upper())))


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


def manifest_beside(path: Path) -> Manifest | None:
    """Return the manifest of a local file, if there is one beside it; raise FileRejected."""

    def find(name: str) -> Path | None:
        beside = (path.with_name(form) for form in forms_of(name))
        return next((path for path in beside if os.path.lexists(path)), None)  # none has a name that is too long

    manifest = _only_one(path.name, find, lambda: (each.name for each in path.parent.iterdir()))
    if manifest is None:
        return None
    try:
        with manifest.open("rb") as file:
            return read_manifest(file.read(MOST_BYTES + 1))
    except OSError:
        raise FileRejected("F_DENIED") from None


def landed_manifest(landing: Storage, landing_key: str, copy: Path) -> Manifest | None:
    """Return the manifest of a landed file, if there is one beside it, copied to `copy`; raise FileRejected."""

    def find(key: str) -> StoredObject | None:
        for form in forms_of(key):
            with contextlib.suppress(KeyRefused):  # its name would be too long
                if (found := landing.head(form)) is not None:
                    return found
        return None

    folder = landing_key.rpartition("/")[0]
    landed = _only_one(landing_key, find, lambda: (stored.key for stored in landing.list(folder + "/")))
    if landed is None:
        return None
    if landed.size > MOST_BYTES:
        raise FileRejected("F_MANIFEST")
    landing.fetch(landed, copy)
    return read_manifest(copy.read_bytes())


def _only_one(name: str, find: Callable[[str], Found | None], names_beside: Callable[[], Iterable[str]]) -> Found | None:
    """Return a file's manifest; raise FileRejected where another order file has the same one as well."""
    own, shared = manifest_names(name)
    if (found := find(own)) is not None or (found := find(shared)) is None:
        return found
    rivals = {composed(each) for each in names_beside() if is_order_name(each)} - {composed(name)}
    if any(manifest_names(each)[1] == composed(shared) for each in rivals):
        raise FileRejected("F_MANIFEST_SHARED")
    return found


def _differs(field: str, expected: int, actual: int, hint: Mapping[str, str]) -> FileRejected:
    return FileRejected("F_CONTROL_TOTAL", {"field": field, "expected": str(expected), "found": str(actual), **hint})

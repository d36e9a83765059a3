"""What is left where it is in the landing: no order files, files that were refused, files that are not complete yet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from orders_pipeline.clients.file_names import composed, forms_of, is_order_name, shown
from orders_pipeline.clients.profiles import CLIENT_CODE
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.infrastructure.storage import Page, Storage
from orders_pipeline.infrastructure.storage.interface import is_key
from orders_pipeline.intake.landing.listing import Find, is_manifest, is_order_file, is_within
from orders_pipeline.intake.manifest import manifest_names, order_names

LEFT_S = 10.0  # for so long the doctor looks
NAMES_SHOWN = 20


@dataclass(frozen=True)
class LeftAlone:
    """What is left alone for one kind of reason: how many names, and some of them."""

    count: int
    names: tuple[str, ...]
    why: tuple[str, ...] = ()  # of each name, where that is not the same for all

    def __str__(self) -> str:
        """Return how many there are and their names, or as many as are known, those with the same reason together."""
        more = self.count - len(self.names)
        said = "; ".join(f"{why}: {', '.join(names)}" for why, names in self.by_reason().items()) or ", ".join(self.names)
        return f"{self.count:,} ({said}{f' and {more:,} more' if more else ''})"

    def by_reason(self) -> dict[str, list[str]]:
        """Return the names under the reasons they have."""
        reasons: dict[str, list[str]] = {}
        for name, why in zip(self.names, self.why, strict=False):
            reasons.setdefault(why, []).append(name)
        return reasons

    def as_dict(self) -> dict[str, Any]:
        """Return it as it goes into JSON."""
        return {"count": self.count, "names": list(self.names)} | ({"reasons": self.by_reason()} if self.why else {})


def why_left_alone(key: str) -> str:
    """Return why what lies in the landing under a key, or would, is no order file."""
    client_code, is_inside, name = key.partition("/")
    reasons = {
        "a folder that is hidden or cannot be looked into": key.endswith("/"),
        "not in a client's folder": not is_inside,
        "its folder is no client code": not CLIENT_CODE.fullmatch(client_code),
        "deeper than in a client's folder": "/" in name,
        "a manifest without its order file": is_manifest(key),
        "not named as an order file": not is_order_name(name),
        "a link, or nothing that can be read or named": True,
    }
    return next(reason for reason, is_so in reasons.items() if is_so)


def not_orders(page: Page, after: str, find: Find) -> list[str]:
    """Return what is no order file of a page and, as far as `find` finds, no manifest of one."""
    listed = {name for stored in page.objects if is_order_file(stored.key) for name in manifest_names(composed(stored.key))}

    def has_order_file(manifest: str) -> bool:
        names = (form for name in order_names(manifest) for form in forms_of(name) if is_key(form))
        return composed(manifest) in listed or any(
            find(name) is not None for name in names if not is_within(name, page, after)
        )

    return [
        stored.key
        for stored in page.objects
        if not (has_order_file(stored.key) if is_manifest(stored.key) else is_order_file(stored.key))
    ]


def recorded(transaction: Transaction) -> dict[str, LeftAlone]:
    """Return what the last two looks have left where it is.

    `left_alone` are no order files, `refused` files of which nothing came as a batch, `waiting` files not complete yet.
    """
    found = {
        "left_alone": transaction.rows("left_alone_names", are_refused=False, limit=NAMES_SHOWN),
        "refused": transaction.rows("left_alone_names", are_refused=True, limit=NAMES_SHOWN),
        "waiting": transaction.rows("waiting_names", limit=NAMES_SHOWN),
    }
    left = {
        name: LeftAlone(rows[0].names if rows else 0, tuple(shown(row.key) for row in rows)) for name, rows in found.items()
    }
    why = tuple(why_left_alone(row.key) for row in found["left_alone"])
    return left | {"left_alone": replace(left["left_alone"], why=why)}


def listed(landing: Storage, look_s: float = LEFT_S) -> dict[str, LeftAlone]:
    """Return what is no order file, as far as a listing from the start comes in `look_s` seconds."""
    names: list[str] = []
    deadline = time.monotonic() + look_s
    after = ""
    for page in landing.pages():
        names += (*not_orders(page, after, landing.head), *page.others)
        after = page.upto or ""
        if time.monotonic() >= deadline:
            break
    some = sorted(names)[:NAMES_SHOWN]
    return {"left_alone": LeftAlone(len(names), tuple(map(shown, some)), tuple(map(why_left_alone, some)))}


def in_words(left: Mapping[str, LeftAlone]) -> list[str]:
    """Return a line for each kind of what is left where it is."""
    says = {
        "left_alone": "no order files, left alone",
        "refused": "refused or cancelled, and still there",
        "waiting": "not complete yet, waited for",
    }
    return [f"{says[name]}: {some}" for name, some in left.items() if some.count]

"""The overview, for operators: what is under way, waits or was stopped at which client, and what was received of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row
from starlette.responses import Response

from orders_pipeline.batches.batches import JAPAN, UNDER_WAY
from orders_pipeline.settlement.standing_still import standing_still_since
from orders_pipeline.web.page.rendering import Visit

DAYS = 14
MOST_UNFINISHED = 200
MOST_CLIENTS = 10
WIDTH, HEIGHT = 700, 160  # of a chart, in its own units
GAP = 0.3  # of a bar's place
SERVICES = ("payment", "notification")


@dataclass(frozen=True)
class Sum:
    """What was received on a day, or of a client."""

    label: str
    batches: int
    accepted: int
    rejected: int
    yen: int
    bar: tuple[float, float, float, float] = (0, 0, 0, 0)  # left, top, width, height


def show_overview(visit: Visit) -> Response:
    """Show all clients at once."""
    today = datetime.now(JAPAN).date()
    since = today - timedelta(days=DAYS - 1)
    with visit.system.database.begin() as transaction:
        unfinished = transaction.rows("page_unfinished", limit=MOST_UNFINISHED)
        refunds = transaction.rows("batches_with_open_refunds", client_code=None, limit=MOST_UNFINISHED)
        breakers = {each.service: each for each in transaction.rows("open_breakers")}
        found = transaction.rows("page_days", since=datetime.combine(since, datetime.min.time(), JAPAN).isoformat())
    still = standing_still_since(visit.system, [each.batch_id for each in unfinished])
    waiting = [each for each in unfinished if each.status not in UNDER_WAY or each.status_code or each.batch_id in still]
    days = [since + timedelta(days=each) for each in range(DAYS)]
    return visit.render(
        "overview.html",
        waiting=waiting,
        refunds=[each for each in refunds if each.undecided],
        running=[each for each in unfinished if each not in waiting],
        still=still,
        services=[(service, breakers.get(service)) for service in SERVICES],
        days=_columns([_sum(day.isoformat(), [each for each in found if each.day == day]) for day in days]),
        clients=_bars(_by_client(found)),
        day_count=DAYS,
        width=WIDTH,
        height=HEIGHT,
    )


def _by_client(found: Sequence[Row[Any]]) -> list[Sum]:
    """Return what each client sent, those first that sent the most yen."""
    codes = sorted({each.client_code for each in found})
    sums = [_sum(code, [each for each in found if each.client_code == code]) for code in codes]
    return sorted(sums, key=lambda each: (-each.yen, each.label))[:MOST_CLIENTS]


def _sum(label: str, rows: Sequence[Row[Any]]) -> Sum:
    batches, accepted, rejected, yen = (
        sum(getattr(each, name) for each in rows) for name in ("batches", "accepted", "rejected", "yen")
    )
    return Sum(label, batches, accepted, rejected, yen)


def _columns(sums: Sequence[Sum]) -> list[Sum]:
    """Return sums with the column that each is in a chart."""
    most, place = max([each.yen for each in sums] or [0]) or 1, WIDTH / len(sums)
    placed = []
    for at, each in enumerate(sums):
        height = each.yen / most * HEIGHT
        bar = at * place + place * GAP / 2, HEIGHT - height, place * (1 - GAP), height
        placed.append(replace(each, bar=bar))
    return placed


def _bars(sums: Sequence[Sum]) -> list[Sum]:
    """Return sums with the share, in percent of the widest, that the bar of each is."""
    most = max([each.yen for each in sums] or [0]) or 1
    return [replace(each, bar=(0, 0, each.yen / most * 100, 0)) for each in sums]

"""The plan: which orders of a batch are paid in one transaction. Values in, values out.

Orders of one customer with one payment method (and one card) share a payment up to the cap, in as few payments as can
be found. Writing the plan down belongs in `settle.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from orders_pipeline.records.orders import CAP_JPY

SEARCH_STEPS = 2_000  # a group's search for fewer payments ends here; first-fit is close already

Grouping = Literal["aggregated", "per_order"]


@dataclass(frozen=True)
class PayableOrder:
    """An order as the plan sees it; `card` is empty unless the method needs one."""

    import_row_number: int  # which order of the batch it is: unlike its id, the same after a restore
    customer_code: str
    payment_method: str
    amount: int  # yen
    card: str = ""
    is_nobodys: bool = False  # nobody knows whether two orders of this customer are one person's

    def __repr__(self) -> str:
        """Show no card."""
        return f"PayableOrder({self.import_row_number}, {self.amount})"


@dataclass(frozen=True)
class PlannedPayment:
    """One transaction for one customer: its orders, whose amounts add up to at most the cap."""

    customer_code: str
    payment_method: str
    orders: tuple[PayableOrder, ...]

    @property
    def row_numbers(self) -> list[int]:
        """Return the rows that its orders were, in the order of the file."""
        return sorted(order.import_row_number for order in self.orders)

    @property
    def amount(self) -> int:
        """Return the sum of its orders in yen."""
        return sum(order.amount for order in self.orders)


def plan_payments(orders: Iterable[PayableOrder], grouping: Grouping = "aggregated") -> list[PlannedPayment]:
    """Return the payments that cover every order once; raise ValueError for an order above the cap."""
    groups: defaultdict[tuple[str, str, str, int | None], list[PayableOrder]] = defaultdict(list)
    for order in orders:
        if not 0 < order.amount <= CAP_JPY:
            raise ValueError(f"order {order.import_row_number} cannot be paid in one transaction")
        alone = order.import_row_number if order.is_nobodys else None
        groups[order.customer_code, order.payment_method, order.card, alone].append(order)
    planned = []
    for (customer_code, payment_method, *_), group in groups.items():
        parts = [[order] for order in group] if grouping == "per_order" else pack(group)
        planned += [PlannedPayment(customer_code, payment_method, tuple(part)) for part in parts]
    return planned


def pack(orders: Sequence[PayableOrder], cap: int = CAP_JPY) -> list[list[PayableOrder]]:
    """Spread orders over as few parts of at most `cap` yen as a bounded search finds."""
    largest_first = sorted(orders, key=lambda order: (-order.amount, order.import_row_number))
    best = _first_fit(largest_first, cap)
    if len(orders) > SEARCH_STEPS:  # not even one packing would be looked at to its end
        return best
    fewest = max(-(-sum(order.amount for order in orders) // cap), sum(2 * order.amount > cap for order in orders))
    while len(best) > fewest:
        fewer = _fit_into(largest_first, len(best) - 1, cap)
        if fewer is None:
            break
        best = fewer
    return best


def _first_fit(orders: Sequence[PayableOrder], cap: int) -> list[list[PayableOrder]]:
    """Put each order into the first part that has room for it, found in a tree of the most room below each node."""
    parts: defaultdict[int, list[PayableOrder]] = defaultdict(list)
    # all parts but one are more than half full
    parts_at_most = min(len(orders), 2 * sum(order.amount for order in orders) // cap + 1)
    leaves = 1 << max(parts_at_most - 1, 0).bit_length()
    most = [cap] * (2 * leaves)
    for order in orders:
        node = 1
        while node < leaves:
            node = 2 * node if most[2 * node] >= order.amount else 2 * node + 1
        parts[node].append(order)
        most[node] -= order.amount
        while node > 1:
            node //= 2
            most[node] = max(most[2 * node], most[2 * node + 1])
    return list(parts.values())


def _fit_into(orders: Sequence[PayableOrder], parts: int, cap: int) -> list[list[PayableOrder]] | None:
    """Return a packing into `parts` parts, or None when there is none or the search takes too long."""
    room = [cap] * parts
    choice = [-1] * len(orders)  # the part each order is in, as far as decided
    position = 0
    for _ in range(SEARCH_STEPS):
        if position == len(orders):
            return [[o for o, chosen in zip(orders, choice, strict=True) if chosen == part] for part in range(parts)]
        amount, last = orders[position].amount, choice[position]
        if last >= 0:
            room[last] += amount
        # parts with the same room are alike: trying the first of them is enough
        tried = set(room[: last + 1])
        following = (p for p in range(last + 1, parts) if room[p] >= amount and room[p] not in tried)
        choice[position] = next(following, -1)
        if choice[position] >= 0:
            room[choice[position]] -= amount
            position += 1
        elif position == 0:
            return None
        else:
            position -= 1
    return None

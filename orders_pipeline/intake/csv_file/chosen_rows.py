"""The rows of a file that a profile chooses by a cell: those that are no orders are skipped, of others a person decides.

What a choice makes of a cell is said in `clients/row_choices.py`. What else rows are is known from `staged_rows`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.clients.row_choices import RowChoice
from orders_pipeline.intake.csv_file.records import Flags
from orders_pipeline.records.normalise import normalise_header, numbered, unnumbered
from orders_pipeline.records.rejections import FileRejected

_ROWS_NAMED = 5
_KINDS_NAMED = 10
_NO_ROW = 2**31  # above every row's number


ChoicePlaces: TypeAlias = Mapping[int, Sequence[RowChoice]]


def choice_places(header: Sequence[str], choices: Sequence[RowChoice]) -> ChoicePlaces:
    """Return the places of the cells by which rows are chosen; raise FileRejected where these are not certain."""
    places: dict[str, int] = {}
    times: Counter[str] = Counter()
    for at, name in enumerate(map(normalise_header, header)):
        times[name] += 1
        places |= {numbered(name, times[name]): at, name: at}
    absent = [each for each in choices if normalise_header(each.name) not in places]
    if missing := [unnumbered(each.name) for each in absent if not each.optional]:
        raise FileRejected("F_HEADER_MISSING", {"columns": ", ".join(dict.fromkeys(missing))})
    found: dict[int, list[RowChoice]] = {}
    for choice in choices:
        name = normalise_header(choice.name)
        if times[name] > 1:  # one of them may say that an order is cancelled
            raise FileRejected("F_HEADER_DUPLICATE", {"columns": choice.name})
        if name in places:
            found.setdefault(places[name], []).append(choice)
    return found


def why_chosen(places: ChoicePlaces, cells_at: Callable[[int], pa.Array], rows: int) -> pa.Array:
    """Return of each row by which choices it is chosen, null where by none."""
    why = pa.nulls(rows, pa.string())
    for at, choices in places.items():
        for choice in choices:
            said = choice.matches(cells_at(at))
            why = pc.coalesce(pc.binary_join_element_wise(why, said, ", "), why, said)
    return why


@dataclass
class _Kind:
    """Rows that are skipped for one reason: how many, and the numbers of the first."""

    count: int = 0
    first: list[int] = field(default_factory=list)


class SkippedRows:
    """Finds the rows that are no orders, chunk by chunk, and counts them by what of the settings they are."""

    def __init__(self, header: Sequence[str], choices: Sequence[RowChoice]) -> None:
        self._choices = choice_places(header, choices)
        self._above: dict[int, tuple[int, str]] = {}  # by place: the order of the last row, where that was skipped, and why
        self._kinds: dict[str, _Kind] = {}
        self.runs = SkippedRuns()

    @property
    def may_be(self) -> bool:
        """Return whether any row may be skipped."""
        return bool(self._choices)

    @property
    def count(self) -> int:
        """Return how many rows were skipped."""
        return sum(kind.count for kind in self._kinds.values())

    @property
    def detail(self) -> dict[str, str]:
        """Return how many rows were skipped, and of the first kinds how many, with their first rows; no cell of theirs."""
        each = [
            f"{kind}: {found.count} ({', '.join(f'#{number}' for number in found.first)}"
            f"{', ...' if found.count > len(found.first) else ''})"
            for kind, found in self._kinds.items()
        ]
        return {"count": str(self.count), "by": ", ".join([*each[:_KINDS_NAMED], *(["..."] if each[_KINDS_NAMED:] else [])])}

    def find(
        self, numbers: npt.NDArray[Any], cells_at: Callable[[int], pa.Array], orders: npt.NDArray[np.uint64] | None
    ) -> Flags:
        """Return which of some rows are skipped; rows of the same one of `orders`, where it is not 0, are one order."""
        why = pa.nulls(len(numbers), pa.string())
        for at, choices in self._choices.items():
            cells = cells_at(at)
            said = pc.coalesce(*(choice.matches(cells) for choice in choices))
            if orders is not None:
                said = self._with_rows_below(at, said.to_pylist(), cells.to_pylist(), orders.tolist())
            why = pc.coalesce(why, said)
        skipped: Flags = why.is_valid().to_numpy(zero_copy_only=False)
        if orders is not None:
            self.runs.add(orders, numbers, skipped)
        for kind in pc.unique(why.drop_null()).to_pylist():
            found = self._kinds.setdefault(kind, _Kind())
            these = numbers[pc.fill_null(pc.equal(why, kind), fill_value=False).to_numpy(zero_copy_only=False)]
            found.count += len(these)
            found.first += these[: _ROWS_NAMED - len(found.first)].tolist()
        return skipped

    def _with_rows_below(
        self, at: int, said: list[str | None], cells: Sequence[str | None], orders: Sequence[int]
    ) -> pa.Array:
        """Return as skipped also what follows a skipped row in its order, and says nothing under the same header."""
        above, why = self._above.get(at, (0, ""))
        for place, (cell, order) in enumerate(zip(cells, orders, strict=True)):
            if (mine := said[place]) is not None:
                above, why = order, mine
            elif above and order == above and not (cell or "").strip():
                said[place] = why
            elif order:
                above = 0
        self._above[at] = above, why
        return pa.array(said, pa.string())


class SkippedRuns:
    """Rows of one order next to each other, of which some were skipped.

    Of each, `found` has the order's number, the first row and the last, and the first that was skipped.
    """

    def __init__(self) -> None:
        self.found: list[tuple[int, int, int, int]] = []
        self._last = (0, 0, 0, 0)  # the run that may go on

    def add(self, orders: npt.NDArray[np.uint64], numbers: npt.NDArray[Any], skipped: Flags) -> None:
        """Look at more rows; those of no order are passed over."""
        places = np.flatnonzero(orders)
        if not len(places):
            return
        orders, numbers, skipped = orders[places], numbers[places], skipped[places]
        starts = np.flatnonzero(np.append(True, orders[1:] != orders[:-1]))
        ends = np.append(starts[1:], len(orders)) - 1
        skipped_row = np.minimum.reduceat(np.where(skipped, numbers, _NO_ROW), starts) % _NO_ROW
        columns = orders[starts], numbers[starts], numbers[ends], skipped_row
        for order, first, last, row in zip(*(column.tolist() for column in columns), strict=True):
            if order == self._last[0]:
                self._last = order, self._last[1], last, self._last[3] or row
            else:
                self.end()
                self._last = order, first, last, row

    def end(self) -> None:
        """Keep the run that was looked at last, if a row of it was skipped: no more of it follows."""
        if self._last[3]:
            self.found.append(self._last)
        self._last = (0, 0, 0, 0)

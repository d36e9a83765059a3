"""The rows of a file that a profile chooses by a cell: those that are no orders are skipped, of others a person decides.

What a choice makes of a cell is said in `clients/row_choices.py`. What else rows are is known from `staged_rows`, and what
is kept of those that are skipped is in `skipped_rows`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.clients.row_choices import RowChoice, plain_words
from orders_pipeline.intake.csv_file.header import Names, nearest_names
from orders_pipeline.intake.csv_file.records import Flags
from orders_pipeline.intake.csv_file.skipped_rows import SkippedNames, SkippedReferences, SkippedRuns, kept_of
from orders_pipeline.records.normalise import normalise_header, numbered, unnumbered
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.records.rules import COMPUTED, NO_CELL_ERROR, SHOWN

_ROWS_NAMED = 5
_KINDS_NAMED = 10
_UNREADABLE = {"R_CELL_FORMULA": COMPUTED, "R_CELL_ERROR": NO_CELL_ERROR, "R_CELL_FORMAT": SHOWN}

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
        names = Names({normalise_header(name): name for name in missing}, missing)
        nearest = ", ".join(nearest_names(missing, header, names))
        detail = {"columns": ", ".join(dict.fromkeys(missing))}
        raise FileRejected("F_HEADER_MISSING", detail | ({"nearest": nearest} if nearest else {}))
    found: dict[int, list[RowChoice]] = {}
    for choice in choices:
        name = normalise_header(choice.name)
        if times[name] > 1:  # one of them may say that an order is cancelled
            raise FileRejected("F_HEADER_DUPLICATE", {"columns": choice.name})
        if name in places:
            found.setdefault(places[name], []).append(choice)
    return found


@dataclass
class _Kind:
    """Rows that are skipped for one reason: how many, and the numbers of the first."""

    count: int = 0
    first: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Chosen:
    """Which of some rows are skipped, why a person has to decide on one, and which cell of one nobody can choose by.

    The latter is a code and the header of the cell. A skipped row that does not say so itself follows one that does.
    """

    skipped: Flags
    says_so: Flags
    to_decide: pa.Array
    unclear: pa.Array


class ChosenRows:
    """Finds the rows that are no orders or that a person has to decide on, chunk by chunk.

    The former are counted by what of the settings they are.
    """

    def __init__(self, header: Sequence[str], skip: Sequence[RowChoice], reject: Sequence[RowChoice], encoding: str) -> None:
        self._skip, self._reject = choice_places(header, skip), choice_places(header, reject)
        self._encoding = encoding
        self._above: dict[int, tuple[int, str]] = {}  # by place: the order of the last row, where that was skipped, and why
        self._kinds: dict[str, _Kind] = {}
        self._runs, self._references, self._names = SkippedRuns(), SkippedReferences(), SkippedNames()

    @property
    def may_be_skipped(self) -> bool:
        """Return whether any row may be skipped."""
        return bool(self._skip)

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

    @property
    def kept(self) -> Mapping[str, str]:
        """Return what is kept with the file of the rows that were skipped."""
        return kept_of(self.count, self._runs, self._references, self._names)

    def find(
        self,
        numbers: npt.NDArray[Any],
        cells_at: Callable[[int], pa.Array],
        may_be_skipped: Flags,
        orders: npt.NDArray[np.uint64] | None,
    ) -> Chosen:
        """Choose among rows, whose cells are null where the row is not whole; a person decides where one may not be skipped.

        Rows of the same one of `orders`, where it is not 0, are one order.
        """
        unclear = self._unclear(cells_at, len(numbers))
        certain = pc.and_(pa.array(may_be_skipped), pc.is_null(unclear))
        nothing = pa.scalar(None, pa.string())
        why = to_decide = pa.nulls(len(numbers), pa.string())
        says_so: Flags = np.zeros(len(numbers), np.bool_)
        for at, choices in self._skip.items():
            cells = cells_at(at)
            said = pc.coalesce(*(choice.matches(cells, self._encoding) for choice in choices))
            to_decide = pc.coalesce(to_decide, pc.if_else(certain, nothing, said))
            said = pc.if_else(certain, said, nothing)
            says_so |= said.is_valid().to_numpy(zero_copy_only=False)
            if orders is not None:
                said = pc.if_else(certain, self._with_rows_below(at, said, cells, orders), nothing)
            why = pc.coalesce(why, said)
        skipped: Flags = why.is_valid().to_numpy(zero_copy_only=False)
        if orders is not None and self._skip:
            self._runs.add(orders, numbers, skipped)
        self._count(why, numbers)
        return Chosen(skipped, says_so, pc.coalesce(self._undecided(cells_at, len(numbers)), to_decide), unclear)

    @property
    def may_close(self) -> bool:
        """Return whether any skipped row names a row that it corrects."""
        return self._names.any_row

    def keep_names(
        self, numbers: npt.NDArray[Any], corrects: pa.Array, orders: npt.NDArray[np.uint64], says_so: Flags
    ) -> None:
        """Keep which rows skipped rows say that they correct."""
        self._names.add(numbers, corrects, orders, says_so)

    def keep(self, references: npt.NDArray[np.uint64], numbers: npt.NDArray[Any]) -> None:
        """Keep the references of skipped rows, where each row is an order."""
        self._references.add(references, numbers)

    def _unclear(self, cells_at: Callable[[int], pa.Array], rows: int) -> pa.Array:
        """Return of each row the code and header of a cell that does not say what it seems to; mostly null."""
        unclear = pa.nulls(rows, pa.string())
        for at, (choice, *_) in {**self._skip, **self._reject}.items():
            cells = cells_at(at)
            for code, is_clear in _UNREADABLE.items():
                said = pc.if_else(is_clear(cells, date.min), pa.scalar(None, pa.string()), f"{code} {choice.header}")
                unclear = pc.coalesce(unclear, said)
        return unclear

    def _undecided(self, cells_at: Callable[[int], pa.Array], rows: int) -> pa.Array:
        """Return of each row by which choices a person has to decide on it, null where by none."""
        why = pa.nulls(rows, pa.string())
        for at, choices in self._reject.items():
            for choice in choices:
                said = choice.matches(cells_at(at), self._encoding)
                why = pc.coalesce(pc.binary_join_element_wise(why, said, ", "), why, said)
        return why

    def _count(self, why: pa.Array, numbers: npt.NDArray[Any]) -> None:
        for kind in pc.unique(why.drop_null()).to_pylist():
            found = self._kinds.setdefault(kind, _Kind())
            these = numbers[pc.fill_null(pc.equal(why, kind), fill_value=False).to_numpy(zero_copy_only=False)]
            found.count += len(these)
            found.first += these[: _ROWS_NAMED - len(found.first)].tolist()

    def _with_rows_below(self, at: int, said: pa.Array, cells: pa.Array, orders: npt.NDArray[np.uint64]) -> pa.Array:
        """Return as skipped also what follows a skipped row in its order, and says nothing under the same header."""
        above, why = self._above.get(at, (0, ""))
        if not above and said.null_count == len(said):
            return said
        distinct = cells.dictionary_encode()
        is_blank = pc.fill_null(pc.equal(plain_words(distinct.dictionary), "").take(distinct.indices), fill_value=True)
        found = said.to_pylist()
        for place, (blank, order) in enumerate(zip(is_blank.to_pylist(), orders.tolist(), strict=True)):
            if (mine := found[place]) is not None:
                above, why = order, mine
            elif above and order == above and blank:
                found[place] = why
            elif order:
                above = 0
        self._above[at] = above, why
        return pa.array(found, pa.string())

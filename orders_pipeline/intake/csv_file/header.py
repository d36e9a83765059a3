"""The header of an order file: which column stands where, and what to say when it cannot be used.

Knows header cells and the names handed in, nothing of the catalogue they come from, of bytes or of rows. What is said
about a header names columns only; a first line that may be an order is never repeated.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orders_pipeline.intake.csv_file.dialect import Dialect
from orders_pipeline.records.normalise import BYTE_ORDER_MARK, normalise_header, numbered, unnumbered
from orders_pipeline.records.rejections import FileRejected

BATCH_COLUMN = "_batch"
ROW_COLUMN = "_row"

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "，": "full_width_comma"}
_NEAREST_CUTOFF = 0.7
_DIGIT = re.compile("[0-9０-９]")
_LONGEST_SHOWN = 64
_NAMES_SHOWN = 10
_LIKE_A_VALUE = re.compile(r"@|[0-9](?:[^0-9]{0,3}[0-9]){6}")  # of a line that is no header, though it has the names of one


@dataclass(frozen=True)
class Names:
    """The column names a header may hold: `known` maps each normalised name or alias to its column.

    A name that is `numbered` is that occurrence of it, and its others name nothing. A column of `joined` has all of these
    normalised names together, in this order; any other has one of its names.
    """

    known: Mapping[str, str]
    required: Sequence[str]
    joined: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def columns(self, cells: Iterable[str]) -> list[str | None]:
        """Return the column that each of a header's cells names, or None."""
        seen: Counter[str] = Counter()
        columns = []
        for name in map(normalise_header, cells):
            seen[name] += 1
            columns.append(self.known.get(numbered(name, seen[name]) if name in self._with_number else name))
        return columns

    @functools.cached_property
    def _with_number(self) -> set[str]:
        return {unnumbered(name) for name in self.known if name != unnumbered(name)}

    def found_in(self, cells: Iterable[str]) -> set[str]:
        """Return the columns these cells name."""
        return {column for column in self.columns(cells) if column is not None}

    def is_header(self, cells: Sequence[str]) -> bool:
        """Return whether the cells name every required column."""
        return len(cells) >= len(self.required) and set(self.required) <= self.found_in(cells)


@dataclass(frozen=True)
class Header:
    """A usable header: its cells as sent and the places of each known column, several where they are to be joined.

    `width` counts the cells up to the last one with a name; `batch` and `row` are the places of our own columns `_batch`
    and `_row`; `unknown` are the cells that name no column.
    """

    cells: tuple[str, ...]
    columns: Mapping[str, tuple[int, ...]]
    width: int
    batch: int | None
    row: int | None
    unknown: tuple[str, ...]

    def unknown_but(self, used: Iterable[str]) -> dict[str, str]:
        """Return how many cells name nothing that is known or `used`, and the first, but for those that may be a value."""
        others = {normalise_header(unnumbered(name)) for name in used}
        unknown = [cell.strip() for cell in self.unknown if normalise_header(cell) not in others]
        if not unknown:
            return {}
        names = [name for name in dict.fromkeys(unknown) if _is_showable(name) and not _LIKE_A_VALUE.search(name)]
        shown = names[:_NAMES_SHOWN]
        more = len(unknown) - sum(unknown.count(name) for name in shown)
        detail = {"count": str(len(unknown)), "columns": ", ".join(shown)}
        return detail | ({"more": str(more)} if shown and more else {})


def read_header(cells: Sequence[str], names: Names, following: Iterable[Sequence[str]], limit: int) -> Header:
    """Return the header in `cells`, at most `limit` columns wide; `following` are the next rows, to say what is wrong.

    Raises FileRejected: F_COLUMNS, F_HEADER_DUPLICATE or F_HEADER_MISSING.
    """
    if len(cells) > limit:
        raise FileRejected("F_COLUMNS")
    normalised = [normalise_header(cell) for cell in cells]
    named = names.columns(cells)
    columns, repeated = _places(normalised, named, names)
    if repeated:
        raise FileRejected("F_HEADER_DUPLICATE", {"columns": ", ".join(dict.fromkeys(repeated))})
    missing = [column for column in names.required if column not in columns]
    if cells[0].startswith(BYTE_ORDER_MARK):  # a second BOM: two files or two programs, and no name we know
        missing = [column for column, places in columns.items() if 0 in places] + missing
    if missing:
        raise FileRejected("F_HEADER_MISSING", _missing_detail(missing, cells, columns, names, following))
    width = max(place for place, name in enumerate(normalised) if name) + 1
    # a file that was returned twice has our columns twice; the later ones are of the later batch
    ours = {name: place for place, name in enumerate(normalised) if name in (BATCH_COLUMN, ROW_COLUMN)}
    unknown = (
        cell
        for cell, name, column in zip(cells, normalised, named, strict=True)
        if name and column is None and not name.startswith("_")
    )
    return Header(tuple(cells), columns, width, ours.get(BATCH_COLUMN), ours.get(ROW_COLUMN), tuple(unknown))


def _places(
    normalised: Sequence[str], named: Sequence[str | None], names: Names
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Return where each known column stands, and the columns that stand in two places."""
    found: dict[str, dict[str, int]] = {}
    repeated = []
    for place, (name, column) in enumerate(zip(normalised, named, strict=True)):
        if column is None:
            continue
        parts = found.setdefault(column, {})
        if name in parts or (parts and column not in names.joined):
            repeated.append(column)
        parts[name] = place
    columns = {}
    for column, parts in found.items():
        wanted = names.joined.get(column, tuple(parts))
        if all(name in parts for name in wanted):
            columns[column] = tuple(parts[name] for name in wanted)
    return columns, repeated


def check_delimiter(line: str, dialect: Dialect, names: Names) -> None:
    """Raise F_DELIMITER when the header line holds more known names by another delimiter than by the expected one."""
    others = (replace(dialect, delimiter=other) for other in {*_DELIMITERS, dialect.delimiter})
    counts = {other.delimiter: len(names.found_in(other.cells_of([line]))) for other in others}
    best = max(counts, key=lambda other: (counts[other], other == dialect.delimiter))
    # one name alone stands in any line: it takes a second one to prove a delimiter
    if counts[best] > max(1, counts[dialect.delimiter]):
        raise FileRejected("F_DELIMITER", {"hint": _DELIMITERS[best]})


def _missing_detail(
    missing: Sequence[str],
    cells: Sequence[str],
    columns: Mapping[str, tuple[int, ...]],
    names: Names,
    following: Iterable[Sequence[str]],
) -> dict[str, str]:
    """Return the parameters of F_HEADER_MISSING: the missing columns, and names close to them or a hint."""
    detail = {"columns": ", ".join(missing)}
    if len(columns) > 1:  # one name alone may be an order's value, such as "email"
        if nearest := nearest_names(missing, cells, names):
            detail["nearest"] = ", ".join(nearest)
        return detail
    first = cells[0].strip().casefold()
    if first.startswith("sep="):
        detail["hint"] = "sep_line"
    elif first.startswith("#") or any(names.is_header(row) for row in following):
        detail["hint"] = "title_lines"
    elif len(cells) >= len(names.required) and any(map(_DIGIT.search, cells)):
        detail["hint"] = "no_header"
    return detail


def nearest_names(missing: Sequence[str], cells: Sequence[str], names: Names) -> list[str]:
    """Return the unknown header cells which are most like a missing column's name or alias."""
    unknown = {
        name: cell.strip() for cell in cells if (name := normalise_header(cell)) not in names.known and _is_showable(cell)
    }
    found: dict[str, None] = {}
    for column in missing:
        aliases = [alias for alias, target in names.known.items() if target == column]
        scored = [(_likeness(name, alias), name) for name in unknown for alias in aliases]
        best, name = max(scored, default=(0.0, ""))
        if best >= _NEAREST_CUTOFF:
            found[unknown[name]] = None
    return list(found)


def _is_showable(cell: str) -> bool:
    return cell.isprintable() and len(cell) <= _LONGEST_SHOWN


def _likeness(one: str, other: str) -> float:
    if min(len(one), len(other)) > 1 and (one in other or other in one):
        return 1.0
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()

"""The words of `skip` and `reject` that no row of a file has: each may be misspelt, and its rows would be charged.

How the file is read is in `profile_trial.py`; what a word meets is said in `clients/row_choices.py`.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.intake.csv_file import Dialect
from orders_pipeline.intake.csv_file.chosen_rows import choice_places
from orders_pipeline.intake.csv_file.physical_lines import TextSpan, read_blocks, split_lines

MOST_SHOWN = 5
LONGEST_SHOWN = 20  # a longer cell is no status
MOST_COMPARED = 1_000
ALIKE = 0.7


def unmet_words(
    text: Path, span: TextSpan, dialect: Dialect, header: Sequence[str], header_line: int, profile: Profile
) -> list[dict[str, Any]]:
    """Return the words of a profile's `skip` and `reject` that meet no row of a text, with what the column has instead.

    These are all of its words where they are few and short, and else those that are most alike.
    """
    places = {setting: choice_places(header, getattr(profile, setting)) for setting in ("skip", "reject")}
    lines = (line for block in read_blocks(text, span) for line in split_lines(block.text))
    rows = islice(dialect.reader(islice(lines, header_line - 1, None), strict=True), profile.header_rows, None)
    try:
        cells = _cells(rows, {at: {} for found in places.values() for at in found})
    except csv.Error:  # rows with quotation marks in wrong places, which staging can still tell apart line by line
        return []
    return [
        {"setting": setting, "header": choice.name, "word": word, "instead": _instead(word, [*cells[at]])}
        for setting, found in places.items()
        for at, choices in found.items()
        for choice in choices
        for word in choice.unmet(pa.array([*cells[at]], pa.string()), span.encoding)
    ]


def _cells(rows: Iterable[Sequence[str]], found: Mapping[int, dict[str, None]]) -> Mapping[int, dict[str, None]]:
    """Return the different cells that rows have in each of some places."""
    for row in rows if found else ():
        for at, cells in found.items():
            if at < len(row):
                cells[row[at]] = None
    return found


def _instead(word: str, cells: Sequence[str]) -> list[str]:
    words = [*dict.fromkeys(cell.strip() for cell in cells if cell.strip())]
    short = [each for each in words if len(each) <= LONGEST_SHOWN]
    if len(words) == len(short) <= MOST_SHOWN:
        return words
    return difflib.get_close_matches(word, short[:MOST_COMPARED], MOST_SHOWN, ALIKE)

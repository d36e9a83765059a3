"""Row choices: which rows of a client's own files are no orders, and which a person has to decide on.

Settings of a profile, and what they make of cells. Where the cells stand in a file is found out in `csv_file`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from orders_pipeline.records.normalise import number, numbered, plain_word, unguarded

_PADDED = re.compile("[^0-9]*0[0-9]")  # a code, and no number


class RowChoice(BaseModel):
    """Which rows of a client's files are meant: by one of the values under a header, or by any but the ones in `except`.

    A blank cell is none of the latter. Where files have the header several times, `occurrence` says which one is meant; with
    `optional` they may lack it. Numbers are compared as numbers: 0 is also 0.00 and ¥0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    header: Annotated[str, Field(min_length=1)]
    occurrence: Annotated[int | None, Field(ge=1, le=100)] = None
    values: Annotated[tuple[str, ...] | None, Field(min_length=1)] = None
    but: Annotated[tuple[str, ...] | None, Field(alias="except")] = None
    optional: bool = False

    @model_validator(mode="after")
    def _says_which(self) -> RowChoice:
        if (self.values is None) == (self.but is None):
            raise ValueError("either values or except says which cells are meant")
        return self

    @property
    def name(self) -> str:
        """Return the header, `numbered` where one of several is meant."""
        return self.header if self.occurrence is None else numbered(self.header, self.occurrence)

    def matches(self, cells: pa.Array) -> pa.Array:
        """Return of each raw cell what of the setting it is, in its words, null where it is not meant."""
        distinct = unguarded(cells).dictionary_encode()
        words = distinct.dictionary.to_pylist()
        known = self.words_in(words)
        if self.but is None:
            said = [f"{self.header} = {known[word]}" if word in known else None for word in words]
        else:
            said = [self.header if word not in known and plain_word(word) else None for word in words]
        return pa.array(said, pa.string()).take(distinct.indices)

    def words_in(self, cells: Sequence[str]) -> dict[str, str]:
        """Return those of some cells that are words of the setting, be they meant or excepted, each with that word."""
        values = self.values or self.but or ()
        known = {form: value for value, forms in zip(values, _forms(values), strict=True) for form in forms}
        words = zip(cells, _forms(cells), strict=True)
        return {cell: known[form] for cell, forms in words for form in reversed(forms) if form in known}


def _forms(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the forms in which words are compared: the plain word, and the number that it is."""
    plain = [plain_word(word) for word in words]
    numbers = number(pa.array(plain, pa.string()), encoding="").to_pylist()
    return [(word,) if _PADDED.match(word) else (word, yen) for word, yen in zip(plain, numbers, strict=True)]

"""Row choices: which rows of a client's own files are no orders, and which a person has to decide on.

Settings of a profile, and what they make of cells. Where the cells stand in a file is found out in `csv_file`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from orders_pipeline.records.normalise import INVISIBLE, number, numbered, plain_word, unguarded

_PADDED = "^[^0-9]*0[0-9]"  # a code, and no number
_OUTER = re.compile(rf"^[\s{INVISIBLE}]+|[\s{INVISIBLE}]+$")


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

    def matches(self, cells: pa.Array, encoding: str = "") -> pa.Array:
        """Return of each raw cell of a file what of the setting it is, in its words, null where it is not meant."""
        distinct = unguarded(cells).dictionary_encode()
        words = plain_words(distinct.dictionary)
        known = self._known(words, encoding)
        if self.but is None:
            said = pc.binary_join_element_wise(pa.scalar(self.header), known, " = ")
        else:
            is_meant = pc.and_(pc.is_null(known), pc.not_equal(words, ""))
            said = pc.if_else(is_meant, self.header, pa.scalar(None, pa.string()))
        return said.take(distinct.indices)

    def words_in(self, cells: Sequence[str]) -> set[str]:
        """Return those of some cells that are words of the setting, be they meant or excepted."""
        known = self._known(plain_words(pa.array(cells, pa.string())), "").to_pylist()
        return {cell for cell, word in zip(cells, known, strict=True) if word is not None}

    def unmet(self, cells: pa.Array, encoding: str = "") -> list[str]:
        """Return the words of `values` that none of a file's raw cells is; a wrong one of `except` is seen by its rows."""
        words = plain_words(unguarded(cells))
        each = {word: self.model_copy(update={"values": (word,)}) for word in self.values or ()}
        return [word for word, alone in each.items() if not pc.any(alone._known(words, encoding).is_valid()).as_py()]

    def _known(self, words: pa.Array, encoding: str) -> pa.Array:
        """Return which of the setting's words each plain word is, as written or as a number, null for another."""
        values = pa.array(self.values or self.but or (), pa.string())
        forms = plain_words(values)
        known = pc.index_in(words, value_set=forms)
        numbers = _numbers(forms, encoding)
        if numbers.null_count < len(numbers):
            others = pc.index_in(_numbers(words, encoding), value_set=numbers, skip_nulls=True)
            known = pc.coalesce(known, others)
        return values.take(known)


def plain_words(cells: pa.Array) -> pa.Array:
    """Return cells as words are compared, without what is not seen around them."""
    words = pc.utf8_trim_whitespace(cells)
    others = pc.fill_null(pc.invert(pc.string_is_ascii(words)), fill_value=False)
    if not pc.any(others).as_py():
        return words
    plain = [_OUTER.sub("", plain_word(word)) for word in words.filter(others).to_pylist()]
    return pc.replace_with_mask(words, others, pa.array(plain, pa.string()))


def _numbers(words: pa.Array, encoding: str) -> pa.Array:
    """Return the numbers that plain words are, null for others."""
    maybe = pc.and_(pc.match_substring_regex(words, "[0-9]"), pc.invert(pc.match_substring_regex(words, _PADDED)))
    maybe = pc.fill_null(maybe, fill_value=False)
    found = number(words.filter(maybe), encoding=encoding)
    found = pc.if_else(pc.match_substring_regex(found, "^-?[0-9]+$"), found, pa.scalar(None, pa.string()))
    return pc.replace_with_mask(pa.nulls(len(words), pa.string()), maybe, found)

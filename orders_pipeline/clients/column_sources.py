"""Column sources: where a client's own files hold what a column of the catalogue means, and in which words.

Settings of a profile, and what they do to cells. Which place a header has in a file is found out in `csv_file`; what a
cell is worth is decided in `records`.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from orders_pipeline.records.normalise import plain_word

SHORT_FORMS = (str, list)


class ColumnSource(BaseModel):
    """Where one column's cells come from in a client's files.

    Either one of `headers` or all of `join` (their cells with a space between) name it there. `until` ends a cell before
    a text, `values` says what the client's words mean, and `default` stands for empty cells and for a missing column.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    headers: tuple[str, ...] = Field(default=(), alias="header")
    join: tuple[str, ...] = ()
    until: str = ""
    values: Mapping[str, str] = Field(default_factory=dict)
    default: str = ""

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, source: object) -> object:
        """Read a name, or a list of names, as the headers of a source."""
        if isinstance(source, SHORT_FORMS):
            source = {"header": source}
        if isinstance(source, dict) and isinstance(source.get("header"), str):
            return source | {"header": [source["header"]]}
        return source

    @model_validator(mode="after")
    def _has_one_place(self) -> ColumnSource:
        if self.headers and self.join:
            raise ValueError("a column has either header or join")
        if len(self.join) == 1:
            raise ValueError("join names two or more headers")
        if not (self.headers or self.join or self.default or self.values or self.until):
            raise ValueError("a column names a header, join, until, values or default")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Return every header that the sources name."""
        return (*self.headers, *self.join)

    @property
    def words(self) -> tuple[str, ...]:
        """Return what cells may be in the catalogue's words that say something else in the client's, or nothing."""
        return (*self.values.values(), self.default) if self.default else tuple(self.values.values())

    def translate(self, cells: pa.Array) -> pa.Array:
        """Return raw cells in the catalogue's words; a word that `values` does not know stays as it is."""
        if self.until:
            parts = pc.split_pattern(pc.utf8_trim_whitespace(cells), self.until, max_splits=1)
            cells = pc.list_element(parts, 0)
        if self.values:
            known = {plain_word(theirs): ours for theirs, ours in self.values.items()}
            distinct = cells.dictionary_encode()
            words = [known.get(plain_word(word), word) for word in distinct.dictionary.to_pylist()]
            cells = pa.array(words, pa.string()).take(distinct.indices)
        if self.default:
            cells = pc.if_else(pc.equal(pc.utf8_trim_whitespace(cells), ""), self.default, cells)
        return cells

"""What a record type is: its columns, how their cells are normalised and typed, and the rules that rows must pass.

A cell is judged twice: as normalised text, so that one unreadable cell hides nothing else, and as a number or date, with
nulls where the text was bad. No particular record type belongs here, nor what judges rows (`judgement.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property, partial
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.records import normalise, rules
from orders_pipeline.records.distinct import Distinct
from orders_pipeline.records.normalise import normalise_header
from orders_pipeline.records.rules import RowRule, Rule

Kind = Literal["code", "number", "date", "text"]
Translate: TypeAlias = "Callable[[pa.Array], pa.Array]"

_NORMALISERS: Mapping[Kind, normalise.Normaliser] = MappingProxyType(
    {"code": normalise.code, "number": normalise.number, "date": normalise.calendar_date, "text": normalise.text}
)
_TYPES: Mapping[Kind, pa.DataType] = MappingProxyType(
    {"code": pa.string(), "number": pa.int64(), "date": pa.date32(), "text": pa.string()}
)
# what is written for a payer where there is none, or none that is known
_NO_PAYER = (
    r"^(?i:[-_0]+|-1|9{3,}|x+|none|null|nil|undefined|false|blank|empty|n[-_]?a|nan|tbd|test|dummy|others?|misc|spot"
    r"|guest(?:[-_]?(?:user|order|customer))?|unknown|unregistered|anonymous|walk[-_]?in|non?[-_]?(?:member|login|id|code)"
    r"|not[-_]?(?:set|available|found|registered)|default|true|general|public|te?mp|sample|nashi|ippan|hi[-_]?kaiin|sonota)$"
)


@dataclass(frozen=True)
class RowContext:
    """What judging depends on beside the rows: the day in Japan, the file's encoding, the profile's default channel.

    `translate` turns a column's raw cells into the catalogue's words, where the client uses others. `profile_payers` are
    payers that the client's profile names and no cell does; `has_joined_payers` where they are joined from several cells.
    """

    today: date
    encoding: str
    default_notify_channel: str
    translate: Mapping[str, Translate] = field(default_factory=dict)
    profile_payers: tuple[str, ...] = ()
    has_joined_payers: bool = False


@dataclass(frozen=True)
class Column:
    """One column of a record type: its names, how its cells are normalised, and the rules they must pass.

    Rules are tried in order, `text_rules` before `typed_rules`, and the first that fails gives the cell its one code; rules
    on a spreadsheet's errors, length, presence and (for kind `text`) characters are added in front. Cells of accepted rows
    that fail one of the `warnings` (a rule with a `W_*` code) are counted. `max_length` counts
    characters after normalisation. Only `stored` columns leave validation; `personal` and `secret` ones leave it encrypted.
    An apostrophe in front of a code, number or date is a spreadsheet's, unless the column `may_begin_quoted`.
    """

    name: str
    max_length: int
    aliases: tuple[str, ...] = ()
    kind: Kind = "code"
    required: bool = False
    personal: bool = False
    secret: bool = False
    stored: bool = True
    text_rules: tuple[Rule, ...] = ()
    typed_rules: tuple[Rule, ...] = ()
    warnings: tuple[Rule, ...] = ()
    normalise: normalise.Normaliser | None = None
    default: Callable[[RowContext], str] | None = None
    stored_type: str | None = None
    may_begin_quoted: bool = False

    @property
    def arrow_type(self) -> pa.DataType:
        """Return the type its cells have for the typed rules."""
        return _TYPES[self.kind]

    @property
    def is_typed(self) -> bool:
        """Return whether the cells become numbers or dates."""
        return self.kind in {"number", "date"}

    @property
    def arrow_field(self) -> pa.Field:
        """Return the column's field in the accepted rows' file."""
        return pa.field(self.name, self.stored_type or self.arrow_type)

    @cached_property
    def all_text_rules(self) -> tuple[Rule, ...]:
        """Return the rules on normalised text, in the order they are tried."""
        limit = {"limit": str(self.max_length)}
        first = [
            Rule("R_CELL_FORMULA", rules.COMPUTED),
            Rule("R_CELL_ERROR", rules.NO_CELL_ERROR),
            Rule("R_CELL_FORMAT", rules.SHOWN),
            Rule("R_TOO_LONG", rules.AtMost(self.max_length), limit),
        ]
        if self.required:
            first.append(Rule("R_REQUIRED", rules.Filled()))
        if self.kind == "text":
            first.append(Rule("R_CHARS", rules.PRINTABLE))
        return (*first, *self.text_rules)

    def normalised(self, raw: pa.Array, context: RowContext) -> pa.Array:
        """Return the cells normalised; cells far too long are cut instead, long enough to fail the length rule."""
        raw = normalise.unguarded(raw, with_apostrophes=self.kind != "text" and not self.may_begin_quoted)
        if self.name in context.translate:
            raw = context.translate[self.name](raw)
        function = self.normalise or _NORMALISERS[self.kind]
        cells = normalise.within(raw, 4 * self.max_length + 64, partial(function, encoding=context.encoding))
        return normalise.shorten_digits(cells) if self.kind == "number" else cells


@dataclass(frozen=True, eq=False)
class RecordType:
    """A kind of record: its columns in order, the rules across columns, its reference, its yen, who pays.

    A part of another record has neither a reference nor a payer of its own.
    """

    name: str
    columns: tuple[Column, ...]
    amount: str
    identity: str = ""
    payer: str = ""
    text_row_rules: tuple[RowRule, ...] = ()
    typed_row_rules: tuple[RowRule, ...] = ()

    def __post_init__(self) -> None:
        if len(self.header_names()) != sum(1 + len(column.aliases) for column in self.columns):
            raise ValueError(f"two columns of {self.name} have the same header or alias")

    def header_names(self) -> Mapping[str, str]:
        """Return every header a file may use, normalised, with the column it means."""
        return MappingProxyType(
            {normalise_header(name): column.name for column in self.columns for name in (column.name, *column.aliases)}
        )

    @cached_property
    def by_name(self) -> Mapping[str, Column]:
        """Return the columns by name, in order."""
        return MappingProxyType({column.name: column for column in self.columns})

    @property
    def column_names(self) -> tuple[str, ...]:
        """Return all columns' names, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def code_columns(self) -> tuple[str, ...]:
        """Return the columns of codes, but for the identity."""
        return tuple(column.name for column in self.columns if column.kind == "code" and column.name != self.identity)

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Return the columns every file must have."""
        return tuple(column.name for column in self.columns if column.required)

    @property
    def personal_columns(self) -> tuple[str, ...]:
        """Return the columns that are kept only encrypted: personal and secret ones."""
        return tuple(column.name for column in self.columns if column.personal or column.secret)

    @property
    def stored_columns(self) -> tuple[Column, ...]:
        """Return the columns kept in clear."""
        hidden = self.personal_columns
        return tuple(column for column in self.columns if column.stored and column.name not in hidden)

    @cached_property
    def compared_columns(self) -> tuple[str, ...]:
        """Return the columns kept in clear in which two records of one identity may differ."""
        return tuple(column.name for column in self.stored_columns if column.name != self.identity)

    @property
    def typed_columns(self) -> tuple[Column, ...]:
        """Return the columns of numbers and dates."""
        return tuple(column for column in self.columns if column.is_typed)

    def normalised(self, raw: Mapping[str, pa.Array], context: RowContext) -> tuple[dict[str, Distinct], dict[str, int]]:
        """Return every column's cells normalised, empty ones with defaults, and how many were changed."""
        cells, changed = {}, {}
        for column in self.columns:
            sent = Distinct.of(raw[column.name])
            normal = sent.map(partial(column.normalised, context=context))
            is_changed = pc.fill_null(pc.not_equal(normal.texts, sent.texts), fill_value=False)
            changed[column.name] = int(np.count_nonzero(sent.spread(is_changed.to_numpy(zero_copy_only=False))))
            if column.default is not None:
                normal = normal.map(partial(_filled, default=column.default(context)))
            cells[column.name] = normal
        return cells, changed

    def is_nobodys(self, raw: Mapping[str, pa.Array], text: Mapping[str, pa.Array], context: RowContext) -> pa.Array:
        """Return for each row whether no cell of it names its payer, or the payer stands for none: it may be anybody."""
        if not self.payer:
            return pa.repeat(False, len(text[self.amount]))
        payer, cells = self.by_name[self.payer], text[self.payer]
        if context.has_joined_payers:  # 1 of one numbering and 1 of another
            return pa.repeat(True, len(cells))
        nobodys = pc.match_substring_regex(cells, _NO_PAYER)
        if self.payer in context.translate:
            sent = payer.normalised(raw[self.payer], replace(context, translate={}))
            in_profile = pc.is_in(self.folded(cells), value_set=self.folded(pa.array(context.profile_payers, pa.string())))
            nobodys = pc.or_(nobodys, pc.or_(pc.not_equal(sent, cells), in_profile))
        return nobodys

    def folded(self, identities: pa.Array) -> pa.Array:
        """Return normalised cells of the identity column in the form in which they are unique."""
        return pc.utf8_lower(identities)

    def typed(self, text: Mapping[str, pa.Array], usable: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """Return the numbers and dates of normalised text; null where a cell is empty or not `usable`."""
        typed = {}
        for column in self.typed_columns:
            cells = text[column.name]
            known = pc.and_(usable[column.name], pc.not_equal(cells, ""))
            typed[column.name] = pc.cast(pc.if_else(known, cells, None), column.arrow_type)
        return typed


def _filled(cells: pa.Array, *, default: str) -> pa.Array:
    return pc.if_else(pc.equal(cells, ""), default, cells)

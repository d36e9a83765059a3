"""Decisions on a row that waits for one: which cells say that its order is charged, or that it is not.

They come from the choices of the client's profile, so that a person need not know its words. Nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pyarrow as pa

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.clients.row_choices import RowChoice
from orders_pipeline.intake.csv_file.chosen_rows import choice_places
from orders_pipeline.records.corrected_rows import UNDECIDED
from orders_pipeline.records.rejections import FileRejected

MOST_OFFERED = 4  # words of one meaning
MAY_BE_LEFT_OUT = {UNDECIDED, "R_REF_CONFLICT", "R_ORDER_INCOMPLETE"}

Cells = Sequence[tuple[int, str | None]]  # places with what is written there, None for what was there


@dataclass(frozen=True)
class Decision:
    """What a row becomes by cells that are written, and what these say; the word of a charged one may be empty."""

    is_charged: bool
    header: str
    word: str
    cells: Cells


@dataclass(frozen=True)
class Deciding:
    """The choices of a profile, by the places of the cells that they are about, under a file's header."""

    header: Sequence[str]
    skip: Mapping[int, Sequence[RowChoice]] = field(default_factory=dict)
    reject: Mapping[int, Sequence[RowChoice]] = field(default_factory=dict)

    @classmethod
    def of(cls, header: Sequence[str], profile: Profile) -> Deciding:
        """Return the choices of a profile, none where the file's header is not what it says by now."""
        with suppress(FileRejected):
            return cls(header, choice_places(header, profile.skip), choice_places(header, profile.reject))
        return cls(header)

    def offered(self, codes: Collection[str], places: Sequence[int]) -> list[Decision]:
        """Return what may be decided on a row that was rejected with these codes, and for the cells in some places."""
        if not MAY_BE_LEFT_OUT.intersection(codes):
            return []
        own = [at for at in places if at in self.skip]
        named = [(at, word) for at in own or self.skip for word in self._skipped_words(at)]
        left_out = [Decision(False, self.header[at], word, [(at, word)]) for at, word in named[:MOST_OFFERED]]
        offered = [*(self._charged(places) if UNDECIDED in codes else ()), *left_out]
        touched = dict.fromkeys(at for each in offered for at, _ in each.cells)
        return [replace(each, cells=[*each.cells, *_restored(touched, each.cells)]) for each in offered]

    def filled(self, codes: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield headers whose cells leave a row out that say anything but some words, with these."""
        for at, choices in self.skip.items() if MAY_BE_LEFT_OUT.intersection(codes) else ():
            for choice in choices:
                if choice.but is not None:
                    yield self.header[at], ", ".join(choice.but)

    def _skipped_words(self, at: int) -> list[str]:
        return [word for choice in self.skip[at] for word in choice.values or () if word]

    def _charged(self, places: Sequence[int]) -> list[Decision]:
        """Return how a row is charged for which cells in some places keep it back, if there is a way."""
        words = [next(self._plain_words(at), None) for at in places]
        if not places or None in words:
            return []
        headers = ", ".join(self.header[at] for at in places)
        return [Decision(True, headers, words[0] or "", [*zip(places, words, strict=True)])]

    def _plain_words(self, at: int) -> Iterator[str]:
        """Yield what a cell may say by which its row is neither skipped nor rejected: nothing, or an excepted word."""
        choices = [*self.skip.get(at, ()), *self.reject.get(at, ())]
        for word in ("", *(word for choice in choices for word in choice.but or ())):
            if not any(choice.matches(pa.array([word])).is_valid()[0].as_py() for choice in choices):
                yield word


def _restored(touched: Collection[int], cells: Cells) -> Cells:
    """Return those cells that other decisions write, so that one takes the place of another."""
    own = {at for at, _ in cells}
    return [(at, None) for at in touched if at not in own]
